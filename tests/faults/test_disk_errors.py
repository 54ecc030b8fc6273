"""The disk says no, at every call in turn: a typed error or success, old or new, nothing stray."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seline import errors
from seline.domain.document import BOT, DocumentKey
from seline.domain.json_text import decode
from seline.manager import DataManager, ManagerOptions
from seline.ports.waiting import run_without_loop
from seline.storage.volume import disk
from seline.storage.volume.store import VolumeOptions, VolumeStore, open_volume
from tests.clocks import FakeClock

A, B = "a.json", "b.json"
CALLS = ("open", "write", "setxattr", "utime", "link", "fsync", "rename", "unlink")


class Failing:
    """Makes the k-th disk call of the process fail once, as the kernel would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.count = 0
        self.fail_at = -1
        self.errno = errno.EIO
        self.failed = ""
        self.synced_after_failure: list[int] = []
        self._failed_inode = 0

    @contextmanager
    def at(self, number: int, code: int) -> Iterator[None]:
        self.count, self.fail_at, self.errno, self.failed = 0, number, code, ""
        self._failed_inode = 0
        with self._monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
            patch.setattr(disk, "_renameat2", self._wrapped("renameat2", disk._renameat2))
            yield

    def _wrapped(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            self._watch_syncs(name, args)
            if name == "open" and not (len(args) > 1 and int(args[1]) & os.O_CREAT):  # type: ignore[call-overload]
                return call(*args, **kwargs)
            self.count += 1
            if self.count == self.fail_at:
                self.failed = name
                if name == "fsync":
                    self._failed_inode = os.fstat(args[0]).st_ino  # type: ignore[arg-type]
                raise OSError(self.errno, os.strerror(self.errno))
            return call(*args, **kwargs)

        return wrapped

    def _watch_syncs(self, name: str, args: tuple[object, ...]) -> None:
        if name != "fsync" or not self._failed_inode:
            return
        status = os.fstat(args[0])  # type: ignore[arg-type]
        if status.st_ino == self._failed_inode and not os.path.stat.S_ISDIR(status.st_mode):
            self.synced_after_failure.append(status.st_ino)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


class Volume:
    """A store with its manager, over a clock that can be moved past the reopening."""

    def __init__(self, directory: Path) -> None:
        from concurrent.futures import Future

        self.clock = FakeClock()
        self.directory = directory
        self.store: VolumeStore = open_volume(
            VolumeOptions(data_dir=str(directory), lock_wait_s=0, strict=False), clock=self.clock
        )
        opening: Future[object] = Future()
        opening.set_result(self.store)
        self.data = DataManager(opening, ManagerOptions(), clock=self.clock)  # type: ignore[arg-type]

    def run(self, coroutine: object) -> object:
        return run_without_loop(coroutine)  # type: ignore[arg-type]

    def value(self, name: str) -> object:
        judged, _ = self.store.look(DocumentKey(BOT, name))
        return None if judged.content is None else decode(judged.content.data)

    def stray(self) -> list[str]:
        staging = os.listdir(self.directory / ".seline" / "staging")
        return staging + [n for n in os.listdir(self.directory / ".seline") if "journal" in n]


async def transaction(data: DataManager) -> None:
    async with data.transaction(A, B) as change:
        change[A] = {"n": "new"}
        change[B] = {"n": "new"}


OPERATIONS: dict[str, Callable[[DataManager], object]] = {
    "save": lambda data: data.save_json(A, {"n": "new"}),
    "save without backup": lambda data: data.save_json(A, {"n": "new"}, backup=False),
    "first save": lambda data: data.save_json("c.json", {"n": "new"}),
    "update": lambda data: data.update_field(A, "n", "new"),
    "delete": lambda data: data.delete(A),
    "restore": lambda data: data.restore(A),
    "transaction": transaction,
    "import": lambda data: data.import_data({"files": {A: {"n": "new"}, B: {"n": "new"}}}),
}


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.ENOSPC, errno.EROFS], ids=["EIO", "ENOSPC", "EROFS"]
)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_every_call_may_fail_once(
    tmp_path: Path, failing: Failing, operation: Callable[[DataManager], object], code: int
) -> None:
    tried = 0
    for number in range(1, 60):
        volume = Volume(tmp_path / str(number))
        for value in (0, 1):
            volume.run(volume.data.save_json(A, {"n": value}))
            volume.run(volume.data.save_json(B, {"n": value}))
        before = {name: volume.value(name) for name in (A, B, "c.json")}
        error: errors.SelineError | None = None
        with failing.at(number, code):
            try:
                volume.run(operation(volume.data))
            except errors.SelineError as raised:
                error = raised
            failed = failing.failed
        if not failed:
            volume.store.close()
            break
        tried += 1
        check(volume, before, error, failed)
    assert tried >= 5
    assert failing.synced_after_failure == []


def check(
    volume: Volume,
    before: dict[str, object],
    error: errors.SelineError | None,
    failed: str,
) -> None:
    """Judge what one failed call left behind: then, after the reopening, and after a restart."""
    volume.clock.advance(60)
    volume.run(volume.data.save_json("next.json", {"works": True}))
    after = {name: volume.value(name) for name in (A, B, "c.json")}
    if error is not None and not isinstance(error, errors.OutcomeUnknown):
        assert after == before, (failed, error)
    assert not (after[A] == {"n": "new"}) ^ (after[B] == {"n": "new"}) or before[B] == after[B]
    assert volume.stray() == [], (failed, error)
    volume.store.close()
    again = Volume(volume.directory)
    assert {name: again.value(name) for name in (A, B, "c.json")} == after
    assert again.stray() == []
    assert again.run(again.data.verify()).findings == ()  # type: ignore[attr-defined]
    again.store.close()


def test_a_read_only_volume_still_reads_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(tmp_path)
    volume.run(volume.data.save_json(A, {"n": 1}))
    real = os.open

    def refuse(path: object, flags: int, *args: object, **kwargs: object) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(errors.VolumeReadOnly):
        volume.run(volume.data.save_json(A, {"n": 2}))
    assert volume.run(volume.data.load_json(A)) == {"n": 1}
    assert volume.run(volume.data.export_all_data())["files"] == {A: {"n": 1}}  # type: ignore[index]
    assert volume.run(volume.data.health())["status"] != "healthy"  # type: ignore[index]
    monkeypatch.undo()
    volume.run(volume.data.save_json(A, {"n": 3}))
    volume.store.close()


def test_a_broken_document_on_a_read_only_volume_is_served_from_its_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(tmp_path)
    for value in (1, 2):
        volume.run(volume.data.save_json(A, {"n": value}))
    volume.store.close()
    before = (tmp_path / A).stat()
    (tmp_path / A).write_bytes(b"\0" * before.st_size)
    os.utime(tmp_path / A, ns=(before.st_atime_ns, before.st_mtime_ns))
    volume = Volume(tmp_path)
    real = os.open

    def refuse(path: object, flags: int, *args: object, **kwargs: object) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    assert volume.run(volume.data.load_json(A)) == {"n": 1}
    health = volume.run(volume.data.health())
    assert "served_from_memory" in {check["name"] for check in health["checks"]}  # type: ignore[index]
    monkeypatch.undo()
    volume.store.close()
