"""Tell watchers of a change, and a person of an incident: its words, in one place, logged too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from seline.clock import Clock
from seline.domain.backup import Backup
from seline.domain.document import DocumentKey, Json
from seline.domain.incident import Incident, IncidentKind
from seline.domain.retention import Dropped
from seline.errors import StorageError
from seline.ports.store import Outcome
from seline.storage.planner import Found, Publish
from seline.storage.volume.os_errors import describe, is_full

_log = logging.getLogger("seline.storage")


@dataclass(slots=True)
class Events:
    """Tells what happens on the writer's thread."""

    clock: Clock
    tell: Callable[[Incident], None]
    notice: Callable[[DocumentKey, Outcome], None]

    def changed(self, key: DocumentKey, outcome: Outcome) -> None:
        """Tell the watchers of a change, which is durable, whatever they make of it."""
        try:
            self.notice(key, outcome)
        except Exception:  # noqa: BLE001  # none of them may undo what is durable
            _log.exception("a change of %s was not taken note of", key.name)

    def disk_error(self, error: OSError | StorageError, doing: str) -> None:
        """Tell what the disk said."""
        what = describe(error)
        _log.error("%s: %s", doing, what)
        kind = IncidentKind.NO_ROOM if is_full(error) else IncidentKind.DISK_ERROR
        self._tell(kind, f"{doing}: {what}")

    def remade(self, name: str) -> None:
        """Tell of a directory that had gone."""
        self._tell(
            IncidentKind.REMADE,
            f"{name}/ was removed, or moved away, while Seline was running; it was made again, "
            "empty.",
        )

    def shed(self, shed: Sequence[Dropped]) -> None:
        """Tell which backups made room."""
        size_bytes = sum(dropped.backup.size_bytes for dropped in shed)
        self._tell(
            IncidentKind.SHED,
            "The volume is nearly full, so old backups make room, never the newest sound one of a "
            f"document: first {len(shed)} of {size_bytes} bytes, from {shed[0].backup.name} on.",
            backups=[dropped.backup.name for dropped in shed],
        )

    def repaired(self, publish: Publish, now: datetime) -> bool:
        """Tell what became of a document that was not as Seline left it; True if recovered."""
        found = publish.found
        incident = _recovered(publish, now) if found.broken else _adopted(found, now)
        _log.warning("%s", incident.summary)
        self.tell(incident)
        return incident.kind is IncidentKind.RECOVERED

    def _tell(self, kind: IncidentKind, summary: str, **details: Json) -> None:
        """Tell of something that is no single document's."""
        self.tell(
            Incident(kind=kind, document="", at=self.clock.now(), summary=summary, details=details)
        )


def _recovered(publish: Publish, now: datetime) -> Incident:
    found, name = publish.found, publish.key.name
    if found.content is None or publish.content is None:
        return Incident(
            kind=IncidentKind.SET_ASIDE,
            document=name,
            at=now,
            summary=f"{name} was given up ({found.judged.reason}); its bytes are in quarantine.",
        )
    lost = "" if found.source is None else _lost_since(found.source)
    source = "memory" if found.source is None else f"backup {found.source.name}"
    return Incident(
        kind=IncidentKind.RECOVERED,
        document=name,
        at=now,
        summary=f"{name} was {found.judged.verdict} ({found.judged.reason}). It was recovered from "
        f"{source}; {f'lost: {lost}' if lost else 'nothing is lost'}. The broken bytes lie in "
        "quarantine.",
        lost=lost,
        details={"verdict": str(found.judged.verdict), "source": source},
    )


def _lost_since(source: Backup) -> str:
    return f"changes after {source.taken_at:%Y-%m-%d %H:%M:%S} UTC"


def _adopted(found: Found, now: datetime) -> Incident:
    return Incident(
        kind=IncidentKind.ADOPTED,
        document=found.key.name,
        at=now,
        summary=f"{found.key.name} was taken over as it lies there: {found.judged.reason}.",
    )
