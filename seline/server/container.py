"""The entry point of a container: hand the volume to Seline's user, drop root, start `seline`.

Platforms mount volumes as root's. Only the mount's top directory changes its owner, through a
descriptor that follows no link; its content is left as it is.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn, TypeAlias

from seline.errors import SettingsError
from seline.settings import load_settings

USER_ID: Final = 10001
User: TypeAlias = tuple[int, int]
"""A user id and a group id."""


def must_hand_over(process: User, owner: User, target: User) -> bool:
    """Return whether to change the owner: the process is root, and the owner is not the target."""
    return process[0] == 0 and owner != target


def data_dir(environ: Mapping[str, str]) -> str | None:
    """Return the data directory that `seline` will use; None for wrong settings.

    `seline` reports wrong settings itself.
    """
    try:
        return load_settings(environ=environ).data_dir
    except SettingsError:
        return None


def hand_over(directory: str, target: User) -> bool:
    """Make `target` the owner of a directory; return whether the owner changed.

    Raises OSError for a link, and for what is not a directory.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(directory, flags)
    try:
        status = os.fstat(descriptor)
        owner = (status.st_uid, status.st_gid)
        if not must_hand_over((os.getuid(), os.getgid()), owner, target):
            return False
        os.fchown(descriptor, *target)
        return True
    finally:
        os.close(descriptor)


def become(target: User) -> None:
    """Drop root for good; do nothing for another user."""
    if os.getuid() != 0:
        return
    uid, gid = target
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def start(arguments: Sequence[str], target: User) -> NoReturn:
    """Hand the data directory over, become `target`, and run `seline` with these arguments."""
    os.environ.setdefault("HOME", "/tmp")  # noqa: S108  # nothing is kept there; `~` means it
    directory = data_dir(os.environ)
    if directory is not None and os.path.isdir(directory) and os.getuid() == 0:
        try:
            hand_over(directory, target)
        except OSError as error:
            sys.stderr.write(f"seline: cannot change the owner of {directory}: {error.strerror}.\n")
            sys.exit(1)
    become(target)
    os.execv(sys.executable, [sys.executable, "-m", "seline", *arguments])  # noqa: S606


if __name__ == "__main__":
    start(sys.argv[1:] or ["serve"], (USER_ID, USER_ID))
