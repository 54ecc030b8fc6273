"""The incidents that the manager itself reports, beside those of the store."""

import logging
from collections import deque
from datetime import timedelta
from typing import Final

from seline.clock import Clock
from seline.domain.incident import Incident, IncidentKind

REPEATED_AFTER: Final = timedelta(days=1)
INCIDENTS_MAX: Final = 200
_log = logging.getLogger("seline.manager")


class Incidents:
    """The newest incidents, each kind at most once a day per document. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noted: deque[Incident] = deque(maxlen=INCIDENTS_MAX)

    def note(self, kind: IncidentKind, document: str, summary: str) -> None:
        """Report an incident: log it, and keep it for health and the alerts."""
        now = self._clock.now()
        if any(
            noted.kind == kind and noted.document == document and now - noted.at < REPEATED_AFTER
            for noted in tuple(self._noted)
        ):
            return
        _log.warning("%s", summary)
        self._noted.append(Incident(kind=kind, document=document, at=now, summary=summary))

    def noted(self) -> list[Incident]:
        """Return the incidents, oldest first."""
        return list(self._noted)
