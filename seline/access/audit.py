"""The audit log: one line of JSON for each call that changes something, append-only, bounded.

`.seline/audit.jsonl`; at 1 MiB it becomes `audit.jsonl.1`, and the one before that goes.

V12  It goes on in the directory that was held when it began: what is mounted in its place later is
     not ours to write to.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from seline.clock import Clock, SystemClock, instant_text
from seline.domain.document import Json

NAME: Final = "audit.jsonl"
AUDIT_BYTES_MAX: Final = 1 << 20
_log = logging.getLogger("seline.audit")


class AuditLog:
    """Appends to the log of one data directory, one line after another on a thread of its own."""

    def __init__(self, data_dir: str, *, clock: Clock | None = None) -> None:
        """Name the data directory; nothing is opened until `begin`."""
        self._path = os.path.join(data_dir, ".seline")
        self._clock = clock or SystemClock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="seline-audit")
        self._directory: int | None = None

    def begin(self) -> None:
        """Hold on to the directory as it is now: the store that owns it has just been opened."""
        self._thread.submit(self._hold)

    def note(self, entry: Mapping[str, Json]) -> None:
        """Append `entry` with the instant; a failure is logged, never raised."""
        line = json.dumps({"at": instant_text(self._clock.now()), **entry}) + "\n"
        self._thread.submit(self._append, line.encode())

    def close(self) -> None:
        """Write what was noted."""
        self._thread.shutdown(wait=True)
        self._let_go()

    def _append(self, line: bytes) -> None:
        try:
            self._write(line)
        except OSError as error:
            _log.warning("the audit log cannot be written: %s", error.strerror)

    def _write(self, line: bytes) -> None:
        if self._directory is None or os.fstat(self._directory).st_nlink == 0:
            self._hold()  # it was removed, and the store makes it anew
        directory = self._directory
        assert directory is not None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(NAME, flags, 0o600, dir_fd=directory)
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if size > AUDIT_BYTES_MAX:
            os.replace(NAME, f"{NAME}.1", src_dir_fd=directory, dst_dir_fd=directory)

    def _hold(self) -> None:
        self._let_go()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._directory = os.open(self._path, flags)

    def _let_go(self) -> None:
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None
