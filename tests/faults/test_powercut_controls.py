"""The power-cut suite is checked: builds that are wrong on purpose must be flagged by it.

Each takes one care away from the commit. A suite that finds nothing here would find nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from seline.domain.integrity import ATTRIBUTE
from seline.storage.volume import commit, disk
from tests.faults.powercut.recorder import record
from tests.faults.powercut.states import cuts
from tests.faults.powercut.trying import fast_place, kind_of, sample, try_some
from tests.proof.figures import note
from tests.proof.judge import expect
from tests.proof.operations import OPERATIONS, A, prepare

SAMPLE: Final = 100


def _nothing(*_args: object, **_kwargs: object) -> None:
    return


def _no_sync_of_files(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commit.Committer, "_sync_each", _nothing)


def _no_sync_of_backups(patch: pytest.MonkeyPatch) -> None:
    def sync(self: commit.Committer, directories: Iterable[int], doing: str) -> None:
        if doing != "Syncing the backups":
            real(self, directories, doing)

    real = commit.Committer._sync_directories
    patch.setattr(commit.Committer, "_sync_directories", sync)


def _no_link(patch: pytest.MonkeyPatch) -> None:
    """The backup is the old name moved away: for a moment the document is nowhere."""

    def rename(source: int, name: str, target: int, new_name: str) -> None:
        if name == A:
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        else:
            real(source, name, target, new_name)

    real = disk.link
    patch.setattr(disk, "link", rename)


def _no_sync_of_documents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commit.Committer, "_sync_documents", _nothing)


def _attribute_last(patch: pytest.MonkeyPatch) -> None:
    """The checksum is set on the published file, when its syncs are over."""

    def stage(directory: int, name: str, data: bytes, attribute: bytes | None, mtime: int) -> int:
        if attribute is not None:
            late.append(attribute)
        return real_stage(directory, name, data, None, mtime)

    def sync(self: commit.Committer, moves: Sequence[commit._Move], *, committed: bool) -> None:
        real_sync(self, moves, committed=committed)
        for move, attribute in zip(moves, late, strict=False):
            descriptor = os.open(move.key.name, os.O_RDONLY, dir_fd=self.ground.top)
            os.setxattr(descriptor, ATTRIBUTE, attribute)
            os.close(descriptor)

    late: list[bytes] = []
    real_stage, real_sync = disk.stage, commit.Committer._sync_documents
    patch.setattr(disk, "stage", stage)
    patch.setattr(commit.Committer, "_sync_documents", sync)


def _no_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commit.Committer, "_record", _nothing)
    patch.setattr(commit.Committer, "_forget_record", _nothing)


CONTROLS: Final[Mapping[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]]] = {
    "staged files are not synced": ("save", _no_sync_of_files),
    "backups/ is not synced": ("save", _no_sync_of_backups),
    "the backup is moved, not linked": ("save", _no_link),
    "the documents' directory is not synced": ("save", _no_sync_of_documents),
    "the checksum is set last": ("save", _attribute_last),
    "a transaction has no record": ("transaction", _no_record),
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give a fast directory for the states."""
    with fast_place(tmp_path / "states") as fast:
        yield fast


@pytest.mark.parametrize("wrong", CONTROLS)
def test_a_build_without_one_care_is_flagged(
    wrong: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, flagged = _tried(wrong, tmp_path, place, monkeypatch, count=SAMPLE)
    assert flagged > 0


@pytest.mark.prove
@pytest.mark.parametrize("wrong", CONTROLS)
def test_how_often_a_build_without_one_care_is_flagged(
    wrong: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, flagged = _tried(wrong, tmp_path, place, monkeypatch, count=10 * SAMPLE)
    note("negative control", wrong, tried=tried, failures=flagged, where=kind_of(place))
    assert flagged > 0


def _tried(
    wrong: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, *, count: int
) -> tuple[int, int]:
    """Return how many states of a wrong build were tried, and in how many a promise is broken."""
    name, plant = CONTROLS[wrong]
    steps = [expect(OPERATIONS[name], tmp_path / "expected")]
    prepare(OPERATIONS[name], tmp_path / "volume")
    monkeypatch.setenv("SELINE_STRICT", "")
    with monkeypatch.context() as patch:
        plant(patch)
        states = cuts(record(OPERATIONS[name], tmp_path / "volume"))
    tried = sample(states, count)
    return len(tried), len(try_some(tried, steps, place))
