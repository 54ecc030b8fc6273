"""The stores that the benchmarks compare do the work that docs/benchmarks.md names."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.benchmarks.comparing import ITEM, PEERS, WORKS
from tests.benchmarks.embedded import SqlitePeer, TinydbPeer
from tests.benchmarks.page_of_peers import LIMIT, Compared, page
from tests.benchmarks.peers import Fields, Peer, SelinePeer
from tests.benchmarks.profiling import MORE, PARTS, parts_of_a_save, processor_of_many


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder with a short path, which the user of PostgreSQL may enter."""
    path = Path(tempfile.mkdtemp(prefix="seline-peer-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.title)
async def test_a_store_does_every_work_and_returns_what_was_saved(
    kind: type[Peer], folder: Path
) -> None:
    if kind.lacks():
        pytest.skip(f"{kind.lacks()} is not installed")
    peer = kind()
    await peer.open(folder)
    try:
        for work in WORKS:
            if kind.only in {"", work.kind}:
                await work.prepare(peer)
                call = work.call(peer, peer.writers())
                for number in range(8):
                    await call(number)
        if kind.only != "append":
            await peer.save({"a": {"n": 1}, "b": {"n": 2}})
            await peer.save({"a": {"n": 3}, "b": {"n": 4}})
            assert [await peer.load(name) for name in ("a", "b")] == [{"n": 3}, {"n": 4}]
    finally:
        await peer.close()


async def test_changes_that_arrive_together_are_one_transaction_and_none_is_lost(
    folder: Path,
) -> None:
    commits: list[list[str]] = []

    class Counted(SqlitePeer):
        async def save(self, documents: Mapping[str, Fields]) -> None:
            commits.append([*documents])
            await super().save(documents)

    peer = Counted()
    await peer.open(folder)
    writers = peer.writers()
    await asyncio.gather(*(writers.save(f"d{n}", {"n": n}) for n in range(16)))
    await asyncio.gather(*(writers.set_field("d0", f"w{n}", n) for n in range(64)))
    await peer.append("d1", ITEM)

    assert commits == [[f"d{n}" for n in range(16)]]
    assert await peer.load("d0") == {"n": 0, **{f"w{n}": n for n in range(64)}}
    await peer.close()


def test_the_page_ranks_what_survives_a_power_cut_and_names_what_was_not_measured() -> None:
    text = page(
        Compared(
            place="ext4",
            cores=2,
            rounds=35,
            turn_s=0.05,
            works=["a save of 1 KiB", "a load of 1 KiB"],
            limited=["a save of 1 KiB"],
            peers=[SelinePeer(), SqlitePeer(), Unsafe()],
            missing={"Redis": "redis-server"},
            micros={
                (LIMIT, "a save of 1 KiB"): 250.0,
                ("Seline", "a save of 1 KiB"): 1000.0,
                ("sqlite3", "a save of 1 KiB"): 500.0,
                ("TinyDB", "a save of 1 KiB"): 50.0,
                ("Seline", "a load of 1 KiB"): 8.0,
                ("sqlite3", "a load of 1 KiB"): 24.0,
            },
            parts={"the value is encoded": 40.0, "the disk syncs it": 250.0},
            many={"a save by one of 16 writers": 99.0},
        )
    )

    assert "| one flush | 250 |  |" in text
    assert "| **Seline** | 1,000 (4.0) | 8 |" in text
    assert "| sqlite3 * | 500 (2.0) | 24 |" in text
    assert "| TinyDB * | 50 (0.20) | – |" in text
    assert "Seline is first in 1 of 2 columns" in text
    assert "- a save of 1 KiB: 2 of 2; the first, sqlite3, is 2.0 times as fast" in text
    assert "- a load of 1 KiB: first of 2, 3.0 times as fast as the next, sqlite3" in text
    assert "| the disk syncs it | 250 |\n| **together** | 290 |\n" in text
    assert "| a save by one of 16 writers | 99 |\n\n## How each store does it" in text
    assert "| Redis | not measured | redis-server was not installed |" in text


async def test_each_part_of_a_save_is_measured(tmp_path: Path) -> None:
    parts = await parts_of_a_save(tmp_path / "data", saves=50)

    assert list(parts) == [*(what for _, what in PARTS), MORE]
    assert all(parts[what] > 0 for _, what in PARTS)


async def test_the_processor_time_of_both_threads_is_a_part_of_the_time_of_many_saves(
    tmp_path: Path,
) -> None:
    whole, loop, writer = (await processor_of_many(tmp_path / "data", seconds=0.1)).values()

    assert 0 < loop < whole
    assert 0 < writer < whole


class Unsafe(TinydbPeer):
    """TinyDB, also where it is not installed."""

    def version(self) -> str:
        return "4"
