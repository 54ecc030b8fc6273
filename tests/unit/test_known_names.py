"""Whether a directory's names changed since they were looked at, without looking again."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from seline.storage.volume import known_names
from seline.storage.volume.known_names import SETTLED_S, TRUSTED_S, KnownNames
from tests.clocks import FakeClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Return the clock that the module reads."""
    frozen = FakeClock()
    monkeypatch.setattr(known_names, "time", SimpleNamespace(monotonic=frozen.monotonic))
    return frozen


@pytest.fixture
def status(tmp_path: Path) -> os.stat_result:
    """Return the status of a directory."""
    return changed_at(tmp_path.stat(), 1_800_000_000_123_456_789)


def changed_at(status: os.stat_result, ns: int) -> os.stat_result:
    """Return a status with another change time."""
    parts, more = status.__reduce__()[1]
    return os.stat_result(parts, more | {"st_ctime_ns": ns})


def looked_at(names: KnownNames, status: os.stat_result, clock: FakeClock) -> None:
    """Look twice, with the time between that makes the second look count."""
    names.note(status)
    clock.advance(SETTLED_S + 0.01)
    names.note(status)


def test_names_that_were_never_looked_at_are_not_known(status: os.stat_result) -> None:
    assert not KnownNames().are_unchanged(status)


@pytest.mark.parametrize("change", ["add", "remove", "replace"])
def test_each_change_of_a_name_shows(change: str, tmp_path: Path, clock: FakeClock) -> None:
    directory, names = tmp_path / "d", KnownNames()
    directory.mkdir()
    files = [directory / f"a{number}" for number in range(100)]
    for file in files:
        file.touch()
    looked_at(names, directory.stat(), clock)
    assert names.are_unchanged(directory.stat())
    before_ns = directory.stat().st_ctime_ns

    for file in files:  # older kernels record times in steps
        if change == "add":
            file.with_name(f"{file.name}-added").touch()
        elif change == "remove":
            file.unlink()
        else:
            tmp_path.joinpath("new").touch()
            tmp_path.joinpath("new").replace(file)
        if directory.stat().st_ctime_ns != before_ns:
            break
        time.sleep(0.001)

    assert not names.are_unchanged(directory.stat())


def test_one_look_alone_does_not_count(status: os.stat_result, clock: FakeClock) -> None:
    """A file system may record the same time for a change after the look."""
    names = KnownNames()
    for _ in range(3):
        names.note(status)
        assert not names.are_unchanged(status)
        clock.advance(SETTLED_S / 3)


def test_a_change_between_two_looks_begins_anew(status: os.stat_result, clock: FakeClock) -> None:
    names, later = KnownNames(), changed_at(status, status.st_ctime_ns + 1)
    looked_at(names, status, clock)

    names.note(later)
    assert not names.are_unchanged(later)

    names.note(status)
    assert not names.are_unchanged(status)


def test_a_look_counts_for_a_second(status: os.stat_result, clock: FakeClock) -> None:
    names = KnownNames()
    looked_at(names, status, clock)
    assert names.are_unchanged(status)

    clock.advance(TRUSTED_S)
    assert not names.are_unchanged(status)

    names.note(status)
    assert names.are_unchanged(status)


def test_times_in_whole_seconds_are_not_relied_upon(
    status: os.stat_result, clock: FakeClock
) -> None:
    names, whole = KnownNames(), changed_at(status, 1_800_000_000_000_000_000)

    looked_at(names, whole, clock)

    assert not names.are_unchanged(whole)


def test_another_directory_has_other_names(status: os.stat_result, clock: FakeClock) -> None:
    names, (parts, more) = KnownNames(), status.__reduce__()[1]
    other = os.stat_result((parts[0], parts[1] + 1, *parts[2:]), more)

    looked_at(names, status, clock)

    assert names.are_unchanged(status)
    assert not names.are_unchanged(other)
