"""The journal: two files of fixed size that take turns.

V3  A batch is durable once `append` returns: one write and one sync of the file's data.
V7  A batch whose write failed is overwritten, and was never acknowledged. After a failed sync its
    outcome is unknown, until the files are read from the disk.

A file is `clean` while everything in it is in the documents' files, durably. The first batch of a
clean file is written with its header, in the same sync. Only the writer's thread appends;
`mark_clean` may run on another thread, for the file that takes no batches.
"""

import contextlib
import errno
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from seline.storage.volume import files
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.journal.codec import (
    BLOCK_BYTES,
    FIRST_BATCH_AT,
    SLOTS,
    Batch,
    Header,
    ReadBatch,
    batches,
    decode_header,
    encode_batch,
    encode_header,
    has_gap,
    next_epoch,
)
from seline.storage.volume.known_names import KnownNames
from seline.storage.volume.os_errors import DirectoryFailed, InDoubt, StagingFailed, raising

JOURNAL_NAMES: Final = ("journal-a", "journal-b")
_NEW: Final = Header(0, 0, is_clean=True)
_WRITING: Final = "Writing the journal"


@dataclass(slots=True)
class JournalFile:
    """One open file of the journal, with its header and the end of its last batch.

    `is_headless`: both headers are damaged. A file that is new has zeros in one of them.
    """

    name: str
    descriptor: int
    size_bytes: int
    header: Header = _NEW
    tail: int = FIRST_BATCH_AT
    is_headless: bool = False

    def read(self) -> list[ReadBatch]:
        """Read the header and the batches that are not in the documents' files yet, from the disk.

        Without a header these are the batches of the last use. Raises OSError, and
        UnsupportedFormat for a journal of a newer Seline.
        """
        files.drop_pages(self.descriptor)
        self.read_header()
        epoch = self.header.epoch
        found = list(
            batches(self.bytes(), after_epoch=epoch if self.header.is_clean else epoch - 1)
        )
        if self.is_headless:
            latest = max((batch.epoch for batch in found), default=0)
            found = [batch for batch in found if batch.epoch == latest]
        if found:
            self.header = Header(self.header.number, found[-1].epoch, is_clean=False)
        self.tail = max((batch.end for batch in found), default=FIRST_BATCH_AT)
        return found

    def read_header(self) -> None:
        """Read the header; a file without one is new. Raises OSError and UnsupportedFormat."""
        data = os.pread(self.descriptor, FIRST_BATCH_AT, 0)
        slots = [data[at : at + BLOCK_BYTES] for at in range(0, FIRST_BATCH_AT, BLOCK_BYTES)]
        headers = [header for slot in slots if (header := decode_header(slot)) is not None]
        self.header = max(headers, default=_NEW)
        self.is_headless = not headers and all(slot.strip(b"\0") for slot in slots)

    def bytes(self) -> bytes:
        """Return the whole file. Raises OSError."""
        return os.pread(self.descriptor, self.size_bytes, 0)

    def erase(self) -> None:
        """Overwrite what earlier uses left by zeros, durably (for a purge).

        Raises StagingFailed, and DirectoryFailed after a failed sync.
        """
        with raising(StagingFailed, "Erasing the journal"):
            files.overwrite(self.descriptor, bytes(self.size_bytes - self.tail), self.tail)
        with raising(DirectoryFailed, "Erasing the journal"):
            files.sync_data(self.descriptor)

    def write_header(self, header: Header) -> None:
        """Write a header to the slot of its number, without a sync. Raises OSError."""
        slot = header.number % SLOTS
        files.overwrite(self.descriptor, encode_header(header), slot * BLOCK_BYTES)

    def mark_clean(self) -> None:
        """Note, durably and in both slots, that everything is in the documents' files."""
        for number in (self.header.number + 1, self.header.number + 2):
            header = Header(number, self.header.epoch, is_clean=True)
            self.write_header(header)
            files.sync_data(self.descriptor)
        self.tail = FIRST_BATCH_AT
        self.header = header  # last: another thread waits for it


class Journal:
    """The two files; one is active, and takes the batches."""

    def __init__(self, journal_files: Sequence[JournalFile]) -> None:
        """Begin with files that were read and are clean."""
        self.files = journal_files
        self.active = journal_files[0]
        self._inodes = [os.fstat(file.descriptor).st_ino for file in journal_files]
        self._names = KnownNames()
        self._number = 0

    @property
    def other(self) -> JournalFile:
        """The file that takes no batches now."""
        return self.files[self.active is self.files[0]]

    @property
    def batch_bytes_max(self) -> int:
        """The size of the largest batch."""
        return (self.active.size_bytes - FIRST_BATCH_AT) // 4

    def has_room_for(self, size_bytes: int) -> bool:
        """Whether a batch fits into the active file."""
        return self.active.tail + size_bytes <= self.active.size_bytes

    def append(self, batch: Batch) -> None:
        """Make a batch durable. Raises StagingFailed (it was not made) or InDoubt."""
        file, header = self.active, self.active.header
        if header.is_clean:
            latest = max(file.header.epoch for file in self.files)
            header = Header(header.number + 1, next_epoch(latest), is_clean=False)
        data = self._encoded(batch, header.epoch)
        try:
            if header is not file.header:
                file.write_header(header)
            files.overwrite(file.descriptor, data, file.tail)
        except OSError as error:
            self._take_back(file, error)
        with raising(InDoubt, "Syncing the journal"):
            files.sync_data(file.descriptor)
        file.header = header
        file.tail += len(data)
        self._number += 1

    def _encoded(self, batch: Batch, epoch: int) -> bytes:
        """Return the batch's blocks, without the dropped backups if these take too much space.

        A replay may write a backup that was dropped. Raises StagingFailed if there is no room.
        """
        data = encode_batch(batch, epoch=epoch, number=self._number + 1)
        if not self.has_room_for(len(data)):
            batch = Batch(changes=batch.changes)
            data = encode_batch(batch, epoch=epoch, number=self._number + 1)
        if not self.has_room_for(len(data)):
            raise StagingFailed(OSError(errno.ENOSPC, "the journal is full"), _WRITING)
        return data

    def _take_back(self, file: JournalFile, error: OSError) -> NoReturn:
        """Overwrite the beginning of a batch that failed: the kernel may have all of it.

        A file system that is read-only by now took at most its beginning, and takes no zeros.
        """
        try:
            files.overwrite(file.descriptor, bytes(BLOCK_BYTES), file.tail)
        except OSError as again:
            if error.errno != errno.EROFS or again.errno != errno.EROFS:
                raise InDoubt(again, _WRITING) from again
        raise StagingFailed(error, _WRITING) from error

    def is_in_place(self, volume: VolumeDirectory) -> bool:
        """Whether the files have their names; another program may have removed them."""
        try:
            directory = os.fstat(volume.seline)
            if self._names.are_unchanged(directory):
                return True
            named = [files.status(volume.seline, file.name).st_ino for file in self.files]
        except OSError:
            return False
        if named != self._inodes:
            return False
        self._names.note(directory)
        return True

    def remove_others(self, volume: VolumeDirectory) -> None:
        """Remove what another program put under the files' names; the caller syncs the directory.

        A start would replay an earlier copy. Raises StagingFailed.
        """
        with raising(StagingFailed, "Replacing the journal"):
            for file, inode in zip(self.files, self._inodes, strict=True):
                with contextlib.suppress(FileNotFoundError):
                    named = files.status(volume.seline, file.name).st_ino
                    if named != inode:
                        files.unlink(volume.seline, file.name)

    def switch(self) -> None:
        """Let the other file take the batches from now on.

        Raises DirectoryFailed if it is not clean: what it has would be overwritten.
        """
        if not self.other.header.is_clean:
            error = OSError(f"{self.other.name} is not clean")
            raise DirectoryFailed(error, "Syncing the documents")
        self.active = self.other

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            files.close(file.descriptor)


def open_journal_files(volume: VolumeDirectory) -> list[JournalFile]:
    """Open the files that exist, for reading only if the volume is. Raises OSError."""
    opened: list[JournalFile] = []
    is_read_only = volume.read_only() is not None
    with _closed_on_error(opened):
        for name in JOURNAL_NAMES:
            with contextlib.suppress(FileNotFoundError):
                how = files.open_to_read if is_read_only else files.open_to_overwrite
                descriptor = how(volume.seline, name)
                opened.append(JournalFile(name, descriptor, os.fstat(descriptor).st_size))
    return opened


def damaged(journal_files: Sequence[JournalFile], found: Sequence[ReadBatch]) -> list[JournalFile]:
    """Return the files in which a batch is missing that was durable, or both headers."""
    missing: list[JournalFile] = []
    for file in journal_files:
        epoch = file.header.epoch
        own = [read for read in found if read.epoch == epoch]
        later = (read.number for read in found if read.epoch > epoch)
        is_used = own or not file.header.is_clean
        if file.is_headless or (is_used and has_gap(own, min(later, default=None))):
            missing.append(file)
    return missing


@contextlib.contextmanager
def opened_journal_files(volume: VolumeDirectory) -> Generator[list[JournalFile]]:
    """Open the files that exist until the block ends. Raises StorageError."""
    with raising(volume.named, "Opening the journal"):
        opened = open_journal_files(volume)
    try:
        yield opened
    finally:
        for file in opened:
            files.close(file.descriptor)


def allocate_journal_files(volume: VolumeDirectory, size_bytes: int) -> list[JournalFile]:
    """Open both files; make those that are missing or have another size.

    Everything that a journal had is in the documents' files, so one that is not clean was put there
    a moment ago by another program: it is marked clean. Raises OSError.
    """
    for name in JOURNAL_NAMES:
        try:
            is_whole = files.status(volume.seline, name).st_size == size_bytes
        except FileNotFoundError:
            is_whole = False
        if not is_whole:
            files.unlink(volume.seline, name, missing_ok=True)
            files.allocate(volume.seline, name, size_bytes)
    opened = open_journal_files(volume)
    with _closed_on_error(opened):
        for file in opened:
            file.read_header()
            if not file.header.is_clean:  # else its old batches would follow the new ones
                file.mark_clean()
    return opened


@contextlib.contextmanager
def _closed_on_error(opened: Sequence[JournalFile]) -> Generator[None]:
    """Close the files if the block raises; it is tried again where descriptors have run out."""
    try:
        yield
    except BaseException:
        for file in opened:
            files.close(file.descriptor)
        raise
