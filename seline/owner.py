"""Give what root makes in a data directory to the owner of that directory.

A command run as root must leave nothing that the server, another user, cannot use.
"""

import os


def give_to_owner_of(directory: int, descriptor: int) -> None:
    """Make the owner of a directory own an open file, if this process is root. Raises OSError."""
    if os.geteuid() != 0:
        return
    wanted, found = os.fstat(directory), os.fstat(descriptor)
    if (found.st_uid, found.st_gid) == (0, 0) and (wanted.st_uid, wanted.st_gid) != (0, 0):
        os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
