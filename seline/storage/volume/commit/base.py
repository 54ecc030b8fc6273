"""The interface of a commit form: make one batch of documents current, or change nothing.

The writer's queue, the reopening, strict mode and the store know only this interface. Only the
writer's thread calls a committer, except for the properties.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from seline.domain.backup import Backup
from seline.domain.document import DocumentKey
from seline.errors import StorageError
from seline.ports.medium import Capability
from seline.ports.store import AddedBackup
from seline.storage.planner import Found, Plan
from seline.storage.volume.commit.overlay import Overlay


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit made current, by document.

    `backups` has the backup of the content before, `made` lists every new backup. `refused` holds
    the error of each document that the disk refused to publish; it is unchanged. `unerased` holds
    what the disk kept of a purged document.
    """

    backups: dict[DocumentKey, Backup] = {}
    made: dict[DocumentKey, list[Backup]] = {}
    refused: dict[DocumentKey, OSError] = {}
    unerased: dict[DocumentKey, str | OSError | StorageError] = {}


class Committer(Protocol):
    """Makes batches of documents current and durable (V1, V2, V3, V5, V7)."""

    @property
    def overlay(self) -> Overlay:
        """What readers are answered while a document's file is not its current content."""
        ...

    @property
    def form(self) -> Capability:
        """The form that is used, as health reports it."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether a durable change is not in its document's file yet. Any thread may ask."""
        ...

    @property
    def unpublished(self) -> Sequence[DocumentKey]:
        """The documents whose content only the journal has, because their files cannot be written.

        Any thread may ask.
        """
        ...

    def found(self, key: DocumentKey) -> Found | None:
        """Return a document whose file is not written yet as a change finds it, else None."""
        ...

    def settle(self, now: datetime) -> None:
        """Write the files of all documents; one that cannot be written stays in the overlay."""
        ...

    def tend(self, now: datetime) -> float | None:
        """Do what is due; return the seconds to the next call, None for none.

        Raises StagingFailed, DirectoryFailed or InDoubt, as `commit` does.
        """
        ...

    def commit(self, plan: Plan, *, now: datetime) -> Committed:
        """Make the plan's publishes current together; everything is durable on return.

        Raises StagingFailed or LookAgain (nothing has changed), DirectoryFailed (nothing was
        visible; whether the undo is durable is not known) or InDoubt (the outcome is unknown, or
        known to be durable but not published). After the last two, call `recover` before the next
        commit.
        """
        ...

    def add_backups(self, added: Sequence[tuple[Backup, AddedBackup]]) -> None:
        """Make files in backups/ that replace nothing; they are durable on return.

        Raises StagingFailed or LookAgain (none was added), or DirectoryFailed (none is there;
        whether the undo is durable is not known).
        """
        ...

    def make_durable(self, found: Sequence[Found]) -> None:
        """Make the files as found durable, so that a change may rely on them (V3).

        Raises DirectoryFailed.
        """
        ...

    def recover(self, now: datetime, *, again: bool = False) -> frozenset[DocumentKey]:
        """Complete a commit that ended in the middle, and remove what it left.

        Returns the documents that it completed. `again`: after a failed sync, not at start.
        Repeating it gives the same result. Raises StorageError.
        """
        ...

    def hold_unfinished(self) -> None:
        """Answer readers as `recover` would leave the documents; the volume is not changed.

        A document of which that is not known is in doubt. Raises StorageError.
        """
        ...

    def recommit(self, found: Sequence[Found], now: datetime) -> None:
        """Commit the documents once more as they were found, after a sync of them failed.

        Raises OSError, or as `commit` does.
        """
        ...

    def leftovers(self) -> Sequence[str]:
        """Return the names of temporary files; there are none after a commit that returned."""
        ...

    def close(self, *, settles: bool) -> None:
        """Stop the threads. Idempotent. No commit may follow.

        `settles`: write and sync what only the journal has. Not after a failed sync: another one
        would prove nothing, and the next start replays the journal.
        """
        ...
