"""The audit log: an append-only file with one line of JSON for each call that changes something.

The file is `.seline/audit.jsonl`. At 1 MiB it is renamed to `audit.jsonl.1` and replaces the
previous one.

V12  The log stays in the directory that was open at the start. It never writes to a directory that
     was mounted over it later.
"""

import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from seline.clock import Clock, instant_text
from seline.domain.document import Json

NAME: Final = "audit.jsonl"
AUDIT_BYTES_MAX: Final = 1 << 20
_log = logging.getLogger("seline.audit")


class AuditLog:
    """Appends to the log of one data directory, in order, on a dedicated thread."""

    def __init__(self, data_dir: str) -> None:
        """Prepare the log of `data_dir`; `open` opens it."""
        self._path = os.path.join(data_dir, ".seline")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="seline-audit")
        self._directory: int | None = None

    def open(self) -> None:
        """Open the directory of the log. Call it when the store of the data directory is open."""
        self._thread.submit(self._open_directory)

    def append(self, entry: Mapping[str, Json]) -> None:
        """Queue a line with `entry` and the instant. A failure is logged, never raised."""
        line = json.dumps({"at": instant_text(Clock().now()), **entry}) + "\n"
        self._thread.submit(self._write, line.encode())

    def close(self) -> None:
        """Write the queued lines and close the log."""
        self._thread.shutdown(wait=True)
        self._close_directory()

    def _write(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if self._directory is None or os.fstat(self._directory).st_nlink == 0:
                self._open_directory()  # it was removed, and the store has created it again
            directory = self._directory
            with open(os.open(NAME, flags, 0o600, dir_fd=directory), "ab", buffering=0) as file:
                file.write(line)
                os.fsync(file.fileno())
                size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > AUDIT_BYTES_MAX:
                os.replace(NAME, f"{NAME}.1", src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as error:
            _log.warning("could not write the audit log: %s", error.strerror)

    def _open_directory(self) -> None:
        self._close_directory()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._directory = os.open(self._path, flags)

    def _close_directory(self) -> None:
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None
