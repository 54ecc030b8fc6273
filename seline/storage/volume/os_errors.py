"""Turn the disk's errors into Seline's, and say what a commit's error left.

ENOSPC and EDQUOT become VolumeFull everywhere; `seline/cures.py` has the cause and the next step.
"""

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from seline.cures import STILL_READ, cure_of, not_regular
from seline.errors import StorageError, VolumeFailed, VolumeFull, VolumeReadOnly
from seline.storage.volume.files import NotRegular
from seline.storage.volume.mounts import mounts_inside

_NAMED: Final[Mapping[int, type[StorageError]]] = {
    errno.ENOSPC: VolumeFull,
    errno.EDQUOT: VolumeFull,
    errno.EROFS: VolumeReadOnly,
}

_OF_ONE_FILE: Final = frozenset({errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EISDIR})
"""Of a file that is a mount, immutable, or a directory."""
_READS: Final = ("Reading", "Listing", "Opening", "Locking")
"""What changes nothing."""


class LookAgain(Exception):
    """A document changed after it was judged; nothing was written."""


class CommitFailed(Exception):
    """The disk failed during a commit. The subclasses say what that leaves."""

    def __init__(self, error: OSError, doing: str) -> None:
        super().__init__(doing)
        self.error = error
        self.doing = doing


class StagingFailed(CommitFailed):
    """Nothing was visible, and everything was undone."""


class DirectoryFailed(CommitFailed):
    """A directory sync failed before anything was visible; the undo may not be durable."""


class InDoubt(CommitFailed):
    """The disk failed after something was visible, or at the commit point.

    `committed`: the record is durable, so the batch will be completed.
    """

    def __init__(self, error: OSError, doing: str, *, committed: bool = False) -> None:
        super().__init__(error, doing)
        self.committed = committed


@dataclass(slots=True)
class raising:  # noqa: N801  # named as `suppress` is: it is used as `with raising(...)`
    """Raise `as_error(error, doing)` for an OSError of the block.

    A class, because a save passes many such blocks, and a generator costs three times as much.
    """

    as_error: Callable[[OSError, str], Exception]
    doing: str

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Raise the error for an OSError."""
        if isinstance(error, OSError):
            raise self.as_error(error, self.doing) from error


def named(error: OSError, doing: str, path: str) -> StorageError:
    """Return Seline's error for an OSError that came while `doing` something with `path`."""
    kind = _NAMED.get(error.errno or 0, VolumeFailed)
    mounts = mounts_inside(path) if error.errno in (errno.EXDEV, errno.EBUSY) else ()
    irregular = isinstance(error, NotRegular)
    cure = not_regular(path) if irregular else cure_of(error.errno, path, mounts=mounts)
    hint = None if error.errno == errno.ENOSPC else cure.hint
    lost = "" if doing.startswith(_READS) else " This change was not made."
    if error.errno == errno.EROFS and doing.startswith("Opening"):
        hint = cure.hint.removeprefix(STILL_READ)
        lost = " A start writes there, so nothing can be read."
    why = "" if irregular else f"{describe(error)}: "
    message = f"{doing}: {why}{cure.cause}.{lost}"
    return kind(message, hint=hint, errno=describe(error), disk_failed=cure.disk_failed)


def at(path: str) -> Callable[[OSError, str], StorageError]:
    """Return `named` for one path."""
    return partial(named, path=path)


def describe(error: OSError | StorageError) -> str:
    """Return `ENOSPC, No space left on device`, without a path; a Seline error's message."""
    if isinstance(error, StorageError):
        return error.message
    if error.errno is None:
        return str(error)
    name = errno.errorcode.get(error.errno, str(error.errno))
    return f"{name}, {os.strerror(error.errno)}"


def is_full(error: OSError | StorageError) -> bool:
    """Whether the disk is full."""
    if isinstance(error, StorageError):
        return isinstance(error, VolumeFull)
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_of_one_file(error: OSError) -> bool:
    """Whether the system does not let this file be replaced; others can be."""
    return error.errno in _OF_ONE_FILE
