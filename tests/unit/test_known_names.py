"""Whether a directory's names changed since they were looked at, without looking again."""

import os
import time
from pathlib import Path

import pytest

from seline.storage.volume import known_names
from seline.storage.volume.known_names import SETTLED_NS, KnownNames

NOW_NS = 1_800_000_000_123_456_789


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> os.stat_result:
    """Return the status of a directory that was changed long enough before now."""
    before = tmp_path.stat()
    now_ns = before.st_ctime_ns + SETTLED_NS + 1
    monkeypatch.setattr(known_names, "time", _Clock(now_ns))
    return before


class _Clock:
    def __init__(self, now_ns: int) -> None:
        self.time_ns = lambda: now_ns


def test_names_that_were_never_looked_at_are_not_known(status: os.stat_result) -> None:
    assert not KnownNames().are_unchanged(status)


@pytest.mark.parametrize("change", ["add", "remove", "replace"])
def test_each_change_of_a_name_shows(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, names = tmp_path / "d", KnownNames()
    directory.mkdir()
    (directory / "a").touch()
    (directory.parent / "new").touch()
    time.sleep(2 * SETTLED_NS / 1e9)
    names.note(directory.stat())
    assert names.are_unchanged(directory.stat())

    if change == "add":
        (directory / "b").touch()
    elif change == "remove":
        (directory / "a").unlink()
    else:
        (directory.parent / "new").replace(directory / "a")

    assert not names.are_unchanged(directory.stat())


def test_a_directory_that_changed_just_now_is_looked_at_again(
    status: os.stat_result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may record the same time for a change after the look."""
    names = KnownNames()
    for age_ns in (-SETTLED_NS, 0, SETTLED_NS):
        monkeypatch.setattr(known_names, "time", _Clock(status.st_ctime_ns + age_ns))
        names.note(status)
        assert not names.are_unchanged(status)


def test_times_in_whole_seconds_are_not_relied_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_names, "time", _Clock(NOW_NS))
    names, (parts, ns) = KnownNames(), tmp_path.stat().__reduce__()[1]
    whole = os.stat_result(parts, ns | {"st_ctime_ns": NOW_NS // 10**9 * 10**9 - 10**10})

    names.note(whole)

    assert not names.are_unchanged(whole)


def test_another_directory_has_other_names(status: os.stat_result, tmp_path: Path) -> None:
    names, (parts, more) = KnownNames(), status.__reduce__()[1]
    other = os.stat_result((parts[0], parts[1] + 1, *parts[2:]), more)

    names.note(status)

    assert names.are_unchanged(status)
    assert not names.are_unchanged(other)
