"""The names of what the disk says, and how far a commit had come when it said so.

OSError in, SelineError out; ENOSPC is VolumeFull anywhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from seline.errors import StorageError, VolumeFailed, VolumeFull, VolumeReadOnly

_NAMED: Final[Mapping[int, type[StorageError]]] = {
    errno.ENOSPC: VolumeFull,
    errno.EDQUOT: VolumeFull,
    errno.EROFS: VolumeReadOnly,
}


class LookAgain(Exception):
    """What was judged is not what lies there any more; nothing was changed."""


class CommitFailed(Exception):
    """The disk failed in the middle of a commit. The subclasses say what that leaves."""

    def __init__(self, error: OSError, doing: str) -> None:
        super().__init__(doing)
        self.error = error
        self.doing = doing


class StagingFailed(CommitFailed):
    """Nothing has become visible; everything was undone."""


class DirectoryFailed(CommitFailed):
    """A directory could not be synced before anything became visible; undone, but not for sure."""


class InDoubt(CommitFailed):
    """The disk failed after something became visible, or after the commit point.

    `committed`: the record is durable, so the batch will be rolled forward.
    """

    def __init__(self, error: OSError, doing: str, *, committed: bool) -> None:
        super().__init__(error, doing)
        self.committed = committed


def named(error: OSError, doing: str) -> StorageError:
    """Return the typed error for what the disk said while `doing` something."""
    kind = _NAMED.get(error.errno or 0, VolumeFailed)
    return kind(f"{doing}: {describe(error)}. This change was not made.", errno=describe(error))


def describe(error: OSError | StorageError) -> str:
    """Return `ENOSPC, No space left on device`, without any path; of one with a name, its words."""
    if isinstance(error, StorageError):
        return error.message
    if error.errno is None:
        return str(error)
    name = errno.errorcode.get(error.errno, str(error.errno))
    return f"{name}, {os.strerror(error.errno)}"


def is_full(error: OSError | StorageError) -> bool:
    """Whether the disk has no room."""
    if isinstance(error, StorageError):
        return isinstance(error, VolumeFull)
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
