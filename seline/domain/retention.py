"""Decide which backups of a document are kept, each with its reason.

V8  The newest sound backup is kept under every policy, size limit and clock. An unchecked backup
    counts as sound here. So callers that delete use `verified_plan`: it reads the backup that
    would be kept, and drops nothing if that one is not sound.

A file that Seline did not write (`Backup.ours` is False) is kept under every plan, and not counted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Final, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from seline.domain.backup import Backup, Stamp
from seline.domain.document import Revision
from seline.domain.recovery import choose_guarded
from seline.domain.verdict import COUNTED, Verdict

NOT_OURS: Final = "not written by Seline: never rotated"
K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How many backups of one document are kept; pinned ones are not counted.

    `keep_hourly=24` keeps the newest backup of each of the last 24 hours that have one. Days, ISO
    weeks and months work the same way (UTC). `bytes_max` limits the total size of unpinned backups.
    Raises ValueError for a negative number.
    """

    keep_newest: int = 5
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    bytes_max: int | None = None

    def __post_init__(self) -> None:
        for limit in fields(RetentionPolicy):
            if (getattr(self, limit.name) or 0) < 0:
                raise ValueError(f"{limit.name} is negative")


class RetentionPlan(msgspec.Struct, frozen=True):
    """Every backup of one document, kept or dropped, newest first; `because` has the reason.

    `unguarded`: the newest sound backup may be dropped too. Only the plan for a document that was
    deleted long ago is unguarded.
    """

    keep: tuple[Backup, ...]
    drop: tuple[Backup, ...]
    unguarded: bool = False


def plan_retention(
    backups: Sequence[Backup], policy: RetentionPolicy, *, current_revision: Revision | None = None
) -> RetentionPlan:
    """Plan the backups of one document, given in any order: that of their stamps counts."""
    newest_first = sorted(backups, key=_order, reverse=True)
    return plan_ordered(newest_first, policy, current_revision=current_revision)


def plan_ordered(
    newest_first: Sequence[Backup],
    policy: RetentionPolicy,
    *,
    current_revision: Revision | None = None,
) -> RetentionPlan:
    """Plan the backups of one document, in the order in which they are given.

    Pinned backups are kept and not counted. Broken ones are not counted, and are kept until
    there are `keep_newest` sound ones; without a sound backup everything is kept. A backup with the
    same content as its document (`current_revision`) or as a newer kept backup is dropped and not
    counted, unless it is the newest sound one. Over `bytes_max`, broken backups are dropped first,
    then the oldest.
    """
    guarded = choose_guarded(newest_first, current_revision)
    if guarded is None:
        return keep_all(newest_first, "there is no sound one")
    keep, drop = _decide(newest_first, policy, guarded, current_revision)
    if policy.bytes_max is not None:
        for backup in _over_budget(newest_first, keep, guarded, policy.bytes_max):
            del keep[backup.name]
            drop[backup.name] = f"over {policy.bytes_max} bytes"
    return RetentionPlan(
        tuple(replace(b, because=keep[b.name]) for b in newest_first if b.name in keep),
        tuple(replace(b, because=drop[b.name]) for b in newest_first if b.name in drop),
    )


def verified_plan(
    backups: Sequence[Backup],
    retain: Callable[[Sequence[Backup], Revision | None], RetentionPlan],
    *,
    verdict_of: Callable[[Backup], str],
    current_revision: Revision | None = None,
) -> RetentionPlan:
    """Return the plan of `retain` after reading the newest sound backup to confirm it (V8).

    `verdict_of` reads a backup and returns its verdict. If the backup is not sound, `retain` plans
    again with that verdict. If no backup is sound, or `retain` drops the newest sound one, nothing
    is dropped. `current_revision` is the revision of the document.
    """
    known = sorted(backups, key=_order, reverse=True)
    while (plan := retain(known, current_revision)).drop and not plan.unguarded:
        guarded = choose_guarded(known, current_revision)
        if guarded is None:
            return keep_all(known, "there is no sound one")
        verdict = verdict_of(guarded)
        if verdict != Verdict.SOUND:
            known = [replace(b, verdict=verdict) if b is guarded else b for b in known]
        elif any(dropped.name == guarded.name for dropped in plan.drop):
            return keep_all(known, "the newest sound one must be kept")
        else:
            return plan
    return plan


def plan_without(
    unwanted: Backup, backups: Sequence[Backup], _current_revision: Revision | None = None
) -> RetentionPlan:
    """Plan to drop one backup."""
    return RetentionPlan(
        tuple(backup for backup in backups if backup.name != unwanted.name),
        tuple(unwanted for backup in backups if backup.name == unwanted.name),
    )


def plan_deleted(backups: Sequence[Backup]) -> RetentionPlan:
    """Plan for a document that was deleted long ago: drop Seline's backups, except pinned ones."""
    because = "its document was deleted long ago"
    reasons = {backup.name: _why_exempt(backup) for backup in backups}
    return RetentionPlan(
        tuple(replace(b, because=reasons[b.name]) for b in backups if reasons[b.name]),
        tuple(replace(b, because=because) for b in backups if not reasons[b.name]),
        unguarded=True,
    )


def plan_shedding(
    backups_by_document: Mapping[K, Sequence[Backup]], *, keep_newest: int
) -> list[tuple[K, Backup]]:
    """Return the backups that may be dropped when space is short, in the order to drop them.

    First those beyond the `keep_newest` of their document, which only a rule for days or other
    periods keeps; then the other unpinned ones; pinned ones last. Within each of these three,
    older ones come before newer ones of any document. A document's newest sound backup may not be
    dropped, nor any of a document without a sound one.
    """
    found = [
        ((backup.pinned, backup.name in newest, *_order(backup)), document, backup)
        for document, backups in backups_by_document.items()
        for newest in [_newest_names(backups, keep_newest)]
        for backup in sheddable(backups)
    ]
    found.sort(key=lambda item: item[0])
    because = "the volume is nearly full"
    return [(document, replace(backup, because=because)) for _, document, backup in found]


def keep_all(backups: Sequence[Backup], because: str) -> RetentionPlan:
    """Plan to drop nothing."""
    kept = (replace(b, because=because if b.ours else _why_exempt(b)) for b in backups)
    return RetentionPlan(tuple(kept), ())


def _why_exempt(backup: Backup) -> str:
    """Return why no policy applies to a backup; empty if one does."""
    pin = f"pinned: {backup.because}" if backup.because else "pinned"
    reasons = (pin if backup.pinned else "", "" if backup.ours else NOT_OURS)
    return "; ".join(filter(None, reasons))


def _newest_names(backups: Sequence[Backup], keep_newest: int) -> frozenset[str]:
    """Return the names of a document's newest unpinned backups that count."""
    counted = [b for b in backups if b.ours and not b.pinned and b.verdict in COUNTED]
    counted.sort(key=_order, reverse=True)
    return frozenset(backup.name for backup in counted[:keep_newest])


def sheddable(backups: Sequence[Backup]) -> Iterator[Backup]:
    """Yield the backups of one document that may be dropped when space is short, in any order."""
    guarded = choose_guarded(sorted(backups, key=_order, reverse=True), None)
    if guarded is not None:
        yield from (backup for backup in backups if backup.ours and backup is not guarded)


def _order(backup: Backup) -> tuple[Stamp, str]:
    return backup.stamp, backup.name


_PeriodRule: TypeAlias = tuple[int, str, Callable[[Backup], object], set[object]]
"""Keeps the newest backup of each of the first so many periods; the set has those seen."""


def _rules(policy: RetentionPolicy) -> tuple[_PeriodRule, ...]:
    return (
        (policy.keep_newest, f"newest {policy.keep_newest}", lambda b: b.name, set()),
        (policy.keep_hourly, "hourly", lambda b: (b.taken_at.date(), b.taken_at.hour), set()),
        (policy.keep_daily, "daily", lambda b: b.taken_at.date(), set()),
        (policy.keep_weekly, "weekly", lambda b: b.taken_at.isocalendar()[:2], set()),
        (policy.keep_monthly, "monthly", lambda b: (b.taken_at.year, b.taken_at.month), set()),
    )


def _reasons(rules: Sequence[_PeriodRule], backup: Backup) -> list[str]:
    """Return the reasons of the rules that keep a backup, and note its period."""
    reasons: list[str] = []
    for limit, because, period_of, seen in rules:
        period = period_of(backup)
        if len(seen) < limit and period not in seen:
            seen.add(period)
            reasons.append(because)
    return reasons


def _decide(
    newest_first: Sequence[Backup],
    policy: RetentionPolicy,
    guarded: Backup,
    current_revision: Revision | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the reasons of the kept and of the dropped backups, by name."""
    keep: dict[str, str] = {}
    drop: dict[str, str] = {}
    rules = _rules(policy)
    holders: dict[Revision, tuple[str, str]] = {}
    if current_revision is not None:
        holders[current_revision] = ("its document", Verdict.SOUND)
    counted = 0
    for backup in newest_first:
        if exempt := _why_exempt(backup):
            keep[backup.name] = exempt
        elif backup.verdict not in COUNTED:
            continue
        elif backup is not guarded and (holder := _holder(backup, holders)):
            drop[backup.name] = f"same content as {holder}"
        else:
            counted += 1
            reasons = _reasons(rules, backup)
            if reasons or backup is guarded:
                keep[backup.name] = ", ".join(reasons) or "newest sound"
            else:
                drop[backup.name] = "older than the policy keeps"
        if backup.name in keep and backup.ours and backup.revision and backup.verdict in COUNTED:
            holders.setdefault(backup.revision, (backup.name, backup.verdict))
    few = counted < max(policy.keep_newest, 1)
    reason = "but there are few sound ones" if few else "and there are enough sound ones"
    broken = [b for b in newest_first if b.name not in keep and b.name not in drop]
    (keep if few else drop).update({b.name: f"{b.verdict}, {reason}" for b in broken})
    return keep, drop


def _holder(backup: Backup, holders: Mapping[Revision, tuple[str, str]]) -> str | None:
    """Return the name of a newer file with the same content, None if there is none.

    `holders` has a name and a verdict per revision. An unchecked file does not count if `backup`
    was verified.
    """
    name, verdict = holders.get(backup.revision or "", ("", ""))
    return name if verdict in (Verdict.SOUND, backup.verdict) else None


def _over_budget(
    newest_first: Sequence[Backup], keep: Mapping[str, str], guarded: Backup, bytes_max: int
) -> list[Backup]:
    """Return the kept backups to drop so that the unpinned ones fit in `bytes_max`."""
    unpinned = [b for b in newest_first if b.name in keep and not _why_exempt(b)]
    unpinned.sort(key=lambda backup: (backup is not guarded, backup.verdict not in COUNTED))
    totals = accumulate(backup.size_bytes for backup in unpinned)
    return [
        backup
        for backup, total_bytes in zip(unpinned, totals, strict=True)
        if total_bytes > bytes_max and backup is not guarded
    ]
