"""Measure a disk in rounds: in each one every measure has a turn, in random order.

So what else uses the disk meets all measures alike. Seline is used as a bot uses it, with its
default settings. sqlite3 has a thread of its own, because a bot must not block its event loop.
Everything is in a scratch directory that is removed at the end; no document is touched.
"""

import asyncio
import os
import random
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from typing import Final

from seline.bench.disk import RawDisk
from seline.bench.sqlite import SqliteDocuments
from seline.errors import StorageError, VolumeFull
from seline.library import open_seline
from seline.manager import DataManager
from seline.operations.scratch import scratch_folder
from seline.settings import Settings
from seline.settings.values import Storage
from seline.storage.volume.mounts import mount_of

PREFIX: Final = "seline-bench-"
ROOM_BYTES: Final = 64 << 20
"""What must be free; less than that is written."""
TURNS: Final = 12
"""How many turns each measure has if the disk is fast enough."""
WRITERS: Final = 16
VALUE: Final = {f"field_{number:02d}": f"value {number} of a profile" for number in range(27)}
"""A document of 1 KiB."""
LARGE: Final = {f"user_{number:02d}": VALUE for number in range(64)}
"""A document of 64 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one measure found. `by`: disk, seline or sqlite3. A call makes so many `changes`.

    The times are those of a call; `per_second` counts changes.
    """

    measure: str
    by: str
    changes: int
    calls: int
    median_ms: float
    p99_ms: float
    per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskReport:
    """The figures of one disk, and what it is."""

    directory: str
    file_system: str
    device: str
    seconds: float
    sqlite: str
    figures: list[Figure]


@dataclass(slots=True, eq=False)
class _Measure:
    name: str
    by: str
    run: Callable[[int], Awaitable[object]]
    changes: int = 1
    taken_s: list[float] = field(default_factory=list[float])

    async def turn(self, seconds: float) -> None:
        ends_at = time.perf_counter() + seconds
        while not self.taken_s or time.perf_counter() < ends_at:
            started = time.perf_counter()
            await self.run(len(self.taken_s))
            self.taken_s.append(time.perf_counter() - started)

    def figure(self) -> Figure:
        calls = len(self.taken_s)
        return Figure(
            measure=self.name,
            by=self.by,
            changes=self.changes,
            calls=calls,
            median_ms=round(statistics.median(self.taken_s) * 1e3, 4),
            p99_ms=round(sorted(self.taken_s)[calls * 99 // 100] * 1e3, 4),
            per_second=round(self.changes * calls / sum(self.taken_s), 1),
        )


def measure(directory: str, *, seconds: float) -> DiskReport:
    """Measure the disk of a directory for about so many seconds; leave nothing behind. Blocks.

    Raises OSError if nothing can be written there, VolumeFull without room, and StorageError.
    """
    status = os.statvfs(directory)
    if status.f_bavail * status.f_frsize < ROOM_BYTES:
        raise VolumeFull(
            f"Measuring needs {ROOM_BYTES >> 20} MB of free space in {directory}.",
            hint="Free space there, or measure another disk of this kind with `--dir`.",
        )
    mount, state = mount_of(directory), os.path.join(directory, ".seline")
    # in a data directory it is among Seline's own files, where health does not report it
    place = state if os.path.isdir(state) else directory
    with scratch_folder(place, prefix=PREFIX) as folder:
        try:
            figures = asyncio.run(_measured(folder, seconds))
        except sqlite3.Error as error:
            raise StorageError(f"sqlite3 failed in {directory}: {error}.") from error
    return DiskReport(
        directory=os.path.abspath(directory),
        file_system=mount.kind if mount else "unknown",
        device=mount.device if mount else "",
        seconds=seconds,
        sqlite=sqlite3.sqlite_version,
        figures=figures,
    )


async def _measured(folder: str, seconds: float) -> list[Figure]:
    storage = Storage(reserve_percent=0.0)
    settings = Settings(data_dir=os.path.join(folder, "data"), storage=storage)
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(closing(RawDisk(folder)))
        sqlite = stack.enter_context(closing(SqliteDocuments(os.path.join(folder, "sqlite"))))
        thread = stack.enter_context(ThreadPoolExecutor(1))
        seline = await stack.enter_async_context(open_seline(settings=settings, lock_wait_s=0))
        await seline.data.save_json("large.json", LARGE)
        sqlite.save({"large": LARGE})
        measures = [*_of_disk(disk), *_of_seline(seline.data), *_of_sqlite(sqlite, thread)]
        for each in measures:  # what only the first call does is not measured
            await each.run(-1)
        await _take_turns(measures, seconds)
        return [each.figure() for each in measures]


async def _take_turns(measures: list[_Measure], seconds: float) -> None:
    """Give every measure one turn, and more until the time is over."""
    ends_at, waiting = time.perf_counter() + seconds, list[_Measure]()
    while time.perf_counter() < ends_at or not all(each.taken_s for each in measures):
        waiting = waiting or random.sample(measures, len(measures))
        await waiting.pop().turn(seconds / TURNS / len(measures))


def _of_disk(disk: RawDisk) -> list[_Measure]:
    async def flush(number: int) -> None:
        disk.flush(number)

    async def replace(number: int) -> None:
        disk.replace(number)

    return [_Measure("flush", "disk", flush), _Measure("replace", "disk", replace)]


def _of_seline(data: DataManager) -> list[_Measure]:
    async def together(number: int) -> None:
        await asyncio.gather(*(data.save_json(f"{n}.json", _value(number)) for n in range(WRITERS)))

    return [
        _Measure("save", "seline", lambda number: data.save_json("one.json", _value(number))),
        _Measure("saves_together", "seline", together, WRITERS),
        _Measure("field_of_large", "seline", lambda n: data.update_field("large.json", "n", n)),
    ]


def _of_sqlite(sqlite: SqliteDocuments, thread: ThreadPoolExecutor) -> list[_Measure]:
    def save(names: list[str]) -> Callable[[int], Awaitable[object]]:
        return lambda number: run(sqlite.save, dict.fromkeys(names, _value(number)))

    async def run(call: Callable[..., object], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)

    return [
        _Measure("save", "sqlite3", save(["one"])),
        _Measure("saves_together", "sqlite3", save([*map(str, range(WRITERS))]), WRITERS),
        _Measure("field_of_large", "sqlite3", lambda n: run(sqlite.set_fields, "large", {"n": n})),
    ]


def _value(number: int) -> dict[str, object]:
    return {**VALUE, "n": number}
