"""The audit log: an append-only file with one line of JSON for each call that changes something.

The file is `.seline/audit.jsonl`. At 1 MiB its lines move to `audit.jsonl.1`, which keeps the
newest lines of each caller: a caller with many calls cannot remove the lines of another. `read`
returns both, newest first.

V12  The log stays in the directory that was open at the start. It never writes to a directory that
     was mounted over it later.
"""

import json
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

import msgspec

from seline.clock import Clock, instant_text, parse_instant
from seline.cures import Cure, cure_of, not_regular
from seline.domain.stored import Stored
from seline.errors import DocumentUnreadable, InvalidRequest, StoreClosed, VolumeBusy
from seline.manager.awaited_store import READ_S
from seline.manager.call_record import CallRecord, DocumentChange
from seline.owner import give_to_owner_of
from seline.ports.futures import wait_for

NAME: Final = "audit.jsonl"
AUDIT_BYTES_MAX: Final = 1 << 20
TEXT_MAX: Final = 320
"""More than the address of any route with valid names."""
CHANGES_MAX: Final = 5
"""How many documents a line names; it has the count of all."""
ENTRIES_MAX: Final = 1_000
"""How many entries one page may have."""
_CURSOR: Final = re.compile(r"(?P<at>[^~]{1,40})(?:~(?P<left>[0-9]{1,9}))?")
_Cursor: TypeAlias = tuple[datetime, int]
"""An instant, and how many entries of its second are older than the cursor."""
_writing: Final = threading.Lock()
"""Held while a line is written: a process may have several `AuditLog` of one directory."""
_log = logging.getLogger("seline.audit")


class AuditEntry(Stored, frozen=True, kw_only=True):
    """One call that may have changed something.

    `changes` has the first CHANGES_MAX documents that it changed, `changed` is the count of all.
    `outcome` is the HTTP status, or the code of the error.
    """

    at: datetime
    who: str
    what: str
    outcome: str
    changes: tuple[DocumentChange, ...] = ()
    changed: int = 0


class AuditPage(NamedTuple):
    """Entries, newest first. `next` continues after them, empty at the end.

    `damaged` is how many lines of the whole log could not be read.
    """

    entries: Sequence[AuditEntry]
    next: str
    damaged: int


def fair_lines(lines: Sequence[bytes], bytes_max: int) -> list[bytes]:
    """Return the newest lines of each caller, within an equal share of `bytes_max` for each.

    What a caller does not need of its share is for the others. The order stays.
    """
    by_caller: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        by_caller.setdefault(_caller(line), []).append(number)
    sizes = {who: sum(len(lines[at]) for at in own) for who, own in by_caller.items()}
    kept: list[int] = []
    for left, who in zip(
        range(len(sizes), 0, -1), sorted(sizes, key=sizes.__getitem__), strict=True
    ):
        share = min(sizes[who], bytes_max // left)
        bytes_max -= share
        for number in reversed(by_caller[who]):
            share -= len(lines[number])
            if share < 0:
                break
            kept.append(number)
    return [lines[number] for number in sorted(kept)]


class AuditLog:
    """Appends to the log of one data directory, in order, on a dedicated thread."""

    def __init__(self, data_dir: str) -> None:
        """Prepare the log of `data_dir`; `open` opens it."""
        self._path = os.path.join(data_dir, ".seline")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="seline-audit")
        self._directory: int | None = None
        self._queued: list[bytes] = []
        self._queue_lock = threading.Lock()

    def open(self) -> None:
        """Open the directory of the log. Call it when the store of the data directory is open."""
        with suppress(RuntimeError):  # no thread starts; a write opens it, too
            self._thread.submit(self._open_directory)

    def append(
        self, *, who: str, what: str, outcome: str, record: CallRecord | None = None
    ) -> None:
        """Queue a line about a call, as of now. A failure is logged, never raised.

        Lines that arrive during a write share the next one, and its sync.
        """
        changes = () if record is None else record.changes()
        entry = {
            "at": instant_text(Clock().now()),
            "who": _bounded(who),
            "what": _bounded(what),
            "changes": changes[:CHANGES_MAX],
            "changed": len(changes),
            "outcome": _bounded(outcome),
        }
        line = _encoded(entry) + b"\n"
        with self._queue_lock:
            self._queued.append(line)
            is_first = len(self._queued) == 1
        if is_first:
            try:
                self._thread.submit(self._write_queued)
            except RuntimeError as error:  # it is closed, or no thread starts
                self._log_queued(error)

    async def read(self, *, limit: int = 100, before: str = "", document: str = "") -> AuditPage:
        """Return the newest `limit` entries that are older than `before`.

        `before` is an instant, or the `next` of an earlier page. `document` leaves out the entries
        that name another one or none. Raises InvalidRequest, DocumentUnreadable if the disk does
        not let the log be read, VolumeBusy if it takes too long, and StoreClosed after `close`.
        """
        if not 1 <= limit <= ENTRIES_MAX:
            raise InvalidRequest(f"limit is a number from 1 to {ENTRIES_MAX}.", fields=["limit"])
        until = _cursor(before)
        try:
            reading = self._thread.submit(self._read_page, limit, until, document)
        except RuntimeError as error:
            raise StoreClosed from error
        try:
            return await wait_for(reading, timeout_s=READ_S)
        except TimeoutError as error:
            raise VolumeBusy from error
        except OSError as error:
            path, cure = self._cure(error)
            raise DocumentUnreadable(
                f"{path} could not be read: {error.strerror}.", hint=cure.hint
            ) from error

    def close(self) -> None:
        """Write the queued lines and close the log."""
        self._thread.shutdown(wait=True)
        self._close_directory()

    def _write_queued(self) -> None:
        with _writing:
            if lines := self._take_queued():
                self._write(lines)

    def _log_queued(self, error: RuntimeError) -> None:
        """Log the lines instead: after the close the directory may have another owner."""
        if lines := self._take_queued():
            path = os.path.join(self._path, NAME)
            _log.warning("could not write %s: %s. It lacks %s", path, error, lines.decode())

    def _take_queued(self) -> bytes:
        with self._queue_lock:
            lines, self._queued = self._queued, []
        return b"".join(lines)

    def _write(self, lines: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if self._directory is None or os.fstat(self._directory).st_nlink == 0:
                self._open_directory()  # it was removed, and the store has created it again
            directory = self._directory
            assert directory is not None
            with open(os.open(NAME, flags, 0o600, dir_fd=directory), "ab", buffering=0) as file:
                give_to_owner_of(directory, file.fileno())
                file.write(lines)
                os.fsync(file.fileno())
                size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > AUDIT_BYTES_MAX:
                _rotate(directory)
        except OSError as error:
            path, cure = self._cure(error)
            _log.warning("could not write %s: %s. %s", path, error.strerror, cure.hint)

    def _cure(self, error: OSError) -> tuple[str, Cure]:
        """Return the path that failed, and what ends the error."""
        path = os.path.join(self._path, error.filename or NAME)
        return path, not_regular(path) if os.path.isdir(path) else cure_of(error.errno, path)

    def _read_page(self, limit: int, until: _Cursor | None, document: str) -> AuditPage:
        """Return a page. Every line is decoded, which takes too long for the event loop."""
        lines = self._read_lines()
        entries = [entry for line in lines if (entry := _decoded(line)) is not None]
        older = _older(entries, *until) if until else _in_order(entries)
        found = [entry for entry in older if not document or names(entry, document)]
        page = found[-limit:]
        following = _next(page, older) if len(found) > limit else ""
        return AuditPage(page[::-1], following, len(lines) - len(entries))

    def _read_lines(self) -> list[bytes]:
        """Return the lines of both files, oldest first, also those that are queued now."""
        if self._directory is None:
            self._open_directory()
        assert self._directory is not None
        return [*_lines(f"{NAME}.1", self._directory), *_lines(NAME, self._directory)]

    def _open_directory(self) -> None:
        self._close_directory()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._directory = os.open(self._path, flags)

    def _close_directory(self) -> None:
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None


def names(entry: AuditEntry, document: str) -> bool:
    """Whether an entry names a document: as changed, or in the address of the call."""
    changed = any(change.document == document for change in entry.changes)
    return changed or document in entry.what.partition("?")[0].split("/")


def _decoded(line: bytes) -> AuditEntry | None:
    try:
        return msgspec.json.decode(line, type=AuditEntry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _cursor(before: str) -> _Cursor | None:
    """Return the instant of `before`, and how many entries of that second it includes."""
    if not before:
        return None
    match = _CURSOR.fullmatch(before)
    try:
        if match is None:
            raise ValueError
        return parse_instant(match["at"]), int(match["left"] or 0)
    except ValueError as error:
        raise InvalidRequest(
            f"before is an instant in ISO 8601, or the `next` of a page, not {before!r:.60}.",
            fields=["before"],
        ) from error


def _in_order(entries: Sequence[AuditEntry]) -> list[AuditEntry]:
    """Return entries by instant: the clock may have been set back."""
    return sorted(entries, key=lambda entry: entry.at)


def _older(entries: Sequence[AuditEntry], at: datetime, left: int) -> list[AuditEntry]:
    """Return the entries before an instant, and the first `left` of those at it."""
    ordered = _in_order(entries)
    older = [entry for entry in ordered if entry.at < at]
    return older + [entry for entry in ordered if entry.at == at][:left]


def _next(page: Sequence[AuditEntry], older: Sequence[AuditEntry]) -> str:
    """Return what continues before the oldest entry of a page."""
    oldest = page[0]
    same = [entry for entry in older if entry.at == oldest.at]
    left = next(number for number, entry in enumerate(same) if entry is oldest)
    return f"{instant_text(oldest.at)}~{left}"


def _encoded(entry: Mapping[str, object]) -> bytes:
    """Return an entry on one line; a byte of a request that is not UTF-8 is a question mark."""
    try:
        return msgspec.json.format(msgspec.json.encode(entry), indent=0)
    except UnicodeEncodeError:
        text = json.dumps(entry, ensure_ascii=False, default=msgspec.to_builtins)
        return text.encode("utf-8", "replace")


def _bounded(text: str) -> str:
    """Return a text of at most TEXT_MAX characters."""
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"


def _caller(line: bytes) -> str:
    """Return who called; lines that cannot be read share one caller."""
    try:
        return str(json.loads(line)["who"])
    except (ValueError, TypeError, KeyError):
        return ""


def _rotate(directory: int) -> None:
    """Move the lines to the previous log. A crash in between leaves lines twice, and loses none."""
    lines = [*_lines(f"{NAME}.1", directory), *_lines(NAME, directory)]
    new, flags = f"{NAME}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(new, flags, 0o600, dir_fd=directory), "wb") as file:
        give_to_owner_of(directory, file.fileno())
        file.writelines(fair_lines(lines, AUDIT_BYTES_MAX))
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, f"{NAME}.1", src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
    os.unlink(NAME, dir_fd=directory)


def _lines(name: str, directory: int) -> list[bytes]:
    """Return the lines of a log, none if there is no such log."""

    def opener(path: str, _: int) -> int:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)

    try:
        with open(name, "rb", opener=opener) as file:
            return [line if line.endswith(b"\n") else line + b"\n" for line in file]
    except FileNotFoundError:
        return []
