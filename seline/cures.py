"""What an error of the operating system means, and what ends it: one row for each number.

The commands in a hint can be copied: paths are quoted, users and mounts are those of this process,
and no command overwrites a file: a new name is free when the hint is made.
"""

import errno
import os
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple

from seline.quoting import on_one_line, quoted


class Cure(NamedTuple):
    """The cause and the next step. `disk_failed`: the disk itself reports that it fails."""

    cause: str
    hint: str
    disk_failed: bool = False


_NAME_BYTES_MAX: Final = 250
"""Of a new name, which leaves room for a number."""
_LINK: Final = Cure(
    "Seline follows no symbolic link",
    "Put what the link leads to in its place: "
    "`cp -aLn -- {path} {free} && rm -- {path} && mv -n -- {free} {path}`.",
)
DANGLING: Final = Cure(
    "it is a link that leads nowhere",
    "Mount what the link leads to, or remove the link: `rm -- {path}`.",
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
STILL_READ: Final = (
    "Reads and exports still work; writes resume by themselves once it is writable. "
)
"""Of a store that is open."""
NOT_REGULAR: Final = Cure("it is not a regular file", "Move it away: `mv -n -- {path} {free}`.")
SPECIAL: Final = Cure("it is not a regular file", "It holds nothing; remove it: `rm -- {path}`.")
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
        "it is read-only",
        f"{STILL_READ}As root: "
        '`mount -o remount,rw "$(findmnt -no TARGET -T {existing})"`; in a container, mount it '
        "without `ro`. If that is refused, the kernel stopped writing after an error, which "
        "`dmesg` names: stop Seline, unmount the volume, check its device with `fsck`, mount it "
        "again, and start Seline.",
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
    if number == errno.ELOOP and (os.path.islink(path) or not os.path.isdir(path)):
        return not_regular(path)
    return _filled(OF_OS.get(number or 0, ANY_OTHER), path, mounts)


def not_regular(path: str) -> Cure:
    """Return the cure of a path that is a link, a directory or another special file."""
    if os.path.islink(path):
        return _filled(_LINK if os.path.exists(path) else DANGLING, path)
    may_hold_content = os.path.isdir(path) or os.path.isfile(path) or not os.path.exists(path)
    return _filled(NOT_REGULAR if may_hold_content else SPECIAL, path)


def free_path(path: str) -> str:
    """Return a path if it is free, else one that is, with a number at its end.

    A name that would be too long for a file is cut before its suffix.
    """
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)
    room = _NAME_BYTES_MAX - len(os.fsencode(suffix))
    if len(os.fsencode(stem)) > room:
        path = os.path.join(folder, os.fsencode(stem)[:room].decode(errors="ignore") + suffix)
    names = (f"{path}.{number}" if number > 1 else path for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def step_for_file(hint: str, path: str) -> str:
    """Return the next step for a text in a file: its command names the file, and converts it.

    The bytes as they were stay beside it; the file is there all the time, as a bot may read it.
    """

    def named(found: re.Match[str]) -> str:
        command = f"{found[1]} -- {quoted(path)}"
        if found[1].startswith("iconv"):
            new, kept = (quoted(free_path(f"{path}.{end}")) for end in ("utf8", "original"))
            command += f" > {new} && cp -pn -- {quoted(path)} {kept} && mv -- {new} {quoted(path)}"
        return f"`{command}`"

    return on_one_line(re.sub(r"`(iconv [^`]*|file -i)`", named, hint))


def _filled(row: Cure, path: str, mounts: Sequence[str] = ()) -> Cure:
    existing = _existing(path)
    values = {
        "path": quoted(path),
        "free": quoted(free_path(f"{path}.moved")),
        "existing": quoted(existing),
        "user": str(os.geteuid()),
        "owner": f"{os.geteuid()}:{os.getegid()}",
        "as_owner": _as_owner(existing),
        "unmount": _unmount(mounts),
    }
    hint = on_one_line(row.hint.format(**values))
    return row._replace(cause=row.cause.format(**values), hint=hint)


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
    return (
        f"Run it as user {owner}, who owns {quoted(path)}, or reach that user's server with --url "
        f"and a token. Only if no process of user {owner} uses it, give it to {user}, as root: "
    )


def _unmount(mounts: Sequence[str]) -> str:
    if not mounts:
        return "; `findmnt` shows the mounts"
    commands = " ".join(["umount", *map(quoted, mounts)])
    return f". Copy what is in the mount, then, as root: `{commands}`"
