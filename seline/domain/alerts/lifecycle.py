"""The life cycle of an alert: what opens it, when it is notified, and what closes it.

There is one state per (type, subject). An *event* happened at an instant; a *condition* lasts.

    state           | raised                        | time passes                | cleared
    ----------------+-------------------------------+----------------------------+--------------
    none, resolved  | open; notify [1]              |                            |
    open event      | count [1]; notify if worse    | notify if due [2], [3]     |
    open condition  | update; notify if worse [4]   | notify if due [2]          | resolve; notify

[1] Unless this occurrence is known. [2] `renotify` after the last notification: an event if it
happened again, a condition as long as it lasts; information and quiet conditions are not repeated.
[3] An event without a new occurrence for a day is resolved without a notification.
[4] Worse than at the last signal, if the condition has levels: a level that was left counts again.

Everything here is pure; `now` is an argument. The texts of an alert are added by `message.worded`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

from msgspec.structs import replace

from seline.domain.document import Json
from seline.domain.stored import Stored

QUIET: Final = timedelta(days=1)
"""After which an event without a new occurrence is resolved."""
RESOLVED_KEPT_FOR: Final = timedelta(days=7)
NEWS: Final = RESOLVED_KEPT_FOR - timedelta(days=1)
"""How old an occurrence may be when it is first reported: its alert is not forgotten before."""
RESOLVED_KEPT_MAX: Final = 1000
OPEN_OF_A_TYPE_MAX: Final = 100
BRIEF: Final = timedelta(minutes=1)
"""A condition that lasted less need not be notified afterwards, unless it was critical."""
UNSENT_BEGINNING: Final = "unsent_beginning"
"""The detail of the end of an alert whose beginning was not sent: the message has both."""


class AlertType(StrEnum):
    """What an alert is about."""

    RECOVERY = "recovery"
    UNRECOVERABLE_DOCUMENT = "unrecoverable_document"
    SERVED_FROM_MEMORY = "served_from_memory"
    BACKUP_DAMAGED = "backup_damaged"
    JOURNAL_DAMAGED = "journal_damaged"
    DISK_ERROR = "disk_error"
    ACCESS_REFUSED = "access_refused"
    WRITES_REFUSED = "writes_refused"
    WRONG_MOUNT = "wrong_mount"
    CHECKSUMS_UNSUPPORTED = "checksums_unsupported"
    BLANK_SAVE = "blank_save"
    PINS_SHED = "pins_shed"
    ANOTHER_WRITER = "another_writer"
    DOCUMENT_REMOVED = "document_removed"
    VOLUME_RESTORED = "volume_restored"
    COPY_UNREADABLE = "copy_unreadable"
    USAGE = "usage"
    DAYS_UNTIL_FULL = "days_until_full"
    DOCUMENT_LIMIT = "document_limit"
    JOB_FAILED = "job_failed"
    JOB_OVERDUE = "job_overdue"
    COPY_AT_RISK = "copy_at_risk"
    MANY = "many"
    DIGEST = "digest"
    TEST = "test"


class Severity(StrEnum):
    """How serious an alert is, the least first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """The position in this order."""
        return _RANKS[self]


_RANKS: Final[Mapping[Severity, int]] = {
    severity: rank for rank, severity in enumerate(Severity.__members__.values())
}


Course: TypeAlias = Literal["event", "condition", "quiet_condition"]
"""How a type of alert develops. A quiet condition is not repeated: no one can end it sooner."""


@dataclass(frozen=True, slots=True)
class AlertKind:
    """The row of an alert type: the usual severity, the course, and what the subject names.

    `rises_with` names a number in the details that makes an alert worse at the same severity.
    """

    severity: Severity
    course: Course
    about: Literal["document", "job", "destination", "type", ""] = ""
    rises_with: str = ""


KIND_OF: Final[Mapping[AlertType, AlertKind]] = {
    AlertType.RECOVERY: AlertKind(Severity.WARNING, "event", "document"),
    AlertType.UNRECOVERABLE_DOCUMENT: AlertKind(Severity.CRITICAL, "condition", "document"),
    AlertType.SERVED_FROM_MEMORY: AlertKind(Severity.CRITICAL, "event", "document"),
    AlertType.BACKUP_DAMAGED: AlertKind(
        Severity.WARNING, "quiet_condition", "document", rises_with="backups"
    ),
    AlertType.JOURNAL_DAMAGED: AlertKind(Severity.CRITICAL, "event"),
    AlertType.DISK_ERROR: AlertKind(Severity.CRITICAL, "event", "document"),
    AlertType.ACCESS_REFUSED: AlertKind(Severity.WARNING, "event", "document"),
    AlertType.WRITES_REFUSED: AlertKind(Severity.CRITICAL, "condition"),
    AlertType.WRONG_MOUNT: AlertKind(Severity.CRITICAL, "condition"),
    AlertType.CHECKSUMS_UNSUPPORTED: AlertKind(Severity.WARNING, "quiet_condition"),
    AlertType.BLANK_SAVE: AlertKind(Severity.WARNING, "event", rises_with="level"),
    AlertType.PINS_SHED: AlertKind(Severity.WARNING, "event"),
    AlertType.ANOTHER_WRITER: AlertKind(Severity.WARNING, "event", "document"),
    AlertType.DOCUMENT_REMOVED: AlertKind(Severity.WARNING, "event", "document"),
    AlertType.VOLUME_RESTORED: AlertKind(Severity.WARNING, "event"),
    AlertType.COPY_UNREADABLE: AlertKind(Severity.CRITICAL, "event"),
    AlertType.USAGE: AlertKind(Severity.WARNING, "condition", rises_with="level_percent"),
    AlertType.DAYS_UNTIL_FULL: AlertKind(Severity.WARNING, "condition"),
    AlertType.DOCUMENT_LIMIT: AlertKind(Severity.WARNING, "condition", rises_with="level_percent"),
    AlertType.JOB_FAILED: AlertKind(Severity.WARNING, "condition", "job"),
    AlertType.JOB_OVERDUE: AlertKind(Severity.WARNING, "condition", "job"),
    AlertType.COPY_AT_RISK: AlertKind(Severity.WARNING, "condition", "destination"),
    AlertType.MANY: AlertKind(Severity.CRITICAL, "event", "type"),
    AlertType.DIGEST: AlertKind(Severity.INFO, "event"),
    AlertType.TEST: AlertKind(Severity.INFO, "event"),
}


class Alert(Stored, frozen=True, kw_only=True):
    """An alert as `GET /alerts` and every sink show it.

    `id` is the same from the first notification to the resolution. `count` is the number of
    occurrences of an event, or of notifications of a condition. `details` are JSON values.
    `summary` and `fix` are in the language of the settings.
    """

    id: str
    type: AlertType
    severity: Severity
    state: Literal["open", "resolved"]
    document: str | None
    summary: str
    details: Mapping[str, Any]
    fix: str
    first_at: datetime
    last_at: datetime
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """A signal that something happened or lasts. `severity` None: the usual one of the type.

    `at` identifies the occurrence (None: now): an event that is not later than the last known one
    is the same, and an occurrence before the end of an alert does not open it again.
    """

    type: AlertType
    subject: str = ""
    severity: Severity | None = None
    details: Mapping[str, Json] = field(default_factory=dict[str, Json])
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """A signal that a condition is over."""

    type: AlertType
    subject: str = ""


Signal: TypeAlias = Raised | Cleared


_TOLD: Final = {f"notified_{field}": f"told_{field}" for field in ("at", "count", "rank")}
"""The names of these fields in `alerts.json`."""


class AlertState(Stored, frozen=True, kw_only=True, rename=_TOLD):
    """The state of one (type, subject): the alert, and what its notifications contained.

    The `notified_` fields describe the last notification. `worst` is the highest severity notified
    since the alert was opened: every sink that received it also receives the resolution.
    """

    subject: str
    alert: Alert
    notified_at: datetime
    notified_count: int
    notified_rank: int
    worst: Severity

    @property
    def key(self) -> tuple[AlertType, str]:
        """The (type, subject)."""
        return self.alert.type, self.subject

    @property
    def is_open(self) -> bool:
        return self.alert.state == "open"

    @property
    def course(self) -> Course:
        return KIND_OF[self.alert.type].course


class AlertsFile(Stored, frozen=True, kw_only=True):
    """The value of `alerts.json`: the states, and what waits for each known sink, in order."""

    format: Literal[1] = 1
    alerts: tuple[AlertState, ...]
    waiting: Mapping[str, tuple[Alert, ...]]


States: TypeAlias = Mapping[tuple[AlertType, str], AlertState]
Transition: TypeAlias = tuple[AlertState, bool]
"""The state after a signal, and whether to notify its alert now."""


def on_raised(
    state: AlertState | None, signal: Raised, *, now: datetime, renotify: timedelta
) -> Transition:
    """Open, count or update an alert."""
    at, kind = signal.at or now, KIND_OF[signal.type]
    event = kind.course == "event"
    if state is not None and (event or not state.is_open) and _is_known(state, at, now):
        return state, False
    if state is None or not state.is_open:
        return _opened(signal, at, now), True
    alert = replace(
        state.alert,
        severity=signal.severity or kind.severity,
        details=_details(signal),
        last_at=_later(state.alert.last_at, at, now),
        count=state.alert.count + event,
    )
    state = replace(state, alert=alert)
    if rank_of(alert) > state.notified_rank:
        return _notified(state, now), True
    if not event and kind.rises_with:  # a level that was left is notified when it is reached again
        state = replace(state, notified_rank=rank_of(alert))
    return on_time_passed(state, now=now, renotify=renotify)


def on_time_passed(state: AlertState, *, now: datetime, renotify: timedelta) -> Transition:
    """Notify an open alert again if it is due; resolve an event after a quiet day."""
    if not state.is_open:
        return state, False
    if _is_due(state, now, renotify):
        return _notified(state, now), True
    if state.course == "event" and now - state.alert.last_at >= max(QUIET, renotify):
        return replace(state, alert=replace(state.alert, state="resolved")), False
    return state, False


def on_cleared(state: AlertState, *, now: datetime) -> Transition:
    """Resolve an open condition, at the worst severity that was notified."""
    if not state.is_open or state.course == "event":
        return state, False
    alert = replace(
        state.alert,
        state="resolved",
        severity=state.worst,
        last_at=_later(state.alert.last_at, now, now),
    )
    return replace(state, alert=alert, notified_at=now), True


def unsent(begun: Alert, over: Alert) -> Alert | None:
    """Return what to send of a condition that is over before its beginning was sent.

    The end alone would be about what the receiver does not know. None: send neither.
    """
    is_brief = timedelta(0) <= over.last_at - begun.first_at < BRIEF
    if is_brief and over.severity is not Severity.CRITICAL:
        return None
    return replace(over, details={**over.details, UNSENT_BEGINNING: True})


def limited(states: States, signal: Raised, now: datetime) -> Raised:
    """Return the signal, or one of type `many` if too many alerts of its type are open.

    While `many` is open it covers every further subject, and an occurrence that it covered is not
    reported later.
    """
    at, known = signal.at or now, states.get((signal.type, signal.subject))
    if known is not None and (known.is_open or _is_known(known, at, now)):
        return signal
    many = states.get((AlertType.MANY, signal.type))
    if many is None or not (many.is_open or _is_known(many, at, now)):
        count = sum(state.is_open and state.alert.type is signal.type for state in states.values())
        if count < OPEN_OF_A_TYPE_MAX:
            return signal
    return Raised(type=AlertType.MANY, subject=signal.type.value, at=signal.at)


def retained(states: States, now: datetime) -> States:
    """Return the states without resolved alerts that are old, or the oldest of too many."""
    resolved = [state for state in states.values() if not state.is_open]
    resolved.sort(key=lambda state: state.alert.last_at)
    surplus = max(0, len(resolved) - RESOLVED_KEPT_MAX)
    dropped = {
        state.key
        for index, state in enumerate(resolved)
        if index < surplus or now - state.alert.last_at > RESOLVED_KEPT_FOR
    }
    return {key: state for key, state in states.items() if key not in dropped}


def trial(now: datetime) -> Alert:
    """Return the test alert."""
    return _opened(Raised(type=AlertType.TEST), now, now).alert


def rank_of(alert: Alert) -> int:
    """Return how bad an alert is: by its severity, then by the number it rises with."""
    number = alert.details.get(KIND_OF[alert.type].rises_with, 0)
    return alert.severity.rank * 1000 + (int(number) if isinstance(number, (int, float)) else 0)


def _opened(signal: Raised, at: datetime, now: datetime) -> AlertState:
    kind = KIND_OF[signal.type]
    identity = f"{signal.type}\n{signal.subject}\n{now.isoformat()}"
    alert = Alert(
        id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        type=signal.type,
        severity=signal.severity or kind.severity,
        state="open",
        document=signal.subject if kind.about == "document" and signal.subject else None,
        summary="",
        details=_details(signal),
        fix="",
        first_at=at,
        last_at=at,
        count=1,
    )
    return AlertState(
        subject=signal.subject,
        alert=alert,
        notified_at=now,
        notified_count=1,
        notified_rank=rank_of(alert),
        worst=alert.severity,
    )


def _is_known(state: AlertState, at: datetime, now: datetime) -> bool:
    """Whether an occurrence was counted; one later than now was, before the clock was set back."""
    return at > now or at <= state.alert.last_at <= now


def _is_due(state: AlertState, now: datetime, renotify: timedelta) -> bool:
    """Whether to notify again. A clock set back makes a condition due."""
    alert = state.alert
    if timedelta(0) <= now - state.notified_at < renotify:
        return False
    if state.course == "event":
        return alert.count > state.notified_count
    return state.course == "condition" and alert.severity is not Severity.INFO


def _notified(state: AlertState, now: datetime) -> AlertState:
    """Return the state after a repeated notification, which a condition counts."""
    alert = state.alert
    if state.course != "event":
        alert = replace(alert, count=alert.count + 1, last_at=_later(alert.last_at, now, now))
    return replace(
        state,
        alert=alert,
        notified_at=now,
        notified_count=alert.count,
        notified_rank=rank_of(alert),
        worst=max(state.worst, alert.severity, key=lambda severity: severity.rank),
    )


def _later(known: datetime, seen: datetime, now: datetime) -> datetime:
    """Return the later instant; a known one later than now comes from a wrong clock."""
    return seen if known > now else max(known, seen)


def _details(signal: Raised) -> Mapping[str, Json]:
    """Return the details, with the subject under the name of what it is."""
    about = KIND_OF[signal.type].about
    return {**signal.details, about: signal.subject} if about and signal.subject else signal.details
