"""The document store: what every backend promises to the manager.

A change is a *function from what is there to what shall be there*. Order of submission is order
of effect; a store applies changes one after another, makes a batch of them current together, and
answers nothing before the batch is durable.

Every method may be called from any thread. What may take long returns a
`concurrent.futures.Future`, so that callers with and without an event loop can wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeAlias, TypeVar

import msgspec

from seline.domain.backup import Backup
from seline.domain.counters import CounterValues
from seline.domain.document import Content, DocumentInfo, DocumentKey, Json, Revision
from seline.domain.incident import Incident
from seline.domain.json_codec import decode
from seline.domain.retention import RetentionPlan
from seline.domain.usage import Usage
from seline.domain.verdict import Judged, Verdict
from seline.errors import DocumentNotFound, SelineError

T = TypeVar("T")


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """What a change finds when its turn comes.

    `content` is the sound content (after adoption of a hand edit or recovery, if those were
    due), None where the document does not exist. `trouble` is set, and `content` None, where
    there is content that cannot be served: DocumentUnrecoverable or DocumentUnreadable.
    `updated_at` is the content's mtime. `backups` judges the document's backups from the newest
    to the oldest, reading each only when it is asked for.
    """

    key: DocumentKey
    content: Content | None
    trouble: SelineError | None
    updated_at: datetime | None
    now: datetime
    backups: Callable[[], Iterator[tuple[Backup, Judged]]]
    decoded: Json | msgspec.UnsetType = msgspec.UNSET

    def sound(self) -> Content | None:
        """Return the content, None if there is no document; raise the trouble if there is one."""
        if self.trouble is not None:
            raise self.trouble
        return self.content

    def value(self) -> Json:
        """Return what the content holds. It may be another change's too: it is never altered."""
        assert self.content is not None
        return decode(self.content.data) if self.decoded is msgspec.UNSET else self.decoded


Retain: TypeAlias = Callable[[Sequence[Backup], Revision | None], RetentionPlan]
"""Plans the rotation of one document's backups, given which revision is current there."""


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """Make `content` the document's. Equal bytes write nothing.

    `backup` keeps the content before it among the backups; `alone` asks that the content before
    it be a published one, so that it can be kept (a blank save's). `always` marks changes that
    emergencies may draw on the reserve for, whatever their size: restores and recoveries.
    `also` adds changes to the same atom, decided after this one. `answer` is handed back.
    `decoded` is what `content` holds, where it is at hand and nobody alters it any more: it saves
    the next change of the batch from decoding it. `set_aside` says why the content before it is
    useless although it is sound: it goes to quarantine instead of to the backups.
    """

    content: Content
    decoded: Json | msgspec.UnsetType = msgspec.UNSET
    backup: bool = True
    set_aside: str = ""
    alone: bool = False
    always: bool = False
    also: tuple[Change, ...] = ()
    answer: object = None


class Remove(msgspec.Struct, frozen=True, kw_only=True):
    """Make the document absent, keeping its content as newest backup; broken bytes in quarantine.

    `purge` erases the document with its backups and quarantined bytes instead.
    """

    purge: bool = False
    also: tuple[Change, ...] = ()
    answer: object = None


class Leave(msgspec.Struct, frozen=True, kw_only=True):
    """Leave the document as it is."""

    answer: object = None


Decision: TypeAlias = Put | Remove | Leave


class Change(msgspec.Struct, frozen=True):
    """One document's change; `decide` is pure and may be asked more than once.

    `decide` raises a SelineError to refuse: then its atom changes nothing. `retain` plans the
    rotation of the document's backups once the change is durable. `size_hint` is the number of
    bytes it brings, as far as it is known, for the bound of the queue.
    """

    key: DocumentKey
    decide: Callable[[Current], Decision]
    retain: Retain | None = None
    size_hint: int = 0


class Atom(msgspec.Struct, frozen=True):
    """Changes that take effect all or not at all (V5)."""

    changes: tuple[Change, ...]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one change: durable when it is handed out.

    `content` is the document's content after it (None: absent). `before` names the backup or
    None; `changed` is False where nothing had to be written. `answer` is the decision's.
    """

    content: Content | None
    changed: bool
    backup: str | None = None
    answer: object = None


SLOW_S: Final = 1.0
"""A disk that has not answered for so long: nobody may wait for it on an event loop."""
HANGING_S: Final = 30.0
"""A disk that has not answered for so long does not just take its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineItem:
    """Broken bytes that were set aside."""

    name: str
    document: str
    taken_at: datetime
    size_bytes: int


def not_in_quarantine(item: str) -> DocumentNotFound:
    """Return the error for an item that is not in quarantine."""
    return DocumentNotFound(
        f"{item} is not in quarantine.", hint="`seline quarantine` lists the items.", item=item
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing the volume can or cannot do, and what that means."""

    name: str
    present: bool
    detail: str


class Snapshot(Protocol):
    """Every document of one instant, held still while it is read (an export's)."""

    @property
    def taken_at(self) -> datetime: ...

    @property
    def names(self) -> Sequence[str]:
        """The documents' names, sorted."""
        ...

    def open(self, name: str) -> Iterator[bytes]:
        """Yield the document's sound bytes in pieces, judged whole before the first.

        Raises DocumentUnrecoverable where neither the content nor a backup of it is sound,
        before the first piece; StorageError where the disk fails later.
        """
        ...


class DocumentStore(Protocol):
    """Documents with backups, of one owner process (SPEC V1–V12)."""

    @property
    def place(self) -> str:
        """Where the documents lie, as a person would name it (the data directory)."""
        ...

    def peek(self, key: DocumentKey) -> Content | Verdict | None:
        """Return the current content if it is known without reading, else None.

        Costs one stat; never waits. `Verdict.MISSING` for a document that does not exist.
        """
        ...

    def look(self, key: DocumentKey) -> tuple[Judged, datetime | None]:
        """Read and judge the document now; return the verdict and its mtime. Writes nothing."""
        ...

    def busy_s(self) -> float:
        """Return for how many seconds the batch under way has been worked on, 0 without one."""
        ...

    def later(self, work: Callable[[], T]) -> Future[T]:
        """Run reading work on the store's reader threads.

        Raises StoreClosed; the future does where the store was closed before its turn came.
        """
        ...

    def rescue(self, key: DocumentKey) -> Content | None:
        """Return the newest sound content that can be had without writing, None if there is none.

        For a document being edited (unsettled), and where nothing can be written.
        """
        ...

    def submit(self, atom: Atom) -> Future[tuple[Outcome, ...]]:
        """Queue an atom; the future holds its outcomes (one per change, `also` included).

        A broken document is recovered, and a hand edit adopted, before its first change decides;
        an atom of `Leave` decisions alone asks for just that. Raises VolumeBusy at once when the
        queue is full; the future raises what refused the atom: then nothing of it was done.
        Cancelling the future has no effect on the atom.
        """
        ...

    def documents(self, space: str) -> Sequence[DocumentInfo]:
        """List the documents, sorted by name. May read what was never read. Blocks."""
        ...

    def backups(self, key: DocumentKey) -> Sequence[Backup]:
        """List a document's backups, newest first, unjudged. Blocks."""
        ...

    def backup_counts(self, space: str) -> dict[str, int]:
        """Return the number of backups by document, of deleted documents too. Blocks."""
        ...

    def read_backup(self, key: DocumentKey, backup: str) -> Judged:
        """Judge one backup. Raises BackupNotFound. Blocks."""
        ...

    def rotate(self, key: DocumentKey, retain: Retain) -> Future[Sequence[Backup]]:
        """Discard what `retain` drops, and return it; never the newest sound backup (V8).

        Only an `unguarded` plan may drop that one. The future raises StorageError; where the
        backups could not be listed, nothing was discarded.
        """
        ...

    def heed_pins(
        self, marked: Callable[[DocumentKey, Sequence[Backup]], Sequence[Backup]]
    ) -> None:
        """Ask `marked` which backups of a document are pinned before any is shed for room (V11)."""
        ...

    def quarantine(self) -> Sequence[QuarantineItem]:
        """List what was set aside, newest first. Blocks."""
        ...

    def read_quarantine(self, item: str) -> bytes:
        """Return the bytes as they are. Raises DocumentNotFound. Blocks."""
        ...

    def raw(self, key: DocumentKey) -> bytes:
        """Return the document's bytes as they lie there, sound or not. Blocks."""
        ...

    def drop_cached_pages(self, key: DocumentKey, backup: str | None = None) -> None:
        """Make the next look at a document, or at one of its backups, ask the medium."""
        ...

    def write_report(self, data: bytes) -> Future[None]:
        """Put the report (`metadata.json`) in place whole; it need not survive a power cut."""
        ...

    def read_report(self) -> bytes | None:
        """Return the report as it lies there, None where there is none to be read."""
        ...

    def announce(self, **fields: object) -> None:
        """Tell other processes where this one can be reached; best effort."""
        ...

    def has_reserve(self) -> bool:
        """Whether the emergency space is there."""
        ...

    def snapshot(self, space: str) -> Future[AbstractContextManager[Snapshot]]:
        """Hold every document's current content still, between two batches."""
        ...

    def usage(self) -> Usage:
        """Measure the volume. Blocks."""
        ...

    def figures(self) -> CounterValues:
        """Return what was counted since the store was opened."""
        ...

    def capabilities(self) -> Sequence[Capability]:
        """Say what this volume can do, and what is missing."""
        ...

    def incidents(self) -> Sequence[Incident]:
        """The incidents since the store was opened, oldest first, bounded."""
        ...

    def trouble(self) -> SelineError | None:
        """Return why writes are refused just now, None when they are not."""
        ...

    def watch(self, notice: Callable[[DocumentKey, Outcome], None]) -> Callable[[], None]:
        """Call `notice` on the writer's thread after each durable change; returns the end of it."""
        ...

    def close(self) -> None:
        """Carry out what is queued, then let go of the volume. Idempotent. Blocks."""
        ...
