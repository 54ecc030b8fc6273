"""`.seline/alerts.json`: what is remembered of alerts, and what still waits for each sink.

Instants are written whole, to the microsecond, because they tell occurrences apart. Reading raises
ValueError or KeyError where the document has another shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Literal, cast

from seline.clock import parse_instant
from seline.domain.alerts.lifecycle import Alert, AlertState, AlertType, Severity
from seline.domain.document import Json

FORMAT: Final = 1


def write_record(
    states: Iterable[AlertState], waiting: Mapping[str, Iterable[Alert]]
) -> dict[str, Json]:
    """Return the document's value; `waiting` goes by the sinks' names, in order of delivery."""
    return {
        "format": FORMAT,
        "alerts": [_write_state(state) for state in states],
        "waiting": {
            sink: [_write_alert(one) for one in alerts] for sink, alerts in waiting.items()
        },
    }


def read_record(value: Json) -> tuple[list[AlertState], dict[str, list[Alert]]]:
    """Return the states, and what waits by the sink's name."""
    record = _object(value)
    if record.get("format") != FORMAT:
        raise ValueError(f"alerts.json has format {record.get('format')!r}, not {FORMAT}")
    waiting = _object(record["waiting"])
    return (
        [_read_state(_object(item)) for item in _list(record["alerts"])],
        {
            sink: [_read_alert(_object(one)) for one in _list(kept)]
            for sink, kept in waiting.items()
        },
    )


def _write_state(state: AlertState) -> Json:
    return {
        "subject": state.subject,
        "alert": _write_alert(state.alert),
        "told_at": state.notified_at.isoformat(),
        "told_count": state.notified_count,
        "told_rank": state.notified_rank,
        "worst": state.worst.value,
    }


def _read_state(item: dict[str, Json]) -> AlertState:
    return AlertState(
        subject=str(item["subject"]),
        alert=_read_alert(_object(item["alert"])),
        notified_at=_instant(item["told_at"]),
        notified_count=_number(item["told_count"]),
        notified_rank=_number(item["told_rank"]),
        worst=Severity(str(item["worst"])),
    )


def _write_alert(alert: Alert) -> Json:
    return {
        "id": alert.id,
        "type": alert.type.value,
        "severity": alert.severity.value,
        "state": alert.state,
        "document": alert.document,
        "summary": alert.summary,
        "details": dict(alert.details),
        "fix": alert.fix,
        "first_at": alert.first_at.isoformat(),
        "last_at": alert.last_at.isoformat(),
        "count": alert.count,
    }


def _read_alert(item: dict[str, Json]) -> Alert:
    document = item["document"]
    return Alert(
        id=str(item["id"]),
        type=AlertType(str(item["type"])),
        severity=Severity(str(item["severity"])),
        state=_state(item["state"]),
        document=None if document is None else str(document),
        summary=str(item["summary"]),
        details=_object(item["details"]),
        fix=str(item["fix"]),
        first_at=_instant(item["first_at"]),
        last_at=_instant(item["last_at"]),
        count=_number(item["count"]),
    )


def _state(value: Json) -> Literal["open", "resolved"]:
    if value not in ("open", "resolved"):
        raise ValueError(f"{value!r} is no state of an alert")
    return cast("Literal['open', 'resolved']", value)


def _instant(value: Json) -> datetime:
    return parse_instant(str(value))


def _number(value: Json) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")  # noqa: TRY004  # a wrong shape
    return value


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ValueError("an object is missing")  # noqa: TRY004  # a wrong shape
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise ValueError("a list is missing")  # noqa: TRY004  # a wrong shape
    return value
