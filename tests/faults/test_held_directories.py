"""The directories that a store holds open: moved, closed during a read, refused, forked.

V4   A read during close raises StoreClosed; it never returns `{}`.
V10  Each descriptor is closed once, by the code that opened it.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from seline.blocking import Seline, open_seline
from seline.errors import StoreClosed, UnsupportedFormat, VolumeFull
from seline.storage.volume import files
from seline.storage.volume.directory import VOLUME_FORMAT, VolumeDirectory
from tests.faults.forms import each_form_at_once

pytestmark = each_form_at_once

NAME = "user_profile.json"


def descriptors() -> set[int]:
    return {int(number) for number in os.listdir("/proc/self/fd")}


@contextmanager
def reused_descriptors(count: int = 12) -> Iterator[set[int]]:
    """Open directories, as other code of the process does, so that freed numbers are used again."""
    numbers = [os.open("/", os.O_RDONLY) for _ in range(count)]
    try:
        yield set(numbers)
    finally:
        for number in numbers:
            os.close(number)


def test_backups_are_written_to_the_directory_of_that_name_after_a_move(tmp_path: Path) -> None:
    with open_seline(tmp_path) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {"n": number})
        (tmp_path / "backups").rename(tmp_path / "backups.old")
        (tmp_path / ".seline").rename(tmp_path / "elsewhere")

        for number in range(10, 13):
            seline.data.save_json(NAME, {"n": number})

        assert len(os.listdir(tmp_path / "backups.old")) == 2
        assert [value["n"] for value in backup_values(seline.data, NAME)] == [11, 10, 2]
        assert (tmp_path / ".seline" / "staging").is_dir()
    with open_seline(tmp_path) as seline:
        assert len(seline.data.backups(NAME)) == 3


def backup_values(data: object, name: str) -> list[dict[str, int]]:
    backups = data.backups(name)  # type: ignore[attr-defined]
    return [data.read_backup(name, backup.name) for backup in backups]  # type: ignore[attr-defined]


def test_backups_are_written_to_a_new_directory_that_replaced_the_old_one(tmp_path: Path) -> None:
    with open_seline(tmp_path) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {"n": number})
        (tmp_path / "backups").rename(tmp_path / "old")
        (tmp_path / "backups").mkdir()

        seline.data.save_json(NAME, {"n": 3})

        assert [value["n"] for value in backup_values(seline.data, NAME)] == [2]


def test_a_read_during_close_raises_store_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline = open_seline(tmp_path)
    seline.data.save_json(NAME, {"profile": "precious"})
    checked, closed = threading.Event(), threading.Event()
    pause_first_read(monkeypatch, checked, closed)
    answers: list[object] = []
    reader = threading.Thread(
        target=lambda: answers.append(load_or_store_closed(seline.data.load_json))
    )

    reader.start()
    checked.wait(10)
    before = descriptors()
    seline.close()
    with reused_descriptors() as numbers:
        assert numbers & before, "no freed descriptor number was used again"
        closed.set()
        reader.join(10)

    assert answers == [StoreClosed]


def pause_first_read(
    patch: pytest.MonkeyPatch, checked: threading.Event, resume: threading.Event
) -> None:
    """Pause the first read of another thread right after its check that the store is open."""

    def paused(self: VolumeDirectory) -> None:
        real(self)
        if threading.current_thread() is not threading.main_thread() and not checked.is_set():
            checked.set()
            resume.wait(10)

    real = VolumeDirectory.check_usable
    patch.setattr(VolumeDirectory, "check_usable", paused)


def load_or_store_closed(load: Callable[[str], object]) -> object:
    try:
        return load(NAME)
    except StoreClosed:
        return StoreClosed


def test_an_unsupported_volume_leaves_no_descriptor_open(tmp_path: Path) -> None:
    with open_seline(tmp_path):
        pass
    (tmp_path / ".seline" / "format").write_text(f"{VOLUME_FORMAT + 1}\n")
    before = descriptors()

    for _ in range(10):
        with pytest.raises(UnsupportedFormat):
            open_seline(tmp_path)

    assert descriptors() == before


def test_close_in_a_forked_child_keeps_the_descriptors_that_the_child_opened(
    tmp_path: Path,
) -> None:
    with open_seline(tmp_path) as seline:
        seline.data.save_json(NAME, {"n": 1})
        child = os.fork()
        if child == 0:
            with reused_descriptors() as numbers:
                seline.close()
                os._exit(0 if numbers <= descriptors() else 1)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        assert seline.data.load_json(NAME) == {"n": 1}


def test_a_failed_commit_closes_only_its_own_descriptors(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline.data.save_json(NAME, {"n": 1})
    (directory / NAME).write_text('{"n": "by hand"}')
    others: list[int] = []

    def refuse(*_: object) -> NoReturn:
        others.append(os.open(os.devnull, os.O_RDONLY))  # reuses a number that was just freed
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "rename_new", refuse)
    with pytest.raises(VolumeFull):
        seline.data.save_json(NAME, {"n": 2})

    assert others
    for descriptor in others:
        os.close(descriptor)
    assert list((directory / ".seline" / "staging").iterdir()) == []
