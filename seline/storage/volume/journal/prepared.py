"""Files that a replay may write: many are written and synced together, before it judges documents.

V3  A file gets its name only after its bytes are durable.
The replay renames those that it decides to write. If preparing fails, it writes one after another.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from seline.storage.volume import files
from seline.storage.volume.commit.sync import Syncer
from seline.storage.volume.os_errors import describe

FILES_MAX: Final = 128
"""Each needs a descriptor until they are synced."""
BYTES_MAX: Final = 4 << 20
"""They are in memory and on the volume, beside what they replace."""
_log = logging.getLogger("seline.storage")


class ReplayedFile(NamedTuple):
    """A file to write: `name` in `directory`, a held descriptor.

    `attribute` and `mtime_ns` are what `Capabilities.mark` returns.
    """

    directory: int
    name: str
    data: bytes
    attribute: bytes | None
    mtime_ns: int


def is_enough(files_wanted: int, bytes_wanted: int) -> bool:
    """Whether no more files are to be prepared together."""
    return files_wanted >= FILES_MAX or bytes_wanted >= BYTES_MAX


@dataclass(slots=True)
class PreparedFiles:
    """Durable files in staging/, until they are taken or discarded."""

    staging: int
    syncer: Syncer
    _ready: dict[tuple[int, str, bytes], str] = field(
        default_factory=dict[tuple[int, str, bytes], str]
    )
    """The names in staging/, by directory, name and content."""

    def prepare(self, wanted: Sequence[ReplayedFile]) -> None:
        """Write and sync these files; none of them is ready if one fails."""
        self.discard()
        descriptors: list[int] = []
        try:
            for number, file in enumerate(wanted):
                staged = f"prepared-{number}"
                files.unlink(self.staging, staged, missing_ok=True)
                descriptors.append(files.stage(self.staging, staged, *file[2:]))
                self._ready[file.directory, file.name, file.data] = staged
            self.syncer.sync_written(descriptors)
        except OSError as error:
            _log.info("files are replayed one by one, not together: %s", describe(error))
            self.discard()
        finally:
            for descriptor in descriptors:
                files.close(descriptor)

    def take(self, directory: int, name: str, data: bytes) -> str | None:
        """Return the name in staging/ of a file for this place with these bytes, if it is ready."""
        return self._ready.pop((directory, name, data), None)

    def discard(self) -> bool:
        """Remove the files that were not taken; return whether there were any."""
        ready, self._ready = self._ready, {}
        for staged in ready.values():
            with suppress(OSError):
                files.unlink(self.staging, staged)
        return bool(ready)
