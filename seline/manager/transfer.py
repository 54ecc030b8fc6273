"""Everything leaves as it stood at one instant, and comes back in whole or not at all (V5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from seline.clock import instant_text
from seline.domain.document import BOT, Content, DocumentInfo, DocumentKey, Json
from seline.domain.json_codec import decode
from seline.domain.readable_export import ImportMode, ImportReport, parse_export, plan_import
from seline.domain.verdict import Verdict
from seline.errors import DocumentBusy, DocumentUnrecoverable, ImportRefused, SelineError
from seline.manager import changes
from seline.manager.changes import Encoding
from seline.manager.locks import DocumentLock, DocumentLocks
from seline.manager.reads import BoundedReads
from seline.ports.futures import wait_for
from seline.ports.store import (
    Atom,
    Change,
    Current,
    Decision,
    DocumentStore,
    Outcome,
    Retain,
    Snapshot,
)

IMPORT_TRIES: Final = 10


async def held_still(store: DocumentStore) -> AbstractContextManager[Snapshot]:
    """Return every document's content of one instant; whoever enters it lets it go."""
    asked = store.snapshot(BOT)
    try:
        return await wait_for(asked)
    except BaseException:  # cancelled, or interrupted
        asked.add_done_callback(_let_go)
        raise


async def export_of(snapshot: Snapshot, reads: BoundedReads) -> dict[str, Json]:
    """Return the export of a snapshot; `unrecoverable` names what is broken without a backup."""
    files: dict[str, Json] = {}
    broken: list[Json] = []
    for name in snapshot.names:
        try:
            files[name] = await reads.bounded(partial(_value, snapshot, name))
        except DocumentUnrecoverable:
            broken.append(name)
    export: dict[str, Json] = {"exported_at": instant_text(snapshot.taken_at), "files": files}
    if broken:
        export["unrecoverable"] = broken
    return export


def contents_of(export: Json, encoding: Encoding) -> dict[str, Content]:
    """Return the documents of an export. Raises ImportRefused."""
    return {name: _content(name, value, encoding) for name, value in parse_export(export).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import: planned over what is there, committed whole, planned anew if that has changed."""

    mode: ImportMode
    contents: Mapping[str, Content]
    store: DocumentStore
    reads: BoundedReads
    locks: DocumentLocks
    retain: Callable[[DocumentKey], Retain]
    submit: Callable[[Atom], Future[tuple[Outcome, ...]]]

    async def run(self, *, dry_run: bool) -> ImportReport:
        """Import, or only say what would change. Raises DocumentBusy after IMPORT_TRIES."""
        incoming = {name: content.revision for name, content in self.contents.items()}
        for tries_left in reversed(range(IMPORT_TRIES)):
            current = {
                info.name: info.revision if info.verdict == Verdict.SOUND else None
                for info in await self.reads.listing(self._judged_documents)
            }
            report = plan_import(current, incoming, self.mode, dry_run=dry_run)
            if dry_run:
                return report
            try:
                await self._commit(report)
            except DocumentBusy as busy:
                if "created" not in busy.details or not tries_left:
                    raise
            else:
                return report
        raise AssertionError("the last try returns or raises")

    def _judged_documents(self) -> list[DocumentInfo]:
        """List the documents; those named are read, so that their revision is certain."""
        for name in self.contents:
            self.store.look(DocumentKey(BOT, name))
        return list(self.store.documents(BOT))

    async def _commit(self, report: ImportReport) -> None:
        """Commit it. Raises DocumentBusy where there is more than a whole import replaces."""
        names = sorted({*self.contents, *report.deleted})
        taken: list[DocumentLock] = []
        try:
            for name in names:
                taken.append(await self.locks.hold(name))  # noqa: PERF401  # awaited in order
            decided = [self._change(name, self.contents.get(name)) for name in names]
            if self.mode is ImportMode.REPLACE and decided:
                decided[0] = self._if_nothing_else(decided[0], frozenset(names))
            atom = Atom(tuple(decided))
            future = self.locks.commit(taken, lambda: self.submit(atom))
        except BaseException:
            for hold in taken:
                self.locks.release(hold)
            raise
        await wait_for(future)

    def _if_nothing_else(self, change: Change, names: frozenset[str]) -> Change:
        """Return the change, refused in its turn where there are documents beside `names`."""

        def decide(current: Current) -> Decision:
            created = {info.name for info in self.store.documents(BOT)} - names
            if created:
                raise DocumentBusy(
                    f"{min(created)} was created meanwhile; nothing was changed.",
                    hint="Import again while nothing else creates documents.",
                    created=sorted(created),
                )
            return change.decide(current)

        return msgspec.structs.replace(change, decide=decide)

    def _change(self, name: str, content: Content | None) -> Change:
        key = DocumentKey(BOT, name)
        decide = changes.delete_if_there if content is None else changes.put_imported(content)
        size = 0 if content is None else content.size_bytes
        return Change(key, decide, retain=self.retain(key), size_hint=size)


def _content(name: str, value: Json, encoding: Encoding) -> Content:
    try:
        return encoding.content(value)
    except SelineError as error:
        raise ImportRefused(
            f"$.files[{name!r}]: {error.message}", hint=error.hint, document=name
        ) from error


def _value(snapshot: Snapshot, name: str) -> Json:
    return decode(b"".join(snapshot.open(name)))


def _let_go(asked: Future[AbstractContextManager[Snapshot]]) -> None:
    """Release what nobody waits for any more."""
    if not asked.cancelled() and asked.exception() is None:
        with asked.result():
            pass
