"""V6, V7: a caller is cancelled at every wait; its change is whole or absent and nothing is leaked.

No update is lost, and no second writer starts before the first has ended. A document stays locked
until its caller's commit ends. Tasks, threads, descriptors, staged files and the lock are released
with the store.
"""

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
from seline.domain.alerts.lifecycle import AlertType, Raised, Severity
from seline.domain.document import ABSENT, Json
from seline.errors import SelineError, StoreClosed
from seline.http import PREFIX
from seline.library import Opening, Seline
from seline.manager.locks import TRANSACTION
from seline.operations.exports import Exporter
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Target
from seline.ports.store import Snapshot
from seline.server import Serving, serving
from seline.settings import Settings
from seline.storage.volume import files
from seline.storage.volume.snapshots import WHOLE_BYTES_MAX
from tests.faults.cancelling import (
    CANCELLATIONS,
    ONCE,
    USUAL,
    CallerResult,
    Cancellation,
    CancelledCaller,
    Resources,
    Workload,
    cancel_at_every_wait,
    cancel_at_wait,
    no_errors_logged,
)
from tests.faults.forms import each_form, labelled
from tests.faults.powercut.trying import kind_of
from tests.faults.test_slow_disk import SyncGate
from tests.http_client import ADMIN, settings_for
from tests.integration.test_alert_process import a_hook, for_ever, until
from tests.integration.test_alert_sinks import listening
from tests.proof.figures import note
from tests.proof.judge import NAMES, stray
from tests.proof.operations import NEW, OPERATIONS, STILL, A, B, C, value

pytestmark = each_form

SUITE: Final = "cancellation"
LONG_S: Final = 60.0
PROMPTLY_S: Final = 10.0
"""Less than the wait for a locked document (30 s), far more than a call takes on a busy machine."""
SYNC_S: Final = 0.0005
MEMORY: Final = "/dev/shm"
RESERVE_PERCENT: Final = 0.001
"""The default of 1 % of a large file system in memory takes long to write."""
Values = Mapping[str, Json]
BEFORE: Final[Values] = {name: value(name, 2) if name != NEW else None for name in NAMES}


@pytest.fixture(autouse=True)
def _no_errors() -> Iterator[None]:
    with no_errors_logged():
        yield


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a directory for a volume whose syncs take as long as a disk's, so that callers wait.

    It is in memory where possible, since the speed of a real disk does not matter here.
    """

    def sync(descriptor: int) -> None:
        time.sleep(SYNC_S)
        os.fsync(descriptor)

    for name in ("sync", "sync_data"):
        monkeypatch.setattr(files, name, sync)
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path / "data"
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder) / "data"


@pytest.fixture
def gate(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncGate]:
    """Yield a gate that can block the writer at every sync."""
    gate = SyncGate()
    gate.install(monkeypatch)
    yield gate
    gate.open()


def open_volume(directory: Path, **settings: object) -> Opening:
    """Open a volume with the settings of these tests."""
    defaults = {"storage__settle_s": 0.01, "storage__reserve_percent": RESERVE_PERCENT}
    return open_seline(directory, **defaults, **settings)


def server_settings(directory: Path, **settings: object) -> Settings:
    """Return the settings of a server on `directory`."""
    return settings_for(directory, storage__reserve_percent=RESERVE_PERCENT, **settings)


# the actions that are cancelled


async def _no_preparation(_seline: Seline, _directory: Path) -> None:
    """Prepare nothing: the documents are enough."""


@dataclass(frozen=True, kw_only=True)
class CallerAction:
    """An action of a caller. `changes` are the documents that it may change, all or none."""

    run: Callable[[Seline, Path], Coroutine[Any, Any, object]]
    changes: frozenset[str] = frozenset()
    prepare: Callable[[Seline, Path], Awaitable[None]] = _no_preparation


async def _save_if_it_matches(seline: Seline, _directory: Path) -> None:
    known = await seline.data.read(A)
    await seline.data.save_json(A, value(A, "new"), if_match=known.revision)


async def _edit(seline: Seline, _directory: Path) -> None:
    async with seline.data.edit(A) as content:
        await asyncio.sleep(0)
        content["n"] = "new"


async def _transaction(seline: Seline, _directory: Path) -> None:
    """Change two documents that were named and one that is locked only at the end."""
    async with seline.data.transaction(A, B) as change:
        await asyncio.sleep(0)
        for name in (A, B, C):
            change[name] = value(name, "new")


async def _flip(seline: Seline, directory: Path) -> None:
    await seline.data.documents()  # has the file written
    OPERATIONS["recovery"].prepare(directory)


async def _leave_more_backups_than_are_kept(seline: Seline, _directory: Path) -> None:
    """Leave backups that the policy does not keep, because they were pinned until now."""
    for name in (A, B):
        pinned = [backup.name for backup in (await seline.data.backups(name))[:2]]
        for backup in pinned:
            await seline.data.pin(name, backup)
        for number in (*range(10, 15), 2):
            await seline.data.save_json(name, value(name, number))
        for backup in pinned:
            await seline.data.unpin(name, backup)


async def _stream(seline: Seline, _directory: Path) -> None:
    async for _ in Exporter(seline.store, version=__version__).files():
        await asyncio.sleep(0)


async def _export_to_a_folder(seline: Seline, directory: Path) -> None:
    """Export to an empty folder, since an unchanged document is not exported twice."""
    place = tempfile.mkdtemp(dir=directory.parent)
    target = Target(Folder(place, place), 2)
    await Exporter(seline.store, [target], version=__version__).run()


ACTIONS: Final[Mapping[str, CallerAction]] = {
    "first save": CallerAction(
        run=lambda seline, _: seline.data.save_json(NEW, value(NEW, "new"), if_match=ABSENT),
        changes=frozenset({NEW}),
    ),
    "save": CallerAction(
        run=lambda seline, _: seline.data.save_json(A, value(A, "new")), changes=frozenset({A})
    ),
    "save if it matches": CallerAction(run=_save_if_it_matches, changes=frozenset({A})),
    "update": CallerAction(
        run=lambda seline, _: seline.data.update_field(A, "n", "new"), changes=frozenset({A})
    ),
    "edit": CallerAction(run=_edit, changes=frozenset({A})),
    "transaction": CallerAction(run=_transaction, changes=frozenset({A, B, C})),
    "delete": CallerAction(run=lambda seline, _: seline.data.delete(A), changes=frozenset({A})),
    "purge": CallerAction(
        run=lambda seline, _: seline.data.delete(A, purge=True), changes=frozenset({A})
    ),
    "restore": CallerAction(run=lambda seline, _: seline.data.restore(A), changes=frozenset({A})),
    "import": CallerAction(
        run=lambda seline, _: seline.data.import_data(
            {"files": {name: value(name, "new") for name in (A, B, NEW)}}
        ),
        changes=frozenset({A, B, NEW}),
    ),
    "read while it is recovered": CallerAction(
        run=lambda seline, _: seline.data.load_json(A), prepare=_flip
    ),
    "prune": CallerAction(
        run=lambda seline, _: seline.prune(), prepare=_leave_more_backups_than_are_kept
    ),
    "verify": CallerAction(run=lambda seline, _: seline.verify()),
    "export": CallerAction(run=lambda seline, _: seline.data.export_all_data()),
    "streamed export": CallerAction(run=_stream),
    "export to a folder": CallerAction(run=_export_to_a_folder),
}


# one round


async def reset_documents(seline: Seline) -> None:
    """Save the documents in the state in which every round starts, each with a backup."""
    for number in (1, 2):
        await asyncio.gather(
            *(seline.data.save_json(name, value(name, number)) for name in (A, B, C, STILL))
        )
    if await seline.data.load_json(NEW, default=None) is not None:
        await seline.data.delete(NEW)


async def values(seline: Seline) -> Values:
    return {name: await seline.data.load_json(name, default=None) for name in NAMES}


@asynccontextmanager
async def locked_by_another_task(seline: Seline, name: str) -> AsyncIterator[None]:
    """Let another task edit a document, or run a transaction, for some turns and 2 ms.

    The turns let the change reach the lock, also on a machine that stands still for 2 ms.
    """
    entered = asyncio.Event()
    data = seline.data
    block = data.edit(name) if name in (A, B, C) else data.transaction(*{name} - {TRANSACTION})

    async def hold() -> None:
        async with block:
            entered.set()
            for _ in range(10):
                await asyncio.sleep(0)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(hold())
    await entered.wait()
    yield
    await task


async def assert_nothing_locked(seline: Seline) -> None:
    """Lock every document, after everything that was queued; no lock may be left."""
    async with asyncio.timeout(PROMPTLY_S), seline.data.transaction(*NAMES):
        pass


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Runs one action on an open store, cancelled at one wait, and checks what is left."""

    seline: Seline
    directory: Path
    action: CallerAction
    after: Values
    resources: Resources
    locked: str

    async def run(self, cancellation: Cancellation, at: int) -> CallerResult:
        await reset_documents(self.seline)
        await self.action.prepare(self.seline, self.directory)
        async with (
            locked_by_another_task(self.seline, self.locked) if self.locked else nullcontext()
        ):
            result = await cancel_at_wait(
                self.action.run(self.seline, self.directory), at, cancellation
            )
        await self._check(result)
        return result

    async def _check(self, result: CallerResult) -> None:
        assert result.error is None
        assert result.cancelled == result.reached, "a cancellation was swallowed"
        await assert_nothing_locked(self.seline)
        served = await values(self.seline)
        assert served == self.after or (result.cancelled and served == BEFORE), result
        await self.resources.wait_until_released()
        assert stray(self.directory) == []


async def cancel_everywhere(
    directory: Path, action: CallerAction, cancellations: Iterable[Cancellation], locked: str
) -> list[int]:
    """Cancel an action at every wait; return how many waits it has, for each cancellation."""
    before = Resources.now()
    async with open_volume(directory) as seline:
        await reset_documents(seline)
        await action.prepare(seline, directory)
        await action.run(seline, directory)
        rounds = Rounds(
            seline=seline,
            directory=directory,
            action=action,
            after=await values(seline),
            resources=Resources.now(threads=False),
            locked=locked,
        )
        waits = [
            await cancel_at_every_wait(partial(rounds.run, cancellation))
            for cancellation in cancellations
        ]
        assert (await seline.verify()).findings == ()
    await before.wait_until_released()
    return waits


ALONE: Final = ""
CASES: Final = [
    *((name, ALONE) for name in ACTIONS),
    *((name, locked) for name, action in ACTIONS.items() for locked in sorted(action.changes)),
    ("transaction", TRANSACTION),
]
"""Each action with what another task has locked."""
READ_ONLY: Final = {name for name, action in ACTIONS.items() if not action.changes}


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("name", "locked"),
    [
        pytest.param(*case, marks=pytest.mark.prove if number % 2 else [])
        for number, case in enumerate(CASES)
        if case != ("streamed export", ALONE)
    ],
)
async def test_a_cancelled_change_is_whole_or_absent(volume: Path, name: str, locked: str) -> None:
    cancellations = [ONCE] if name in READ_ONLY else USUAL
    waits = await cancel_everywhere(volume, ACTIONS[name], cancellations, locked)
    assert min(waits) >= (2 if locked else 1)


# exports that are not read to their end


async def test_a_document_opened_for_a_cancelled_export_is_closed(volume: Path) -> None:
    async with open_volume(volume) as seline:
        await seline.data.save_json(A, value(A, "x" * (2 * WHOLE_BYTES_MAX)))
        before = Resources.now(threads=False)
        for cancellation in CANCELLATIONS.values():
            async with seline.data.exported() as snapshot:
                result = await cancel_at_wait(
                    _open_once_it_waits(seline, snapshot), 1, cancellation
                )
            assert result.cancelled
            await before.wait_until_released()
        assert stray(volume) == []


async def _open_once_it_waits(seline: Seline, snapshot: Snapshot) -> None:
    waiting = threading.Event()

    def work() -> Iterator[bytes]:
        waiting.wait()
        return snapshot.open(A)

    asyncio.get_running_loop().call_soon(waiting.set)
    await seline.store.reading(work)


async def test_a_client_that_disconnects_releases_its_export(volume: Path) -> None:
    async with serving(server_settings(volume)) as running:
        await running.acquired()
        for name in (A, B):
            await running.data.save_json(name, "x" * (8 * WHOLE_BYTES_MAX))
        before = Resources.now(threads=False)
        for bytes_read in (1, 1_500_000):
            await disconnect_during_export(running, volume, bytes_read)
            await before.wait_until_released()
            assert stray(volume) == []


async def disconnect_during_export(running: Serving, directory: Path, bytes_read: int) -> None:
    """Read the start of an export, replace a document, and disconnect."""
    reader, writer = await connect_with_small_buffer(running.address)
    request = (
        f"GET {PREFIX}/export HTTP/1.1\r\n"
        f"Host: {running.address.removeprefix('http://')}\r\n"
        f"Authorization: Bearer {ADMIN}\r\n\r\n"
    )
    writer.write(request.encode())
    assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(bytes_read)
    await running.data.update_json(A, lambda text: f"{text}!")
    assert stray(directory) != [], "the export had already ended"
    writer.transport.abort()


async def connect_with_small_buffer(
    address: str,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect with a small receive buffer, so that the server must wait for the reader."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client.setblocking(False)
    host, port = address.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
    return await asyncio.open_connection(sock=client)


# one writer after another


async def count_up(seline: Seline, seen: list[int]) -> None:
    """Add one to a document and append its previous number to `seen`."""
    async with seline.data.edit(A) as content:
        seen.append(content["n"])
        await asyncio.sleep(0)
        content["n"] += 1


async def test_an_edit_after_a_cancelled_edit_sees_its_result(volume: Path) -> None:
    async with open_volume(volume) as seline:

        async def run_once(cancellation: Cancellation, at: int) -> CallerResult:
            started, seen = asyncio.Event(), list[int]()

            async def first_edit() -> None:
                started.set()
                await count_up(seline, [])

            await seline.data.save_json(A, {"n": 0})
            cancelling = asyncio.create_task(cancel_at_wait(first_edit(), at, cancellation))
            await started.wait()
            update = asyncio.create_task(seline.data.update_field(A, "between", 1))
            async with asyncio.timeout(PROMPTLY_S):
                await count_up(seline, seen)
            result, _ = await asyncio.gather(cancelling, update)
            assert seen == [1] or (result.cancelled and seen == [0])
            assert await seline.data.load_json(A) == {"n": seen[0] + 1, "between": 1}
            return result

        for cancellation in CANCELLATIONS.values():
            assert await cancel_at_every_wait(partial(run_once, cancellation)) >= 3


CHANGING_A: Final[Mapping[str, CallerAction]] = {
    name: action for name, action in ACTIONS.items() if A in action.changes
}


@pytest.mark.parametrize("name", CHANGING_A)
async def test_no_edit_starts_before_a_cancelled_change_has_ended(
    volume: Path, gate: SyncGate, name: str
) -> None:
    seen: list[Json] = []

    async def edit(seline: Seline) -> None:
        async with seline.data.edit(A, default=None) as content:
            seen.append(content)

    async with open_volume(volume) as seline:
        await reset_documents(seline)
        await CHANGING_A[name].run(seline, volume)
        await edit(seline)
        await reset_documents(seline)
        gate.close()
        caller = asyncio.create_task(CHANGING_A[name].run(seline, volume))
        await asyncio.to_thread(gate.blocked.wait, 10)
        caller.cancel()
        await asyncio.wait({caller})
        second = asyncio.create_task(edit(seline))
        await asyncio.sleep(0.02)
        assert caller.cancelled()
        assert len(seen) == 1, "a second writer started before the first had ended"
        gate.open()
        await second
        assert seen[1] == seen[0], "the second writer did not see the first change"


async def test_a_queued_change_keeps_its_place_when_its_caller_is_cancelled(volume: Path) -> None:
    async with open_volume(volume) as seline:
        await reset_documents(seline)
        async with locked_by_another_task(seline, A):
            first = asyncio.create_task(seline.data.save_json(A, {"by": "first"}))
            await asyncio.sleep(0)
            second = asyncio.create_task(seline.data.update_field(A, "then", "second"))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait({first})
        await second
        assert first.cancelled()
        assert await seline.data.load_json(A) == {"by": "first", "then": "second"}


async def test_a_timeout_ends_a_transaction_and_releases_its_documents(volume: Path) -> None:
    async with open_volume(volume) as seline:
        await reset_documents(seline)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), seline.data.transaction(*NAMES) as change:
                change[A] = {}
                await asyncio.Event().wait()
        await assert_nothing_locked(seline)
        assert await values(seline) == BEFORE


async def test_each_change_of_a_failed_task_group_is_whole_or_absent(volume: Path) -> None:
    async def fail(ticks: int) -> None:
        for _ in range(ticks):
            await asyncio.sleep(0)
        raise ZeroDivisionError

    async with open_volume(volume) as seline:
        for ticks in range(12):
            await reset_documents(seline)
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(_transaction(seline, volume))
                    group.create_task(seline.data.update_field(STILL, "n", "new"))
                    group.create_task(seline.data.save_json(NEW, value(NEW, "new")))
                    group.create_task(fail(ticks))
            await assert_nothing_locked(seline)
            found = {
                name: document and document["n"]
                for name, document in (await values(seline)).items()
            }
            assert [found[name] for name in (A, B, C)] in ([2, 2, 2], ["new", "new", "new"])
            assert found[STILL] in (2, "new")
            assert found[NEW] in (None, "new")


# opening and closing


async def assert_store_opens(directory: Path, **settings: object) -> None:
    """Open the volume again and check that the store works."""
    async with asyncio.timeout(PROMPTLY_S), open_volume(directory, **settings) as seline:
        await seline.data.save_json(A, value(A, "again"))
        await assert_nothing_locked(seline)


async def _open_in_a_block(directory: Path) -> None:
    async with open_volume(directory) as seline:
        await seline.data.save_json(A, value(A, "new"))


async def _open_and_close(directory: Path) -> None:
    seline = await open_volume(directory)
    try:
        await seline.data.save_json(A, value(A, "new"))
    finally:
        await seline.close()


LIFETIMES: Final = {"a block": _open_in_a_block, "open and close": _open_and_close}


async def cancel_lifetime(lifetime: str, directory: Path, cancellation: Cancellation) -> int:
    """Cancel at every wait between opening and close; return how many waits there are."""
    before = Resources.now()

    async def run_once(at: int) -> CallerResult:
        result = await cancel_at_wait(LIFETIMES[lifetime](directory), at, cancellation)
        assert (result.cancelled, result.error) == (result.reached, None)
        await assert_store_opens(directory)
        await before.wait_until_released()
        await assert_store_opens(directory, lock_wait_s=0)
        assert stray(directory) == []
        return result

    return await cancel_at_every_wait(run_once)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("lifetime", LIFETIMES)
async def test_a_cancelled_opening_or_close_releases_the_store(volume: Path, lifetime: str) -> None:
    for cancellation in USUAL:
        assert await cancel_lifetime(lifetime, volume, cancellation) >= 3


@contextmanager
def locked_by_another_process(directory: Path) -> Iterator[None]:
    """Lock a volume as another process does that has written no server.json."""
    directory.mkdir(exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


async def test_a_caller_that_stops_waiting_for_the_lock_does_not_take_it_later(
    volume: Path,
) -> None:
    before = Resources.now()
    with locked_by_another_process(volume):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await open_volume(volume, lock_wait_s=60)
        await asyncio.sleep(0)
    await before.wait_until_released()
    await assert_store_opens(volume, lock_wait_s=0)


async def test_a_cancelled_close_during_the_opening_closes_the_store(volume: Path) -> None:
    before = Resources.now()
    settings = server_settings(volume)
    waiting: list[SelineError] = []
    with locked_by_another_process(volume):
        seline = library.start(settings, lock_wait_s=60, on_wait=waiting.append)
        while not waiting:
            await asyncio.sleep(0.001)
        result = await cancel_at_wait(seline.close(), 1, CANCELLATIONS["once"])
    assert result.cancelled
    await before.wait_until_released()
    await assert_store_opens(volume, lock_wait_s=0)


async def test_a_cancelled_close_completes_and_the_next_close_waits_for_it(
    volume: Path, gate: SyncGate
) -> None:
    before = Resources.now()
    for cancellation in CANCELLATIONS.values():
        seline = await open_volume(volume)
        gate.close()  # so that the close has to wait for the saves
        saves = [asyncio.create_task(seline.data.save_json(f"d{n}.json", n)) for n in range(20)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, gate.open)
        result = await cancel_at_wait(seline.close(), 1, cancellation)
        await seline.close()
        assert result.cancelled
        await asyncio.gather(*saves)
        async with open_volume(volume, lock_wait_s=0) as again:
            assert [await again.data.load_json(f"d{n}.json") for n in range(20)] == [*range(20)]
    await before.wait_until_released()


async def test_reads_in_progress_at_close_return_or_raise_store_closed(volume: Path) -> None:
    seline = await open_volume(volume)
    await seline.data.save_json(A, value(A, 1))
    reads = [
        asyncio.create_task(seline.store.reading(lambda: time.sleep(0.005))) for _ in range(30)
    ]
    await asyncio.sleep(0)
    await seline.close()
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), StoreClosed}
    assert None in results


# callers cancelled at random


async def run_workload(directory: Path, seed: int) -> Workload:
    """Run many cancelled callers and a cancelled close; return the workload with what is broken."""
    rng = random.Random(seed)
    before = Resources.now()
    seline = await open_volume(directory)
    workload = Workload(seline, rng)
    await workload.run(callers=6, count=25)
    await assert_nothing_locked(seline)
    assert stray(directory) == []
    closing = asyncio.create_task(seline.close())
    await asyncio.wait({closing}, timeout=rng.choice((0.0, 0.001, 1.0)))
    closing.cancel()
    await asyncio.wait({closing})
    async with asyncio.timeout(PROMPTLY_S), open_volume(directory) as again:
        workload.seline = again
        workload.broken = await workload.check()
    await before.wait_until_released()
    return workload


async def test_callers_cancelled_at_random_lose_nothing(volume: Path) -> None:
    workload = await run_workload(volume, seed=1)
    assert workload.broken == []
    assert workload.cancelled > 20
    assert len(workload.acknowledged) > 20


@pytest.mark.prove(share=2)
async def test_thousands_of_callers_cancelled_at_random_lose_nothing(
    form: str, volume: Path, share_s: float
) -> None:
    first_seed = random.SystemRandom().randrange(1 << 32)
    print(f"\nseeds from {first_seed} on")
    until_s = time.monotonic() + min(share_s, LONG_S)
    broken: list[str] = []
    tried = 0
    for seed in itertools.count(first_seed):
        workload = await run_workload(volume, seed)
        tried += workload.cancelled
        broken += [f"seed {seed}: {failure}" for failure in workload.broken]
        if broken or time.monotonic() > until_s:
            break
    what = labelled("callers cancelled at any moment beside others", form)
    note(SUITE, what, tried=tried, failures=len(broken), where=kind_of(volume),
         first_seed=first_seed)  # fmt: skip
    assert not broken, broken[:5]


# the server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _serve_in_a_block(settings: Settings) -> None:
    async with serving(settings) as running:
        await running.acquired()
        await running.data.save_json(A, value(A, "new"))


async def _start_and_close(settings: Settings) -> None:
    running = await serving(settings)
    try:
        await running.acquired()
        await running.data.save_json(A, value(A, "new"))
    finally:
        await running.close()


SERVER_LIFETIMES: Final = {"a block": _serve_in_a_block, "start and close": _start_and_close}


async def cancel_server(lifetime: str, directory: Path, cancellation: Cancellation) -> int:
    """Cancel at every wait between a server's start and its close; return how many there are."""
    before = Resources.now()
    settings = server_settings(directory, server__port=free_port())

    async def run_once(at: int) -> CallerResult:
        result = await cancel_at_wait(SERVER_LIFETIMES[lifetime](settings), at, cancellation)
        assert (result.cancelled, result.error) == (result.reached, None)
        await before.wait_until_released()
        async with asyncio.timeout(PROMPTLY_S):
            await _serve_in_a_block(settings)
        await before.wait_until_released()
        assert stray(directory) == []
        return result

    return await cancel_at_every_wait(run_once)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("lifetime", SERVER_LIFETIMES)
async def test_a_cancelled_server_releases_its_volume_and_port(volume: Path, lifetime: str) -> None:
    for cancellation in USUAL:
        assert await cancel_server(lifetime, volume, cancellation) >= 4


async def test_a_server_can_be_closed_during_its_start(volume: Path) -> None:
    before = Resources.now()
    for ticks in range(0, 40, 4):
        running = await serving(server_settings(volume))
        for _ in range(ticks):
            await asyncio.sleep(0.0002)
        await running.close()
        await before.wait_until_released()
    await assert_store_opens(volume, lock_wait_s=0)


@pytest.mark.prove
async def test_a_server_closed_while_its_volume_opens_starts_nothing_more(
    volume: Path, gate: SyncGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink that does not answer delays the close until the volume has opened."""
    monkeypatch.setattr("seline.alerts.log.STOP_WAIT_S", 0.3)
    before = Resources.now()
    async with listening() as sink:
        sink.answer = for_ever(sink)
        gate.close()
        running = await serving(server_settings(volume, alerts__sinks=[a_hook(sink)]))
        signal = Raised(type=AlertType.WRONG_MOUNT, severity=Severity.WARNING)
        await running.alerts.log.take([signal])
        await until(lambda: sink.requests)
        closing = asyncio.create_task(running.close())
        await asyncio.sleep(0.02)
        gate.open()
        await closing
    await before.wait_until_released()
    await assert_store_opens(volume, lock_wait_s=0)


async def test_a_cancelled_server_close_completes_and_the_next_close_waits_for_it(
    volume: Path,
) -> None:
    before = Resources.now()
    for cancellation in CANCELLATIONS.values():
        running = await serving(server_settings(volume))
        await running.acquired()
        result = await cancel_at_wait(running.close(), 1, cancellation)
        await asyncio.gather(running.close(), running.close())
        assert result.cancelled
        await before.wait_until_released()
        await assert_store_opens(volume, lock_wait_s=0)


@pytest.mark.prove
async def test_every_cancellation_at_every_wait_leaves_changes_whole_or_absent(
    form: str, volume: Path, share_s: float
) -> None:
    rounds = [
        (cancel, cancellation) for cancel in CANCELLERS for cancellation in CANCELLATIONS.values()
    ]
    random.Random(0).shuffle(rounds)
    until_s = time.monotonic() + min(share_s, LONG_S)
    broken: list[str] = []
    tried = started = 0
    for cancel, cancellation in rounds:
        started += 1
        try:
            tried += await cancel(volume.with_name(f"data{started}"), cancellation)
        except (AssertionError, SelineError, TimeoutError) as error:
            broken.append(f"{cancel.args} {cancellation}: {error!r}")
        if time.monotonic() > until_s:
            break
    what = labelled("callers cancelled at every await", form)
    note(SUITE, what, tried=tried, failures=len(broken), where=kind_of(volume.parent),
         rounds=started, possible=len(rounds))  # fmt: skip
    assert not broken, broken[:5]


async def _cancel_action(
    name: str, locked: str, directory: Path, cancellation: Cancellation
) -> int:
    return sum(await cancel_everywhere(directory, ACTIONS[name], [cancellation], locked))


CANCELLERS: Final[list[partial[Coroutine[Any, Any, int]]]] = [
    *(partial(_cancel_action, name, locked) for name, locked in CASES),
    *(partial(cancel_lifetime, lifetime) for lifetime in LIFETIMES),
    *(partial(cancel_server, lifetime) for lifetime in SERVER_LIFETIMES),
]


# the event loop ends


def _interrupt(task: asyncio.Task[Any]) -> None:
    """Send SIGINT while the loop waits."""
    task.get_loop().call_soon(signal.raise_signal, signal.SIGINT)


INTERRUPTIONS: Final = {
    "Ctrl-C": Cancellation(cancel=_interrupt),
    "Ctrl-C twice": Cancellation(times=2, cancel=_interrupt),
}
PROGRAMS: Final[Mapping[str, Callable[[Path], Coroutine[Any, Any, object]]]] = {
    "open_seline": _open_in_a_block,
    "serving": lambda directory: _serve_in_a_block(server_settings(directory)),
}


def run_interrupted(
    program: Coroutine[Any, Any, object], at: int, cancellation: Cancellation
) -> bool:
    """Run a program and interrupt it at its `at`-th wait; return whether it was interrupted."""
    caller = CancelledCaller(program, at, cancellation)
    try:
        asyncio.run(caller.run())
    except KeyboardInterrupt:
        assert caller.waits >= at
        return True
    return False


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_interrupted_program_releases_its_volume(
    volume: Path, name: str, interruption: str
) -> None:
    before = Resources.now()
    rounds = 0
    while run_interrupted(PROGRAMS[name](volume), rounds + 1, INTERRUPTIONS[interruption]):
        rounds += 1
        asyncio.run(assert_store_opens(volume))
        before.wait_until_released_blocking()
        assert stray(volume) == []
    assert rounds >= 1  # how many waits a program has depends on the machine


@contextmanager
def interrupt_soon() -> Iterator[None]:
    """Send SIGINT while this thread waits inside the block, which must raise KeyboardInterrupt."""
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        yield
    timer.join()


def test_an_interrupted_blocking_export_releases_its_documents(
    volume: Path, gate: SyncGate
) -> None:
    with blocking.open_seline(volume) as seline:
        seline.data.save_json(A, value(A, 1))
        gate.close()
        saving = threading.Thread(target=seline.data.save_json, args=(B, value(B, 1)))
        saving.start()
        gate.blocked.wait()
        with interrupt_soon(), seline.data.exported():
            pass
        gate.open()
        saving.join()
        seline.data.save_json(A, value(A, 2))
        assert stray(volume) == []


def test_an_interrupted_blocking_opening_does_not_take_the_lock_later(volume: Path) -> None:
    before = Resources.now()
    with locked_by_another_process(volume), interrupt_soon():
        blocking.open_seline(volume, lock_wait_s=60)
    before.wait_until_released_blocking()
    blocking.open_seline(volume, lock_wait_s=0).close()


def test_an_interrupt_while_the_opening_begins_does_not_take_the_lock_later(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = library._begin

    def interrupted(*args: Any) -> None:
        begin(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "_begin", interrupted)
    before = Resources.now()
    with locked_by_another_process(volume), pytest.raises(KeyboardInterrupt):
        blocking.open_seline(volume, lock_wait_s=60)
    before.wait_until_released_blocking()


def test_a_save_completes_after_its_loop_is_closed_and_the_loop_is_collected(volume: Path) -> None:
    async def start_saves(seline: Seline, count: int) -> list[asyncio.Task[Any]]:
        saves = [asyncio.create_task(seline.data.save_json(f"d{n}.json", n)) for n in range(count)]
        await asyncio.sleep(0)
        return saves

    with blocking.open_seline(volume) as seline:
        for count in (1, 2, 2, 20, 20):
            loop = asyncio.new_event_loop()
            saves = loop.run_until_complete(start_saves(seline._awaited, count))
            for save in saves:
                save.cancel()
            loop.run_until_complete(asyncio.wait(saves))
            loop.close()
            loop_ref = weakref.ref(loop)
            del loop, saves, save
            seline.data.save_json("after.json", count)
            assert [seline.data.load_json(f"d{n}.json") for n in range(count)] == [*range(count)]
            assert is_collected(loop_ref), "the closed loop is still referenced"


def is_collected(loop_ref: weakref.ref[Any]) -> bool:
    """Return whether the object is collected once the writer has dropped its last batch."""
    until_s = time.monotonic() + PROMPTLY_S
    while loop_ref() is not None and time.monotonic() < until_s:
        gc.collect()
    return loop_ref() is None
