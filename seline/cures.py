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
    'Raise the limit of open files, then restart: `ulimit -n "$(ulimit -H -n)"`, '
    "`LimitNOFILE=65536` in a unit, or `--ulimit nofile=65536` for a container.",
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
_ONE_MOUNT: Final = (
    "Nothing in the data directory may be a mount of its own: mount the directory as a "
    "whole{unmount}."
)
NOT_REGULAR: Final = Cure("it is not a regular file", "Move it away: `mv {path} {path}.moved`.")
ANY_OTHER: Final = Cure(
    "the disk failed",
    "Take an export to another disk now (`seline export DIRECTORY`; if Seline does not start, "
    "`cp -a {existing} DIRECTORY`). `dmesg` shows what failed: ask the volume's provider.",
    disk_failed=True,
)
OF_OS: Final[Mapping[int, Cure]] = {
    errno.EACCES: Cure(
        "user {user} may not use it",
        "{as_owner}`chown -R {owner} {existing} && chmod -R u+rwX {existing}`.",
    ),
    errno.EPERM: Cure(
        "user {user} may not change it",
        "{as_owner}`chattr -R -ia {existing}; chown -R {owner} {existing} && chmod -R u+rwX "
        "{existing}`.",
    ),
    errno.EROFS: Cure(
        "it is mounted read-only",
        "Reads and exports still work; writes resume by themselves once it is writable. As root: "
        '`mount -o remount,rw "$(findmnt -no TARGET -T {existing})"`; in a container, mount it '
        "without `ro`.",
    ),
    errno.EXDEV: Cure("it is on a mount of its own", _ONE_MOUNT),
    errno.EBUSY: Cure("it is a mount of its own", _ONE_MOUNT),
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
    return _filled(OF_OS.get(number or 0, ANY_OTHER), path, mounts)


def not_regular(path: str) -> Cure:
    """Return the cure of a path that is a link, a directory or another special file."""
    is_link_to_file = os.path.islink(path) and os.path.isfile(path)
    return _filled(_LINK if is_link_to_file else NOT_REGULAR, path)


def _filled(row: Cure, path: str, mounts: Sequence[str] = ()) -> Cure:
    existing = _existing(path)
    values = {
        "path": shlex.quote(path),
        "existing": shlex.quote(existing),
        "user": str(os.geteuid()),
        "owner": f"{os.geteuid()}:{os.getegid()}",
        "as_owner": _as_owner(existing),
        "unmount": _unmount(mounts),
    }
    return row._replace(cause=row.cause.format(**values), hint=row.hint.format(**values))


def _existing(path: str) -> str:
    """Return the path, or the nearest one above it that exists."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _as_owner(path: str) -> str:
    """Return who may use a path, which may belong to another user, up to a command of root."""
    user = os.geteuid()
    try:
        owner = os.lstat(path).st_uid
    except OSError:
        owner = user
    if owner in (0, user):
        return "As root: "
    quoted = shlex.quote(path)
    return f"Run Seline as user {owner}, who owns {quoted}; or give it to user {user}, as root: "


def _unmount(mounts: Sequence[str]) -> str:
    if not mounts:
        return "; `findmnt` shows the mounts"
    commands = " ".join(["umount", *map(shlex.quote, mounts)])
    return f". Copy what is in the mount, then, as root: `{commands}`"
