"""A power cut after every call of every operation: whatever the disk kept, no promise is broken.

V1, V2, V3, V5, V7 and V11, on every state that `powercut.disk_model` allows. The default tier opens
the same few states of each operation every time, the long one all of them.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

import pytest

from seline.blocking import Seline
from seline.storage.volume import commit, disk
from tests.faults.powercut import kernel
from tests.faults.powercut.promises import Flagged, holds_a_record, unhurried
from tests.faults.powercut.recorder import record, record_opening, recording
from tests.faults.powercut.states import Cut, cuts, write
from tests.faults.powercut.trying import (
    Step,
    expect_steps,
    fast_place,
    in_steps,
    kind_of,
    sample,
    try_all,
    try_some,
)
from tests.proof.figures import note
from tests.proof.judge import Expected, expect
from tests.proof.operations import (
    DONE,
    NEW,
    OPERATIONS,
    A,
    B,
    C,
    Operation,
    opened,
    prepare,
    value,
)

SUITE: Final = "power cut"
SAMPLE: Final = 30
LIMIT_S: Final = 90.0


def _save(number: object) -> Step:
    return Step(act=lambda seline, _: seline.data.save_json(A, value(A, number)))  # type: ignore[arg-type]


def _transaction(seline: Seline, _directory: Path) -> None:
    with seline.data.transaction(A, B, C) as change:
        for name in (A, B, C):
            change[name] = value(name, "new")


def _delete_and_change(seline: Seline, _directory: Path) -> None:
    with seline.data.transaction(A, B) as change:
        del change[A]
        change[B] = value(B, "new")


SEQUENCES: Final[Mapping[str, tuple[Sequence[Step], Callable[[Path], None] | None]]] = {
    "seven saves": ([_save(number) for number in range(10, 17)], None),
    "transaction, then a save": ([Step(act=_transaction), _save("newer")], None),
    "transaction that deletes, then the same save again": (
        [Step(act=_delete_and_change), _save(2)],
        None,
    ),
    "start after a crash, then a save": (
        [Step(act=lambda _seline, _directory: None, certain=True), _save("newer")],
        OPERATIONS["start after a crash"].prepare,
    ),
    "delete, then a save": (
        [Step(act=lambda seline, _: seline.data.delete(A)), _save("newer")],
        None,
    ),
}
"""Changes of one session, each acknowledged by itself: what the earlier one left must not come back
over the later one."""

BUILDS: Final[Mapping[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "links refused": lambda patch: patch.setattr(disk, "link", _refused),
    "no exchange of names": lambda patch: patch.setattr(disk, "exchange", _refused),
    "synced as a whole": lambda patch: _sync_as_a_whole(patch),
}
"""Ways that the commit takes on other file systems, or for more documents."""
ALSO_BUILT: Final = ("save", "delete", "transaction", "recovery")


def _refused(*_: object) -> NoReturn:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _sync_as_a_whole(patch: pytest.MonkeyPatch) -> None:
    def sync(self: commit.Committer, moves: Sequence[commit._Move]) -> None:
        self.probed = replace(self.probed, own_mount=True)
        real(self, moves)

    real = commit.Committer._sync
    patch.setattr(commit, "SYNCFS_FILES_MIN", 1)
    patch.setattr(commit.Committer, "_sync", sync)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give a fast directory for the states."""
    with fast_place(tmp_path / "states") as fast:
        yield fast


@pytest.fixture
def until_s(share_s: float) -> float:
    """Give the monotonic instant until which a test may go on."""
    return time.monotonic() + min(LIMIT_S, max(3.0, share_s))


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_some_states_after_a_cut_in_an_operation_break_no_promise(
    operation: Operation, tmp_path: Path, place: Path
) -> None:
    steps, states = _one(operation, tmp_path)

    broken = try_some(sample(states, SAMPLE), steps, place)

    assert broken == []


@pytest.mark.parametrize("name", SEQUENCES)
def test_some_states_after_a_cut_between_two_changes_break_no_promise(
    name: str, tmp_path: Path, place: Path
) -> None:
    steps, states = _sequence(name, tmp_path)

    broken = try_some(sample(states, SAMPLE), steps, place)

    assert broken == []


@pytest.mark.parametrize("build", BUILDS)
def test_some_states_of_a_commit_on_another_file_system_break_no_promise(
    build: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        BUILDS[build](patch)
        steps, states = _one(OPERATIONS["transaction"], tmp_path)

    broken = try_some(sample(states, SAMPLE), steps, place)

    assert broken == []


def test_a_start_after_a_cut_may_be_cut_again(tmp_path: Path, place: Path) -> None:
    steps, states = _one(OPERATIONS["transaction"], tmp_path)

    again = list(_cut_again(_with_and_without_record(states, 3), steps, place))
    broken = try_some(sample(again, 2 * SAMPLE), steps, place)

    assert len(again) > 500
    assert broken == []


def test_a_first_save_on_a_new_directory_outlives_a_cut(place: Path) -> None:
    """V3: the way to the documents is as durable as they are."""
    states = _first_save(place / "first")

    broken = [str(cut) for cut in states if not _first_save_is_kept(cut, place / "cut")]

    assert len(states) > 500
    assert broken == []


@pytest.mark.prove
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_no_state_after_a_cut_in_an_operation_breaks_a_promise(
    operation: Operation, tmp_path: Path, place: Path, until_s: float
) -> None:
    steps, states = _one(operation, tmp_path)

    _try_and_note(operation.name, states, steps, place, until_s)


@pytest.mark.prove
@pytest.mark.parametrize("name", SEQUENCES)
def test_no_state_after_a_cut_between_two_changes_breaks_a_promise(
    name: str, tmp_path: Path, place: Path, until_s: float
) -> None:
    steps, states = _sequence(name, tmp_path)

    _try_and_note(name, states, steps, place, until_s)


@pytest.mark.prove
@pytest.mark.parametrize("name", ALSO_BUILT)
@pytest.mark.parametrize("build", BUILDS)
def test_no_state_of_a_commit_on_another_file_system_breaks_a_promise(
    build: str,
    name: str,
    tmp_path: Path,
    place: Path,
    until_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        BUILDS[build](patch)
        steps, states = _one(OPERATIONS[name], tmp_path)

    _try_and_note(f"{name}, {build}", states, steps, place, until_s)


@pytest.mark.prove
@pytest.mark.parametrize(
    "name", ["blank save", "transaction", "import", "recovery", "start after a crash"]
)
def test_no_start_that_is_cut_again_breaks_a_promise(
    name: str, tmp_path: Path, place: Path, until_s: float
) -> None:
    steps, states = _one(OPERATIONS[name], tmp_path)

    again = list(_cut_again(_with_and_without_record(states, 8), steps, place))

    _try_and_note(f"{name}, and the start after it cut again", again, steps, place, until_s)


@pytest.mark.prove
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_no_file_changing_call_escapes_the_recorder(operation: Operation, tmp_path: Path) -> None:
    """The recorder's list is what the kernel saw below the volume, call by call, in order."""
    volume, log = tmp_path / "volume", tmp_path / "log"
    prepare(operation, volume)

    recorded = kernel.record_under_strace(operation.name, volume, log)

    assert kernel.changes_below(volume, log) == recorded
    assert len(recorded) > 20


def _one(operation: Operation, tmp_path: Path) -> tuple[list[Expected], list[Cut]]:
    """Return what an operation does, and every state after a cut in it."""
    expected = expect(operation, tmp_path / "expected")
    prepare(operation, tmp_path / "volume")
    return [expected], cuts(record(operation, tmp_path / "volume"))


def _sequence(name: str, tmp_path: Path) -> tuple[list[Expected], list[Cut]]:
    steps, before = SEQUENCES[name]
    operation = in_steps(name, *steps, prepare=before)
    expected = expect_steps(operation, steps, tmp_path / "expected")
    prepare(operation, tmp_path / "volume")
    return expected, cuts(record(operation, tmp_path / "volume"))


def _with_and_without_record(states: Sequence[Cut], count: int) -> list[Cut]:
    """Return some states that a start has much to do with: most hold a transaction's record."""
    with_record = [cut for cut in states if holds_a_record(cut.tree)]
    rest = [cut for cut in states if not holds_a_record(cut.tree)]
    return sample(with_record, count) + sample(rest, count)


def _cut_again(states: Sequence[Cut], steps: Sequence[Expected], place: Path) -> Iterator[Cut]:
    """Yield the states after a cut in the start after a cut. A record in place is a promise."""
    for number, first in enumerate(states):
        directory = place / f"first-{number}"
        write(first.tree, directory)
        with unhurried():
            opening = record_opening(directory)
        shutil.rmtree(directory)
        done = len(steps) if holds_a_record(first.tree) else first.acknowledged
        for cut in cuts(opening):
            yield replace(cut, after=f"{first}; {cut.after}", acknowledged=done, bare=first.bare)


def _first_save(directory: Path) -> list[Cut]:
    """Return the states after a cut in the first session on a directory that was not there."""
    directory.mkdir()
    with unhurried(), recording(directory) as made, opened(directory / "data") as seline:
        seline.data.save_json(NEW, value(NEW, "new"))
        os.write(1, DONE.encode())
    return cuts(made)


def _first_save_is_kept(cut: Cut, directory: Path) -> bool:
    write(cut.tree, directory)
    with unhurried(), opened(directory / "data") as seline:
        found = seline.data.load_json(NEW, default=None)
    shutil.rmtree(directory)
    return found == value(NEW, "new") or (found is None and not cut.acknowledged)


def _try_and_note(
    name: str, states: Sequence[Cut], steps: Sequence[Expected], place: Path, until_s: float
) -> None:
    tried, broken = try_all(states, steps, place, until_s=until_s)
    note(SUITE, name, tried=tried, failures=len(broken), where=kind_of(place), possible=len(states))
    assert broken == [], _shortly(broken)


def _shortly(broken: Sequence[Flagged]) -> str:
    return "\n".join(f"{one.cut}: {'; '.join(one.broken)}" for one in broken[:5])
