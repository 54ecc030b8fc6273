"""Nothing is taken for durable that was not synced (V3), least of all what somebody else wrote.

A file that a person put there may be only in memory: it is synced before it is taken for current
or becomes a backup; what cannot be synced is written anew, for a second sync would say that all is
well. Where a kind of sync means nothing, another one is relied on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.backup import Backup
from seline.domain.document import BOT, DocumentKey, Revision
from seline.domain.integrity import ATTRIBUTE
from seline.domain.retention import Dropped, Kept, RetentionPlan
from seline.errors import OutcomeUnknown, VolumeFailed
from seline.storage.volume import files
from tests.clocks import FakeClock
from tests.faults.injection import REOPENED_AFTER_S, A, B, in_backups, inode, store_of, watch_syncs


def test_what_the_process_did_not_write_is_synced_before_it_is_taken_for_current(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = copied_back(opened, directory)
    synced = watch_syncs(monkeypatch)

    opened.data.save_json(A, {"n": 1})
    assert {foreign, inode(directory)} <= set(synced)

    synced.clear()
    opened.data.save_json(A, {"n": 1})
    assert synced == []


def test_what_the_process_did_not_write_is_synced_before_it_becomes_a_backup(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = copied_back(opened, directory)
    synced = watch_syncs(monkeypatch)

    opened.data.save_json(A, {"n": 3})

    assert foreign in synced
    assert foreign in [inode(path) for path in (directory / "backups").iterdir()]


def test_what_cannot_be_synced_is_copied_to_become_a_backup(
    opened: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = copied_back(opened, directory)
    watch_syncs(monkeypatch, failing=foreign)

    opened.data.save_json(A, {"n": 3})

    assert in_backups(opened) == [{"n": 1}]
    assert foreign not in [inode(path) for path in (directory / "backups").iterdir()]


def test_what_cannot_be_synced_is_written_anew_at_the_reopening(
    opened: Seline, directory: Path, still: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second sync of the same file would say that all is well."""
    foreign = copied_back(opened, directory)
    synced = watch_syncs(monkeypatch, failing=foreign)
    with pytest.raises(VolumeFailed):
        opened.data.save_json(A, {"n": 1})

    still.advance(REOPENED_AFTER_S)
    opened.data.save_json(A, {"n": 1})

    assert synced.count(foreign) == 1
    assert inode(directory / A) != foreign


def test_no_backup_goes_for_what_may_not_be_durable(
    opened: Seline, directory: Path, still: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document's own content, say, of which the disk may have kept nothing."""
    foreign = copied_back(opened, directory)
    watch_syncs(monkeypatch, failing=foreign)
    with pytest.raises(VolumeFailed):
        opened.data.save_json(A, {"n": 1})

    with pytest.raises(VolumeFailed):
        store_of(opened).rotate(DocumentKey(BOT, A), everything_goes).result(10)
    still.advance(REOPENED_AFTER_S)

    assert store_of(opened).rotate(DocumentKey(BOT, A), nothing_goes).result(10) == []


def everything_goes(backups: Sequence[Backup], _current: Revision | None) -> RetentionPlan:
    return RetentionPlan((), tuple(Dropped(one, "a test") for one in backups))


def nothing_goes(backups: Sequence[Backup], _current: Revision | None) -> RetentionPlan:
    return RetentionPlan(tuple(Kept(one, "a test") for one in backups), ())


def test_what_may_not_be_durable_is_neither_exported_nor_given_raw(
    opened: Seline, directory: Path, still: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.data.save_json(A, {"n": 1})
    with monkeypatch.context() as patch:
        watch_syncs(patch, failing=inode(directory))
        with pytest.raises(OutcomeUnknown):
            opened.data.save_json(A, {"n": 2})
        for ask in (lambda: opened.data.raw(A), opened.data.export_all_data):
            with pytest.raises(VolumeFailed):
                ask()

    still.advance(REOPENED_AFTER_S)
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

    assert files.syncs_filesystems() is relied_on


def copied_back(seline: Seline, directory: Path) -> int:
    """Put the backup of a document in its place, as `cp -a` and `mv` do; return its inode."""
    for number in (1, 2):
        seline.data.save_json(A, {"n": number})
    [backup] = seline.data.backups(A)
    source, copy = directory / "backups" / backup.name, directory / "copy"
    copy.write_bytes(source.read_bytes())
    os.setxattr(copy, ATTRIBUTE, os.getxattr(source, ATTRIBUTE))
    os.utime(copy, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    copy.rename(directory / A)
    return inode(directory / A)
