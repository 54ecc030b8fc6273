"""The names of what the disk says: OSError in, SelineError out. ENOSPC is VolumeFull anywhere."""

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


def named(error: OSError, doing: str) -> StorageError:
    """Return the typed error for what the disk said while `doing` something."""
    kind = _NAMED.get(error.errno or 0, VolumeFailed)
    return kind(f"{doing}: {describe(error)}. This change was not made.", errno=describe(error))


def describe(error: OSError) -> str:
    """Return `ENOSPC, No space left on device`, without any path."""
    if error.errno is None:
        return str(error)
    name = errno.errorcode.get(error.errno, str(error.errno))
    return f"{name}, {os.strerror(error.errno)}"


def is_full(error: OSError) -> bool:
    """Whether the disk has no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
