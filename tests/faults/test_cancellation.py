"""A caller cancelled at every await: what it began is whole or absent, and nothing stays behind.

V6, V7  No update is lost, and no second writer gets in before the first has ended.
A hold ends with its caller's commit; tasks, threads, descriptors, staging and the lock with the
store.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import itertools
import os
import random
import signal
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from seline import __version__, blocking, library, open_seline
from seline.domain.alerts.lifecycle import AlertType, Severity
from seline.domain.document import ABSENT, Json
from seline.errors import SelineError, StoreClosed
from seline.http.routes import PREFIX
from seline.library import Opening, Seline
from seline.manager.locks import TRANSACTION
from seline.operations.exports import ConfiguredDestination, Exporting
from seline.outbound.destinations.folder import Folder
from seline.ports.store import Snapshot
from seline.server import Serving, serving
from seline.settings import Settings
from seline.storage.volume import files
from seline.storage.volume.snapshots import WHOLE_BYTES_MAX
from tests.faults.cancelling import (
    ONCE,
    USUAL,
    WAYS,
    Caller,
    Ended,
    Load,
    Traces,
    Way,
    everywhere,
    quietly,
    struck,
)
from tests.faults.powercut.trying import kind_of
from tests.faults.test_slow_disk import Gate
from tests.integration.test_alarm import a_hook, for_ever, until
from tests.integration.test_http import ADMIN, settings_for
from tests.integration.test_sinks import listening
from tests.proof.figures import note
from tests.proof.judge import NAMES, stray
from tests.proof.operations import NEW, OPERATIONS, STILL, A, B, C, value

SUITE: Final = "cancellation"
LONG_S: Final = 120.0
AT_ONCE_S: Final = 10.0
"""Less than anybody waits for a hold (30 s), far more than an answer takes on a busy machine."""
SYNC_S: Final = 0.0005
MEMORY: Final = "/dev/shm"
RESERVE_PERCENT: Final = 0.001
"""Of a file system in memory that is large, a hundredth takes long to fill."""
Values = Mapping[str, Json]
BEFORE: Final[Values] = {name: value(name, 2) if name != NEW else None for name in NAMES}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quietly():
        yield


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a place for a volume whose syncs take as long as a disk's, so that callers do wait.

    In memory where that can be: no real disk's speed matters here.
    """

    def sync(descriptor: int) -> None:
        time.sleep(SYNC_S)
        os.fsync(descriptor)

    monkeypatch.setattr(files, "sync", sync)
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path / "data"
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder) / "data"


@pytest.fixture
def gate(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Give what stands before every sync, and can hold the writer up."""
    gate = Gate()
    monkeypatch.setattr(files, "sync", gate)
    yield gate
    gate.open()


def opening(directory: Path, **settings: object) -> Opening:
    """Return the opening of a volume as the tests use it."""
    usual = {"storage__settle_s": 0.01, "storage__reserve_percent": RESERVE_PERCENT}
    return open_seline(directory, **usual, **settings)


def served(directory: Path, **settings: object) -> Settings:
    """Return the settings of a server on a volume."""
    return settings_for(directory, storage__reserve_percent=RESERVE_PERCENT, **settings)


# what a caller is cancelled in


async def _as_it_is(_seline: Seline, _directory: Path) -> None:
    """Prepare nothing more: the documents are enough."""


@dataclass(frozen=True, kw_only=True)
class Doing:
    """One thing that a caller does. `changes` are the documents it may change, all or none."""

    act: Callable[[Seline, Path], Coroutine[Any, Any, object]]
    changes: frozenset[str] = frozenset()
    prepare: Callable[[Seline, Path], Awaitable[None]] = _as_it_is


async def _save_if_it_matches(seline: Seline, _directory: Path) -> None:
    known = await seline.data.read(A)
    await seline.data.save_json(A, value(A, "new"), if_match=known.revision)


async def _edit(seline: Seline, _directory: Path) -> None:
    async with seline.data.edit(A) as held:
        await asyncio.sleep(0)
        held["n"] = "new"


async def _transaction(seline: Seline, _directory: Path) -> None:
    """Change two documents that were named and one that was not, which is held at the end."""
    async with seline.data.transaction(A, B) as change:
        await asyncio.sleep(0)
        for name in (A, B, C):
            change[name] = value(name, "new")


async def _flip(_seline: Seline, directory: Path) -> None:
    OPERATIONS["recovery"].prepare(directory)


async def _more_than_are_kept(seline: Seline, _directory: Path) -> None:
    """Leave backups that the policy does not keep: they were pinned until now."""
    for name in (A, B):
        pinned = [backup.name for backup in (await seline.data.backups(name))[:2]]
        for backup in pinned:
            await seline.data.pin(name, backup)
        for number in (*range(10, 15), 2):
            await seline.data.save_json(name, value(name, number))
        for backup in pinned:
            await seline.data.unpin(name, backup)


async def _stream(seline: Seline, _directory: Path) -> None:
    async for _ in Exporting(seline.data, version=__version__).files():
        await asyncio.sleep(0)


async def _export_to_a_folder(seline: Seline, directory: Path) -> None:
    """Export to a folder where nothing lies yet: what did not change is not exported again."""
    target = Folder("beside", tempfile.mkdtemp(dir=directory.parent))
    destinations = [ConfiguredDestination(target=target, keep=2)]
    await Exporting(seline.data, destinations, version=__version__).run()


DOINGS: Final[Mapping[str, Doing]] = {
    "first save": Doing(
        act=lambda seline, _: seline.data.save_json(NEW, value(NEW, "new"), if_match=ABSENT),
        changes=frozenset({NEW}),
    ),
    "save": Doing(
        act=lambda seline, _: seline.data.save_json(A, value(A, "new")),
        changes=frozenset({A}),
    ),
    "save if it matches": Doing(act=_save_if_it_matches, changes=frozenset({A})),
    "update": Doing(
        act=lambda seline, _: seline.data.update_field(A, "n", "new"),
        changes=frozenset({A}),
    ),
    "edit": Doing(act=_edit, changes=frozenset({A})),
    "transaction": Doing(act=_transaction, changes=frozenset({A, B, C})),
    "delete": Doing(act=lambda seline, _: seline.data.delete(A), changes=frozenset({A})),
    "purge": Doing(act=lambda seline, _: seline.data.delete(A, purge=True), changes=frozenset({A})),
    "restore": Doing(act=lambda seline, _: seline.data.restore(A), changes=frozenset({A})),
    "import": Doing(
        act=lambda seline, _: seline.data.import_data(
            {"files": {name: value(name, "new") for name in (A, B, NEW)}}
        ),
        changes=frozenset({A, B, NEW}),
    ),
    "read while it is recovered": Doing(
        act=lambda seline, _: seline.data.load_json(A), prepare=_flip
    ),
    "prune": Doing(act=lambda seline, _: seline.data.prune(), prepare=_more_than_are_kept),
    "verify": Doing(act=lambda seline, _: seline.data.verify()),
    "export": Doing(act=lambda seline, _: seline.data.export_all_data()),
    "streamed export": Doing(act=_stream),
    "export to a folder": Doing(act=_export_to_a_folder),
}


# one round


async def stand(seline: Seline) -> None:
    """Bring the documents to where every round begins, with a backup to go back to."""
    for number in (1, 2):
        await asyncio.gather(
            *(seline.data.save_json(name, value(name, number)) for name in (A, B, C, STILL))
        )
    if await seline.data.load_json(NEW, default=None) is not None:
        await seline.data.delete(NEW)


async def values(seline: Seline) -> Values:
    return {name: await seline.data.load_json(name, default=None) for name in NAMES}


@asynccontextmanager
async def held_by_another(seline: Seline, name: str) -> AsyncIterator[None]:
    """Have another task hold a document, or be in a transaction, for the next moment."""
    inside = asyncio.Event()
    data = seline.data
    block = data.edit(name) if name in (A, B, C) else data.transaction(*{name} - {TRANSACTION})

    async def hold() -> None:
        async with block:
            inside.set()
            await asyncio.sleep(0.002)

    holding = asyncio.create_task(hold())
    await inside.wait()
    yield
    await holding


async def all_are_free(seline: Seline) -> None:
    """Hold every document, which waits for all that was queued; nobody may be in the way."""
    async with asyncio.timeout(AT_ONCE_S), seline.data.transaction(*NAMES):
        pass


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Strikes at one doing on one open store, and judges what is left each time."""

    seline: Seline
    directory: Path
    doing: Doing
    after: Values
    traces: Traces
    held: str

    async def one(self, way: Way, at: int) -> Ended:
        await stand(self.seline)
        await self.doing.prepare(self.seline, self.directory)
        async with held_by_another(self.seline, self.held) if self.held else nullcontext():
            ended = await struck(self.doing.act(self.seline, self.directory), at, way)
        await self._judge(ended)
        return ended

    async def _judge(self, ended: Ended) -> None:
        assert ended.error is None
        assert ended.cancelled == ended.struck, "a cancellation was swallowed"
        await all_are_free(self.seline)
        found = await values(self.seline)
        assert found == self.after or (ended.cancelled and found == BEFORE), ended
        await self.traces.gone()
        assert stray(self.directory) == []


async def strike_everywhere(
    directory: Path, doing: Doing, ways: Iterable[Way], held: str
) -> list[int]:
    """Do one thing on a volume until it was struck at every wait; return how often, by way."""
    before = Traces.now()
    async with opening(directory) as seline:
        await stand(seline)
        await doing.prepare(seline, directory)
        await doing.act(seline, directory)
        rounds = Rounds(
            seline=seline,
            directory=directory,
            doing=doing,
            after=await values(seline),
            traces=Traces.now(threads=False),
            held=held,
        )
        waits = [await everywhere(partial(rounds.one, way)) for way in ways]
        assert (await seline.data.verify()).findings == ()
    await before.gone()
    return waits


ALONE: Final = ""
BEHIND: Final = [
    *((name, ALONE) for name in DOINGS),
    *((name, held) for name, doing in DOINGS.items() for held in sorted(doing.changes)),
    ("transaction", TRANSACTION),
]
"""Each doing with what another holds meanwhile."""
READING: Final = {name for name, doing in DOINGS.items() if not doing.changes}


@pytest.mark.parametrize(
    ("name", "held"), [one for one in BEHIND if one != ("streamed export", ALONE)]
)
async def test_a_caller_cancelled_at_any_await_leaves_a_change_whole_or_absent(
    volume: Path, name: str, held: str
) -> None:
    ways = [ONCE] if name in READING else USUAL
    waits = await strike_everywhere(volume, DOINGS[name], ways, held)
    assert min(waits) >= (2 if held else 1)


# exports that nobody reads to their end


async def test_a_large_document_that_was_opened_for_nobody_is_closed(volume: Path) -> None:
    async with opening(volume) as seline:
        await seline.data.save_json(A, value(A, "x" * (2 * WHOLE_BYTES_MAX)))
        before = Traces.now(threads=False)
        for way in WAYS.values():
            async with seline.data.exported() as snapshot:
                ended = await struck(_open_once_it_waits(seline, snapshot), 1, way)
            assert ended.cancelled
            await before.gone()
        assert stray(volume) == []


async def _open_once_it_waits(seline: Seline, snapshot: Snapshot) -> None:
    waiting = threading.Event()

    def work() -> Iterator[bytes]:
        waiting.wait()
        return snapshot.open(A)

    asyncio.get_running_loop().call_soon(waiting.set)
    await seline.data.reading(work)


async def test_a_client_that_leaves_an_export_lets_go_of_it(volume: Path) -> None:
    async with serving(served(volume)) as running:
        await running.acquired()
        for name in (A, B):
            await running.data.save_json(name, "x" * (8 * WHOLE_BYTES_MAX))
        before = Traces.now(threads=False)
        for bytes_read in (1, 1_500_000):
            await leave_an_export(running, volume, bytes_read)
            await before.gone()
            assert stray(volume) == []


async def leave_an_export(running: Serving, directory: Path, bytes_read: int) -> None:
    """Read the beginning of an export, and hang up; a document was replaced meanwhile."""
    reader, writer = await a_narrow_connection(running.address)
    request = (
        f"GET {PREFIX}/export HTTP/1.1\r\n"
        f"Host: {running.address.removeprefix('http://')}\r\n"
        f"Authorization: Bearer {ADMIN}\r\n\r\n"
    )
    writer.write(request.encode())
    assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(bytes_read)
    await running.data.update_json(A, lambda text: f"{text}!")
    assert stray(directory) != [], "the export was at its end already"
    writer.transport.abort()


async def a_narrow_connection(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect so that the kernel takes little of what is not read."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    narrow.setblocking(False)
    host, port = address.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(narrow, (host, int(port)))
    return await asyncio.open_connection(sock=narrow)


# one writer after another


async def count_up(seline: Seline, seen: list[int]) -> None:
    """Add one to a document, and tell what it was before."""
    async with seline.data.edit(A) as held:
        seen.append(held["n"])
        await asyncio.sleep(0)
        held["n"] += 1


async def test_who_comes_after_a_cancelled_edit_builds_on_what_it_left(volume: Path) -> None:
    async with opening(volume) as seline:

        async def one(way: Way, at: int) -> Ended:
            begun, seen = asyncio.Event(), list[int]()

            async def first() -> None:
                begun.set()
                await count_up(seline, [])

            await seline.data.save_json(A, {"n": 0})
            striking = asyncio.create_task(struck(first(), at, way))
            await begun.wait()
            between = asyncio.create_task(seline.data.update_field(A, "between", 1))
            async with asyncio.timeout(AT_ONCE_S):
                await count_up(seline, seen)
            ended, _ = await asyncio.gather(striking, between)
            assert seen == [1] or (ended.cancelled and seen == [0])
            assert await seline.data.load_json(A) == {"n": seen[0] + 1, "between": 1}
            return ended

        for way in WAYS.values():
            assert await everywhere(partial(one, way)) >= 3


CHANGING: Final[Mapping[str, Doing]] = {
    name: doing for name, doing in DOINGS.items() if A in doing.changes
}


@pytest.mark.parametrize("name", CHANGING)
async def test_nobody_gets_in_before_a_cancelled_change_has_ended(
    volume: Path, gate: Gate, name: str
) -> None:
    seen: list[Json] = []

    async def look(seline: Seline) -> None:
        async with seline.data.edit(A, default=None) as held:
            seen.append(held)

    async with opening(volume) as seline:
        await stand(seline)
        await CHANGING[name].act(seline, volume)
        await look(seline)
        await stand(seline)
        gate.close()
        caller = asyncio.create_task(CHANGING[name].act(seline, volume))
        await asyncio.to_thread(gate.waits.wait, 10)
        caller.cancel()
        await asyncio.wait({caller})
        second = asyncio.create_task(look(seline))
        await asyncio.sleep(0.02)
        assert caller.cancelled()
        assert len(seen) == 1, "a second writer got in while the first had not ended"
        gate.open()
        await second
        assert seen[1] == seen[0], "the second writer did not see what the first has done"


async def test_a_change_keeps_its_place_in_line_when_its_caller_is_cancelled(
    volume: Path,
) -> None:
    async with opening(volume) as seline:
        await stand(seline)
        async with held_by_another(seline, A):
            first = asyncio.create_task(seline.data.save_json(A, {"by": "first"}))
            await asyncio.sleep(0)
            second = asyncio.create_task(seline.data.update_field(A, "then", "second"))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait({first})
        await second
        assert first.cancelled()
        assert await seline.data.load_json(A) == {"by": "first", "then": "second"}


async def test_a_limit_of_time_ends_a_block_and_what_it_holds(volume: Path) -> None:
    async with opening(volume) as seline:
        await stand(seline)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), seline.data.transaction(*NAMES) as change:
                change[A] = {}
                await asyncio.Event().wait()
        await all_are_free(seline)
        assert await values(seline) == BEFORE


async def test_a_task_group_that_fails_leaves_each_change_whole_or_absent(volume: Path) -> None:
    async def fail(ticks: int) -> None:
        for _ in range(ticks):
            await asyncio.sleep(0)
        raise ZeroDivisionError

    async with opening(volume) as seline:
        for ticks in range(12):
            await stand(seline)
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(_transaction(seline, volume))
                    group.create_task(seline.data.update_field(STILL, "n", "new"))
                    group.create_task(seline.data.save_json(NEW, value(NEW, "new")))
                    group.create_task(fail(ticks))
            await all_are_free(seline)
            found = {name: held and held["n"] for name, held in (await values(seline)).items()}
            assert [found[name] for name in (A, B, C)] in ([2, 2, 2], ["new", "new", "new"])
            assert found[STILL] in (2, "new")
            assert found[NEW] in (None, "new")


# opening and closing


async def open_again(directory: Path, **settings: object) -> None:
    """Open as anybody would who tries again, and find a store that works."""
    async with asyncio.timeout(AT_ONCE_S), opening(directory, **settings) as seline:
        await seline.data.save_json(A, value(A, "again"))
        await all_are_free(seline)


async def _with_a_block(directory: Path) -> None:
    async with opening(directory) as seline:
        await seline.data.save_json(A, value(A, "new"))


async def _by_hand(directory: Path) -> None:
    seline = await opening(directory)
    try:
        await seline.data.save_json(A, value(A, "new"))
    finally:
        await seline.close()


LIVES: Final = {"a block": _with_a_block, "open and close": _by_hand}


async def strike_a_life(life: str, directory: Path, way: Way) -> int:
    """Strike at every wait between an opening and its close; return how many there were."""
    before = Traces.now()

    async def one(at: int) -> Ended:
        ended = await struck(LIVES[life](directory), at, way)
        assert (ended.cancelled, ended.error) == (ended.struck, None)
        await open_again(directory)
        await before.gone()
        await open_again(directory, lock_wait_s=0)
        assert stray(directory) == []
        return ended

    return await everywhere(one)


@pytest.mark.parametrize("life", LIVES)
async def test_a_store_whose_opener_was_cancelled_anywhere_is_let_go(
    volume: Path, life: str
) -> None:
    for way in USUAL:
        assert await strike_a_life(life, volume, way) >= 3


@contextmanager
def locked_by_another(directory: Path) -> Iterator[None]:
    """Hold the lock as another process does, which says nothing of itself."""
    directory.mkdir(exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


async def test_who_gives_up_waiting_for_the_lock_does_not_take_it_later(volume: Path) -> None:
    before = Traces.now()
    with locked_by_another(volume):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await opening(volume, lock_wait_s=60)
        await asyncio.sleep(0)
    await before.gone()
    await open_again(volume, lock_wait_s=0)


async def test_a_close_during_the_opening_closes_what_is_opened_though_it_is_cancelled(
    volume: Path,
) -> None:
    before = Traces.now()
    settings = served(volume)
    waiting: list[SelineError] = []
    with locked_by_another(volume):
        seline = library.start(settings, lock_wait_s=60, on_wait=waiting.append)
        while not waiting:
            await asyncio.sleep(0.001)
        ended = await struck(seline.close(), 1, WAYS["once"])
    assert ended.cancelled
    await before.gone()
    await open_again(volume, lock_wait_s=0)


async def test_a_cancelled_close_goes_on_and_the_next_one_waits_for_it(volume: Path) -> None:
    before = Traces.now()
    for way in WAYS.values():
        seline = await opening(volume)
        saves = [asyncio.create_task(seline.data.save_json(f"d{n}.json", n)) for n in range(20)]
        await asyncio.sleep(0)
        ended = await struck(seline.close(), 1, way)
        await seline.close()
        assert ended.cancelled
        await asyncio.gather(*saves)
        async with opening(volume, lock_wait_s=0) as again:
            assert [await again.data.load_json(f"d{n}.json") for n in range(20)] == [*range(20)]
    await before.gone()


async def test_reads_under_way_when_the_store_closes_get_an_answer_or_a_named_error(
    volume: Path,
) -> None:
    seline = await opening(volume)
    await seline.data.save_json(A, value(A, 1))
    reads = [asyncio.create_task(seline.data.reading(lambda: time.sleep(0.005))) for _ in range(30)]
    await asyncio.sleep(0)
    await seline.close()
    ends = await asyncio.gather(*reads, return_exceptions=True)
    assert {type(end) for end in ends} <= {type(None), StoreClosed}
    assert None in ends


# at any moment, beside others


async def an_epoch(directory: Path, seed: int) -> Load:
    """Open, let callers be cancelled side by side, close so too, and look at what is there."""
    chance = random.Random(seed)
    before = Traces.now()
    seline = await opening(directory)
    load = Load(seline.data, chance)
    await load.run(callers=6, each=25)
    await all_are_free(seline)
    assert stray(directory) == []
    closing = asyncio.create_task(seline.close())
    await asyncio.wait({closing}, timeout=chance.choice((0.0, 0.001, 1.0)))
    closing.cancel()
    await asyncio.wait({closing})
    async with asyncio.timeout(AT_ONCE_S), opening(directory) as again:
        load.data = again.data
        load.broken = await load.judge()
    await before.gone()
    return load


async def test_callers_cancelled_at_any_moment_beside_others_lose_nothing(volume: Path) -> None:
    load = await an_epoch(volume, seed=1)
    assert load.broken == []
    assert load.cancelled > 20
    assert len(load.sure) > 20


@pytest.mark.prove(share=2)
async def test_thousands_of_callers_cancelled_at_any_moment_lose_nothing(
    volume: Path, share_s: float
) -> None:
    first = random.SystemRandom().randrange(1 << 32)
    print(f"\nseeds from {first} on")
    until_s = time.monotonic() + min(share_s, LONG_S)
    broken: list[str] = []
    tried = 0
    for seed in itertools.count(first):
        load = await an_epoch(volume, seed)
        tried += load.cancelled
        broken += [f"seed {seed}: {one}" for one in load.broken]
        if broken or time.monotonic() > until_s:
            break
    note(SUITE, "callers cancelled at any moment beside others", tried=tried, failures=len(broken),
         where=kind_of(volume), first_seed=first)  # fmt: skip
    assert not broken, broken[:5]


# the server


def a_free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def _serve_in_a_block(settings: Settings) -> None:
    async with serving(settings) as running:
        await running.acquired()
        await running.data.save_json(A, value(A, "new"))


async def _serve_by_hand(settings: Settings) -> None:
    running = await serving(settings)
    try:
        await running.acquired()
        await running.data.save_json(A, value(A, "new"))
    finally:
        await running.close()


SERVICES: Final = {"a block": _serve_in_a_block, "start and close": _serve_by_hand}


async def strike_a_service(life: str, directory: Path, way: Way) -> int:
    """Strike at every wait between a server's start and its close; return how many there were."""
    before = Traces.now()
    settings = served(directory, server__port=a_free_port())

    async def one(at: int) -> Ended:
        ended = await struck(SERVICES[life](settings), at, way)
        assert (ended.cancelled, ended.error) == (ended.struck, None)
        await before.gone()
        async with asyncio.timeout(AT_ONCE_S):
            await _serve_in_a_block(settings)
        await before.gone()
        assert stray(directory) == []
        return ended

    return await everywhere(one)


@pytest.mark.parametrize("life", SERVICES)
async def test_a_server_cancelled_anywhere_frees_its_volume_and_its_port(
    volume: Path, life: str
) -> None:
    for way in USUAL:
        assert await strike_a_service(life, volume, way) >= 4


async def test_a_server_closed_in_the_middle_of_its_start_is_closed(volume: Path) -> None:
    before = Traces.now()
    for ticks in range(0, 40, 4):
        running = await serving(served(volume))
        for _ in range(ticks):
            await asyncio.sleep(0.0002)
        await running.close()
        await before.gone()
    await open_again(volume, lock_wait_s=0)


async def test_a_server_closed_while_its_volume_opens_begins_nothing_more(
    volume: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink that does not answer holds the close up; meanwhile the volume opens."""
    monkeypatch.setattr("seline.alerts.log.STOP_WAIT_S", 0.3)
    before = Traces.now()
    async with listening() as sink:
        sink.answering = for_ever(sink)
        gate.close()
        running = await serving(served(volume, alerts__sinks=[a_hook(sink)]))
        await running._alarm.alerts.raise_alert(AlertType.WRONG_MOUNT, severity=Severity.WARNING)
        await until(lambda: sink.asked)
        closing = asyncio.create_task(running.close())
        await asyncio.sleep(0.02)
        gate.open()
        await closing
    await before.gone()
    await open_again(volume, lock_wait_s=0)


async def test_a_servers_cancelled_close_goes_on_and_the_next_one_waits_for_it(
    volume: Path,
) -> None:
    before = Traces.now()
    for way in WAYS.values():
        running = await serving(served(volume))
        await running.acquired()
        ended = await struck(running.close(), 1, way)
        await asyncio.gather(running.close(), running.close())
        assert ended.cancelled
        await before.gone()
        await open_again(volume, lock_wait_s=0)


@pytest.mark.prove
async def test_every_way_to_cancel_at_every_await(volume: Path, share_s: float) -> None:
    rounds = [(strike, way) for strike in STRIKES for way in WAYS.values()]
    random.Random(0).shuffle(rounds)
    until_s = time.monotonic() + min(share_s, LONG_S)
    broken: list[str] = []
    tried = begun = 0
    for strike, way in rounds:
        begun += 1
        try:
            tried += await strike(volume.with_name(f"data{begun}"), way)
        except (AssertionError, SelineError, TimeoutError) as error:
            broken.append(f"{strike.args} {way}: {error!r}")
        if time.monotonic() > until_s:
            break
    note(SUITE, "callers cancelled at every await", tried=tried, failures=len(broken),
         where=kind_of(volume.parent), rounds=begun, possible=len(rounds))  # fmt: skip
    assert not broken, broken[:5]


async def _strike_a_doing(name: str, held: str, directory: Path, way: Way) -> int:
    return sum(await strike_everywhere(directory, DOINGS[name], [way], held))


STRIKES: Final[list[partial[Coroutine[Any, Any, int]]]] = [
    *(partial(_strike_a_doing, name, held) for name, held in BEHIND),
    *(partial(strike_a_life, life) for life in LIVES),
    *(partial(strike_a_service, life) for life in SERVICES),
]


# the loop itself ends


def _interrupt(task: asyncio.Task[Any]) -> None:
    """Press Ctrl-C while the loop waits."""
    task.get_loop().call_soon(signal.raise_signal, signal.SIGINT)


INTERRUPTED: Final = {
    "Ctrl-C": Way(by=_interrupt),
    "Ctrl-C twice": Way(times=2, by=_interrupt),
}
MAINS: Final[Mapping[str, Callable[[Path], Coroutine[Any, Any, object]]]] = {
    "open_seline": _with_a_block,
    "serving": lambda directory: _serve_in_a_block(served(directory)),
}


def interrupted(main: Coroutine[Any, Any, object], at: int, way: Way) -> bool:
    """Run a program interrupted where it waits for the `at`-th time; whether it was."""
    caller = Caller(main, at, way)
    try:
        asyncio.run(caller.run())
    except KeyboardInterrupt:
        assert caller.waits >= at
        return True
    return False


@pytest.mark.parametrize("way", INTERRUPTED)
@pytest.mark.parametrize("name", MAINS)
def test_a_program_interrupted_anywhere_frees_its_volume(volume: Path, name: str, way: str) -> None:
    before = Traces.now()
    rounds = 0
    while interrupted(MAINS[name](volume), rounds + 1, INTERRUPTED[way]):
        rounds += 1
        asyncio.run(open_again(volume))
        before.gone_without_loop()
        assert stray(volume) == []
    assert rounds >= 1  # how often a program really waits depends on the machine


@contextmanager
def interrupted_soon() -> Iterator[None]:
    """Press Ctrl-C while this thread waits inside the block; it is raised there."""
    pressing = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        pressing.start()
        yield
    pressing.join()


def test_an_export_without_a_loop_that_is_interrupted_holds_nothing(
    volume: Path, gate: Gate
) -> None:
    with blocking.open_seline(volume) as seline:
        seline.data.save_json(A, value(A, 1))
        gate.close()
        saving = threading.Thread(target=seline.data.save_json, args=(B, value(B, 1)))
        saving.start()
        gate.waits.wait()
        with interrupted_soon(), seline.data.exported():
            pass
        gate.open()
        saving.join()
        seline.data.save_json(A, value(A, 2))
        assert stray(volume) == []


def test_an_opening_without_a_loop_that_is_interrupted_does_not_take_the_lock_later(
    volume: Path,
) -> None:
    before = Traces.now()
    with locked_by_another(volume), interrupted_soon():
        blocking.open_seline(volume, lock_wait_s=60)
    before.gone_without_loop()
    blocking.open_seline(volume, lock_wait_s=0).close()


def test_a_save_is_made_though_its_loop_is_closed_and_the_loop_is_not_kept(volume: Path) -> None:
    async def begin(seline: Seline, count: int) -> list[asyncio.Task[Any]]:
        saves = [asyncio.create_task(seline.data.save_json(f"d{n}.json", n)) for n in range(count)]
        await asyncio.sleep(0)
        return saves

    with blocking.open_seline(volume) as seline:
        for count in (1, 2, 2, 20, 20):
            loop = asyncio.new_event_loop()
            saves = loop.run_until_complete(begin(seline._awaited, count))
            for save in saves:
                save.cancel()
            loop.run_until_complete(asyncio.wait(saves))
            loop.close()
            kept = weakref.ref(loop)
            del loop, saves, save
            seline.data.save_json("after.json", count)
            assert [seline.data.load_json(f"d{n}.json") for n in range(count)] == [*range(count)]
            assert goes(kept), "a loop that was closed is kept for ever"


def goes(kept: weakref.ref[Any]) -> bool:
    """Whether something goes, once the writer has put its last batch away."""
    until_s = time.monotonic() + AT_ONCE_S
    while kept() is not None and time.monotonic() < until_s:
        gc.collect()
    return kept() is None
