"""What one run of the mirror copies: documents and backups, read and stored in batches.

A batch is read by one call on a reader thread and compressed by another, so that small documents
cost little more than their bytes. Memory holds a few batches.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from seline.domain import mirror
from seline.domain.backup import Backup
from seline.domain.document import BOT, Content, DocumentKey, Revision
from seline.domain.manifest import FileEntry, PackedDocument, entry_of
from seline.domain.mirror import StoredObject
from seline.errors import BackupNotFound, DocumentError, DocumentNotFound
from seline.manager import backups
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import backup_content
from seline.operations.at_once import error_of
from seline.operations.mirror_store import MirrorStore
from seline.ports.store import DocumentStore, Snapshot

UPLOADS_MAX: Final = 8
BATCH_FILES_MAX: Final = 32
BATCH_BYTES_MAX: Final = 2 << 20
"""A larger content is read, sealed and uploaded alone."""
_Sealed: TypeAlias = tuple[StoredObject, bytes]


@dataclass(slots=True)
class _Read:
    """A document as it was read.

    `backups` has None for one that is not sound, or is read later because the batch is full.
    `contents` has what the destination lacks.
    """

    name: str
    digest: Revision = ""
    size_bytes: int = 0
    is_lacking: bool = False
    backups: dict[str, FileEntry | None] = field(default_factory=dict[str, FileEntry | None])
    contents: list[Content] = field(default_factory=list[Content])

    @property
    def contents_bytes(self) -> int:
        return sum(content.size_bytes for content in self.contents)

    def packed(self) -> PackedDocument | None:
        """Return the document as a manifest lists it, None if nothing of it is left."""
        entries = tuple(filter(None, self.backups.values()))
        if not (self.digest or entries):
            return None
        return PackedDocument(
            name=self.name, sha256=self.digest, size_bytes=self.size_bytes, backups=entries
        )


class Copying:
    """The documents of one snapshot while their contents are stored."""

    def __init__(
        self,
        store: ManagedStore,
        snapshot: Snapshot,
        at: MirrorStore,
        stored: dict[str, StoredObject],
        name_key: str,
        recorded: Mapping[str, tuple[Revision, int]],
    ) -> None:
        """Store at `at` what `stored`, by key, lacks, and add it there.

        `recorded` gives the digest and size of documents that need not be read for them.
        """
        self._store = store
        self._snapshot = snapshot
        self._at = at
        self._stored = stored
        self.name_key = name_key
        self._recorded = recorded
        self._there = frozenset(snapshot.names)
        self._coming: set[str] = set()
        self._slots = asyncio.Semaphore(UPLOADS_MAX)
        self.lacking: list[str] = []
        """The documents that could not be read; those with backups are returned with these."""
        self.copied = self.of_all = 0
        """How many documents are stored, or being uploaded, of how many."""

    async def documents(self, names: Iterable[str]) -> tuple[list[PackedDocument], list[str]]:
        """Store the contents of these documents; return the documents, and the names of none."""
        documents: list[PackedDocument] = []
        removed: list[str] = []
        left = list(names)
        self.of_all = len(left)
        try:
            async with asyncio.TaskGroup() as uploads:
                async for read in self._copied(left, uploads):
                    self.copied += 1
                    document = read.packed()
                    if document is None:
                        removed.append(read.name)
                    else:
                        documents.append(document)
        except BaseExceptionGroup as group:  # a defect or an interrupt, too
            raise error_of(group) from group
        return documents, removed

    async def _copied(self, names: list[str], uploads: asyncio.TaskGroup) -> AsyncIterator[_Read]:
        """Yield each document once its contents are stored, or are being uploaded."""
        async for batch, sealed in self._batches(names, uploads):
            await self._upload_each(sealed, uploads)
            for read in batch:
                await self._copy_left_backups(read, uploads)
                if read.is_lacking:
                    self.lacking.append(read.name)
                yield read

    async def _batches(
        self, names: list[str], preparing: asyncio.TaskGroup
    ) -> AsyncIterator[tuple[list[_Read], list[_Sealed]]]:
        """Yield the documents in batches; while one is uploaded, the next is read and sealed."""
        opened = await self._store.open()
        batch, sealed = list[_Read](), list[_Sealed]()
        while names:
            following = preparing.create_task(self._prepared(opened, names[:BATCH_FILES_MAX]))
            if batch:
                yield batch, sealed
            batch, sealed = await following
            del names[: len(batch)]
        if batch:
            yield batch, sealed

    async def _prepared(
        self, opened: DocumentStore, names: Sequence[str]
    ) -> tuple[list[_Read], list[_Sealed]]:
        batch = await self._store.listing(partial(self._read, opened, names))
        sealed = await self._sealed([content for read in batch for content in read.contents])
        for read in batch:
            read.contents.clear()
        return batch, sealed

    # reading; blocks

    def _read(self, opened: DocumentStore, names: Sequence[str]) -> list[_Read]:
        """Read the first of these documents, as many as a batch holds."""
        batch: list[_Read] = []
        size_bytes = 0
        for name in names:
            read = self._read_document(opened, name)
            batch.append(read)
            size_bytes += read.contents_bytes
            if size_bytes > BATCH_BYTES_MAX:
                break
        return batch

    def _read_document(self, opened: DocumentStore, name: str) -> _Read:
        read, key = _Read(name), DocumentKey(BOT, name)
        if name in self._there:
            try:
                read.digest, read.size_bytes = self._current(read)
            except DocumentNotFound:
                pass  # it was purged
            except DocumentError:
                read.is_lacking = True
        for backup in opened.backups(key):
            digest = backup.revision or ""
            if self._is_there(digest):
                entry = FileEntry(name=backup.name, sha256=digest, size_bytes=backup.size_bytes)
                read.backups[backup.name] = entry
            else:
                read.backups[backup.name] = self._read_backup(opened, read, backup)
        return read

    def _read_backup(self, opened: DocumentStore, read: _Read, backup: Backup) -> FileEntry | None:
        if read.contents_bytes + backup.size_bytes > BATCH_BYTES_MAX:
            return None
        try:
            content = backups.backup_content(opened, DocumentKey(BOT, read.name), backup.name)
        except BackupNotFound:
            return None
        self._note(read, content)
        return entry_of(backup.name, content)

    def _current(self, read: _Read) -> tuple[Revision, int]:
        """Return the digest and size of a document's content."""
        recorded = self._recorded.get(read.name)
        if recorded is not None and self._is_there(recorded[0]):
            return recorded
        content = self._snapshot.read(read.name)
        self._note(read, content)
        return content.revision, content.size_bytes

    def _note(self, read: _Read, content: Content) -> None:
        """Keep a content that the destination lacks until it is stored."""
        if not self._is_there(content.revision):
            read.contents.append(content)

    def _is_there(self, digest: Revision) -> bool:
        return bool(digest) and self._key(digest) in self._stored

    def _key(self, digest: Revision) -> str:
        return mirror.content_key(digest, self.name_key)

    # storing

    async def _copy_left_backups(self, read: _Read, uploads: asyncio.TaskGroup) -> None:
        """Copy the backups that the batch left, one after the other."""
        for name, entry in read.backups.items():
            if entry is None:
                try:
                    content = await backup_content(self._store, DocumentKey(BOT, read.name), name)
                except BackupNotFound:
                    continue  # it was rotated in the meantime, or is broken, which is reported
                await self._upload_each(await self._sealed([content]), uploads)
                read.backups[name] = entry_of(name, content)

    async def _sealed(self, contents: Iterable[Content]) -> list[_Sealed]:
        """Seal the contents that are neither there nor coming."""
        keyed = {self._key(content.revision): content.data for content in contents}
        new = {
            key: keyed[key] for key in keyed if key not in self._stored and key not in self._coming
        }
        self._coming.update(new)
        return await self._at.sealed(new)

    async def _upload_each(self, sealed: Iterable[_Sealed], uploads: asyncio.TaskGroup) -> None:
        """Begin to upload; wait for slots."""
        for entry, stored in sealed:
            slots = UPLOADS_MAX if entry.size_bytes > BATCH_BYTES_MAX else 1
            for _ in range(slots):
                await self._slots.acquire()
            uploads.create_task(self._upload(entry, stored, slots))

    async def _upload(self, entry: StoredObject, stored: bytes, slots: int) -> None:
        try:
            await self._at.put_object(entry, stored)
            self._stored[entry.key] = entry
        finally:
            self._coming.discard(entry.key)
            for _ in range(slots):
                self._slots.release()
