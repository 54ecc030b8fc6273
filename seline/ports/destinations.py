"""The contract of an export destination, such as a folder.

A destination stores exports as folders of files. `seline.operations` decides which exports are
written and removed.
"""

from collections.abc import Sequence
from typing import Protocol


class Destination(Protocol):
    """One destination. Every call may take long, and has its own timeout.

    Every call raises ExportFailed with the reason, which contains no secret.
    """

    @property
    def name(self) -> str:
        """The destination's name in the settings."""
        ...

    async def exports(self) -> Sequence[str]:
        """Return the names of the complete exports (those with a manifest), newest first."""
        ...

    async def leftovers(self) -> Sequence[str]:
        """Return the names of exports without a manifest: interrupted, or still being written."""
        ...

    async def put(self, export: str, file: str, data: bytes) -> None:
        """Store one file of an export atomically; it is durable when this returns."""
        ...

    async def get(self, export: str, file: str) -> bytes:
        """Return one file as stored, without the caches that can be bypassed."""
        ...

    async def remove(self, export: str) -> None:
        """Remove an export, its manifest first. Does nothing if it does not exist."""
        ...
