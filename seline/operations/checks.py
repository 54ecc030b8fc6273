"""The checks of health: one function each, and the table of all of them.

A new check is a function from `Facts` to a `Check`, and its line in a table. What is not
configured or not yet due is `info`. A check in `FROM_MEMORY` asks no disk, so health can answer
while the disk does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from seline.clock import instant_text
from seline.domain.document import BOT, DocumentKey
from seline.domain.forecast import DAYS_WARN, forecast_text
from seline.domain.pins import LOST
from seline.domain.plural import counted
from seline.domain.report import Check, FindingOutcome, Status
from seline.domain.usage import Usage, UsageLevel, level_of
from seline.errors import DocumentUnrecoverable, SelineError
from seline.manager.managed_store import ManagedStore
from seline.operations.exports import Exporter
from seline.operations.usage import UsageMonitor
from seline.operations.verify import Verifier
from seline.ports.store import HANGING_S, SLOW_S, DocumentStore

RECENT: Final = timedelta(days=1)
NAMES_SHOWN_MAX: Final = 10
_RANK: Final = (Status.OK, Status.INFO, Status.WARNING, Status.CRITICAL)

_STATUS_OF_LEVEL: Final = {
    UsageLevel.OK: Status.OK,
    UsageLevel.HALF: Status.INFO,
    UsageLevel.WARNING: Status.WARNING,
    UsageLevel.HIGH: Status.WARNING,
    UsageLevel.CRITICAL: Status.CRITICAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the checks look at."""

    managed: ManagedStore
    store: DocumentStore
    usage: Usage
    verifier: Verifier
    monitor: UsageMonitor
    exports: Exporter
    now: datetime


def worst(checks: Iterable[Check]) -> Status:
    """Return the worst status of the checks."""
    return max((check.status for check in checks), key=_RANK.index)


def unanswered(busy_s: float) -> Check:
    """Return the check for a disk that has not answered for `busy_s`."""
    return Check(
        name="writing",
        status=Status.WARNING if busy_s < HANGING_S else Status.CRITICAL,
        detail=f"the disk has not answered for {busy_s:.0f} s; what needs it waits",
        fix="Wait; if it stays so, the volume hangs: ask its provider.",
    )


# from memory


def _usage(facts: Facts) -> Iterable[Check]:
    ratio, forecast = facts.usage.usage_ratio, facts.monitor.forecast
    detail = f"{ratio:.1%} of the volume is used"
    if forecast is not None:
        detail += f"; full {forecast_text(forecast)}"
    soon = Status.WARNING if forecast is not None and forecast.days < DAYS_WARN else Status.OK
    status = max(_STATUS_OF_LEVEL[level_of(ratio)], soon, key=_RANK.index)
    fix = "Free space with `seline prune`, delete documents, or enlarge the volume."
    yield Check(name="usage", status=status, detail=detail, fix="" if status is Status.OK else fix)


def _inodes(facts: Facts) -> Iterable[Check]:
    usage = facts.usage
    if not usage.inodes_total or usage.inodes_free is None:
        yield Check(name="inodes", status=Status.OK, detail="not limited here")
        return
    status = _STATUS_OF_LEVEL[level_of(usage.inodes_ratio)]
    fix = "Keep fewer backups, delete documents or other files, or enlarge the volume."
    yield Check(
        name="inodes",
        status=status,
        detail=f"{usage.inodes_free} of {usage.inodes_total} files can still be made",
        fix="" if status in (Status.OK, Status.INFO) else fix,
    )


def _incidents(facts: Facts) -> Iterable[Check]:
    """Yield one check for each incident of the last day."""
    for incident in facts.managed.incidents():
        if incident.at >= facts.now - RECENT:
            yield Check(
                name=incident.kind,
                status=incident.rule.status,
                detail=f"{instant_text(incident.at)} {incident.summary}",
                fix=incident.rule.fix,
            )


def _pins(facts: Facts) -> Iterable[Check]:
    if facts.managed.pins.failure is not None:
        yield Check(
            name="pins",
            status=Status.WARNING,
            detail="the pins cannot be read, so no backup is rotated",
            fix="Restore or remove .seline/pins.json, then restart.",
        )
        return
    pins = facts.managed.pins.pins()
    lost = [pin for pin in pins if pin.because.startswith(LOST)]
    if lost:
        yield Check(
            name="pins",
            status=Status.WARNING,
            detail=f"the pins were lost, so {counted(len(lost), 'older backup')} stay pinned",
            fix="Pin what you need with `seline pin`, and release the others with `seline unpin`.",
        )
        return
    yield Check(name="pins", status=Status.OK, detail=f"{counted(len(pins), 'content')} pinned")


def _integrity(facts: Facts) -> Iterable[Check]:
    report, last_full_at = facts.verifier.report, facts.verifier.last_full_at
    if report is None:
        if last_full_at is None:
            yield Check(
                name="integrity",
                status=Status.INFO,
                detail="nothing was verified yet",
                fix="Run `seline verify`.",
            )
        else:
            detail = f"everything was verified on {last_full_at:%Y-%m-%d %H:%M} UTC"
            yield Check(name="integrity", status=Status.OK, detail=detail)
        return
    marked = [found for found in report.findings if found.outcome is FindingOutcome.MARKED]
    if marked:
        yield Check(
            name="integrity",
            status=Status.WARNING,
            detail=f"{counted(len(marked), 'damaged backup')}, not counted any more",
            fix="They are replaced as the documents are saved; `seline backups NAME` shows them.",
        )
        return
    documents, backups = counted(report.documents, "document"), counted(report.backups, "backup")
    yield Check(name="integrity", status=Status.OK, detail=f"{documents} and {backups} verified")


def _exports(facts: Facts) -> Iterable[Check]:
    yield facts.exports.check()


def _volume(facts: Facts) -> Iterable[Check]:
    missing = [capability for capability in facts.store.capabilities() if not capability.present]
    if not missing:
        yield Check(name="volume", status=Status.OK, detail="it can do everything Seline needs")
        return
    yield Check(
        name="volume",
        status=Status.WARNING,
        detail="; ".join(f"{missed.name}: {missed.detail}" for missed in missing),
        fix="Put the data directory on a local ext4 (with its journal), xfs or btrfs volume.",
    )


# from the disk


def _writing(facts: Facts) -> Iterable[Check]:
    trouble, busy_s = facts.store.trouble(), facts.managed.busy_s()
    if trouble is not None:
        yield Check(
            name="writing", status=Status.CRITICAL, detail=trouble.message, fix=trouble.hint
        )
    elif busy_s > SLOW_S:
        yield unanswered(busy_s)
    else:
        yield Check(name="writing", status=Status.OK, detail="changes are taken")


def _documents(facts: Facts) -> Iterable[Check]:
    """Yield the documents that cannot be served, which a read or a verify has found."""
    suspects = facts.verifier.unserved | {
        incident.document
        for incident in facts.managed.incidents()
        if incident.document and incident.rule.unserved
    }
    broken = [name for name in sorted(suspects) if _is_broken(facts.store, name)]
    if not broken:
        yield Check(name="documents", status=Status.OK, detail="none is known to be broken")
        return
    yield Check(
        name="documents",
        status=Status.CRITICAL,
        detail=f"cannot be served: {', '.join(broken[:NAMES_SHOWN_MAX])}",
        fix=DocumentUnrecoverable.hint,
    )


def _is_broken(store: DocumentStore, document: str) -> bool:
    try:
        judged, _ = store.look(DocumentKey(BOT, document))
    except SelineError:
        return True
    return judged.rule.damaged


def _quarantine(facts: Facts) -> Iterable[Check]:
    """Yield what was quarantined within a day, also by an earlier process."""
    recent = [item for item in facts.store.quarantine() if item.taken_at >= facts.now - RECENT]
    if not recent:
        yield Check(name="quarantine", status=Status.OK, detail="nothing was set aside lately")
        return
    names = ", ".join(sorted({item.document for item in recent})[:NAMES_SHOWN_MAX])
    yield Check(
        name="quarantine",
        status=Status.WARNING,
        detail=f"{counted(len(recent), 'broken file')} set aside within a day: {names}",
        fix="Look at them with `seline quarantine`, and ask the volume's provider.",
    )


def _reserve(facts: Facts) -> Iterable[Check]:
    if not facts.store.has_reserve():
        yield Check(
            name="reserve",
            status=Status.WARNING,
            detail="the emergency space is not there; it comes back when there is room",
            fix="Free space with `seline prune`, or enlarge the volume.",
        )


CheckFunction: TypeAlias = Callable[[Facts], Iterable[Check]]
FROM_MEMORY: Final[tuple[CheckFunction, ...]] = (
    _usage,
    _inodes,
    _incidents,
    _pins,
    _integrity,
    _exports,
    _volume,
)
ALL: Final[tuple[CheckFunction, ...]] = (
    _writing,
    *FROM_MEMORY,
    _documents,
    _quarantine,
    _reserve,
)
