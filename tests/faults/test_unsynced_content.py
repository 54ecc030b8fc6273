"""V3: content counts as durable only after a sync, also when another program wrote the file.

A file that another program wrote may exist only in memory. Seline syncs it before it counts as
current or becomes a backup. If that sync fails, Seline writes a new file: a second sync of the same
file would succeed although the bytes are lost. Where a kind of sync does nothing, another is used.
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.backup import Backup
from seline.domain.checksum import ATTRIBUTE
from seline.domain.document import BOT, DocumentKey, Revision
from seline.domain.retention import RetentionPlan, keep_all
from seline.errors import OutcomeUnknown, VolumeFailed
from seline.storage.volume import capabilities, files, mounts
from tests.clocks import FakeClock
from tests.faults.injection import (
    REOPENED_AFTER_S,
    A,
    B,
    backup_values,
    inode,
    record_syncs,
    store_of,
)

pytestmark = pytest.mark.usefixtures("files_at_once")


def test_a_foreign_file_is_synced_before_a_save_of_the_same_value_returns(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = replace_by_copy_of_backup(seline, directory)
    synced = record_syncs(monkeypatch)

    seline.data.save_json(A, {"n": 1})
    assert {foreign, inode(directory)} <= set(synced)

    synced.clear()
    seline.data.save_json(A, {"n": 1})
    assert synced == []


def test_a_foreign_file_is_synced_before_it_becomes_a_backup(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = replace_by_copy_of_backup(seline, directory)
    synced = record_syncs(monkeypatch)

    seline.data.save_json(A, {"n": 3})

    assert foreign in synced
    assert foreign in [inode(path) for path in (directory / "backups").iterdir()]


def test_a_foreign_file_that_cannot_be_synced_is_copied_to_the_backups(
    seline: Seline, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = replace_by_copy_of_backup(seline, directory)
    record_syncs(monkeypatch, failing=foreign)

    seline.data.save_json(A, {"n": 3})

    assert backup_values(seline) == [{"n": 1}]
    assert foreign not in [inode(path) for path in (directory / "backups").iterdir()]


def test_the_reopening_rewrites_a_foreign_file_that_could_not_be_synced(
    seline: Seline, directory: Path, frozen_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second sync of the same file would succeed although the bytes are lost."""
    foreign = replace_by_copy_of_backup(seline, directory)
    synced = record_syncs(monkeypatch, failing=foreign)
    with (directory / A).open():  # no other file gets its inode
        with pytest.raises(VolumeFailed):
            seline.data.save_json(A, {"n": 1})

        frozen_clock.advance(REOPENED_AFTER_S)
        seline.data.save_json(A, {"n": 1})

    assert synced.count(foreign) == 1
    assert inode(directory / A) != foreign


def test_rotation_is_refused_while_the_current_content_may_not_be_durable(
    seline: Seline, directory: Path, frozen_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the disk may hold nothing of the document's own content."""
    foreign = replace_by_copy_of_backup(seline, directory)
    record_syncs(monkeypatch, failing=foreign)
    with pytest.raises(VolumeFailed):
        seline.data.save_json(A, {"n": 1})

    with pytest.raises(VolumeFailed):
        store_of(seline).rotate(DocumentKey(BOT, A), drop_all).result(10)
    frozen_clock.advance(REOPENED_AFTER_S)

    assert store_of(seline).rotate(DocumentKey(BOT, A), keep_them).result(10) == ()


def drop_all(backups: Sequence[Backup], _current: Revision | None) -> RetentionPlan:
    return RetentionPlan((), tuple(backups))


def keep_them(backups: Sequence[Backup], _current: Revision | None) -> RetentionPlan:
    return keep_all(backups, "a test")


@pytest.mark.usefixtures("first_form")
def test_content_that_may_not_be_durable_is_neither_exported_nor_served_raw(
    seline: Seline, directory: Path, frozen_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next step after an error of the disk is an export, which lacks only what is in doubt."""
    for name in (A, B):
        seline.data.save_json(name, {"n": 1})
    with monkeypatch.context() as patch:
        record_syncs(patch, failing=inode(directory))
        with pytest.raises(OutcomeUnknown):
            seline.data.save_json(A, {"n": 2})
        with pytest.raises(VolumeFailed):
            seline.raw(A)
        export = seline.data.export_all_data()
    assert (export["files"], export["unrecoverable"]) == ({B: {"n": 1}}, [A])

    frozen_clock.advance(REOPENED_AFTER_S)
    seline.data.save_json(B, {"n": 2})

    assert seline.data.export_all_data()["files"][A] == seline.data.load_json(A)  # type: ignore[index,call-overload]


def test_a_volume_without_directory_sync_opens_and_names_the_missing_capability(
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
        missing = [
            capability.name
            for capability in store_of(seline).medium.capabilities()
            if not capability.present
        ]

    assert "directory sync" in missing


@pytest.mark.parametrize(
    ("release", "used"), [("4.4.0", False), ("5.7.19-x", False), ("5.8.0", True), ("6.1", True)]
)
def test_syncfs_is_used_from_linux_5_8_on(
    release: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.uname()
    monkeypatch.setattr(
        os, "uname", lambda: os.uname_result((real[0], real[1], release, real[3], real[4]))
    )

    assert files.syncs_filesystems() is used


@pytest.mark.parametrize(
    ("point", "kind", "whole"),
    [
        ("/data", "ext4", True),
        ("/data", "nfs4", True),
        ("/data", "fuse.shfs", False),
        ("/data", "9p", False),
        ("/", "ext4", False),
    ],
)
def test_a_whole_file_system_is_synced_where_that_reaches_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, kind: str, whole: bool
) -> None:
    mount = mounts.Mount(point=point, kind=kind, device="/dev/sdx")
    monkeypatch.setattr(capabilities, "mount_of", lambda _: mount)
    with open_seline(tmp_path / "data") as seline:
        syncer = store_of(seline).batches.committer.first.syncer  # type: ignore[attr-defined]

        assert syncer.capabilities.syncs_whole is whole


def replace_by_copy_of_backup(seline: Seline, directory: Path) -> int:
    """Replace a document by a copy of its backup, as `cp -a` and `mv` do; return the new inode."""
    for number in (1, 2):
        seline.data.save_json(A, {"n": number})
    [backup] = seline.data.backups(A)
    source, copy = directory / "backups" / backup.name, directory / "copy"
    copy.write_bytes(source.read_bytes())
    os.setxattr(copy, ATTRIBUTE, os.getxattr(source, ATTRIBUTE))
    os.utime(copy, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    copy.rename(directory / A)
    return inode(directory / A)
