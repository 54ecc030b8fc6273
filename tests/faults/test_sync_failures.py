"""A sync that fails once: nothing is durable by retrying it, and the disk decides what is served.

SPEC §10, FAULTS 5 and 6. A kernel marks the pages that it could not write as clean: the next sync
of the same file says that all is well, a read shows the new bytes, and the disk holds the old ones.

- On a real disk that goes bad the kernel itself refuses the bytes of files: the change is refused
  by name, the next write takes another inode, and what a fresh mount shows is what was served.
- Directories and the record fail at the system call: the outcome is unknown where something may be
  visible, no write is taken before the volume was reopened, and then the record decides.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import re
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from seline.blocking import DataManager, Seline
from seline.clock import SystemClock
from seline.domain.document import ABSENT, Json
from seline.errors import (
    OutcomeUnknown,
    SelineError,
    StorageError,
    VolumeFailed,
    VolumeFull,
)
from seline.storage.volume import files
from seline.storage.volume.reopen import REOPEN_EVERY_S
from seline.storage.volume.writer import IDLE_AFTER_S
from tests.clocks import FakeClock
from tests.faults.powercut.disk_model import Tree
from tests.faults.powercut.recorder import recording, tree_of
from tests.faults.powercut.states import Cut, Cutting, cuts, write
from tests.faults.powercut.trying import kind_of
from tests.faults.small_filesystem import FailingDisk, failing_disk
from tests.proof.figures import note
from tests.proof.judge import Expected, Outcome, Values, _values, expect, judge, stray
from tests.proof.operations import (
    DONE,
    NEW,
    OPERATIONS,
    STILL,
    A,
    B,
    C,
    opened,
    prepare,
    value,
)

SUITE: Final = "failing syncs"
NEXT: Final = "next.json"
LIMIT_S: Final = 90.0

STAGED: Final = r"\.seline/staging/\w+"
RECORD: Final = r"\.seline/journal\.new"
BACKUPS, QUARANTINE, STAGING = "backups", "quarantine", r"\.seline/staging"
OF_THE_RECORD, DOCUMENTS = r"\.seline", r"\."
MARK_NS: Final = 1_000_000_000
_set_mtime: Final = os.utime
"""As it is before any test records the calls of this process."""


# the syncs of this process


@dataclass
class Syncs:
    """Every sync below a directory, in order; `fail` lets some be refused, once each.

    `again` names what was synced although a sync of it had failed: a file never may be, a directory
    only when it was changed in between. A failed file is held open, so that no other gets its
    number (a directory is not: its lock would be held, too); a failed directory gets an mtime that
    any change of it takes away. `unsynced` names those whose sync was not made up for.
    """

    root: Path
    made: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])
    again: list[str] = field(default_factory=list[str])
    refuse: Callable[[str], bool] = lambda _: False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _files: dict[int, int] = field(default_factory=dict[int, int])
    _directories: dict[int, str] = field(default_factory=dict[int, str])

    def fail(self, what: str, *, nth: int = 1, times: int = 1) -> None:
        """Refuse the syncs of what `what` names, from the `nth` on, so many times."""
        seen = itertools.count(1)
        self.refuse = lambda name: (
            re.fullmatch(what, name) is not None and nth <= next(seen) < nth + times
        )

    def sync(self, call: Callable[[int], None], descriptor: int) -> None:
        """Be `os.fsync`."""
        name = self._name(descriptor)
        if name is None:
            return call(descriptor)
        with self._lock:
            self._look(descriptor, name)
            refused = self.refuse(name)
        try:
            if refused:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            call(descriptor)
        except OSError:
            with self._lock:
                self._note_failure(descriptor, name)
            raise
        self._directories.pop(os.fstat(descriptor).st_ino, None)
        return None

    @property
    def unsynced(self) -> list[str]:
        return sorted(self._directories.values())

    def forget_files(self) -> None:
        """Let go of the files that failed: the disk gets their blocks back."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _look(self, descriptor: int, name: str) -> None:
        self.made.append(name)
        status = os.fstat(descriptor)
        unchanged = status.st_ino in self._directories and status.st_mtime_ns == MARK_NS
        if unchanged or status.st_ino in self._files:
            self.again.append(name)

    def _note_failure(self, descriptor: int, name: str) -> None:
        self.failed.append(name)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            _set_mtime(descriptor, ns=(MARK_NS, MARK_NS))
            self._directories[status.st_ino] = name
        elif status.st_ino not in self._files:
            self._files[status.st_ino] = os.dup(descriptor)

    def _name(self, descriptor: int) -> str | None:
        path = os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
        inside = path == str(self.root) or path.startswith(f"{self.root}/")
        return os.path.relpath(path, self.root) if inside else None


@contextmanager
def watched(root: Path) -> Iterator[Syncs]:
    """Watch the syncs below `root`, which need not be there yet, while the block lasts."""
    syncs = Syncs(Path(os.path.realpath(root)))
    real = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: syncs.sync(real, descriptor))
        try:
            yield syncs
        finally:
            syncs.forget_files()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Let monotonic time stand still for every store that is opened, until it is advanced."""
    still = FakeClock()
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: still.monotonic())
    return still


# a disk that goes bad: the bytes of files


@pytest.fixture(params=["EIO", "ENOSPC"], ids=["bad blocks", "a thin disk that is full"])
def failing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FailingDisk]:
    """Give a disk that goes bad, with either of the errors that a kernel has for it."""
    with failing_disk(tmp_path, request.param) as one:
        yield one


REFUSALS: Final = {"EIO": VolumeFailed, "ENOSPC": VolumeFull}
WRITING: Final = (
    "first save", "save", "save without a backup", "blank save", "update", "edit", "transaction",
    "restore", "import",
)  # fmt: skip
"""Operations that write the bytes of a document; the others move names alone."""
ON_A_BAD_DISK: Final = [name for name in OPERATIONS if name != "export to a folder"]
"""An export makes directories there, and a directory that cannot be written ends the journal."""


def test_the_kernel_takes_a_second_sync_for_done_and_the_disk_holds_something_else(
    failing: FailingDisk,
) -> None:
    """Negative control: without this, the tests on a bad disk would prove nothing."""
    path = failing.filesystem.path / "plain"
    failing.fail_writes()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"new " * 1000)

    with pytest.raises(OSError, match=os.strerror(getattr(errno, failing.code))):
        os.fsync(descriptor)
    os.fsync(descriptor)

    assert os.pread(descriptor, 4, 0) == b"new "
    os.close(descriptor)
    failing.remount()
    assert path.read_bytes()[:4] != b"new "


@pytest.mark.parametrize("name", ["save", "transaction"])
def test_a_change_whose_bytes_the_disk_refuses_is_refused_and_the_next_one_is_made(
    name: str, failing: FailingDisk
) -> None:
    assert _changed_on_a_bad_disk(name, failing) == []


def test_many_documents_synced_as_one_are_refused_as_one(failing: FailingDisk) -> None:
    """From six files on one `syncfs` syncs them all; the kernel must tell it of each."""
    names = [f"d{number}.json" for number in range(8)]
    with opened(failing.data) as seline:
        _save_together(seline, names, "old")
        failing.fail_writes()
        with pytest.raises(REFUSALS[failing.code]):
            _save_together(seline, names, "new")
        served = {name: seline.data.load_json(name) for name in names}
        failing.allow_writes()
        _save_together(seline, names[:6], "newer")

    failing.remount()

    assert served == {name: value(name, "old") for name in names}
    with opened(failing.data) as again:
        found = [again.data.load_json(name) for name in names]
    assert found == [value(name, "newer") for name in names[:6]] + [
        value(name, "old") for name in names[6:]
    ]


def test_a_store_that_retries_a_failed_sync_is_found_out(
    failing: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: such a store acknowledges what the disk does not hold."""
    _let_syncs_be_retried(monkeypatch)

    broken = _changed_on_a_bad_disk("save", failing)

    assert any("synced again" in one for one in broken)
    assert any("V1, V3, V5" in one or "V4" in one for one in broken)


def test_what_is_served_after_the_reopening_is_what_the_disk_holds(
    tmp_path: Path, clock: FakeClock
) -> None:
    """The kernel's pages are dropped: they may hold what never reached the disk."""
    with failing_disk(tmp_path) as failing:
        with watched(failing.data) as syncs, opened(failing.data) as seline:
            seline.data.save_json(A, value(A, "old"))
            syncs.fail(DOCUMENTS)
            with pytest.raises(OutcomeUnknown):
                seline.data.save_json(A, value(A, "new"))
            failing.change_on_disk(failing.data / A, b'"new"', b'"odd"')
            assert b'"new"' in (failing.data / A).read_bytes()
            clock.advance(2 * REOPEN_EVERY_S)
            seline.data.save_json(NEXT, value(NEXT, 1))
            served = seline.data.load_json(A)
            quarantined = [item.document for item in seline.data.quarantine()]
        failing.remount()
        with opened(failing.data) as again:
            found = again.data.load_json(A)

    assert served == found == value(A, "old")
    assert quarantined == [A]


def test_a_hand_edit_that_the_disk_lost_is_not_taken_over(failing: FailingDisk) -> None:
    """Adopting an edit writes its bytes anew and syncs them: the editor may never have done so."""
    with opened(failing.data) as seline:
        seline.data.save_json(A, value(A, "old"))
        failing.fail_writes()
        (failing.data / A).write_bytes((failing.data / A).read_bytes().replace(b"old", b"odd"))
        kind = "disk_error" if failing.code == "EIO" else "served_from_memory"
        _wait_until(lambda: seline.data.load_json(A) == value(A, "odd") and _told_of(seline, kind))
        assert not _told_of(seline, "adopted")
        failing.allow_writes()
        _wait_until(
            lambda: seline.data.load_json(A) == value(A, "odd") and _told_of(seline, "adopted")
        )

    failing.remount()

    with opened(failing.data) as again:
        assert again.data.load_json(A) == value(A, "odd")
        assert again.data.verify().findings == ()


@pytest.mark.prove(share=2)
@pytest.mark.parametrize("code", REFUSALS)
def test_no_operation_on_a_bad_disk_breaks_a_promise(
    code: str, tmp_path: Path, share_s: float
) -> None:
    """Every operation in turn, again and again until the time is over."""
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    broken: list[str] = []
    tried = 0
    for number, name in enumerate(itertools.cycle(_shuffled(ON_A_BAD_DISK, seed=5))):
        if time.monotonic() > ends_at or number == 4 * len(OPERATIONS):
            break
        place = tmp_path / str(number)
        place.mkdir()
        with failing_disk(place, code) as failing:
            broken += _changed_on_a_bad_disk(name, failing)
        tried += 1
    what = "bad blocks" if code == "EIO" else "a thin disk that is full"
    note(SUITE, what, tried=tried, failures=len(broken), where="ext4")
    assert tried > 0
    assert broken == []


@pytest.mark.prove(share=2)
def test_a_disk_that_goes_bad_and_heals_again_and_again_loses_nothing(
    tmp_path: Path, share_s: float
) -> None:
    seed = 20250106
    print(f"seed {seed}")
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    chance, tried, broken = random.Random(seed), 0, list[str]()
    with failing_disk(tmp_path) as failing:
        held: dict[str, Json] = {}
        while time.monotonic() < ends_at and tried < 200:
            with watched(failing.data) as syncs, opened(failing.data) as seline:
                held.update(_some_saves(seline, chance))
                _settle(seline)
                failing.fail_writes()
                refused = _some_saves(seline, chance)
                broken += [f"{name} was acknowledged on a bad disk" for name in refused]
                syncs.forget_files()
                failing.allow_writes()
                held.update(_some_saves(seline, chance))
                broken += [f"{name} was synced again" for name in syncs.again]
                tried += len(syncs.failed)
            failing.remount()
            with opened(failing.data) as again:
                broken += [
                    f"{name} is not as acknowledged"
                    for name, kept in held.items()
                    if again.data.load_json(name) != kept
                ]
                broken += [f"V4: {found}" for found in again.data.verify().findings]
    note(SUITE, "a disk that goes bad and heals", tried=tried, failures=len(broken), where="ext4")
    assert tried > 0
    assert broken == []


def _prepared(name: str, volume: Path) -> Expected:
    """Make the volume that an operation finds; return what the operation does to it."""
    tree, expected = _made_once(name)
    write(tree, volume)
    return expected


@cache
def _made_once(name: str) -> tuple[Tree, Expected]:
    with tempfile.TemporaryDirectory(prefix="seline-prepared-") as scratch:
        expected = expect(OPERATIONS[name], Path(scratch) / "expected")
        prepare(OPERATIONS[name], Path(scratch) / "volume")
        return tree_of(Path(scratch) / "volume"), expected


def _changed_on_a_bad_disk(name: str, failing: FailingDisk) -> list[str]:
    """Do an operation while the disk is bad, the next one when it is sound; judge a fresh mount."""
    expected = _prepared(name, failing.data)
    with watched(failing.data) as syncs:
        with opened(failing.data) as seline:
            _settle(seline)
            failing.fail_writes()
            outcome = _outcome(expected, seline, failing)
            served = _values(seline)
            syncs.forget_files()
            failing.allow_writes()
            seline.data.save_json(NEXT, value(NEXT, 1))
        broken = [f"SPEC 10: {again} was synced again" for again in syncs.again]
        if name in WRITING and outcome == "acknowledged" and failing.code != "ENOSPC":
            broken.append("V3: acknowledged, and the disk took no bytes")
        if name in WRITING and not syncs.failed:
            broken.append("the disk was not bad")
    failing.remount()
    return broken + _after_a_mount(failing.data, expected, outcome, served)


def _after_a_mount(
    directory: Path, expected: Expected, outcome: Outcome, served: Values | None
) -> list[str]:
    """Judge what the disk holds: what was served, all that was acknowledged, nothing stray."""
    broken = []
    with opened(directory) as again:
        found = _values(again)
        if served is not None and found != served:
            broken.append(f"V3: {served} was served, and the disk holds {found}")
        if served is not None and again.data.load_json(NEXT) != value(NEXT, 1):
            broken.append("V3: the next save was acknowledged and is not there")
    return broken + judge(directory, expected, outcome)


def _outcome(expected: Expected, seline: Seline, failing: FailingDisk) -> Outcome:
    """Do an operation and say what the caller was told: done, or refused by name.

    A thin disk that is full may take it, once old backups have made room.
    """
    try:
        expected.operation.act(seline, failing.data)
    except REFUSALS[failing.code]:
        return "refused"
    return "acknowledged"


def _settle(seline: Seline) -> None:
    """Wait until nothing is written any more: it would free blocks, sound ones."""
    store: Any = seline.data._awaited._lifetime.store
    store._writer.between(lambda: None).result()


def _some_saves(seline: Seline, chance: random.Random) -> dict[str, Json]:
    """Save some documents to new contents of some size; return those that were acknowledged."""
    saved: dict[str, Json] = {}
    for _ in range(chance.randrange(1, 8)):
        name = f"d{chance.randrange(6)}.json"
        content = {"n": chance.random(), "filler": "x" * chance.choice((10, 3_000, 40_000))}
        with contextlib.suppress(StorageError):
            seline.data.save_json(name, content, backup=chance.random() < 0.7, shrink=True)
            saved[name] = content
    return saved


def _save_together(seline: Seline, names: Sequence[str], number: Json) -> None:
    with seline.data.transaction(*names) as change:
        for name in names:
            change[name] = value(name, number)


def _let_syncs_be_retried(patch: pytest.MonkeyPatch) -> None:
    def retried(descriptor: int) -> None:
        try:
            real(descriptor)
        except OSError:
            real(descriptor)

    real = files.sync
    patch.setattr(files, "sync", retried)


# one sync fails at the system call


REFUSED: Final = "this change is refused, and the store goes on"
FAILED: Final = "this change is refused, and so is every one before the reopening"
UNKNOWN: Final = "its outcome is unknown, and no change is taken before the reopening"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Which sync of which operation fails, and what SPEC §10 says then."""

    operation: str
    what: str
    says: str
    nth: int = 1
    named: str = ""

    def __str__(self) -> str:
        return f"{self.operation}: {self.named}"


def _cases() -> Iterator[Case]:
    """Yield what may fail in which operation; what takes a record has more syncs."""
    for operation in WRITING:
        yield Case(operation=operation, what=STAGED, says=REFUSED, named="a staged file")
    for operation in ("save", "delete", "restore", "transaction", "blank save", "import"):
        yield Case(operation=operation, what=BACKUPS, says=FAILED, named="backups")
    for operation in ("first save", "save", "save without a backup", "edit", "delete", "purge",
                      "restore"):  # fmt: skip
        yield Case(operation=operation, what=DOCUMENTS, says=UNKNOWN, named="the documents")
    for operation in ("transaction", "blank save", "import"):
        yield Case(operation=operation, what=STAGING, says=FAILED, named="staging")
        yield Case(operation=operation, what=RECORD, says=REFUSED, named="the record")
        yield Case(
            operation=operation, what=OF_THE_RECORD, says=UNKNOWN, named="the record's directory"
        )
        yield Case(operation=operation, what=DOCUMENTS, says=UNKNOWN, named="the documents")


CASES: Final = tuple(_cases())


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.operation in ("save", "transaction", "delete")], ids=str
)
def test_a_sync_that_fails_once_is_told_by_what_it_was_of(
    case: Case, tmp_path: Path, clock: FakeClock
) -> None:
    assert _one_sync_fails(case, tmp_path, clock) == []


@pytest.mark.prove
def test_whatever_sync_of_whatever_operation_fails_spec_10_holds(
    tmp_path: Path, clock: FakeClock
) -> None:
    broken = [
        f"{case}: {found}"
        for number, case in enumerate(CASES)
        for found in _one_sync_fails(case, tmp_path / str(number), clock)
    ]
    note(
        SUITE, "each kind of sync of each operation", tried=len(CASES), failures=len(broken),
        where=kind_of(tmp_path),
    )  # fmt: skip
    assert broken == []


def _one_sync_fails(case: Case, place: Path, clock: FakeClock) -> list[str]:
    """Let one sync fail; go on before the reopening, after it, and after a restart."""
    volume = place / "volume"
    expected = _prepared(case.operation, volume)
    with watched(volume) as syncs:
        with opened(volume) as seline:
            syncs.fail(case.what, nth=case.nth)
            outcome = _told(case, expected, seline, volume)
            assert len(syncs.failed) == 1, syncs.made
            broken = _before_the_reopening(case, seline, expected)
            clock.advance(REOPEN_EVERY_S + 1)
            seline.data.save_json(NEXT, value(NEXT, 1))
            broken += [f"{name} is not durable, and is served" for name in _loose(syncs)]
            broken += [f"stray: {name}" for name in stray(volume)]
            served = _values(seline)
        broken += [f"SPEC 10: {name} was synced again" for name in syncs.again]
    return broken + _after_a_mount(volume, expected, outcome, served)


def _loose(syncs: Syncs) -> list[str]:
    """Return the directories of documents that are not durable after all.

    The others are changed and synced by the next commit that has a use for them.
    """
    return [name for name in syncs.unsynced if name in (".", ".seline")]


def _told(case: Case, expected: Expected, seline: Seline, volume: Path) -> Outcome:
    """Do the operation, and check that the caller was told what SPEC says."""
    with pytest.raises(VolumeFailed if case.says != UNKNOWN else OutcomeUnknown) as told:
        expected.operation.act(seline, volume)
    assert "EIO" in told.value.message
    return "unknown" if case.says == UNKNOWN else "refused"


def _before_the_reopening(case: Case, seline: Seline, expected: Expected) -> list[str]:
    """Return what is wrong before any time has passed."""
    checks = {check["name"]: check["status"] for check in seline.data.health()["checks"]}  # type: ignore[index,union-attr,call-overload]
    broken = []
    if case.says == REFUSED:
        if checks["writing"] != "ok":
            broken.append("the whole store failed for one file")
        if _values(seline) != expected.before:
            broken.append("it was refused, and something has changed")
        return broken
    if checks["writing"] != "critical":
        broken.append(f"health says that writing is {checks['writing']}")
    if _is_taken(lambda: seline.data.save_json("meanwhile.json", {})):
        broken.append("a write was taken before the reopening")
    if seline.data.load_json(STILL) != value(STILL, 2):
        broken.append("another document is not served")
    for name in expected.operation.changes:
        shown = _shown(seline.data, name)
        if shown not in ("not known", expected.before[name], expected.after[name]):
            broken.append(f"{name} shows {shown}")
        if case.says == FAILED and shown != expected.before[name]:
            broken.append(f"{name} was refused, and has changed")
    return broken


def _is_taken(change: Callable[[], object]) -> bool:
    try:
        change()
    except VolumeFailed:
        return False
    return True


def _shown(data: DataManager, name: str) -> Json:
    """Return what is served of a document, or that its last change is not known."""
    try:
        found = data.load_json(name, default=ABSENT)
    except VolumeFailed:
        return "not known"
    return None if found is ABSENT else found


# the reopening


def test_a_reopening_that_fails_is_tried_again_only_after_its_time(
    tmp_path: Path, clock: FakeClock
) -> None:
    volume = tmp_path / "volume"
    with watched(volume) as syncs, opened(volume) as seline:
        seline.data.save_json(A, value(A, 1))
        syncs.fail(DOCUMENTS, times=2)
        with pytest.raises(OutcomeUnknown):
            seline.data.save_json(A, value(A, 2))

        clock.advance(REOPEN_EVERY_S)
        assert not _is_taken(lambda: seline.data.save_json(B, value(B, 1)))
        assert len(syncs.failed) == 2
        clock.advance(REOPEN_EVERY_S - 1)
        asked = len(syncs.made)
        assert not _is_taken(lambda: seline.data.save_json(B, value(B, 1)))
        assert len(syncs.made) == asked
        clock.advance(2)
        seline.data.save_json(B, value(B, 2))

        assert seline.data.load_json(A) in (value(A, 1), value(A, 2))
        assert syncs.again == []
        assert syncs.unsynced == []


def test_the_volume_is_reopened_by_itself_when_nobody_asks(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.storage.volume.batches.REOPEN_EVERY_S", 0.02)
    volume = tmp_path / "volume"
    with watched(volume) as syncs, opened(volume) as seline:
        seline.data.save_json(A, value(A, 1))
        syncs.fail(DOCUMENTS)
        with pytest.raises(OutcomeUnknown):
            seline.data.save_json(A, value(A, 2))

        time.sleep(4 * IDLE_AFTER_S)  # the first look came too early; another one has to follow
        clock.advance(60)
        _wait_until(lambda: seline.data.health()["status"] != "critical")

        assert seline.data.load_json(A) in (value(A, 1), value(A, 2))


def test_what_is_in_doubt_is_not_served_before_it_is_durable(
    tmp_path: Path, clock: FakeClock
) -> None:
    """The reopening commits it anew; until its last sync nobody is shown it."""
    volume = tmp_path / "volume"
    with watched(volume) as syncs, opened(volume) as seline:
        seline.data.save_json(A, value(A, 1))
        syncs.fail(DOCUMENTS)
        with pytest.raises(OutcomeUnknown):
            seline.data.save_json(A, value(A, 2))
        shown: list[Json] = []
        syncs.refuse = lambda _: shown.append(_shown(seline.data, A)) is not None

        clock.advance(60)
        seline.data.save_json(A, value(A, 3))

        before_the_save = shown[: -len(("the staged file", "backups", "the documents"))]
        assert len(before_the_save) > 5
        assert set(map(str, before_the_save)) == {"not known"}


def test_a_failed_opening_is_not_made_good_by_opening_again(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Another process has no part in the failed sync, and the kernel tells it of none."""
    volume = tmp_path / "volume"
    for what in (OF_THE_RECORD, DOCUMENTS):
        with watched(volume) as syncs:
            with opened(volume) as seline:
                _save_together(seline, [A, B], "old")
                syncs.fail(what)
                with pytest.raises(OutcomeUnknown):
                    _save_together(seline, [A, B], "new")
            with opened(volume) as again:
                assert again.data.load_json(A) == value(A, "new")
                assert again.data.load_json(B) == value(B, "new")
            assert syncs.again == []
            assert syncs.unsynced == []


def test_a_new_data_directory_whose_sync_fails_is_as_durable_after_the_next_start(
    tmp_path: Path,
) -> None:
    volume = tmp_path / "volume" / "data"
    with watched(tmp_path) as syncs:
        syncs.fail("volume")
        with pytest.raises(VolumeFailed):
            opened(volume)
        with opened(volume) as seline:
            seline.data.save_json(A, value(A, 1))

    assert syncs.failed == ["volume"]
    assert syncs.unsynced == []
    assert syncs.again == []


def test_one_failed_sync_in_a_group_costs_nobody_anything(tmp_path: Path, clock: FakeClock) -> None:
    """V7: they are tried one by one then, each under a new inode."""
    volume = tmp_path / "volume"
    with watched(volume) as syncs, opened(volume) as seline:
        syncs.fail(STAGED, nth=2)
        futures = _in_one_batch(
            seline, [lambda n=n: seline.data.save_json(f"d{n}.json", {"n": n}) for n in range(4)]
        )

        assert [future.exception() for future in futures] == [None] * 4
        assert [seline.data.load_json(f"d{n}.json") for n in range(4)] == [
            {"n": n} for n in range(4)
        ]
        assert len(syncs.failed) == 1
        assert syncs.again == []
        assert stray(volume) == []


def _in_one_batch(seline: Seline, changes: Sequence[Callable[[], object]]) -> list[Future[object]]:
    """Make changes while the writer is held up, so that it takes them together."""
    store: Any = seline.data._awaited._lifetime.store
    go, futures = threading.Event(), [Future[object]() for _ in changes]
    held = store._writer.between(go.wait)

    def make(change: Callable[[], object], future: Future[object]) -> None:
        try:
            future.set_result(change())
        except SelineError as error:
            future.set_exception(error)

    threads = [
        threading.Thread(target=make, args=pair) for pair in zip(changes, futures, strict=True)
    ]
    for thread in threads:
        thread.start()
    _wait_until(lambda: store._writer.queued >= len(changes))
    go.set()
    held.result()
    for thread in threads:
        thread.join()
    return futures


def test_a_document_whose_sync_failed_is_copied_from_then_on(
    tmp_path: Path, clock: FakeClock
) -> None:
    """One that was put there by hand is synced before it becomes a backup: once (SPEC V2, §10)."""
    volume = tmp_path / "volume"
    with watched(volume) as syncs, opened(volume) as seline:
        seline.data.save_json(A, value(A, "old"))
        os.rename(volume / A, tmp_path / "away")
        assert seline.data.load_json(A) == {}
        os.rename(tmp_path / "away", volume / A)
        syncs.refuse = lambda name: name == A or (name.endswith("2") and "staging" in name)
        for number in range(3):
            with contextlib.suppress(VolumeFailed):
                seline.data.save_json(A, value(A, number))
        syncs.refuse = lambda _: False
        seline.data.save_json(A, value(A, "new"))

        kept = [seline.data.read_backup(A, one.name) for one in seline.data.backups(A)]
        assert value(A, "old") in kept
        assert A in syncs.failed
        assert syncs.again == []


# a power cut after the reopening: what was made up for must be on the disk


CUT_CASES: Final = (
    Case(operation="transaction", what=OF_THE_RECORD, says=UNKNOWN, named="the record's directory"),
    Case(
        operation="transaction", what=OF_THE_RECORD, nth=2, says=UNKNOWN,
        named="the record's directory, when the record is gone",
    ),
    Case(operation="transaction", what=DOCUMENTS, says=UNKNOWN, named="the documents"),
    Case(operation="transaction", what=STAGING, says=FAILED, named="staging"),
    Case(operation="transaction", what=BACKUPS, says=FAILED, named="backups"),
    Case(operation="save", what=DOCUMENTS, says=UNKNOWN, named="the documents"),
    Case(operation="save", what=BACKUPS, says=FAILED, named="backups"),
    Case(operation="delete", what=DOCUMENTS, says=UNKNOWN, named="the documents"),
)  # fmt: skip
FEW: Final = Cutting(combinations_max=8, share=0.1)
SAMPLE: Final = 12


@pytest.mark.parametrize(
    "case",
    [case for case in CUT_CASES if case.what == OF_THE_RECORD or case.operation == "delete"],
    ids=str,
)
def test_some_cuts_after_a_failed_sync_and_the_reopening_lose_nothing(
    case: Case, tmp_path: Path, clock: FakeClock
) -> None:
    states, promised = _reopened_and_cut(case, tmp_path, clock, FEW)

    broken = _broken_by_cuts(_some(states), promised, tmp_path)

    assert broken == []


@pytest.mark.prove
@pytest.mark.parametrize("case", CUT_CASES, ids=str)
def test_no_cut_after_a_failed_sync_and_the_reopening_loses_anything(
    case: Case, tmp_path: Path, clock: FakeClock, share_s: float
) -> None:
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    states, promised = _reopened_and_cut(case, tmp_path, clock, Cutting())
    broken: list[str] = []
    tried = 0
    for cut in _shuffled(states, seed=len(states)):
        if tried and time.monotonic() > ends_at:
            break
        broken += _broken_by_cuts([cut], promised, tmp_path)
        tried += 1
    note(
        SUITE, f"{case}, then the reopening, a save and a power cut", tried=tried,
        failures=len(broken), where=kind_of(tmp_path), possible=len(states),
    )  # fmt: skip
    assert broken == []


def test_a_save_that_finds_its_bytes_current_after_a_kill_is_durable(
    tmp_path: Path, clock: FakeClock
) -> None:
    """V3: the name may be new in the kernel's memory alone, and such a save writes nothing."""
    volume = tmp_path / "volume"
    expected = _prepared("save", volume)
    with recording(volume) as made, watched(volume) as syncs:
        with opened(volume) as killed:
            syncs.fail(DOCUMENTS)  # never made: the recording does not see it
            with pytest.raises(OutcomeUnknown):
                expected.operation.act(killed, volume)
        with opened(volume) as seline:
            expected.operation.act(seline, volume)
            os.write(1, DONE.encode())
    promised = Promised(before=[expected.before, expected.after], served=expected.after)

    broken = _broken_by_cuts(_some(cuts(made, FEW)), promised, tmp_path)

    assert broken == []


@dataclass(frozen=True, kw_only=True)
class Promised:
    """What may be found after a cut: before the next save was acknowledged, and after it."""

    before: Sequence[Values]
    served: Values


def _reopened_and_cut(
    case: Case, place: Path, clock: FakeClock, cutting: Cutting
) -> tuple[list[Cut], Promised]:
    """Let a sync fail, reopen, and save again what was there before; return every state."""
    volume = place / "volume"
    expected = _prepared(case.operation, volume)
    with watched(volume) as syncs, recording(volume) as made, opened(volume) as seline:
        syncs.fail(case.what, nth=case.nth)
        _told(case, expected, seline, volume)
        clock.advance(REOPEN_EVERY_S + 1)
        seline.data.save_json(A, expected.before[A])
        served = _values(seline)
        os.write(1, DONE.encode())
    made_again = {**expected.after, A: expected.before[A]}
    assert served in (expected.before, made_again)
    between = [expected.before, expected.after, served]
    return cuts(made, cutting), Promised(before=between, served=served)


def _some(states: Sequence[Cut]) -> list[Cut]:
    """Return the same few states each time, most of them after the acknowledgement."""
    done = [cut for cut in states if cut.acknowledged]
    rest = [cut for cut in states if not cut.acknowledged]
    chance = random.Random(SAMPLE)
    return chance.sample(done, min(len(done), SAMPLE)) + chance.sample(rest, SAMPLE // 3)


def _broken_by_cuts(states: Sequence[Cut], promised: Promised, place: Path) -> list[str]:
    broken = []
    for number, cut in enumerate(states):
        directory = place / f"cut-{number}-{time.monotonic_ns()}"
        write(cut.tree, directory)
        with opened(directory) as seline:
            found = _values(seline)
            allowed = [promised.served] if cut.acknowledged else promised.before
            if found not in allowed:
                broken.append(f"{cut}: {_kinds(found)}")
            broken += [f"{cut}: V4: {one}" for one in seline.data.verify().findings]
    return broken


def _kinds(found: Values) -> str:
    return ", ".join(
        f"{name} {content['n'] if isinstance(content, dict) else content}"
        for name, content in found.items()
    )


# many syncs fail


@pytest.mark.prove(share=2)
def test_syncs_that_fail_at_random_lose_nothing(
    tmp_path: Path, clock: FakeClock, share_s: float
) -> None:
    seed = 20250106
    print(f"seed {seed}")
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    tried, broken = 0, list[str]()
    for number in range(300):
        if number and time.monotonic() > ends_at:
            break
        volume = tmp_path / f"volume-{number}"
        failed, found = _at_random(random.Random(seed + number), volume, clock)
        tried += failed
        broken += found
    note(SUITE, "any sync, at random", tried=tried, failures=len(broken), where=kind_of(tmp_path))
    assert tried > 0
    assert broken == []


def _at_random(chance: random.Random, volume: Path, clock: FakeClock) -> tuple[int, list[str]]:
    """Change documents while one sync in ten fails; each is known, or one of what was tried."""
    names = (A, B, C, NEW)
    possible: dict[str, list[Json]] = {name: [None] for name in names}
    with watched(volume) as syncs:
        with opened(volume) as seline:
            syncs.refuse = lambda _: chance.random() < 0.1
            for number in range(40):
                _change_some(seline, chance, names, number, possible)
                clock.advance(chance.choice((0, 0, 2, REOPEN_EVERY_S)))
            syncs.refuse = lambda _: False
            clock.advance(2 * REOPEN_EVERY_S)
            seline.data.save_json(NEXT, value(NEXT, 1))
            served = {name: _shown(seline.data, name) for name in names}
        broken = [f"{name} was synced again" for name in syncs.again]
        broken += [f"{name} was not synced" for name in _loose(syncs)]
    broken += [
        f"{name} shows {served[name]}, of {possible[name]}"
        for name in names
        if served[name] not in possible[name]
    ]
    with opened(volume) as again:
        if {name: _shown(again.data, name) for name in names} != served:
            broken.append("after a restart it is another content")
        broken += [f"V4: {one}" for one in again.data.verify().findings]
    return len(syncs.failed), broken + [f"stray: {name}" for name in stray(volume)]


def _change_some(
    seline: Seline,
    chance: random.Random,
    names: Sequence[str],
    number: int,
    possible: dict[str, list[Json]],
) -> None:
    """Change one document, or several at once, and note what each may hold now."""
    chosen = chance.sample(names, chance.choice((1, 1, 1, 2, 3)))
    new: dict[str, Json] = {name: value(name, number) for name in chosen}
    try:
        if len(chosen) == 1 and chance.random() < 0.2 and possible[chosen[0]] != [None]:
            new = dict.fromkeys(chosen)
            seline.data.delete(chosen[0])
        elif len(chosen) == 1:
            seline.data.save_json(chosen[0], new[chosen[0]], backup=chance.random() < 0.7)
        else:
            _save_together(seline, chosen, number)
    except OutcomeUnknown:
        for name in chosen:
            possible[name] = [*possible[name], new[name]]
    except SelineError:
        return
    else:
        for name in chosen:
            possible[name] = [new[name]]


def _shuffled(things: Any, *, seed: int) -> list[Any]:
    print(f"seed {seed}")
    return random.Random(seed).sample(list(things), len(things))


def _wait_until(is_so: Callable[[], bool], limit_s: float = 10.0) -> None:
    ends_at = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < ends_at, "it does not come about"
        time.sleep(0.01)


def _told_of(seline: Seline, kind: str) -> bool:
    data: Any = seline.data._awaited
    return kind in [one.kind for one in (*data._lifetime.store.incidents(), *data.incidents)]
