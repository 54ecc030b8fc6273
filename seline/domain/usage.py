"""The volume's usage: its ratio and level, and which writes it still has room for."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

from seline.domain.report import Status

MIB: Final = 1 << 20
RESERVE_BYTES_MIN: Final = 1 << 20
SHED_RATIO: Final = 0.90
REFUSE_RATIO: Final = 0.95
BLOCK_BYTES: Final = 4096
LEVEL_BACK_RATIO: Final = 0.02


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of the volume, in bytes as the file system counts them.

    `used_bytes` counts everything on the file system, `files_bytes` only Seline's files (documents,
    backups, quarantine, state). `available_bytes` excludes the blocks reserved for root.
    `largest_bytes` is the size of the largest document, `documents` their number.
    """

    capacity_bytes: int
    used_bytes: int
    available_bytes: int
    documents_bytes: int
    backups_bytes: int
    files_bytes: int = 0
    inodes_total: int | None
    inodes_free: int | None
    limit_bytes: int | None
    own_mount: bool
    largest_bytes: int = 0
    documents: int = 0

    @property
    def usage_ratio(self) -> float:
        """The larger of the disk's ratio, used / (used + available) as in `df`, and the limit's.

        A disk shared with other programs counts once it has less room than the limit leaves.
        """
        return max(self._of_disk() if self._disk_decides else 0.0, self._of_limit())

    @property
    def refusal_ratio(self) -> float:
        """The ratio by which changes are refused (V9).

        On a shared disk the limit counts, and that the disk has no room left. What other programs
        keep there makes no backup give way.
        """
        return self.refusal_ratio_after(0)

    def refusal_ratio_after(self, growth_bytes: int) -> float:
        """Return `refusal_ratio` after a write of so many bytes, or a removal if negative."""
        if self.own_mount:
            of_disk = self._of_disk(growth_bytes)
        else:
            has_room = self.available_bytes - growth_bytes > RESERVE_BYTES_MIN
            of_disk = 0.0 if has_room else 1.0
        return max(of_disk, self._of_limit(growth_bytes))

    @property
    def level_ratio(self) -> float:
        """The ratio of the usage level, by bytes or files."""
        return max(self.bytes_level_ratio, self.inodes_ratio)

    @property
    def bytes_level_ratio(self) -> float:
        """The ratio of the usage level by bytes.

        A shared disk alone is never critical: nothing is refused while it has room.
        """
        return max(self.refusal_ratio, min(self.usage_ratio, SHED_RATIO))

    @property
    def inodes_ratio(self) -> float:
        """The share of the inodes in use, 0 if the file system does not limit them."""
        if not self.inodes_total or self.inodes_free is None:
            return 0.0
        return 1 - self.inodes_free / self.inodes_total

    @property
    def counted_bytes(self) -> int:
        """The bytes that count as used: all of them on its own mount, else Seline's files."""
        return self.used_bytes if self.own_mount else self._own_bytes

    @property
    def room_bytes(self) -> int:
        """How many more bytes fit before growing writes are refused; negative if over that."""
        rooms = [self.available_bytes - RESERVE_BYTES_MIN]
        if self.own_mount:
            reach_bytes = self.used_bytes + self.available_bytes
            rooms.append(int(reach_bytes * REFUSE_RATIO) - self.used_bytes)
        if self.limit_bytes:
            rooms.append(int(self.limit_bytes * REFUSE_RATIO) - self.counted_bytes)
        return min(rooms)

    @property
    def last_room_bytes(self) -> int:
        """How many more bytes fit at all: what a restore onto an empty volume may use."""
        rooms = [self.available_bytes - RESERVE_BYTES_MIN]
        if self.limit_bytes:
            rooms.append(self.limit_bytes - self.counted_bytes)
        return min(rooms)

    @property
    def _disk_decides(self) -> bool:
        if self.own_mount or not self.limit_bytes:
            return True
        return self.available_bytes < self.limit_bytes - self._own_bytes

    def _of_disk(self, growth_bytes: int = 0) -> float:
        reach_bytes = self.used_bytes + self.available_bytes
        return (self.used_bytes + growth_bytes) / reach_bytes if reach_bytes > 0 else 0.0

    def _of_limit(self, growth_bytes: int = 0) -> float:
        counted_bytes = self.counted_bytes + growth_bytes
        return counted_bytes / self.limit_bytes if self.limit_bytes else 0.0

    @property
    def _own_bytes(self) -> int:
        return max(self.files_bytes, self.documents_bytes + self.backups_bytes)


class UsageLevel(StrEnum):
    """The usage levels that raise alerts."""

    OK = "ok"
    HALF = "half"
    WARNING = "warning"
    HIGH = "high"
    CRITICAL = "critical"


LEVELS: Final[Mapping[UsageLevel, float]] = {
    UsageLevel.CRITICAL: REFUSE_RATIO,
    UsageLevel.HIGH: SHED_RATIO,
    UsageLevel.WARNING: 0.80,
    UsageLevel.HALF: 0.50,
    UsageLevel.OK: 0.0,
}
"""The usage ratio at which each level begins, the highest first."""

STATUS_OF_LEVEL: Final[Mapping[UsageLevel, Status]] = {
    UsageLevel.OK: Status.OK,
    UsageLevel.HALF: Status.INFO,
    UsageLevel.WARNING: Status.WARNING,
    UsageLevel.HIGH: Status.WARNING,
    UsageLevel.CRITICAL: Status.CRITICAL,
}
"""How health shows a level, and how severe its alert is."""


DOCUMENTS_WARN: Final = 0.80
DOCUMENTS_MARKS: Final = (1.0, 0.9, DOCUMENTS_WARN)
"""The shares of `storage.documents_max` that raise an alert, the highest first."""

Room: TypeAlias = Literal["free", "shed", "refuse"]
"""Whether a growing write fits: at once, after old backups are shed, or not."""


def blocks(size_bytes: int) -> int:
    """Return the size of so many bytes in whole blocks."""
    return 0 if size_bytes <= 0 else -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def level_of(ratio: float) -> UsageLevel:
    """Return the level of a usage ratio."""
    return next((level for level, mark in LEVELS.items() if ratio >= mark), UsageLevel.OK)


def next_level(previous: UsageLevel, ratio: float) -> UsageLevel:
    """Return the level after `previous`. It falls only two points below its threshold."""
    return max(
        level_of(ratio),
        min(previous, level_of(ratio + LEVEL_BACK_RATIO), key=LEVELS.__getitem__),
        key=LEVELS.__getitem__,
    )


def room_for(growth_bytes: int, usage: Usage, *, freed_bytes: int = 0) -> Room:
    """Return whether a write that needs `growth_bytes` more fits once `freed_bytes` are freed (V9).

    A write that does not grow always fits. One that would reach 90 % sheds old backups first; one
    that would reach 95 % is refused.
    """
    if growth_bytes <= 0:
        return "free"
    ratio = usage.refusal_ratio_after(growth_bytes - freed_bytes)
    if ratio >= REFUSE_RATIO:
        return "refuse"
    return "shed" if ratio >= SHED_RATIO else "free"


def reserve_bytes(capacity_bytes: int, percent: float = 1.0) -> int:
    """Return the reserve's size: the larger of `percent` of the capacity and 1 MiB."""
    return max(int(capacity_bytes * percent / 100), RESERVE_BYTES_MIN)


def megabytes(size_bytes: int) -> float:
    """Return bytes in MiB, to two decimals."""
    return round(size_bytes / MIB, 2)
