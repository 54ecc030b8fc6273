"""Saves with a journal beside the disk's limits: one flush, and one line appended to a file.

In each round every measure has a turn, so other programs that use the disk meet all alike.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from seline import open_seline
from seline.bench.disk import RawDisk
from seline.bench.measure import LARGE, VALUE
from seline.manager import DataManager
from tests.benchmarks.printing import ROUNDS, print_measure

JOURNAL_BYTES: Final = 8 << 20
ITEM: Final = {"at": 1_764_400_000, "text": "an item of a list"}
TURN_S: Final = 0.2
FLUSH, LINE = "one flush", "one line"
Call = Callable[[int], Awaitable[object]]


class _Measure(NamedTuple):
    """Calls that make so many changes each, in how many `limit`s of the disk."""

    what: str
    limit: str
    goal: str
    changes: int
    call: Call


async def journal(here: Path) -> None:
    """Measure changes in flushes of the disk, and an item of a list in lines of a file."""
    line = os.open(here / "lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def append(_number: int) -> None:
        os.write(line, b"x" * 60 + b"\n")
        os.fdatasync(line)

    async def flush(number: int) -> None:
        disk.flush(number)

    path = here / "journal"
    async with open_seline(path, lock_wait_s=0, storage__journal_bytes=JOURNAL_BYTES) as seline:
        with closing(RawDisk(str(here))) as disk:
            await seline.data.save_json("large.json", LARGE)
            await seline.data.save_json("list.json", {"items": [ITEM] * 10_000})
            limits = _Measure(FLUSH, "", "", 1, flush), _Measure(LINE, "", "", 1, append)
            measures = [*limits, *_measures(seline.data)]
            taken_s = await _rounds(measures)
    os.close(line)
    for measure in measures[len(limits) :]:
        ours, theirs = taken_s[measure.what], taken_s[measure.limit]
        ratio = statistics.median(ours) / statistics.median(theirs)
        detail = f"{statistics.median(ours) * 1e6:,.0f} µs"
        print_measure(f"{measure.what} / {measure.limit}", f"{ratio:.2f} ×", measure.goal, detail)


def _measures(data: DataManager) -> list[_Measure]:
    async def sixteen(n: int) -> None:
        await asyncio.gather(*(data.save_json(f"{d}.json", {**VALUE, "n": n}) for d in range(16)))

    async def sixty_four(n: int) -> None:
        await asyncio.gather(*(data.update_field("one.json", f"w{w}", n) for w in range(64)))

    async def item(n: int) -> None:
        await data.append_item("list.json", "/items", {**ITEM, "at": n})

    return [
        _Measure(
            "a save of 1 KiB",
            FLUSH,
            "≤ 2.2",
            1,
            lambda n: data.save_json("a.json", {**VALUE, "n": n}),
        ),
        _Measure(
            "a field of 64 KiB", FLUSH, "", 1, lambda n: data.update_field("large.json", "n", n)
        ),
        _Measure("16 writers, 16 documents", FLUSH, "", 16, sixteen),
        _Measure("64 writers, one document", FLUSH, "", 64, sixty_four),
        _Measure("an item to a list of 10,000", LINE, "≤ 6", 1, item),
    ]


async def _rounds(measures: list[_Measure]) -> dict[str, list[float]]:
    """Return the time of a change in each round, in seconds; the first round warms up."""
    taken_s: dict[str, list[float]] = {measure.what: [] for measure in measures}
    for round_number in range(ROUNDS + 1):
        for measure in measures:
            spent_s = await _per_call(measure.call) / measure.changes
            if round_number:
                taken_s[measure.what].append(spent_s)
    return taken_s


async def _per_call(call: Call) -> float:
    started, calls = time.perf_counter(), 0
    while time.perf_counter() < started + TURN_S:
        await call(calls)
        calls += 1
    return (time.perf_counter() - started) / calls
