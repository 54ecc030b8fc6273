"""Record every file-changing call that this process makes below a directory, in order.

The calls are made, one at a time: a lock keeps threads apart, so the recorded order is the order of
the kernel. A call that the model does not know fails.
`python -m tests.faults.powercut.recorder NAME DIRECTORY` records an operation and prints its calls,
to be compared with those that the kernel saw.
"""

import builtins
import errno
import functools
import json
import os
import stat
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from seline.storage.volume import files
from tests.faults.powercut.disk_model import (
    ROOT,
    Acknowledged,
    Attributed,
    Change,
    Disk,
    Exchanged,
    Inode,
    Linked,
    Made,
    Place,
    Renamed,
    Sized,
    Synced,
    SyncedAll,
    Timed,
    Tree,
    Unlinked,
    Version,
    Wrote,
)
from tests.proof.operations import DONE, OPERATIONS, Operation, act, opened

EXCHANGE: Final = 2
UNMODELLED: Final = (
    "chown", "fchown", "copy_file_range", "lchown", "link_at", "mkfifo", "mknod", "pwritev",
    "sendfile", "splice", "symlink", "truncate", "writev",
)  # fmt: skip
"""Calls that change files and that are not in the model: they fail."""
IdentityOf: TypeAlias = tuple[int, int]
Wrapped: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its name in the kernel, its path, and its change of the disk."""

    name: str
    path: str
    change: Change

    def __str__(self) -> str:
        return f"{self.name} {self.path}".rstrip()


@dataclass(slots=True)
class Recording:
    """The disk before, all of it durable, and the calls that were made."""

    before: Disk
    calls: list[Call] = field(default_factory=list[Call])

    def disks(self) -> Iterator[tuple[str, Disk]]:
        """Yield the disk before the first call and after each one, with that call's name.

        It is the same object every time: read it before the next step.
        """
        disk = self.before
        yield "the start", disk
        for call in self.calls:
            call.change.on(disk)
            yield str(call), disk


def record(operation: Operation, directory: Path) -> Recording:
    """Do an operation on a prepared volume and return what it did."""
    with recording(directory) as made:
        act(operation, directory)
    return made


def record_opening(directory: Path) -> Recording:
    """Open a volume, close it, and return the calls."""
    with recording(directory) as made, opened(directory):
        pass
    return made


def _entries(path: str) -> list[os.DirEntry[str]]:
    """List a directory, without its sockets: they hold no content."""
    entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    return [
        entry for entry in entries if not stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    ]


def tree_of(directory: Path) -> Tree:
    """Return the content of a directory as one value."""
    there = _Recorder(directory).recording.before
    return there.tree(there.current())


@contextmanager
def recording(root: Path, before: Disk | None = None) -> Generator[Recording]:
    """Record every call below `root` until the block ends.

    The content of `root` counts as durable, unless `before` is the disk that a killed process left;
    its current content is then the content of `root`.
    """
    recorder = _Recorder(root, before)
    with pytest.MonkeyPatch.context() as patch:
        recorder.wrap_calls(patch)
        yield recorder.recording


class _Recorder:
    """Turns calls into changes: descriptors and paths become inodes and names."""

    def __init__(self, root: Path, before: Disk | None = None) -> None:
        self._root = os.path.realpath(root)
        self._lock = threading.RLock()
        self._inodes: dict[IdentityOf, Inode] = {_identity(os.stat(root)): ROOT}
        if before is None:
            self._count = ROOT
            self.recording = Recording(Disk())
            self._scan(ROOT, self._root)
        else:
            self._count = max([*before.directories, *before.files])
            self.recording = Recording(before)
            self._find(ROOT, self._root)

    def _find(self, directory: Inode, path: str) -> None:
        """Map the inodes of this directory to those of the model."""
        for entry in _entries(path):
            inode = self.recording.before.at(Place(directory, entry.name))
            assert inode is not None, f"{entry.path} is not on the disk"
            self._inodes[_identity(entry.stat(follow_symlinks=False))] = inode
            if entry.is_dir(follow_symlinks=False):
                self._find(inode, entry.path)

    def _scan(self, directory: Inode, path: str) -> None:
        for entry in _entries(path):
            status = entry.stat(follow_symlinks=False)
            known = self._inodes.get(_identity(status))
            inode = self._new_inode(status) if known is None else known
            self.recording.before.names[Place(directory, entry.name)] = [inode]
            if entry.is_dir(follow_symlinks=False):
                self.recording.before.directories.add(inode)
                self._scan(inode, entry.path)
            elif known is None:
                self.recording.before.files[inode] = [_version(entry.path, status)]

    def _new_inode(self, status: os.stat_result) -> Inode:
        """Give a new inode a new number, even if the kernel reused its own."""
        self._count += 1
        self._inodes[_identity(status)] = self._count
        return self._count

    # which calls

    def wrap_calls(self, patch: pytest.MonkeyPatch) -> None:
        """Put the recorder before every call that changes files."""
        for name, wrap in {
            "open": self._open, "write": self._write, "pwrite": self._pwrite,
            "ftruncate": self._ftruncate, "posix_fallocate": self._fallocate,
            "setxattr": self._setxattr, "removexattr": self._removexattr, "utime": self._utime,
            "mkdir": self._mkdir, "link": self._link, "rename": self._rename,
            "replace": self._rename, "unlink": self._unlink, "remove": self._unlink,
            "rmdir": self._unlink, "fsync": functools.partial(self._sync, "fsync"),
            "fdatasync": functools.partial(self._sync, "fdatasync"),
        }.items():  # fmt: skip
            patch.setattr(os, name, functools.partial(wrap, getattr(os, name)))
        for name in UNMODELLED:
            patch.setattr(os, name, functools.partial(self._refuse, name), raising=False)
        patch.setattr(builtins, "open", functools.partial(self._open_object, builtins.open))
        patch.setattr(files, "_renameat2", functools.partial(self._renameat2, files._renameat2))
        patch.setattr(files, "_syncfs", functools.partial(self._syncfs, files._syncfs))

    def _add(self, name: str, path: str, change: Change) -> None:
        self.recording.calls.append(Call(name, os.path.relpath(path, self._root), change))

    def _refuse(self, name: str, *_args: object, **_kwargs: object) -> object:
        raise AssertionError(f"{name} is not in the model of the disk")

    # files

    def _open(
        self, call: Wrapped, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        place = self._place(path, dir_fd) if flags & (os.O_CREAT | os.O_TRUNC) else None
        if place is None:
            return int(call(path, flags, mode, dir_fd=dir_fd))
        with self._lock:
            known = _status(path, dir_fd)
            descriptor = int(call(path, flags, mode, dir_fd=dir_fd))
            if known is None:
                made = Made(place, self._new_inode(os.fstat(descriptor)))
                self._add("openat", _opened_path(descriptor), made)
            elif flags & os.O_TRUNC:
                sized = Sized(self._inodes[_identity(known)], 0)
                self._add("openat", _opened_path(descriptor), sized)
            return descriptor

    def _open_object(self, call: Wrapped, file: Any, mode: str = "r", *args: Any, **kw: Any) -> Any:
        """Refuse a file object that would write without the wrapped calls."""
        if mode.strip("rbt") and not isinstance(file, int) and self._place(file, None) is not None:
            raise AssertionError(f"open({file!r}, {mode!r}) writes below the volume unseen")
        return call(file, mode, *args, **kw)

    def _write(self, call: Wrapped, descriptor: int, data: Any) -> int:
        if descriptor == 1 and bytes(data) == DONE.encode():
            with self._lock:
                self._add("acknowledged", self._root, Acknowledged())
            return len(data)
        inode = self._inode(descriptor)
        if inode is None:
            return int(call(descriptor, data))
        with self._lock:
            offset = _position(descriptor)
            written = int(call(descriptor, data))
            change = Wrote(inode, offset, bytes(data)[:written])
            self._add("write", _opened_path(descriptor), change)
            return written

    def _pwrite(self, call: Wrapped, descriptor: int, data: Any, offset: int) -> int:
        return int(
            self._change(
                call,
                (descriptor, data, offset),
                "pwrite64",
                lambda inode, written: Wrote(inode, offset, bytes(data)[:written]),
            )
        )

    def _ftruncate(self, call: Wrapped, descriptor: int, size_bytes: int) -> None:
        self._change(
            call, (descriptor, size_bytes), "ftruncate", lambda inode, _: Sized(inode, size_bytes)
        )

    def _fallocate(self, call: Wrapped, descriptor: int, offset: int, size_bytes: int) -> None:
        def sized(inode: Inode, _: object) -> Change:
            return Sized(inode, os.fstat(descriptor).st_size)

        self._change(call, (descriptor, offset, size_bytes), "fallocate", sized)

    def _setxattr(self, call: Wrapped, descriptor: Any, name: str, value: Any, *rest: Any) -> None:
        self._change(
            call,
            (descriptor, name, value, *rest),
            "fsetxattr",
            lambda inode, _: Attributed(inode, name, bytes(value)),
        )

    def _removexattr(self, call: Wrapped, descriptor: Any, name: str) -> None:
        self._change(
            call, (descriptor, name), "fremovexattr", lambda inode, _: Attributed(inode, name, None)
        )

    def _utime(self, call: Wrapped, descriptor: Any, times: Any = None, **kwargs: Any) -> None:
        def timed(inode: Inode, _: object) -> Change:
            return Timed(inode, os.stat(descriptor).st_mtime_ns)

        self._change(functools.partial(call, **kwargs), (descriptor, times), "utimensat", timed)

    def _sync(self, name: str, call: Wrapped, descriptor: int) -> None:
        try:
            self._change(call, (descriptor,), name, lambda inode, _: Synced(inode))
        except OSError:
            inode = self._inode(descriptor)
            if inode is not None:
                self._add(f"failed {name}", _opened_path(descriptor), Synced(inode, failed=True))
            raise

    def _change(
        self,
        call: Wrapped,
        args: tuple[Any, ...],
        name: str,
        change: Callable[[Inode, Any], Change],
    ) -> Any:
        """Make a call on an open file (its first argument) and record it if it is one of ours."""
        inode = self._inode(args[0])
        if inode is None:
            return call(*args)
        with self._lock:
            result = call(*args)
            self._add(name, _opened_path(args[0]), change(inode, result))
            return result

    def _inode(self, descriptor: Any) -> Inode | None:
        """Return the inode of an open file below the root, None elsewhere."""
        if isinstance(descriptor, int):
            return self._inodes.get(_identity(os.fstat(descriptor)))
        if self._place(descriptor, None) is not None:
            raise AssertionError(f"{descriptor!r} is changed by its path: not in the model")
        return None

    # names

    def _mkdir(
        self, call: Wrapped, path: Any, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> None:
        place = self._place(path, dir_fd)
        with self._lock:
            call(path, mode, dir_fd=dir_fd)
            if place is not None:
                status = os.stat(path, dir_fd=dir_fd)
                made = Made(place, self._new_inode(status), directory=True)
                self._add("mkdirat", _path(path, dir_fd), made)

    def _link(
        self,
        call: Wrapped,
        path: Any,
        new: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        place = self._place(new, dst_dir_fd)
        with self._lock:
            call(
                path, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd,
                follow_symlinks=follow_symlinks,
            )  # fmt: skip
            if place is not None:
                inode = self._inodes[_identity(os.stat(new, dir_fd=dst_dir_fd))]
                self._add("linkat", _path(new, dst_dir_fd), Linked(place, inode))

    def _rename(
        self,
        call: Wrapped,
        path: Any,
        new: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        with self._lock:
            source, target = self._place(path, src_dir_fd), self._place(new, dst_dir_fd)
            replaced = _status(new, dst_dir_fd)
            call(path, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            self._forget(replaced)
            if source is not None or target is not None:
                assert None not in (source, target), (
                    f"{path!r} is moved over the border of the recording"
                )
                self._add("renameat", _path(new, dst_dir_fd), Renamed(source, target))

    def _renameat2(
        self, call: Wrapped, source: int, name: str, target: int, new_name: str, flags: int
    ) -> None:
        with self._lock:
            places = self._place(name, source), self._place(new_name, target)
            call(source, name, target, new_name, flags)
            if places[0] is not None or places[1] is not None:
                assert None not in places, f"{name} is moved over the border of the recording"
                change = Exchanged if flags == EXCHANGE else Renamed
                self._add("renameat2", _path(new_name, target), change(places[0], places[1]))

    def _unlink(self, call: Wrapped, path: Any, *, dir_fd: int | None = None) -> None:
        with self._lock:
            place, removed = self._place(path, dir_fd), _status(path, dir_fd)
            call(path, dir_fd=dir_fd)
            self._forget(removed)
            if place is not None:
                self._add("unlinkat", _path(path, dir_fd), Unlinked(place))

    def _syncfs(self, call: Wrapped, descriptor: int) -> int:
        if self._inode(descriptor) is None:
            return int(call(descriptor))
        with self._lock:
            result = int(call(descriptor))
            if result == 0:
                self._add("syncfs", _opened_path(descriptor), SyncedAll())
            return result

    def _forget(self, removed: os.stat_result | None) -> None:
        """Forget an inode whose last name was removed: the kernel may reuse its number."""
        if removed is not None and (stat.S_ISDIR(removed.st_mode) or removed.st_nlink == 1):
            self._inodes.pop(_identity(removed), None)

    def _place(self, path: Any, dir_fd: int | None) -> Place | None:
        """Return the directory below the root, and the name in it, that a path leads to."""
        parent, name = os.path.split(os.fsdecode(path).rstrip("/"))
        try:
            status = os.stat(parent or ".", dir_fd=dir_fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise
        directory = self._inodes.get(_identity(status))
        return None if directory is None or not name else Place(directory, name)


def _identity(status: os.stat_result) -> IdentityOf:
    return status.st_dev, status.st_ino


def _version(path: str, status: os.stat_result) -> Version:
    with open(path, "rb") as file:
        data = file.read().rstrip(b"\0")
    names = os.listxattr(path, follow_symlinks=False)
    return Version(
        data=data,
        size_bytes=status.st_size,
        attributes=tuple(sorted((name, os.getxattr(path, name)) for name in names)),
        mtime_ns=status.st_mtime_ns,
    )


def _status(path: Any, dir_fd: int | None) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _position(descriptor: int) -> int:
    """Return where the next write goes."""
    import fcntl

    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
        return os.fstat(descriptor).st_size
    return os.lseek(descriptor, 0, os.SEEK_CUR)


def _opened_path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _path(path: Any, dir_fd: int | None) -> str:
    text = os.fsdecode(path)
    return text if dir_fd is None else os.path.join(_opened_path(dir_fd), text)


def main(name: str, directory: str) -> None:
    """Record an operation on a prepared volume and print its calls, one JSON list."""
    made = record(OPERATIONS[name], Path(directory))
    print(json.dumps([(call.name, call.path) for call in made.calls]))


if __name__ == "__main__":
    main(*sys.argv[1:])
