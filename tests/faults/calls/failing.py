"""Make the k-th file-changing call of this process fail once, be cut short, or be its last.

The calls are those that `powercut.recorder` records (strace shows that none escapes it), the
probe's chmod, and the writes of an export beside the volume. No code of Seline is replaced.
"""

import builtins
import contextlib
import ctypes
import errno
import io
import os
import signal
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from seline.storage.volume import files

KILLED_BEFORE: Final = "kill -9 before"
KILLED_AFTER: Final = "kill -9 after"
KILLS: Final = (KILLED_BEFORE, KILLED_AFTER)
SHORT: Final = "short write"
REFUSED: Final = ("EIO", "ENOSPC", "EROFS")
"""Errors of any call: a volume that becomes read-only refuses syncs too."""
ON_NAMES: Final = frozenset(
    {
        "open", "mkdir", "link", "rename", "replace", "renameat2", "unlink", "remove", "rmdir",
        "chmod",
    }
)  # fmt: skip
ON_FILES: Final = frozenset(
    {
        "write", "pwrite", "ftruncate", "posix_fallocate", "setxattr", "removexattr", "utime",
        "fsync", "fdatasync", "syncfs",
    }
)  # fmt: skip
WRITES: Final = frozenset({"write", "pwrite"})
SYNCS: Final = frozenset({"fsync", "fdatasync"})
INTERRUPTED: Final = SYNCS | {"open", "write", "posix_fallocate", "syncfs"}
"""Calls that a signal may interrupt."""
Wrapped: TypeAlias = Callable[..., Any]
IdentityOf: TypeAlias = tuple[int, int]


class Made(NamedTuple):
    """One call, as Python names it, and what it was made on."""

    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.name} {self.where}"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The fault of the `at`-th file-changing call, counted from 1.

    `again`: a caller who is refused tries the same operation again.
    """

    at: int
    how: str
    again: bool = False

    def __str__(self) -> str:
        return f"{self.how} {'' if self.how in KILLS else 'at '}call {self.at}"


def refusals(made: Made) -> tuple[str, ...]:
    """Return the errors that a call may return."""
    return (
        *REFUSED,
        *(("EACCES",) if made.name in ON_NAMES else ()),
        *(("EINTR",) if made.name in INTERRUPTED else ()),
        *((SHORT,) if made.name in WRITES else ()),
    )


class Calls:
    """Every file-changing call of this process from `wrap` on; one of them meets the fault.

    `fired` is that call. `synced_again` names what was synced after a sync of it had failed: a file
    never may be, a directory only after it was changed (V3).
    """

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault
        self._lock = threading.RLock()
        self._failed: dict[IdentityOf, bool] = {}
        self.made: list[Made] = []
        self.fired: Made | None = None
        self.synced_again: list[str] = []

    def wrap(self) -> None:
        """Wrap the calls of this process for the rest of its life."""
        for name in ON_NAMES | ON_FILES:
            if hasattr(os, name):
                setattr(os, name, self._wrapped(name, getattr(os, name)))
        files._renameat2 = _in_order(self._wrapped("renameat2", _as_rename(files._renameat2)))
        if files._syncfs is not None:
            files._syncfs = _as_c(self._wrapped("syncfs", files._syncfs))
        builtins.open = _opening(builtins.open)  # type: ignore[assignment]

    def _wrapped(self, name: str, call: Wrapped) -> Wrapped:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not _changes_files(name, args):
                return call(*args, **kwargs)
            made = Made(name, _where(name, args, kwargs))
            if self._is_due(made):
                return self._fail(made, call, args, kwargs)
            self._watch_sync(made, args)
            result = call(*args, **kwargs)
            self._watch_change(made, args, kwargs)
            return result

        return wrapped

    def _is_due(self, made: Made) -> bool:
        with self._lock:
            self.made.append(made)
            fault = self._fault
            due = fault is not None and len(self.made) == fault.at
            if due and (fault.how != SHORT or made.name in WRITES):  # type: ignore[union-attr]
                self.fired = made
        return self.fired is made

    def _fail(self, made: Made, call: Wrapped, args: Any, kwargs: Mapping[str, Any]) -> Any:
        assert self._fault is not None
        how = self._fault.how
        if how in KILLS:
            with contextlib.suppress(OSError):
                if how == KILLED_AFTER:
                    call(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        if how == SHORT:
            descriptor, data, *at = args
            return call(descriptor, bytes(data)[: len(data) // 2], *at)
        if made.name in SYNCS:
            self._note_failed_sync(args[0])
        code = getattr(errno, how)
        raise OSError(code, os.strerror(code))

    def _note_failed_sync(self, descriptor: int) -> None:
        """Remember the inode, and keep a file open, so that its number is not reused."""
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            descriptor = os.dup(descriptor)
        self._failed[_identity(descriptor)] = False

    def _watch_sync(self, made: Made, args: Any) -> None:
        if made.name in SYNCS and self._failed.get(_identity(args[0])) is False:
            self.synced_again.append(made.where)

    def _watch_change(self, made: Made, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Note that a directory whose sync had failed was changed again."""
        if self._failed and made.name in ON_NAMES:
            for _, directory in _names(made.name, args, kwargs):
                if (identity := _identity(directory)) in self._failed:
                    self._failed[identity] = True


def _changes_files(name: str, args: Any) -> bool:
    if name == "open":
        return len(args) > 1 and bool(args[1] & (os.O_CREAT | os.O_TRUNC))
    return name != "write" or stat.S_ISREG(os.fstat(args[0]).st_mode)


def _where(name: str, args: Any, kwargs: Mapping[str, Any]) -> str:
    """Return the file that is open, or the name that is changed, with the directory it is in."""
    if isinstance(args[0], int):
        return _opened(args[0])
    path, directory = _names(name, args, kwargs)[-1]
    above = _opened(directory) if isinstance(directory, int) else os.path.basename(directory)
    return os.path.join(above, os.path.basename(path))


def _names(name: str, args: Any, kwargs: Mapping[str, Any]) -> list[tuple[str, int | str]]:
    """Return every name that a call changes, with its directory, open or not."""
    if name == "link":
        held = {args[1]: kwargs.get("dst_dir_fd")}
    elif name in ("rename", "replace", "renameat2"):
        held = {args[0]: kwargs.get("src_dir_fd"), args[1]: kwargs.get("dst_dir_fd")}
    else:
        held = {args[0]: kwargs.get("dir_fd")}
    return [
        (os.fsdecode(path), os.path.dirname(os.fsdecode(path)) or "." if opened is None else opened)
        for path, opened in held.items()
    ]


def _opened(descriptor: int) -> str:
    return os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))


def _identity(file: int | str) -> IdentityOf:
    status = os.stat(file)
    return status.st_dev, status.st_ino


def _as_rename(call: Wrapped) -> Wrapped:
    def renamed(name: str, new: str, *, src_dir_fd: int, dst_dir_fd: int, flags: int) -> object:
        return call(src_dir_fd, name, dst_dir_fd, new, flags)

    return renamed


def _in_order(call: Wrapped) -> Wrapped:
    def renamed(source: int, name: str, target: int, new: str, flags: int) -> object:
        return call(name, new, src_dir_fd=source, dst_dir_fd=target, flags=flags)

    return renamed


def _as_c(call: Wrapped) -> Wrapped:
    """Make a call fail as a C function does."""

    def called(*args: Any) -> int:
        try:
            return int(call(*args))
        except OSError as error:
            ctypes.set_errno(error.errno or 0)
            return -1

    return called


class _Unbuffered(io.FileIO):
    """A file opened by `open()` whose writes go through `os.write`."""

    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)


def _opening(call: Wrapped) -> Wrapped:
    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not mode.strip("rbt"):
            return call(file, mode, *args, **kwargs)
        assert mode in ("wb", "xb"), f"open({file!r}, {mode!r}) writes unseen"
        return io.BufferedWriter(
            _Unbuffered(file, mode, opener=lambda path, flags: os.open(path, flags, 0o666))
        )

    return opened
