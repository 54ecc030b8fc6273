"""The sound contents that memory holds, bounded in bytes.

An entry is a document's encoded bytes with its file's identity (inode, mtime, ctime, size): a hit
costs one stat, a hand edit is a miss, and no caller can change what another one reads.
"""

import threading
from collections import OrderedDict
from typing import TypeAlias

from seline.domain.document import Content, DocumentKey
from seline.storage.volume.files import FileIdentity

Remembered: TypeAlias = tuple[FileIdentity, Content]


class Cache:
    """Sound contents by document; the least recently read one is dropped first. Any thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: OrderedDict[DocumentKey, Remembered] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: DocumentKey) -> Remembered | None:
        """Return the last known content of a document, current or not."""
        entry = self._entries.get(key)
        try:  # noqa: SIM105  # each load comes here, and `suppress` takes longer than the rest
            self._entries.move_to_end(key)
        except KeyError:  # there is none, or another thread dropped it
            pass
        return entry

    def put(self, key: DocumentKey, identity: FileIdentity, content: Content) -> None:
        """Keep a content that was committed, unless it is larger than the whole cache."""
        with self._lock:
            self._put(key, identity, content)

    def put_read(
        self, key: DocumentKey, known: Remembered | None, identity: FileIdentity, content: Content
    ) -> bool:
        """Keep a content that was read, and return whether `known` was still there.

        `known` is what `get` returned before the read: a commit during it may have left a later
        content, which memory alone has if the disk corrupts it.
        """
        with self._lock:
            if self._entries.get(key) is not known:
                return False
            self._put(key, identity, content)
            return True

    def drop(self, key: DocumentKey) -> None:
        """Drop the content of one document."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Drop every content."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def expire(self, key: DocumentKey) -> None:
        """Make the next read miss; the content stays as the last known one."""
        entry = self.get(key)
        if entry is not None:
            self.put_read(key, entry, entry[0]._replace(ctime_ns=-1), entry[1])

    def _put(self, key: DocumentKey, identity: FileIdentity, content: Content) -> None:
        self._drop(key)
        if content.size_bytes > self._bytes_max:
            return
        self._entries[key] = (identity, content)
        self._bytes += content.size_bytes
        while self._bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: DocumentKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1].size_bytes
