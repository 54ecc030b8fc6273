"""The first process of a container: give the volume to Seline's user, become it, then be `seline`.

Platforms mount volumes as root's. Only the mount's own directory is handed over, through a
descriptor and never through a link; what lies in it is left as it is. Everything after runs
without root's rights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from seline.errors import SettingsError
from seline.settings import load_settings

USER_ID: Final = 10001


@dataclass(frozen=True, slots=True)
class ProcessUser:
    """Who a process is, or a directory's owner."""

    uid: int
    gid: int


def must_hand_over(process: ProcessUser, owner: ProcessUser, target: ProcessUser) -> bool:
    """Whether the mount's directory has to change hands: only root can, and only if it differs."""
    return process.uid == 0 and owner != target


def data_dir(environ: Mapping[str, str]) -> str | None:
    """Return the data directory as `seline` itself will find it; wrong settings are its to tell."""
    try:
        return load_settings(environ=environ).data_dir
    except SettingsError:
        return None


def hand_over(directory: str, target: ProcessUser) -> bool:
    """Give a directory to `target` if it is another's; whether it changed hands.

    Raises OSError where it is a link or no directory.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(directory, flags)
    try:
        status = os.fstat(descriptor)
        owner = ProcessUser(status.st_uid, status.st_gid)
        if not must_hand_over(ProcessUser(os.getuid(), os.getgid()), owner, target):
            return False
        os.fchown(descriptor, target.uid, target.gid)
        return True
    finally:
        os.close(descriptor)


def become(target: ProcessUser) -> None:
    """Give up root's rights for good; nothing to do for anybody else."""
    if os.getuid() != 0:
        return
    os.setgroups([])
    os.setgid(target.gid)
    os.setuid(target.uid)


def start(arguments: Sequence[str], target: ProcessUser) -> NoReturn:
    """Hand over, become, and be `seline` with these arguments."""
    directory = data_dir(os.environ)
    if directory is not None and os.path.isdir(directory) and os.getuid() == 0:
        try:
            hand_over(directory, target)
        except OSError as error:
            sys.stderr.write(f"seline: {directory} cannot be taken over: {error.strerror}.\n")
            sys.exit(1)
    become(target)
    os.environ.setdefault("HOME", "/tmp")  # noqa: S108  # nothing is kept there
    os.execv(sys.executable, [sys.executable, "-m", "seline", *arguments])  # noqa: S606


if __name__ == "__main__":
    start(sys.argv[1:] or ["serve"], ProcessUser(USER_ID, USER_ID))
