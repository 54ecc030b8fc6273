"""Variants of the commit on other file systems, and builds that are wrong on purpose."""

import errno
import os
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, TypeAlias

import pytest

from seline.domain.document import DocumentKey
from seline.storage import planner
from seline.storage.volume import backup_index, batches, files, reopen
from seline.storage.volume.commit import base, exchange_form, record, replay
from seline.storage.volume.commit.replay import Replay
from seline.storage.volume.directory import VolumeDirectory
from tests.faults.powercut.scenarios import as_a_whole
from tests.proof.operations import A

Plant: TypeAlias = Callable[[pytest.MonkeyPatch], None]
AS_IT_IS: Final = "as it is"


def _refused(*_: object) -> NoReturn:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _unknown(*_: object) -> NoReturn:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _nothing(*_args: object, **_kwargs: object) -> None:
    return


def _without_exchange(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "exchange", _unknown)
    patch.setattr(files, "rename_new", _unknown)


WAYS: Final[Mapping[str, Plant]] = {
    "links refused": lambda patch: patch.setattr(files, "link", _refused),
    "no exchange of names": lambda patch: _without_exchange(patch),
    "synced as a whole": as_a_whole,
}
"""How the commit works on other file systems, or for more documents."""


def _sync_again(patch: pytest.MonkeyPatch) -> None:
    def sync(descriptor: int) -> None:
        try:
            real(descriptor)
        except OSError:
            real(descriptor)

    real = files.sync
    patch.setattr(files, "sync", sync)


def _hide_incomplete_purges(patch: pytest.MonkeyPatch) -> None:
    def erase(self: batches.Batches, key: DocumentKey, _committed: base.Committed) -> None:
        self._quietly(lambda: self.rotation.purge(key))

    patch.setattr(batches.Batches, "_erase", erase)


def _trust_a_stale_index(patch: pytest.MonkeyPatch) -> None:
    def end(self: backup_index.BackupIndex, **_: object) -> None:
        self._changed = True
        real(self)

    real = backup_index.BackupIndex.end
    patch.setattr(backup_index.BackupIndex, "end", end)


def _notify_no_watcher_after_reopening(patch: pytest.MonkeyPatch) -> None:
    def reopen_unwatched(self: reopen.Reopener) -> None:
        with pytest.MonkeyPatch.context() as unwatched:
            unwatched.setattr(self.events, "changed", _nothing)
            real(self)

    real = reopen.Reopener._reopen
    patch.setattr(reopen.Reopener, "_reopen", reopen_unwatched)


def _discard_the_record(patch: pytest.MonkeyPatch) -> None:
    def forget(self: Replay, _now: object, **_: object) -> frozenset[DocumentKey]:
        files.unlink(self.volume.seline, record.RECORD_NAME, missing_ok=True)
        return frozenset()

    patch.setattr(replay.Replay, "_roll_forward", forget)


def _rename_to_the_backup(patch: pytest.MonkeyPatch) -> None:
    """Rename the document to its backup: for a moment there is no document."""

    def move(source: int, name: str, target: int, new_name: str) -> None:
        if name == A:
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        else:
            real(source, name, target, new_name)

    real = files.link
    patch.setattr(files, "link", move)


WRONG_WHEN_A_CALL_FAILS: Final[Mapping[str, tuple[str, Plant]]] = {
    "nothing is undone": (
        "save",
        lambda patch: patch.setattr(exchange_form.ExchangeCommitter, "_undo", _nothing),
    ),
    "a failed sync is repeated": ("save", _sync_again),
    "errors of the disk are not named": (
        "save",
        lambda patch: patch.setattr(VolumeDirectory, "named", lambda _, error, *_doing: error),
    ),
    "a purge does not report what is left": ("purge", _hide_incomplete_purges),
    "backups of a failed commit are not listed": ("transaction", _trust_a_stale_index),
    "a hand edit is not guarded": (
        "adoption of an emptied document",
        lambda patch: patch.setattr(planner, "_guard", lambda *_: ()),
    ),
    "a pin whose outcome was unknown is ignored": (
        "blank save",
        _notify_no_watcher_after_reopening,
    ),
}
"""Each with the operation that shows it."""
WRONG_WHEN_KILLED: Final[Mapping[str, tuple[str, Plant]]] = {
    "staging is not swept at start": (
        "save",
        lambda patch: patch.setattr(replay.Replay, "_sweep_staging", _nothing),
    ),
    "a transaction's record is thrown away": ("transaction", _discard_the_record),
    "the backup is moved, not linked": ("save", _rename_to_the_backup),
}
BUILDS: Final[Mapping[str, Plant]] = {
    AS_IT_IS: _nothing,
    **WAYS,
    **{name: plant for name, (_, plant) in WRONG_WHEN_A_CALL_FAILS.items()},
    **{name: plant for name, (_, plant) in WRONG_WHEN_KILLED.items()},
}
