"""Remove backups: retention, shedding, purges and the quarantine's bounds all go through here.

V8  The newest sound backup of a document is never removed, and it is read and verified before
    another one is; after a failed listing none is. Two exceptions: a purge, and the backups of
    documents deleted long ago (an `unguarded` plan).
"""

import os
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from seline.cures import not_regular
from seline.domain.backup import Backup
from seline.domain.document import DocumentKey
from seline.domain.retention import plan_without, verified_plan
from seline.domain.verdict import Verdict
from seline.errors import StorageError, VolumeFailed
from seline.ports.store import Retain
from seline.storage.volume import files
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.quarantine import aside_document, list_quarantine

QUARANTINE_ITEMS_MAX: Final = 100
QUARANTINE_BYTES_MAX: Final = 32 << 20


@dataclass(slots=True)
class Rotation:
    """Discards backups and bounds the quarantine. Only the writer's thread comes here.

    `freed` is called with the size of each backup that was removed, `forget` with each document
    that is purged.
    """

    volume: VolumeDirectory
    current_documents: CurrentDocuments
    freed: Callable[[int], None]
    forget: Callable[[DocumentKey], None]

    def rotate(
        self, key: DocumentKey, retain: Retain, *, just_made: Iterable[str] = ()
    ) -> Sequence[Backup]:
        """Discard the backups that `retain` drops; return them with their reasons.

        `just_made` names backups that this commit made of judged bytes, which are not read again.
        Raises StorageError if the directory cannot be listed, and then nothing was discarded;
        OSError if a backup cannot be unlinked, and then some may have been.
        """
        with self.current_documents.backup_index(key.space) as backup_index:
            plan = verified_plan(
                backup_index.of(key.name),
                retain,
                verdict_of=partial(self._verdict_of, key, frozenset(just_made)),
                current_revision=self.current_documents.current_revision(key),
            )
            for dropped in plan.drop:
                self._unlink(key, dropped)
            return plan.drop

    def discard(self, key: DocumentKey, unwanted: Backup) -> bool:
        """Discard one backup to free space, unless it is the newest sound one."""
        return bool(self.rotate(key, partial(plan_without, unwanted)))

    def purge(self, key: DocumentKey) -> None:
        """Erase all backups and quarantined files of a document, and what snapshots keep, durably.

        An error does not stop the others. Raises one at the end: StorageError after every OSError.
        """
        failed: list[OSError | StorageError] = []
        with self.current_documents.backup_index(key.space) as backup_index:
            for backup in backup_index.of(key.name):
                with _noting(failed):
                    self._unlink(key, backup)
        for item in list_quarantine(self.volume):
            if item.document == aside_document(key):
                with _noting(failed):
                    self._erase(self.volume.quarantine, f"quarantine/{item.name}")
        with _noting(failed):
            self.forget(key)
        for directory in (self.volume.backups(key.space), self.volume.quarantine):
            with _noting(failed):
                files.sync(directory)
        for error in sorted(failed, key=lambda error: isinstance(error, StorageError)):
            raise error

    def newest_aside(self, key: DocumentKey) -> str:
        """Return the name of a document's newest file in quarantine, "" if it has none."""
        document = aside_document(key)
        items = list_quarantine(self.volume)
        return next((item.name for item in items if item.document == document), "")

    def bound_quarantine(self) -> None:
        """Remove the oldest quarantined files beyond the limits, but never a document's newest."""
        items = list_quarantine(self.volume)
        newest_of = {item.document: item.name for item in reversed(items)}
        size_bytes = 0
        for count, item in enumerate(items, start=1):
            size_bytes += item.size_bytes
            over = count > QUARANTINE_ITEMS_MAX or size_bytes > QUARANTINE_BYTES_MAX
            if over and newest_of[item.document] != item.name:
                with suppress(IsADirectoryError):
                    files.unlink(self.volume.quarantine, item.name, missing_ok=True)

    def _erase(self, directory: int, path: str) -> None:
        """Erase a file of this path; VolumeFailed names a directory, which stays."""
        try:
            files.unlink(directory, os.path.basename(path), missing_ok=True)
        except IsADirectoryError as error:
            raise VolumeFailed(
                f"{path} is a directory that Seline did not make and does not erase",
                hint=not_regular(f"{self.volume.path}/{path}").hint,
                disk_failed=False,
            ) from error

    def _verdict_of(self, key: DocumentKey, just_made: Collection[str], backup: Backup) -> str:
        if backup.name in just_made:
            return str(Verdict.SOUND)
        return str(self.current_documents.inspector.look_at_backup(key, backup.name).judged.verdict)

    def _unlink(self, key: DocumentKey, backup: Backup) -> None:
        documents = os.path.dirname(self.volume.path_of_document(key))
        path = os.path.relpath(f"{documents}/backups/{backup.name}", self.volume.path)
        self._erase(self.volume.backups(key.space), path)
        self.current_documents.backup_index(key.space).removed(backup)
        self.freed(backup.size_bytes)


@contextmanager
def _noting(failed: list[OSError | StorageError]) -> Generator[None]:
    """Collect an error of the disk, to be raised later."""
    try:
        yield
    except (OSError, StorageError) as error:
        failed.append(error)
