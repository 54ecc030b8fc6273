"""Every system call that changes the disk, and the one way to read a file whole.

All paths are relative to held descriptors, and no symbolic link is followed. Errors are OSError;
`os_errors` turns them into Seline's. No decision is made here.
"""

import ctypes
import errno
import logging
import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Final, NamedTuple

from seline.domain.checksum import ATTRIBUTE
from seline.owner import give_to_owner_of

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STAGE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOREPLACE: Final = 1
_EXCHANGE: Final = 2
READ_PIECE_BYTES: Final = 1 << 20
TOUCH_NAME: Final = ".seline-touch"
"""A file that is made and removed to change a directory; the next start removes it after a kill."""

_log = logging.getLogger("seline.storage")


class FileIdentity(NamedTuple):
    """What identifies a file and its bytes.

    A write that keeps the mtime changes the ctime; so does a link.
    """

    inode: int
    mtime_ns: int
    ctime_ns: int
    size_bytes: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileIdentity":
        return cls(status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)

    def same_bytes(self, other: "FileIdentity") -> bool:
        """Whether at most the number of links differs."""
        return self._replace(ctime_ns=0) == other._replace(ctime_ns=0)

    @property
    def updated_at(self) -> datetime:
        return datetime.fromtimestamp(self.mtime_ns / 1e9, UTC)


class RawFile(NamedTuple):
    """A file read whole through one descriptor; it did not change while it was read."""

    data: bytes
    attribute: bytes | None
    identity: FileIdentity


class StillChanging(OSError):
    """The file changed during every read."""


class NotRegular(OSError):
    """The name is that of a symbolic link, a directory or another special file."""


class TooLarge(OSError):
    """The file has more bytes than are allowed."""

    def __init__(self, size_bytes: int, size_max: int) -> None:
        super().__init__(f"it has {size_bytes} bytes, {size_max} are allowed")
        self.size_bytes = size_bytes


def status(directory: int, name: str) -> os.stat_result:
    """Return the status of a name; of the link itself, if it is a symbolic link."""
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def exists(directory: int, name: str) -> bool:
    """Whether a name exists, also that of a broken link."""
    try:
        status(directory, name)
    except FileNotFoundError:
        return False
    return True


def read_whole(directory: int, name: str, *, size_max: int) -> RawFile:
    """Read a regular file and its checksum attribute from one descriptor.

    Raises FileNotFoundError for ENOENT only, StillChanging, NotRegular, TooLarge beyond `size_max`
    bytes, and any other OSError of the disk.
    """
    for _ in range(3):
        with closing(open_to_read(directory, name)) as descriptor:
            before = FileIdentity.of(os.fstat(descriptor))
            if before.size_bytes > size_max:
                raise TooLarge(before.size_bytes, size_max)
            data = _read_all(descriptor, before.size_bytes)
            attribute = read_attribute(descriptor)
            if FileIdentity.of(os.fstat(descriptor)).same_bytes(before) and len(data) == before[3]:
                return RawFile(data, attribute, before)
    raise StillChanging(errno.EAGAIN, "it is being written just now")


@contextmanager
def closing(descriptor: int) -> Generator[int]:
    """Close a descriptor when the block ends."""
    try:
        yield descriptor
    finally:
        close(descriptor)


def close(descriptor: int) -> None:
    """Close a descriptor. An error is logged: what must be durable was synced before."""
    try:
        os.close(descriptor)
    except OSError as error:
        _log.warning("closing a file failed: %s", error)


def is_open_elsewhere(directory: int, name: str) -> bool:
    """Whether another program has a file open for writing; False where the system cannot tell.

    A read lease is refused then. Its signal is one that is ignored, in case of an open meanwhile.
    """
    import fcntl
    import signal

    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        with closing(open_to_read(directory, name)) as descriptor:
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


def open_to_read(directory: int, name: str) -> int:
    """Open a regular file for reading. Raises NotRegular for another kind."""
    try:
        descriptor = os.open(name, _READ_FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotRegular("it is not a regular file") from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    close(descriptor)
    raise NotRegular("it is not a regular file")


def _read_all(descriptor: int, size_bytes: int) -> bytes:
    first = os.read(descriptor, size_bytes + 1)
    if len(first) == size_bytes:
        return first
    pieces = [first]
    while pieces[-1]:
        pieces.append(os.read(descriptor, READ_PIECE_BYTES))
    return b"".join(pieces)


def read_attribute(descriptor: int) -> bytes | None:
    """Return the checksum attribute, None if the file has none or the volume keeps none."""
    try:
        return os.getxattr(descriptor, ATTRIBUTE)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            return None
        raise


def open_directory(path: str, *, inside: int | None = None) -> int:
    """Open a directory; inside a held one, a symbolic link is refused."""
    flags = _DIRECTORY_FLAGS | (os.O_NOFOLLOW if inside is not None else 0)
    return os.open(path, flags, dir_fd=inside)


def is_directory(name: str, *, inside: int) -> bool:
    """Whether there is a directory of this name, not a symbolic link to one."""
    try:
        return stat.S_ISDIR(status(inside, name).st_mode)
    except OSError:
        return False


def names(directory: int) -> list[str]:
    """List a directory, through a new descriptor.

    Two threads that list through one descriptor share its position, so each would miss names.
    """
    with closing(os.open(".", _DIRECTORY_FLAGS, dir_fd=directory)) as own:
        return os.listdir(own)


def make_directory(name: str, inside: int) -> bool:
    """Make a directory, durably; return False if it exists."""
    try:
        os.mkdir(name, DIRECTORY_MODE, dir_fd=inside)
    except FileExistsError:
        return False
    try:
        sync(inside)
    except OSError:
        os.rmdir(name, dir_fd=inside)  # else the next call would take it for durable
        raise
    return True


def stage(directory: int, name: str, data: bytes, attribute: bytes | None, mtime_ns: int) -> int:
    """Write a new file with its checksum and mtime, not synced; return its descriptor.

    After an error neither file nor descriptor is left.
    """
    descriptor = os.open(name, _STAGE_FLAGS, FILE_MODE, dir_fd=directory)
    try:
        give_to_owner_of(directory, descriptor)
        if attribute is not None:  # first, so that a half-written file is known as Seline's
            os.setxattr(descriptor, ATTRIBUTE, attribute)
        _write_all(descriptor, data)
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))
    except BaseException:
        close(descriptor)
        os.unlink(name, dir_fd=directory)
        raise
    return descriptor


def _write_all(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


_flushes = 0
_unproven: set[tuple[int, int]] = set()
"""The directories whose last sync failed, by device and inode."""
_syncing_directory = [threading.Lock()]
"""Of two syncs at the same time, the kernel reports a failure to the first one only."""


def flushes() -> int:
    """Return how many syncs this process has made."""
    return _flushes


def sync(descriptor: int) -> None:
    """Make a file or directory durable. After a failure it must not be called again for that file.

    A directory whose sync failed is changed first: a sync without a change proves nothing then. So
    one directory is synced at a time. A file system that cannot sync directories is accepted; the
    probe reports it.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISDIR(status.st_mode):  # it may have the inode of a directory that was removed
        flush(descriptor)
        return
    inode = status.st_dev, status.st_ino
    with _syncing_directory[0]:
        if inode in _unproven:
            _touch(descriptor)
        try:
            flush(descriptor)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            _unproven.add(inode)
            raise
        _unproven.discard(inode)


def flush(descriptor: int) -> None:
    """As `sync`, but raise for a directory that cannot be synced."""
    global _flushes
    _flushes += 1
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def touch_and_sync(directory: int) -> None:
    """Change a directory and sync it: another process may have met a sync that failed."""
    _touch(directory)
    sync(directory)


def _touch(directory: int) -> None:
    """Change a directory, unless there is no space for a name."""
    flags = _STAGE_FLAGS & ~os.O_EXCL
    try:
        close(os.open(TOUCH_NAME, flags, FILE_MODE, dir_fd=directory))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    else:
        os.unlink(TOUCH_NAME, dir_fd=directory)


def link(source: int, name: str, target: int, new_name: str) -> None:
    """Give a file a second name. Raises FileExistsError."""
    os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


def rename(source: int, name: str, target: int, new_name: str) -> None:
    """Rename, replacing a file of the new name."""
    os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)


def rename_new(source: int, name: str, target: int, new_name: str) -> None:
    """Rename to a new name. Raises FileExistsError."""
    _renameat2(source, name, target, new_name, _NOREPLACE)


def exchange(source: int, name: str, target: int, new_name: str) -> None:
    """Exchange two names in one step. Raises FileNotFoundError if either is missing."""
    _renameat2(source, name, target, new_name, _EXCHANGE)


def unlink(directory: int, name: str, *, missing_ok: bool = False) -> None:
    """Remove a name."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        if not missing_ok:
            raise


def reserve(directory: int, name: str, size_bytes: int) -> None:
    """Make a file of allocated blocks, all or none."""
    descriptor = os.open(name, _STAGE_FLAGS, FILE_MODE, dir_fd=directory)
    try:
        give_to_owner_of(directory, descriptor)
        os.posix_fallocate(descriptor, 0, size_bytes)
    except BaseException:
        os.unlink(name, dir_fd=directory)
        raise
    finally:
        close(descriptor)


def allocate(directory: int, name: str, size_bytes: int) -> None:
    """Make a file of written zeros, durable with its name; after an error there is none.

    Blocks that are only reserved cost a flush more at their first write.
    """
    descriptor = os.open(name, _STAGE_FLAGS, FILE_MODE, dir_fd=directory)
    try:
        give_to_owner_of(directory, descriptor)
        for at in range(0, size_bytes, READ_PIECE_BYTES):
            _write_all(descriptor, bytes(min(READ_PIECE_BYTES, size_bytes - at)))
        sync(descriptor)
        sync(directory)
    except BaseException:
        os.unlink(name, dir_fd=directory)
        raise
    finally:
        close(descriptor)


def open_to_overwrite(directory: int, name: str) -> int:
    """Open a regular file for reading and writing. Raises NotRegular for another kind."""
    close(open_to_read(directory, name))
    return os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def overwrite(descriptor: int, data: bytes, at: int) -> None:
    """Write at a position. After an error a part may be written."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, at)
        rest, at = rest[written:], at + written


def empty(descriptor: int) -> None:
    """Give up the blocks of a file that was opened by `open_to_overwrite`."""
    os.ftruncate(descriptor, 0)


def sync_data(descriptor: int) -> None:
    """Make the bytes of a file durable, but not its mtime. After a failure, as `sync`."""
    global _flushes
    _flushes += 1
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def drop_cached_pages(directory: int, name: str) -> None:
    """Drop the cached pages of a file, so that the next read reads the disk."""
    try:
        descriptor = open_to_read(directory, name)
    except OSError:
        return
    with closing(descriptor):
        drop_pages(descriptor)


def read_ahead(directory: int, name: str) -> None:
    """Let the disk begin to read a file. Best effort: of a large one, a part."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError), closing(open_to_read(directory, name)) as descriptor:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


def drop_pages(descriptor: int) -> None:
    """Drop the cached pages of an open file."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def sync_filesystem(descriptor: int) -> None:
    """Make everything on the file system of `descriptor` durable."""
    global _flushes
    _flushes += 1
    if _syncfs is None:
        raise OSError(errno.ENOSYS, "syncfs is not there")
    if _syncfs(descriptor) != 0:
        _raise_errno()


def syncs_filesystems() -> bool:
    """Whether `sync_filesystem` reports errors, which it does from Linux 5.8 on."""
    return _syncfs is not None and _kernel_version() >= (5, 8)


def _kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _renameat2(source: int, name: str, target: int, new_name: str, flags: int) -> None:
    if _rename2 is None:
        raise OSError(errno.ENOSYS, "renameat2 is not there")
    if _rename2(source, os.fsencode(name), target, os.fsencode(new_name), flags) != 0:
        _raise_errno()


def _raise_errno() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def _libc_function(name: str, *arguments: type) -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    function.restype, function.argtypes = ctypes.c_int, arguments
    return function  # type: ignore[no-any-return]


_PLACE: Final = (ctypes.c_int, ctypes.c_char_p)
_rename2 = _libc_function("renameat2", *_PLACE, *_PLACE, ctypes.c_uint)
_syncfs = _libc_function("syncfs", ctypes.c_int)

if hasattr(os, "register_at_fork"):  # in the child no thread is left that would release it
    os.register_at_fork(after_in_child=lambda: _syncing_directory.__setitem__(0, threading.Lock()))
