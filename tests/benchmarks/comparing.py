"""Seline and its peers at the same durable work; the figures become docs/benchmarks.md."""

import asyncio
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from seline.bench.disk import RawDisk
from seline.bench.measure import LARGE, VALUE
from tests.benchmarks.embedded import (
    AiosqliteItems,
    AiosqlitePeer,
    AiosqliteWithoutQueue,
    DiskcachePeer,
    LmdbPeer,
    OneThread,
    RawFiles,
    SqlitePeer,
    TinydbPeer,
)
from tests.benchmarks.page_of_peers import LIMIT, Compared, page
from tests.benchmarks.peers import Peer, SelinePeer, Writers
from tests.benchmarks.place import describe
from tests.benchmarks.profiling import parts_of_a_save, processor_of_many
from tests.benchmarks.requests import WRITERS, Puts, puts_per_second
from tests.benchmarks.servers import (
    PostgresPeer,
    PostgresWithoutQueue,
    RedisPeer,
    RedisWithoutQueue,
)

PEERS: Final[tuple[type[Peer], ...]] = (
    SelinePeer, SqlitePeer, AiosqlitePeer, AiosqliteWithoutQueue, AiosqliteItems, LmdbPeer,
    DiskcachePeer, RedisPeer, RedisWithoutQueue, PostgresPeer, PostgresWithoutQueue, TinydbPeer,
    RawFiles, OneThread,
)  # fmt: skip
PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"
TURN_S: Final = 0.05
ROUNDS: Final = 35
APPENDS_MAX: Final = 100
"""In a turn, so that the list stays about as long as it is called."""
ITEM: Final = {"at": 1_764_400_000, "text": "an item of a list"}
Call = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One column of the table: how it is prepared before each turn, and one call of it."""

    title: str
    prepare: Callable[[Peer], Awaitable[object]]
    call: Callable[[Peer, Writers], Call]
    changes: int = 1
    calls_max: int | None = None
    kind: str = ""


def _together(count: int, change: Callable[[Writers, int, int], Awaitable[object]]) -> Any:
    async def call(writers: Writers, number: int) -> None:
        await asyncio.gather(*(change(writers, writer, number) for writer in range(count)))

    return lambda _, writers: lambda number: call(writers, number)


def _appending(length: int) -> Work:
    return Work(
        title=f"an item to a list of {length:,}",
        prepare=lambda peer: peer.save_list("list", [ITEM] * length),
        call=lambda peer, _: lambda number: peer.append("list", {**ITEM, "at": number}),
        calls_max=APPENDS_MAX,
        kind="append",
    )


WORKS: Final = (
    Work(
        title="a save of 1 KiB",
        prepare=lambda peer: peer.save({"one": VALUE}),
        call=lambda peer, _: lambda number: peer.save({"one": {**VALUE, "n": number}}),
    ),
    Work(
        title="a field of 64 KiB",
        prepare=lambda peer: peer.save_fields("large", LARGE),
        call=lambda peer, _: lambda number: peer.set_fields("large", {"n": number}),
    ),
    Work(
        title="16 writers, 16 documents",
        prepare=lambda peer: peer.save({f"d{n}": VALUE for n in range(16)}),
        call=_together(16, lambda to, n, number: to.save(f"d{n}", {**VALUE, "n": number})),
        changes=16,
        kind="together",
    ),
    Work(
        title="64 writers, one document",
        prepare=lambda peer: peer.save_fields(
            "shared", {**VALUE, **{f"w{n}": 0 for n in range(64)}}
        ),
        call=_together(64, lambda to, n, number: to.set_field("shared", f"w{n}", number)),
        changes=64,
        kind="together",
    ),
    _appending(1_000),
    _appending(10_000),
    Work(
        title="a load of 1 KiB",
        prepare=lambda peer: peer.save({"one": VALUE}),
        call=lambda peer, _: lambda _number: peer.load("one"),
        kind="load",
    ),
)


def peers(here: Path) -> None:
    """Measure Seline and every peer that is installed, and write the page."""
    many = {**asyncio.run(processor_of_many(here / "many")), **_of_puts(puts_per_second(here))}
    compared = asyncio.run(_compare(here, many))
    PAGE.write_text(page(compared), encoding="utf-8")
    print(f"  written: {PAGE.name}; {len(compared.peers)} stores, {len(compared.missing)} missing")


def _of_puts(puts: Puts) -> dict[str, float]:
    return {
        f"a PUT over {WRITERS} connections": 1e6 / puts.ours,
        "of it: processor time of the server": puts.processor_us,
        "the same by a handler of aiohttp that does nothing but save": 1e6 / puts.bare,
        f"a save by one of {WRITERS} writers, without HTTP": 1e6 / puts.store,
    }


async def _compare(here: Path, many: Mapping[str, float]) -> Compared:
    installed = [peer() for peer in PEERS if not peer.lacks()]
    micros: dict[tuple[str, str], float] = {}
    await _measure(WORKS[0], installed, here / "first")  # a new disk is slower at first
    parts = await parts_of_a_save(here / "parts")
    for number, work in enumerate(WORKS):
        micros |= await _measure(work, installed, here / f"work{number}")
        print(f"  {work.title}", flush=True)
    return Compared(
        place=f"{describe(here)}, on a loop device" if here.is_mount() else describe(here),
        cores=os.cpu_count() or 1,
        rounds=ROUNDS,
        turn_s=TURN_S,
        works=[work.title for work in WORKS],
        limited=[work.title for work in WORKS if work.kind != "load"],
        peers=installed,
        missing={peer.title: peer.lacks() for peer in PEERS if peer.lacks()},
        micros=micros,
        parts=parts,
        many=many,
    )


async def _measure(work: Work, peers: list[Peer], here: Path) -> dict[tuple[str, str], float]:
    """Return the median of the rounds, in µs for each change, of every store and of one flush."""
    here.mkdir()
    taken_s: dict[str, list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        disk = RawDisk(str(here))
        stack.callback(disk.close)
        usable = [peer for peer in peers if peer.only in {"", work.kind}]
        turns = {peer.title: await _opened(peer, work, here, stack) for peer in usable}
        turns[LIMIT] = lambda: _limit(disk)
        for round_number in range(ROUNDS + 1):
            for title in random.sample([*turns], len(turns)):
                spent_s = await turns[title]()
                if round_number:  # the first round warms up
                    taken_s[title].append(spent_s / (1 if title == LIMIT else work.changes))
    return {(title, work.title): statistics.median(s) * 1e6 for title, s in taken_s.items()}


async def _opened(
    peer: Peer, work: Work, here: Path, stack: AsyncExitStack
) -> Callable[[], Awaitable[float]]:
    folder = here / peer.title.replace(" ", "-").replace(",", "")
    folder.mkdir()
    await peer.open(folder)
    stack.push_async_callback(peer.close)
    call = work.call(peer, peer.writers())

    async def turn() -> float:
        await work.prepare(peer)
        return await _per_call(call, work.calls_max)

    return turn


async def _limit(disk: RawDisk) -> float:
    async def flush(number: int) -> None:
        disk.flush(number)

    return await _per_call(flush, None)


async def _per_call(call: Call, calls_max: int | None) -> float:
    """Return the mean time of the calls of one turn, in seconds."""
    started = ended = time.perf_counter()
    calls = 0
    while ended < started + TURN_S and calls != calls_max:
        await call(calls)
        calls += 1
        ended = time.perf_counter()
    return (ended - started) / calls
