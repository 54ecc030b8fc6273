"""The DataManager: everything a bot does with its documents, awaited.

Names are checked first (InvalidDocumentName). Values belong to the caller and are never shared.
`ManagedStore` carries out every read and change; nothing here touches a disk.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar, cast, overload

from seline.domain import pins as pinning
from seline.domain.backup import Backup
from seline.domain.document import (
    Content,
    Document,
    DocumentInfo,
    DocumentKey,
    IfMatch,
    Json,
    Revision,
    bot_document,
)
from seline.domain.json_codec import decode
from seline.domain.json_pointer import tokens_of
from seline.domain.merge_patch import merged
from seline.domain.purged import HeldCopy
from seline.domain.readable_export import ImportReport, is_replace, only_named
from seline.domain.report import Deleted, KeptIn, Reset, Restored
from seline.domain.undo import undo_of_pin
from seline.errors import BackupNotFound, InvalidRequest, WrongShape
from seline.manager import backups, blocks, changes
from seline.manager.blocks import Changes
from seline.manager.call_record import note_undo
from seline.manager.changes import Decide, RestorePlan, not_found
from seline.manager.encoding import content_of, json_copy, typed
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import backup_content, known_content, listed, served_content
from seline.manager.transfer import contents_of, export_of, import_contents, snapshot_of
from seline.ports.futures import wait_for
from seline.ports.store import Decision, Outcome, Put, Remove, Snapshot

_MISSING: Final[Any] = object()
D = TypeVar("D")
T = TypeVar("T")


class DataManager:
    """Documents with backups, over any store. Safe to use from any task and thread."""

    def __init__(self, store: ManagedStore) -> None:
        """Work over a store that may not be open yet."""
        self.store = store

    # saving and loading

    async def save_json(
        self,
        name: str,
        value: object,
        backup: bool = True,
        if_match: IfMatch = None,
        *,
        shrink: bool = False,
    ) -> Revision:
        """Save a value and return its revision, durable (V1–V3).

        `backup=False` keeps no backup of the content before. `if_match` refuses unless that
        revision is current (`ABSENT`: unless there is no document). `shrink=True` allows
        to remove most of the document (V11). Raises NotSerializable, DocumentTooLarge,
        RevisionMismatch, DocumentUnrecoverable, DocumentBusy, StorageError.
        """
        key = bot_document(name)
        content = content_of(value, self.store.limits)
        outcome = await self.store.save(
            key, content, backup=backup, if_match=if_match, shrink=shrink
        )
        return _revision(outcome)

    @overload
    async def load_json(self, name: str, default: object = ...) -> Any: ...

    @overload
    async def load_json(self, name: str, default: D, *, type: type[T]) -> T | D: ...

    @overload
    async def load_json(self, name: str, *, type: type[T]) -> T: ...

    async def load_json(
        self, name: str, default: object = _MISSING, *, type: type[Any] | None = None
    ) -> Any:
        """Return a document's value; `default` (else `{}`) only if it does not exist (V4).

        `type` is what the value is checked against and returned as: a TypedDict, a dataclass, a
        `msgspec.Struct` or `list[…]` of one. Raises WrongShape if it is not of this type, and
        DocumentNotFound if there is no document and `{}` is not of this type.
        """
        content = await served_content(self.store, bot_document(name))
        if content is None and default is not _MISSING:
            return default
        data = b"{}" if content is None else content.data
        try:
            return decode(data) if type is None else typed(name, data, type)
        except WrongShape:
            if content is None:
                raise not_found(name) from None
            raise

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
        """Return the stored bytes, and the instant of their save. Raises DocumentNotFound."""
        known = self.known_content(name)
        if known is not None:
            return known
        key = bot_document(name)
        content = await served_content(self.store, key)
        if content is None:
            raise not_found(name)
        store = await self.store.open()
        updated_at = store.remembered_at(key, content)
        if updated_at is None:
            _, updated_at = await self.store.reading(lambda: store.look(key))
        return content, updated_at or self.store.clock.now()

    def known_content(self, name: str) -> tuple[Content, datetime] | None:
        """Return the same if one stat shows that memory has it, else None. Nothing waits."""
        return known_content(self.store, bot_document(name))

    async def update_field(
        self,
        name: str,
        field: str,
        value: object,
        backup: bool = True,
        if_match: IfMatch = None,
        *,
        shrink: bool = False,
    ) -> Revision:
        """Set one field of an object in its turn, so that no other change is lost (V6).

        Return the revision. A missing document is created. `shrink=True` as in `save_json`.
        Raises NotAnObject for a list or a plain value.
        """
        key = bot_document(name)
        if not isinstance(field, str):
            raise InvalidRequest(f"A field's name is text, not {type(field).__name__}.")
        await self.store.open()
        limits = self.store.limits
        held = cast("dict[str, Json]", json_copy({field: value}, limits))[field]
        decide = changes.update_field(
            field,
            held,
            limits,
            if_match=if_match,
            backup=backup,
            guard=self.store.guard(key, shrink=shrink),
        )
        return _revision(await self.store.change(key, decide))

    async def append_item(
        self, name: str, path: str, item: object, backup: bool = True, if_match: IfMatch = None
    ) -> Revision:
        """Append an item to a list in its turn, so that no other change is lost (V6).

        `path` is the JSON Pointer of the list, such as `/items`; it is empty for a document that is
        a list. Return the revision. A missing document or list is created. However long the list
        is, only the item is encoded. Raises PathNotFound if something else is there.
        """
        key, levels = bot_document(name), len(tokens_of(path)) + 1
        await self.store.open()
        limits = self.store.limits
        nested = item
        for _ in range(levels):
            nested = [nested]
        held = json_copy(nested, limits)
        for _ in range(levels):
            held = cast("list[Json]", held)[0]
        decide = changes.append_item(
            path, held, limits, if_match=if_match, backup=backup, guard=self.store.pins.guard(key)
        )
        return _revision(await self.store.change(key, decide))

    async def update_json(
        self, name: str, function: Callable[[Any], object], *, shrink: bool = False
    ) -> Any:
        """Apply a pure function to a document's value (`{}` if there is none); return the new one.

        The function runs in the store's turn and may run more than once. It may load documents;
        a call that would wait for its own turn (a save, a recovery) raises NestedEdit in it.
        `shrink=True` as in `save_json`.
        """
        key = bot_document(name)
        await self.store.open()
        decide = changes.update(
            function, self.store.limits, guard=self.store.guard(key, shrink=shrink)
        )
        outcome = await self.store.change(key, decide)
        assert outcome.content is not None
        return decode(outcome.content.data)

    async def merge_json(
        self,
        name: str,
        patch: Json,
        *,
        backup: bool = True,
        if_match: IfMatch = None,
        shrink: bool = False,
    ) -> tuple[Revision, bool]:
        """Merge a patch (RFC 7396) into a document in its turn, so that no other change is lost.

        Return the revision, and whether the document was created. Raises as `save_json` does.
        """
        key = bot_document(name)
        await self.store.open()
        decide = changes.update(
            partial(merged, patch=patch),
            self.store.limits,
            if_match=if_match,
            backup=backup,
            guard=self.store.guard(key, shrink=shrink),
        )
        outcome = await self.store.change(key, decide)
        return _revision(outcome), outcome.answer == changes.CREATED

    def edit(
        self, name: str, default: object = _MISSING, *, backup: bool = True
    ) -> AbstractAsyncContextManager[Any]:
        """Open a block that locks one document: `async with data.edit(name) as value: …`.

        The value may be changed in place. It is saved when the block ends, and not if the block
        raises. `default` (else `{}`) is the value of a document that does not exist. Raises
        NestedEdit, DocumentBusy; RevisionMismatch if the lock was lost.
        """
        default = {} if default is _MISSING else default
        return blocks.edit(self.store, bot_document(name), default, backup=backup)

    def transaction(self, *names: str, backup: bool = True) -> AbstractAsyncContextManager[Changes]:
        """Open a block that locks several documents and changes all or none of them (V5)."""
        return blocks.transaction(self.store, [bot_document(name) for name in names], backup=backup)

    # deleting, giving up, going back

    async def delete(
        self, name: str, *, purge: bool = False, if_match: IfMatch = None, dry_run: bool = False
    ) -> Deleted:
        """Delete a document; its content is kept as its newest backup.

        `purge=True` erases document, backups and quarantined bytes at once. `dry_run` decides the
        same and changes nothing. `copies` of the result says until when a copy at a destination may
        still hold what was purged. Raises DocumentNotFound.
        """
        key = bot_document(name)
        copies: Sequence[HeldCopy] = ()
        decide = changes.delete(if_match=if_match)
        if purge:
            decide, copies = await self._purge(key, if_match)
        decision, outcome = await self._decided(key, decide, dry_run=dry_run)
        return Deleted(
            document=name,
            backup=outcome.backup,
            purged=purge,
            kept_in="nowhere" if purge else cast("KeptIn", decision),
            dry_run=dry_run,
            copies=tuple(copies),
        )

    async def reset(self, name: str, *, dry_run: bool = False) -> Reset:
        """Give up a broken document, keeping its bytes in quarantine.

        Raises DocumentNotFound, and InvalidRequest for a sound document.
        """
        await self._decided(bot_document(name), changes.reset, dry_run=dry_run)
        return Reset(document=name, quarantined=True, dry_run=dry_run)

    async def restore_from_backup(self, name: str) -> bool:
        """Go back to the newest sound backup that differs; return False if there is none."""
        try:
            await self.restore(name)
        except BackupNotFound:
            return False
        return True

    async def restore(
        self,
        name: str,
        backup: str | None = None,
        *,
        path: str = "",
        if_match: IfMatch = None,
        dry_run: bool = False,
    ) -> Restored:
        """Go back to a backup; the content before becomes one itself, so it can be undone.

        `path`, a JSON Pointer such as `/inventory/0`, takes only that value from the backup, which
        must be named; the rest of the document stays. Raises BackupNotFound with every backup tried
        and the reason why it cannot be used, PathNotFound, RevisionMismatch.
        """
        return (await self.planned_restore(name, backup, path, if_match, dry_run=dry_run))[0]

    async def planned_restore(
        self, name: str, backup: str | None, path: str, if_match: IfMatch, *, dry_run: bool
    ) -> tuple[Restored, RestorePlan]:
        """Restore as `restore` does; return also the contents before and after."""
        key = bot_document(name)
        if path and backup is None:
            raise InvalidRequest(
                "A path is restored from the backup that you name, and none is named.",
                hint=f"`seline backups {name}` lists them.",
                fields=["backup"],
            )
        if not await self.store.exists(key):
            await served_content(self.store, key)  # a removal by hand makes a backup first
        decide = changes.restore(
            backup,
            self.store.limits,
            path=path,
            if_match=if_match,
            guard=self.store.pins.guard(key),
        )
        answer, outcome = await self._decided(key, decide, dry_run=dry_run)
        assert isinstance(answer, RestorePlan)
        restored = Restored(
            document=name,
            backup=answer.backup.name,
            taken_at=answer.backup.taken_at,
            revision=answer.after.revision,
            undo=None if answer.kept_in == "quarantine" else outcome.backup,
            kept_in=answer.kept_in,
            dry_run=dry_run,
        )
        return restored, answer

    # looking

    async def documents(self) -> list[DocumentInfo]:
        """List the documents, sorted by name."""
        return await listed(self.store)

    async def backups(self, name: str) -> list[Backup]:
        """List a document's backups, newest first, each judged, with the reason why it is kept."""
        key = bot_document(name)
        store = await self.store.open()
        listed = await self.store.listing(lambda: backups.judged_backups(store, key))
        if not listed and not await self.store.exists(key):
            raise not_found(name)
        return await self.store.reading(lambda: self.store.pins.reasoned(key, listed))

    async def read_backup(self, name: str, backup: str) -> Any:
        """Return a backup's value. Raises BackupNotFound, also for one that is not sound."""
        return decode((await self._backup_content(name, backup)).data)

    async def pin(self, name: str, backup: str, because: str = pinning.BY_HAND) -> None:
        """Keep a backup outside rotation until it is unpinned. Raises BackupNotFound."""
        revision = (await self._backup_content(name, backup)).revision
        now, before = self.store.clock.now(), self._pinned_because(name, revision)
        await self._change_pins(lambda pins: pinning.with_pin(pins, name, revision, because, now))
        note_undo(undo_of_pin(name, backup, before, because))

    async def unpin(self, name: str, backup: str) -> None:
        """Return a backup to rotation, also a broken one. Raises BackupNotFound."""
        key = bot_document(name)
        store = await self.store.open()
        revision = await self.store.reading(
            lambda: backups.backup_revision(store, self.store.pins, key, backup)
        )
        if revision is None:
            revision = (await self._backup_content(name, backup)).revision
        before = self._pinned_because(name, revision)
        await self._change_pins(lambda pins: pinning.without_pin(pins, name, revision))
        note_undo(undo_of_pin(name, backup, before, None))

    # everything at once

    async def export_all_data(self) -> dict[str, Any]:
        """Return every document of one instant: `{"exported_at": …, "files": {…}}`.

        Documents that are broken without a sound backup are named in `unrecoverable`.
        """
        async with self.exported() as snapshot:
            return await export_of(snapshot, self.store)

    def exported(self) -> AbstractAsyncContextManager[Snapshot]:
        """Hold a snapshot of all documents while the block is open."""
        return snapshot_of(self.store)

    async def import_data(
        self,
        export: object,
        mode: str = "merge",
        *,
        only: Collection[str] = (),
        dry_run: bool = False,
    ) -> ImportReport:
        """Import an export, all of it or nothing (V5).

        merge: named documents are replaced whole, others stay; replace: the others are deleted,
        with backups. `only` imports these documents and no other. Raises ImportRefused,
        NotSerializable, DocumentTooLarge.
        """
        replace = is_replace(mode)
        held = contents_of(cast("Json", export), self.store.limits)
        contents = only_named(held, only, replace=replace)
        return await import_contents(self.store, contents, replace=replace, dry_run=dry_run)

    # parts

    async def _decided(
        self, key: DocumentKey, decide: Decide, *, dry_run: bool
    ) -> tuple[object, Outcome]:
        """Change a document, or only decide it; return the decision's answer and the outcome."""
        outcome = await self.store.change(key, decide, dry_run=dry_run)
        answer = outcome.answer
        if dry_run:
            decision = cast("Decision", answer)
            assert isinstance(decision, (Put, Remove))
            answer = decision.answer
        return answer, outcome

    async def _purge(
        self, key: DocumentKey, if_match: IfMatch
    ) -> tuple[Decide, Sequence[HeldCopy]]:
        """Return what decides the purge, and the copies elsewhere that may hold the document."""
        store = await self.store.open()
        has_backups = await self.store.reading(partial(backups.has_copies, store, key))
        pins = self.store.pins
        forget = pins.change(lambda pinned: pinning.without_document(pinned, key.name))
        also = [forget] if any(pin.document == key.name for pin in pins.pins()) else []
        copies: Sequence[HeldCopy] = ()
        if self.store.on_purge is not None:
            noting, copies = await self.store.on_purge(key.name)
            also += noting
        purge = changes.purge(has_backups=has_backups, if_match=if_match, also=tuple(also))
        return purge, copies

    async def _backup_content(self, name: str, backup: str) -> Content:
        return await backup_content(self.store, bot_document(name), backup)

    def _pinned_because(self, name: str, revision: Revision) -> str | None:
        """Return the reason of a pin, None if there is none."""
        pinned = ((pin.document, pin.revision, pin.because) for pin in self.store.pins.pins())
        return next((why for *what, why in pinned if what == [name, revision]), None)

    async def _change_pins(
        self, function: Callable[[tuple[pinning.Pin, ...]], tuple[pinning.Pin, ...]]
    ) -> None:
        await self.store.open()
        await wait_for(self.store.submit((self.store.pins.change(function),)))


def _revision(outcome: Outcome) -> Revision:
    assert outcome.content is not None
    return outcome.content.revision
