"""The audit log: one line of JSON for each call that changes something, append-only, bounded.

`.seline/audit.jsonl`; at 1 MiB it becomes `audit.jsonl.1`, and the one before that goes.
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

AUDIT_BYTES_MAX: Final = 1 << 20
_log = logging.getLogger("seline.audit")


class AuditLog:
    """Appends to the log of one data directory, one line after another on a thread of its own."""

    def __init__(self, data_dir: str, *, clock: Clock | None = None) -> None:
        """Append to `<data dir>/.seline/audit.jsonl`; nothing is opened yet."""
        self._path = os.path.join(data_dir, ".seline", "audit.jsonl")
        self._clock = clock or SystemClock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="seline-audit")

    def note(self, entry: Mapping[str, Json]) -> None:
        """Append `entry` with the instant; a failure is logged, never raised."""
        line = json.dumps({"at": instant_text(self._clock.now()), **entry}) + "\n"
        self._thread.submit(self._append, line.encode())

    def close(self) -> None:
        """Write what was noted."""
        self._thread.shutdown(wait=True)

    def _append(self, line: bytes) -> None:
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.write(descriptor, line)
                os.fsync(descriptor)
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if size > AUDIT_BYTES_MAX:
                os.replace(self._path, f"{self._path}.1")
        except OSError as error:
            _log.warning("the audit log cannot be written: %s", error.strerror)
