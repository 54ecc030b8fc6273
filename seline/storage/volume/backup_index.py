"""Index the backups of each space by the names in its backups/ directory.

Sizes and checksums are read when a document's backups are first listed. A change made by hand moves
the directory's mtime, which causes a new listing. If listing fails, StorageError is raised: half a
list would make backups look deleted (V8).

A file is Seline's if its name and its checksum attribute show it (`is_own_backup`). A volume
without attributes cannot show that, so there a file is Seline's unless it was there before Seline.
"""

import os
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Final, Self

from msgspec.structs import replace

from seline.domain.backup import (
    Backup,
    backup_name,
    is_given_name,
    is_own_backup,
    next_stamp,
    parse_backup_name,
)
from seline.domain.checksum import decode_checksum
from seline.domain.document import Content
from seline.domain.verdict import Verdict
from seline.errors import StorageError, UnsupportedFormat
from seline.pacing import DOCUMENTS, paced
from seline.storage.volume import files
from seline.storage.volume.os_errors import raising

_NOT_LISTED: Final = (-1, -1)


class BackupIndex:
    """The backups of `space`. Any thread may call it; it writes nothing.

    `directory` returns the descriptor of backups/, or raises FileNotFoundError if there is none.
    `named` turns its errors into Seline's; `earlier` are the names from before Seline
    on a volume without attributes, None on any other.
    """

    def __init__(
        self,
        space: str,
        directory: Callable[[], int],
        named: Callable[[OSError, str], StorageError],
        *,
        earlier: Collection[str] | None = None,
    ) -> None:
        self._space = space
        self._directory = directory
        self._named = named
        self._earlier = earlier
        self._lock = threading.RLock()
        self._listed_at = _NOT_LISTED
        self._by_document: dict[str, dict[str, Backup]] = {}
        self._known: set[str] = set()
        self._others: list[str] = []
        self._writing = 0
        self._changed = False

    def of(self, document: str) -> list[Backup]:
        """Return a document's backups, newest first, with size and recorded revision.

        Those that are not Seline's come last: a date in such a name says nothing about the others.
        """
        with self._lock:
            self._refresh()
            self._learn(document)
            backups = self._by_document.get(document, {})
            return sorted(backups.values(), key=lambda b: (b.ours, b.stamp), reverse=True)

    def counts(self) -> dict[str, int]:
        """Return the number of backups of each document, deleted documents included."""
        with self._lock:
            self._refresh()
            return {document: len(found) for document, found in self._by_document.items() if found}

    def not_ours(self, document: str) -> int:
        """Return how many files with names of a document's backups Seline did not write."""
        return sum(not backup.ours for backup in self.of(document))

    def foreign_count(self) -> int:
        """Return how many files with a backup's name Seline did not write."""
        with self._lock:
            self._refresh()
            unknown = self._by_document.keys() - self._known
        for document in paced(unknown, every=DOCUMENTS):
            with self._lock:  # not for all of them: a change may wait for it
                self._learn(document)
        with self._lock:
            found = chain.from_iterable(map(dict.values, self._by_document.values()))
            return sum(not backup.ours for backup in found)

    def others(self) -> Sequence[str]:
        """Return the names in the directory that no backup has, sorted."""
        with self._lock:
            self._refresh()
            return self._others

    def next_backup(
        self, document: str, content: Content, now: datetime, after: Sequence[Backup] = ()
    ) -> Backup:
        """Return the backup that a content becomes: later than Seline's others, and `after`."""
        with self._lock:
            self._refresh()
            self._learn(document)
            known = self._by_document.get(document, {})
            own = [backup.stamp for backup in (*known.values(), *after) if backup.ours]
            stamp = next_stamp(max(own, default=None), now)
            while (name := backup_name(document, stamp)) in known:
                stamp = stamp._replace(counter=stamp.counter + 1)
        return Backup(
            name=name,
            document=document,
            stamp=stamp,
            size_bytes=content.size_bytes,
            revision=content.revision,
            verdict=Verdict.SOUND,
        )

    def added(self, backup: Backup) -> None:
        """Add a backup that a commit made."""
        with self._lock:
            self._changed = True
            self._by_document.setdefault(backup.document, {})[backup.name] = backup
            if len(self._by_document[backup.document]) == 1:
                self._known.add(backup.document)

    def removed(self, backup: Backup) -> None:
        """Remove a backup that was unlinked."""
        with self._lock:
            self._changed = True
            self._by_document.get(backup.document, {}).pop(backup.name, None)

    def __enter__(self) -> Self:
        """Begin the writer's work."""
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the writer's work."""
        self.end(failed=kind is not None)

    def begin(self) -> None:
        """Begin the writer's work: only `added` and `removed` change the index. Re-entrant."""
        with self._lock:
            if not self._writing:
                self._refresh()
                self._changed = False
            self._writing += 1

    def end(self, *, failed: bool = False) -> None:
        """End the writer's work. After an error the directory is listed again."""
        with self._lock:
            self._writing -= 1
            if self._writing or not (self._changed or failed):
                return
            self._listed_at = _NOT_LISTED
            if not failed:
                with suppress(StorageError):  # what was written is durable: list it again
                    self._listed_at = self._stamp_of_directory()

    def _stamp_of_directory(self) -> tuple[int, int]:
        try:
            directory = self._directory()
        except FileNotFoundError:
            return _NOT_LISTED
        with raising(self._named, "Listing the backups"):
            status = os.fstat(directory)
        return status.st_ino, status.st_mtime_ns

    def _refresh(self) -> None:
        if self._writing:
            return
        stamp = self._stamp_of_directory()
        if stamp == self._listed_at:
            return
        found: dict[str, dict[str, Backup]] = {}
        with raising(self._named, "Listing the backups"):
            names = files.names(self._directory())
        others: list[str] = []
        for name in names:
            parsed = parse_backup_name(name)
            if parsed is None:
                others.append(name)
            else:
                document, at = parsed
                old = self._by_document.get(document, {}).get(name)
                found.setdefault(document, {})[name] = old or Backup(
                    name=name, document=document, stamp=at, size_bytes=-1, revision=None
                )
        self._by_document = found
        self._others = sorted(others)
        self._known = {
            document
            for document in self._known
            if all(backup.size_bytes >= 0 for backup in found.get(document, {}).values())
        }
        self._listed_at = stamp

    def _learn(self, document: str) -> None:
        if document in self._known:
            return
        backups = self._by_document.get(document, {})
        for name, backup in list(backups.items()):
            if backup.size_bytes < 0:
                backups[name] = self._measured(backup)
        self._known.add(document)

    def _measured(self, backup: Backup) -> Backup:
        try:
            with files.closing(files.open_to_read(self._directory(), backup.name)) as descriptor:
                checksum = decode_checksum(files.read_attribute(descriptor))
                size_bytes = os.fstat(descriptor).st_size
        except (OSError, UnsupportedFormat):
            return replace(backup, size_bytes=0, ours=False)
        ours = (
            is_own_backup(backup, self._space, checksum)
            if self._earlier is None
            else backup.name not in self._earlier and is_given_name(backup)
        )
        revision = checksum.revision if checksum else None
        return replace(backup, size_bytes=size_bytes, revision=revision, ours=ours)
