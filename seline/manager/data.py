"""The DataManager: everything a bot and its operator do with documents, awaited (SPEC §5).

A change orders itself (`holds`), hands the store a pure function (`changes`) and waits for it
(`waiting`); a read comes by `reading`, and both by the store that `lifetime` opens and closes.
Nothing here touches a disk, and no `await` stands inside a commit.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar, cast

from seline.clock import Clock, SystemClock
from seline.domain import pins as pinning
from seline.domain.backup import Backup
from seline.domain.document import (
    BOT,
    SELINE,
    Content,
    Document,
    DocumentInfo,
    DocumentKey,
    IfMatch,
    Json,
    Revision,
    check_document_name,
)
from seline.domain.forecast import Forecast
from seline.domain.json_codec import NotJson, decode, decode_strict
from seline.domain.readable_export import ImportReport, parse_mode
from seline.domain.report import Check, Deleted, Pruned, Reset, Restored, VerifyReport
from seline.domain.verdict import Judged, Verdict
from seline.errors import BackupNotFound, InvalidRequest, VolumeBusy
from seline.manager import backups, changes
from seline.manager.blocks import Edit, Transaction
from seline.manager.changes import BlankSaved, Encoding, Guard, not_found
from seline.manager.health import Health
from seline.manager.lifetime import Lifetime
from seline.manager.locks import DocumentLocks
from seline.manager.options import ManagerOptions
from seline.manager.pins import Keeping
from seline.manager.pruning import prune
from seline.manager.reads import BoundedReads, ServedContent
from seline.manager.transfer import Import, contents_of, export_of, held_still
from seline.manager.verifying import verify
from seline.ports.futures import refuse_in_turn, wait_for
from seline.ports.store import (
    Atom,
    Change,
    Current,
    Decision,
    DocumentStore,
    Incident,
    Outcome,
    QuarantineItem,
    Snapshot,
)

_log = logging.getLogger("seline.manager")
NOTED_FOR: Final = timedelta(days=1)
HEALTH_S: Final = 3.0
_MISSING: Final[Any] = object()
T = TypeVar("T")


class DataManager:
    """Documents with backups, over whichever store. Safe to use from any task and thread.

    Names are checked first (InvalidDocumentName); values are the caller's own, never shared.
    """

    def __init__(
        self,
        opening: Future[DocumentStore],
        options: ManagerOptions | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Work over the store that `opening` will hold; every call waits for it."""
        self.options = options or ManagerOptions()
        self.clock = clock or SystemClock()
        self.encoding = Encoding(
            document_bytes_max=self.options.document_bytes_max, depth_max=self.options.depth_max
        )
        self.locks = DocumentLocks(
            self.clock, wait_s=self.options.edit_wait_s, limit_s=self.options.edit_limit_s
        )
        self._keeping: Keeping | None = None
        self._health: Health | None = None
        self._lifetime = Lifetime(self._assemble)
        self._reads = BoundedReads(self.clock, self._lifetime)
        self._sound = ServedContent(self._lifetime, self._reads, look=self._look, note=self.note)
        self.incidents: list[Incident] = []
        self.last_verify: VerifyReport | None = None
        self.last_export_at: datetime | None = None
        self.last_verified_at: datetime | None = None
        """When everything was checked last, by this process or an earlier one."""
        self.more_checks: list[Callable[[], Check]] = []
        """What others add to health."""
        self.forecast: Forecast | None = None
        opening.add_done_callback(self._lifetime.opened)

    # saving and loading

    async def save_json(
        self,
        name: str,
        value: object,
        backup: bool = True,  # the seed's signature
        if_match: IfMatch = None,
        *,
        shrink: bool = False,
    ) -> Revision:
        """Save a value and return its revision, durable (V1–V3).

        `backup=False` keeps no backup of the content before. `if_match` refuses unless that
        revision is current (`ABSENT`: unless there is none). `shrink=True` says that removing
        most of the document is meant (V11). Raises NotSerializable, DocumentTooLarge,
        RevisionMismatch, DocumentUnrecoverable, DocumentBusy, StorageError.
        """
        key = self._key(name)
        content = self.encoding.content(value)
        outcome = await self._save(key, content, backup, if_match, shrink=shrink)
        return _revision(outcome)

    async def save_text(
        self,
        name: str,
        data: bytes,
        *,
        backup: bool = True,
        if_match: IfMatch = None,
        shrink: bool = False,
    ) -> tuple[Revision, bool]:
        """Save JSON text of unknown origin; return the revision, and whether it was created.

        Raises InvalidRequest naming line and column where it is not strict JSON.
        """
        key = self._key(name)
        try:
            value = decode_strict(data, depth_max=self.options.depth_max)
        except NotJson as error:
            raise InvalidRequest(
                f"The body is not JSON: {error}. Nothing was written.",
                line=error.line,
                column=error.column,
            ) from error
        existed = await self._exists(key)
        content = self.encoding.content(value)
        outcome = await self._save(key, content, backup, if_match, shrink=shrink)
        return _revision(outcome), not existed

    async def load_json(self, name: str, default: Json = _MISSING) -> Json:
        """Return a document's value; `default` (else `{}`) only if it does not exist (V4)."""
        key = self._key(name)
        content = await self._sound.content(key)
        if content is not None:
            return decode(content.data)
        return {} if default is _MISSING else default

    async def read(self, name: str) -> Document:
        """Return the value with revision, size and instant. Raises DocumentNotFound."""
        content, updated_at = await self.read_content(name)
        return Document(
            name=name,
            value=decode(content.data),
            revision=content.revision,
            size_bytes=content.size_bytes,
            updated_at=updated_at,
        )

    async def read_content(self, name: str) -> tuple[Content, datetime]:
        """Return the bytes as they are stored, and since when. Raises DocumentNotFound."""
        key = self._key(name)
        content = await self._sound.content(key)
        if content is None:
            raise not_found(name)
        store = await self.open_store()
        _, updated_at = await self.reading(lambda: store.look(key))
        return content, updated_at or self.clock.now()

    async def update_field(
        self,
        name: str,
        field: str,
        value: object,
        backup: bool = True,  # the seed's signature
        if_match: IfMatch = None,
        *,
        shrink: bool = False,
    ) -> Revision:
        """Set one field of an object, whatever others do meanwhile (V6); return the revision.

        A missing document is created. `shrink=True` as in `save_json`. Raises NotAnObject for a
        list or a plain value.
        """
        key = self._key(name)
        if not isinstance(field, str):
            raise InvalidRequest(f"A field's name is text, not {type(field).__name__}.")
        held = cast("dict[str, Json]", self.encoding.held({field: value}))[field]
        decide = changes.update_field(
            field,
            held,
            self.encoding,
            if_match=if_match,
            backup=backup,
            guard=self._guard(key, shrink=shrink),
        )
        return _revision(await self.change(key, decide))

    async def update_json(
        self, name: str, function: Callable[[Json], Json], *, shrink: bool = False
    ) -> Json:
        """Apply a pure function to a document's value (`{}` if there is none); return the new one.

        `shrink=True` as in `save_json`.
        The function runs in the store's turn and may run more than once. It may load documents;
        what would wait for its own end (a save, a recovery) raises NestedEdit in it.
        """
        key = self._key(name)
        decide = changes.update(
            lambda value: function({} if value is None else value),
            self.encoding,
            guard=self._guard(key, shrink=shrink),
        )
        outcome = await self.change(key, decide)
        assert outcome.content is not None
        return decode(outcome.content.data)

    def edit(self, name: str, default: Json = _MISSING, *, backup: bool = True) -> Edit:
        """Open a block that holds one document: `async with data.edit(name) as value: …`.

        The value may be changed in place; it is saved when the block ends, and left as it was if
        the block raises. `default` (else `{}`) stands for a document that does not exist.
        Raises NestedEdit, DocumentBusy; RevisionMismatch where the hold was lost.
        """
        return Edit(self, self._key(name), {} if default is _MISSING else default, backup=backup)

    def transaction(self, *names: str, backup: bool = True) -> Transaction:
        """Open a block that holds several documents and changes all or none of them (V5)."""
        return Transaction(self, [self._key(name) for name in names], backup=backup)

    # deleting, giving up, going back

    async def delete(self, name: str, *, purge: bool = False, if_match: IfMatch = None) -> Deleted:
        """Delete a document; its content stays as its newest backup.

        `purge=True` erases document, backups and quarantined bytes at once. Raises
        DocumentNotFound.
        """
        key = self._key(name)
        store = await self.open_store()
        if purge:
            has_backups = await self.reading(lambda: backups.has_copies(store, key))
            forget = self.keeping.change(lambda pins: pinning.without_document(pins, name))
            also = (forget,) if any(pin.document == name for pin in self.keeping.pins()) else ()
            decide = changes.purge(has_backups=has_backups, if_match=if_match, also=also)
        else:
            decide = changes.delete(if_match=if_match)
        outcome = await self.change(key, decide)
        return Deleted(document=name, backup=outcome.backup, purged=purge)

    async def reset(self, name: str) -> Reset:
        """Give up a broken document, keeping its bytes in quarantine.

        Raises DocumentNotFound, and InvalidRequest for a sound document.
        """
        await self.change(self._key(name), changes.reset)
        return Reset(document=name, quarantined=True)

    async def restore_from_backup(self, name: str) -> bool:
        """Go back to the newest sound backup that differs; False if there is none (the seed's)."""
        try:
            await self.restore(name)
        except BackupNotFound:
            return False
        return True

    async def restore(self, name: str, backup: str | None = None) -> Restored:
        """Go back to a backup; what was current becomes one itself, so this can be undone.

        Raises BackupNotFound with every backup tried and why it cannot be used.
        """
        key = self._key(name)
        outcome = await self.change(key, changes.restore(backup))
        chosen = cast("Backup", outcome.answer)
        return Restored(
            document=name,
            backup=chosen.name,
            taken_at=chosen.taken_at,
            revision=_revision(outcome),
            undo=outcome.backup,
        )

    # looking

    async def documents(self) -> list[DocumentInfo]:
        """List the documents, sorted by name."""
        store = await self.open_store()
        return list(await self._reads.listing(lambda: store.documents(BOT)))

    async def backups(self, name: str) -> list[Backup]:
        """List a document's backups, newest first, each judged, with the reason why it is kept."""
        key = self._key(name)
        store = await self.open_store()
        listed = await self._reads.listing(lambda: backups.judged_backups(store, key))
        if not listed and not await self._exists(key):
            raise not_found(name)
        return await self.reading(lambda: self.keeping.reasoned(key, listed))

    async def all_backups(self) -> list[Backup]:
        """List every document's backups, newest first, unjudged, each with its reason."""
        store = await self.open_store()
        return await self._reads.listing(lambda: backups.every_backup(store, self.keeping))

    async def read_backup(self, name: str, backup: str) -> Json:
        """Return a backup's value. Raises BackupNotFound, also for one that is not sound."""
        return decode((await self.read_backup_content(name, backup)).data)

    async def read_backup_content(self, name: str, backup: str) -> Content:
        """Return a backup's bytes. Raises BackupNotFound, also for one that is not sound."""
        key = self._key(name)
        store = await self.open_store()
        return await self.reading(lambda: backups.backup_content(store, key, backup))

    async def pin(self, name: str, backup: str, because: str = pinning.BY_HAND) -> None:
        """Keep a backup outside rotation until it is unpinned. Raises BackupNotFound."""
        revision = (await self.read_backup_content(name, backup)).revision
        now = self.clock.now()
        await self._change_pins(lambda pins: pinning.with_pin(pins, name, revision, because, now))

    async def unpin(self, name: str, backup: str) -> None:
        """Give a backup back to rotation, a broken one too. Raises BackupNotFound."""
        key = self._key(name)
        store = await self.open_store()
        revision = await self.reading(
            lambda: backups.backup_revision(store, self.keeping, key, backup)
        )
        if revision is None:
            revision = (await self.read_backup_content(name, backup)).revision
        await self._change_pins(lambda pins: pinning.without_pin(pins, name, revision))

    async def raw(self, name: str) -> bytes:
        """Return a document's bytes as they lie there, sound or not."""
        key = self._key(name)
        store = await self.open_store()
        return await self.reading(lambda: store.raw(key))

    async def quarantine(self) -> list[QuarantineItem]:
        """List what was set aside, newest first."""
        store = await self.open_store()
        return list(await self.reading(store.quarantine))

    async def read_quarantine(self, item: str) -> bytes:
        """Return what was set aside, as it is. Raises DocumentNotFound."""
        store = await self.open_store()
        return await self.reading(lambda: store.read_quarantine(item))

    # everything at once

    async def export_all_data(self) -> dict[str, Json]:
        """Return every document of one instant: `{"exported_at": …, "files": {…}}`.

        Documents that are broken without a sound backup are named in `unrecoverable`.
        """
        async with self.exported() as snapshot:
            return await export_of(snapshot, self._reads)

    @asynccontextmanager
    async def exported(self) -> AsyncGenerator[Snapshot]:
        """Hold every document's content of one instant still while the block is open."""
        with await held_still(await self.open_store()) as snapshot:
            yield snapshot

    async def import_data(
        self, export: object, mode: str = "merge", *, dry_run: bool = False
    ) -> ImportReport:
        """Take an export back in, all of it or nothing (V5).

        merge: named documents are replaced whole, others stay; replace: the others are deleted,
        with backups. Raises ImportRefused, NotSerializable, DocumentTooLarge.
        """
        one = Import(
            mode=parse_mode(mode),
            contents=contents_of(cast("Json", export), self.encoding),
            store=await self.open_store(),
            reads=self._reads,
            locks=self.locks,
            retain=self.keeping.retain,
            submit=self.submit,
        )
        return await one.run(dry_run=dry_run)

    async def verify(self, *, changed_since: datetime | None = None) -> VerifyReport:
        """Check every document and backup by checksum now; recover, adopt, and report.

        `changed_since` leaves out what has not been written since that instant.
        """
        return await verify(self, await self.open_store(), changed_since=changed_since)

    async def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        """Discard what the policy drops, of every document; `dry_run` only says what."""
        return await prune(self, await self.open_store(), dry_run=dry_run)

    async def health(self) -> dict[str, Json]:
        """Say how everything stands: the body of `GET /health` (SPEC §6)."""
        store = await self.open_store()
        assert self._health is not None
        health = self._health
        try:
            return await self.reading(lambda: health.report(store), limit_s=HEALTH_S)
        except VolumeBusy:
            return health.from_memory(store)

    async def storage_info(self) -> dict[str, Json]:
        """Say what lies on the volume: the body of `GET /storage-info` (SPEC §6)."""
        documents, backups = await self.documents(), await self.all_backups()
        store = await self.open_store()
        assert self._health is not None
        health = self._health
        return await self.reading(lambda: health.storage_info(store, documents, backups))

    # Seline's own state, kept by the same store (SPEC §3)

    async def load_state(self, name: str, default: Json) -> Json:
        """Return one of Seline's own documents, `default` where there is none."""
        content = await self._sound.content(DocumentKey(SELINE, name))
        return default if content is None else decode(content.data)

    async def update_state(self, name: str, function: Callable[[Json | None], Json]) -> Json:
        """Apply a pure function to one of Seline's own documents; return the new value."""
        outcome = await self.change(
            DocumentKey(SELINE, name), changes.update(function, self.encoding)
        )
        assert outcome.content is not None
        return decode(outcome.content.data)

    # lifecycle

    @property
    def last_backup_at(self) -> datetime | None:
        """When a backup was made last."""
        return None if self._health is None else self._health.last_backup_at

    @property
    def keeping(self) -> Keeping:
        """The rotation's policy; there once the store is open."""
        assert self._keeping is not None, "the store is not open yet"
        return self._keeping

    @property
    def failed_to_open(self) -> bool:
        """Whether the store could not be opened, or was closed."""
        return self._lifetime.failed()

    async def open_store(self) -> DocumentStore:
        """Return the store, waiting for it to open. Raises what its opening raised."""
        return await self._lifetime.open_store()

    @property
    def closing(self) -> bool:
        """Whether it was closed, or is about to be: nobody needs the store any more."""
        return self._lifetime.closed

    async def close(self) -> None:
        """Carry out what is queued and let go of the store; idempotent.

        It goes on where the caller is cancelled, and another call waits for it.
        """
        await self._lifetime.close()

    def begin_to_close(self) -> Future[None]:
        """Close on a thread of its own, whether or not anybody waits for it.

        What is being opened just now is closed, too.
        """
        return self._lifetime.begin_to_close()

    def _assemble(self, store: DocumentStore) -> Callable[[], None]:
        """Make what works over the store; return what is done before it is closed."""
        keeping = Keeping(store, self.options, self.encoding, self.clock)
        keeping.load()
        self._keeping = keeping
        self._health = health = Health(self, store)
        store.watch(self._hear)
        return partial(health.write_report, store, at_close=True)

    # how a read and a change are done

    async def reading(self, work: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Run blocking reading work on the reader threads, for `limit_s` (READ_S) at most.

        Raises VolumeBusy where it takes longer. Without a loop it is done in this thread, unless
        the disk is known not to answer.
        """
        return await self._reads.bounded(work, limit_s=limit_s)

    def busy_s(self) -> float:
        """Return for how many seconds the disk has owed an answer, to a change or a read."""
        return self._reads.busy_s()

    async def content_of(
        self, store: DocumentStore, key: DocumentKey, judged: Judged
    ) -> Content | None:
        """Return the content that a verdict allows to be served, after its remedy."""
        return await self._sound.content_of(store, key, judged)

    async def change(self, key: DocumentKey, decide: Callable[[Current], Decision]) -> Outcome:
        """Have one document changed in its turn; return what became of it."""
        if not self._lifetime.is_open:
            await self.open_store()
        change = Change(key, decide, retain=self.keeping.retain(key))
        if key.owner != BOT:
            return (await wait_for(self.submit(Atom((change,)))))[0]
        future = await self.locks.through(key.name, lambda: self.submit(Atom((change,))))
        return (await wait_for(future))[0]

    def submit(self, atom: Atom) -> Future[tuple[Outcome, ...]]:
        """Queue an atom for the open store. Raises NestedEdit from inside its turn."""
        refuse_in_turn()
        assert self._lifetime.store is not None
        return self._lifetime.store.submit(atom)

    def save_change(
        self,
        key: DocumentKey,
        content: Content,
        *,
        backup: bool,
        if_match: IfMatch,
        shrink: bool = False,
    ) -> Change:
        """Return the change that saves a content, guarded against blank saves (V11)."""
        guard = self._guard(key, shrink=shrink)
        decide = changes.save(content, if_match=if_match, backup=backup, guard=guard)
        retain = self.keeping.retain(key)
        return Change(key, decide, retain=retain, size_hint=content.size_bytes)

    async def _save(
        self,
        key: DocumentKey,
        content: Content,
        backup: bool,
        if_match: IfMatch,
        *,
        shrink: bool = False,
    ) -> Outcome:
        if not self._lifetime.is_open:
            await self.open_store()
        change = self.save_change(key, content, backup=backup, if_match=if_match, shrink=shrink)
        future = await self.locks.through(key.name, lambda: self.submit(Atom((change,))))
        return (await wait_for(future))[0]

    def _look(self, key: DocumentKey) -> Future[tuple[Outcome, ...]]:
        """Look at a document in its turn, where it is mended first if it has to be."""
        return self.submit(Atom((Change(key, changes.look, retain=self.keeping.retain(key)),)))

    def note(self, kind: str, document: str, summary: str, *, lost: str = "") -> None:
        """Remember what a person should hear of, once a day per kind and document."""
        now = self.clock.now()
        known = {(one.kind, one.document) for one in self.incidents if now - one.at < NOTED_FOR}
        if (kind, document) in known:
            return
        _log.warning("%s", summary)
        incident = Incident(kind=kind, document=document, at=now, summary=summary, lost=lost)
        self.incidents.append(incident)
        del self.incidents[:-200]

    def _hear(self, _key: DocumentKey, outcome: Outcome) -> None:
        blank = outcome.answer
        if isinstance(blank, BlankSaved):
            readable = self.keeping.unreadable is None
            pinned = readable and blank.pinned
            kept = f"is kept for {self.options.pin_days} days" if pinned else "is its newest backup"
            self.note(
                "blank_save" if readable else "blank_save_unpinned",
                blank.document,
                f"A save removed most of {blank.document} ({blank.reason}); the content before "
                f"it {kept}.",
            )

    # parts

    def _guard(self, key: DocumentKey, *, shrink: bool) -> Guard | None:
        meant = shrink or key.name in self.options.blank_guard_except
        return None if meant else self._pin_blank

    def _pin_blank(self, document: str, revision: Revision, now: datetime) -> tuple[Change, ...]:
        return self.keeping.guard(document, revision, now)

    def _key(self, name: str) -> DocumentKey:
        return DocumentKey(BOT, check_document_name(name))

    async def _exists(self, key: DocumentKey) -> bool:
        store = await self.open_store()
        return store.peek(key) is not Verdict.MISSING

    async def _change_pins(
        self, function: Callable[[tuple[pinning.Pin, ...]], tuple[pinning.Pin, ...]]
    ) -> None:
        await self.open_store()
        await wait_for(self.submit(Atom((self.keeping.change(function),))))


def _revision(outcome: Outcome) -> Revision:
    assert outcome.content is not None
    return outcome.content.revision
