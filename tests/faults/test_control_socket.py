"""Faults of the control socket: the bot keeps working, and commands reach it after the fault."""

import errno
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from seline import blocking, commands
from seline.commands import Commands, control_socket, control_socket_path
from seline.errors import VolumeBusy
from seline.operations import Operations
from seline.server.serving import alone
from seline.settings import load_settings
from tests.command_line import line_at
from tests.faults.forms import chosen

WITHIN_S: Final = 10.0


def out_of_descriptors(*_: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def within(act: Callable[[], object]) -> list[object]:
    """Run in another thread; return what it returned or raised, nothing if it does not end."""
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(act())
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WITHIN_S)
    return ended


# opening


def test_a_volume_opens_without_descriptors_for_the_control_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def save() -> object:
        with blocking.open_seline(tmp_path) as seline:
            seline.data.save_json("a.json", {"n": 1})
            assert not Path(control_socket_path(str(tmp_path))).exists()
            return seline.data.load_json("a.json")

    monkeypatch.setattr(socket, "socketpair", out_of_descriptors)

    assert within(save) == [{"n": 1}]
    assert "no control socket: [Errno 24]" in caplog.text


def test_an_unexpected_error_after_the_opening_is_raised_and_releases_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Commands) -> None:
        raise MemoryError

    def load(**arguments: Any) -> object:
        with blocking.open_seline(tmp_path, lock_wait_s=0, **arguments) as seline:
            return seline.data.load_json("a.json")

    with monkeypatch.context() as patch:
        patch.setattr(Commands, "listen", fail)
        [raised] = within(load)

    assert isinstance(raised, MemoryError)
    assert load() == {}


# answering


@pytest.mark.one_in(2)
@pytest.mark.parametrize("fault", [VolumeBusy(), OSError(errno.EIO, "EIO"), ZeroDivisionError()])
def test_a_command_is_answered_after_a_fault_at_the_first_attempt(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
) -> None:
    faults = [fault]
    load = Operations.load

    async def load_or_fail(operations: Operations) -> None:
        if faults:
            raise faults.pop()
        await load(operations)

    monkeypatch.setattr(Operations, "load", load_or_fail)
    line = line_at(tmp_path)
    with blocking.open_seline(line.data) as seline:
        seline.data.save_json("a.json", {"n": 1})
        loaded = line("load", "a.json")

    assert not faults
    assert loaded.value() == {"n": 1}
    assert caplog.text.count("could not answer commands") == 1
    assert not Path(control_socket_path(str(line.data))).exists()


def test_a_fault_that_stays_is_logged_once_and_does_not_delay_the_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = threading.Semaphore(0)

    async def fail(_: Operations) -> None:
        attempts.release()
        raise VolumeBusy

    monkeypatch.setattr(Operations, "load", fail)
    monkeypatch.setattr(commands, "RETRY_S", 0.01)
    with blocking.open_seline(tmp_path) as seline, socket.socket(socket.AF_UNIX) as client:
        client.connect(control_socket_path(str(tmp_path)))
        for _ in range(3):
            assert attempts.acquire(timeout=WITHIN_S)
        monkeypatch.setattr(commands, "RETRY_S", 3600.0)
        assert within(seline.close) == [None]

    assert caplog.text.count("could not answer commands") == 1


# paths


@pytest.mark.parametrize("size", [*range(80, 96), 120])
def test_a_data_directory_of_any_length_gets_its_control_socket(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        data = Path(folder, "d" * (size - len(folder) - 1))
        assert len(os.fsencode(data)) == size
        with (
            blocking.open_seline(data),
            socket.socket(socket.AF_UNIX) as client,
            control_socket(str(data)) as path,
        ):
            client.connect(path)

    assert "no control socket" not in caplog.text


async def test_a_command_without_room_for_the_socket_works_with_any_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_data_dir: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    scratch = tmp_path / ("t" * 120)
    scratch.mkdir()
    monkeypatch.setattr(sys.modules["seline.server.serving"], "listen_in", full)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    settings = load_settings(
        environ=chosen(), arguments={"storage.data_dir": str(tmp_path / "data")}
    )
    async with alone(settings) as running:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(running.socket_elsewhere)
    assert list(scratch.iterdir()) == []


# closing


def test_a_command_that_meets_the_close_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is closing, and its thread has not ended the answering yet."""
    met = threading.Event()
    answer = Commands._answer

    def answer_later(*arguments: Any) -> None:
        connected.set()
        assert closing.wait(WITHIN_S)
        try:
            answer(*arguments)
        finally:
            met.set()

    def stop_later(commands: Commands) -> None:
        closing.set()
        assert met.wait(WITHIN_S)
        stop(commands)

    connected, closing, stop = threading.Event(), threading.Event(), Commands.stop
    monkeypatch.setattr(Commands, "_answer", answer_later)
    monkeypatch.setattr(Commands, "stop", stop_later)
    with blocking.open_seline(tmp_path), socket.socket(socket.AF_UNIX) as client:
        client.connect(control_socket_path(str(tmp_path)))
        assert connected.wait(WITHIN_S)

    assert met.is_set()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
