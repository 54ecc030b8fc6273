"""Which backups of a document are kept, each with its reason.

V8  The newest sound backup is always kept, whatever the policy, the sizes and the clock. A backup
    that nobody has looked at counts as sound here: whoever carries a plan out verifies the newest
    that it keeps before anything is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import chain
from typing import Final

from seline.domain.backup import Backup
from seline.domain.document import Revision

_COUNTED: Final = frozenset({"sound", "unchecked"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How many backups of one document are kept; pinned ones are not counted.

    `keep_hourly=24` keeps the newest backup of each of the last 24 hours that have one, and so on
    for days, ISO weeks and months (UTC). `bytes_max` bounds what the unpinned ones take together.
    Raises ValueError for a negative number.
    """

    keep_newest: int = 5
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    bytes_max: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if (getattr(self, field.name) or 0) < 0:
                raise ValueError(f"{field.name} is negative")


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


def plan_retention(
    backups: Sequence[Backup],
    policy: RetentionPolicy,
    *,
    now: datetime,  # noqa: ARG001  # order decides, never the clock (a clock far ahead costs nothing)
    current_revision: Revision | None = None,
) -> RetentionPlan:
    """Decide for the backups of one document, in whatever order they come.

    Pinned ones stay and are not counted. Broken ones are not counted either, and stay until
    `keep_newest` sound ones are there; without a sound one everything stays. One with the content
    of its document (`current_revision`) or of a newer backup is none: it goes, and is not counted,
    unless it is all there is. Over `bytes_max` the broken ones go first, then the oldest.
    """
    newest_first = sorted(backups, key=_order, reverse=True)
    twins = _twins(newest_first, current_revision)
    guarded = _newest_sound(newest_first, twins)
    unpinned = [backup for backup in newest_first if not backup.pinned]
    counted = [backup for backup in unpinned if _counts(backup) and backup.name not in twins]
    wanted = _wanted(counted, policy)
    if guarded is not None and not guarded.pinned:
        wanted.setdefault(guarded.name, "newest sound")
    if len(counted) < max(policy.keep_newest, 1) or guarded is None:
        wanted |= {backup.name: _few_sound(backup) for backup in unpinned if not _counts(backup)}
    over = _over_budget(unpinned, wanted, guarded, policy.bytes_max)
    keep: list[Kept] = []
    drop: list[Dropped] = []
    for backup in newest_first:
        if backup.pinned:
            keep.append(Kept(backup, f"pinned: {backup.because}" if backup.because else "pinned"))
        elif backup.name in over:
            drop.append(Dropped(backup, f"over {policy.bytes_max} bytes"))
        elif backup.name in wanted:
            keep.append(Kept(backup, wanted[backup.name]))
        else:
            drop.append(Dropped(backup, twins.get(backup.name) or _unwanted(backup)))
    return RetentionPlan(tuple(keep), tuple(drop))


def plan_shedding(
    backups_by_document: Mapping[str, Sequence[Backup]], *, bytes_to_free: int
) -> tuple[Dropped, ...]:
    """Decide what to discard for want of space: the oldest first across all documents.

    Unpinned ones before pinned ones; never a document's newest sound backup, nor anything of a
    document that has no sound one.
    """
    dropped: list[Dropped] = []
    freed_bytes = 0
    candidates = chain.from_iterable(map(_sheddable, backups_by_document.values()))
    for backup in sorted(candidates, key=lambda backup: (backup.pinned, *_order(backup))):
        if freed_bytes >= bytes_to_free:
            break
        dropped.append(Dropped(backup, "the volume is nearly full"))
        freed_bytes += backup.size_bytes
    return tuple(dropped)


def _order(backup: Backup) -> tuple[object, ...]:
    return (backup.stamp, backup.document)


def _counts(backup: Backup) -> bool:
    return backup.verdict in _COUNTED


def _few_sound(backup: Backup) -> str:
    return f"{backup.verdict}, but there are few sound ones"


def _unwanted(backup: Backup) -> str:
    return "older than the policy keeps" if _counts(backup) else f"{backup.verdict}"


def _sheddable(backups: Sequence[Backup]) -> Iterator[Backup]:
    guarded = _newest_sound(sorted(backups, key=_order, reverse=True), {})
    if guarded is not None:
        yield from (backup for backup in backups if backup is not guarded)


def _newest_sound(newest_first: Sequence[Backup], twins: Mapping[str, str]) -> Backup | None:
    """Return the one never to remove: a twin of the document itself only if there is no other."""
    sound = [backup for backup in newest_first if _counts(backup)]
    return next(chain((b for b in sound if b.name not in twins), sound), None)


def _twins(newest_first: Iterable[Backup], current_revision: Revision | None) -> dict[str, str]:
    """Return why each backup is none whose content a newer one or the document holds.

    A verified backup is no twin of an unchecked one, which may have rotted under its checksum.
    """
    twins: dict[str, str] = {}
    holders: dict[Revision, tuple[str, str]] = {}
    if current_revision is not None:
        holders[current_revision] = ("its document", "sound")
    for backup in newest_first:
        if backup.revision is None or not _counts(backup):
            continue
        holder, verdict = holders.setdefault(backup.revision, (backup.name, backup.verdict))
        if holder != backup.name and not backup.pinned and verdict in ("sound", backup.verdict):
            twins[backup.name] = f"same content as {holder}"
    return twins


_PERIODS: Final[Mapping[str, Callable[[datetime], object]]] = {
    "hourly": lambda at: (at.date(), at.hour),
    "daily": lambda at: at.date(),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
}


def _wanted(counted: Sequence[Backup], policy: RetentionPolicy) -> dict[str, str]:
    """Return why the policy wants each backup that it wants, by name."""
    reasons: dict[str, list[str]] = {}
    for backup in counted[: policy.keep_newest]:
        reasons.setdefault(backup.name, []).append(f"newest {policy.keep_newest}")
    for word, period_of in _PERIODS.items():
        newest_of: dict[object, Backup] = {}
        for backup in counted:
            newest_of.setdefault(period_of(backup.taken_at), backup)
        for backup in list(newest_of.values())[: getattr(policy, f"keep_{word}")]:
            reasons.setdefault(backup.name, []).append(word)
    return {name: ", ".join(words) for name, words in reasons.items()}


def _over_budget(
    unpinned: Sequence[Backup],
    wanted: Mapping[str, str],
    guarded: Backup | None,
    bytes_max: int | None,
) -> frozenset[str]:
    """Return which of the wanted ones go for `bytes_max`: broken ones first, then the oldest."""
    if bytes_max is None or guarded is None:
        return frozenset()
    kept = [backup for backup in unpinned if backup.name in wanted]
    kept.sort(key=lambda backup: (backup is not guarded, not _counts(backup)))
    over: set[str] = set()
    total_bytes = 0
    for backup in kept:
        total_bytes += backup.size_bytes
        if total_bytes > bytes_max and backup is not guarded:
            over.add(backup.name)
    return frozenset(over)
