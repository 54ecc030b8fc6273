"""The checks of health: one row and one function each.

A function returns a status, the detail and the fix, or None where there is nothing to report. What
is not configured or not yet due is `info`. A row that asks the disk is left out while the disk does
not answer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from seline.clock import instant_text
from seline.domain.document import BOT, SELINE, DocumentKey
from seline.domain.forecast import DAYS_WARN, forecast_text
from seline.domain.incident import Incident, IncidentKind
from seline.domain.pins import LOST
from seline.domain.plural import counted, shortened
from seline.domain.purged import HeldCopy, held_text
from seline.domain.report import Check, FindingOutcome, Status, nothing_runs
from seline.domain.usage import DOCUMENTS_WARN, STATUS_OF_LEVEL, Usage, level_of
from seline.domain.verdict import DAMAGED, Verdict, unrecoverable_step
from seline.errors import SelineError, TooManyDocuments
from seline.manager.managed_store import ManagedStore
from seline.operations.destination_checks import DestinationCheck
from seline.operations.exports import Exporter
from seline.operations.make_room import make_room, no_step_yet
from seline.operations.usage import Headroom, UsageMonitor
from seline.operations.verify import Verifier
from seline.ports.alerts import SinkStatus
from seline.ports.medium import HANGING_S, SLOW_S
from seline.ports.store import DocumentStore
from seline.settings.values import Exports

RECENT: Final = timedelta(days=1)
LEFT_OUT: Final = "left_out"
LINES_MAX: Final = 3
"""Documents whose reason and next step are shown."""
_RANK: Final = (Status.OK, Status.INFO, Status.WARNING, Status.CRITICAL)
Result: TypeAlias = tuple[Status, str, str] | None
"""The status, the detail and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What health is made from. `ask_disk`: the disk answers; else `usage` is the last one.

    `sinks` is empty in a process that sends no alerts; `is_held` is False in one command's.
    """

    managed: ManagedStore
    store: DocumentStore
    usage: Usage
    backup_count: int
    room: Headroom
    verifier: Verifier
    monitor: UsageMonitor
    exports: Exporter
    destinations: Sequence[DestinationCheck]
    sinks: Sequence[SinkStatus]
    is_held: bool
    ask_disk: bool
    now: datetime


def run_checks(facts: Facts) -> list[Check]:
    """Return the result of every check. Blocks if `ask_disk`."""
    checks: list[Check] = []
    for name, function, asks_disk in ROWS:
        if asks_disk and not facts.ask_disk:
            result = _unanswered(facts) if name == "writing" else None
        else:
            result = function(facts)
        if result is not None:
            status, detail, fix = result
            checks.append(Check(name=name, status=status, detail=detail, fix=fix))
    return [*checks, *_incidents(facts)]


def worst(checks: Iterable[Check]) -> Status:
    """Return the worst status of the checks."""
    return max((check.status for check in checks), key=_RANK.index)


def _writing(facts: Facts) -> Result:
    failure = facts.store.medium.unavailable()
    if failure is not None:
        return Status.CRITICAL, failure.message, failure.hint
    if facts.managed.busy_s() > SLOW_S:
        return _unanswered(facts)
    if facts.room.refused_bytes:
        needed = f"{-(-facts.room.refused_bytes // 1024)} KB"
        detail = (
            f"a save that adds {needed} is refused, for want of room; deletes and restores work"
        )
        return Status.CRITICAL, detail, make_room(facts.usage, facts.room)
    forms = [form for form in facts.store.medium.capabilities() if form.name == "commit"]
    detail = f"changes are taken ({forms[0].detail})" if forms else "changes are taken"
    return Status.OK, detail, ""


def _unanswered(facts: Facts) -> Result:
    busy_s = facts.managed.busy_s()
    status = Status.WARNING if busy_s < HANGING_S else Status.CRITICAL
    detail = f"the disk has not answered for {busy_s:.0f} s; what needs it waits"
    return status, detail, "Wait; if it stays so, the volume hangs: ask its provider."


def _usage(facts: Facts) -> Result:
    usage, forecast = facts.usage, facts.monitor.forecast
    detail = f"{usage.usage_ratio:.1%} of the {_place(usage)} is used"
    if forecast is not None:
        detail += f"; full {forecast_text(forecast)}"
    soon = Status.WARNING if forecast is not None and forecast.days < DAYS_WARN else Status.OK
    lacks_bytes = facts.room.refused_bytes and usage.inodes_free != 0
    of_bytes = STATUS_OF_LEVEL[level_of(usage.bytes_level_ratio)]
    level = Status.CRITICAL if lacks_bytes else of_bytes
    status = max(level, soon, key=_RANK.index)
    if status in (Status.OK, Status.INFO):
        return status, detail, no_step_yet(usage) if status is Status.INFO else ""
    return status, detail, make_room(usage, facts.room)


def _place(usage: Usage) -> str:
    shared = "disk" if usage.usage_ratio > usage.refusal_ratio else "limit"
    return "volume" if usage.own_mount else shared


def _inodes(facts: Facts) -> Result:
    usage = facts.usage
    if not usage.inodes_total or usage.inodes_free is None:
        return Status.OK, "not limited here", ""
    status = STATUS_OF_LEVEL[level_of(usage.inodes_ratio)]
    detail = f"{usage.inodes_free} of {usage.inodes_total} files can still be made"
    if status in (Status.OK, Status.INFO):
        return status, detail, ""
    return status, detail, make_room(usage, facts.room, of_files=True)


def _document_limit(facts: Facts) -> Result:
    documents, most = facts.usage.documents, facts.managed.settings.storage.documents_max
    if documents < DOCUMENTS_WARN * most:
        return None
    detail = f"{documents} of {most} documents"
    if documents < most:
        return Status.WARNING, detail, TooManyDocuments.hint
    return Status.CRITICAL, f"{detail}; no new one is taken", TooManyDocuments.hint


def _pins(facts: Facts) -> Result:
    if facts.managed.pins.failure is not None:
        detail = "the pins cannot be read, so no backup is rotated"
        return Status.WARNING, detail, "Restore or remove .seline/pins.json, then restart."
    pins = facts.managed.pins.pins()
    lost = sum(pin.because.startswith(LOST) for pin in pins)
    if lost:
        detail = f"the pins were lost, so {counted(lost, 'older backup')} stay pinned"
        fix = "Pin what you need with `seline pin`, and release the others with `seline unpin`."
        return Status.WARNING, detail, fix
    return Status.OK, f"{counted(len(pins), 'content')} pinned", ""


def _foreign_backups(facts: Facts) -> Result:
    count = facts.store.medium.foreign_backup_count(BOT)
    if not count:
        return None
    erased = f"a purge of the document erases {'it' if count == 1 else 'them'}"
    detail = f"{counted(count, 'file')} in backups/ not written by Seline: never rotated; {erased}"
    fix = "`seline backups NAME` shows which; remove by hand what you do not need."
    return Status.INFO, detail, fix


def _left_out(facts: Facts) -> Result:
    """Report what the data directory holds that Seline does not keep."""
    found = facts.store.medium.left_out()
    if not found:
        return None
    names = shortened([item.name for item in found])
    if len(found) == 1:
        return Status.INFO, f"not kept by Seline: {names}: {found[0].reason}", found[0].hint
    fix = "`seline verify` lists each with the reason and its next step."
    return Status.INFO, f"{len(found):,} names are not kept by Seline: {names}", fix


def _integrity(facts: Facts) -> Result:
    report, last_full_at = facts.verifier.report, facts.verifier.last_full_at
    if report is None and last_full_at is None:
        return Status.INFO, "nothing was verified yet", "Run `seline verify`."
    if report is None:
        return Status.OK, f"everything was verified on {last_full_at:%Y-%m-%d %H:%M} UTC", ""
    marked = sum(found.outcome is FindingOutcome.MARKED for found in report.findings)
    if marked:
        detail = f"{counted(marked, 'damaged backup')}, not counted any more"
        fix = "They are replaced as the documents are saved; `seline backups NAME` shows them."
        return Status.WARNING, detail, fix
    documents, backups = counted(report.documents, "document"), counted(report.backups, "backup")
    return Status.OK, f"{documents} and {backups} verified", ""


def _exports(facts: Facts) -> Result:
    found = facts.destinations
    if not found:
        fix = "Name a folder on another disk in `exports.destinations`."
        return Status.INFO, "off: nothing is kept beyond this volume", fix
    details = [check.detail for check in found]
    details += [*_encryption(facts.managed.settings.exports), *_purged(facts.exports)]
    fixes = dict.fromkeys(fix for check in found for fix in check.fixes if fix)
    return (
        max((check.status for check in found), key=_RANK.index),
        "\n".join(details),
        "\n".join(fixes),
    )


def _purged(exports: Exporter) -> list[str]:
    """Return which copies may still hold documents that were purged, by destination."""
    names: dict[tuple[str, bool], dict[str, HeldCopy]] = {}
    for entry, held in exports.purges.known():
        for copy in held:
            names.setdefault((copy.destination, copy.until is None), {})[entry.name] = copy
    lines: list[str] = []
    for (destination, _), copies in names.items():
        last = list(copies.values())[-1]
        until = None if last.until is None else instant_text(last.until)
        text = held_text(destination, until, last.newer_exports)
        lines.append(f"{shortened(list(copies))}, which was purged, may be in {text}")
    return lines


def _encryption(exports: Exports) -> list[str]:
    """Return what the encryption of copies protects against, if they are encrypted."""
    if exports.passphrase:
        return [
            "encrypted with a passphrase: who knows the variables of this service can read them"
        ]
    return ["encrypted: this service cannot read them"] if exports.encrypt_to else []


def _jobs(facts: Facts) -> Result:
    """Report a process that runs no jobs and sends no alerts; it may have sinks to send them to."""
    if facts.sinks:
        return None
    expected = facts.managed.settings.alerts.sinks
    return nothing_runs(Status.WARNING if expected else Status.INFO, is_held=facts.is_held)


def _alerts(facts: Facts) -> Result:
    failing = [sink for sink in facts.sinks if sink.failures]
    if failing:
        detail = "; ".join(
            f"{sink.name} does not take alerts: {sink.detail}, {counted(sink.waiting, 'alert')}"
            f" waiting, {sink.given_up} dropped"
            for sink in failing
        )
        fix = "Correct `alerts.sinks` and restart; `seline alerts test` shows each sink's answer."
        return Status.WARNING, detail, fix
    if all(sink.kind == "log" for sink in facts.sinks):
        fix = "Set `alerts.sinks`, so that a person receives them."
        return (Status.INFO, "only the log receives alerts", fix) if facts.sinks else None
    return Status.OK, f"{counted(len(facts.sinks), 'sink')}, none is failing", ""


def _volume(facts: Facts) -> Result:
    missing = [
        capability for capability in facts.store.medium.capabilities() if not capability.present
    ]
    if not missing:
        return Status.OK, "it can do everything Seline needs", ""
    detail = "; ".join(f"{capability.name}: {capability.detail}" for capability in missing)
    if all(capability.harmless for capability in missing):
        return Status.INFO, detail, ""
    fix = "Put the data directory on a local ext4 (with its journal), xfs or btrfs volume."
    return Status.WARNING, detail, fix


def _journal(facts: Facts) -> Result:
    """Report the documents whose content only the journal has."""
    names = facts.store.medium.unpublished()
    if not names:
        return None
    failure = facts.store.medium.unavailable()
    detail = f"{counted(len(names), 'document')} only in the journal: {shortened(names)}"
    fix = (
        "Reads and copies have them, and their files are tried each second. Another check here "
        "names what refuses a file: correct that."
    )
    return Status.WARNING, detail, failure.hint if failure else fix


def _documents(facts: Facts) -> Result:
    """Report the documents that cannot be served, which a read or a verify has found."""
    suspects = facts.verifier.unserved | {
        incident.document
        for incident in facts.managed.incidents()
        if incident.document and incident.rule.unserved
    }
    lines = {name: _line_of(facts.store, name) for name in sorted(suspects)}
    broken = {name: line for name, line in lines.items() if line is not None}
    if not broken:
        return Status.OK, "none is known to be broken", ""
    shown = list(broken.values())[:LINES_MAX]
    if len(broken) > LINES_MAX:
        shown.append(f"and {len(broken) - LINES_MAX:,} more: `seline verify` lists each.")
    return Status.CRITICAL, f"cannot be served: {shortened(list(broken))}", "\n".join(shown)


def _line_of(store: DocumentStore, document: str) -> str | None:
    """Return why a document cannot be served, and the next step; None for any other."""
    try:
        judged, _ = store.look(DocumentKey(BOT, document))
    except SelineError as error:
        return f"{document}: {error.message} Next: {error.hint}"
    if judged.verdict not in DAMAGED:
        return None
    step = unrecoverable_step(document, judged)
    if judged.verdict is Verdict.UNREADABLE and judged.cure is not None:
        step = judged.cure.hint
    return f"{document}: {judged.reason}. Next: {step}"


def _quarantine(facts: Facts) -> Result:
    """Report what was quarantined within a day, also by an earlier process."""
    recent = [
        item for item in facts.store.medium.quarantine() if item.taken_at >= facts.now - RECENT
    ]
    if not recent:
        return Status.OK, "nothing was set aside lately", ""
    names = shortened(sorted({item.document for item in recent}))
    detail = f"{counted(len(recent), 'file')} set aside within a day: {names}"
    fix = "Look at them with `seline quarantine`; if no one edited them, ask the volume's provider."
    return Status.WARNING, detail, fix


def _reserve(facts: Facts) -> Result:
    if facts.store.medium.has_reserve():
        return None
    detail = "the emergency space is not there; it comes back when there is room"
    return Status.WARNING, detail, make_room(facts.usage, facts.room)


ROWS: Final[tuple[tuple[str, Callable[[Facts], Result], bool], ...]] = (
    ("writing", _writing, True),
    ("usage", _usage, False),
    ("inodes", _inodes, False),
    ("document_limit", _document_limit, False),
    ("pins", _pins, False),
    ("integrity", _integrity, False),
    ("exports", _exports, False),
    ("jobs", _jobs, False),
    ("alerts", _alerts, False),
    ("volume", _volume, False),
    ("journal", _journal, False),
    ("documents", _documents, True),
    ("quarantine", _quarantine, True),
    ("reserve", _reserve, True),
    ("foreign_backups", _foreign_backups, True),
    (LEFT_OUT, _left_out, True),
)
"""The name of a check, its function, and whether it asks the disk."""


_STATES: Final = (IncidentKind.UNRECOVERABLE, IncidentKind.ACCESS_REFUSED, IncidentKind.NO_ROOM)
"""Shown while they last, if the disk answers; `documents` shows the bot's documents."""


def _incidents(facts: Facts) -> list[Check]:
    """Return one check for each incident of the last day."""
    return [
        Check(
            name=incident.kind,
            status=incident.rule.status,
            detail=f"{instant_text(incident.at)} {incident.summary}",
            fix=incident.rule.fix,
        )
        for incident in facts.managed.incidents()
        if incident.at >= facts.now - RECENT and _is_shown(facts, incident)
    ]


def _is_shown(facts: Facts, incident: Incident) -> bool:
    """Whether an incident happened, or is a state that lasts and that no other check shows.

    One that put an item into quarantine happened.
    """
    is_state = incident.kind in _STATES and "item" not in incident.details
    if not (facts.ask_disk and is_state):
        return True
    if not incident.document:
        return facts.store.medium.lasts(incident)
    try:
        judged, _ = facts.store.look(DocumentKey(SELINE, incident.document))
    except SelineError:
        return True
    return judged.verdict in DAMAGED
