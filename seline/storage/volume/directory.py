"""The held data directory: its descriptors, and the check that its path still leads to it.

V10  A forked child closes its descriptors, which does not unlock, and every call in it raises
     ForkedStore.
V12  Before each commit the path must still lead to the held directory.
"""

import contextlib
import errno
import fcntl
import functools
import json
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from seline.clock import Clock, instant_text
from seline.cures import cure_of, not_regular
from seline.domain.backup import parse_backup_name
from seline.domain.document import BOT, SELINE, DocumentKey, is_document_name, is_space_name
from seline.errors import (
    ForkedStore,
    StorageError,
    StoreClosed,
    UnsupportedFormat,
    VolumeFailed,
    VolumeNotMounted,
    VolumeReadOnly,
)
from seline.owner import give_to_owner_of
from seline.quoting import quoted
from seline.storage.volume import files
from seline.storage.volume.mounts import mount_of, mounts_inside
from seline.storage.volume.os_errors import describe, named, raising

VOLUME_FORMAT: Final = 2
"""With a journal, which a Seline of the first format would not replay."""
FORMAT_WITHOUT_JOURNAL: Final = 1
HOLDER_NAME: Final = "server.json"
"""The file in .seline/ that describes the holder; it is no document."""
SPACES_NAME: Final = "spaces"
"""The directory of the spaces other than the bot's and Seline's own."""
EARLIER_NAME: Final = "earlier_backups"
"""The file in .seline/ with the names of backups that were there before Seline, one a line."""
FIRST_FORM_NAME: Final = "first_form"
"""The file in .seline/ whose presence says that no journal is wanted on this volume."""
_BLANK: Final = b" \t\r\n\0"
"""What a power cut may leave of a file that was not synced: no bytes, or NULs."""
_log = logging.getLogger("seline.storage")
_open_volumes: weakref.WeakSet["VolumeDirectory"] = weakref.WeakSet()
_open_volumes_lock = threading.Lock()


_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(eq=False)
class VolumeDirectory:
    """A data directory that this process holds, with its sub-directories open.

    `top` is its locked descriptor, `lock_file` the lock's descriptor if that is a file. `given_up`
    returns True if the volume is about to be closed. `remade` has the names of the sub-directories
    that were missing and were made again.
    """

    path: str
    top: int
    lock_file: int | None
    clock: Clock
    serves_commands: bool
    given_up: Callable[[], bool]
    remade: list[str] = field(default_factory=list[str])
    _closed: bool = False
    _forked: bool = False
    _is_stopped: bool = False
    _users: int = 0
    _users_changed: threading.Condition = field(default_factory=threading.Condition)
    _subdirectories: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    _held: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """The sub-directories: name, parent's descriptor, own descriptor."""
    _spaces: int = -1

    def __post_init__(self) -> None:
        """Open the sub-directories. Raises StorageError."""
        self.held_since = self.clock.now()
        with raising(self.named, f"Opening {self.path}"):
            self.device_and_inode = _device_and_inode(os.fstat(self.top))
        try:
            self._open_subdirectories()
        except BaseException:
            self._close_subdirectories()
            raise
        with _open_volumes_lock:
            _open_volumes.add(self)

    def _open_subdirectories(self) -> None:
        self.seline = self._open_inner(".seline", self.top)
        is_first = self._check_format()
        self.staging = self._open_inner("staging", self.seline)
        self.exports = self._open_inner("exports", self.seline)
        self.quarantine = self._open_inner("quarantine", self.top)
        self._backups = {
            BOT: self._open_inner("backups", self.top),
            SELINE: self._open_inner("backups", self.seline),
        }
        self._documents = {BOT: self.top, SELINE: self.seline}
        self._open_spaces()
        with raising(self.named, "Listing what was in backups/ before"):
            self.earlier_backups = self._note_earlier(is_first=is_first)
        if is_first and self.read_only() is None:
            self._write_format(FORMAT_WITHOUT_JOURNAL)

    def _note_earlier(self, *, is_first: bool) -> frozenset[str]:
        """Return the names of backups that were there before the first opening, which notes them.

        Where a file system keeps no attributes, nothing else shows that they are their owner's.
        """
        with contextlib.suppress(FileNotFoundError):
            noted = files.read_whole(self.seline, EARLIER_NAME, size_max=1 << 40).data
            return frozenset(noted.decode(errors="replace").splitlines())
        found = files.names(self._backups[BOT]) if is_first else []
        names = sorted(name for name in found if parse_backup_name(name) is not None)
        if names and self.read_only() is None:
            data = "\n".join([*names, ""]).encode()
            self.write_small(self.seline, EARLIER_NAME, data, durable=True)
        return frozenset(names)

    def _open_spaces(self) -> None:
        """Open the other spaces that exist: the directories in spaces/ that hold backups/."""
        if not files.is_directory(SPACES_NAME, inside=self.top):
            return
        self._spaces = self._open_inner(SPACES_NAME, self.top)
        for name in sorted(filter(is_space_name, files.names(self._spaces))):
            parts = (name, f"{name}/backups")
            if all(files.is_directory(part, inside=self._spaces) for part in parts):
                self.open_space(name)

    def _open_inner(self, name: str, inside: int) -> int:
        descriptor, _ = self._inner(name, inside)
        self._subdirectories.append((name, inside, descriptor))
        self._held[descriptor] = _device_and_inode(os.fstat(descriptor))
        return descriptor

    def open_space(self, space: str) -> None:
        """Make and open a space's directories. Only the writer's thread. Raises StorageError."""
        if space in self._documents:
            return
        if self._spaces < 0:
            self._spaces = self._open_inner(SPACES_NAME, self.top)
        documents = self._open_inner(space, self._spaces)
        try:
            self._backups[space] = self._open_inner("backups", documents)
        except BaseException:
            files.close(self._subdirectories.pop()[2])
            raise
        self._documents[space] = documents  # last: readers use both

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces that exist on the volume."""
        return tuple(self._documents)

    def documents(self, space: str) -> int:
        """Return the descriptor of a space's documents; FileNotFoundError if there is no space."""
        try:
            return self._documents[space]
        except KeyError:
            raise _no_space(space) from None

    def backups(self, space: str) -> int:
        """Return the descriptor of a space's backups; FileNotFoundError if there is no space."""
        try:
            return self._backups[space]
        except KeyError:
            raise _no_space(space) from None

    def document_names(self, space: str) -> list[str]:
        """List a space's documents by name, sorted. Raises StorageError."""
        try:
            names = files.names(self.documents(space))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self.named(error, "Listing the documents") from error
        reserved = HOLDER_NAME if space == SELINE else ""
        return sorted(name for name in names if is_document_name(name) and name != reserved)

    @property
    def directories(self) -> tuple[int, ...]:
        """The descriptors of the directories whose names must survive a power cut.

        Not staging/: the disk may hold the content that a record needs under a name that is another
        file's in memory.
        """
        others = (self._spaces,) if self._spaces >= 0 else ()
        opened = list(self._documents.items())  # another thread may open a space
        documents = (fd for space, fd in opened if space not in (BOT, SELINE))
        backups = list(self._backups.values())
        return (
            self.top, self.seline, self.quarantine, *backups, *others, *documents,
        )  # fmt: skip

    @property
    def leaving(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closed or self.given_up()

    @property
    def holds_descriptors(self) -> bool:
        """Whether it is not closed; the inode of a closed one may be another directory's by now."""
        return bool(self._subdirectories)

    @contextlib.contextmanager
    def in_use(self) -> Generator[None]:
        """Keep the descriptors open until the block ends. Raises StoreClosed or ForkedStore."""
        self.check_usable()  # before the lock, which a forked child may find locked
        with self._users_changed:
            self.check_usable()
            self._users += 1
        try:
            yield
        finally:
            with self._users_changed:
                self._users -= 1
                if self._closed:
                    self._users_changed.notify_all()

    @property
    def is_forked(self) -> bool:
        """Whether this process inherited the volume by a fork; then it may not use it."""
        return self._forked

    def check_usable(self) -> None:
        """Raise ForkedStore or StoreClosed if this process may not use the descriptors."""
        if self._forked:
            raise ForkedStore
        if self._closed:
            raise StoreClosed

    def check_place(self) -> None:
        """Raise unless the path leads to the held directory and it is writable.

        Sub-directories that were removed are made again.
        """
        self.check_usable()
        if (refusal := self.lost() or self.read_only()) is not None:
            raise refusal
        self._remake_removed()

    def lost(self) -> VolumeNotMounted | None:
        """Return the error if the path no longer leads to the held directory, else None."""
        try:
            there = _device_and_inode(os.stat(self.path))
        except OSError as error:
            is_gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
            return VolumeNotMounted(
                f"The data directory {self.path} is gone: {describe(error)}.",
                hint="Put the directory back where it was: writes resume by themselves. If it is "
                "lost, restart: that makes a new one."
                if is_gone
                else cure_of(error.errno, self.path).hint,
            )
        if there == self.device_and_inode:
            return None
        return VolumeNotMounted(
            f"Another directory is at {self.path} now; nothing was written to it.",
            hint="Mount the volume where it was, then restart.",
        )

    def read_only(self) -> VolumeReadOnly | None:
        """Return the error if the volume is read-only, else None."""
        try:
            flags = os.fstatvfs(self.top).f_flag
        except OSError:
            return None  # the write itself shows it
        if flags & os.ST_RDONLY or self._is_stopped:
            return VolumeReadOnly(
                f"The kernel stopped writing to {self.path} after an error; nothing was written."
                if self._is_stopped
                else f"{self.path} is mounted read-only; nothing was written.",
                hint=cure_of(errno.EROFS, self.path).hint,
            )
        return None

    def named(self, error: OSError, doing: str, path: str = "") -> StorageError:
        """Return Seline's error for an OSError of this volume, or of a path in it.

        A refused access concerns the first directory that this user may not write. A file system
        that the kernel stopped is read-only from now on, which its flags do not show.
        """
        if error.errno == errno.EROFS and (mount := mount_of(self.path)) is not None:
            self._is_stopped = mount.is_stopped
        return named(error, doing, self.refusing(error) or path or self.path)

    def refusing(self, error: OSError | StorageError) -> str:
        """Return the path of the first directory that refuses an access, "" if none does."""
        if not isinstance(error, OSError) or error.errno not in (errno.EACCES, errno.EPERM):
            return ""
        directories = [self.path, *(self._path_of(held) for *_, held in self._subdirectories)]
        return next((path for path in directories if not may_write(path)), "")

    def path_of_document(self, key: DocumentKey) -> str:
        """Return the path of a document, for messages."""
        return self.path_in(self._documents.get(key.space, self.top), key.name)

    def path_in(self, descriptor: int, name: str) -> str:
        """Return the path of a name in one of the directories, for messages."""
        return f"{self._path_of(descriptor)}/{name}"

    def _path_of(self, descriptor: int) -> str:
        for name, inside, held in self._subdirectories:
            if held == descriptor:
                return f"{self._path_of(inside)}/{name}"
        return self.path

    def _remake_removed(self) -> None:
        """Reopen the sub-directories that were replaced or removed under their names."""
        for name, inside, descriptor in self._subdirectories:
            try:
                there = _device_and_inode(files.status(inside, name))
            except OSError:
                there = None
            if there != self._held[descriptor]:
                found, is_new = self._inner(name, inside)
                if is_new:
                    self.remade.append(name)
                os.dup2(found, descriptor, inheritable=False)  # others keep the number
                files.close(found)
                self._held[descriptor] = _device_and_inode(os.fstat(descriptor))

    def _inner(self, name: str, inside: int) -> tuple[int, bool]:
        """Open a directory, making it if it is missing; return whether it was made."""
        path = f"{self._path_of(inside)}/{name}"
        try:
            is_new = files.make_directory(name, inside)
            descriptor = files.open_directory(name, inside=inside)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise VolumeFailed(
                    f"{path} is not a directory; Seline does not follow links.",
                    hint=f"{not_regular(path).hint} It must be a directory.",
                ) from error
            raise self.named(error, f"Opening {path}", path) from error
        try:
            self._check_inner(path, descriptor)
            give_to_owner_of(inside, descriptor)
        except BaseException as error:
            files.close(descriptor)
            if isinstance(error, OSError):
                raise self.named(error, f"Opening {path}", path) from error
            raise
        return descriptor, is_new

    def _check_inner(self, path: str, descriptor: int) -> None:
        """Raise VolumeFailed if a sub-directory is a mount: its files cannot be renamed here."""
        mounts = mounts_inside(self.path)
        is_mount = os.path.realpath(path) in mounts
        if is_mount or os.fstat(descriptor).st_dev != self.device_and_inode[0]:
            raise VolumeFailed(
                f"{path} is a mount of its own; Seline moves files between it and {self.path}.",
                hint=cure_of(errno.EXDEV, self.path, mounts=mounts).hint,
            )

    def _check_format(self) -> bool:
        """Return whether no Seline opened the volume before. Raises StorageError."""
        try:
            found = files.read_whole(self.seline, "format", size_max=64).data.strip(_BLANK)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise self.named(error, "Reading the volume's format") from error
        if found.isdigit() and int(found) > VOLUME_FORMAT:
            file = quoted(f"{self.path}/.seline/format")
            raise UnsupportedFormat(
                f"The volume at {self.path} has format {int(found)}; this Seline knows "
                f"{VOLUME_FORMAT}.",
                hint=f"{UnsupportedFormat.hint} If no newer one wrote it, the file is damaged: "
                f"`rm {file}`, then start again.",
            )
        if not found.isdigit() and self.read_only() is None:
            _log.warning(
                "%s/.seline/format was damaged (%r); it is written again", self.path, found
            )
            self._write_format(VOLUME_FORMAT)
        return False

    def note_journal(self, *, is_used: bool) -> None:
        """Note in the format whether an older Seline may open the volume. Raises StorageError."""
        wanted = VOLUME_FORMAT if is_used else FORMAT_WITHOUT_JOURNAL
        with raising(self.named, "Writing the volume's format"):
            files.unlink(self.seline, "format.new", missing_ok=True)  # a crash left it
        with contextlib.suppress(OSError):
            if files.read_whole(self.seline, "format", size_max=64).data == f"{wanted}\n".encode():
                return
        self._write_format(wanted)

    @property
    def keeps_first_form(self) -> bool:
        """Whether `keep_first_form` chose that the volume has no journal."""
        return files.exists(self.seline, FIRST_FORM_NAME)

    def keep_first_form(self, *, keep: bool) -> None:
        """Choose for all later openings that the volume has no journal, or end that choice.

        The file is empty, so that a full volume takes it. Raises StorageError.
        """
        with raising(self.named, "Noting the form of the commit"):
            if keep:
                self.write_small(self.seline, FIRST_FORM_NAME, b"", durable=True)
            else:
                files.unlink(self.seline, FIRST_FORM_NAME, missing_ok=True)
                files.sync(self.seline)

    def _write_format(self, number: int) -> None:
        with raising(self.named, "Writing the volume's format"):
            data = f"{number}\n".encode()
            self.write_small(self.seline, "format", data, durable=True)

    def announce(self, **fields: object) -> None:
        """Describe the holder to other processes in `.seline/server.json`; best effort."""
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "deployment": os.environ.get("RAILWAY_DEPLOYMENT_ID")
            or os.environ.get("FLY_MACHINE_ID"),
            "since": instant_text(self.held_since),
            "serves_commands": self.serves_commands,
        }
        text = json.dumps(holder | fields, indent=2) + "\n"
        with contextlib.suppress(OSError):
            self.write_small(self.seline, HOLDER_NAME, text.encode())

    def write_small(
        self,
        target: int,
        name: str,
        data: bytes,
        *,
        durable: bool = False,
        mark: tuple[bytes | None, int] | None = None,
    ) -> None:
        """Write a small file whole into a directory; it is synced if `durable`. Raises OSError.

        `mark` has its checksum attribute and mtime, ns.
        """
        attribute, mtime_ns = mark or (None, time.time_ns())
        files.unlink(self.seline, f"{name}.new", missing_ok=True)
        descriptor = files.stage(self.seline, f"{name}.new", data, attribute, mtime_ns)
        try:
            with files.closing(descriptor):
                if durable:
                    files.sync(descriptor)
            files.rename(self.seline, f"{name}.new", target, name)
        except BaseException:
            with contextlib.suppress(OSError):
                files.unlink(self.seline, f"{name}.new", missing_ok=True)
            raise
        if durable:
            files.sync(target)

    def close(self) -> None:
        """Close the volume once no thread uses it; that releases its lock. Idempotent."""
        if self._forked:  # its descriptors are closed, and the threads that used it do not exist
            return
        with self._users_changed:
            self._closed = True
            self._users_changed.wait_for(lambda: self._users == 0)
            if self._subdirectories:
                self._unlock()
                self._close_descriptors()

    def _unlock(self) -> None:
        """Release the lock, which a child keeps that was forked just now and has not run yet."""
        with contextlib.suppress(OSError):
            fcntl.flock(self.top if self.lock_file is None else self.lock_file, fcntl.LOCK_UN)

    def _close_descriptors(self) -> None:
        self._close_subdirectories()
        if self.lock_file is not None:
            files.close(self.lock_file)
        files.close(self.top)

    def _close_subdirectories(self) -> None:
        while self._subdirectories:
            files.close(self._subdirectories.pop()[2])

    def _abandon_in_child(self) -> None:
        if self._subdirectories and not self._forked:  # closed, or about to be
            self._closed = self._forked = True
            self._close_descriptors()


def while_open(method: Callable[Concatenate[Any, _P], _T]) -> Callable[Concatenate[Any, _P], _T]:
    """Run a method of an object with a `volume` while that is kept open.

    It raises StoreClosed or ForkedStore.
    """

    @functools.wraps(method)
    def guarded(self: Any, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self.volume.in_use():
            return method(self, *args, **kwargs)

    return guarded


def opened_in_this_process(top: int) -> list[VolumeDirectory]:
    """Return the open volumes of this process that hold the directory of a descriptor."""
    there = _device_and_inode(os.fstat(top))
    with _open_volumes_lock:
        held = [volume for volume in _open_volumes if volume.holds_descriptors]
    return [volume for volume in held if volume.device_and_inode == there]


def _no_space(space: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), space)


def may_write(path: str) -> bool:
    """Whether this user may make and remove names in a directory."""
    return os.access(path, os.W_OK | os.X_OK, effective_ids=True)


def _device_and_inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _abandon_in_child() -> None:
    for volume in list(_open_volumes):
        volume._abandon_in_child()  # noqa: SLF001  # one module, two halves of one promise


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_in_child)
