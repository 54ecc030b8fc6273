"""Faults of the control socket: the bot keeps working, and commands reach it after the fault."""

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from seline import blocking
from seline.commands import Commands, control_socket_path

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
