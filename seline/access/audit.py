"""The audit log: an append-only file with one line of JSON for each call that changes something.

The file is `.seline/audit.jsonl`. At 1 MiB its lines move to `audit.jsonl.1`, which keeps the
newest lines of each caller: a caller with many calls cannot remove the lines of another.

V12  The log stays in the directory that was open at the start. It never writes to a directory that
     was mounted over it later.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from seline.clock import Clock, instant_text
from seline.cures import cure_of, not_regular
from seline.domain.document import Json
from seline.owner import give_to_owner_of

NAME: Final = "audit.jsonl"
AUDIT_BYTES_MAX: Final = 1 << 20
TEXT_MAX: Final = 320
"""More than the address of any route with valid names."""
_log = logging.getLogger("seline.audit")


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

    def open(self) -> None:
        """Open the directory of the log. Call it when the store of the data directory is open."""
        self._thread.submit(self._open_directory)

    def append(self, entry: Mapping[str, Json]) -> None:
        """Queue a line with `entry` and the instant. A failure is logged, never raised."""
        bounded = {name: _bounded(value) for name, value in entry.items()}
        text = json.dumps({"at": instant_text(Clock().now()), **bounded}, ensure_ascii=False)
        self._thread.submit(self._write, f"{text}\n".encode("utf-8", "replace"))

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
            assert directory is not None
            with open(os.open(NAME, flags, 0o600, dir_fd=directory), "ab", buffering=0) as file:
                give_to_owner_of(directory, file.fileno())
                file.write(line)
                os.fsync(file.fileno())
                size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > AUDIT_BYTES_MAX:
                _rotate(directory)
        except OSError as error:
            path = os.path.join(self._path, error.filename or NAME)
            cure = not_regular(path) if os.path.isdir(path) else cure_of(error.errno, path)
            _log.warning("could not write %s: %s. %s", path, error.strerror, cure.hint)

    def _open_directory(self) -> None:
        self._close_directory()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._directory = os.open(self._path, flags)

    def _close_directory(self) -> None:
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None


def _bounded(value: Json) -> Json:
    """Return a value with a text cut to TEXT_MAX characters."""
    return value if not isinstance(value, str) or len(value) <= TEXT_MAX else value[:TEXT_MAX] + "…"


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
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return []
    with open(descriptor, "rb") as file:
        return [line if line.endswith(b"\n") else line + b"\n" for line in file]
