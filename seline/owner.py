"""Give what root makes in a data directory to the owner of that directory.

A command run as root must leave nothing that the server, another user, cannot use.
"""

import errno
import os
import stat
from typing import Final

_NOT_CHANGED: Final = frozenset({errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EROFS})
"""Root without CAP_CHOWN, a user or a file system without such owners, a read-only mount."""


def give_to_owner_of(directory: int, descriptor: int) -> None:
    """Make the owner of a directory own an open file, if this process is root and may do that.

    A file must be empty: the owner may link or rename a file of root into the directory. Raises
    OSError if the disk fails.
    """
    if os.geteuid() != 0:
        return
    wanted, found = os.fstat(directory), os.fstat(descriptor)
    if found.st_uid != 0 or wanted.st_uid == 0 or not _may_be_given(found):
        return
    try:
        os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
    except OSError as error:
        if error.errno not in _NOT_CHANGED:
            raise


def _may_be_given(status: os.stat_result) -> bool:
    is_new = status.st_nlink == 1 and status.st_size == 0
    return stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and is_new)
