"""Make the files durable that were published without a sync.

V3  A journal file is marked clean only after this returned without an error.
"""

import errno
import time
from collections.abc import Collection
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from typing import Final, NamedTuple

from seline.domain.document import DocumentKey, Revision
from seline.ports.futures import run_once
from seline.storage.volume import files
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit.sync_threads import SyncThreads
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.journal.journal import JournalFile
from seline.storage.volume.os_errors import DirectoryFailed

OPEN_FILES_MAX: Final = 32
"""How many files a checkpoint has open at once: twice as many as its threads sync."""
TRIES_MAX: Final = 50
RETRY_S: Final = 0.1
"""How often, and after which pause, it looks again for a free descriptor."""


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

    @property
    def is_running(self) -> bool:
        """Whether a checkpoint was begun whose result was not looked at."""
        return self._running is not None

    def start(self, file: JournalFile, ending: Responsible) -> None:
        """Begin a checkpoint; do it here if no thread starts: at the exit, or there are too many.

        A pool of threads would keep it in its queue then, and do it again later.
        """
        self.ending, touched = ending, set(ending.touched)
        self._running = Future[None]()
        run = run_once(partial(self._end, file, touched), self._running)
        try:
            Thread(target=run, name="seline-checkpoint").start()
        except RuntimeError:
            run()
        except BaseException:
            if self._running.cancel():  # the thread has not begun
                self._running = None
            raise

    def check(self) -> None:
        """Raise DirectoryFailed if the checkpoint in progress has failed."""
        if self._running is not None and self._running.done():
            self.wait(check=True)

    def wait(self, *, check: bool = False) -> None:
        """Wait for the checkpoint in progress; `check`: raise DirectoryFailed if it failed."""
        if self._running is None:
            return
        error = self._running.exception()
        self._running = None  # not before: Ctrl-C may end the waiting
        if error is None:
            self.ending = Responsible()
        elif check:
            cause = error if isinstance(error, OSError) else OSError(repr(error))
            raise DirectoryFailed(cause, "Syncing the documents") from error

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
    left = sorted(touched)
    with closing(SyncThreads()) as threads:
        while left:
            with ExitStack() as stack:
                threads.sync_files(_open_some(volume, left, stack))
    for directory in volume.directories:
        files.sync(directory)


def _open_some(volume: VolumeDirectory, left: list[Touched], stack: ExitStack) -> list[int]:
    """Take files from the end of `left`, and open them until the stack ends.

    They are fewer where descriptors run out; without any, it waits for one. A file is left out that
    was rotated, or that another program removed or replaced by a link or a directory.
    """
    opened: list[int] = []
    tries = 0
    while left and len(opened) < OPEN_FILES_MAX:
        file = left[-1]
        directory_of = volume.backups if file.is_backup else volume.documents
        try:
            descriptor = files.open_to_read(directory_of(file.space), file.name)
            opened.append(stack.enter_context(files.closing(descriptor)))
        except (FileNotFoundError, files.NotRegular):
            pass
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or tries == TRIES_MAX:
                raise
            if opened:
                break
            tries += 1
            time.sleep(RETRY_S)
            continue
        left.pop()
    return opened
