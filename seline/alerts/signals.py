"""From what Seline knows to alerts: incidents, findings, pins, usage, jobs, the volume itself.

The functions are pure and may be asked as often as one likes: what was told is not told again,
because each occurrence carries its instant and each standing trouble its name. `Watcher` asks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Final

from seline.alerts.log import Alerts
from seline.clock import instant_text
from seline.domain.alerts.lifecycle import (
    QUIET,
    Alert,
    AlertType,
    Cleared,
    Raised,
    Severity,
    Signal,
)
from seline.domain.backup import parse_backup_name
from seline.domain.document import BOT, DocumentKey, Json
from seline.domain.forecast import DAYS_WARN
from seline.domain.pins import BLANK, Pin
from seline.domain.report import Finding, VerifyReport
from seline.domain.usage import LEVELS, UsageLevel
from seline.errors import (
    SelineError,
    UnsupportedFormat,
    VolumeFailed,
    VolumeNotMounted,
    VolumeReadOnly,
)
from seline.manager import ManagedStore
from seline.operations import Operations
from seline.ports.store import HANGING_S, Capability, DocumentStore, Incident

CHECKSUMS: Final = "checksums"
LOOKS_BACK: Final = QUIET
"""What is older was told, or belongs to nobody's today: alerts that ended are forgotten later."""
FINDINGS_MAX: Final = 1000
"""Of one report; where there are more, the alert of many says so long before."""
OVER_EVERY_S: Final = 30.0
"""How often broken files are looked at again, to see whether they were mended: it reads them."""
DAYS_OVER: Final = 16.0
"""A guess wavers: between DAYS_WARN and this nothing new is said, and nothing is over."""
DAYS_CRITICAL: Final = 3.0

TYPE_OF_INCIDENT: Final[Mapping[str, AlertType | None]] = {
    "recovered": AlertType.RECOVERY,
    "unrecoverable": AlertType.UNRECOVERABLE_DOCUMENT,
    "served_from_memory": AlertType.SERVED_FROM_MEMORY,
    "journal_broken": AlertType.JOURNAL_DAMAGED,
    "disk_error": AlertType.DISK_ERROR,
    "blank_save": AlertType.BLANK_SAVE,
    "blank_save_unpinned": AlertType.BLANK_SAVE,
    "state_not_kept": None,
    "state_reset": None,
    "state_unreadable": None,
    "adopted": None,
    "edited_meanwhile": None,
    "set_aside": None,
    "remade": None,
    "shed": None,
    "no_room": None,
}
"""None: a person did it and knows, or it is told otherwise (a full volume, as usage). What is not
here is told as a disk error."""

TYPE_OF_OUTCOME: Final[Mapping[str, AlertType | None]] = {
    "unrecoverable": AlertType.UNRECOVERABLE_DOCUMENT,
    "unreadable": AlertType.DISK_ERROR,
    "failed": AlertType.DISK_ERROR,
    "marked": AlertType.BACKUP_DAMAGED,
    "recovered": None,
    "adopted": None,
    "unsettled": None,
}
"""By the outcome of a finding of verify. None: an incident tells it, or nobody need hear of it."""

TYPE_OF_TROUBLE: Final[Mapping[type[SelineError], AlertType]] = {
    VolumeNotMounted: AlertType.WRONG_MOUNT,
    VolumeFailed: AlertType.WRITES_REFUSED,
    VolumeReadOnly: AlertType.WRITES_REFUSED,
    UnsupportedFormat: AlertType.WRITES_REFUSED,
}
"""Why nothing is written. What is not here (waiting for another process, closing) is no alert."""

SEVERITY_OF_LEVEL: Final[Mapping[UsageLevel, Severity]] = {
    UsageLevel.HALF: Severity.INFO,
    UsageLevel.WARNING: Severity.WARNING,
    UsageLevel.HIGH: Severity.WARNING,
    UsageLevel.CRITICAL: Severity.CRITICAL,
}


def alerts_from(incidents: Iterable[Incident]) -> list[Signal]:
    """Translate what the store and the manager collected, oldest first."""
    return [
        Raised(
            type=kind,
            subject=incident.document,
            severity=Severity.CRITICAL if kind is AlertType.RECOVERY and incident.lost else None,
            details=_details(kind, incident),
            at=incident.at,
        )
        for incident in sorted(incidents, key=lambda incident: incident.at)
        if (kind := TYPE_OF_INCIDENT.get(incident.kind, AlertType.DISK_ERROR)) is not None
    ]


def alerts_from_pins(pins: Iterable[Pin], now: datetime) -> list[Signal]:
    """Tell of the blank saves of the last day (V11), each by the pin that it left."""
    return [
        Raised(
            type=AlertType.BLANK_SAVE,
            subject=pin.document,
            details={} if pin.until is None else {"until": f"{pin.until:%Y-%m-%d}"},
            at=pin.pinned_at,
        )
        for pin in pins
        if pin.because.startswith(BLANK) and now - pin.pinned_at <= QUIET
    ]


def alerts_from_report(report: VerifyReport) -> list[Raised]:
    """Tell of what verify found and no incident tells."""
    found = [
        Raised(
            type=kind,
            subject=finding.document,
            details={"verdict": finding.verdict, "what": finding.detail},
            at=finding.found_at,
        )
        for finding in report.findings
        if (kind := TYPE_OF_OUTCOME.get(finding.outcome)) is not None
        and kind is not AlertType.BACKUP_DAMAGED
    ]
    return [*found, *_damaged_backups(report)]


def alerts_from_capabilities(capabilities: Iterable[Capability]) -> list[Signal]:
    """Tell where the volume keeps no checksums."""
    missing = any(one.name == CHECKSUMS and not one.present for one in capabilities)
    kind = AlertType.CHECKSUMS_UNSUPPORTED
    return [Raised(type=kind) if missing else Cleared(type=kind)]


def alerts_from_trouble(trouble: SelineError | None, *, opened: bool = True) -> list[Signal]:
    """Tell why nothing is written, and that it is over where `trouble` is None.

    `opened`: the store is open, so that reads go on.
    """
    kind = None if trouble is None else TYPE_OF_TROUBLE.get(type(trouble))
    if trouble is not None and kind is not None:
        details: dict[str, Json] = {"what": trouble.message}
        if kind is AlertType.WRITES_REFUSED:
            retries = not isinstance(trouble, UnsupportedFormat)
            details |= {"reads": opened, "unopened": not opened, "retries": retries}
        return [Raised(type=kind, details=details)]
    over = sorted(set(TYPE_OF_TROUBLE.values())) if trouble is None else []
    return [Cleared(type=one) for one in over]


def alerts_from_usage(level: UsageLevel, ratio: float, *, of_files: bool = False) -> list[Signal]:
    """Tell the level of usage (after hysteresis) that the volume has reached.

    `of_files`: it is the number of files that runs out, not the bytes.
    """
    if level is UsageLevel.OK:
        return [Cleared(type=AlertType.USAGE)]
    details: dict[str, Json] = {
        "percent": round(ratio * 100, 1),
        "of_files": of_files,
        "level": level.value,
        "level_percent": round(LEVELS[level] * 100),
        "half": level is UsageLevel.HALF and not of_files,
        "sheds": level is UsageLevel.HIGH and not of_files,
        "refuses": level is UsageLevel.CRITICAL and not of_files,
    }
    return [Raised(type=AlertType.USAGE, severity=SEVERITY_OF_LEVEL[level], details=details)]


def alerts_from_days(days_until_full: float | None) -> list[Signal]:
    """Tell that the volume will be full within two weeks; None: nobody can say."""
    kind = AlertType.DAYS_UNTIL_FULL
    if days_until_full is None or days_until_full >= DAYS_OVER:
        return [Cleared(type=kind)]
    if days_until_full >= DAYS_WARN:
        return []
    severity = Severity.CRITICAL if days_until_full < DAYS_CRITICAL else Severity.WARNING
    return [Raised(type=kind, severity=severity, details={"days": max(1, round(days_until_full))})]


def alerts_from_run(job: str, *, succeeded: bool, detail: str = "") -> list[Signal]:
    """Tell how a run of a job ended; a success ends what was said of its failing or lateness."""
    if succeeded:
        return [
            Cleared(type=AlertType.JOB_FAILED, subject=job),
            Cleared(type=AlertType.JOB_OVERDUE, subject=job),
        ]
    return [Raised(type=AlertType.JOB_FAILED, subject=job, details={"what": detail})]


def alerts_from_lateness(job: str, last_success: datetime | None) -> list[Signal]:
    """Tell that a job is overdue, since its last success (None: there was none)."""
    details: dict[str, Json] = (
        {} if last_success is None else {"last_success": instant_text(last_success)}
    )
    return [Raised(type=AlertType.JOB_OVERDUE, subject=job, details=details)]


class Watcher:
    """Looks at one store, and lets its alerts know. `look` may be called at any interval."""

    def __init__(
        self, operations: Operations, alerts: Alerts, *, trouble: Callable[[], SelineError | None]
    ) -> None:
        """`trouble` says why the store is not open, None once it is."""
        self._operations = operations
        self._store = operations.store
        self._alerts = alerts
        self._trouble = trouble
        self._mended_due_s = 0.0
        self._told_of: VerifyReport | None = None

    async def look(self) -> None:
        """Let the alerts know what stands, what happened, and what is over."""
        trouble = self._trouble()
        if trouble is not None:
            await self._alerts.take(alerts_from_trouble(trouble, opened=False))
            return
        store = await self._store.open()
        await self._alerts.take([*self._seen(store), *await self._mended(store)])

    def _seen(self, store: DocumentStore) -> Iterator[Signal]:
        now, report = self._store.clock.now(), self._operations.verifier.report
        incidents = (
            one
            for one in self._store.incidents()
            if one.kind != "blank_save" and now - one.at <= LOOKS_BACK
        )
        yield from alerts_from(incidents)
        if report is not None and report is not self._told_of:
            self._told_of = report
            news = (seen for seen in alerts_from_report(report) if _is_of_late(seen, now))
            yield from islice(news, FINDINGS_MAX)
        yield from alerts_from_pins(self._store.pins.pins(), now)
        yield from alerts_from_capabilities(store.capabilities())
        yield from alerts_from_trouble(store.trouble() or _hanging(self._store))

    async def _mended(self, store: DocumentStore) -> list[Signal]:
        """Return what is said of documents and is not so any more, asked now and then."""
        suspects = [one for one in self._alerts.listing() if _may_be_over(one)]
        if not suspects or self._store.clock.monotonic() < self._mended_due_s:
            return []
        self._mended_due_s = self._store.clock.monotonic() + OVER_EVERY_S
        return await self._store.listing(lambda: _over(store, suspects))


def _is_of_late(seen: Raised, now: datetime) -> bool:
    return seen.at is None or now - seen.at <= LOOKS_BACK


def _hanging(store: ManagedStore) -> SelineError | None:
    """Say that the disk does not answer, once it is too long to be slowness."""
    if store.busy_s() < HANGING_S:
        return None
    return VolumeFailed(f"The disk has not answered for {HANGING_S:.0f} s; changes wait for it.")


def _may_be_over(alert: Alert) -> bool:
    return alert.state == "open" and alert.type in _IS_OVER and alert.document is not None


def _over(store: DocumentStore, suspects: Iterable[Alert]) -> list[Signal]:
    """Return the end of what is over. Blocks."""
    return [
        Cleared(type=one.type, subject=one.document or "")
        for one in suspects
        if _IS_OVER[one.type](store, DocumentKey(BOT, one.document or ""), one.details)
    ]


def _is_served(store: DocumentStore, key: DocumentKey, _details: Mapping[str, Json]) -> bool:
    return not store.look(key)[0].rule.damaged


def _are_gone(store: DocumentStore, key: DocumentKey, details: Mapping[str, Json]) -> bool:
    named = details.get("names")
    there = {backup.name for backup in store.backups(key)}
    return isinstance(named, list) and there.isdisjoint(map(str, named))


_IS_OVER: Final[
    Mapping[AlertType, Callable[[DocumentStore, DocumentKey, Mapping[str, Json]], bool]]
] = {
    AlertType.UNRECOVERABLE_DOCUMENT: _is_served,
    AlertType.BACKUP_DAMAGED: _are_gone,
}


def _damaged_backups(report: VerifyReport) -> Iterator[Raised]:
    by_document: dict[str, list[Finding]] = {}
    for finding in report.findings:
        if TYPE_OF_OUTCOME.get(finding.outcome) is AlertType.BACKUP_DAMAGED:
            by_document.setdefault(finding.document, []).append(finding)
    for document, findings in by_document.items():
        names: list[Json] = [finding.backup for finding in findings if finding.backup]
        details: dict[str, Json] = {"backups": len(names), "backup": names[0], "names": names}
        found_at = max(finding.found_at for finding in findings)
        yield Raised(type=AlertType.BACKUP_DAMAGED, subject=document, details=details, at=found_at)


def _details(kind: AlertType, incident: Incident) -> dict[str, Json]:
    """Return what the sentences need; a recovery's source says since when changes are lost."""
    if kind is not AlertType.RECOVERY:
        return {**incident.details, "what": incident.summary}
    source = str(incident.details.get("source", ""))
    backup = source.removeprefix("backup ") if source.startswith("backup ") else ""
    stamp = parse_backup_name(backup)
    taken_at = f"{stamp[1].instant:%Y-%m-%d %H:%M} UTC" if stamp else ""
    return {
        "verdict": incident.details.get("verdict", ""),
        "backup": backup,
        "from_memory": source == "memory",
        "lost_after": taken_at if incident.lost else "",
        "nothing_lost": not incident.lost,
    }
