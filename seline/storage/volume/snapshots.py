"""Snapshots: the documents of one instant, kept while an export reads them.

A snapshot is a list of names and file identities, taken between two batches. Most files are looked
at before, some at a time between earlier batches, so that no batch waits for thousands of them. A
commit that is about to replace a listed document first links its file into `.seline/exports/<id>/`.
A purge removes these links, too: the snapshot no longer has the document.
"""

import os
import stat
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from io import FileIO

from seline.domain.document import Content, DocumentKey
from seline.domain.verdict import USABLE
from seline.errors import (
    DocumentNotFound,
    DocumentUnreadable,
    DocumentUnrecoverable,
    ForkedStore,
    StoreClosed,
)
from seline.owner import give_to_owner_of
from seline.storage.volume import files
from seline.storage.volume.commit.overlay import unknown_outcome
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.inspect import Inspector

PIECE_BYTES = 256 << 10
WHOLE_BYTES_MAX = 1 << 20
"""Up to this size a document is read and judged in one piece."""
RECALLED_BYTES_MAX = 16 << 20
"""The size of the contents that one snapshot keeps in memory though it has linked their files."""
_ANY_SIZE = 1 << 40


@dataclass(slots=True)
class VolumeSnapshot:
    """A `Snapshot` of one space of the volume."""

    volume: VolumeDirectory
    inspector: Inspector
    snapshots: "Snapshots"
    name: str
    space: str
    taken_at: datetime
    held: dict[str, FileIdentity]
    in_doubt: frozenset[str]
    unpublished: dict[str, Content | None]
    linked: set[str] = field(default_factory=set[str])
    recalled: dict[str, Content] = field(default_factory=dict[str, Content])
    """What memory had before a commit replaced it."""
    recalled_bytes: int = 0
    removed: set[str] = field(default_factory=set[str])
    """What another program had removed before a commit replaced it for the first time."""
    purged: set[str] = field(default_factory=set[str])
    directory: int | None = None
    broken: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def names(self) -> Sequence[str]:
        there = {name for name, content in self.unpublished.items() if content is not None}
        return sorted(self.in_doubt | self.held.keys() | there)

    def open(self, name: str) -> Iterator[bytes]:
        with self.volume.in_use():
            found = self._found(name)
        return iter((found.data,)) if isinstance(found, Content) else found

    def read(self, name: str) -> Content:
        with self.volume.in_use():
            found = self._found(name)
        return found if isinstance(found, Content) else Content.of(b"".join(found))

    def _found(self, name: str) -> Content | Iterator[bytes]:
        if name in self.purged:
            raise DocumentNotFound(f"{name} was purged.", document=name)
        if name in self.in_doubt:
            raise DocumentUnreadable(f"{unknown_outcome(name)}.", document=name)
        return self.unpublished.get(name) or self._at_the_instant(DocumentKey(self.space, name))

    def _at_the_instant(self, key: DocumentKey) -> Content | Iterator[bytes]:
        """Return what memory or a file has of the instant, else what a recovery would choose."""
        name = key.name
        directories, identity = places = self._places(name)
        content = self.recalled.get(name)  # not before: a commit keeps both at the same time
        if content is not None:
            return content
        for directory in directories:
            try:
                found = self._judged(key, directory, identity)
                if found is not None:
                    return found
                content = self._remembered(key, directory, identity)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self.volume.named(error, f"Reading {name}") from error
        if content is None and self._has_just_changed(name, places):
            return self._found(name)
        self.broken[name] = ""
        content = content or self._recovered(key)
        if self._has_just_changed(name, places):  # else what was recovered may be newer
            del self.broken[name]
            return self._found(name)
        return content

    def _has_just_changed(self, name: str, places: tuple[Sequence[int], FileIdentity]) -> bool:
        """Whether a commit has just kept the document for this snapshot, or erased it."""
        has_answer = name in self.purged or name in self.recalled
        return has_answer or self._places(name) != places

    def keep_in_memory(self, name: str, content: Content, *, if_small: bool) -> None:
        """Keep a content of the instant; `if_small`: if those that are linked too stay few."""
        if if_small:
            size_bytes = self.recalled_bytes + content.size_bytes
            if size_bytes > RECALLED_BYTES_MAX:
                return
            self.recalled_bytes = size_bytes
        self.recalled[name] = content

    def close(self) -> None:
        self.snapshots.release(self)

    def _recovered(self, key: DocumentKey) -> Content:
        """Return the content that a recovery would choose, and note its backup."""
        found = self.snapshots.current_documents.find(key)
        if found.source is not None:
            self.broken[key.name] = found.source.name
        if found.content is not None:
            return found.content
        raise found.failure or DocumentUnrecoverable(
            f"{key.name} is broken and has no sound backup.", document=key.name
        )

    def _places(self, name: str) -> tuple[list[int], FileIdentity]:
        """Return the directories that may have a document's file, and which file it is."""
        with self.snapshots.lock:
            live, identity = self.volume.documents(self.space), self.held[name]
            if name in self.linked and self.directory is not None:
                return [self.directory], identity
            return [live] if self.directory is None else [live, self.directory], identity

    def _judged(
        self, key: DocumentKey, directory: int, identity: FileIdentity
    ) -> Content | Iterator[bytes] | None:
        """Return the content, or its pieces, if the directory has the file, sound."""
        if identity.size_bytes <= WHOLE_BYTES_MAX:
            inspection = self.inspector.look_in(key, directory)
            if inspection.identity is None or not inspection.identity.same_bytes(identity):
                raise FileNotFoundError(key.name)
            judged = inspection.judged
            if judged.content is None or judged.verdict not in USABLE:
                return None
            return judged.content
        return self._pieces(key, directory, identity)

    def _remembered(
        self, key: DocumentKey, directory: int, identity: FileIdentity
    ) -> Content | None:
        """Return the content that a broken file recorded; the document may be newer."""
        with files.closing(files.open_to_read(directory, key.name)) as descriptor:
            if not FileIdentity.of(os.fstat(descriptor)).same_bytes(identity):
                raise FileNotFoundError(key.name)
            revision = self.inspector.recorded(key, descriptor)
        return None if revision is None else self.snapshots.current_documents.recall(key, revision)

    def _pieces(
        self, key: DocumentKey, directory: int, identity: FileIdentity
    ) -> Generator[bytes] | None:
        file = os.fdopen(files.open_to_read(directory, key.name), "rb", buffering=0)
        try:
            if not FileIdentity.of(os.fstat(file.fileno())).same_bytes(identity):
                raise FileNotFoundError(key.name)
            sound = self.inspector.judge_in_pieces(key, file.fileno())
        except BaseException:
            file.close()
            raise
        if sound:
            return _read_pieces(file)
        file.close()
        return None


@dataclass(slots=True)
class Snapshots:
    """The open snapshots. They are taken on the writer's thread; any thread reads them."""

    volume: VolumeDirectory
    current_documents: CurrentDocuments
    lock: threading.Lock = field(default_factory=threading.Lock)
    _open: dict[str, VolumeSnapshot] = field(default_factory=dict[str, VolumeSnapshot])
    _left: list[str] = field(default_factory=list[str])
    _sequence: int = 0

    def take(
        self,
        space: str,
        identities: dict[str, FileIdentity],
        in_doubt: frozenset[str],
        unpublished: dict[str, Content | None],
        now: datetime,
    ) -> VolumeSnapshot:
        """Take a snapshot of these files. Only the writer's thread, between two batches.

        A document in doubt may have contents that a power cut takes away: it is not readable.
        `unpublished` has the contents that only the journal has, None for a removed document.
        """
        with self.lock:
            self._sequence += 1
            name = f"{os.getpid()}-{self._sequence}"
            inspector = self.current_documents.inspector
            self._open[name] = snapshot = VolumeSnapshot(
                self.volume, inspector, self, name, space, now, identities, in_doubt, unpublished
            )
            return snapshot

    def before_replacing(self, key: DocumentKey) -> None:
        """Link a document's file for the snapshots that need it. Raises OSError."""
        if not self._open and not self._left:
            return
        with self.lock:
            self._tidy()
            for snapshot in self._open.values():
                if snapshot.space == key.space and key.name in snapshot.held:
                    self._link(snapshot, key)

    def forget(self, key: DocumentKey) -> None:
        """Erase what snapshots keep of a purged document, durably. Raises OSError."""
        with self.lock:
            for snapshot in self._open.values():
                if snapshot.space != key.space or key.name not in snapshot.names:
                    continue
                snapshot.purged.add(key.name)
                snapshot.recalled.pop(key.name, None)  # its size stays counted: purges are few
                if key.name in snapshot.linked and snapshot.directory is not None:
                    files.unlink(snapshot.directory, key.name, missing_ok=True)
                    files.sync(snapshot.directory)

    def release(self, snapshot: VolumeSnapshot) -> None:
        """Remove what a snapshot kept. Idempotent."""
        with self.lock:
            if self._open.pop(snapshot.name, None) is None or snapshot.directory is None:
                return
            files.close(snapshot.directory)
            snapshot.directory = None
            self._left.append(snapshot.name)
            with suppress(StoreClosed, ForkedStore), self.volume.in_use():
                self._tidy()  # else the next start does

    def _tidy(self) -> None:
        """Remove the directories of released snapshots; a failure is retried at a later change."""
        left, self._left = self._left, []
        for name in left:
            try:
                self._take_away(name)
            except FileNotFoundError:
                continue
            except OSError:
                self._left.append(name)

    def _take_away(self, name: str) -> None:
        with files.closing(files.open_directory(name, inside=self.volume.exports)) as directory:
            for held in files.names(directory):
                files.unlink(directory, held, missing_ok=True)
        os.rmdir(name, dir_fd=self.volume.exports)

    def _link(self, snapshot: VolumeSnapshot, key: DocumentKey) -> None:
        """Keep what is there before the first commit that replaces it.

        Another program may have changed or corrupted the file, or do so later: so the content of
        the instant is kept as well if memory has it.
        """
        name = key.name
        if name in snapshot.linked or name in snapshot.removed:
            return
        if snapshot.directory is None:
            os.mkdir(snapshot.name, files.DIRECTORY_MODE, dir_fd=self.volume.exports)
            snapshot.directory = files.open_directory(snapshot.name, inside=self.volume.exports)
            give_to_owner_of(self.volume.exports, snapshot.directory)
        found, kept = self._kept(self.volume.documents(key.space), name, snapshot.directory)
        held, known = snapshot.held[name], self.current_documents.inspector.last_known(key)
        if known and known[0].same_bytes(held):
            is_linked = found is not None and found.same_bytes(held)
            snapshot.keep_in_memory(name, known[1], if_small=is_linked)
        if kept is None:
            snapshot.removed.add(name)
        else:
            snapshot.held[name] = kept
            snapshot.linked.add(name)

    def _kept(
        self, documents: int, name: str, directory: int
    ) -> tuple[FileIdentity | None, FileIdentity | None]:
        """Link or copy a file to a directory; return its identity, and that of what was made.

        Without a regular file nothing is made.
        """
        try:
            files.link(documents, name, directory, name)
            status = files.status(directory, name)
            if stat.S_ISREG(status.st_mode):
                return FileIdentity.of(status), FileIdentity.of(status)
            files.unlink(directory, name)
        except FileNotFoundError:
            return None, None
        except OSError:
            try:
                raw = files.read_whole(documents, name, size_max=_ANY_SIZE)
            except (FileNotFoundError, files.NotRegular):
                return None, None
            mtime_ns = raw.identity.mtime_ns
            with files.closing(
                files.stage(directory, name, raw.data, raw.attribute, mtime_ns)
            ) as copy:
                return raw.identity, FileIdentity.of(os.fstat(copy))
        return None, None


def _read_pieces(file: FileIO) -> Generator[bytes]:
    """Yield a file from its beginning, then close it."""
    with file:
        file.seek(0)
        while piece := os.read(file.fileno(), PIECE_BYTES):
            yield piece
