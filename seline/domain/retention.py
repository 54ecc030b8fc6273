"""Which backups are kept, each with its reason; never fewer than the newest sound one (V8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from seline.domain.backup import Backup
from seline.domain.document import Revision

_COUNTED: Final = frozenset({"sound", "unchecked"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How many backups of one document are kept; pinned ones are not counted."""

    keep_newest: int = 5
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    bytes_max: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup that stays, and why."""

    backup: Backup
    because: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A backup that goes, and why."""

    backup: Backup
    because: str


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """Every backup of one document, either kept or dropped; both newest first."""

    keep: tuple[Kept, ...]
    drop: tuple[Dropped, ...]


_PERIODS: Final[tuple[tuple[str, Callable[[datetime], object]], ...]] = (
    ("hourly", lambda at: (at.date(), at.hour)),
    ("daily", lambda at: at.date()),
    ("weekly", lambda at: at.isocalendar()[:2]),
    ("monthly", lambda at: (at.year, at.month)),
)


def plan_retention(
    backups: Sequence[Backup],
    policy: RetentionPolicy,
    *,
    now: datetime,  # noqa: ARG001  # order decides, never the clock
    current_revision: Revision | None = None,
) -> RetentionPlan:
    """Decide for the backups of one document, in whatever order they come.

    Ordered by stamp, never by the clock: `now` is accepted for policies by age and moves nothing
    that order would keep. Broken backups are marked, not counted, and go once enough sound ones
    are kept. A backup with the content of its document or of a newer backup is none.
    """
    newest_first = sorted(backups, key=lambda backup: backup.stamp, reverse=True)
    twins = dict(_twins(newest_first, current_revision))
    counted = [
        backup
        for backup in newest_first
        if backup.verdict in _COUNTED and backup.name not in twins and not backup.pinned
    ]
    reasons = dict(_reasons(counted, policy))
    _hold_to_bytes(counted, reasons, policy.bytes_max)
    guarded = _newest_counted(newest_first, twins)
    if guarded is not None:
        reasons.setdefault(guarded.name, "newest sound")
    enough = len(reasons) >= max(policy.keep_newest, 1)
    keep: list[Kept] = []
    drop: list[Dropped] = []
    for backup in newest_first:
        if backup.pinned:
            keep.append(Kept(backup, f"pinned: {backup.because}" if backup.because else "pinned"))
        elif backup.name in twins:
            drop.append(Dropped(backup, twins[backup.name]))
        elif backup.name in reasons:
            keep.append(Kept(backup, reasons[backup.name]))
        elif backup.verdict not in _COUNTED and not enough:
            keep.append(Kept(backup, f"{backup.verdict}, and there are few sound ones"))
        else:
            drop.append(Dropped(backup, "older than the policy keeps"))
    return RetentionPlan(tuple(keep), tuple(drop))


def plan_shedding(
    by_document: Mapping[str, Sequence[Backup]], *, bytes_to_free: int
) -> tuple[Dropped, ...]:
    """Decide what to discard for want of space: the oldest first across all documents.

    Unpinned before pinned ones; never a document's newest sound backup.
    """
    candidates: list[Backup] = []
    for backups in by_document.values():
        newest_first = sorted(backups, key=lambda backup: backup.stamp, reverse=True)
        guarded = _newest_counted(newest_first, {})
        candidates += [backup for backup in newest_first if backup is not guarded]
    candidates.sort(key=lambda backup: (backup.pinned, backup.stamp))
    dropped: list[Dropped] = []
    freed = 0
    for backup in candidates:
        if freed >= bytes_to_free:
            break
        dropped.append(Dropped(backup, "the volume is nearly full"))
        freed += max(backup.size_bytes, 1)
    return tuple(dropped)


def without(backups: Sequence[Backup], name: str) -> RetentionPlan:
    """Plan to drop the one backup named, unless it is the newest sound one."""
    newest_first = sorted(backups, key=lambda backup: backup.stamp, reverse=True)
    guarded = _newest_counted(newest_first, {})
    drop = tuple(
        Dropped(backup, "asked for")
        for backup in newest_first
        if backup.name == name and backup is not guarded
    )
    gone = {dropped.backup.name for dropped in drop}
    keep = tuple(Kept(backup, "kept") for backup in newest_first if backup.name not in gone)
    return RetentionPlan(keep, drop)


def described(plan: RetentionPlan) -> list[Backup]:
    """Return the kept backups, each carrying its reason."""
    return [replace(kept.backup, because=kept.because) for kept in plan.keep]


def _twins(
    newest_first: Sequence[Backup], current_revision: Revision | None
) -> Iterator[tuple[str, str]]:
    seen: dict[Revision, str] = {}
    if current_revision is not None:
        seen[current_revision] = "the document"
    for backup in newest_first:
        if backup.revision is None or backup.verdict not in _COUNTED:
            continue
        if backup.revision in seen and not backup.pinned:
            yield backup.name, f"same content as {seen[backup.revision]}"
        else:
            seen.setdefault(backup.revision, backup.name)


def _reasons(counted: Sequence[Backup], policy: RetentionPolicy) -> Iterator[tuple[str, str]]:
    reasons: dict[str, str] = {}
    counts = (policy.keep_hourly, policy.keep_daily, policy.keep_weekly, policy.keep_monthly)
    for (word, period_of), count in zip(_PERIODS, counts, strict=True):
        seen: set[object] = set()
        for backup in counted:
            period = period_of(backup.taken_at)
            if len(seen) < count and period not in seen:
                seen.add(period)
                reasons.setdefault(backup.name, word)
    for backup in counted[: policy.keep_newest]:
        reasons[backup.name] = f"newest {policy.keep_newest}"
    yield from reasons.items()


def _hold_to_bytes(
    counted: Sequence[Backup], reasons: dict[str, str], bytes_max: int | None
) -> None:
    if bytes_max is None:
        return
    total = 0
    for position, backup in enumerate(b for b in counted if b.name in reasons):
        total += backup.size_bytes
        if position and total > bytes_max:
            del reasons[backup.name]


def _newest_counted(newest_first: Sequence[Backup], twins: Mapping[str, str]) -> Backup | None:
    for backup in newest_first:
        if backup.verdict in _COUNTED and backup.name not in twins:
            return backup
    return None
