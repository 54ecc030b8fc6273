"""How full is full: usage against the volume and the limit, levels, and who may still write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

RESERVE_BYTES_MIN: Final = 1 << 20
SHED_RATIO: Final = 0.90
REFUSE_RATIO: Final = 0.95
HYSTERESIS: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One measurement of the volume, in bytes as the file system counts them.

    `files_bytes` are Seline's own files; `used_bytes` everything on the file system.
    """

    capacity_bytes: int
    used_bytes: int
    available_bytes: int
    files_bytes: int
    documents_bytes: int
    backups_bytes: int
    inodes_total: int | None
    inodes_free: int | None
    limit_bytes: int | None
    own_mount: bool

    @property
    def usage_ratio(self) -> float:
        """Usage as `df` counts it (SPEC §9); against the configured limit if that is nearer."""
        used = self.used_bytes if self.own_mount else self.files_bytes
        ratios = [0.0]
        if self.own_mount and self.used_bytes + self.available_bytes > 0:
            ratios.append(self.used_bytes / (self.used_bytes + self.available_bytes))
        if not self.own_mount and self.available_bytes <= RESERVE_BYTES_MIN:
            ratios.append(1.0)
        if self.limit_bytes:
            ratios.append(used / self.limit_bytes)
        return max(ratios)

    @property
    def room_bytes(self) -> int:
        """The bytes that stand against 100 %."""
        whole = self.used_bytes + self.available_bytes
        if self.limit_bytes and (not self.own_mount or self.limit_bytes < whole):
            return self.limit_bytes
        return whole


class UsageLevel(StrEnum):
    """The levels at which a person hears of it."""

    OK = "ok"
    HALF = "half"
    WARNING = "warning"
    HIGH = "high"
    CRITICAL = "critical"


LEVELS: Final[Sequence[tuple[UsageLevel, float]]] = (
    (UsageLevel.CRITICAL, 0.95),
    (UsageLevel.HIGH, 0.90),
    (UsageLevel.WARNING, 0.80),
    (UsageLevel.HALF, 0.50),
)


class Room(StrEnum):
    """What a growing write finds."""

    FREE = "free"
    SHED = "shed"
    REFUSE = "refuse"


def level_of(ratio: float) -> UsageLevel:
    """Return the level of a usage ratio."""
    return next((level for level, from_ratio in LEVELS if ratio >= from_ratio), UsageLevel.OK)


def next_level(previous: UsageLevel, ratio: float) -> UsageLevel:
    """Return the level after `previous`: up at once, down only two points below the mark."""
    now = level_of(ratio)
    marks = dict(LEVELS)
    if marks.get(now, 0.0) >= marks.get(previous, 0.0):
        return now
    return previous if ratio >= marks[previous] - HYSTERESIS else now


def room_for(growth_bytes: int, usage: Usage) -> Room:
    """Say whether a write that needs `growth_bytes` more may go on (V9).

    What does not grow is never refused. From 90 % on old backups are shed first; what would reach
    95 % is refused.
    """
    if growth_bytes <= 0:
        return Room.FREE
    ratio = usage.usage_ratio + growth_bytes / max(usage.room_bytes, 1)
    if ratio >= REFUSE_RATIO:
        return Room.REFUSE
    return Room.SHED if ratio >= SHED_RATIO else Room.FREE


def reserve_bytes(capacity_bytes: int, percent: float = 1.0) -> int:
    """Return the size of the reserve: the larger of `percent` of the capacity and 1 MiB."""
    return max(int(capacity_bytes * percent / 100), RESERVE_BYTES_MIN)
