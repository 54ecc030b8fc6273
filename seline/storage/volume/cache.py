"""The sound contents that memory holds, bounded in bytes.

An entry is a document's encoded bytes with its file's identity (inode, mtime, ctime, size): a hit
costs one stat, a hand edit is a miss, and no caller can change what another one reads.
"""

import threading
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from seline.domain.document import Content, DocumentKey
from seline.storage.volume.files import FileIdentity

Remembered: TypeAlias = tuple[FileIdentity, Content]


@dataclass(slots=True, eq=False)
class Reading:
    """A read of a document's file. Once a change overtook it, what it read is an earlier content.

    The later one may be in memory alone: the disk may corrupt it.
    """

    key: DocumentKey
    is_overtaken: bool = False


class Cache:
    """Sound contents by document; the least recently read one is dropped first. Any thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: OrderedDict[DocumentKey, Remembered] = OrderedDict()
        self._readings: dict[DocumentKey, list[Reading]] = {}
        self._lock = threading.RLock()

    def get(self, key: DocumentKey) -> Remembered | None:
        """Return the last known content of a document, current or not."""
        entry = self._entries.get(key)
        try:  # noqa: SIM105  # each load comes here, and `suppress` takes longer than the rest
            self._entries.move_to_end(key)
        except KeyError:  # there is none, or another thread dropped it
            pass
        return entry

    @contextmanager
    def reading(self, key: DocumentKey) -> Generator[Reading]:
        """Yield a read for the block in which a document's file is read and judged."""
        reading = Reading(key)
        with self._lock:
            self._readings.setdefault(key, []).append(reading)
        try:
            yield reading
        finally:
            with self._lock:
                self._readings[key].remove(reading)
                if not self._readings[key]:
                    del self._readings[key]

    @contextmanager
    def unless_overtaken(self, reading: Reading) -> Generator[bool]:
        """Yield whether no change overtook a read; none does in the block."""
        with self._lock:
            yield not reading.is_overtaken

    def put(self, key: DocumentKey, identity: FileIdentity, content: Content) -> None:
        """Keep a sound content, unless it is larger than the whole cache.

        What was read is kept in a block of `unless_overtaken`.
        """
        with self._lock:
            self._drop(key)
            if content.size_bytes > self._bytes_max:
                return
            self._entries[key] = (identity, content)
            self._bytes += content.size_bytes
            while self._bytes > self._bytes_max:
                self._drop(next(iter(self._entries)))

    @contextmanager
    def overtaking(self, key: DocumentKey) -> Generator[None]:
        """Drop a document's content and mark the reads that run now: the block may put another."""
        with self._lock:
            self._overtake(key)
            self._drop(key)
            yield

    def drop_if(self, key: DocumentKey, known: Remembered | None) -> bool:
        """Drop the content of a document if it is still `known`, and return whether it is."""
        with self._lock:
            is_known = self._entries.get(key) is known
            if is_known:
                self._drop(key)
            return is_known

    def clear(self) -> None:
        """Drop every content."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
            for key in self._readings:
                self._overtake(key)

    def expire(self, key: DocumentKey) -> None:
        """Make the next read miss; the content stays as the last known one."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries[key] = (entry[0]._replace(ctime_ns=-1), entry[1])

    def _overtake(self, key: DocumentKey) -> None:
        for reading in self._readings.get(key, ()):
            reading.is_overtaken = True

    def _drop(self, key: DocumentKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1].size_bytes
