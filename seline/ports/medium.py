"""The medium port: what a store's disk adds to its documents.

Any thread may call it. A method that reads the disk blocks; it raises StorageError if the disk
fails, and StoreClosed after the store was closed.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeAlias

from seline.domain.backup import Backup
from seline.domain.counters import Counters
from seline.domain.document import Content, DocumentKey
from seline.domain.incident import Incident
from seline.domain.left_out import LeftOut
from seline.domain.usage import Usage
from seline.errors import DocumentNotFound, SelineError

SLOW_S: Final = 1.0
"""A disk that has not answered for so long must not be waited for on an event loop."""
HANGING_S: Final = 30.0
"""A disk that has not answered for so long hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineItem:
    """A broken file in quarantine."""

    name: str
    document: str
    taken_at: datetime
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One feature that the volume has or lacks, and what that means.

    `harmless`: without it every guarantee holds, so health reports it and asks for nothing.
    """

    name: str
    present: bool
    detail: str
    harmless: bool = False


MarkPinned: TypeAlias = Callable[[DocumentKey, Sequence[Backup]], Sequence[Backup]]
"""Returns a document's backups with their pins; it leaves out those that must not be shed."""


def not_in_quarantine(item: str) -> DocumentNotFound:
    """Return the error for an item that is not in quarantine."""
    return DocumentNotFound(
        f"{item} is not in quarantine.", hint="`seline quarantine` lists the items.", item=item
    )


class Medium(Protocol):
    """The volume of one store: its place, its space, its state and its broken files."""

    @property
    def place(self) -> str:
        """The data directory."""
        ...

    # space and state

    def usage(self) -> Usage:
        """Measure the volume."""
        ...

    def has_room_for(self, growth_bytes: int) -> bool:
        """Whether a change that adds so many bytes is taken now, once old backups made room."""
        ...

    def has_reserve(self) -> bool:
        """Whether the emergency space exists (V9)."""
        ...

    def backup_count(self, space: str) -> int:
        """Return the number of backups in a space, deleted documents included."""
        ...

    def foreign_backup_count(self, space: str) -> int:
        """Return how many of them Seline did not write; no policy removes those."""
        ...

    def left_out(self) -> Sequence[LeftOut]:
        """Return what the data directory holds that is no document, backup or file of Seline's."""
        ...

    def protect_pins(self, mark: MarkPinned) -> None:
        """Ask `mark` for the pinned backups before any backup is shed for space (V11).

        What waits for room only is tried again.
        """
        ...

    def capabilities(self) -> Sequence[Capability]:
        """Return what the volume can do, as probed at open."""
        ...

    def unpublished(self) -> Sequence[str]:
        """Return the documents that only the journal has, as their files cannot be written.

        Seline's own documents are left out.
        """
        ...

    def unavailable(self) -> SelineError | None:
        """Return the error that refuses writes now, None if writes are taken."""
        ...

    def busy_s(self) -> float:
        """Return for how many seconds the current commit has run, 0 if none runs."""
        ...

    def counters(self) -> Counters:
        """Return what was counted since the store was opened."""
        ...

    def incidents(self) -> Sequence[Incident]:
        """Return the latest incidents since the store was opened, oldest first."""
        ...

    def lasts(self, incident: Incident) -> bool:
        """Return whether what was refused then, to no named document, may still be refused."""
        ...

    # broken and raw files

    def quarantine(self) -> Sequence[QuarantineItem]:
        """List the files in quarantine, newest first."""
        ...

    def read_quarantine(self, item: str) -> bytes:
        """Return the bytes of a file in quarantine. Raises DocumentNotFound."""
        ...

    def raw(self, key: DocumentKey) -> bytes:
        """Return the bytes of a document's file, sound or not.

        Raises DocumentNotFound, DocumentUnreadable.
        """
        ...

    def rescue(self, key: DocumentKey) -> Content | None:
        """Return the newest sound content that needs no write; None if there is none.

        For a document that is being edited, and while nothing can be written.
        """
        ...

    def remembers(self, key: DocumentKey) -> bool:
        """Whether memory has the last content of a document, so that no backup need be read."""
        ...

    def changed_outside(self) -> Sequence[str]:
        """Return the bot's documents that another program removed, edited or broke.

        Those that memory does not hold are only returned if they were removed. Reads no file; it
        stats each. Raises StorageError.
        """
        ...

    def read_from_disk(self, key: DocumentKey, backup: str | None = None) -> None:
        """Make the next look at a document or backup read the disk, not the page cache."""
        ...

    # what other processes and tools see

    def write_report(self, data: bytes) -> Future[None]:
        """Replace the report (`metadata.json`) whole; it is not synced.

        Another program's file of that name is not replaced: the report is then kept elsewhere.
        """
        ...

    def read_report(self) -> bytes | None:
        """Return the report's bytes, None if it cannot be read."""
        ...

    @property
    def held_since(self) -> datetime:
        """When this process took the data directory."""
        ...

    def announce(self, **fields: object) -> None:
        """Add fields to the description of this process for other processes; best effort."""
        ...
