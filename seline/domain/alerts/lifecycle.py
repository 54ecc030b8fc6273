"""Alerts: what a person hears of, and when: raised, repeated while it lasts, resolved.

There is one state per (type, subject). An *event* happened: it is told again after `renotify` only
if it happened again, and ends unsaid after a quiet day. What *stands* is told again after
`renotify` until it is resolved, which is told too. Something worse is told at once.
The sentences stand in `alert_words`; everything here is pure, `now` is an argument.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from seline.domain.alerts.words import resolution, wording
from seline.domain.document import Json
from seline.domain.texts import Language

QUIET: Final = timedelta(days=1)
RESOLVED_KEPT_FOR: Final = timedelta(days=7)
RESOLVED_KEPT_MAX: Final = 100
OPEN_OF_A_TYPE_MAX: Final = 25


class AlertType(StrEnum):
    """What there is to hear of."""

    RECOVERY = "recovery"
    UNRECOVERABLE_DOCUMENT = "unrecoverable_document"
    SERVED_FROM_MEMORY = "served_from_memory"
    BACKUP_DAMAGED = "backup_damaged"
    JOURNAL_DAMAGED = "journal_damaged"
    DISK_ERROR = "disk_error"
    WRITES_REFUSED = "writes_refused"
    WRONG_MOUNT = "wrong_mount"
    CHECKSUMS_UNSUPPORTED = "checksums_unsupported"
    BLANK_SAVE = "blank_save"
    USAGE = "usage"
    DAYS_UNTIL_FULL = "days_until_full"
    JOB_FAILED = "job_failed"
    JOB_OVERDUE = "job_overdue"
    MANY = "many"
    TEST = "test"


class Severity(StrEnum):
    """How much it matters, the least first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Its place in the order."""
        return _RANKS[self]


_RANKS: Final[Mapping[Severity, int]] = {
    severity: rank for rank, severity in enumerate(Severity.__members__.values())
}


class Course(StrEnum):
    """How a type of alert goes on once it was told."""

    EVENT = "event"
    STANDS = "stands"
    STANDS_QUIETLY = "stands_quietly"
    """It lasts and nobody can hurry it: told once, and when it is over."""


State: TypeAlias = Literal["open", "resolved"]
About: TypeAlias = Literal["document", "job", "type", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertKind:
    """A row of the table: the usual severity, the course, and what the subject names.

    `rises_with` names a detail, a number, whose rise is news although the severity is the same.
    """

    severity: Severity
    course: Course
    about: About = ""
    rises_with: str = ""


KIND_OF: Final[Mapping[AlertType, AlertKind]] = {
    AlertType.RECOVERY: AlertKind(severity=Severity.WARNING, course=Course.EVENT, about="document"),
    AlertType.UNRECOVERABLE_DOCUMENT: AlertKind(
        severity=Severity.CRITICAL, course=Course.STANDS, about="document"
    ),
    AlertType.SERVED_FROM_MEMORY: AlertKind(
        severity=Severity.CRITICAL, course=Course.EVENT, about="document"
    ),
    AlertType.BACKUP_DAMAGED: AlertKind(
        severity=Severity.WARNING,
        course=Course.STANDS_QUIETLY,
        about="document",
        rises_with="backups",
    ),
    AlertType.JOURNAL_DAMAGED: AlertKind(severity=Severity.CRITICAL, course=Course.EVENT),
    AlertType.DISK_ERROR: AlertKind(
        severity=Severity.CRITICAL, course=Course.EVENT, about="document"
    ),
    AlertType.WRITES_REFUSED: AlertKind(severity=Severity.CRITICAL, course=Course.STANDS),
    AlertType.WRONG_MOUNT: AlertKind(severity=Severity.CRITICAL, course=Course.STANDS),
    AlertType.CHECKSUMS_UNSUPPORTED: AlertKind(
        severity=Severity.WARNING, course=Course.STANDS_QUIETLY
    ),
    AlertType.BLANK_SAVE: AlertKind(
        severity=Severity.WARNING, course=Course.EVENT, about="document"
    ),
    AlertType.USAGE: AlertKind(
        severity=Severity.WARNING, course=Course.STANDS, rises_with="level_percent"
    ),
    AlertType.DAYS_UNTIL_FULL: AlertKind(severity=Severity.WARNING, course=Course.STANDS),
    AlertType.JOB_FAILED: AlertKind(severity=Severity.WARNING, course=Course.STANDS, about="job"),
    AlertType.JOB_OVERDUE: AlertKind(severity=Severity.WARNING, course=Course.STANDS, about="job"),
    AlertType.MANY: AlertKind(severity=Severity.CRITICAL, course=Course.EVENT, about="type"),
    AlertType.TEST: AlertKind(severity=Severity.INFO, course=Course.EVENT),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert as it is told: the shape of `GET /alerts` and of every sink.

    `id` is the same from the first telling to the resolved one. `count` is how often it happened,
    or how often what stands was told. `summary` and `fix` are in the language of the settings.
    """

    id: str
    type: AlertType
    severity: Severity
    state: State
    document: str | None
    summary: str
    details: Mapping[str, Json]
    fix: str
    first_at: datetime
    last_at: datetime
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """Something that a person should hear of was seen. `severity` None: the type's usual one.

    `at` tells occurrences apart: an event that is not later than the last one known is the same,
    and what was seen before its end does not open it again.
    """

    type: AlertType
    subject: str = ""
    severity: Severity | None = None
    details: Mapping[str, Json] = field(default_factory=dict[str, Json])
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """Something no longer stands."""

    type: AlertType
    subject: str = ""


Signal: TypeAlias = Raised | Cleared


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertState:
    """What is remembered of one (type, subject): the alert, and what was told of it.

    `told_at`, `told_count` and `told_rank` belong to the last telling; `worst` is the gravest
    severity told since it was opened: whoever heard of that hears of the end.
    """

    subject: str
    alert: Alert
    told_at: datetime
    told_count: int
    told_rank: int
    worst: Severity

    @property
    def key(self) -> tuple[AlertType, str]:
        return self.alert.type, self.subject

    @property
    def open(self) -> bool:
        return self.alert.state == "open"


@dataclass(frozen=True, slots=True)
class Transition:
    """What becomes of a standing, and whether a person hears of it now."""

    standing: AlertState
    told: bool


def raised(
    before: AlertState | None,
    seen: Raised,
    *,
    now: datetime,
    renotify: timedelta,
    language: Language = "en",
) -> Transition:
    """Return what a sighting makes of what was known of its (type, subject)."""
    at = seen.at or now
    event = KIND_OF[seen.type].course is Course.EVENT
    if before is not None and (event or not before.open) and _is_known(before, at, now):
        return Transition(before, told=False)
    if before is None or not before.open:
        return Transition(_opened(seen, at, now, language), told=True)
    alert = _worded(
        before.alert,
        severity=seen.severity or KIND_OF[seen.type].severity,
        details=_details(seen),
        last_at=_later(before.alert.last_at, at, now),
        count=before.alert.count + event,
        language=language,
    )
    standing = replace(before, alert=alert)
    if rank_of(alert) > before.told_rank:
        return Transition(_told(standing, now, again=not event), told=True)
    return repeated(standing, now=now, renotify=renotify)


def repeated(standing: AlertState, *, now: datetime, renotify: timedelta) -> Transition:
    """Tell an open alert again if it is due; end an event after a quiet day."""
    if not standing.open:
        return Transition(standing, told=False)
    event = KIND_OF[standing.alert.type].course is Course.EVENT
    if _due(standing, now, renotify):
        return Transition(_told(standing, now, again=not event), told=True)
    if event and now - standing.alert.last_at >= max(QUIET, renotify):
        return Transition(
            replace(standing, alert=replace(standing.alert, state="resolved")), told=False
        )
    return Transition(standing, told=False)


def resolved(standing: AlertState, *, now: datetime, language: Language = "en") -> Transition:
    """End an alert; whoever heard of it hears of the end. An event only ends by itself."""
    if not standing.open or KIND_OF[standing.alert.type].course is Course.EVENT:
        return Transition(standing, told=False)
    alert = replace(
        standing.alert,
        state="resolved",
        severity=standing.worst,
        summary=resolution(standing.alert.type, standing.alert.details, language),
        fix="",
        last_at=_later(standing.alert.last_at, now, now),
    )
    return Transition(replace(standing, alert=alert, told_at=now), told=True)


def crowded(standings: Mapping[tuple[AlertType, str], AlertState], seen: Raised) -> Raised:
    """Return the sighting, or one of `many` where too many of its type are open already."""
    known = standings.get((seen.type, seen.subject))
    if known is not None and known.open:
        return seen
    count = sum(one.open and one.alert.type is seen.type for one in standings.values())
    if count < OPEN_OF_A_TYPE_MAX:
        return seen
    return Raised(type=AlertType.MANY, subject=seen.type.value, at=seen.at)


def forgotten(standings: Mapping[tuple[AlertType, str], AlertState], now: datetime) -> set[str]:
    """Return the ids of resolved alerts that are old, or too many to keep, the oldest first."""
    ended = sorted(
        (one for one in standings.values() if not one.open), key=lambda one: one.alert.last_at
    )
    surplus = max(0, len(ended) - RESOLVED_KEPT_MAX)
    return {
        one.alert.id
        for index, one in enumerate(ended)
        if index < surplus or now - one.alert.last_at > RESOLVED_KEPT_FOR
    }


def trial(now: datetime, language: Language = "en") -> Alert:
    """Return the test alert."""
    return _opened(Raised(type=AlertType.TEST), now, now, language).alert


def rank_of(alert: Alert) -> int:
    """Return how bad an alert is: its severity first, then what it rises with."""
    risen = alert.details.get(KIND_OF[alert.type].rises_with, 0)
    return alert.severity.rank * 1000 + (int(risen) if isinstance(risen, (int, float)) else 0)


def reworded(alert: Alert, language: Language) -> Alert:
    """Return the alert in another language."""
    if alert.state == "resolved" and not alert.fix:
        return replace(alert, summary=resolution(alert.type, alert.details, language))
    summary, fix = wording(alert.type, alert.details, language)
    return replace(alert, summary=summary, fix=fix)


def _opened(seen: Raised, at: datetime, now: datetime, language: Language) -> AlertState:
    kind = KIND_OF[seen.type]
    severity = seen.severity or kind.severity
    summary, fix = wording(seen.type, _details(seen), language)
    alert = Alert(
        id=_id(seen, now),
        type=seen.type,
        severity=severity,
        state="open",
        document=seen.subject if kind.about == "document" and seen.subject else None,
        summary=summary,
        details=_details(seen),
        fix=fix,
        first_at=at,
        last_at=at,
        count=1,
    )
    return AlertState(
        subject=seen.subject,
        alert=alert,
        told_at=now,
        told_count=1,
        told_rank=rank_of(alert),
        worst=severity,
    )


def _is_known(standing: AlertState, at: datetime, now: datetime) -> bool:
    """Whether an occurrence was told of; one ahead of now was, before the clock was set back."""
    return at > now or at <= standing.alert.last_at <= now


def _due(standing: AlertState, now: datetime, renotify: timedelta) -> bool:
    """Whether to tell it again. What only informs is told once; a clock set back tells again."""
    alert = standing.alert
    if timedelta(0) <= now - standing.told_at < renotify:
        return False
    if KIND_OF[alert.type].course is Course.EVENT:
        return alert.count > standing.told_count
    return KIND_OF[alert.type].course is Course.STANDS and alert.severity is not Severity.INFO


def _told(standing: AlertState, now: datetime, *, again: bool) -> AlertState:
    """Return the standing as just told; `again` counts the telling of what stands."""
    alert = standing.alert
    if again:
        alert = replace(alert, count=alert.count + 1, last_at=_later(alert.last_at, now, now))
    return replace(
        standing,
        alert=alert,
        told_at=now,
        told_count=alert.count,
        told_rank=rank_of(alert),
        worst=max(standing.worst, alert.severity, key=lambda severity: severity.rank),
    )


def _later(known: datetime, seen: datetime, now: datetime) -> datetime:
    """Return the later instant; one that lies ahead of now is of a clock that was wrong."""
    return seen if known > now else max(known, seen)


def _worded(
    alert: Alert,
    *,
    severity: Severity,
    details: Mapping[str, Json],
    last_at: datetime,
    count: int,
    language: Language,
) -> Alert:
    summary, fix = wording(alert.type, details, language)
    return replace(
        alert,
        severity=severity,
        details=details,
        summary=summary,
        fix=fix,
        last_at=last_at,
        count=count,
    )


def _details(seen: Raised) -> Mapping[str, Json]:
    """Return the details with the subject under the name of what it is."""
    about = KIND_OF[seen.type].about
    return {**seen.details, about: seen.subject} if about and seen.subject else seen.details


def _id(seen: Raised, now: datetime) -> str:
    text = f"{seen.type}\n{seen.subject}\n{now.isoformat()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
