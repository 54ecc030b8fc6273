"""The volume store: the port `DocumentStore` over one held directory.

Reads are answered from the overlay while a commit runs, else from the cache after one stat, else
from the disk. Writes go through the writer's queue. Only the holder of the lock gets here.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from msgspec import UNSET

from seline.clock import Clock, SystemClock
from seline.domain.backup import Backup, parse_backup_name
from seline.domain.checksum import NewerFormat, decode_checksum
from seline.domain.counters import Figures
from seline.domain.document import (
    BOT,
    METADATA_NAME,
    SELINE,
    Content,
    DocumentInfo,
    DocumentKey,
    is_document_name,
)
from seline.domain.incident import Incident
from seline.domain.retention import Dropped
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
)
from seline.storage.volume import files
from seline.storage.volume.admission import Admission
from seline.storage.volume.backup_index import BackupIndex
from seline.storage.volume.batches import Batches
from seline.storage.volume.capabilities import Capabilities, probe
from seline.storage.volume.commit.base import Committer
from seline.storage.volume.commit.exchange_form import ExchangeCommitter
from seline.storage.volume.current import CurrentDocuments, unreadable
from seline.storage.volume.directory import VolumeDirectory, hold
from seline.storage.volume.disk_usage import DiskUsage
from seline.storage.volume.events import Events
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.inspect import Inspector
from seline.storage.volume.mounts import wait_for_place
from seline.storage.volume.os_errors import named
from seline.storage.volume.quarantine import list_quarantine
from seline.storage.volume.reopen import Reopener
from seline.storage.volume.rotation import Rotation
from seline.storage.volume.snapshots import Snapshots, VolumeSnapshot
from seline.storage.volume.strict import verify_after_commit
from seline.storage.volume.writer import Writer

INCIDENTS_MAX: Final = 200
READER_THREADS: Final = 3
DEFAULT_LIMIT_MB: Final = 500

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOptions:
    """How a volume is opened; bytes, seconds and percent as named."""

    data_dir: str
    lock_wait_s: float = 5.0
    serves_commands: bool = False
    mount_wait_s: float = 0.0
    mount_required: bool = False
    mount_expected_under: str | None = None
    limit_mb: int | None = None
    reserve_percent: float = 1.0
    document_bytes_max: int = 32 << 20
    documents_max: int = 10_000
    settle_s: float = 2.0
    cache_bytes_max: int = 16 << 20
    strict: bool = False


def open_volume(
    options: VolumeOptions,
    *,
    clock: Clock | None = None,
    on_wait: Callable[[SelineError], None] | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> VolumeStore:
    """Hold the volume, mend what a sudden end left, and return the store. Blocks.

    Raises VolumeNotMounted (after `mount_wait_s`), VolumeLocked (after `lock_wait_s`),
    UnsupportedFormat, or the disk's error by its name. `on_wait` hears what is waited for,
    `give_up` ends the wait.
    """
    clock = clock or SystemClock()
    wait_for_place(
        options.data_dir,
        required=options.mount_required,
        expected_under=options.mount_expected_under,
        wait_s=options.mount_wait_s,
        on_wait=on_wait,
        give_up=give_up,
    )
    volume = hold(
        os.path.abspath(options.data_dir),
        wait_s=options.lock_wait_s,
        clock=clock,
        serves_commands=options.serves_commands,
        on_wait=on_wait,
        give_up=give_up,
    )
    try:
        return VolumeStore(volume, options, clock=clock)
    except OSError as error:
        volume.close()
        raise named(error, f"Opening the volume at {options.data_dir}") from error
    except BaseException:
        volume.close()
        raise


class VolumeStore:
    """Documents as readable files in one directory (the port's docstrings are the law)."""

    def __init__(self, volume: VolumeDirectory, options: VolumeOptions, *, clock: Clock) -> None:
        """Build the store on a held ground and mend it. Use `open_volume`."""
        self._volume = volume
        self._clock = clock
        self._capabilities = probe(volume)
        self._incidents: deque[Incident] = deque(maxlen=INCIDENTS_MAX)
        self._watchers: list[Callable[[DocumentKey, Outcome], None]] = []
        self._closed = False
        self._closing = threading.Lock()
        self._readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="seline-reader")
        self._disk_usage = DiskUsage(
            volume,
            limit_bytes=_limit_bytes(options, own_mount=self._capabilities.own_mount),
            reserve_percent=options.reserve_percent,
            own_mount=self._capabilities.own_mount,
        )
        self._inspector = _inspector(volume, options, self._capabilities, clock)
        self._backup_indexes = {
            space: BackupIndex(volume.backups(space)) for space in (BOT, SELINE)
        }
        self._current_documents = CurrentDocuments(
            inspector=self._inspector, backup_indexes=self._backup_indexes
        )
        self._snapshots = Snapshots(volume, self._current_documents)
        self._committer = self._make_committer()
        self._overlay = self._committer.overlay
        self._batches = self._make_turns(options, self._committer)
        self._reopener = self._batches.reopener
        self._committer.recover(clock.now())
        self._batches.admission.documents = len(self._names(BOT))
        self._disk_usage.rebuild_reserve()
        self._writer = Writer(self._batches.process, idle=self._batches.idle)

    def _make_committer(self) -> Committer:
        return ExchangeCommitter(
            volume=self._volume,
            capabilities=self._capabilities,
            inspector=self._inspector,
            backup_indexes=self._backup_indexes,
            report=self._incidents.append,
            release_reserve=self._disk_usage.release_reserve,
            before_replacing=self._snapshots.before_replacing,
        )

    def _make_turns(self, options: VolumeOptions, committer: Committer) -> Batches:
        rotation = Rotation(
            volume=self._volume,
            inspector=self._inspector,
            backup_indexes=self._backup_indexes,
            freed=self._disk_usage.discarded,
        )
        events = Events(self._clock, self._incidents.append, self._notice)
        return Batches(
            current_documents=self._current_documents,
            committer=committer,
            rotation=rotation,
            backup_indexes=self._backup_indexes,
            disk_usage=self._disk_usage,
            clock=self._clock,
            events=events,
            admission=Admission(
                volume=self._volume,
                rotation=rotation,
                disk_usage=self._disk_usage,
                clock=self._clock,
                documents_max=options.documents_max,
                events=events,
            ),
            reopener=Reopener(
                volume=self._volume,
                current_documents=self._current_documents,
                committer=committer,
                clock=self._clock,
                events=events,
            ),
            after_commit=self._verify_everything if options.strict else None,
        )

    # reading

    @property
    def place(self) -> str:
        return self._volume.path

    @property
    def device_and_inode(self) -> tuple[int, int]:
        """What tells this data directory from any other on this machine."""
        return self._volume.device_and_inode

    def peek(self, key: DocumentKey) -> Content | Verdict | None:
        self._volume.check_usable()
        found = self._inspector.peek(key)
        if found is Verdict.MISSING:
            self._volume.check_usable()  # closed meanwhile: the number may be another directory's
        held = self._overlay.answer(key)
        if held is UNSET:
            return found
        return None if isinstance(held, SelineError) else held or Verdict.MISSING

    def look(self, key: DocumentKey) -> tuple[Judged, datetime | None]:
        self._volume.check_usable()
        inspection = self._inspector.look(key)
        held = self._overlay.answer(key)
        if held is UNSET:
            return inspection.judged, inspection.updated_at
        if isinstance(held, SelineError):
            raise held
        verdict = Verdict.MISSING if held is None else Verdict.SOUND
        return Judged(verdict, held), inspection.updated_at or self._clock.now()

    def busy_s(self) -> float:
        since = self._batches.busy_since_s
        return 0.0 if since is None else self._clock.monotonic() - since

    def later(self, work: Callable[[], _T]) -> Future[_T]:
        self._volume.check_usable()
        try:
            return self._readers.submit(self._unless_closed, work)
        except RuntimeError as error:  # closed, or the interpreter is going down
            raise StoreClosed from error

    def rescue(self, key: DocumentKey) -> Content | None:
        self._volume.check_usable()
        return self._current_documents.rescue(key)

    def documents(self, space: str) -> Sequence[DocumentInfo]:
        self._volume.check_usable()
        counts = self.backup_counts(space)
        infos = (self._info(DocumentKey(space, name), counts) for name in self._names(space))
        return [info for info in infos if info is not None]

    def backups(self, key: DocumentKey) -> Sequence[Backup]:
        self._volume.check_usable()
        return self._backup_indexes[key.space].of(key.name)

    def backup_counts(self, space: str) -> dict[str, int]:
        self._volume.check_usable()
        return self._backup_indexes[space].counts()

    def read_backup(self, key: DocumentKey, backup: str) -> Judged:
        self._volume.check_usable()
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

    def quarantine(self) -> Sequence[QuarantineItem]:
        self._volume.check_usable()
        try:
            return list_quarantine(self._volume)
        except OSError as error:
            raise named(error, "Listing the quarantine") from error

    def read_quarantine(self, item: str) -> bytes:
        self._volume.check_usable()
        if parse_backup_name(item) is None:
            raise DocumentNotFound(f"{item!r} is not in quarantine.", item=item)
        try:
            return files.read_whole(self._volume.quarantine, item, size_max=1 << 40).data
        except FileNotFoundError as error:
            raise DocumentNotFound(f"{item} is not in quarantine.", item=item) from error
        except OSError as error:
            raise named(error, f"Reading {item} in quarantine") from error

    def raw(self, key: DocumentKey) -> bytes:
        self._volume.check_usable()
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

    def submit(self, atom: Atom) -> Future[tuple[Outcome, ...]]:
        self._volume.check_usable()
        return self._writer.submit(atom)

    def rotate(self, key: DocumentKey, retain: Retain) -> Future[Sequence[Dropped]]:
        self._volume.check_usable()
        return self._writer.between(lambda: self._batches.rotate(key, retain))

    def heed_pins(self, marked: Callable[[str, Sequence[Backup]], Sequence[Backup]]) -> None:
        self._batches.admission.marked = marked

    def snapshot(self, space: str) -> Future[AbstractContextManager[Snapshot]]:
        self._volume.check_usable()
        return self._writer.between(lambda: self._hold_still(space))

    def watch(self, notice: Callable[[DocumentKey, Outcome], None]) -> Callable[[], None]:
        self._watchers.append(notice)
        return lambda: self._watchers.remove(notice)

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

    def usage(self) -> Usage:
        self._volume.check_usable()
        return self._disk_usage.usage()

    def has_reserve(self) -> bool:
        """Whether the emergency space is there."""
        return self._disk_usage.has_reserve()

    def figures(self) -> Figures:
        return self._batches.counting.figures(queued=self._writer.queued, flushes=files.flushes())

    def capabilities(self) -> Sequence[Capability]:
        return self._capabilities.reported

    def incidents(self) -> Sequence[Incident]:
        return list(self._incidents)

    def trouble(self) -> SelineError | None:
        return self._reopener.failure or self._volume.lost() or self._volume.read_only()

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

    def _notice(self, key: DocumentKey, outcome: Outcome) -> None:
        for watcher in list(self._watchers):
            watcher(key, outcome)

    def _names(self, space: str) -> list[str]:
        try:
            names = files.names(self._volume.documents(space))
        except OSError as error:
            raise named(error, "Listing the documents") from error
        reserved = _STATE_REPORTS if space == SELINE else frozenset[str]()
        return sorted(name for name in names if is_document_name(name) and name not in reserved)

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
        if self._reopener.failure is not None and self._overlay.keys:
            raise self._reopener.failure  # what lies there may not be what is, or will be, current
        directory = self._volume.documents(space)
        held: dict[str, FileIdentity] = {}
        for name in self._names(space):
            try:
                held[name] = FileIdentity.of(os.stat(name, dir_fd=directory, follow_symlinks=False))
            except FileNotFoundError:
                continue
        return _holding(self._snapshots, self._snapshots.take(space, held, self._clock.now()))

    def _verify_everything(self, _: Sequence[object]) -> None:
        verify_after_commit(self._committer, self._current_documents, self._names(BOT))


_STATE_REPORTS: Final = frozenset({"server.json"})


@contextmanager
def _holding(snapshots: Snapshots, snapshot: VolumeSnapshot) -> Generator[Snapshot]:
    try:
        yield snapshot
    finally:
        snapshots.release(snapshot)


def _inspector(
    volume: VolumeDirectory, options: VolumeOptions, capabilities: Capabilities, clock: Clock
) -> Inspector:
    return Inspector(
        volume,
        clock=clock,
        settle_s=options.settle_s,
        document_bytes_max=options.document_bytes_max,
        cache_bytes_max=options.cache_bytes_max,
        checksums=capabilities.checksums,
        fine_timestamps=capabilities.fine_timestamps,
    )


def _limit_bytes(options: VolumeOptions, *, own_mount: bool) -> int | None:
    """Return the configured limit; unset, the mount's own size, and 500 MB elsewhere (SPEC §9)."""
    if options.limit_mb is not None:
        return options.limit_mb << 20
    return None if own_mount else DEFAULT_LIMIT_MB << 20


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
