"""Test the walk that measures the files once a minute: nothing waits for it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from seline.domain.document import BOT, DocumentKey
from seline.domain.usage import blocks
from seline.ports.store import Atom, Change, Remove
from seline.storage.volume import disk_usage
from seline.storage.volume.store import VolumeStore
from tests.contract.saving import put, save
from tests.stores import open_store

KEY = DocumentKey(BOT, "a.json")
SOON_S = 10.0


class Walk:
    """A walk that is due at each call, and waits for `go_on` after it looked at a directory."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self.threads = set[str]()
        self.real = disk_usage._sizes
        patch.setattr(disk_usage, "_sizes", self._sizes)
        patch.setattr(disk_usage, "_WALK_EVERY_S", 0.0)

    def _sizes(self, *arguments: object) -> object:
        self.threads.add(threading.current_thread().name)
        measured = self.real(*arguments)  # type: ignore[arg-type]
        self.began.set()
        assert self.go_on.wait(SOON_S)
        return measured


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VolumeStore]:
    """Yield a store whose files were measured once, and are measured again at the next call."""
    store = open_store(tmp_path, storage__publish_within_ms=0)
    put(store, KEY, "before")
    store.batches.disk_usage._walk_again_at_s = 0.0
    yield store
    store.close()


@pytest.fixture
def walk(store: VolumeStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    """Yield the walk, which goes on at the end of the test."""
    walk = Walk(monkeypatch)
    yield walk
    walk.go_on.set()


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_save_and_a_reader_do_not_wait_for_the_walk(store: VolumeStore, walk: Walk) -> None:
    put(store, KEY, "while it begins")
    assert walk.began.wait(SOON_S)
    put(store, KEY, "while it runs")
    usage = store.medium.usage()

    assert usage.documents_bytes == blocks(1)
    assert walk.threads == {"seline-usage"}


def test_the_walk_finds_what_other_programs_added(
    store: VolumeStore, walk: Walk, tmp_path: Path
) -> None:
    before = store.medium.usage()
    (tmp_path / "log.txt").write_bytes(bytes(1 << 20))
    walk.go_on.set()

    until(lambda: store.medium.usage().files_bytes >= before.files_bytes + (1 << 20))


def test_what_is_added_during_the_walk_is_counted(store: VolumeStore, walk: Walk) -> None:
    store.medium.usage()
    assert walk.began.wait(SOON_S)
    put(store, DocumentKey(BOT, "large.json"), "x" * (1 << 20))
    during = store.medium.usage().documents_bytes
    walk.go_on.set()
    until(lambda: not store.batches.disk_usage._is_walking)

    assert during == blocks(1) + blocks((1 << 20) + 3)
    assert store.batches.disk_usage._documents_bytes >= during


def test_what_takes_the_place_of_what_the_walk_has_listed_is_counted(
    store: VolumeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a volume with a limit would fill beyond it."""
    put(store, KEY, "x" * (1 << 20))
    listed, go_on = threading.Event(), threading.Event()

    def paced(names: Sequence[str]) -> Iterator[str]:
        listed.set()
        assert go_on.wait(SOON_S)
        yield from names

    monkeypatch.setattr(disk_usage, "paced", paced)
    store.batches.disk_usage._walk_again_at_s = 0.0
    store.medium.usage()
    assert listed.wait(SOON_S)
    removed = Change(KEY, lambda _: Remove(purge=True))
    added = save(DocumentKey(BOT, "b.json"), "x" * (1 << 20))
    store.submit(Atom((removed, added))).result(SOON_S)
    go_on.set()
    until(lambda: not store.batches.disk_usage._is_walking)

    usage = store.medium.usage()
    assert usage.documents_bytes >= 1 << 20
    assert usage.largest_bytes == (1 << 20) + 3


def test_an_older_walk_does_not_replace_what_a_later_one_measured(
    store: VolumeStore, walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.medium.usage()
    assert walk.began.wait(SOON_S)
    (tmp_path / "log.txt").write_bytes(bytes(1 << 20))
    with monkeypatch.context() as patch:
        patch.setattr(disk_usage, "_sizes", walk.real)
        fresh = store.batches.disk_usage.usage(fresh=True)
    (tmp_path / "log.txt").unlink()
    walk.go_on.set()
    until(lambda: not store.batches.disk_usage._is_walking)

    assert store.batches.disk_usage._files_bytes == fresh.files_bytes


def test_a_close_does_not_wait_for_the_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at the next file."""
    store = open_store(tmp_path)
    for number in range(3):
        put(store, DocumentKey(BOT, f"{number}.json"), number)
    store.medium.settle()
    closing, looked = threading.Thread(target=store.close), list[str]()
    real = disk_usage.files.status

    def status(directory: int, name: str) -> object:
        if threading.current_thread().name == "seline-usage":
            closing.start()
            until(lambda: store.volume.leaving)
            looked.append(name)
        return real(directory, name)

    monkeypatch.setattr(disk_usage.files, "status", status)
    store.batches.disk_usage._walk_again_at_s = 0.0
    store.medium.usage()
    until(lambda: bool(looked))
    closing.join(SOON_S)

    assert not closing.is_alive()
    assert len(looked) == 1


def test_without_a_thread_the_next_call_tries_again(
    store: VolumeStore, walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        store.medium.usage()
    assert not walk.began.is_set()
    store.medium.usage()
    assert walk.began.wait(SOON_S)


def test_a_disk_that_fails_leaves_the_last_values(
    store: VolumeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.medium.usage()
    until(lambda: not store.batches.disk_usage._is_walking)

    def fail(*_: object) -> None:
        raise OSError(5, "EIO")

    monkeypatch.setattr(disk_usage, "_sizes", fail)
    store.batches.disk_usage._walk_again_at_s = 0.0
    store.medium.usage()
    until(lambda: store.batches.disk_usage._walk_again_at_s > 0.0)
    until(lambda: not store.batches.disk_usage._is_walking)

    assert store.medium.usage().files_bytes == before.files_bytes
