"""A spool: bytes in memory while they are few, else in an unnamed temporary file."""

import errno
import io
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import IO, Final

from seline.errors import StorageError, VolumeFull

HELD_BYTES_MAX: Final = 8 << 20
"""An upload of this size needs no temporary file, so a full disk does not stop it."""
SENT_FROM_MEMORY_BYTES_MAX: Final = 256 << 10


class Spool:
    """Bytes that one writer appends and any thread reads by span.

    The file is closed by `close`, else with the last reference to the spool. A call that begins
    after `close` raises ValueError: another file may have the descriptor by then.
    """

    def __init__(self, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self.size_bytes = 0
        self.descriptor: int | None = None
        """The temporary file, None while the bytes are in memory."""
        self._held = bytearray()
        self._held_bytes_max = held_bytes_max
        self._closing: Callable[[], object] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._users = 0
        """How many calls use the bytes now; the last one closes the file."""

    def holds(self, data: bytes) -> bool:
        """Whether `append` of these bytes stays in memory, so that it does not block."""
        return self.descriptor is None and self.size_bytes + len(data) <= self._held_bytes_max

    def append(self, data: bytes) -> int:
        """Append bytes and return their offset. Raises StorageError."""
        with self._use():
            offset = self.size_bytes
            if self.holds(data):
                self._held += data
            else:
                descriptor, rest = self.spill(), memoryview(data)
                with temporary_space():
                    while rest:
                        rest = rest[os.pwrite(descriptor, rest, offset + len(data) - len(rest)) :]
            self.size_bytes = offset + len(data)
            return offset

    def keep(self, data: bytes) -> Callable[[], bytes]:
        """Append bytes and return the function that reads them. Raises StorageError."""
        return partial(self.read, self.append(data), len(data))

    def spill(self) -> int:
        """Move the bytes into the temporary file and return it. Blocks. Raises StorageError."""
        with self._use():
            if self.descriptor is None:
                with temporary_space(), tempfile.TemporaryFile() as file:
                    file.write(self._held)
                    file.flush()
                    self.descriptor = os.dup(file.fileno())
                self._closing = weakref.finalize(self, os.close, self.descriptor)
                self._held.clear()
            return self.descriptor

    def opened(self) -> IO[bytes]:
        """Return a file that reads the bytes from their start; the caller closes it."""
        with self._use():
            if self.descriptor is None:
                return io.BytesIO(self._held)
            file = os.fdopen(os.dup(self.descriptor), "rb")
            file.seek(0)
            return file

    def close(self) -> None:
        """Close the file, after the calls in progress and without a wait; idempotent."""
        with self._lock:
            self._closed = True
            self._close_unused()

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return a span of the bytes. Raises StorageError."""
        with self._use():
            if self.descriptor is None:
                return bytes(self._held[offset : offset + size_bytes])
            pieces: list[bytes] = []
            with temporary_space():
                while size_bytes > 0 and (piece := os.pread(self.descriptor, size_bytes, offset)):
                    pieces.append(piece)
                    offset, size_bytes = offset + len(piece), size_bytes - len(piece)
            return b"".join(pieces)

    @contextmanager
    def _use(self) -> Generator[None]:
        """Keep the file open during the block."""
        with self._lock:
            if self._closed:
                raise ValueError("The spool is closed.")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._close_unused()

    def _close_unused(self) -> None:
        if self._closed and not self._users and self._closing is not None:
            self._closing()


def spooled(data: bytes) -> Spool:
    """Return bytes in a spool: in memory if they are few, or if there is no room. Blocks."""
    spool = Spool(SENT_FROM_MEMORY_BYTES_MAX)
    try:
        spool.append(data)
    except StorageError:
        spool = Spool(len(data))
        spool.append(data)
    return spool


@contextmanager
def temporary_space() -> Generator[None]:
    """Raise VolumeFull where the directory for temporary files is full, else StorageError."""
    try:
        yield
    except OSError as error:
        kind = VolumeFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(
            f"The directory for temporary files refuses this transfer: {error.strerror}. "
            "Nothing was changed.",
            hint="Free space there, or set TMPDIR to a directory on a larger disk.",
        ) from error
