"""A slow or hanging disk: the event loop is not blocked, order is kept, waits are bounded."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from seline import blocking, library
from seline.domain.document import BOT, DocumentKey
from seline.errors import DocumentTooLarge, OutcomeUnknown, VolumeBusy, VolumeFailed
from seline.manager.awaited_store import READER_THREADS
from seline.ports.futures import run_without_loop
from seline.server import Serving, serving
from seline.storage.volume import files, writer
from seline.storage.volume.commit import exchange_form
from seline.storage.volume.directory import VolumeDirectory
from tests.http_client import ADMIN, Client, settings_for

NAME = "user_profile.json"

HANGING = """
import asyncio, sys, threading
import seline_workers.worker
from seline.server import run_server, serving
from seline.settings import load_settings
from seline.storage.volume import files

sys.modules["seline.server.listening"].FINISH_S = 1.0
sys.modules["seline.server.serving"].CLOSE_S = 0.5
sys.modules["seline_workers.worker"].DRAIN_S = 0.5
real, real_data, hung = files.sync, files.sync_data, threading.Event()

def sync(descriptor):
    if hung.is_set():
        threading.Event().wait()
    real(descriptor)

def sync_data(descriptor):
    if hung.is_set():
        threading.Event().wait()
    real_data(descriptor)

def announce(started):
    hung.set()
    print(started.address, flush=True)

files.sync, files.sync_data = sync, sync_data
environ = {"SELINE_DATA_DIR": sys.argv[1], "SELINE_SERVER__HOST": "127.0.0.1", "PORT": "0"}
settings = load_settings(environ={**environ, "SELINE_ADMIN_TOKEN": sys.argv[2]})
asyncio.run(run_server(settings, announce=announce))
"""


class SyncGate:
    """Replaces every sync; while closed, it blocks the writer as a hanging disk does."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.blocked = threading.Event()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("sync", "sync_data"):
            monkeypatch.setattr(files, name, self)

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def __call__(self, descriptor: int) -> None:
        if not self._open.is_set():
            self.blocked.set()
            self._open.wait()
        os.fsync(descriptor)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncGate]:
    gate = SyncGate()
    gate.install(monkeypatch)
    yield gate
    gate.open()


@pytest.fixture
async def server(tmp_path: Path, gate: SyncGate) -> AsyncIterator[Serving]:
    async with serving(settings_for(tmp_path / "data")) as running:
        await running.acquired()
        yield running
        gate.open()


async def wait_until_blocked(gate: SyncGate) -> None:
    await asyncio.to_thread(gate.blocked.wait, 10)


@pytest.mark.usefixtures("first_form")
async def test_documents_are_listed_while_the_sync_of_their_names_hangs(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the overlay answers readers, and the writer can do nothing else."""
    hanging, ended = threading.Event(), threading.Event()

    def sync(*_args: object, **_kwargs: object) -> None:
        hanging.set()
        ended.wait(10)

    monkeypatch.setattr(exchange_form.ExchangeCommitter, "_sync_documents", sync)
    saving = asyncio.ensure_future(server.data.save_json(NAME, {"n": 1}))
    try:
        await asyncio.to_thread(hanging.wait, 10)
        async with asyncio.timeout(5):
            listed = await server.data.documents()
            assert [info.name for info in listed] == [NAME]
    finally:
        ended.set()
        await saving


async def test_probes_reads_and_health_answer_while_a_sync_hangs(
    server: Serving, gate: SyncGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.operations.checks.SLOW_S", 0.0)
    async with aiohttp.ClientSession() as session:
        client = Client(session, server.address)
        await client.call("PUT", f"/documents/{NAME}", {"n": 1})
        gate.close()
        saving = asyncio.ensure_future(server.data.save_json(NAME, {"n": 2}))
        await wait_until_blocked(gate)
        async with asyncio.timeout(5):
            for probe in ("/livez", "/readyz"):
                async with session.get(server.address + probe) as response:
                    assert response.status == 200
            assert (await client.call("GET", f"/documents/{NAME}"))[1] == {"n": 1}
            _, health, _ = await client.call("GET", "/health")
        [writing] = [check for check in health["checks"] if check["name"] == "writing"]
        assert writing["status"] == "warning"
        assert "has not answered" in writing["detail"]
        assert not saving.done()
        gate.open()
        await saving
        assert (await client.call("GET", f"/documents/{NAME}"))[1] == {"n": 2}


@pytest.mark.usefixtures("files_at_once")
async def test_reads_that_hang_raise_volume_busy_and_health_reports_it(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in (
        "manager.awaited_store.READ_S",
        "manager.awaited_store.LISTING_S",
        "operations.operations.HEALTH_S",
    ):
        monkeypatch.setattr(f"seline.{constant}", 0.2)
    monkeypatch.setattr("seline.operations.checks.SLOW_S", 0.1)
    data, names = server.data, [f"d{number}.json" for number in range(READER_THREADS)]
    for name in names:
        await data.save_json(name, {"n": 1})
    disk_answers, real = threading.Event(), files.read_whole

    def blocked_read(*arguments: Any, **named: Any) -> Any:
        disk_answers.wait(30)
        return real(*arguments, **named)

    store = await data.store.open()
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_whole", blocked_read)
        for name in names:
            store.medium.read_from_disk(DocumentKey(BOT, name))
        try:
            reads = await asyncio.gather(*map(data.load_json, names), return_exceptions=True)
            with pytest.raises(VolumeBusy):
                await data.documents()
            async with asyncio.timeout(5):
                health = await server.operations.health()
            busy_s = data.store.busy_s()
        finally:
            disk_answers.set()

    assert [type(read) for read in reads] == [VolumeBusy] * len(names)
    assert busy_s > 0.2
    assert health["status"] != "healthy"
    [check] = [check for check in health["checks"] if check["name"] == "writing"]  # type: ignore[union-attr,index,call-overload]
    assert "has not answered" in str(check["detail"])  # type: ignore[index,call-overload]
    assert [await data.load_json(name) for name in names] == [{"n": 1}] * len(names)
    async with asyncio.timeout(5):
        while data.store.busy_s():
            await asyncio.sleep(0.01)


def test_a_read_that_hangs_does_not_block_other_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in ("READ_S", "SLOW_S"):
        monkeypatch.setattr(f"seline.manager.awaited_store.{constant}", 0.1)
    release = threading.Event()
    with blocking.open_seline(tmp_path) as seline:
        data = seline.data
        data.save_json(NAME, {"n": 1})
        store = library.get_data_manager().store
        reader = threading.Thread(
            target=lambda: run_without_loop(store.reading(lambda: release.wait(30)))
        )
        reader.start()
        time.sleep(0.2)
        try:
            assert data.load_json(NAME) == {"n": 1}, "no reader thread was free"
            with pytest.raises(VolumeBusy):
                run_without_loop(store.reading(lambda: release.wait(30)))
        finally:
            release.set()
            reader.join()


async def test_queued_saves_take_effect_in_order_and_the_queue_is_bounded(
    server: Serving, gate: SyncGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUEUED_ATOMS_MAX", 4)
    await server.data.save_json(NAME, {"n": 0})
    gate.close()
    saves = [asyncio.ensure_future(server.data.save_json(NAME, {"n": 1}))]
    await wait_until_blocked(gate)
    for number in (2, 3, 4, 5):
        saves.append(asyncio.ensure_future(server.data.save_json(NAME, {"n": number})))
        await asyncio.sleep(0)
    with pytest.raises(VolumeBusy):
        await server.data.save_json(NAME, {"n": "one too many"})
    async with aiohttp.ClientSession() as session:
        status, body, _ = await Client(session, server.address).call(
            "PUT", f"/documents/{NAME}", {"n": "one too many"}
        )
    assert (status, body["code"]) == (503, "volume_busy")
    gate.open()
    await asyncio.gather(*saves)
    assert await server.data.load_json(NAME) == {"n": 5}


async def test_a_hanging_sync_opens_an_alert_and_its_end_resolves_it(
    server: Serving, gate: SyncGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.process.HANGING_S", 0.01)
    monkeypatch.setattr("seline.alerts.process.EVALUATE_EVERY_S", 0.02)
    gate.close()
    saving = asyncio.ensure_future(server.data.save_json(NAME, {"n": 1}))
    await wait_until_blocked(gate)
    assert await wait_for_state(server) == "open"
    gate.open()
    await saving
    assert await wait_for_state(server, "resolved") == "resolved"


async def test_an_evaluation_of_alerts_waits_for_no_disk_and_reports_the_one_that_hangs(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.alerts.process.SLOW_S", 0.1)
    monkeypatch.setattr("seline.alerts.log.WRITE_WAIT_S", 0.1)
    monkeypatch.setattr("seline.alerts.process.HANGING_S", 0.2)
    disk_answers, real = threading.Event(), VolumeDirectory.lost

    def blocked_look(volume: VolumeDirectory) -> Any:
        disk_answers.wait(2)
        return real(volume)

    def states() -> dict[str, str]:
        return {str(alert.type): alert.state for alert in server.alerts.log.listing()}

    with monkeypatch.context() as patch:
        patch.setattr(VolumeDirectory, "lost", blocked_look)
        began_s = time.monotonic()
        await server.alerts.evaluate()
        assert time.monotonic() - began_s < 1
        assert "writes_refused" not in states()
        await asyncio.sleep(0.15)
        await server.alerts.evaluate()
        assert states()["writes_refused"] == "open"
        disk_answers.set()
    while server.data.store.busy_s():
        await asyncio.sleep(0.01)
    await server.alerts.evaluate()
    assert states()["writes_refused"] == "resolved"


async def wait_for_state(server: Serving, state: str = "open") -> str:
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        client = Client(session, server.address)
        while True:
            _, body, _ = await client.call("GET", "/alerts")
            for alert in body["alerts"]:
                if (alert["type"], alert["state"]) == ("writes_refused", state):
                    return state
            await asyncio.sleep(0.05)


@pytest.mark.prove
def test_a_server_stops_in_bounded_time_while_the_disk_hangs(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, str(tmp_path), ADMIN],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http")
        asyncio.run(_save_until_timeout(address))
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert process.wait(timeout=60) == 1
        assert time.monotonic() - started < 20, "the requests, the jobs or the close had no limit"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def _save_until_timeout(address: str) -> None:
    async with aiohttp.ClientSession() as session:
        client = Client(session, address)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.call("PUT", f"/documents/{NAME}", {"n": 1})


async def test_every_save_fails_at_once_when_the_writer_thread_dies(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise SystemError("the writer thread ends")

    monkeypatch.setattr("seline.storage.volume.journal.form.JournalCommitter.commit", die)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(
            *(server.data.save_json(f"d{number}.json", {"n": 1}) for number in range(8)),
            return_exceptions=True,
        )
        assert {type(answer) for answer in answers} <= {OutcomeUnknown, VolumeFailed}
        with pytest.raises((OutcomeUnknown, VolumeFailed)):
            await server.data.save_json(NAME, {"n": 1})


@pytest.mark.usefixtures("first_form")
async def test_a_save_without_free_descriptors_fails_and_the_next_save_works(
    server: Serving,
) -> None:
    import resource

    await server.data.save_json(NAME, {"n": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(Exception, match=r"Too many open files|EMFILE"):
            await server.data.save_json(NAME, {"n": 2})
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await server.data.load_json(NAME) == {"n": 1}
    await server.data.save_json(NAME, {"n": 3})
    assert await server.data.load_json(NAME) == {"n": 3}


async def test_a_save_above_the_file_size_limit_fails_and_changes_nothing(server: Serving) -> None:
    import resource

    await server.data.save_json(NAME, {"n": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(Exception, match=r"too large|EFBIG") as refused:
            await server.data.save_json(NAME, {"text": "x" * (1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not isinstance(refused.value, DocumentTooLarge)
    assert await server.data.load_json(NAME) == {"n": 1}
    await server.data.save_json(NAME, {"n": 2})
