"""What one call changed: the store adds each change to the record of the call that made it.

The record follows the context of the call, also into the tasks that it starts. The audit log has
what it holds, and the answer of the call what takes that back.
"""

import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from seline.domain.document import BOT, Revision
from seline.domain.undo import RestoreBack, Undo, undo_of_change
from seline.ports.store import Change, Outcome


class DocumentChange(msgspec.Struct, frozen=True):
    """A document that a call changed; a revision is None where there is no document."""

    document: str
    before: Revision | None
    after: Revision | None


class CallRecord:
    """The documents that one call changed, in the order of their first change."""

    def __init__(self) -> None:
        """Record nothing yet."""
        self._changes: dict[str, DocumentChange] = {}
        self._first: dict[str, tuple[str | None, bool]] = {}
        """The backup that the first change of a document made, and whether it was broken."""
        self._others: list[Undo] = []
        self._unrecorded: dict[Future[tuple[Outcome, ...]], Sequence[Change]] = {}
        self._lock = threading.RLock()

    def changes(self) -> Sequence[DocumentChange]:
        """Return each document once, with the revisions before the first and after the last."""
        with self._lock:  # a callback may be recording now
            for future in list(self._unrecorded):
                if future.done():  # and its callback may not have begun
                    self._record(future)
            return tuple(self._changes.values())

    def undo(self) -> Sequence[Undo]:
        """Return what takes the call back, in order: what frees room comes first.

        A change whose content before is not kept has none.
        """
        ways = [self._undo_of(change) for change in self.changes()]
        found = [*(way for way in ways if way is not None), *self._others]
        return sorted(found, key=lambda way: isinstance(way, RestoreBack))

    def _undo_of(self, change: DocumentChange) -> Undo | None:
        backup, was_broken = self._first[change.document]
        return undo_of_change(
            change.document, change.before, change.after, backup=backup, was_broken=was_broken
        )

    def add_undo(self, undo: Undo | None) -> None:
        """Record what takes back a change of what is no document."""
        if undo is not None:
            self._others.append(undo)

    def add(self, future: Future[tuple[Outcome, ...]], made: Sequence[Change]) -> None:
        """Record what these changes do, once they are done."""
        with self._lock:
            self._unrecorded[future] = made
        future.add_done_callback(self._record)

    def _record(self, done: Future[tuple[Outcome, ...]]) -> None:
        """Record what is done, once, and drop its outcome, which holds contents."""
        with self._lock:
            made = self._unrecorded.pop(done, ())
            if made and done.exception() is None:
                self._note(made, done.result())

    def _note(self, made: Sequence[Change], outcomes: Sequence[Outcome]) -> None:
        """Record what was changed; the outcomes of the changes that others added come last."""
        for change, outcome in zip(made, outcomes, strict=False):
            name = change.key.name
            if change.key.space != BOT or not outcome.changed:
                continue
            after = None if outcome.content is None else outcome.content.revision
            known = self._changes.get(name)
            before = outcome.before if known is None else known.before
            self._first.setdefault(name, (outcome.backup, outcome.broken))
            self._changes[name] = DocumentChange(name, before, after)


_current: ContextVar[CallRecord | None] = ContextVar("seline_call_record", default=None)


@contextmanager
def recorded() -> Generator[CallRecord]:
    """Record what the block changes."""
    record = CallRecord()
    token = _current.set(record)
    try:
        yield record
    finally:
        _current.reset(token)


def current_record() -> CallRecord | None:
    """Return the record of the call that runs, None if nothing records it."""
    return _current.get()


def note_undo(undo: Undo | None) -> None:
    """Record in the call that runs what takes back a change of what is no document."""
    record = current_record()
    if record is not None:
        record.add_undo(undo)
