"""V10: one process owns a volume; every other opening is refused and names the holder."""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from seline import blocking, get_data_manager, get_seline, library, open_seline
from seline.domain.backup import Backup
from seline.errors import (
    ForkedStore,
    SelineError,
    SettingsError,
    StoreClosed,
    VolumeFailed,
    VolumeLocked,
    VolumeNotMounted,
)
from seline.server import serving
from seline.storage.volume import open as opening
from seline.storage.volume.backup_index import BackupIndex
from seline.storage.volume.batches import Batches
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.earlier import Recovery, earlier_recoveries
from seline.storage.volume.mounts import check_place
from seline.storage.volume.store import VolumeStore
from tests.faults.forms import each_form
from tests.faults.injection import left_by_a_kill, refuse_threads
from tests.faults.small_filesystem import Unavailable, run
from tests.http_client import settings_for

pytestmark = each_form

HOLDER = """
import sys, time
from seline.blocking import open_seline
with open_seline(sys.argv[1]) as seline:
    seline.data.save_json("held.json", {"n": 1})
    print("held", flush=True)
    sys.stdin.readline()
"""


def start_holder(directory: Path) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def stop_holder(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert holder.stdout is not None
    assert holder.stdin is not None
    holder.stdout.close()
    holder.stdin.close()


@pytest.mark.prove
def test_a_second_process_is_refused_naming_the_holder(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    try:
        with pytest.raises(VolumeLocked) as refused:
            blocking.open_seline(tmp_path, lock_wait_s=0.2)
        assert refused.value.details["holder"]["pid"] == holder.pid
        assert str(holder.pid) in refused.value.message
    finally:
        stop_holder(holder)


def recover_once(directory: Path) -> None:
    """Leave a broken file in quarantine/, for the next start to look at."""
    with blocking.open_seline(directory) as seline:
        seline.data.save_json("held.json", {"n": 0})
        seline.data.save_json("held.json", {"n": 1})
        (directory / "held.json").write_text("{")
        seline.verify()
        assert len(seline.quarantine()) == 1


def test_a_start_that_cannot_list_the_backups_opens_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was lost before is only reported; it must not keep the volume closed."""
    recover_once(tmp_path)

    def fail(*_: object) -> list[Backup]:
        raise VolumeFailed("Listing the backups: EIO.")

    def failing(documents: CurrentDocuments, now: datetime) -> Iterator[Recovery]:
        with monkeypatch.context() as patch:
            patch.setattr(BackupIndex, "of", fail)
            yield from earlier_recoveries(documents, now)

    monkeypatch.setattr(opening, "earlier_recoveries", failing)
    with blocking.open_seline(tmp_path, lock_wait_s=0) as seline:
        assert seline.data.load_json("held.json") == {"n": 1}


def test_a_start_that_fails_after_the_recovery_releases_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover_once(tmp_path)

    def defect(*_: object) -> Iterator[object]:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(opening, "earlier_recoveries", defect)
        with pytest.raises(ZeroDivisionError):
            blocking.open_seline(tmp_path, lock_wait_s=0)
    with blocking.open_seline(tmp_path, lock_wait_s=0) as seline:
        assert seline.data.load_json("held.json") == {"n": 1}


def test_a_stopped_holder_keeps_the_lock_and_a_killed_one_releases_it(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(VolumeLocked):
        blocking.open_seline(tmp_path, lock_wait_s=0.5)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with blocking.open_seline(tmp_path, lock_wait_s=2) as seline:
        assert seline.data.load_json("held.json") == {"n": 1}
    stop_holder(holder)


def test_a_waiting_process_opens_the_volume_when_the_holder_closes(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    assert holder.stdin is not None
    threading.Timer(0.3, lambda: (holder.stdin.write("\n"), holder.stdin.flush())).start()  # type: ignore[union-attr]
    with blocking.open_seline(tmp_path, lock_wait_s=10) as seline:
        assert seline.data.load_json("held.json") == {"n": 1}
    stop_holder(holder)


@contextmanager
def symlink_of(directory: Path) -> Iterator[Path]:
    link = directory.with_name("link")
    link.symlink_to(directory)
    yield link


@contextmanager
def bind_mount_of(directory: Path) -> Iterator[Path]:
    point = directory.with_name("mounted")
    point.mkdir()
    try:
        run("mount", "--bind", str(directory), str(point))
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        yield point
    finally:
        run("umount", str(point))


@pytest.mark.parametrize("second_path", [symlink_of, bind_mount_of])
def test_a_held_volume_is_locked_through_every_path(
    tmp_path: Path, second_path: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    with second_path(directory) as path:
        holder = start_holder(directory)
        try:
            with pytest.raises(VolumeLocked, match=str(holder.pid)):
                blocking.open_seline(path, lock_wait_s=0)
        finally:
            stop_holder(holder)
        with blocking.open_seline(directory), pytest.raises(VolumeLocked, match="this process"):
            blocking.open_seline(path, lock_wait_s=0)


def test_the_lock_holds_when_server_json_is_broken(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    try:
        for broken in (b"", bytes(40), b"[1]", b'{"pid": '):
            (tmp_path / ".seline" / "server.json").write_bytes(broken)
            with pytest.raises(VolumeLocked, match="unknown"):
                blocking.open_seline(tmp_path, lock_wait_s=0)
    finally:
        stop_holder(holder)


def test_the_lock_holds_after_the_seline_directory_is_removed(tmp_path: Path) -> None:
    """The lock is on the data directory itself, so there is no lock file to delete."""
    with blocking.open_seline(tmp_path) as seline:
        seline.data.save_json("a.json", {"n": 1})
        shutil.rmtree(tmp_path / ".seline")
        with pytest.raises(VolumeLocked):
            blocking.open_seline(tmp_path, lock_wait_s=0)
        seline.data.save_json("a.json", {"n": 2})
        assert seline.data.load_json("a.json") == {"n": 2}


def test_a_second_opening_in_one_process_is_refused_at_once_with_a_hint(tmp_path: Path) -> None:
    with blocking.open_seline(tmp_path) as seline:
        started = time.monotonic()
        with pytest.raises(VolumeLocked, match="this process") as refused:
            blocking.open_seline(tmp_path, lock_wait_s=5)
        assert "get_data_manager" in refused.value.hint
        assert time.monotonic() - started < 2
        assert seline.data.save_json("a.json", {})


def test_a_forked_child_can_neither_use_nor_unlock_the_store(tmp_path: Path) -> None:
    with blocking.open_seline(tmp_path) as seline:
        seline.data.save_json("a.json", {"n": 1})
        seline.data.documents()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            outcomes = b""
            for call in (
                lambda: seline.data.load_json("a.json"),
                lambda: seline.data.save_json("a.json", {"n": 2}),
                lambda: seline.data.documents(),  # on a reader thread, which a child has not
            ):
                try:
                    call()
                    outcomes += b"done "
                except ForkedStore:
                    outcomes += b"forked "
                except SelineError as error:
                    outcomes += error.code.encode()
            os.write(writer, outcomes)
            os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        assert os.read(reader, 100) == b"forked forked forked "
        os.close(reader)
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        other = subprocess.run(
            [sys.executable, "-c", HOLDER.replace("open_seline(sys.argv[1])",
             "open_seline(sys.argv[1], lock_wait_s=0)"), str(tmp_path)],
            env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "VolumeLocked" in other.stderr
        assert seline.data.save_json("a.json", {"n": 3})


def test_a_child_forked_during_a_read_can_close_the_store(tmp_path: Path) -> None:
    with blocking.open_seline(tmp_path) as seline, being_read(seline):
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            seline.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_a_child_that_closes_the_store_of_its_parent_leaves_its_journal_alone(
    tmp_path: Path,
) -> None:
    """As at the child's exit. The parent's descriptors lead to the child's own volume there."""
    data = tmp_path / "data"
    with blocking.open_seline(data) as seline:
        seline.data.save_json("a.json", {"n": 1})
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with blocking.open_seline(tmp_path / "own"):
                seline.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        seline.data.save_json("a.json", {"n": 2})
        left = left_by_a_kill(data, tmp_path / "left")

    assert not (tmp_path / "own" / "a.json").exists()
    with blocking.open_seline(left) as again:
        assert again.data.load_json("a.json") == {"n": 2}


def test_a_child_forked_during_a_close_does_not_keep_the_lock(tmp_path: Path) -> None:
    seline = blocking.open_seline(tmp_path)
    with being_read(seline):
        closing = threading.Thread(target=seline.close)
        closing.start()
        time.sleep(0.2)
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    closing.join()
    try:
        with blocking.open_seline(tmp_path, lock_wait_s=0) as again:
            assert again.data.save_json("a.json", {})
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_child_forked_just_before_a_close_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Until such a child runs, it has copies of the descriptors; a second one stands for them."""
    seline = blocking.open_seline(tmp_path)
    store = seline._awaited.store.opened
    assert isinstance(store, VolumeStore)
    copy = os.dup(store.volume.top)
    try:
        seline.close()
        with blocking.open_seline(tmp_path, lock_wait_s=0) as again:
            assert again.data.save_json("a.json", {})
    finally:
        os.close(copy)


@contextmanager
def being_read(seline: blocking.Seline) -> Iterator[None]:
    """Let another thread read the volume until the block ends."""
    store = seline._awaited.store.opened
    assert isinstance(store, VolumeStore)
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        with store.volume.in_use():
            reading.set()
            done.wait(30)

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_required_mount_that_is_missing_is_refused_and_not_created(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    if is_own_mount(tmp_path):
        pytest.skip("the temporary directory is a separate mount")
    with pytest.raises(VolumeNotMounted):
        blocking.open_seline(directory, storage__require_mount=True)
    assert not directory.exists()


def is_own_mount(path: Path) -> bool:
    try:
        check_place(str(path), required=True, expected_under=None)
    except VolumeNotMounted:
        return False
    return True


def test_only_the_expected_mount_is_accepted(tmp_path: Path) -> None:
    if not Path("/dev/shm").is_mount():
        pytest.skip("/dev/shm is not a mount")
    check_place("/dev/shm", required=True, expected_under=None)
    check_place("/dev/shm", required=True, expected_under="/dev/shm")
    with pytest.raises(VolumeNotMounted):
        check_place("/dev/shm", required=True, expected_under="/somewhere/else")


def test_a_bot_that_starts_twice_gets_a_short_traceback(tmp_path: Path) -> None:
    with (
        blocking.open_seline(tmp_path),
        pytest.raises(VolumeLocked) as refused,
        blocking.open_seline(tmp_path, lock_wait_s=0),
    ):
        pass

    shown = traceback.format_exception(refused.value)
    assert "held by this process" in shown[-2]
    assert len("".join(shown).splitlines()) < 25


async def in_an_opening(data: Path) -> None:
    async with open_seline(data, lock_wait_s=0):
        pass


async def in_serving(data: Path) -> None:
    async with serving(settings_for(data, storage__lock_wait_s=0)) as running:
        await running.acquired()


async def with_the_first_call(_data: Path) -> None:
    try:
        await get_data_manager().load_json("a.json")
    finally:
        await get_seline().close()


BOTS = [in_an_opening, in_serving, with_the_first_call]


@pytest.mark.parametrize("bot", BOTS, ids=lambda bot: bot.__name__)
def test_the_traceback_of_a_directory_in_use_names_the_bots_line_and_ends_with_the_step(
    bot: Callable[[Path], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELINE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(library, "LOCK_WAIT_S", 0.0)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(VolumeLocked) as refused:
            asyncio.run(bot(tmp_path))
    finally:
        os.close(other)

    frames = [frame.name for frame in traceback.extract_tb(refused.value.__traceback__)]
    assert bot.__name__ in frames
    assert len(frames) - frames.index(bot.__name__) <= 4
    assert traceback.format_exception(refused.value)[-1].startswith("Next: ")


@pytest.mark.parametrize("path", ["/proc/none/data", "/dev/null/data", "/tmp/" + "n" * 300])
def test_a_mistyped_data_directory_is_not_reported_as_a_failing_disk(path: str) -> None:
    with pytest.raises(VolumeFailed) as refused, blocking.open_seline(path):
        pass

    assert "Name a directory" in refused.value.hint
    assert path in refused.value.message


def test_get_data_manager_opens_again_at_each_call_until_the_directory_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SELINE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(library, "LOCK_WAIT_S", 0.1)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    data = blocking.get_data_manager()
    try:
        for _ in range(2):
            with pytest.raises(VolumeLocked):
                data.load_json("a.json")
        assert library.get_seline() is library.get_seline()
        with pytest.raises(SettingsError):
            blocking.open_seline(tmp_path / "other")
    finally:
        os.close(other)
    assert caplog.text.count("waiting for the volume") == 2
    try:
        assert data.save_json("a.json", {"n": 1})
        assert blocking.get_data_manager().load_json("a.json") == {"n": 1}
    finally:
        blocking.get_seline().close()
    with pytest.raises(StoreClosed):
        data.load_json("a.json")


def test_an_opening_beside_a_handle_that_failed_is_the_one_of_get_data_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELINE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(library, "LOCK_WAIT_S", 0.0)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    failed = library.get_seline()
    try:
        with pytest.raises(VolumeLocked):
            blocking.get_data_manager().load_json("a.json")
        os.close(other)
        with blocking.open_seline(tmp_path) as seline:
            assert blocking.get_data_manager().save_json("a.json", {"n": 1})
            assert seline.data.load_json("a.json") == {"n": 1}
            assert library.get_seline() is not failed
    finally:
        failed.begin_to_close().result(5)


def test_an_opening_without_a_thread_is_forgotten_and_fails_every_call_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        if self.name == "seline-opening":
            waiting.append(library.get_seline())
            raise RuntimeError("can't start new thread")
        real(self)

    real, waiting = threading.Thread.start, list[library.Seline]()
    monkeypatch.setenv("SELINE_DATA_DIR", str(tmp_path / "data"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for open_it in (library.get_seline, lambda: blocking.open_seline(tmp_path / "other")):
            with pytest.raises(RuntimeError):
                open_it()
    assert len(waiting) == 2
    for seline in waiting:
        assert seline not in library._open
        with pytest.raises(RuntimeError):
            seline.begin_to_close().result(5)

    library.get_seline().begin_to_close().result(5)


async def test_two_closes_at_once_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, at_once = list[Batches](), list[int]()

    def close(self: Batches, *, settles: bool) -> None:
        running.append(self)
        at_once.append(len(running))
        time.sleep(0.05)
        real(self, settles=settles)
        running.remove(self)

    real = Batches.close
    monkeypatch.setattr(Batches, "close", close)
    seline = await open_seline(tmp_path)
    await asyncio.gather(seline.close(), seline.close())

    assert at_once == [1, 1]


def test_a_close_in_the_middle_of_a_close_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the handler of a signal does, whose thread closes the store."""
    closes: list[bool] = []

    def close(self: Batches, *, settles: bool) -> None:
        closes.append(settles)
        seline.close()
        real(self, settles=settles)

    real = Batches.close
    seline = blocking.open_seline(tmp_path)
    seline.data.save_json("a.json", {"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "close", close)
        seline.close()

    assert closes == [True]
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"n": 1}


async def test_a_close_without_a_thread_is_made_in_the_thread_of_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline = await open_seline(tmp_path)
    await seline.data.save_json("a.json", {"n": 1})
    with monkeypatch.context() as patch:
        refuse_threads(patch, "seline-close")
        await seline.close()

    assert json.loads((tmp_path / "a.json").read_bytes()) == {"n": 1}
    async with open_seline(tmp_path, lock_wait_s=0) as again:
        assert await again.data.load_json("a.json") == {"n": 1}


def test_an_opening_that_waits_is_closed_without_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with blocking.open_seline(tmp_path):
        waiting = library.start(settings_for(tmp_path), lock_wait_s=60)
        refuse_threads(monkeypatch, "seline-close")
        waiting.begin_to_close().result(5)
        assert waiting.store.failed_to_open
