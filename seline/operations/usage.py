"""Usage: how full the volume is, how fast it fills, and what is stored on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict

from seline.clock import instant_text
from seline.domain.backup import Backup
from seline.domain.document import BOT, DocumentInfo, DocumentKey
from seline.domain.forecast import Forecast, Point, forecast, with_point
from seline.domain.stored import Stored
from seline.domain.usage import (
    LEVEL_BACK_RATIO,
    LEVELS,
    MIB,
    Usage,
    UsageLevel,
    megabytes,
    next_level,
)
from seline.manager.backups import every_backup
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import listed
from seline.operations.prune import Pruner
from seline.ports.store import DocumentStore

NEXT_SAVE_BYTES_MIN: Final = 64 << 10
PLANNED_EVERY_S: Final = 60.0
"""How old the plan of what makes room may be: as old as the sizes of the volume's files."""


class UsageFile(Stored, frozen=True, kw_only=True):
    """The value of `usage.json`."""

    level: UsageLevel = UsageLevel.OK
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """Whether the next save fits, and what makes room.

    `refused_bytes` is the size of a save that is refused, 0 if it fits. `prunable_bytes` is what
    `prune` would free. `deleted` is the deleted document with the largest backups, or empty.
    """

    refused_bytes: int = 0
    prunable_bytes: int = 0
    deleted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """How full the volume is, at which level, whether it has room, and when it will be full.

    `points` is the history of the counted bytes, oldest first.
    """

    usage: Usage
    level: UsageLevel
    forecast: Forecast | None
    points: tuple[Point, ...] = ()
    refused: bool = False

    @property
    def full_at_bytes(self) -> int:
        """How many counted bytes can be in use before changes that grow are refused."""
        return self.usage.counted_bytes + self.usage.room_bytes

    @property
    def of_files(self) -> bool:
        """Whether the number of files decides the level, not the bytes."""
        if self.refused:
            return self.usage.inodes_free == 0
        return self.usage.inodes_ratio > self.usage.bytes_level_ratio

    @property
    def ratio(self) -> float:
        """How full it is, by what decides the level."""
        return self.usage.inodes_ratio if self.of_files else self.usage.usage_ratio


class UsageMonitor:
    """Measures one store's volume."""

    def __init__(self, store: ManagedStore, pruner: Pruner) -> None:
        self._store = store
        self._pruner = pruner
        self._state = store.state("usage.json", UsageFile, UsageFile)
        self.measured: UsageReport | None = None
        """The last measurement of this process."""
        self._planned: tuple[object, float, Headroom] = None, 0.0, Headroom()
        """For which backups, and when, it was planned what makes room; and the answer."""

    @property
    def forecast(self) -> Forecast | None:
        """When the volume will be full, as of the last measurement."""
        return None if self.measured is None else self.measured.forecast

    async def measure(self) -> UsageReport:
        """Measure the volume; the level rises at its mark and falls two points below it."""
        store = await self._store.open()
        usage = await self._store.reading(store.medium.usage)
        before = self._state.value if self._state.loaded else await self._state.load()
        level = next_level(before.level, usage.level_ratio)
        margin = LEVEL_BACK_RATIO if before.level is UsageLevel.CRITICAL else 0.0
        whole_bytes = min(usage.limit_bytes or usage.capacity_bytes, usage.capacity_bytes)
        needed = next_save_bytes(usage) + int(margin * whole_bytes)
        refused = not await self._store.reading(lambda: store.medium.has_room_for(needed))
        if refused:
            level = UsageLevel.CRITICAL
        points = with_point(before.points, Point(self._store.clock.now(), usage.counted_bytes))
        if (level, points) != (before.level, before.points):
            await self._state.save(UsageFile(level=level, points=points))
        self.measured = UsageReport(
            usage=usage,
            level=level,
            refused=refused,
            points=points,
            forecast=forecast(points, room_bytes=usage.room_bytes),
        )
        return self.measured

    def room(self, store: DocumentStore, usage: Usage) -> Headroom:
        """Return whether the next save fits; also what makes room, from 80 % on. Blocks.

        What makes room is planned again when the backups or the pins change, else once a minute.
        """
        needed = next_save_bytes(usage)
        refused_bytes = 0 if store.medium.has_room_for(needed) else needed
        if not refused_bytes and usage.level_ratio < LEVELS[UsageLevel.WARNING]:
            return Headroom()
        now, backups = self._store.clock.monotonic(), (usage.backups_bytes, self._store.pins.pins())
        planned_for, planned_at, room = self._planned
        if backups != planned_for or now - planned_at > PLANNED_EVERY_S:
            room = Headroom(
                prunable_bytes=self._pruner.prunable_bytes(store), deleted=_largest_deleted(store)
            )
            self._planned = backups, now, room
        return replace(room, refused_bytes=refused_bytes)


def next_save_bytes(usage: Usage) -> int:
    """Return what the next save may add: the largest document, and 64 KiB at least."""
    return max(usage.largest_bytes, NEXT_SAVE_BYTES_MIN)


def _largest_deleted(store: DocumentStore) -> str:
    sizes = {
        info.name: sum(b.size_bytes for b in store.backups(DocumentKey(BOT, info.name)))
        for info in store.documents(BOT, deleted=True)
    }
    return max(sizes, key=sizes.__getitem__, default="")


class DataFile(TypedDict):
    """A document and its file."""

    name: str
    size_kb: float
    size_bytes: int
    modified: str
    sha256: str | None
    verdict: str
    backups: int


class BackupFile(TypedDict):
    """A backup and its file."""

    name: str
    document: str
    size_kb: float
    taken_at: str
    pinned: bool
    because: str


class StorageSummary(TypedDict):
    """How full the volume is; what its file system does not tell is null."""

    total_size_mb: float
    usage_percent: float
    volume_limit_mb: float
    free_mb: float
    inodes_free: int | None


class StorageInfo(TypedDict):
    """What is stored on the volume."""

    mount_path: str
    data_files: list[DataFile]
    backups: list[BackupFile]
    summary: StorageSummary


async def storage_info(managed: ManagedStore) -> StorageInfo:
    """Return the body of `GET /storage-info`: what is stored on the volume."""
    store = await managed.open()
    documents = await listed(managed)
    backups = await managed.listing(lambda: every_backup(store, managed.pins))
    return await managed.reading(lambda: _storage_info(store, documents, backups))


def _storage_info(
    store: DocumentStore, documents: Sequence[DocumentInfo], backups: Sequence[Backup]
) -> StorageInfo:
    usage = store.medium.usage()
    limit_bytes = usage.limit_bytes or usage.capacity_bytes
    return {
        "mount_path": store.medium.place,
        "data_files": [
            {
                "name": info.name,
                "size_kb": _kilobytes(info.size_bytes),
                "size_bytes": info.size_bytes,
                "modified": instant_text(info.updated_at),
                "sha256": info.revision,
                "verdict": info.verdict,
                "backups": info.backup_count,
            }
            for info in documents
        ],
        "backups": [
            {
                "name": backup.name,
                "document": backup.document,
                "size_kb": _kilobytes(backup.size_bytes),
                "taken_at": instant_text(backup.taken_at),
                "pinned": backup.pinned,
                "because": backup.because,
            }
            for backup in backups
        ],
        "summary": {
            "total_size_mb": megabytes(usage.files_bytes),
            "usage_percent": round(usage.usage_ratio * 100, 2),
            "volume_limit_mb": round(limit_bytes / MIB, 2)
            if limit_bytes % MIB
            else limit_bytes // MIB,
            "free_mb": megabytes(usage.available_bytes),
            "inodes_free": usage.inodes_free,
        },
    }


def _kilobytes(size_bytes: int) -> float:
    return round(max(size_bytes, 0) / 1024, 1)
