"""V3, V4, V7: after a failed sync, nothing is durable by repeating it, and the disk decides.

A kernel marks the pages that it could not write as clean. The next sync of the same file succeeds,
a read returns the new bytes, and the disk holds the old ones.

- On a real disk whose blocks cannot be written, the kernel refuses the bytes of files: the change
  is refused with a named error, the next write uses a new inode, and a fresh mount shows what was
  served.
- Syncs of directories and of the record fail at the system call: the outcome is unknown if the
  change may be visible, no write is accepted before the reopening, and then the record decides.
"""

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
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from seline.blocking import DataManager, Seline
from seline.domain.document import ABSENT, Json
from seline.errors import OutcomeUnknown, VolumeFailed, VolumeFull
from seline.storage.volume import files
from seline.storage.volume.commit import sync_threads
from seline.storage.volume.commit.sync_threads import SyncThreads
from seline.storage.volume.reopen import REOPEN_EVERY_S
from seline.storage.volume.writer import IDLE_AFTER_S
from tests.clocks import FakeClock
from tests.faults.injection import refuse_threads
from tests.faults.powercut.disk_model import Tree
from tests.faults.powercut.recorder import recording, tree_of
from tests.faults.powercut.states import Cut, Cutting, cuts, write
from tests.faults.powercut.trying import kind_of
from tests.faults.small_filesystem import FailingDisk, failing_disk
from tests.proof.figures import note
from tests.proof.judge import Expected, Outcome, Values, expect, judge, read_values, stray
from tests.proof.operations import (
    DONE,
    OPERATIONS,
    STILL,
    A,
    B,
    in_one_batch,
    opened,
    prepare,
    value,
)

pytestmark = pytest.mark.usefixtures("first_form")

SUITE: Final = "failing syncs"
NEXT: Final = "next.json"
LIMIT_S: Final = 60.0

STAGED: Final = r"\.seline/staging/\w+"
RECORD: Final = r"\.seline/journal\.new"
BACKUPS, QUARANTINE, STAGING = "backups", "quarantine", r"\.seline/staging"
RECORD_DIRECTORY, DOCUMENTS = r"\.seline", r"\."
MARK_NS: Final = 1_000_000_000
_set_mtime: Final = os.utime
"""The original function, before a test patches it to record the calls of this process."""


# the syncs of this process


@dataclass
class Syncs:
    """Every sync below a directory, in order; `fail` makes some of them fail, once each.

    `repeated` names what was synced again after a failed sync: never allowed for a file, and for a
    directory only after a change in between. `unsynced` names the directories whose failed sync has
    not been followed by a successful one.

    A file whose sync failed is held open, so that no other file gets its inode number. A directory
    is not, since that would keep its lock; it gets a marker mtime, which any change of it replaces.
    """

    root: Path
    attempted: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])
    repeated: list[str] = field(default_factory=list[str])
    refuse: Callable[[str], bool] = lambda _: False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _files: dict[int, int] = field(default_factory=dict[int, int])
    _directories: dict[int, str] = field(default_factory=dict[int, str])

    def fail(self, pattern: str, *, nth: int = 1, times: int = 1) -> None:
        """Make the syncs of names that match `pattern` fail, `times` times from the `nth` on."""
        seen = itertools.count(1)
        self.refuse = lambda name: (
            re.fullmatch(pattern, name) is not None and nth <= next(seen) < nth + times
        )

    def sync(self, call: Callable[[int], None], descriptor: int) -> None:
        """Replace `os.fsync`."""
        name = self._name(descriptor)
        if name is None:
            return call(descriptor)
        with self._lock:
            self._note_attempt(descriptor, name)
            is_refused = self.refuse(name)
        try:
            if is_refused:
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

    def release_files(self) -> None:
        """Close the files whose sync failed, so that the disk can reuse their blocks."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _note_attempt(self, descriptor: int, name: str) -> None:
        self.attempted.append(name)
        status = os.fstat(descriptor)
        unchanged = status.st_ino in self._directories and status.st_mtime_ns == MARK_NS
        if unchanged or status.st_ino in self._files:
            self.repeated.append(name)

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
def watch_syncs(root: Path) -> Iterator[Syncs]:
    """Watch the syncs below `root`, which need not exist yet."""
    syncs = Syncs(Path(os.path.realpath(root)))
    real, real_data = os.fsync, os.fdatasync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: syncs.sync(real, descriptor))
        patch.setattr(os, "fdatasync", lambda descriptor: syncs.sync(real_data, descriptor))
        try:
            yield syncs
        finally:
            syncs.release_files()


# a disk whose blocks cannot be written: the bytes of files


@pytest.fixture(params=["EIO", "ENOSPC"], ids=["bad blocks", "a thin disk that is full"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FailingDisk]:
    """Yield a disk whose writes can fail, with each error that a kernel has for it."""
    with failing_disk(tmp_path, request.param) as disk:
        yield disk


REFUSALS: Final = {"EIO": VolumeFailed, "ENOSPC": VolumeFull}
WRITING: Final = (
    "first save", "save", "save without a backup", "blank save", "update", "edit", "transaction",
    "restore", "import",
)  # fmt: skip
"""Operations that write the bytes of a document; the others only change names."""
ON_FAILING_DISK: Final = [name for name in OPERATIONS if name != "export to a folder"]
"""An export creates directories, and a directory that cannot be written aborts ext4's journal."""


def test_a_second_sync_succeeds_although_the_disk_lost_the_bytes(disk: FailingDisk) -> None:
    """Negative control: without this behaviour, the tests on a failing disk would prove nothing."""
    path = disk.filesystem.path / "plain"
    disk.fail_writes()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"new " * 1000)

    with pytest.raises(OSError, match=os.strerror(getattr(errno, disk.code))):
        os.fsync(descriptor)
    os.fsync(descriptor)

    assert os.pread(descriptor, 4, 0) == b"new "
    os.close(descriptor)
    disk.remount()
    assert path.read_bytes()[:4] != b"new "


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["save", "transaction"])
def test_a_change_that_the_disk_cannot_write_is_refused_and_the_next_change_succeeds(
    name: str, disk: FailingDisk
) -> None:
    assert _change_on_failing_disk(name, disk) == []


def test_a_transaction_synced_by_syncfs_is_refused_as_a_whole(disk: FailingDisk) -> None:
    """One `syncfs` syncs six or more files; the kernel must report the failure of each."""
    names = [f"d{number}.json" for number in range(8)]
    with opened(disk.data) as seline:
        _save_together(seline, names, "old")
        disk.fail_writes()
        with pytest.raises(REFUSALS[disk.code]):
            _save_together(seline, names, "new")
        served = {name: seline.data.load_json(name) for name in names}
        disk.allow_writes()
        _save_together(seline, names[:6], "newer")

    disk.remount()

    assert served == {name: value(name, "old") for name in names}
    with opened(disk.data) as restarted:
        documents = [restarted.data.load_json(name) for name in names]
    assert documents == [value(name, "newer") for name in names[:6]] + [
        value(name, "old") for name in names[6:]
    ]


def test_a_store_that_repeats_a_failed_sync_is_flagged(
    disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: such a store acknowledges what the disk does not hold."""
    _repeat_failed_syncs(monkeypatch)

    broken = _change_on_failing_disk("save", disk)

    assert any("synced again" in failure for failure in broken)
    assert any("V1, V3, V5" in failure or "V4" in failure for failure in broken)


def test_after_the_reopening_reads_return_what_the_disk_holds(
    tmp_path: Path, frozen_clock: FakeClock
) -> None:
    """The reopening drops the cached pages, which may hold bytes that never reached the disk."""
    with failing_disk(tmp_path) as disk:
        with watch_syncs(disk.data) as syncs, opened(disk.data) as seline:
            seline.data.save_json(A, value(A, "old"))
            syncs.fail(DOCUMENTS)
            with pytest.raises(OutcomeUnknown):
                seline.data.save_json(A, value(A, "new"))
            disk.change_on_disk(disk.data / A, b'"new"', b'"odd"')
            assert b'"new"' in (disk.data / A).read_bytes()
            frozen_clock.advance(2 * REOPEN_EVERY_S)
            seline.data.save_json(NEXT, value(NEXT, 1))
            served = seline.data.load_json(A)
            quarantined = [item.document for item in seline.quarantine()]
        disk.remount()
        with opened(disk.data) as restarted:
            value_on_disk = restarted.data.load_json(A)

    assert served == value_on_disk == value(A, "old")
    assert quarantined == [A]


def test_a_hand_edit_is_not_adopted_while_the_disk_cannot_write_it(disk: FailingDisk) -> None:
    """Adopting an edit writes and syncs its bytes, since the editor may not have synced them."""
    with opened(disk.data) as seline:
        seline.data.save_json(A, value(A, "old"))
        disk.fail_writes()
        (disk.data / A).write_bytes((disk.data / A).read_bytes().replace(b"old", b"odd"))
        incident = "disk_error" if disk.code == "EIO" else "not_adopted"
        _wait_until(
            lambda: seline.data.load_json(A) == value(A, "odd") and _has_incident(seline, incident)
        )
        assert not _has_incident(seline, "adopted")
        disk.allow_writes()
        _wait_until(
            lambda: seline.data.load_json(A) == value(A, "odd") and _has_incident(seline, "adopted")
        )

    disk.remount()

    with opened(disk.data) as restarted:
        assert restarted.data.load_json(A) == value(A, "odd")
        assert restarted.verify().findings == ()


@pytest.mark.prove(share=2)
@pytest.mark.parametrize("code", REFUSALS)
def test_no_operation_on_a_failing_disk_breaks_a_guarantee(
    code: str, tmp_path: Path, share_s: float
) -> None:
    """Run every operation in turn, repeatedly until the time is over."""
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    broken: list[str] = []
    tried = 0
    for number, name in enumerate(itertools.cycle(_shuffled(ON_FAILING_DISK, seed=5))):
        if (tried and time.monotonic() > ends_at) or number == 4 * len(OPERATIONS):
            break
        directory = tmp_path / str(number)
        directory.mkdir()
        with failing_disk(directory, code) as disk:
            broken += _change_on_failing_disk(name, disk)
        tried += 1
    what = "bad blocks" if code == "EIO" else "a thin disk that is full"
    note(SUITE, what, tried=tried, failures=len(broken), where="ext4")
    assert tried > 0
    assert broken == []


def _prepare_volume(name: str, volume: Path) -> Expected:
    """Write the volume that an operation starts from; return what the operation changes."""
    tree, expected = _prepare_once(name)
    write(tree, volume)
    return expected


@cache
def _prepare_once(name: str) -> tuple[Tree, Expected]:
    with tempfile.TemporaryDirectory(prefix="seline-prepared-") as scratch:
        expected = expect(OPERATIONS[name], Path(scratch) / "expected")
        prepare(OPERATIONS[name], Path(scratch) / "volume")
        return tree_of(Path(scratch) / "volume"), expected


def _change_on_failing_disk(name: str, disk: FailingDisk) -> list[str]:
    """Run an operation while writes fail and a save afterwards; check a fresh mount."""
    expected = _prepare_volume(name, disk.data)
    with watch_syncs(disk.data) as syncs:
        with opened(disk.data) as seline:
            _wait_for_writer(seline)
            disk.fail_writes()
            outcome = _run_operation(expected, seline, disk)
            served = read_values(seline)
            syncs.release_files()
            disk.allow_writes()
            seline.data.save_json(NEXT, value(NEXT, 1))
        broken = [f"V3: {repeated} was synced again" for repeated in syncs.repeated]
        if name in WRITING and outcome == "acknowledged" and disk.code != "ENOSPC":
            broken.append("V3: acknowledged, although the disk took no bytes")
        if name in WRITING and not syncs.failed:
            broken.append("no sync failed on the failing disk")
    disk.remount()
    return broken + _check_after_mount(disk.data, expected, outcome, served)


def _check_after_mount(
    directory: Path, expected: Expected, outcome: Outcome, served: Values | None
) -> list[str]:
    """Return what is broken on the disk: what was served and acknowledged must be there."""
    broken = []
    with opened(directory) as restarted:
        values = read_values(restarted)
        if served is not None and values != served:
            broken.append(f"V3: {served} was served, but the disk holds {values}")
        if served is not None and restarted.data.load_json(NEXT) != value(NEXT, 1):
            broken.append("V3: the next save was acknowledged but is not there")
    return broken + judge(directory, expected, outcome)


def _run_operation(expected: Expected, seline: Seline, disk: FailingDisk) -> Outcome:
    """Run an operation on a failing disk; return its outcome.

    A full thin disk may accept it, after old backups were discarded.
    """
    try:
        expected.operation.act(seline, disk.data)
    except REFUSALS[disk.code]:
        return "refused"
    return "acknowledged"


def _wait_for_writer(seline: Seline) -> None:
    """Wait until the writer is idle: what it still does may free blocks that can be written."""
    store: Any = seline._awaited.store.opened
    store.writer.between(lambda: None).result()


def _save_together(seline: Seline, names: Sequence[str], number: Json) -> None:
    with seline.data.transaction(*names) as change:
        for name in names:
            change[name] = value(name, number)


def _repeat_failed_syncs(patch: pytest.MonkeyPatch) -> None:
    def repeat_sync(descriptor: int) -> None:
        try:
            real(descriptor)
        except OSError:
            real(descriptor)

    real = files.sync
    patch.setattr(files, "sync", repeat_sync)


# one sync fails at the system call


REFUSED: Final = "the change is refused, and the store accepts others"
FAILED: Final = "the change is refused, and so is every other until the reopening"
UNKNOWN: Final = "the outcome is unknown, and no change is accepted until the reopening"


@dataclass(frozen=True, kw_only=True)
class SyncCase:
    """Which sync of which operation fails, and with which effect."""

    operation: str
    pattern: str
    effect: str
    nth: int = 1
    label: str = ""

    def __str__(self) -> str:
        return f"{self.operation}: {self.label}"


def _cases() -> Iterator[SyncCase]:
    """Yield which syncs may fail in which operation; an operation with a record has more syncs."""
    for operation in WRITING:
        yield SyncCase(operation=operation, pattern=STAGED, effect=REFUSED, label="a staged file")
    for operation in ("save", "delete", "restore", "transaction", "blank save", "import"):
        yield SyncCase(operation=operation, pattern=BACKUPS, effect=FAILED, label="backups")
    for operation in ("first save", "save", "save without a backup", "edit", "delete", "purge",
                      "restore"):  # fmt: skip
        yield SyncCase(
            operation=operation, pattern=DOCUMENTS, effect=UNKNOWN, label="the documents"
        )
    for operation in ("transaction", "blank save", "import"):
        yield SyncCase(operation=operation, pattern=STAGING, effect=FAILED, label="staging")
        yield SyncCase(operation=operation, pattern=RECORD, effect=REFUSED, label="the record")
        yield SyncCase(
            operation=operation,
            pattern=RECORD_DIRECTORY,
            effect=UNKNOWN,
            label="the record's directory",
        )
        yield SyncCase(
            operation=operation, pattern=DOCUMENTS, effect=UNKNOWN, label="the documents"
        )


CASES: Final = tuple(_cases())


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.operation in ("save", "transaction", "delete")], ids=str
)
def test_a_failed_sync_has_the_effect_of_its_kind(
    case: SyncCase, tmp_path: Path, frozen_clock: FakeClock
) -> None:
    assert _fail_one_sync(case, tmp_path, frozen_clock) == []


@pytest.mark.prove
def test_no_failed_sync_of_any_operation_breaks_a_guarantee(
    tmp_path: Path, frozen_clock: FakeClock
) -> None:
    broken = [
        f"{case}: {failure}"
        for number, case in enumerate(CASES)
        for failure in _fail_one_sync(case, tmp_path / str(number), frozen_clock)
    ]
    note(
        SUITE, "each kind of sync of each operation", tried=len(CASES), failures=len(broken),
        where=kind_of(tmp_path),
    )  # fmt: skip
    assert broken == []


def _fail_one_sync(case: SyncCase, workspace: Path, frozen_clock: FakeClock) -> list[str]:
    """Make one sync fail; check before the reopening, after it, and after a restart."""
    volume = workspace / "volume"
    expected = _prepare_volume(case.operation, volume)
    with watch_syncs(volume) as syncs:
        with opened(volume) as seline:
            syncs.fail(case.pattern, nth=case.nth)
            outcome = _run_failing_operation(case, expected, seline, volume)
            assert len(syncs.failed) == 1, syncs.attempted
            broken = _check_before_reopening(case, seline, expected)
            frozen_clock.advance(REOPEN_EVERY_S + 1)
            seline.data.save_json(NEXT, value(NEXT, 1))
            broken += [f"V3: {name} is served but not durable" for name in _not_durable(syncs)]
            broken += [f"stray: {name}" for name in stray(volume)]
            served = read_values(seline)
        broken += [f"V3: {name} was synced again" for name in syncs.repeated]
    return broken + _check_after_mount(volume, expected, outcome, served)


def _not_durable(syncs: Syncs) -> list[str]:
    """Return the directories of documents that are still not durable.

    The next commit that needs one of the other directories syncs it.
    """
    return [name for name in syncs.unsynced if name in (".", ".seline")]


def _run_failing_operation(
    case: SyncCase, expected: Expected, seline: Seline, volume: Path
) -> Outcome:
    """Run the operation, check its error, and return its outcome."""
    with pytest.raises(VolumeFailed if case.effect != UNKNOWN else OutcomeUnknown) as caught:
        expected.operation.act(seline, volume)
    assert "EIO" in caught.value.message
    return "unknown" if case.effect == UNKNOWN else "refused"


def _check_before_reopening(case: SyncCase, seline: Seline, expected: Expected) -> list[str]:
    """Return what is broken before any time has passed."""
    checks = {check["name"]: check["status"] for check in seline.health()["checks"]}  # type: ignore[index,union-attr,call-overload]
    broken = []
    if case.effect == REFUSED:
        if checks["writing"] != "ok":
            broken.append("the store failed for one file")
        if read_values(seline) != expected.before:
            broken.append("the change was refused but something has changed")
        return broken
    if checks["writing"] != "critical":
        broken.append(f"health reports that writing is {checks['writing']}")
    if _is_accepted(lambda: seline.data.save_json("other.json", {})):
        broken.append("a write was accepted before the reopening")
    if seline.data.load_json(STILL) != value(STILL, 2):
        broken.append("another document is not served")
    for name in expected.operation.changes:
        served = _served(seline.data, name)
        if served not in ("not known", expected.before[name], expected.after[name]):
            broken.append(f"{name} has the value {served}")
        if case.effect == FAILED and served != expected.before[name]:
            broken.append(f"{name} was refused but has changed")
    return broken


def _is_accepted(change: Callable[[], object]) -> bool:
    try:
        change()
    except VolumeFailed:
        return False
    return True


def _served(data: DataManager, name: str) -> Json:
    """Return the value of a document, or "not known" while its last change is in doubt."""
    try:
        value = data.load_json(name, default=ABSENT)
    except VolumeFailed:
        return "not known"
    return None if value is ABSENT else value


# the reopening


def test_a_failed_reopening_is_repeated_only_after_its_interval(
    tmp_path: Path, frozen_clock: FakeClock
) -> None:
    volume = tmp_path / "volume"
    with watch_syncs(volume) as syncs, opened(volume) as seline:
        seline.data.save_json(A, value(A, 1))
        syncs.fail(DOCUMENTS, times=2)
        with pytest.raises(OutcomeUnknown):
            seline.data.save_json(A, value(A, 2))

        frozen_clock.advance(REOPEN_EVERY_S)
        assert not _is_accepted(lambda: seline.data.save_json(B, value(B, 1)))
        assert len(syncs.failed) == 2
        frozen_clock.advance(REOPEN_EVERY_S - 1)
        attempts = len(syncs.attempted)
        assert not _is_accepted(lambda: seline.data.save_json(B, value(B, 1)))
        assert len(syncs.attempted) == attempts
        frozen_clock.advance(2)
        seline.data.save_json(B, value(B, 2))

        assert seline.data.load_json(A) in (value(A, 1), value(A, 2))
        assert syncs.repeated == []
        assert syncs.unsynced == []


def test_the_volume_reopens_without_a_request(
    tmp_path: Path, frozen_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.storage.volume.batches.REOPEN_EVERY_S", 0.02)
    volume = tmp_path / "volume"
    with watch_syncs(volume) as syncs, opened(volume) as seline:
        seline.data.save_json(A, value(A, 1))
        syncs.fail(DOCUMENTS)
        with pytest.raises(OutcomeUnknown):
            seline.data.save_json(A, value(A, 2))

        time.sleep(4 * IDLE_AFTER_S)  # the first attempt was too early, so another must follow
        frozen_clock.advance(60)
        _wait_until(lambda: seline.health()["status"] != "critical")

        assert seline.data.load_json(A) in (value(A, 1), value(A, 2))


def test_content_in_doubt_is_not_served_before_it_is_durable(
    tmp_path: Path, frozen_clock: FakeClock
) -> None:
    """The reopening commits it again, and no reader sees it before the last sync."""
    volume = tmp_path / "volume"
    with watch_syncs(volume) as syncs, opened(volume) as seline:
        seline.data.save_json(A, value(A, 1))
        syncs.fail(DOCUMENTS)
        with pytest.raises(OutcomeUnknown):
            seline.data.save_json(A, value(A, 2))
        served: list[Json] = []
        syncs.refuse = lambda _: served.append(_served(seline.data, A)) is not None

        frozen_clock.advance(60)
        seline.data.save_json(A, value(A, 3))

        before_the_save = served[: -len(("the staged file", "backups", "the documents"))]
        assert len(before_the_save) > 5
        assert set(map(str, before_the_save)) == {"not known"}


def test_backups_are_listed_while_the_last_change_of_their_document_is_in_doubt(
    tmp_path: Path,
) -> None:
    """V7: the reason of each backup depends on the current content, which nothing knows then."""
    volume = tmp_path / "volume"
    with watch_syncs(volume) as syncs, opened(volume) as seline:
        for number in (1, 2):
            seline.data.save_json(A, value(A, number))
        syncs.fail(DOCUMENTS, times=2)
        with pytest.raises(OutcomeUnknown):
            seline.data.save_json(A, value(A, 3))
        with pytest.raises(VolumeFailed):
            seline.data.load_json(A)

        every, own = seline.all_backups(), seline.data.backups(A)
        values = [seline.data.read_backup(A, backup.name) for backup in own]

        assert value(A, 1) in values
        assert [backup.name for backup in every] == [backup.name for backup in own]
        assert all(backup.because for backup in [*every, *own])


def test_the_next_start_makes_durable_what_a_failed_sync_left_in_doubt(
    tmp_path: Path, frozen_clock: FakeClock
) -> None:
    """The next opening cannot learn of the failed sync, neither from Seline nor from the kernel."""
    volume = tmp_path / "volume"
    for pattern in (RECORD_DIRECTORY, DOCUMENTS):
        with watch_syncs(volume) as syncs:
            with opened(volume) as seline:
                _save_together(seline, [A, B], "old")
                syncs.fail(pattern)
                with pytest.raises(OutcomeUnknown):
                    _save_together(seline, [A, B], "new")
            with opened(volume) as restarted:
                assert restarted.data.load_json(A) == value(A, "new")
                assert restarted.data.load_json(B) == value(B, "new")
            assert syncs.repeated == []
            assert syncs.unsynced == []


def test_the_next_start_syncs_a_new_data_directory_whose_sync_failed(tmp_path: Path) -> None:
    volume = tmp_path / "volume" / "data"
    with watch_syncs(tmp_path) as syncs:
        syncs.fail("volume")
        with pytest.raises(VolumeFailed):
            opened(volume)
        with opened(volume) as seline:
            seline.data.save_json(A, value(A, 1))

    assert syncs.failed == ["volume"]
    assert syncs.unsynced == []
    assert syncs.repeated == []


@dataclass
class Synced:
    """Five files, and the descriptors that were synced; each sync needs another thread."""

    descriptors: list[int]
    calls: list[int] = field(default_factory=list[int])
    failures: dict[int, Exception] = field(default_factory=dict[int, Exception])

    def flush(self, descriptor: int) -> None:
        time.sleep(0.01)
        self.calls.append(descriptor)
        if failure := self.failures.get(self.descriptors.index(descriptor)):
            raise failure


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Synced]:
    with contextlib.ExitStack() as stack:
        paths = [tmp_path / str(number) for number in range(5)]
        opened = [stack.enter_context(path.open("w")) for path in paths]
        synced = Synced([file.fileno() for file in opened])
        monkeypatch.setattr(files, "flush", synced.flush)
        yield synced


@pytest.mark.parametrize("failing", [0, 2, 4])
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "it failed"), MemoryError("it failed")])
@pytest.mark.parametrize("threads", [0, 1, 3, 5])
def test_each_file_is_synced_once_where_threads_cannot_be_started(
    synced: Synced, monkeypatch: pytest.MonkeyPatch, threads: int, failing: int, failure: Exception
) -> None:
    """The caller syncs what no thread took; a second sync would hide the failure of the first."""
    refuse_threads(monkeypatch, "seline-sync", after=threads)
    synced.failures[failing] = failure

    with contextlib.closing(SyncThreads()) as syncing, pytest.raises(type(failure), match="failed"):
        syncing.sync_files(synced.descriptors)

    assert sorted(synced.calls) == sorted(synced.descriptors)


def test_nothing_is_synced_after_the_caller_was_interrupted(
    synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller closes its files then, and other files get their descriptors."""
    monkeypatch.setattr(sync_threads, "SYNC_THREADS", 2)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sync_threads, "wait", interrupted)
    with contextlib.closing(SyncThreads()) as syncing:
        with pytest.raises(KeyboardInterrupt):
            syncing.sync_files(synced.descriptors)
        at_once = len(synced.calls)
        time.sleep(0.05)

    assert len(synced.calls) == at_once < len(synced.descriptors)


def test_a_directory_is_synced_by_one_thread_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells one of two about a failure; the other one would forget it."""

    def flush(descriptor: int) -> None:
        both.append(descriptor)
        time.sleep(0.05)
        most.append(len(both))
        both.remove(descriptor)

    both, most = list[int](), list[int]()
    monkeypatch.setattr(files, "flush", flush)
    directory = os.open(tmp_path, os.O_RDONLY)
    with files.closing(directory):
        threads = [threading.Thread(target=files.sync, args=(directory,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert most == [1, 1]


def test_a_file_with_the_inode_of_a_removed_directory_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory's sync had failed; a new file is not one that must be changed first."""
    path = tmp_path / "file"
    path.touch()
    status = path.stat()
    monkeypatch.setattr(files, "_unproven", {(status.st_dev, status.st_ino)})
    with path.open() as file:
        files.sync(file.fileno())
        files.sync(file.fileno())


def test_one_failed_sync_in_a_batch_fails_no_change(
    tmp_path: Path, frozen_clock: FakeClock
) -> None:
    """V7: the changes are then tried one by one, each with a new inode."""
    volume = tmp_path / "volume"
    with watch_syncs(volume) as syncs, opened(volume) as seline:
        syncs.fail(STAGED, nth=2)
        futures = in_one_batch(
            seline, [lambda n=n: seline.data.save_json(f"d{n}.json", {"n": n}) for n in range(4)]
        )

        assert [future.exception() for future in futures] == [None] * 4
        assert [seline.data.load_json(f"d{n}.json") for n in range(4)] == [
            {"n": n} for n in range(4)
        ]
        assert len(syncs.failed) == 1
        assert syncs.repeated == []
        assert stray(volume) == []


def test_a_foreign_file_whose_sync_failed_is_copied_to_the_backups(
    tmp_path: Path, frozen_clock: FakeClock
) -> None:
    """V2: a file that was put there by hand is synced once before it becomes a backup."""
    volume = tmp_path / "volume"
    with watch_syncs(volume) as syncs, opened(volume) as seline:
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

        kept = [seline.data.read_backup(A, backup.name) for backup in seline.data.backups(A)]
        assert value(A, "old") in kept
        assert A in syncs.failed
        assert syncs.repeated == []


# a power cut after the reopening: what the reopening repaired must be on the disk


CUT_CASES: Final = (
    SyncCase(
        operation="transaction", pattern=RECORD_DIRECTORY, effect=UNKNOWN,
        label="the record's directory",
    ),
    SyncCase(
        operation="transaction", pattern=RECORD_DIRECTORY, nth=2, effect=UNKNOWN,
        label="the record's directory, after the record was removed",
    ),
    SyncCase(operation="transaction", pattern=DOCUMENTS, effect=UNKNOWN, label="the documents"),
    SyncCase(operation="transaction", pattern=STAGING, effect=FAILED, label="staging"),
    SyncCase(operation="transaction", pattern=BACKUPS, effect=FAILED, label="backups"),
    SyncCase(operation="save", pattern=DOCUMENTS, effect=UNKNOWN, label="the documents"),
    SyncCase(operation="save", pattern=BACKUPS, effect=FAILED, label="backups"),
    SyncCase(operation="delete", pattern=DOCUMENTS, effect=UNKNOWN, label="the documents"),
)  # fmt: skip
FEW: Final = Cutting(combinations_max=8, share=0.1)
SAMPLE: Final = 12


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "case",
    [case for case in CUT_CASES if case.pattern == RECORD_DIRECTORY or case.operation == "delete"],
    ids=str,
)
def test_some_power_cuts_after_a_failed_sync_and_the_reopening_lose_nothing(
    case: SyncCase, tmp_path: Path, frozen_clock: FakeClock
) -> None:
    states, allowed = _reopen_and_record_cuts(case, tmp_path, frozen_clock, FEW)

    broken = _check_cuts(_sample(states), allowed, tmp_path)

    assert broken == []


@pytest.mark.prove
@pytest.mark.parametrize("case", CUT_CASES, ids=str)
def test_no_power_cut_after_a_failed_sync_and_the_reopening_loses_anything(
    case: SyncCase, tmp_path: Path, frozen_clock: FakeClock, share_s: float
) -> None:
    ends_at = time.monotonic() + min(share_s, LIMIT_S)
    states, allowed = _reopen_and_record_cuts(case, tmp_path, frozen_clock, Cutting())
    broken: list[str] = []
    tried = 0
    for cut in _shuffled(states, seed=len(states)):
        if tried and time.monotonic() > ends_at:
            break
        broken += _check_cuts([cut], allowed, tmp_path)
        tried += 1
    note(
        SUITE, f"{case}, then the reopening, a save and a power cut", tried=tried,
        failures=len(broken), where=kind_of(tmp_path), possible=len(states),
    )  # fmt: skip
    assert broken == []


def test_a_save_of_the_current_bytes_after_a_kill_is_durable(
    tmp_path: Path, frozen_clock: FakeClock
) -> None:
    """V3: the name may be only in the kernel's memory, and such a save writes nothing."""
    volume = tmp_path / "volume"
    expected = _prepare_volume("save", volume)
    with recording(volume) as recorded, watch_syncs(volume) as syncs:
        with opened(volume) as killed:
            syncs.fail(DOCUMENTS)  # a refused call is not recorded
            with pytest.raises(OutcomeUnknown):
                expected.operation.act(killed, volume)
        with opened(volume) as seline:
            expected.operation.act(seline, volume)
            os.write(1, DONE.encode())
    allowed = Allowed(unacknowledged=[expected.before, expected.after], acknowledged=expected.after)

    broken = _check_cuts(_sample(cuts(recorded, FEW)), allowed, tmp_path)

    assert broken == []


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """The values that a power cut may leave, with the last save acknowledged or not."""

    unacknowledged: Sequence[Values]
    acknowledged: Values


def _reopen_and_record_cuts(
    case: SyncCase, workspace: Path, frozen_clock: FakeClock, cutting: Cutting
) -> tuple[list[Cut], Allowed]:
    """Make a sync fail, reopen, and save the previous value; return the states and their values."""
    volume = workspace / "volume"
    expected = _prepare_volume(case.operation, volume)
    with watch_syncs(volume) as syncs, recording(volume) as recorded, opened(volume) as seline:
        syncs.fail(case.pattern, nth=case.nth)
        _run_failing_operation(case, expected, seline, volume)
        frozen_clock.advance(REOPEN_EVERY_S + 1)
        seline.data.save_json(A, expected.before[A])
        served = read_values(seline)
        os.write(1, DONE.encode())
    reverted = {**expected.after, A: expected.before[A]}
    assert served in (expected.before, reverted)
    between = [expected.before, expected.after, served]
    return cuts(recorded, cutting), Allowed(unacknowledged=between, acknowledged=served)


def _sample(states: Sequence[Cut]) -> list[Cut]:
    """Return the same few states each time, most of them after the acknowledgement."""
    acknowledged = [cut for cut in states if cut.acknowledged]
    rest = [cut for cut in states if not cut.acknowledged]
    rng = random.Random(SAMPLE)
    return rng.sample(acknowledged, min(len(acknowledged), SAMPLE)) + rng.sample(rest, SAMPLE // 3)


def _check_cuts(states: Sequence[Cut], allowed: Allowed, workspace: Path) -> list[str]:
    broken = []
    for number, cut in enumerate(states):
        directory = workspace / f"cut-{number}-{time.monotonic_ns()}"
        write(cut.tree, directory)
        with opened(directory) as seline:
            served = read_values(seline)
            values = [allowed.acknowledged] if cut.acknowledged else allowed.unacknowledged
            if served not in values:
                broken.append(f"{cut}: {_summary(served)}")
            broken += [f"{cut}: V4: {finding}" for finding in seline.verify().findings]
    return broken


def _summary(served: Values) -> str:
    return ", ".join(
        f"{name} {content['n'] if isinstance(content, dict) else content}"
        for name, content in served.items()
    )


def _shuffled(items: Any, *, seed: int) -> list[Any]:
    print(f"seed {seed}")
    return random.Random(seed).sample(list(items), len(items))


def _wait_until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    ends_at = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < ends_at, "the condition did not become true"
        time.sleep(0.01)


def _has_incident(seline: Seline, kind: str) -> bool:
    return kind in [incident.kind for incident in seline._awaited.store.incidents()]
