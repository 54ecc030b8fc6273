"""The held directories: moved away under a running store, closed under a reader, refused, forked.

V4  A read that races with the end of its store is refused; it never takes `{}` for an answer.
V10 What a store has opened is closed once, by whoever opened it.
"""

from __future__ import annotations

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
from seline.storage.volume.directory import VolumeDirectory

NAME = "user_profile.json"


def descriptors() -> set[int]:
    return {int(number) for number in os.listdir("/proc/self/fd")}


@contextmanager
def opened_anew(count: int = 12) -> Iterator[set[int]]:
    """Let other parts of the program open directories, as they do when numbers are free."""
    numbers = [os.open("/", os.O_RDONLY) for _ in range(count)]
    try:
        yield set(numbers)
    finally:
        for number in numbers:
            os.close(number)


def test_backups_go_on_where_the_directory_bears_our_name(tmp_path: Path) -> None:
    with open_seline(tmp_path) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {"n": number})
        (tmp_path / "backups").rename(tmp_path / "backups.old")
        (tmp_path / ".seline").rename(tmp_path / "elsewhere")

        for number in range(10, 13):
            seline.data.save_json(NAME, {"n": number})

        assert len(os.listdir(tmp_path / "backups.old")) == 2
        assert [b["n"] for b in values(seline.data, NAME)] == [11, 10, 2]
        assert (tmp_path / ".seline" / "staging").is_dir()
    with open_seline(tmp_path) as seline:
        assert len(seline.data.backups(NAME)) == 3


def values(data: object, name: str) -> list[dict[str, int]]:
    backups = data.backups(name)  # type: ignore[attr-defined]
    return [data.read_backup(name, backup.name) for backup in backups]  # type: ignore[attr-defined]


def test_another_directory_in_place_of_backups_is_the_one_to_go_on_in(tmp_path: Path) -> None:
    with open_seline(tmp_path) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {"n": number})
        (tmp_path / "backups").rename(tmp_path / "old")
        (tmp_path / "backups").mkdir()

        seline.data.save_json(NAME, {"n": 3})

        assert [b["n"] for b in values(seline.data, NAME)] == [2]


def test_a_read_that_the_end_overtakes_is_refused_never_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seline = open_seline(tmp_path)
    seline.data.save_json(NAME, {"profile": "precious"})
    asked, closed = threading.Event(), threading.Event()
    pausing(monkeypatch, asked, closed)
    answers: list[object] = []
    reader = threading.Thread(target=lambda: answers.append(attempt(seline.data.load_json)))

    reader.start()
    asked.wait(10)
    before = descriptors()
    seline.close()
    with opened_anew() as numbers:
        assert numbers & before, "no number was taken anew, so this proves nothing"
        closed.set()
        reader.join(10)

    assert answers == [StoreClosed]


def pausing(patch: pytest.MonkeyPatch, asked: threading.Event, go_on: threading.Event) -> None:
    """Hold the first read up behind the question whether the store is open."""

    def paused(self: VolumeDirectory) -> None:
        real(self)
        if threading.current_thread() is not threading.main_thread() and not asked.is_set():
            asked.set()
            go_on.wait(10)

    real = VolumeDirectory.check_usable
    patch.setattr(VolumeDirectory, "check_usable", paused)


def attempt(load: Callable[[str], object]) -> object:
    try:
        return load(NAME)
    except StoreClosed:
        return StoreClosed


def test_a_volume_that_is_refused_leaves_nothing_open(tmp_path: Path) -> None:
    with open_seline(tmp_path):
        pass
    (tmp_path / ".seline" / "format").write_text("2\n")
    before = descriptors()

    for _ in range(10):
        with pytest.raises(UnsupportedFormat):
            open_seline(tmp_path)

    assert descriptors() == before


def test_a_forked_child_that_closes_the_store_closes_nothing_of_its_own(tmp_path: Path) -> None:
    with open_seline(tmp_path) as seline:
        seline.data.save_json(NAME, {"n": 1})
        child = os.fork()
        if child == 0:
            with opened_anew() as numbers:
                seline.close()
                os._exit(0 if numbers <= descriptors() else 1)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        assert seline.data.load_json(NAME) == {"n": 1}


def test_a_failed_commit_closes_nothing_that_is_not_its_own(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.data.save_json(NAME, {"n": 1})
    (directory / NAME).write_text('{"n": "by hand"}')
    others: list[int] = []

    def refuse(*_: object) -> NoReturn:
        others.append(os.open(os.devnull, os.O_RDONLY))  # takes a number that was just freed
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "rename_new", refuse)
    with pytest.raises(VolumeFull):
        opened.data.save_json(NAME, {"n": 2})

    assert others
    for descriptor in others:
        os.close(descriptor)
    assert list((directory / ".seline" / "staging").iterdir()) == []
