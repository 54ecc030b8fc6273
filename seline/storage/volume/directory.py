"""The held directory: its descriptors, its one owner, and the proof that it is still there.

V10  The lock is flock on the data directory's own descriptor: nothing to delete, free at once
     when the holder dies, and never taken over by time. A forked child closes its descriptors
     (it never unlocks), and every call in it raises ForkedStore.
V12  Before each commit the path must still lead to the held directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, NamedTuple

from seline.clock import Clock, instant_text
from seline.domain.document import BOT, SELINE
from seline.errors import (
    ForkedStore,
    StoreClosed,
    UnsupportedFormat,
    VolumeFailed,
    VolumeLocked,
    VolumeNotMounted,
    VolumeReadOnly,
)
from seline.storage.volume import files
from seline.storage.volume.os_errors import describe, named

VOLUME_FORMAT: Final = 1
_POLL_S: Final = 0.1
_BLANK: Final = b" \t\r\n\0"
"""What a power cut may leave of a file that was not synced: nothing, or NULs."""
_NO_DIRECTORY_LOCK: Final = frozenset(
    {errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EISDIR}
)
_open_volumes: weakref.WeakSet[VolumeDirectory] = weakref.WeakSet()
_open_volumes_lock = threading.Lock()


class _Inner(NamedTuple):
    """A directory of ours, by its name in another held one."""

    name: str
    inside: int
    descriptor: int


class VolumeDirectory:
    """A data directory held by this process, with its sub-directories open."""

    def __init__(
        self,
        path: str,
        top: int,
        *,
        lock_file: int | None,
        clock: Clock,
        serves_commands: bool,
        given_up: Callable[[], bool],
    ) -> None:
        """Take over the locked descriptor `top` of `path` and open what lies below.

        `lock_file` is the lock's own descriptor where a directory cannot be locked. `given_up`
        tells that nobody wants it any more, so that it will be closed in a moment.
        """
        self.path = path
        self.top = top
        self.lock_file = lock_file
        self._clock = clock
        self._serves_commands = serves_commands
        self._given_up = given_up
        self._closed = False
        self._forked = False
        self._device_and_inode = _device_and_inode(os.fstat(top))
        self.remade: list[str] = []
        self._inner_ones: list[_Inner] = []
        try:
            self._open_inner_ones()
        except BaseException:
            self._close_inner_ones()
            raise
        with _open_volumes_lock:
            _open_volumes.add(self)

    def _open_inner_ones(self) -> None:
        self.seline = self._open_inner(".seline", self.top)
        self._check_format()
        self.staging = self._open_inner("staging", self.seline)
        self.exports = self._open_inner("exports", self.seline)
        self.quarantine = self._open_inner("quarantine", self.top)
        self._backups = {
            BOT: self._open_inner("backups", self.top),
            SELINE: self._open_inner("backups", self.seline),
        }
        self._documents = {BOT: self.top, SELINE: self.seline}
        self.remade.clear()

    def _open_inner(self, name: str, inside: int) -> int:
        descriptor = self._inner(name, inside)
        self._inner_ones.append(_Inner(name, inside, descriptor))
        return descriptor

    @property
    def device_and_inode(self) -> tuple[int, int]:
        return self._device_and_inode

    def documents(self, space: str) -> int:
        """Return the descriptor of the directory that holds a space's documents."""
        return self._documents[space]

    def backups(self, space: str) -> int:
        """Return the descriptor of the directory that holds a space's backups."""
        return self._backups[space]

    @property
    def directories(self) -> tuple[int, ...]:
        """The descriptors of the directories whose names must outlive a power cut.

        Not staging/: the disk may have there what a record promises, under a name that bears
        something else by now.
        """
        return (self.top, self.seline, self.quarantine, *self._backups.values())

    @property
    def leaving(self) -> bool:
        """Whether it is closed, or will be in a moment."""
        return self._closed or self._given_up()

    def check_usable(self) -> None:
        """Raise ForkedStore or StoreClosed where this process may not use the descriptors."""
        if self._forked:
            raise ForkedStore
        if self._closed:
            raise StoreClosed

    def check_place(self) -> None:
        """Raise unless the path still leads to the held directory, and it may be written to.

        What was removed inside it is made again.
        """
        self.check_usable()
        if (refusal := self.lost() or self.read_only()) is not None:
            raise refusal
        self._remake_removed()

    def lost(self) -> VolumeNotMounted | None:
        """Say why the path does not lead to the held directory any more, None while it does."""
        try:
            there = _device_and_inode(os.stat(self.path))
        except OSError as error:
            return VolumeNotMounted(f"The data directory {self.path} is gone: {describe(error)}.")
        if there == self._device_and_inode:
            return None
        return VolumeNotMounted(
            f"Another directory stands at {self.path} now; nothing was written to it.",
            hint="Mount the volume where it was, then restart.",
        )

    def read_only(self) -> VolumeReadOnly | None:
        """Say that the volume takes no writes, as mounted now; None while it does."""
        try:
            flags = os.fstatvfs(self.top).f_flag
        except OSError:
            return None  # whether it takes them shows when they are made
        if flags & os.ST_RDONLY:
            return VolumeReadOnly(f"{self.path} is mounted read-only; nothing was written.")
        return None

    def _remake_removed(self) -> None:
        """Go on in the directories that bear our names now: what was moved away is not ours."""
        for name, inside, descriptor in self._inner_ones:
            try:
                there = os.stat(name, dir_fd=inside, follow_symlinks=False)
            except OSError:
                there = None
            if there is None or not os.path.samestat(there, os.fstat(descriptor)):
                self._replace(descriptor, self._inner(name, inside))

    def _replace(self, old: int, new: int) -> None:
        """Put a new directory under the old descriptor's number: nobody has to be told."""
        os.dup2(new, old, inheritable=False)
        os.close(new)

    def _inner(self, name: str, inside: int) -> int:
        try:
            if files.make_directory(name, inside):
                self.remade.append(name)
            return files.open_directory(name, inside=inside)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise VolumeFailed(
                    f"{name} in {self.path} is not a directory; Seline does not follow links.",
                    hint=f"Move what is there out of the way: {name} must be a plain directory.",
                ) from error
            raise named(error, f"Opening {name} in {self.path}") from error

    def _check_format(self) -> None:
        try:
            found = files.read_whole(self.seline, "format", size_max=64).data.strip(_BLANK)
        except FileNotFoundError:
            found = b""
        except OSError as error:
            raise named(error, f"Reading the volume's format in {self.path}") from error
        if not found:
            try:
                self._write_small("format", f"{VOLUME_FORMAT}\n".encode(), durable=True)
            except OSError as error:
                raise named(error, f"Writing the volume's format in {self.path}") from error
        elif not found.isdigit() or int(found) > VOLUME_FORMAT:
            raise UnsupportedFormat(
                f"The volume at {self.path} has format {found.decode(errors='replace')}; "
                f"this Seline knows {VOLUME_FORMAT}."
            )

    def announce(self, **fields: object) -> None:
        """Tell other processes who holds the volume (`.seline/server.json`); best effort."""
        portrait = {**_self_portrait(self._clock), "serves_commands": self._serves_commands}
        text = json.dumps({**portrait, **fields}, indent=2) + "\n"
        with contextlib.suppress(OSError):
            self._write_small("server.json", text.encode())

    def write_report(self, name: str, data: bytes) -> None:
        """Put a report beside the documents, whole but not synced. Raises OSError."""
        self._write_small(name, data, self.top)

    def _write_small(
        self, name: str, data: bytes, directory: int | None = None, *, durable: bool = False
    ) -> None:
        """Put a small file in place whole; not synced unless it matters after a power cut."""
        target = self.seline if directory is None else directory
        files.unlink(self.seline, f"{name}.new", missing_ok=True)
        descriptor = files.stage(self.seline, f"{name}.new", data, None, time.time_ns())
        try:
            try:
                if durable:
                    files.sync(descriptor)
            finally:
                os.close(descriptor)
            files.rename(self.seline, f"{name}.new", target, name)
        except BaseException:
            with contextlib.suppress(OSError):
                files.unlink(self.seline, f"{name}.new", missing_ok=True)
            raise
        if durable:
            files.sync(target)

    def close(self) -> None:
        """Let go of the volume; idempotent."""
        if not self._closed:
            self._closed = True
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        self._close_inner_ones()
        if self.lock_file is not None:
            os.close(self.lock_file)
        os.close(self.top)

    def _close_inner_ones(self) -> None:
        while self._inner_ones:
            os.close(self._inner_ones.pop().descriptor)

    def _abandon_in_child(self) -> None:
        if not self._closed and not self._forked:
            self._closed = self._forked = True
            self._close_descriptors()


def hold(
    path: str,
    *,
    wait_s: float,
    clock: Clock,
    serves_commands: bool = False,
    on_wait: Callable[[VolumeLocked], None] | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> VolumeDirectory:
    """Become the one owner of a data directory, waiting up to `wait_s` for the one before.

    `serves_commands` is said to whoever comes meanwhile: there will be a door. `on_wait` hears
    once per holder who is waited for. Raises VolumeLocked naming the holder.
    """
    top = _open_top(path)
    lock_file: int | None = None
    try:
        lock_file = _wait_for_lock(path, top, wait_s, on_wait, give_up)
        volume = VolumeDirectory(
            path,
            top,
            lock_file=lock_file,
            clock=clock,
            serves_commands=serves_commands,
            given_up=give_up,
        )
    except BaseException:
        if lock_file is not None:
            os.close(lock_file)
        os.close(top)
        raise
    volume.announce()
    return volume


def _open_top(path: str) -> int:
    try:
        _make_the_way(path)
        return files.open_directory(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise VolumeFailed(
            f"{path} is not a directory, or leads through a file.",
            hint="Name a directory with --data-dir or SELINE_DATA_DIR; it is made if need be.",
        ) from error
    except OSError as error:
        raise named(error, f"Opening the data directory {path}") from error


def _make_the_way(path: str) -> None:
    """Make a directory with what leads to it, each as durable as what will lie in it."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    if above != path:
        _make_the_way(above)
    held = files.open_directory(above)
    try:
        files.make_directory(os.path.basename(path), held)
    finally:
        os.close(held)


def _wait_for_lock(
    path: str,
    top: int,
    wait_s: float,
    on_wait: Callable[[VolumeLocked], None] | None,
    give_up: Callable[[], bool],
) -> int | None:
    deadline = time.monotonic() + wait_s
    told = ""
    while True:
        held, lock_file = _try_lock(top)
        if held:
            return lock_file
        refusal = _locked(path, top)
        if on_wait is not None and refusal.message != told:
            told = refusal.message
            on_wait(refusal)
        if time.monotonic() >= deadline or give_up() or _stays_open_here(top):
            raise refusal
        time.sleep(_POLL_S)


def _try_lock(top: int) -> tuple[bool, int | None]:
    """Return whether we hold it now, and the lock's own descriptor where it had to be a file."""
    try:
        fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False, None
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_LOCK:
            raise named(error, "Locking the data directory") from error
        return _try_lock_file(top)
    return True, None


def _try_lock_file(top: int) -> tuple[bool, int | None]:
    """Lock a never-deleted file, where a directory cannot be locked (network file systems)."""
    files.make_directory(".seline", top)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock_file = os.open(".seline/lock", flags, files.FILE_MODE, dir_fd=top)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock_file)
        return False, None
    return True, lock_file


def _locked(path: str, top: int) -> VolumeLocked:
    holder = read_holder(path)
    if _is_open_here(top):
        return VolumeLocked(
            f"{path} is held by this process already.",
            hint="Use get_data_manager(), which gives the instance that is open.",
            holder=holder,
        )
    who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
    if holder.get("deployment"):
        who += f" (deployment {holder['deployment']})"
    if holder.get("since"):
        who += f" since {holder['since']}"
    return VolumeLocked(f"{path} is held by {who}.", holder=holder)


def _is_open_here(top: int) -> bool:
    """Whether it is this process that holds the directory: pids and hosts repeat in containers."""
    return bool(_open_here(top))


def _stays_open_here(top: int) -> bool:
    """Whether this process holds the directory, and nobody has begun to close it."""
    return any(not one.leaving for one in _open_here(top))


def _open_here(top: int) -> list[VolumeDirectory]:
    there = _device_and_inode(os.fstat(top))
    with _open_volumes_lock:
        return [one for one in _open_volumes if one.device_and_inode == there]


def read_holder(path: str) -> dict[str, object]:
    """Return what the holder of a data directory says of itself; empty if it says nothing."""
    try:
        with open(os.path.join(path, ".seline", "server.json"), encoding="utf-8") as file:
            holder = json.load(file)
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _self_portrait(clock: Clock) -> dict[str, object]:
    deployment = os.environ.get("RAILWAY_DEPLOYMENT_ID") or os.environ.get("FLY_MACHINE_ID")
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "deployment": deployment,
        "since": instant_text(clock.now()),
    }


def _device_and_inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _abandon_in_child() -> None:
    for volume in list(_open_volumes):
        volume._abandon_in_child()  # noqa: SLF001  # one module, two halves of one promise


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_in_child)
