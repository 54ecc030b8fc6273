"""The writer survives whatever happens in its turn, and nothing unsynced is taken for durable.

What a strict reading of the commit found: each test is one finding. Only calls of the operating
system are refused, or used as the moment in which somebody else changes a file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest

from seline.blocking import Seline, open_seline
from seline.clock import SystemClock
from seline.domain.document import BOT, Content, DocumentKey, Json
from seline.domain.integrity import ATTRIBUTE
from seline.errors import (
    DocumentUnrecoverable,
    OutcomeUnknown,
    SelineError,
    VolumeFailed,
    VolumeFull,
    VolumeReadOnly,
)
from seline.ports.store import Atom, Change, Decision, Put, Remove
from seline.storage.volume import disk
from seline.storage.volume.store import VolumeStore
from tests.clocks import FakeClock

A, B = "a.json", "b.json"
REOPENED_AFTER_S = 60.0


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Seline]:
    """Give an open Seline that takes a hand edit for settled at once."""
    with open_seline(tmp_path / "data", lock_wait_s=0, storage__settle_s=0) as seline:
        yield seline


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Let monotonic time stand still for every store, until it is advanced."""
    still = FakeClock()
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: still.monotonic())
    return still


def store_of(seline: Seline) -> VolumeStore:
    return seline._awaited.data._store  # type: ignore[return-value]


def told_of(seline: Seline) -> list[str]:
    return [incident.kind for incident in store_of(seline).incidents()]


def refused(number: int) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def in_backups(seline: Seline, name: str = A) -> list[Json]:
    return [seline.data.read_backup(name, one.name) for one in seline.data.backups(name)]


# the writer lives on


def test_what_a_caller_s_function_raises_reaches_that_caller_alone(opened: Seline) -> None:
    opened.data.save_json(A, {"n": 1})

    with pytest.raises(KeyError, match="nothing of the kind"):
        opened.data.update_json(A, lambda value: value["nothing of the kind"])  # type: ignore[index,call-overload]

    opened.data.save_json(B, {"n": 1})
    assert opened.data.load_json(A) == {"n": 1}


@pytest.mark.parametrize("pins", [{"pinned": []}, {"pins": [{"document": A}]}, []])
def test_pins_of_another_shape_refuse_a_pin_by_name_and_nothing_else(
    pins: Json, opened: Seline, directory: Path
) -> None:
    for number in (1, 2):
        opened.data.save_json(A, {"n": number})
    [backup] = opened.data.backups(A)
    (directory / ".seline" / "pins.json").write_text(json.dumps(pins))

    with pytest.raises(SelineError, match=r"pins\.json"):
        opened.data.pin(A, backup.name)

    opened.data.save_json(B, {"n": 1})


def test_a_rename_and_a_tidying_that_are_refused_refuse_one_save(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the volume turns read-only between staging and publishing: what is left goes later.

    Without strict mode, which takes what the disk does not let go of for a defect of Seline's.
    """
    monkeypatch.setenv("SELINE_STRICT", "0")
    with open_seline(directory, lock_wait_s=0) as seline:
        seline.data.save_json(A, {"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(disk, "exchange", refused(errno.EROFS))
            patch.setattr(os, "unlink", refused(errno.EROFS))
            with pytest.raises(VolumeReadOnly):
                seline.data.save_json(A, {"n": 2})

        seline.data.save_json(A, {"n": 3})

        assert seline.data.load_json(A) == {"n": 3}
        assert list((directory / ".seline" / "staging").iterdir()) == []


def test_a_volume_that_does_not_say_how_full_it_is_takes_saves_and_answers_health(
    opened: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.data.save_json(A, {"n": 1})
    monkeypatch.setattr(os, "fstatvfs", refused(errno.EIO))

    opened.data.save_json(A, {"n": 2})

    assert opened.data.health()["status"] != "critical"
    monkeypatch.undo()


def test_an_error_that_nobody_thought_of_leaves_the_outcome_unknown_until_the_reopening(
    opened: Seline, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours in the middle of a commit is no reason to take no change any more."""
    opened.data.save_json(A, {"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(disk, "exchange", lambda *_: 1 / 0)
        with pytest.raises(OutcomeUnknown):
            opened.data.save_json(A, {"n": 2})
    with pytest.raises(VolumeFailed):
        opened.data.save_json(A, {"n": 3})

    clock.advance(REOPENED_AFTER_S)
    opened.data.save_json(A, {"n": 4})

    assert opened.data.load_json(A) == {"n": 4}
    assert {"n": 1} in in_backups(opened)


def test_work_between_two_batches_that_fails_is_told_to_its_caller_alone(opened: Seline) -> None:
    def fail(*_: object) -> NoReturn:
        raise KeyError("a plan that is wrong")

    with pytest.raises(KeyError):
        store_of(opened).rotate(DocumentKey(BOT, A), fail).result(10)

    opened.data.save_json(A, {"n": 1})


# what is not durable


def test_what_the_process_did_not_write_is_synced_before_it_is_taken_for_current(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        opened.data.save_json(A, {"n": number})
    [backup] = opened.data.backups(A)
    put_there_by_hand(directory / "backups" / backup.name, directory / A)
    synced = watch_syncs(monkeypatch)

    opened.data.save_json(A, {"n": 1})
    assert {inode(directory / A), inode(directory)} <= set(synced)

    synced.clear()
    opened.data.save_json(A, {"n": 1})
    assert synced == []


def test_what_the_process_did_not_write_is_synced_before_it_becomes_a_backup(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        opened.data.save_json(A, {"n": number})
    [backup] = opened.data.backups(A)
    put_there_by_hand(directory / "backups" / backup.name, directory / A)
    foreign = inode(directory / A)
    synced = watch_syncs(monkeypatch)

    opened.data.save_json(A, {"n": 3})

    assert foreign in synced
    assert foreign in [inode(path) for path in (directory / "backups").iterdir()]


def test_what_cannot_be_synced_is_copied_to_become_a_backup(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        opened.data.save_json(A, {"n": number})
    [backup] = opened.data.backups(A)
    put_there_by_hand(directory / "backups" / backup.name, directory / A)
    foreign = inode(directory / A)
    watch_syncs(monkeypatch, failing=foreign)

    opened.data.save_json(A, {"n": 3})

    assert in_backups(opened) == [{"n": 1}]
    assert foreign not in [inode(path) for path in (directory / "backups").iterdir()]


def test_what_cannot_be_synced_is_written_anew_at_the_reopening(
    opened: Seline, directory: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second sync of the same file would say that all is well."""
    for number in (1, 2):
        opened.data.save_json(A, {"n": number})
    [backup] = opened.data.backups(A)
    put_there_by_hand(directory / "backups" / backup.name, directory / A)
    foreign = inode(directory / A)
    synced = watch_syncs(monkeypatch, failing=foreign)
    with pytest.raises(VolumeFailed):
        opened.data.save_json(A, {"n": 1})

    clock.advance(REOPENED_AFTER_S)
    opened.data.save_json(A, {"n": 1})

    assert synced.count(foreign) == 1
    assert inode(directory / A) != foreign


def test_what_may_not_be_durable_is_neither_exported_nor_given_raw(
    opened: Seline, directory: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.data.save_json(A, {"n": 1})
    with monkeypatch.context() as patch:
        watch_syncs(patch, failing=inode(directory))
        with pytest.raises(OutcomeUnknown):
            opened.data.save_json(A, {"n": 2})
        for ask in (lambda: opened.data.raw(A), opened.data.export_all_data):
            with pytest.raises(VolumeFailed):
                ask()

    clock.advance(REOPENED_AFTER_S)
    opened.data.save_json(B, {"n": 1})

    assert opened.data.export_all_data()["files"][A] == opened.data.load_json(A)  # type: ignore[index,call-overload]


def test_a_volume_that_cannot_sync_directories_opens_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)

    with open_seline(tmp_path / "data", lock_wait_s=0) as seline:
        seline.data.save_json(A, {"n": 1})
        missing = [one.name for one in store_of(seline).capabilities() if not one.present]

    assert "directory sync" in missing


@pytest.mark.parametrize(
    ("release", "relied_on"),
    [("4.4.0", False), ("5.7.19-x", False), ("5.8.0", True), ("6.1", True)],
)
def test_a_sync_of_the_whole_file_system_is_relied_on_from_linux_5_8_on(
    release: str, relied_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.uname()
    monkeypatch.setattr(
        os, "uname", lambda: os.uname_result((real[0], real[1], release, real[3], real[4]))
    )

    assert disk.syncs_filesystems() is relied_on


# somebody else's hand, in the very moment


def test_a_broken_document_is_never_blank_while_it_is_replaced(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / A).write_text("{torn")
    os.utime(directory / A, (1, 1))
    broken: list[object] = []
    for _ in range(2):
        with pytest.raises(DocumentUnrecoverable):
            opened.data.load_json(A)
    at_the_sync(monkeypatch, inode(directory), lambda: broken.append(load_or_error(opened)))

    opened.data.import_data({"exported_at": "2025-01-06T14:30:22Z", "files": {A: {"n": 1}}})

    assert broken == [DocumentUnrecoverable]
    assert opened.data.load_json(A) == {"n": 1}


def test_a_hand_edit_while_the_directory_is_synced_is_served_and_what_was_saved_is_kept(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.data.save_json(A, {"n": 1})
    at_the_sync(
        monkeypatch, inode(directory), lambda: (directory / A).write_text('{"n": "by hand"}')
    )

    opened.data.save_json(A, {"n": 2})

    assert opened.data.load_json(A) == {"n": "by hand"}
    opened.data.save_json(A, {"n": 3})
    assert in_backups(opened) == [{"n": "by hand"}, {"n": 2}, {"n": 1}]
    assert {one.verdict for one in opened.data.backups(A)} == {"sound"}


def test_a_recovery_never_lands_on_the_good_file_that_a_person_just_put_there(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        opened.data.save_json(A, {"n": number})
    flipped = (directory / A).read_bytes().replace(b"2", b"3")
    status = (directory / A).stat()
    (directory / A).write_bytes(flipped)
    os.utime(directory / A, ns=(status.st_atime_ns, status.st_mtime_ns))
    real, good = os.link, directory / "good"
    good.write_text('{"n": "by hand"}')

    def link(*arguments: Any, **options: Any) -> None:
        if good.exists():
            good.rename(directory / A)
        real(*arguments, **options)

    monkeypatch.setattr(os, "link", link)

    opened.data.load_json(A)

    assert opened.data.load_json(A) == {"n": "by hand"}
    assert (directory / A).read_text() == '{"n": "by hand"}' or "adopted" in told_of(opened)
    assert opened.data.quarantine() == []
    assert "recovered" not in told_of(opened)


def test_a_backup_never_replaces_what_bears_its_name(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that the index does not know, because it came in this very moment."""
    opened.data.save_json(A, {"n": 1})
    real = os.link
    taken: list[Path] = []

    def link(*arguments: Any, **options: Any) -> None:
        if not taken:
            taken.append(directory / "backups" / arguments[1])
            taken[0].write_text('{"n": "of somebody else"}')
        real(*arguments, **options)

    monkeypatch.setattr(os, "link", link)

    opened.data.save_json(A, {"n": 2})

    assert taken[0].read_text() == '{"n": "of somebody else"}'
    assert {"n": 1} in in_backups(opened)


def test_a_failed_commit_closes_nothing_that_is_not_its_own(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.data.save_json(A, {"n": 1})
    (directory / A).write_text('{"n": "by hand"}')
    others: list[int] = []

    def refuse(*_: object) -> NoReturn:
        others.append(os.open(os.devnull, os.O_RDONLY))  # takes a number that was just freed
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "rename_new", refuse)
    with pytest.raises(VolumeFull):
        opened.data.save_json(A, {"n": 2})

    assert others
    for descriptor in others:
        os.close(descriptor)
    assert list((directory / ".seline" / "staging").iterdir()) == []


# bounds


def test_documents_that_were_removed_by_hand_make_room_for_others(tmp_path: Path) -> None:
    with open_seline(tmp_path, lock_wait_s=0, storage__documents_max=3) as seline:
        for number in range(5):
            seline.data.save_json(A, {"n": number})
            (tmp_path / A).unlink()
        for name in ("c.json", "d.json", "e.json"):
            seline.data.save_json(name, {"n": 1})
        with pytest.raises(VolumeFull):
            seline.data.save_json("f.json", {"n": 1})


def test_a_growing_save_beside_a_delete_is_refused_on_a_full_volume(tmp_path: Path) -> None:
    with open_seline(tmp_path, lock_wait_s=0, storage__volume_limit_mb=4) as seline:
        seline.data.save_json(A, {"n": 1})
        with contextlib.suppress(VolumeFull):
            for number in range(100):
                seline.data.save_json(f"f{number}.json", {"b": "x" * 200_000}, backup=False)
        large = {"b": "y" * 900_000}
        with pytest.raises(VolumeFull):
            seline.data.save_json(A, large)

        deleted, saved = in_one_batch(
            seline, Remove(), Put(content=Content.of(json.dumps(large).encode()))
        )

        assert deleted is None
        assert saved is VolumeFull


def test_no_backup_goes_for_room_that_was_made_by_hand(tmp_path: Path) -> None:
    """The measure may be a minute old: it is taken anew before any backup goes."""
    with open_seline(tmp_path, lock_wait_s=0, storage__volume_limit_mb=4) as seline:
        for number in range(4):
            seline.data.save_json(A, {"n": number})
        (tmp_path / "by hand").write_bytes(os.urandom(4 << 20))
        store_of(seline)._space.usage(fresh=True)
        (tmp_path / "by hand").unlink()

        seline.data.save_json(A, {"n": 4})

        assert in_backups(seline) == [{"n": 3}, {"n": 2}, {"n": 1}, {"n": 0}]
        assert "shed" not in told_of(seline)


# purges


def test_a_purge_leaves_nothing_of_a_document_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_seline(tmp_path, lock_wait_s=0, storage__cache_bytes_max=0) as seline:
        seline.data.save_json(A, {"secret": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", refused(errno.EIO))
            seline.data.delete(A, purge=True)
    with open_seline(tmp_path, lock_wait_s=0) as seline:
        assert seline.data.quarantine() == []
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()
    ] == []


def test_a_purge_names_a_directory_that_it_does_not_erase(opened: Seline, directory: Path) -> None:
    (directory / A).mkdir()
    (directory / A / "of a person").write_text("{}")

    with pytest.raises(OutcomeUnknown, match=r"quarantine/a_\w+\.json is a directory"):
        opened.data.delete(A, purge=True)

    [kept] = (directory / "quarantine").iterdir()
    assert (kept / "of a person").exists()
    assert list((directory / ".seline" / "staging").iterdir()) == []


def test_a_directory_that_was_removed_is_made_again_and_told(
    opened: Seline, directory: Path
) -> None:
    opened.data.save_json(A, {"n": 1})
    (directory / "backups").rmdir()

    opened.data.save_json(A, {"n": 2})

    assert in_backups(opened) == [{"n": 1}]
    assert "remade" in told_of(opened)


# the hands


def inode(path: Path) -> int:
    return path.stat().st_ino


def put_there_by_hand(source: Path, target: Path) -> None:
    """Copy a file with all of its attributes, as `cp -a` does, and move it there."""
    copy = target.with_name("copy")
    copy.write_bytes(source.read_bytes())
    os.setxattr(copy, ATTRIBUTE, os.getxattr(source, ATTRIBUTE))
    os.utime(copy, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    copy.rename(target)


def watch_syncs(monkeypatch: pytest.MonkeyPatch, *, failing: int = 0) -> list[int]:
    """Return the inodes that are synced from now on; the sync of one of them may fail, once."""
    synced: list[int] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        number = os.fstat(descriptor).st_ino
        synced.append(number)
        if number == failing and synced.count(number) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return synced


def at_the_sync(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], object]) -> None:
    """Do something when an inode is synced next."""
    real, left = os.fsync, [do]

    def sync(descriptor: int) -> None:
        if left and os.fstat(descriptor).st_ino == number:
            left.pop()()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)


def load_or_error(seline: Seline) -> object:
    """Load from a thread of its own: this may be the writer's."""
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(seline.data.load_json, A).exception(10)
    return type(error)


def in_one_batch(seline: Seline, *decisions: Decision) -> list[type[BaseException] | None]:
    """Make decisions about one document in one batch; return which error each met."""
    store, begin = store_of(seline), threading.Event()
    held = store._writer.between(begin.wait)
    atoms = [Atom((Change(DocumentKey(BOT, A), lambda _, one=one: one),)) for one in decisions]  # type: ignore[misc]
    futures = [store.submit(atom) for atom in atoms]
    begin.set()
    held.result(10)
    errors = [future.exception(10) for future in futures]
    return [None if error is None else type(error) for error in errors]
