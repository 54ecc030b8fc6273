"""Hold a data directory as its one owner, or wait for the process that holds it.

V10  The lock is flock on the data directory's own descriptor: there is no file to delete, the
     kernel releases it when the holder dies, and no timeout takes it over.
"""

import contextlib
import errno
import fcntl
import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from seline.clock import Clock
from seline.errors import StorageError, VolumeFailed, VolumeLocked, VolumeNotMounted
from seline.owner import give_to_owner_of
from seline.storage.volume import files
from seline.storage.volume.directory import HOLDER_NAME, VolumeDirectory, opened_in_this_process
from seline.storage.volume.os_errors import named

POLL_S: Final = 0.1
_NO_DIRECTORY_LOCK: Final = frozenset(
    {errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EISDIR}
)
_NO_PLACE: Final = frozenset({errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ENAMETOOLONG})
"""What a path has that was mistyped."""

T = TypeVar("T")


def hold(
    path: str,
    *,
    wait_s: float,
    clock: Clock,
    serves_commands: bool = False,
    on_wait: Callable[[StorageError], None] | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> VolumeDirectory:
    """Return the data directory, held; make it if it does not exist.

    Waits up to `wait_s` for another holder, and calls `on_wait` once for each; `give_up` ends the
    wait. `serves_commands` is announced to other processes. Raises VolumeLocked naming the holder.
    """
    with contextlib.ExitStack() as on_error:
        top = _open_top(path)
        on_error.callback(files.close, top)
        lock_file = wait_for(
            lambda: _lock(path, top),
            wait_s=wait_s,
            on_wait=on_wait,
            give_up=lambda: give_up() or _stays_open(top),
        )
        if lock_file is not None:
            on_error.callback(files.close, lock_file)
        volume = VolumeDirectory(path, top, lock_file, clock, serves_commands, give_up)
        on_error.pop_all()
    volume.announce()
    return volume


def find_holder(path: str) -> VolumeLocked | None:
    """Return the refusal of a directory that is held; lock a free one for that moment only."""
    try:
        with files.closing(files.open_directory(path)) as top:
            lock_file = _lock(path, top)
            if lock_file is not None:
                files.close(lock_file)
    except VolumeLocked as locked:
        return locked
    except (OSError, StorageError):
        return None
    return None


def read_holder(path: str) -> dict[str, object]:
    """Return what a directory's holder announced, {} if the file is missing or broken."""
    try:
        with open(os.path.join(path, ".seline", HOLDER_NAME), encoding="utf-8") as file:
            holder = json.load(file)
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _open_top(path: str) -> int:
    try:
        _make_directories(path)
        return files.open_directory(path)
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise VolumeFailed(
                f"{path} cannot be a data directory: {error.strerror}.",
                hint="Name a directory with --data-dir or SELINE_DATA_DIR; it is made if need be.",
            ) from error
        raise _not_opened(error, path) from error


def _not_opened(error: OSError, path: str) -> StorageError:
    """Return the error for a data directory that cannot be opened or made."""
    doing = f"Opening the data directory {path}"
    above = [str(parent) for parent in reversed(Path(path).parents)]
    closed = next((parent for parent in above if _is_closed(parent)), None)
    if error.errno not in (errno.EACCES, errno.EPERM) or (closed is None and os.path.isdir(path)):
        return named(error, doing, path)
    user, made = os.geteuid(), shlex.quote(path)
    message = f"{doing}: user {user} may not use {closed or os.path.dirname(path)}."
    if closed is not None:
        return VolumeFailed(message, hint="Name another one with --data-dir or SELINE_DATA_DIR.")
    return VolumeFailed(
        message,
        hint="Name another one with --data-dir or SELINE_DATA_DIR, or make it as root: "
        f"`mkdir -p {made} && chown {user}:{os.getegid()} {made}`.",
    )


def _is_closed(directory: str) -> bool:
    """Whether a directory exists that this user may not pass through."""
    return os.path.exists(directory) and not os.access(directory, os.X_OK, effective_ids=True)


def _make_directories(path: str) -> None:
    """Make a directory and its parents, each durable."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        _make_directories(parent)
    with files.closing(files.open_directory(parent)) as held:
        name = os.path.basename(path)
        files.make_directory(name, held)
        with files.closing(files.open_directory(name, inside=held)) as made:
            give_to_owner_of(held, made)


def wait_for(
    attempt: Callable[[], T],
    *,
    wait_s: float,
    on_wait: Callable[[StorageError], None] | None,
    give_up: Callable[[], bool],
) -> T:
    """Repeat an attempt until it raises no VolumeLocked and no VolumeNotMounted. Blocks.

    `on_wait` is called with each new reason. The last one is raised after `wait_s`, or if
    `give_up` returns True.
    """
    deadline = time.monotonic() + wait_s
    notified = ""
    while True:
        try:
            return attempt()
        except (VolumeLocked, VolumeNotMounted) as reason:
            if time.monotonic() >= deadline or give_up():
                raise
            if on_wait is not None and reason.message != notified:
                notified = reason.message
                on_wait(reason)
        time.sleep(POLL_S)


def _lock(path: str, top: int) -> int | None:
    """Lock the directory now; return the lock's descriptor if it is a file. Raises VolumeLocked."""
    try:
        try:
            fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY_LOCK:
                raise
            return _lock_file(top)
    except BlockingIOError:
        raise _refusal(path, top) from None
    except OSError as error:
        raise named(error, "Locking the data directory", path) from error
    return None


def _lock_file(top: int) -> int:
    """Lock a file that is never deleted: network file systems cannot lock a directory."""
    files.make_directory(".seline", top)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock_file = os.open(".seline/lock", flags, files.FILE_MODE, dir_fd=top)
    try:
        give_to_owner_of(top, lock_file)
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        files.close(lock_file)
        raise
    return lock_file


def _stays_open(top: int) -> bool:
    """Whether this process holds the directory, and is not about to close it."""
    return any(not volume.leaving for volume in opened_in_this_process(top))


def _refusal(path: str, top: int) -> VolumeLocked:
    holder = read_holder(path)
    if opened_in_this_process(top):  # pid and host cannot tell: they repeat in containers
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
