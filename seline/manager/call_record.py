"""What one call changed: the store adds each change to the record of the call that made it.

The record follows the context of the call, also into the tasks that it starts. The audit log has
what it holds, and the answer of the call what takes that back.
"""

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

    def changes(self) -> Sequence[DocumentChange]:
        """Return each document once, with the revisions before the first and after the last."""
        return tuple(self._changes.values())

    def undo(self) -> Sequence[Undo]:
        """Return what takes the call back, in order: what frees room comes first.

        A change whose content before is not kept has none.
        """
        ways = [self._undo_of(change) for change in self._changes.values()]
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

    def noting(
        self, future: Future[tuple[Outcome, ...]], made: Sequence[Change]
    ) -> Future[tuple[Outcome, ...]]:
        """Return a future of the same outcomes, which is done once they are recorded."""
        noted: Future[tuple[Outcome, ...]] = Future()
        noted.set_running_or_notify_cancel()

        def ended(done: Future[tuple[Outcome, ...]]) -> None:
            error = done.exception()
            if error is not None:
                noted.set_exception(error)
                return
            self._note(made, done.result())
            noted.set_result(done.result())

        future.add_done_callback(ended)
        return noted

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
