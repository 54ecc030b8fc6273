"""Where exports go: what every destination (a folder; later a bucket, a server) promises.

A destination keeps exports as folders of files. It decides nothing: which export is written, and
which goes, is said by `services/exporting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Destination(Protocol):
    """One destination. Every call may take long, and has its own limit of time.

    Raises ExportFailed with what the destination said; never its secrets.
    """

    @property
    def name(self) -> str:
        """What the destination is called in the settings."""
        ...

    async def exports(self) -> Sequence[str]:
        """Return the names of the whole exports (those with a manifest), newest first."""
        ...

    async def leftovers(self) -> Sequence[str]:
        """Return the names of exports without a manifest: a crash left them, or one is running."""
        ...

    async def put(self, export: str, file: str, data: bytes) -> None:
        """Store one file of an export; durable, and whole or absent, when this returns."""
        ...

    async def get(self, export: str, file: str) -> bytes:
        """Return one file as the destination holds it, past every cache that can be bypassed."""
        ...

    async def remove(self, export: str) -> None:
        """Remove an export with everything in it, its manifest first; nothing if it is gone."""
        ...
