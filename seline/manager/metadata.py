"""`metadata.json`: a report on the volume for a person who reads the files by hand.

It is written after a change of a document: at close, and at most every five minutes before. A
process that changes nothing writes nothing. It is no document: nothing depends on it but the
numbers that it carries from one process to the next.
"""

import threading
from datetime import datetime
from typing import Final, TypedDict

from seline.clock import Clock, instant_text, parse_instant
from seline.domain.document import BOT, DocumentKey
from seline.domain.json_codec import NotJson, decode, encode
from seline.domain.usage import Usage, megabytes
from seline.errors import SelineError
from seline.ports.store import DocumentStore, Outcome

SCHEMA_VERSION: Final = "1.0.0"
WRITE_EVERY_S: Final = 300.0


class StorageFigures(TypedDict):
    """How much is stored."""

    total_size_mb: float
    backup_size_mb: float
    usage_percent: float


class MetadataReport(TypedDict):
    """What `metadata.json` holds."""

    schema_version: str
    created_at: str
    last_backup: str | None
    last_updated: str | None
    total_writes: int
    storage_info: StorageFigures


class Metadata:
    """Counts the changes of the bot's documents and writes the report. Any thread."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        """Continue from the report of the process before."""
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._written_at_s = clock.monotonic()
        self._created_at = clock.now()
        self._writes = 0
        self._unwritten = False
        self._last_updated: datetime | None = None
        self.last_backup_at: datetime | None = None
        self.usage = store.medium.usage()
        """The usage as of the last report."""
        self._read()
        store.watch(self._count)

    def value(self, usage: Usage) -> MetadataReport:
        """Return the report."""
        return {
            "schema_version": SCHEMA_VERSION,
            "created_at": instant_text(self._created_at),
            "last_backup": _text(self.last_backup_at),
            "last_updated": _text(self._last_updated),
            "total_writes": self._writes,
            "storage_info": {
                "total_size_mb": megabytes(usage.files_bytes),
                "backup_size_mb": megabytes(usage.backups_bytes),
                "usage_percent": round(usage.usage_ratio * 100, 2),
            },
        }

    def write(self, *, wait_s: float = 0.0) -> None:
        """Write the report if a document was changed since the last one; wait up to `wait_s`.

        A failure has no consequence.
        """
        with self._lock:
            unwritten, self._unwritten = self._unwritten, False
        if not unwritten:
            return
        try:
            self.usage = self._store.medium.usage()
            future = self._store.medium.write_report(encode(self.value(self.usage)))
            if wait_s:
                future.exception(timeout=wait_s)
        except (SelineError, OSError, TimeoutError):
            return

    def _count(self, key: DocumentKey, outcome: Outcome) -> None:
        if key.space != BOT:
            return
        with self._lock:
            self._writes += 1
            self._unwritten = True
            self._last_updated = self._clock.now()
            if outcome.backup is not None:
                self.last_backup_at = self._last_updated
            now_s = self._clock.monotonic()
            due = now_s - self._written_at_s >= WRITE_EVERY_S
            if due:
                self._written_at_s = now_s
        if due:
            self.write()

    def _read(self) -> None:
        """Continue with the values of the report, as far as it can be read."""
        try:
            report = decode(self._store.medium.read_report() or b"{}")
            if not isinstance(report, dict):
                return
            writes = report.get("total_writes", 0)
            self._created_at = parse_instant(str(report["created_at"]))
            self.last_backup_at = _instant(report.get("last_backup"))
            self._last_updated = _instant(report.get("last_updated"))
            self._writes = writes if isinstance(writes, int) else 0
        except (NotJson, KeyError, ValueError):
            return


def _instant(text: object) -> datetime | None:
    return parse_instant(text) if isinstance(text, str) else None


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant_text(instant)
