"""Make the files durable that were published without a sync.

V3  A journal file is marked clean only after this returned without an error.
"""

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from seline.domain.document import DocumentKey, Revision
from seline.storage.volume import files
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit.sync_threads import SyncThreads
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.journal.journal import JournalFile
from seline.storage.volume.os_errors import DirectoryFailed

OPEN_FILES_MAX: Final = 64
"""How many files a checkpoint has open at once."""


class Touched(NamedTuple):
    """A file that was published: a document, or a backup of one."""

    space: str
    name: str
    is_backup: bool = False


@dataclass(slots=True)
class Responsible:
    """The documents that one journal file has, and the files to sync before it is clean."""

    keys: dict[DocumentKey, Revision | None] = field(
        default_factory=dict[DocumentKey, "Revision | None"]
    )
    touched: set[Touched] = field(default_factory=set[Touched])
    since_s: float = 0.0


class Checkpoint:
    """Syncs what an ended journal file has, on another thread; then the file is clean.

    `ending` is what that file has, until the checkpoint succeeds.
    """

    def __init__(self, volume: VolumeDirectory, capabilities: Capabilities) -> None:
        """Begin without one in progress."""
        self.ending = Responsible()
        self._volume = volume
        self._capabilities = capabilities
        self._running: Future[None] | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def is_running(self) -> bool:
        """Whether a checkpoint was begun whose result was not looked at."""
        return self._running is not None

    def start(self, file: JournalFile, ending: Responsible) -> None:
        """Begin a checkpoint; at the interpreter's exit, when no thread starts, do it here."""
        self.ending, touched = ending, set(ending.touched)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="seline-checkpoint")
        try:
            self._running = self._pool.submit(self._end, file, touched)
        except RuntimeError:
            done = self._running = Future[None]()
            try:
                self._end(file, touched)
                done.set_result(None)
            except OSError as error:
                done.set_exception(error)

    def check(self) -> None:
        """Raise DirectoryFailed if the checkpoint in progress has failed."""
        if self._running is not None and self._running.done():
            self.wait(check=True)

    def wait(self, *, check: bool = False) -> None:
        """Wait for the checkpoint in progress; `check`: raise DirectoryFailed if it failed."""
        running, self._running = self._running, None
        if running is None:
            return
        error = running.exception()
        if error is None:
            self.ending = Responsible()
        elif check and isinstance(error, OSError):
            raise DirectoryFailed(error, "Syncing the documents") from error
        elif check:
            raise error

    def close(self) -> None:
        """Wait for the checkpoint in progress, and end its thread."""
        self.wait()
        if self._pool is not None:
            self._pool.shutdown()

    def _end(self, file: JournalFile, touched: Collection[Touched]) -> None:
        sync_published(self._volume, self._capabilities, touched)
        try:
            file.mark_clean()
        except OSError:  # everything is durable; a file whose sync failed is not used again
            files.unlink(self._volume.seline, file.name)
            raise


def sync_published(
    volume: VolumeDirectory, capabilities: Capabilities, touched: Collection[Touched]
) -> None:
    """Sync the whole file system where one call does that, else these files and all directories.

    Raises OSError.
    """
    if capabilities.syncs_whole and files.syncs_filesystems():
        files.sync_filesystem(volume.top)
        return
    left = iter(touched)
    with closing(SyncThreads()) as threads:
        while some := list(islice(left, OPEN_FILES_MAX)):
            with ExitStack() as stack:
                opened = [_open(volume, file, stack) for file in some]
                threads.sync_files([one for one in opened if one is not None])
    for directory in volume.directories:
        files.sync(directory)


def _open(volume: VolumeDirectory, file: Touched, stack: ExitStack) -> int | None:
    """Open a file until the stack ends; None if it was rotated, or removed by another program."""
    directory_of = volume.backups if file.is_backup else volume.documents
    with suppress(FileNotFoundError, files.NotRegular):
        descriptor = files.open_to_read(directory_of(file.space), file.name)
        return stack.enter_context(files.closing(descriptor))
    return None
