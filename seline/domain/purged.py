"""What was purged, and until when a copy at a destination may still hold it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from msgspec.structs import replace

from seline.domain.retention import RetentionPolicy
from seline.domain.stored import Stored

PURGED_MAX: Final = 1000
"""So many are remembered, the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCopy:
    """A destination whose copies may still hold what was purged.

    A mirror's hold it until `until`, or longer if no newer copies follow; exports until there are
    `newer_exports` that were made later, and `until` is None. `kind` is `mirror` or `export`.
    """

    destination: str
    kind: str
    until: datetime | None
    newer_exports: int = 0


class Oldest(NamedTuple):
    """The lowest number of the copies at a destination, and the earliest instant of one."""

    number: int
    at: datetime


class Purged(Stored, frozen=True, kw_only=True):
    """A document that was purged, and the destinations whose copies may still hold it.

    `numbers` has for each destination the highest number that a copy there had.
    """

    name: str
    at: datetime
    mirrors: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    numbers: Mapping[str, int] = {}

    def is_before(self, destination: str, copy: Oldest) -> bool:
        """Whether a copy at a destination, and each later one, was made after the purge.

        Its number shows that under any clock, and its instant after a volume was rolled back.
        """
        return self.at < copy.at and self.numbers.get(destination, -1) < copy.number

    def ended(self, destination: str, *, mirror: bool) -> "Purged":
        """Return this without a destination whose copies are all newer."""
        kept = (self.mirrors, self.exports)[not mirror]
        left = tuple(name for name in kept if name != destination)
        return replace(self, mirrors=left) if mirror else replace(self, exports=left)


def ended(
    purged: Sequence[Purged], destination: str, *, mirror: bool, oldest: Oldest
) -> tuple[Purged, ...]:
    """Return what copies may still hold, once none at a destination is older than `oldest`."""
    left = (
        entry.ended(destination, mirror=mirror) if entry.is_before(destination, oldest) else entry
        for entry in purged
    )
    return tuple(entry for entry in left if entry.mirrors or entry.exports)


def held_until(at: datetime, policy: RetentionPolicy) -> datetime:
    """Return when no rule for periods keeps a copy of `at`, if each period has newer copies."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    months = at.year * 12 + at.month - 1 + policy.keep_monthly
    return max(
        at + timedelta(hours=policy.keep_hourly),
        day + timedelta(days=policy.keep_daily),
        day + timedelta(days=7 * policy.keep_weekly - day.weekday()),
        day.replace(year=months // 12, month=months % 12 + 1, day=1),
    ) + timedelta(hours=2)  # the head goes with one sweep, its contents with the next


def held_text(destination: str, until: str | None, newer_exports: int) -> str:
    """Return in words how long the copies at a destination may hold it; `until` is a day."""
    if until is None:
        return f"exports at {destination}, until {newer_exports:,} newer ones are made"
    return f"copies at {destination}, until {until[:10]}, longer if no newer ones follow"
