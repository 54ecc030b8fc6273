"""Usage: how full the volume is, how fast it fills, and what is stored on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from seline.clock import instant_text
from seline.domain.backup import Backup
from seline.domain.document import BOT, DocumentInfo, Json
from seline.domain.forecast import Forecast, Point, forecast, with_point
from seline.domain.stored import Stored
from seline.domain.usage import MIB, Usage, UsageLevel, megabytes, next_level
from seline.manager.backups import every_backup
from seline.manager.managed_store import ManagedStore
from seline.ports.store import DocumentStore


class UsageFile(Stored, frozen=True, kw_only=True):
    """The value of `usage.json`."""

    level: UsageLevel = UsageLevel.OK
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """How full the volume is, at which level, and when it will be full."""

    usage: Usage
    level: UsageLevel
    forecast: Forecast | None

    @property
    def ratio(self) -> float:
        """How full it is by bytes or by files, the larger of both: the level goes by that."""
        return max(self.usage.usage_ratio, self.usage.inodes_ratio)


class UsageMonitor:
    """Measures one store's volume."""

    def __init__(self, store: ManagedStore) -> None:
        self._store = store
        self._state = store.state("usage.json", UsageFile, UsageFile)
        self.measured: UsageReport | None = None
        """The last measurement of this process."""

    @property
    def forecast(self) -> Forecast | None:
        """When the volume will be full, as of the last measurement."""
        return None if self.measured is None else self.measured.forecast

    async def measure(self) -> UsageReport:
        """Measure the volume; the level rises at its mark and falls two points below it."""
        store = await self._store.open()
        usage = await self._store.reading(store.medium.usage)
        before = self._state.value if self._state.loaded else await self._state.load()
        level = next_level(before.level, max(usage.usage_ratio, usage.inodes_ratio))
        points = with_point(before.points, Point(self._store.clock.now(), usage.counted_bytes))
        if (level, points) != (before.level, before.points):
            await self._state.save(UsageFile(level=level, points=points))
        self.measured = UsageReport(
            usage=usage, level=level, forecast=forecast(points, room_bytes=usage.room_bytes)
        )
        return self.measured


async def storage_info(managed: ManagedStore) -> dict[str, Json]:
    """Return the body of `GET /storage-info`: what is stored on the volume."""
    store = await managed.open()
    documents = await managed.listing(lambda: store.documents(BOT))
    backups = await managed.listing(lambda: every_backup(store, managed.pins))
    return await managed.reading(lambda: _storage_info(store, documents, backups))


def _storage_info(
    store: DocumentStore, documents: Sequence[DocumentInfo], backups: Sequence[Backup]
) -> dict[str, Json]:
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
