"""Measure how full the volume is, and keep the reserve for emergencies (V9).

A volume that is a mount is measured as `df` does, another one by its files; both are compared with
the configured limit. Other programs' files count too, and are never changed.

A walk over the files measures their sizes: it takes seconds if there are thousands on a slow disk.
So once a minute it runs on another thread, and no save waits for it. What Seline itself adds and
removes is counted at once.
"""

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from seline.domain.document import SELINE
from seline.domain.usage import Usage, blocks, reserve_bytes
from seline.errors import SelineError, StoreClosed
from seline.pacing import paced
from seline.storage.volume import files
from seline.storage.volume.directory import VolumeDirectory

RESERVE_NAME: Final = "reserve"
RESERVED_FILES: Final = ("reserve-1", "reserve-2", "reserve-3")
"""A blank save stages four files: the document, the pins, the record, and a copy if links are
refused."""
_WALK_EVERY_S: Final = 60.0


@dataclass(kw_only=True)
class DiskUsage:
    """Measures one volume. Any thread may call `usage`."""

    volume: VolumeDirectory
    limit_bytes: int | None
    reserve_percent: float
    own_mount: bool
    document_bytes_max: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _walked_at_s: float | None = None
    """When the last walk that counts began."""
    _walk_again_at_s: float = 0.0
    _is_walking: bool = False
    _documents_bytes: int = 0
    _backups_bytes: int = 0
    _files_bytes: int = 0
    _largest_bytes: int = 0
    _documents_added_bytes: int = 0
    _backups_added_bytes: int = 0
    """What was added since the volume was opened, without what was removed."""
    _largest_added_bytes: int = 0
    """The largest document that was saved since the last walk began."""

    def __post_init__(self) -> None:
        self._status = os.fstatvfs(self.volume.top)

    def usage(self, *, fresh: bool = False) -> Usage:
        """Return the usage; the file sizes are those of the last walk, or measured now if `fresh`.

        A call a minute after the last walk begins one and does not wait for it. If the disk fails,
        the last known values are returned.
        """
        if fresh or self._walked_at_s is None:
            self._try_to_walk()
        elif time.monotonic() >= self._walk_again_at_s:
            self._walk_on_a_thread()
        with self._lock:
            status = self._status = self._measured()
            unit = status.f_frsize
            return Usage(
                capacity_bytes=status.f_blocks * unit,
                used_bytes=(status.f_blocks - status.f_bfree) * unit,
                available_bytes=status.f_bavail * unit,
                files_bytes=self._files_bytes,
                documents_bytes=self._documents_bytes,
                backups_bytes=self._backups_bytes,
                inodes_total=status.f_files or None,
                inodes_free=status.f_favail if status.f_files else None,
                limit_bytes=self.limit_bytes,
                own_mount=self.own_mount,
                largest_bytes=self._largest_bytes,
            )

    def moved(
        self,
        documents_bytes: int,
        backups_bytes: int,
        *,
        added_bytes: int = 0,
        largest_bytes: int = 0,
    ) -> None:
        """Add what a commit added or removed, until the next walk.

        `added_bytes` is what it added of documents, without what it removed of others.
        """
        with self._lock:
            self._largest_bytes = max(self._largest_bytes, largest_bytes)
            self._largest_added_bytes = max(self._largest_added_bytes, largest_bytes)
            self._documents_added_bytes += added_bytes
            self._backups_added_bytes += max(0, backups_bytes)
            self._documents_bytes += documents_bytes
            self._backups_bytes += backups_bytes
            self._files_bytes += documents_bytes + backups_bytes

    def discarded(self, size_bytes: int) -> None:
        """Subtract a discarded backup, until the next walk."""
        self.moved(0, -blocks(size_bytes))

    def release_reserve(self) -> bool:
        """Remove the reserve, which frees its blocks and inodes; return False if there was none."""
        released = False
        for name in (RESERVE_NAME, *RESERVED_FILES):
            with contextlib.suppress(OSError):
                files.unlink(self.volume.seline, name)
                released = True
        return released

    def rebuild_reserve(self) -> None:
        """Make a missing reserve if the volume has more than four times its size free."""
        with contextlib.suppress(OSError):
            status = os.fstatvfs(self.volume.top)
            capacity = status.f_blocks * status.f_frsize
            limited = min(capacity, self.limit_bytes) if self.limit_bytes else capacity
            wanted = reserve_bytes(limited, self.reserve_percent)
            if not self.has_reserve() and status.f_bavail * status.f_frsize > 4 * wanted:
                files.reserve(self.volume.seline, RESERVE_NAME, wanted)
            for name in RESERVED_FILES:
                with contextlib.suppress(FileExistsError):
                    files.close(files.stage(self.volume.seline, name, b"", None, time.time_ns()))

    def has_reserve(self) -> bool:
        """Whether the reserve exists."""
        try:
            files.status(self.volume.seline, RESERVE_NAME)
        except OSError:
            return False
        return True

    def _measured(self) -> os.statvfs_result:
        try:
            return os.fstatvfs(self.volume.top)
        except OSError:
            return self._status

    def _walk_on_a_thread(self) -> None:
        """Begin a walk, unless one is running; without a thread the next call tries again."""
        with self._lock:
            if self._is_walking:
                return
            self._is_walking = True
        walking = threading.Thread(target=self._walk_in_pauses, name="seline-usage", daemon=True)
        has_begun = False
        try:
            with contextlib.suppress(RuntimeError):  # at the exit, or there are too many threads
                walking.start()
                has_begun = True
        finally:
            if not has_begun:
                self._is_walking = False

    def _walk_in_pauses(self) -> None:
        try:
            with contextlib.suppress(SelineError), self.volume.in_use():
                self._try_to_walk(in_pauses=True)
        finally:
            self._is_walking = False

    def _try_to_walk(self, *, in_pauses: bool = False) -> None:
        try:
            with contextlib.suppress(OSError):
                self._walk(in_pauses=in_pauses)
        finally:
            self._walk_again_at_s = time.monotonic() + _WALK_EVERY_S

    def _walk(self, *, in_pauses: bool) -> None:
        """Measure the files. Discard the result if a walk that began later has ended.

        What Seline added during the walk is added once more, as the walk may have missed it.
        """
        volume, size_max = self.volume, self.document_bytes_max
        with self._lock:
            began_at_s, self._largest_added_bytes = time.monotonic(), 0
            documents_before, backups_before = (
                self._documents_added_bytes,
                self._backups_added_bytes,
            )

        def sizes(directory: int, size_max: int = 0) -> tuple[int, int, int]:
            names = files.names(directory)
            return _sizes(directory, self._paced(names) if in_pauses else names, size_max)

        spaces = [space for space in volume.spaces if space != SELINE]
        found = [sizes(volume.documents(space), size_max) for space in spaces]
        documents, others, _ = map(sum, zip(*found, strict=True))
        backups = sum(sizes(volume.backups(space))[0] for space in spaces)
        others += sizes(volume.quarantine)[0] + sum(sizes(volume.seline)[:2])
        with self._lock:
            if self._walked_at_s is not None and began_at_s < self._walked_at_s:
                return
            documents += self._documents_added_bytes - documents_before
            backups += self._backups_added_bytes - backups_before
            self._documents_bytes, self._backups_bytes = documents, backups
            self._files_bytes = documents + backups + others
            largest_bytes = max((largest for _, _, largest in found), default=0)
            self._largest_bytes = max(largest_bytes, self._largest_added_bytes)
            self._walked_at_s = began_at_s

    def _paced(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the names, with pauses; raise StoreClosed once the volume is about to be closed."""
        for name in paced(names):
            if self.volume.leaving:
                raise StoreClosed
            yield name


def _sizes(directory: int, names: Iterable[str], size_max: int) -> tuple[int, int, int]:
    """Return the bytes on disk of a directory's .json files, of its others, of the largest .json.

    The reserve counts as free space. The largest is one of at most `size_max` bytes: a larger file
    is no document that a save could replace.
    """
    json_bytes = other_bytes = largest_bytes = 0
    for name in names:
        try:
            status = files.status(directory, name)
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode) or name == RESERVE_NAME:
            continue
        if name.endswith(".json"):
            json_bytes += status.st_blocks * 512
            if status.st_size <= size_max:
                largest_bytes = max(largest_bytes, status.st_size)
        else:
            other_bytes += status.st_blocks * 512
    return json_bytes, other_bytes, largest_bytes
