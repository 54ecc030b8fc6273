"""What an error of the operating system means, and what ends it: one row for each number.

The commands in a hint can be copied: paths are quoted, users and mounts are those of this process.
"""

import errno
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple


class Cure(NamedTuple):
    """The cause and the next step. `disk_failed`: the disk itself reports that it fails."""

    cause: str
    hint: str
    disk_failed: bool = False


_LINK: Final = Cure(
    "Seline follows no symbolic link",
    'Replace the link by what it leads to: `cp -p --remove-destination "$(readlink -f {path})" '
    "{path}`.",
)
_FULL: Final = Cure(
    "no space is left", "Free space on that disk (`df -h {existing}` shows it), or enlarge it."
)
_FILES: Final = Cure(
    "too many files are open",
    "Raise the limit of open files, then restart: `ulimit -n 65536`, `LimitNOFILE=65536` in a "
    "unit, or `--ulimit nofile=65536` for a container.",
)
_NOT_CONNECTED: Final = Cure(
    "its file system is not connected",
    "Mount it again, then restart Seline: `findmnt -T {existing}` shows the mount.",
    disk_failed=True,
)
_UNSUPPORTED: Final = Cure(
    "its file system cannot do this",
    "Put the data directory on ext4, xfs or btrfs: `findmnt -T {existing}` shows what it is on.",
)
_FAILED: Final = Cure(
    "the disk failed",
    "Take an export to another disk now (`seline export DIRECTORY`; if Seline does not start, "
    "`cp -a {existing} DIRECTORY`). `dmesg` shows what failed: ask the volume's provider.",
    disk_failed=True,
)
_ROWS: Final[Mapping[int, Cure]] = {
    errno.EACCES: Cure("user {user} may not use it", "{access}"),
    errno.EPERM: Cure("user {user} may not change it", "{access}"),
    errno.EROFS: Cure(
        "it is mounted read-only",
        "Reads and exports still work; writes resume by themselves once it is writable. As root: "
        '`mount -o remount,rw "$(findmnt -no TARGET -T {existing})"`; in a container, mount it '
        "without `ro`.",
    ),
    errno.EXDEV: Cure("it is on a mount of its own", "{mounts}"),
    errno.EBUSY: Cure("it is a mount of its own", "{mounts}"),
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ELOOP: _LINK,
    errno.ENOTDIR: Cure("a part of the path is not a directory", "Move that file away."),
    errno.ENOSPC: _FULL,
    errno.EDQUOT: Cure(
        "the disk quota of user {user} is used up",
        "Delete files of that user, or raise the quota: `quota -u {user}` shows it.",
    ),
    errno.EFBIG: Cure(
        "a file may not become so large",
        "Raise the limit of a file's size, then restart: `ulimit -f unlimited`.",
    ),
    errno.ENOMEM: Cure("memory is short", "Give the process more memory, then restart it."),
    errno.ESTALE: _NOT_CONNECTED,
    errno.ENOTCONN: _NOT_CONNECTED,
    errno.ETIMEDOUT: _NOT_CONNECTED,
    errno.EINVAL: _UNSUPPORTED,
    errno.ENOSYS: _UNSUPPORTED,
    errno.ENOTSUP: _UNSUPPORTED,
}


def cure_of(number: int | None, path: str, *, mounts: Sequence[str] = ()) -> Cure:
    """Return the cause and the next step of an error that concerns `path`.

    An unknown number counts as a failure of the disk. `mounts` are the mounts in the data
    directory.
    """
    row = _ROWS.get(number or 0, _FAILED)
    existing = _existing(path)
    values = {
        "path": shlex.quote(path),
        "existing": shlex.quote(existing),
        "user": str(os.geteuid()),
        "access": _access(existing, immutable=number == errno.EPERM),
        "mounts": _unmount(mounts),
    }
    return row._replace(cause=row.cause.format(**values), hint=row.hint.format(**values))


def not_regular(path: str) -> Cure:
    """Return what ends it that `path` is a link, a directory or another special file."""
    if os.path.islink(path) and os.path.isfile(path):
        return cure_of(errno.ELOOP, path)
    quoted = shlex.quote(path)
    return Cure("it is not a regular file", f"Move it away: `mv {quoted} {quoted}.moved`.")


def _existing(path: str) -> str:
    """Return the path, or the nearest one above it that exists."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _access(path: str, *, immutable: bool) -> str:
    """Return how this user gets access to a path, which may belong to another one."""
    user, group = os.geteuid(), os.getegid()
    quoted = shlex.quote(path)
    first = f"chattr -R -ia {quoted}; " if immutable else ""
    give = f"as root: `{first}chown -R {user}:{group} {quoted} && chmod -R u+rwX {quoted}`"
    try:
        owner = os.lstat(path).st_uid
    except OSError:
        owner = user
    if owner in (0, user):
        return f"{give[0].upper()}{give[1:]}."
    return f"Run Seline as user {owner}, who owns {quoted}; or give it to user {user}, {give}."


def _unmount(mounts: Sequence[str]) -> str:
    rule = "Nothing in the data directory may be a mount of its own: mount the directory as a whole"
    if not mounts:
        return f"{rule}; `findmnt` shows the mounts."
    commands = " ".join(["umount", *map(shlex.quote, mounts)])
    return f"{rule}. Copy what is in the mount, then, as root: `{commands}`."
