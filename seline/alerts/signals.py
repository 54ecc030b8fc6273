"""From the state of the store, the jobs and the volume to signals for the alert log.

The functions have no state and can be called at any interval: the log recognizes an occurrence by
its instant and a condition by its subject, so a repeated signal causes no repeated notification.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from seline.clock import instant_text
from seline.domain.alerts.lifecycle import (
    NEWS,
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
from seline.domain.incident import Incident
from seline.domain.pins import Pin, is_blank
from seline.domain.report import Finding, FindingOutcome, VerifyReport
from seline.domain.usage import (
    DOCUMENTS_MARKS,
    DOCUMENTS_WARN,
    LEVEL_BACK_RATIO,
    LEVELS,
    STATUS_OF_LEVEL,
    UsageLevel,
)
from seline.domain.verdict import DAMAGED
from seline.errors import (
    ExportFailed,
    SelineError,
    UnsupportedFormat,
    VolumeFailed,
    VolumeNotMounted,
    VolumeReadOnly,
)
from seline.operations.destination_checks import DestinationCheck
from seline.ports.medium import Capability
from seline.ports.store import DocumentStore

CHECKSUMS: Final = "checksums"
FEW: Final = 8
FINDINGS_MAX: Final = 1000
"""Of one report. An alert of type `many` is open long before."""
DAYS_OVER: Final = 16.0
"""A forecast varies: between DAYS_WARN and this nothing is raised and nothing is cleared."""
DAYS_CRITICAL: Final = 3.0

TYPE_OF_FAILURE: Final[Mapping[type[SelineError], AlertType]] = {
    VolumeNotMounted: AlertType.WRONG_MOUNT,
    VolumeFailed: AlertType.WRITES_REFUSED,
    VolumeReadOnly: AlertType.WRITES_REFUSED,
    ExportFailed: AlertType.WRITES_REFUSED,
    UnsupportedFormat: AlertType.WRITES_REFUSED,
}
"""Why nothing can be written. Other reasons (waiting for another process, closing) are no alert."""

TYPE_OF_FINDING: Final[Mapping[FindingOutcome, AlertType]] = {
    FindingOutcome.UNRECOVERABLE: AlertType.UNRECOVERABLE_DOCUMENT,
    FindingOutcome.UNREADABLE: AlertType.ACCESS_REFUSED,
    FindingOutcome.FAILED: AlertType.DISK_ERROR,
}
"""What verify found in a document. Incidents report the other outcomes, or nothing does."""


def incident_signals(incidents: Iterable[Incident], now: datetime) -> list[Signal]:
    """Return the signals of the last days' incidents, oldest first."""
    recent = (incident for incident in incidents if now - incident.at <= NEWS)
    return [
        Raised(
            type=alert_type,
            subject=incident.document,
            severity=_incident_severity(alert_type, incident),
            details=_incident_details(alert_type, incident),
            at=incident.at,
        )
        for incident in sorted(recent, key=lambda incident: incident.at)
        if (alert_type := incident.rule.alert) is not None
    ]


def pin_signals(pins: Iterable[Pin], now: datetime) -> list[Signal]:
    """Return one signal that names every document blanked within a day of the last one (V11)."""
    blanked = sorted(
        (pin for pin in pins if is_blank(pin) and pin.pinned_at <= now),
        key=lambda pin: pin.pinned_at,
    )
    if not blanked or now - blanked[-1].pinned_at > NEWS:
        return []
    last_at = blanked[-1].pinned_at
    recent = [pin for pin in blanked if last_at - pin.pinned_at <= QUIET]
    documents = list(dict.fromkeys(pin.document for pin in reversed(recent)))
    untils = [f"{pin.until:%Y-%m-%d}" for pin in recent if pin.until is not None]
    details: dict[str, Json] = {
        "documents": list(documents),
        "newest": documents[0],
        "level": _level(len(documents)),
        "until": min(untils, default=""),
    }
    return [Raised(type=AlertType.BLANK_SAVE, details=details, at=last_at)]


def _level(count: int) -> int:
    """Return a number that rises with each of the first documents, then when they double."""
    return count if count <= FEW else FEW + (count // FEW).bit_length() - 1


def report_signals(report: VerifyReport, now: datetime) -> list[Signal]:
    """Return the signals of the last days' findings that no incident reports."""
    signals: list[Signal] = [
        Raised(
            type=alert_type,
            subject=finding.document,
            details={"verdict": finding.verdict, "what": finding.detail},
            at=finding.found_at,
        )
        for finding in report.findings
        if (alert_type := TYPE_OF_FINDING.get(finding.outcome)) is not None
        and now - finding.found_at <= NEWS
    ]
    return [*signals, *_damaged_backup_signals(report, now)][:FINDINGS_MAX]


def capability_signals(capabilities: Iterable[Capability]) -> list[Signal]:
    """Return the signal of a volume with or without checksums."""
    missing = any(
        capability.name == CHECKSUMS and not capability.present for capability in capabilities
    )
    alert_type = AlertType.CHECKSUMS_UNSUPPORTED
    return [Raised(type=alert_type) if missing else Cleared(type=alert_type)]


def failure_signals(failure: SelineError | None, *, opened: bool = True) -> list[Signal]:
    """Return the signals of why nothing can be written; None clears every such alert.

    `opened`: the store is open, so reads still work.
    """
    if failure is None:
        return [Cleared(type=cleared) for cleared in sorted(set(TYPE_OF_FAILURE.values()))]
    alert_type = TYPE_OF_FAILURE.get(type(failure))
    if alert_type is None:
        return []
    details: dict[str, Json] = {"what": failure.message}
    if isinstance(failure, ExportFailed):  # only the destination's next step helps
        details["what"] = f"{failure.message} {failure.hint}"
    if alert_type is AlertType.WRITES_REFUSED:
        retries = not isinstance(failure, UnsupportedFormat)
        details |= {"reads": opened, "unopened": not opened, "retries": retries}
    return [Raised(type=alert_type, details=details)]


def usage_signals(
    level: UsageLevel,
    ratio: float,
    *,
    of_files: bool = False,
    shared: bool = False,
    refused: bool = False,
) -> list[Signal]:
    """Return the signal of a level of usage (after hysteresis).

    `of_files`: the number of files limits the volume, not the bytes. `shared`: it is the machine's
    own disk. `refused`: the next save does not fit.
    """
    if level is UsageLevel.OK:
        return [Cleared(type=AlertType.USAGE)]
    details: dict[str, Json] = {
        "percent": round(ratio * 100, 1),
        "of_files": of_files,
        "level": level.value,
        "level_percent": round(LEVELS[level] * 100),
        "shared": shared,
        "half": level is UsageLevel.HALF and not of_files and not shared,
        "sheds": level is UsageLevel.HIGH and not of_files and not shared,
        "refuses": refused or (level is UsageLevel.CRITICAL and not of_files),
    }
    severity = Severity(STATUS_OF_LEVEL[level])
    return [Raised(type=AlertType.USAGE, severity=severity, details=details)]


def document_limit_signals(documents: int, documents_max: int) -> list[Signal]:
    """Return the signal of how many of the documents that the settings allow exist."""
    alert_type, ratio = AlertType.DOCUMENT_LIMIT, documents / documents_max
    if ratio < DOCUMENTS_WARN - LEVEL_BACK_RATIO:
        return [Cleared(type=alert_type)]
    mark = next((mark for mark in DOCUMENTS_MARKS if ratio >= mark), None)
    if mark is None:
        return []
    reached = documents >= documents_max
    details: dict[str, Json] = {
        "documents": documents,
        "documents_max": documents_max,
        "level_percent": round(mark * 100),
        "reached": reached,
    }
    severity = Severity.CRITICAL if reached else Severity.WARNING
    return [Raised(type=alert_type, severity=severity, details=details)]


def forecast_signals(days_until_full: float | None) -> list[Signal]:
    """Return the signal of a volume that will be full within two weeks; None: no forecast."""
    alert_type = AlertType.DAYS_UNTIL_FULL
    if days_until_full is None or days_until_full >= DAYS_OVER:
        return [Cleared(type=alert_type)]
    if days_until_full >= DAYS_WARN:
        return []
    severity = Severity.CRITICAL if days_until_full < DAYS_CRITICAL else Severity.WARNING
    return [
        Raised(type=alert_type, severity=severity, details={"days": max(1, round(days_until_full))})
    ]


def run_signals(job: str, *, succeeded: bool, detail: str = "", fix: str = "") -> list[Signal]:
    """Return the signals of a job's run; a success clears its failure and its lateness.

    `fix` is the next step where another run would fail as well.
    """
    if succeeded:
        return job_over_signals(job)
    details: dict[str, Json] = {"what": detail}
    if fix:
        details["fix"] = fix
    return [Raised(type=AlertType.JOB_FAILED, subject=job, details=details)]


def overdue_signals(job: str, last_success: datetime | None) -> list[Signal]:
    """Return the signal of an overdue job. `last_success` None: it never succeeded."""
    details: dict[str, Json] = (
        {} if last_success is None else {"last_success": instant_text(last_success)}
    )
    return [Raised(type=AlertType.JOB_OVERDUE, subject=job, details=details)]


def job_over_signals(job: str) -> list[Signal]:
    """Return the signals that clear every alert about a job."""
    return [
        Cleared(type=AlertType.JOB_FAILED, subject=job),
        Cleared(type=AlertType.JOB_OVERDUE, subject=job),
    ]


def copy_signals(checks: Iterable[DestinationCheck], alerts: Iterable[Alert]) -> list[Signal]:
    """Return the signal of each destination: what is wrong there and no job's failure reports.

    The alert about a destination that is no longer configured is cleared. While a job fails there
    it stays as it is: the failure hides what else is wrong.
    """
    signals: dict[str, Signal] = {}
    for alert in alerts:
        if alert.type is AlertType.COPY_AT_RISK and alert.state == "open":
            name = str(alert.details.get("destination", ""))
            signals[name] = Cleared(type=AlertType.COPY_AT_RISK, subject=name)
    for check in checks:
        problems = [problem for problem in check.problems if not problem.by_job]
        details: dict[str, Json] = {
            "what": "; ".join(problem.detail for problem in problems),
            "fix": " ".join(dict.fromkeys(problem.fix for problem in problems)),
        }
        if problems:
            signals[check.name] = Raised(
                type=AlertType.COPY_AT_RISK, subject=check.name, details=details
            )
        elif check.problems:
            signals.pop(check.name, None)
    return list(signals.values())


def may_be_over(alert: Alert) -> bool:
    """Whether `over_signals` can decide if an alert's condition is over."""
    decidable = (AlertType.UNRECOVERABLE_DOCUMENT, AlertType.BACKUP_DAMAGED)
    return alert.state == "open" and alert.type in decidable and alert.document is not None


def over_signals(store: DocumentStore, alerts: Sequence[Alert]) -> list[Signal]:
    """Return the signals that clear the alerts whose condition is over. Reads files; blocks."""
    return [
        Cleared(type=alert.type, subject=alert.document or "")
        for alert in alerts
        if _is_over(store, alert)
    ]


def _is_over(store: DocumentStore, alert: Alert) -> bool:
    """Whether the document can be served again, or every damaged backup is gone."""
    key = DocumentKey(BOT, alert.document or "")
    if alert.type is AlertType.UNRECOVERABLE_DOCUMENT:
        return store.look(key)[0].verdict not in DAMAGED
    damaged = alert.details.get("names")
    present = {backup.name for backup in store.backups(key)}
    return isinstance(damaged, list) and present.isdisjoint(map(str, damaged))


def _damaged_backup_signals(report: VerifyReport, now: datetime) -> Iterator[Signal]:
    """Yield one signal per document with damaged backups, at the instant of the last finding."""
    by_document: dict[str, list[Finding]] = {}
    for finding in report.findings:
        if finding.outcome is FindingOutcome.MARKED:
            by_document.setdefault(finding.document, []).append(finding)
    for document, findings in by_document.items():
        names: list[Json] = [finding.backup for finding in findings if finding.backup]
        details: dict[str, Json] = {"backups": len(names), "backup": names[0], "names": names}
        found_at = max(finding.found_at for finding in findings)
        if now - found_at <= NEWS:
            yield Raised(
                type=AlertType.BACKUP_DAMAGED, subject=document, details=details, at=found_at
            )


def _incident_severity(alert_type: AlertType, incident: Incident) -> Severity | None:
    """Return CRITICAL for an incident that lost changes, None for the usual severity."""
    loses = (AlertType.RECOVERY, AlertType.DOCUMENT_REMOVED)
    lossy = alert_type in loses and incident.lost
    return Severity.CRITICAL if lossy else None


def _incident_details(alert_type: AlertType, incident: Incident) -> dict[str, Json]:
    """Return the details that the sentences need."""
    if alert_type is AlertType.BLANK_SAVE:
        return {"documents": [incident.document], "newest": incident.document}
    if alert_type is not AlertType.RECOVERY:
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
        "flaw": incident.details.get("flaw", ""),
        "item": incident.details.get("item", ""),
    }
