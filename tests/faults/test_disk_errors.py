"""V4: a volume that refuses every write is still read and exported, and health reports it.

`test_every_call` makes each single call fail.
"""

import errno
import os
from pathlib import Path

import pytest

from seline import errors
from seline.manager import DataManager
from seline.operations import Operations
from seline.ports.futures import run_without_loop
from seline.storage.volume.store import VolumeStore
from tests.clocks import FakeClock
from tests.stores import managed, open_store

A = "a.json"


class FrozenClockStore:
    """A store with its manager and a clock that does not advance."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.store: VolumeStore = open_store(directory, self.clock)
        self.operations = Operations(managed(self.store, clock=self.clock))
        self.data = DataManager(self.operations.store)

    def run(self, coroutine: object) -> object:
        return run_without_loop(coroutine)  # type: ignore[arg-type]


def make_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every creation of a file fail, as on a read-only file system."""
    real = os.open

    def refuse(path: object, flags: int, *args: object, **kwargs: object) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.usefixtures("first_form")
def test_a_read_only_volume_is_read_and_exported_and_refuses_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = FrozenClockStore(tmp_path)
    volume.run(volume.data.save_json(A, {"n": 1}))
    make_read_only(monkeypatch)
    with pytest.raises(errors.VolumeReadOnly):
        volume.run(volume.data.save_json(A, {"n": 2}))
    assert volume.run(volume.data.load_json(A)) == {"n": 1}
    assert volume.run(volume.data.export_all_data())["files"] == {A: {"n": 1}}  # type: ignore[index]
    assert volume.run(volume.operations.health())["status"] != "healthy"  # type: ignore[index]
    monkeypatch.undo()
    volume.run(volume.data.save_json(A, {"n": 3}))
    volume.store.close()


def test_a_broken_document_on_a_read_only_volume_is_served_from_its_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = FrozenClockStore(tmp_path)
    for value in (1, 2):
        volume.run(volume.data.save_json(A, {"n": value}))
    volume.store.close()
    before = (tmp_path / A).stat()
    (tmp_path / A).write_bytes(b"\0" * before.st_size)
    os.utime(tmp_path / A, ns=(before.st_atime_ns, before.st_mtime_ns))
    volume = FrozenClockStore(tmp_path)
    make_read_only(monkeypatch)
    assert volume.run(volume.data.load_json(A)) == {"n": 1}
    health = volume.run(volume.operations.health())
    assert "served_from_memory" in {check["name"] for check in health["checks"]}  # type: ignore[index]
    monkeypatch.undo()
    volume.store.close()
