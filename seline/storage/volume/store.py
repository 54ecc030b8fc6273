"""The volume store: the port `DocumentStore` over one held directory.

Reads are answered from the overlay while a commit runs, else from the cache after one stat, else
from the disk. Writes go through the writer's queue. Only the holder of the lock gets here.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Concatenate, Final, ParamSpec, TypeVar

from msgspec import UNSET

from seline.clock import Clock
from seline.domain.backup import Backup, parse_backup_name
from seline.domain.checksum import NewerFormat, decode_checksum
from seline.domain.counters import CounterValues
from seline.domain.document import (
    METADATA_NAME,
    Content,
    DocumentInfo,
    DocumentKey,
)
from seline.domain.incident import Incident
from seline.domain.usage import Usage
from seline.domain.verdict import UNCHECKED, Judged, Verdict
from seline.errors import (
    BackupNotFound,
    DocumentNotFound,
    SelineError,
    StoreClosed,
)
from seline.ports.store import (
    Atom,
    Capability,
    Outcome,
    QuarantineItem,
    Retain,
    Snapshot,
    not_in_quarantine,
)
from seline.storage.volume import files
from seline.storage.volume.batches import Batches
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit.base import Committer
from seline.storage.volume.current import CurrentDocuments, unreadable
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.disk_usage import DiskUsage
from seline.storage.volume.events import Events
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.os_errors import named
from seline.storage.volume.quarantine import list_quarantine, parse_aside_name
from seline.storage.volume.snapshots import Snapshots, VolumeSnapshot
from seline.storage.volume.writer import Writer

READER_THREADS: Final = 3

_T = TypeVar("_T")
_P = ParamSpec("_P")


def _while_open(
    method: Callable[Concatenate[VolumeStore, _P], _T],
) -> Callable[Concatenate[VolumeStore, _P], _T]:
    """Raise StoreClosed or ForkedStore if the volume's descriptors may not be used."""

    @functools.wraps(method)
    def checked(self: VolumeStore, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        self._volume.check_usable()
        return method(self, *args, **kwargs)

    return checked


class VolumeStore:
    """A `DocumentStore` of readable files in one directory. `open_volume` builds it."""

    def __init__(
        self,
        *,
        volume: VolumeDirectory,
        clock: Clock,
        capabilities: Capabilities,
        disk_usage: DiskUsage,
        current_documents: CurrentDocuments,
        snapshots: Snapshots,
        committer: Committer,
        batches: Batches,
        events: Events,
        writer: Writer,
    ) -> None:
        self._volume = volume
        self._clock = clock
        self._capabilities = capabilities
        self._disk_usage = disk_usage
        self._current_documents = current_documents
        self._inspector = current_documents.inspector
        self._snapshots = snapshots
        self._committer = committer
        self._overlay = committer.overlay
        self._batches = batches
        self._events = events
        self._writer = writer
        self._readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="seline-reader")
        self._closed = False
        self._closing = threading.Lock()

    # reading

    @property
    def place(self) -> str:
        return self._volume.path

    @property
    def device_and_inode(self) -> tuple[int, int]:
        """What tells this data directory from any other on this machine."""
        return self._volume.device_and_inode

    @_while_open
    def peek(self, key: DocumentKey) -> Content | Verdict | None:
        found = self._inspector.peek(key)
        if found is Verdict.MISSING:
            self._volume.check_usable()  # closed meanwhile: the number may be another directory's
        held = self._overlay.answer(key)
        if held is UNSET:
            return found
        return None if isinstance(held, SelineError) else held or Verdict.MISSING

    @_while_open
    def look(self, key: DocumentKey) -> tuple[Judged, datetime | None]:
        inspection = self._inspector.look(key)
        held = self._overlay.answer(key)
        if held is UNSET:
            return inspection.judged, inspection.updated_at
        if isinstance(held, SelineError):
            raise held
        verdict = Verdict.MISSING if held is None else Verdict.SOUND
        return Judged(verdict, held), inspection.updated_at or self._clock.now()

    def busy_s(self) -> float:
        return self._batches.busy_s()

    @_while_open
    def later(self, work: Callable[[], _T]) -> Future[_T]:
        try:
            return self._readers.submit(self._unless_closed, work)
        except RuntimeError as error:  # closed, or the interpreter is going down
            raise StoreClosed from error

    @_while_open
    def rescue(self, key: DocumentKey) -> Content | None:
        return self._current_documents.rescue(key)

    @_while_open
    def documents(self, space: str) -> Sequence[DocumentInfo]:
        counts = self.backup_counts(space)
        infos = (
            self._info(DocumentKey(space, name), counts)
            for name in self._volume.document_names(space)
        )
        return [info for info in infos if info is not None]

    @_while_open
    def backups(self, key: DocumentKey) -> Sequence[Backup]:
        return self._current_documents.backup_indexes.of(key.space).of(key.name)

    @_while_open
    def backup_counts(self, space: str) -> dict[str, int]:
        return self._current_documents.backup_indexes.of(space).counts()

    @_while_open
    def read_backup(self, key: DocumentKey, backup: str) -> Judged:
        parsed = parse_backup_name(backup)
        if parsed is None or parsed[0] != key.name:
            raise BackupNotFound(
                f"{backup!r} is not a backup of {key.name}.", document=key.name, backup=backup
            )
        judged = self._inspector.look_at_backup(key, backup).judged
        if judged.verdict is Verdict.MISSING:
            raise BackupNotFound(
                f"{key.name} has no backup {backup}.", document=key.name, backup=backup
            )
        return judged

    @_while_open
    def quarantine(self) -> Sequence[QuarantineItem]:
        try:
            return list_quarantine(self._volume)
        except OSError as error:
            raise named(error, "Listing the quarantine") from error

    @_while_open
    def read_quarantine(self, item: str) -> bytes:
        if parse_aside_name(item) is None:
            raise not_in_quarantine(item)
        try:
            return files.read_whole(self._volume.quarantine, item, size_max=1 << 40).data
        except FileNotFoundError as error:
            raise not_in_quarantine(item) from error
        except OSError as error:
            raise named(error, f"Reading {item} in quarantine") from error

    @_while_open
    def raw(self, key: DocumentKey) -> bytes:
        judged = self._inspector.look(key).judged
        self._overlay.check_known(key)
        if judged.verdict is Verdict.MISSING:
            raise DocumentNotFound(f"There is no document {key.name}.", document=key.name)
        if judged.content is None:
            raise unreadable(key, judged)
        return judged.content.data

    def drop_cached_pages(self, key: DocumentKey, backup: str | None = None) -> None:
        """Make the next look at a document or backup ask the medium, not the memory."""
        self._inspector.read_from_disk(key, backup)

    # changing

    @_while_open
    def submit(self, atom: Atom) -> Future[tuple[Outcome, ...]]:
        return self._writer.submit(atom)

    @_while_open
    def rotate(self, key: DocumentKey, retain: Retain) -> Future[Sequence[Backup]]:
        return self._writer.between(lambda: self._batches.rotate(key, retain))

    def heed_pins(
        self, marked: Callable[[DocumentKey, Sequence[Backup]], Sequence[Backup]]
    ) -> None:
        self._batches.admission.heed_pins(marked)

    @_while_open
    def snapshot(self, space: str) -> Future[AbstractContextManager[Snapshot]]:
        return self._writer.between(lambda: self._hold_still(space))

    def watch(self, notice: Callable[[DocumentKey, Outcome], None]) -> Callable[[], None]:
        return self._events.watch(notice)

    def write_report(self, data: bytes) -> Future[None]:
        """Put `metadata.json` in place: a report, whole but not synced (SPEC §3)."""
        return self._writer.between(lambda: self._volume.write_report(METADATA_NAME, data))

    def read_report(self) -> bytes | None:
        """Return `metadata.json` as it lies there, None where there is none to be read."""
        try:
            return files.read_whole(self._volume.top, METADATA_NAME, size_max=1 << 20).data
        except OSError:
            return None

    def announce(self, **fields: object) -> None:
        """Tell other processes where this one can be reached (`.seline/server.json`)."""
        self._volume.announce(**fields)

    # state

    @_while_open
    def usage(self) -> Usage:
        return self._disk_usage.usage()

    def has_reserve(self) -> bool:
        """Whether the emergency space is there."""
        return self._disk_usage.has_reserve()

    def figures(self) -> CounterValues:
        return self._batches.figures(queued=self._writer.queued)

    def capabilities(self) -> Sequence[Capability]:
        return self._capabilities.reported

    def incidents(self) -> Sequence[Incident]:
        return self._events.incidents()

    def trouble(self) -> SelineError | None:
        return self._batches.reopener.failure or self._volume.lost() or self._volume.read_only()

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._writer.close()
            self._committer.close()
            self._readers.shutdown()
            self._volume.close()

    # parts

    def _unless_closed(self, work: Callable[[], _T]) -> _T:
        """Work on a reader thread; who still waits for one at the close is told so by name."""
        if self._closed:
            raise StoreClosed
        return work()

    def _info(self, key: DocumentKey, counts: dict[str, int]) -> DocumentInfo | None:
        known = self.peek(key)
        directory = self._volume.documents(key.space)
        try:
            status = os.stat(key.name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return None
        revision, verdict = None, UNCHECKED
        if isinstance(known, Content):
            revision, verdict = known.revision, str(Verdict.SOUND)
        else:
            revision = _recorded_revision(directory, key.name)
        return DocumentInfo(
            name=key.name,
            revision=revision,
            size_bytes=status.st_size,
            updated_at=datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC),
            verdict=verdict,
            backup_count=counts.get(key.name, 0),
        )

    def _hold_still(self, space: str) -> AbstractContextManager[Snapshot]:
        failure = self._batches.reopener.failure
        if failure is not None and self._overlay.keys:
            raise failure  # the files may not be the current contents
        held: dict[str, FileIdentity] = {}
        for name in self._volume.document_names(space):
            try:
                directory = self._volume.documents(space)
                held[name] = FileIdentity.of(os.stat(name, dir_fd=directory, follow_symlinks=False))
            except FileNotFoundError:
                continue
        return _holding(self._snapshots, self._snapshots.take(space, held, self._clock.now()))


@contextmanager
def _holding(snapshots: Snapshots, snapshot: VolumeSnapshot) -> Generator[Snapshot]:
    try:
        yield snapshot
    finally:
        snapshots.release(snapshot)


def _recorded_revision(directory: int, name: str) -> str | None:
    """Return the revision that the attribute records, without reading the bytes."""
    try:
        descriptor = files.open_to_read(directory, name)
    except OSError:
        return None
    try:
        attribute = files.read_attribute(descriptor)
        checksum = decode_checksum(attribute) if attribute is not None else None
        same_mtime = checksum and checksum.mtime_ns == os.fstat(descriptor).st_mtime_ns
        return checksum.revision if checksum and same_mtime else None
    except (OSError, NewerFormat):
        return None
    finally:
        os.close(descriptor)
