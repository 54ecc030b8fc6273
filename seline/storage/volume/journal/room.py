"""Refuse what could not be written to files: the journal itself takes it on a full volume, too.

V9  A change that needs more space than there is raises VolumeFull; what the journal has took none
    yet, so it counts as well.
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Final

from seline.domain.document import Content
from seline.domain.usage import blocks
from seline.storage.planner import Publish
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.journal.publishing import Unpublished
from seline.storage.volume.os_errors import StagingFailed

AMPLE_BYTES: Final = 1 << 30
AMPLE_FILES: Final = 100_000
"""With so much room nothing is added up: far more than a journal holds."""


def check_room(
    volume: VolumeDirectory,
    waiting: Callable[[], Iterable[Unpublished]],
    publishes: Sequence[Publish],
) -> None:
    """Raise StagingFailed unless there is room for the files that wait and for these."""
    try:
        status = os.fstatvfs(volume.top)
    except OSError:
        return  # the write itself shows it
    bytes_free = status.f_bavail * status.f_frsize
    files_free = status.f_favail if status.f_files else AMPLE_FILES
    if bytes_free >= AMPLE_BYTES and files_free >= AMPLE_FILES:
        return
    behind = (document.content for document in waiting() if not document.is_current)
    sizes = list(_sizes(chain(behind, (publish.content for publish in publishes))))
    if sizes and (len(sizes) > files_free or sum(sizes) > bytes_free):
        names = ", ".join(publish.key.name for publish in publishes)
        raise StagingFailed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), f"Writing {names}")


def _sizes(contents: Iterable[Content | None]) -> Iterable[int]:
    return (blocks(content.size_bytes) for content in contents if content is not None)
