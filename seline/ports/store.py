"""The document store port: what every backend guarantees to the manager.

A change is a function from the current document to the new one. Changes take effect in the order
in which they are submitted. A store applies them one after another, makes a batch of them current
together, and answers none before the batch is durable.

Any thread may call every method. Changes return a `concurrent.futures.Future`, which callers with
and without an event loop can wait for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol, TypeAlias

import msgspec

from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentInfo, DocumentKey, Json, Revision
from seline.domain.json_codec import decode
from seline.domain.retention import RetentionPlan
from seline.domain.verdict import Judged, Verdict
from seline.errors import SelineError
from seline.ports.medium import Medium


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """A document as its change finds it.

    `content` is the sound content, after a recovery or the adoption of a hand edit; None if there
    is no document. If its content cannot be served, `content` is None and `failure` is the
    DocumentUnrecoverable or DocumentUnreadable. `updated_at` is the content's mtime. `backups`
    reads and judges the backups one by one, newest first. `recovered_from` is the backup that
    `content` was read from because the document's file is broken.
    """

    key: DocumentKey
    content: Content | None
    failure: SelineError | None
    updated_at: datetime | None
    now: datetime
    backups: Callable[[], Iterator[tuple[Backup, Judged]]]
    decoded: Json | msgspec.UnsetType = msgspec.UNSET
    recovered_from: Backup | None = None

    def sound(self) -> Content | None:
        """Return the content, None if there is no document. Raises `failure`."""
        if self.failure is not None:
            raise self.failure
        return self.content

    def value(self) -> Json:
        """Return the decoded content; the caller must not modify it."""
        assert self.content is not None
        return decode(self.content.data) if self.decoded is msgspec.UNSET else self.decoded


Retain: TypeAlias = Callable[[Sequence[Backup], Revision | None], RetentionPlan]
"""Plans the rotation of one document's backups, given its current revision."""


class Guard(Protocol):
    """Guards the content of one document that another content replaces (V11)."""

    def __call__(
        self,
        before: Content,
        after: Content | None,
        now: datetime,
        changed: tuple[Json, Json] | None = None,
    ) -> "tuple[Change, ...]":
        """Return the changes to commit with the replacement, none if it needs no guard.

        `after` is None if another program removed the document's file.
        `changed` is the old and the new value of the only field that differs, if known.
        """
        ...


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """Replace the document's content. Equal bytes write nothing.

    `backup` keeps the content before as a backup. `alone`: that content must have been published,
    not be one of the same batch, so that it can be kept. `always`: a full volume takes the change,
    from its reserve if need be (restores and recoveries). `also` adds changes to the same atom,
    decided after this one. `answer` is returned in the outcome. `decoded` is the value of `content`
    if the caller has it and no longer modifies it; the next change of the batch need not decode it.
    `set_aside` is the reason why the content before is useless although it is sound: it goes to
    quarantine instead of the backups.
    """

    content: Content
    decoded: Json | msgspec.UnsetType = msgspec.UNSET
    backup: bool = True
    set_aside: str = ""
    alone: bool = False
    always: bool = False
    also: tuple["Change", ...] = ()
    answer: object = None


class Remove(msgspec.Struct, frozen=True, kw_only=True):
    """Delete the document; its content becomes its newest backup, broken bytes go to quarantine.

    `purge` erases the document, its backups and its files in quarantine instead.
    """

    purge: bool = False
    also: tuple["Change", ...] = ()
    answer: object = None


class Leave(msgspec.Struct, frozen=True, kw_only=True):
    """Change nothing."""

    answer: object = None


Decision: TypeAlias = Put | Remove | Leave


class Change(msgspec.Struct, frozen=True):
    """One document's change.

    `decide` is pure and may be called more than once; it raises a SelineError to refuse, and then
    its atom changes nothing. `retain` plans the rotation of the backups once the change is durable.
    `guard` is asked about a hand edit or a recovery that this change meets: its changes commit with
    the new content, also if this change is refused.
    `size_hint` is the size of the new content in bytes, if known, for the limit of the queue.
    `preview`: it only decides, so no document is recovered or adopted for it.
    """

    key: DocumentKey
    decide: Callable[[Current], Decision]
    retain: Retain | None = None
    guard: Guard | None = None
    size_hint: int = 0
    preview: bool = False


Atom: TypeAlias = tuple[Change, ...]
"""Changes of which all take effect or none (V5)."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one change; it is durable.

    `content` is the document's content after it, None if there is no document. `changed` is False
    if nothing was written. `before` is the revision of the content before, None if there was no
    sound one. `backup` names the backup of that content. `broken`: what was before is broken
    and cannot be recovered. `answer` is the decision's.
    """

    content: Content | None
    changed: bool
    before: Revision | None = None
    backup: str | None = None
    broken: bool = False
    answer: object = None


class AddedBackup(msgspec.Struct, frozen=True, kw_only=True):
    """A content that is to become a backup of `key` under the file name `name`."""

    key: DocumentKey
    name: str
    content: Content


class Snapshot(Protocol):
    """Every document of a space at one instant, kept while it is read."""

    @property
    def taken_at(self) -> datetime: ...

    @property
    def names(self) -> Sequence[str]:
        """The documents' names, sorted."""
        ...

    @property
    def broken(self) -> Mapping[str, str]:
        """The opened documents whose file is broken, each with the backup that was read instead.

        "" if the content is the one that was saved last, or if there was none.
        """
        ...

    def open(self, name: str) -> Iterator[bytes]:
        """Yield the document's sound bytes in pieces; all of them are judged before the first.

        Raises DocumentUnrecoverable before the first piece if neither the content nor a backup is
        sound, DocumentUnreadable if the file cannot be read, DocumentNotFound if it was purged
        since, and StorageError if the disk fails later.
        """
        ...

    def read(self, name: str) -> Content:
        """Return the document's sound content; it needs memory for all of it.

        Raises what `open` raises.
        """
        ...


class DocumentStore(Protocol):
    """Documents with backups, written by one process (V1 to V8).

    After `close` every method raises StoreClosed. Methods that return no future may block, except
    `peek` and `watch`.
    """

    @property
    def medium(self) -> Medium:
        """The store's disk."""
        ...

    def peek(self, key: DocumentKey) -> Content | Verdict | None:
        """Return the current content if memory has it, MISSING if there is no document, else None.

        Reads no file; it may stat one.
        """
        ...

    def remembered_at(self, key: DocumentKey, content: Content) -> datetime | None:
        """Return the mtime of the file that `content` was read from, if memory has it; no disk."""
        ...

    def look(self, key: DocumentKey) -> tuple[Judged, datetime | None]:
        """Read and judge the document; return the verdict and its mtime. Writes nothing."""
        ...

    def documents(self, space: str, *, deleted: bool = False) -> Sequence[DocumentInfo]:
        """List the documents of a space, sorted by name.

        `deleted` lists the deleted documents that have backups instead; their `updated_at` is the
        instant of the newest one. Raises StorageError.
        """
        ...

    def backups(self, key: DocumentKey) -> Sequence[Backup]:
        """List a document's backups, newest first, unjudged. Raises StorageError."""
        ...

    def read_backup(self, key: DocumentKey, backup: str) -> Judged:
        """Read and judge one backup. Raises BackupNotFound."""
        ...

    def submit(self, atom: Atom) -> Future[tuple[Outcome, ...]]:
        """Queue an atom; the future has one outcome per change, those of `also` included.

        Before a document's first change decides, a broken document is recovered and a hand edit
        adopted, unless it is a preview; an atom of `Leave` decisions does only that. The future
        raises the error that refused the atom, which then changed nothing, or OutcomeUnknown. It
        cannot be cancelled. Raises VolumeBusy if the queue is full.
        """
        ...

    def rotate(self, key: DocumentKey, retain: Retain) -> Future[Sequence[Backup]]:
        """Discard the backups that `retain` drops; the future has them.

        The newest sound backup is kept (V8) unless the plan is `unguarded`. The future raises
        StorageError; if the backups cannot be listed, none is discarded.
        """
        ...

    def add_backups(
        self, added: Sequence[AddedBackup], *, always: bool = False
    ) -> Future[Sequence[bool]]:
        """Add backups, whole and durable; the future has, for each, whether it was added.

        One that exists with this content, sound, is not added again. No file is replaced: a backup
        whose name another content has gets the next free counter, so both are kept. After an error
        none of them was added, except by OutcomeUnknown. `always`: they may fill the volume. The
        future raises InvalidDocumentName for a name that is not of a backup of the document, and
        StorageError.
        """
        ...

    def snapshot(self, space: str) -> Future[AbstractContextManager[Snapshot]]:
        """Take a snapshot of a space between two batches; exit the context to release it.

        A change that is submitted before the future is done may be in it.
        """
        ...

    def watch(self, watcher: Callable[[DocumentKey, Outcome], None]) -> Callable[[], None]:
        """Call `watcher` after each durable change, on the writer's thread; return the stop."""
        ...

    def close(self) -> None:
        """Carry out what is queued, then close. Idempotent."""
        ...


def current_revision(store: DocumentStore, key: DocumentKey) -> Revision | None:
    """Return the revision of a sound document, None for a missing or broken one. May read it."""
    known = store.peek(key)
    if known is not None:
        return known.revision if isinstance(known, Content) else None
    judged, _ = store.look(key)
    content = judged.content if judged.verdict is Verdict.SOUND else None
    return None if content is None else content.revision


def keys_with_backups(store: DocumentStore, space: str) -> list[DocumentKey]:
    """List the documents of a space that have backups, deleted ones included, by name. Blocks."""
    infos = [*store.documents(space), *store.documents(space, deleted=True)]
    return [DocumentKey(space, name) for name in sorted(i.name for i in infos if i.backup_count)]
