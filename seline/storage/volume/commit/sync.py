"""Sync what a commit wrote and what it found, and know what is durable already.

V3  What a change rests on, or a backup is linked from, was written or synced by this process.
After a failed sync of a file no other one of it is believed: it would say nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from seline.domain.document import DocumentKey
from seline.storage.planner import Found
from seline.storage.volume import files
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.os_errors import DirectoryFailed

SYNC_THREADS: Final = 16


@dataclass(slots=True)
class Syncer:
    """Syncs files and directories of one volume, and knows which documents are durable."""

    volume: VolumeDirectory
    _known: dict[DocumentKey, FileIdentity] = field(default_factory=dict[DocumentKey, FileIdentity])
    _refused: dict[tuple[int, int], OSError] = field(default_factory=dict[tuple[int, int], OSError])
    _pool: ThreadPoolExecutor | None = None

    def remember(self, key: DocumentKey, identity: FileIdentity) -> None:
        """Note that this file of a document is durable."""
        self._known[key] = identity

    def forget(self, key: DocumentKey) -> None:
        """Note that a document is gone."""
        self._known.pop(key, None)

    def make_durable(self, found: Sequence[Found]) -> None:
        """Make durable what lies there and is not known to be so, with its name.

        Raises DirectoryFailed.
        """
        strange = [one for one in found if not self._is_known(one)]
        try:
            for one in strange:
                self.make_file_durable(one)
        except OSError as error:
            raise DirectoryFailed(error, "Syncing what lies there") from error
        spaces = {one.key.space for one in strange}
        self.sync_directories(map(self.volume.documents, spaces), "Syncing the documents")
        for one in strange:
            if isinstance(one.token, FileIdentity):
                self.remember(one.key, one.token)

    def make_file_durable(self, found: Found) -> None:
        """Sync a file as it lies there, unless that is needless; once, whatever came of it."""
        if self._is_known(found) or not isinstance(found.token, FileIdentity):
            return
        file = found.token.inode, found.token.mtime_ns
        if (refusal := self._refused.get(file)) is not None:
            raise refusal
        with contextlib.suppress(FileNotFoundError):  # it was there a moment ago
            descriptor = files.open_to_read(self.volume.documents(found.key.space), found.key.name)
            try:
                files.sync(descriptor)
            except OSError as error:
                self._refused[file] = error
                raise
            finally:
                os.close(descriptor)

    def _is_known(self, found: Found) -> bool:
        """Whether this process wrote the file, or has synced it: `cp -a` and `mv` do not."""
        return self._known.get(found.key) == found.token

    def sync_files(self, descriptors: Sequence[int]) -> None:
        """Sync files together: where there are several, the file system merges its commits."""
        if len(descriptors) < 2:
            for descriptor in descriptors:
                files.sync(descriptor)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="seline-sync")
        try:
            pending = [self._pool.submit(files.sync, descriptor) for descriptor in descriptors]
        except RuntimeError:  # the interpreter is going down and takes no work any more
            pending = []
            for descriptor in descriptors:
                files.sync(descriptor)
        failures = [error for future in pending if (error := future.exception()) is not None]
        if failures:
            raise failures[0]

    def sync_directories(self, directories: Iterable[int], doing: str) -> None:
        """Sync directories, of which nothing is visible yet. Raises DirectoryFailed."""
        for directory in directories:
            try:
                files.sync(directory)
            except OSError as error:
                raise DirectoryFailed(error, doing) from error

    def close(self) -> None:
        """End the threads that sync; idempotent. No commit runs any more."""
        if self._pool is not None:
            self._pool.shutdown()
