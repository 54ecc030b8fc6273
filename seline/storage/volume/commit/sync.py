"""Sync what a commit wrote or relies on, and remember what is durable.

V3  A file that a change relies on, or a backup is linked to, was written or synced by this process.
After a failed sync of a file another one proves nothing, so it is not repeated.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from seline.domain.document import DocumentKey
from seline.storage.planner import Found
from seline.storage.volume import files
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit.sync_threads import SyncThreads
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.os_errors import DirectoryFailed, raising

SYNCFS_FILES_MIN: Final = 6
"""From this many new files on, one sync of the whole file system is faster."""


@dataclass(slots=True)
class Syncer:
    """Syncs files and directories of one volume, and knows which documents are durable."""

    volume: VolumeDirectory
    capabilities: Capabilities
    _known: dict[DocumentKey, FileIdentity] = field(default_factory=dict[DocumentKey, FileIdentity])
    _refused: dict[tuple[int, int], OSError] = field(default_factory=dict[tuple[int, int], OSError])
    _threads: SyncThreads = field(default_factory=SyncThreads)

    def remember(self, key: DocumentKey, identity: FileIdentity) -> None:
        """Note that this file of a document is durable."""
        self._known[key] = identity

    def forget(self, key: DocumentKey) -> None:
        """Note that a document is gone."""
        self._known.pop(key, None)

    def make_durable(self, found: Sequence[Found]) -> None:
        """Sync the documents that are not known to be durable, and their names.

        Raises DirectoryFailed.
        """
        unknown = [document for document in found if not self.is_known(document)]
        if not unknown:
            return
        with raising(DirectoryFailed, "Syncing the document"):
            for document in unknown:
                self.make_file_durable(document)
        spaces = {document.key.space for document in unknown}
        self.sync_directories(map(self.volume.documents, spaces), "Syncing the documents")
        for document in unknown:
            if isinstance(document.token, FileIdentity):
                self.remember(document.key, document.token)

    def make_file_durable(self, found: Found) -> None:
        """Sync a document's file if it is not known to be durable. A failure is not retried."""
        if self.is_known(found) or not isinstance(found.token, FileIdentity):
            return
        file = found.token.inode, found.token.mtime_ns
        if (refusal := self._refused.get(file)) is not None:
            raise refusal
        with contextlib.suppress(FileNotFoundError):  # it was just deleted
            directory = self.volume.documents(found.key.space)
            with files.closing(files.open_to_read(directory, found.key.name)) as descriptor:
                try:
                    files.sync(descriptor)
                except OSError as error:
                    self._refused[file] = error
                    raise

    def is_known(self, found: Found) -> bool:
        """Whether this process wrote or synced the file; another program's copy is not synced."""
        return self._known.get(found.key) == found.token

    def sync_written(self, descriptors: Sequence[int]) -> bool:
        """Sync new files; return whether the whole file system was synced, names included.

        That is faster for many files, where the file system is the volume's own. Raises OSError.
        """
        is_many = len(descriptors) >= SYNCFS_FILES_MIN
        if is_many and self.capabilities.syncs_whole and files.syncs_filesystems():
            files.sync_filesystem(self.volume.top)
            return True
        self._threads.sync_files(descriptors)
        return False

    def sync_directories(self, directories: Iterable[int], doing: str) -> None:
        """Sync directories before anything in them is visible. Raises DirectoryFailed."""
        with raising(DirectoryFailed, doing):
            for directory in directories:
                files.sync(directory)

    def close(self) -> None:
        """End the threads. Idempotent; no commit may follow."""
        self._threads.close()
