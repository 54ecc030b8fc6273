"""The backups on the volume: an index of one `backups/` directory, kept true by its mtime.

Names are indexed at once, sizes and checksums when a document's backups are first asked for.
Hand-made changes to the directory move its mtime and cause a new listing. Where that fails, whoever
asks gets a StorageError, never half a list: what is not seen must not be taken for gone (V8).
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import datetime
from typing import Self

from seline.domain.backup import Backup, Stamp, next_stamp, parse_backup_name
from seline.domain.checksum import NewerFormat, decode_checksum
from seline.storage.volume import files
from seline.storage.volume.os_errors import named


class BackupIndex:
    """What lies in one space's backups directory. Any thread; writes nothing."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._lock = threading.RLock()
        self._listed_at = (-1, -1)
        self._by_document: dict[str, dict[str, Backup]] = {}
        self._known: set[str] = set()
        self._turns = 0

    def of(self, document: str) -> list[Backup]:
        """Return a document's backups, newest first, with size and recorded revision."""
        with self._lock:
            self._refresh()
            self._learn(document)
            backups = self._by_document.get(document, {})
            return sorted(backups.values(), key=lambda backup: backup.stamp, reverse=True)

    def counts(self) -> dict[str, int]:
        """Return the number of backups by document, of deleted documents too."""
        with self._lock:
            self._refresh()
            return {document: len(found) for document, found in self._by_document.items() if found}

    def next_stamp(self, document: str, now: datetime, *, after: Stamp | None = None) -> Stamp:
        """Return the stamp for a document's next backup, after every one it has and `after`."""
        with self._lock:
            self._refresh()
            stamps = [backup.stamp for backup in self._by_document.get(document, {}).values()]
            if after is not None:
                stamps.append(after)
            return next_stamp(max(stamps, default=None), now)

    def added(self, backup: Backup) -> None:
        """Take note of a backup that Seline has just made."""
        with self._lock:
            self._by_document.setdefault(backup.document, {})[backup.name] = backup
            if len(self._by_document[backup.document]) == 1:
                self._known.add(backup.document)

    def removed(self, backup: Backup) -> None:
        """Take note of a backup that Seline has just removed."""
        with self._lock:
            self._by_document.get(backup.document, {}).pop(backup.name, None)

    def __enter__(self) -> Self:
        """Begin the writer's turn: the index is kept by `added` and `removed` alone. Re-entrant."""
        with self._lock:
            if not self._turns:
                self._refresh()
            self._turns += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the writer's turn. What a turn that failed left there is listed anew."""
        with self._lock:
            self._turns -= 1
            if not self._turns:
                self._listed_at = self._stamp_of_directory() if kind is None else (-1, -1)

    def _stamp_of_directory(self) -> tuple[int, int]:
        status = os.fstat(self._directory)
        return status.st_ino, status.st_mtime_ns

    def _refresh(self) -> None:
        if self._turns:
            return
        stamp = self._stamp_of_directory()
        if stamp == self._listed_at:
            return
        found: dict[str, dict[str, Backup]] = {}
        for name in self._names():
            parsed = parse_backup_name(name)
            if parsed is not None:
                document, at = parsed
                found.setdefault(document, {})[name] = self._old(document, name) or Backup(
                    name=name, document=document, stamp=at, size_bytes=-1, revision=None
                )
        self._by_document = found
        self._known = {
            document
            for document in self._known
            if all(backup.size_bytes >= 0 for backup in found.get(document, {}).values())
        }
        self._listed_at = stamp

    def _names(self) -> list[str]:
        try:
            return files.names(self._directory)
        except OSError as error:
            raise named(error, "Listing the backups") from error

    def _old(self, document: str, name: str) -> Backup | None:
        return self._by_document.get(document, {}).get(name)

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
            descriptor = os.open(
                backup.name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                dir_fd=self._directory,
            )
        except OSError:
            return replace(backup, size_bytes=0)
        try:
            attribute = files.read_attribute(descriptor)
            checksum = decode_checksum(attribute) if attribute is not None else None
            return replace(
                backup,
                size_bytes=os.fstat(descriptor).st_size,
                revision=checksum.revision if checksum else None,
            )
        except (OSError, NewerFormat):
            return replace(backup, size_bytes=0)
        finally:
            os.close(descriptor)
