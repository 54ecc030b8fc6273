"""The contract of an export destination, such as a folder.

A destination stores exports as folders of files. `seline.operations` decides which exports are
written and removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a destination is now: its marker, empty without one, and whose disk it is on."""

    marker: str
    on_data_disk: bool


class Destination(Protocol):
    """One destination. Every call may take long, and has its own timeout.

    Every call raises ExportFailed with the reason, which contains no secret.
    """

    @property
    def name(self) -> str:
        """The destination's name in the settings."""
        ...

    @property
    def where(self) -> str:
        """Its address for messages, without secrets."""
        ...

    async def place(self, data_dir: str) -> Place:
        """Return what the destination is now, compared with a data directory."""
        ...

    async def mark(self, marker: str) -> None:
        """Make the destination, and put a marker there unless it has one."""
        ...

    async def exports(self) -> Sequence[str]:
        """Return the names of the complete exports (those with a manifest), newest first."""
        ...

    async def leftovers(self) -> Sequence[str]:
        """Return the names of exports without a manifest: interrupted, or still being written."""
        ...

    async def put(self, export: str, file: str, data: bytes) -> None:
        """Store one file of an export atomically; it is durable when this returns.

        The destination itself is not made here, so one that is gone fails.
        """
        ...

    async def get(self, export: str, file: str) -> bytes:
        """Return one file as stored, without the caches that can be bypassed."""
        ...

    async def remove(self, export: str) -> None:
        """Remove an export, its manifest first. Does nothing if it does not exist."""
        ...


class Target(NamedTuple):
    """A destination and how many exports it keeps; `same_disk`: it may be on the data's disk."""

    destination: Destination
    keep: int
    same_disk: bool = False
