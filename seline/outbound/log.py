"""The log as a sink: every alert is one line there, whatever else is set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from seline.domain.alerts.lifecycle import Alert, Severity
from seline.ports.alerts import Delivery

_LEVELS: Final[Mapping[Severity, int]] = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.CRITICAL: logging.ERROR,
}
_log = logging.getLogger("seline.alerts")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSink:
    """Writes alerts into the log."""

    name: str = "log"
    min_severity: Severity = Severity.INFO
    kind: str = "log"

    async def send(self, alert: Alert) -> Delivery:
        """Write one line; the level follows the severity, and what is resolved is information."""
        level = logging.INFO if alert.state == "resolved" else _LEVELS[alert.severity]
        _log.log(
            level,
            "%s",
            " ".join(f"{alert.summary} {alert.fix}".split()),
            extra={
                "alert": alert.type.value,
                "alert_id": alert.id,
                "state": alert.state,
                "severity": alert.severity.value,
                "document": alert.document,
                "count": alert.count,
            },
        )
        return Delivery(sink=self.name, kind=self.kind, delivered=True)
