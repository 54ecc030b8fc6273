"""Which content of a document is served: only what its verdict allows (V4)."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final

from seline.domain.document import BOT, Content, DocumentInfo, DocumentKey
from seline.domain.incident import IncidentKind
from seline.domain.verdict import DAMAGED, Judged, Verdict, unreadable
from seline.errors import (
    BackupNotFound,
    DocumentUnreadable,
    DocumentUnrecoverable,
    SelineError,
    StorageError,
    VolumeBusy,
)
from seline.manager import backups
from seline.manager.managed_store import ManagedStore
from seline.ports.futures import in_turn, pause
from seline.ports.store import DocumentStore

SETTLE_MAX_S: Final = 5.0
"""How long a read waits at most for a file that may be being written."""


async def served_content(managed: ManagedStore, key: DocumentKey) -> Content | None:
    """Return a document's sound content, recovered or adopted first; None if it is missing.

    Raises DocumentUnrecoverable, DocumentUnreadable, StorageError.
    """
    store = managed.ready() or await managed.open()
    slow = managed.is_slow() and not in_turn()
    known = await managed.reading(partial(store.peek, key)) if slow else store.peek(key)
    if isinstance(known, Content):
        return known
    return None if known is Verdict.MISSING else await _served_from_disk(managed, store, key)


async def _served_from_disk(
    managed: ManagedStore, store: DocumentStore, key: DocumentKey
) -> Content | None:
    """Read and judge a document that memory does not know, and return what to serve.

    A file that may be being written is given time to settle if only a backup could answer for it:
    a process that ends before would find it unsettled for ever.
    """
    judged, _ = await managed.reading(lambda: store.look(key))
    if judged.verdict is Verdict.UNSETTLED and not (store.medium.remembers(key) or in_turn()):
        await pause(min(managed.settings.storage.settle_s, SETTLE_MAX_S))
        judged, _ = await managed.reading(lambda: store.look(key))
    try:
        return await remedied(managed, key, judged)
    except (DocumentUnrecoverable, DocumentUnreadable) as error:
        if judged.verdict is not Verdict.UNSETTLED:  # a later read finds it whole, or settled
            managed.note(*_incident_of(error, key))
            await _remember_unserved(managed, key)
        raise


def known_content(managed: ManagedStore, key: DocumentKey) -> tuple[Content, datetime] | None:
    """Return a document's content and the instant of its save if memory has both, else None.

    One stat shows that the file has not changed; nothing is asked of a slow disk. Raises
    StoreClosed, ForkedStore.
    """
    store = managed.ready()
    if store is None or managed.is_slow():
        return None
    content = store.peek(key)
    if not isinstance(content, Content):
        return None
    updated_at = store.remembered_at(key, content)
    return None if updated_at is None else (content, updated_at)


async def listed(managed: ManagedStore) -> list[DocumentInfo]:
    """List the bot's documents, sorted by name; those found broken are recovered first."""
    store = await managed.open()
    infos = await managed.listing(lambda: store.documents(BOT))
    await notice_removed(managed, infos)
    broken = [info.name for info in infos if info.verdict in DAMAGED]
    for name in broken:
        with suppress(SelineError):  # it is reported, and the list shows its state
            await served_content(managed, DocumentKey(BOT, name))
    return list(await managed.listing(lambda: store.documents(BOT)) if broken else infos)


async def notice_removed(managed: ManagedStore, infos: Sequence[DocumentInfo]) -> None:
    """Keep and report the documents that another program removed since they were listed last."""
    store = await managed.open()
    there = {info.name for info in infos}
    for name in await managed.listing(store.medium.changed_outside):
        if name not in there:
            with suppress(SelineError):  # what cannot be kept now stays in memory
                await served_content(managed, DocumentKey(BOT, name))


async def backup_content(managed: ManagedStore, key: DocumentKey, backup: str) -> Content:
    """Return a backup's bytes. Raises BackupNotFound, also for one that is not sound.

    A broken one is reported.
    """
    store = await managed.open()
    try:
        return await managed.reading(lambda: backups.backup_content(store, key, backup))
    except BackupNotFound as error:
        if error.details.get("verdict") in DAMAGED:
            managed.note(
                IncidentKind.BACKUP_DAMAGED,
                key.name,
                f"A backup of {key.name} is damaged, and is not counted any more: {error.message}",
                backups=1,
                backup=backup,
                names=[backup],
            )
        raise


async def remedied(managed: ManagedStore, key: DocumentKey, judged: Judged) -> Content | None:
    """Return the content to serve after a look: recovered, adopted or refused, by its verdict."""
    store = await managed.open()
    match judged.verdict:
        case Verdict.SOUND:
            return judged.content
        case Verdict.MISSING:
            if store.peek(key) is None and not in_turn():  # another program removed it
                with suppress(StorageError):  # it stays in memory, and the next read tries again
                    return await managed.look(key)
            return None
        case Verdict.EDITED:
            if judged.settled or not in_turn():
                await _mend(managed, store, key, judged)
            return judged.content
        case Verdict.UNSETTLED | Verdict.TORN | Verdict.ALTERED:
            served = in_turn() and judged.verdict is Verdict.UNSETTLED
            content = store.medium.rescue(key) if served else None
            return content or await _mend(managed, store, key, judged)
        case Verdict.UNREADABLE:
            raise unreadable(key, judged)


def _incident_of(
    error: DocumentUnrecoverable | DocumentUnreadable, key: DocumentKey
) -> tuple[IncidentKind, str, str]:
    """Return the kind, the document and the summary of the incident that an error reports."""
    if isinstance(error, DocumentUnrecoverable):
        return IncidentKind.UNRECOVERABLE, key.name, error.message
    failed = error.details["disk_failed"]
    kind = IncidentKind.DISK_ERROR if failed else IncidentKind.ACCESS_REFUSED
    return kind, key.name, f"{error.message} {error.hint}"


async def _remember_unserved(managed: ManagedStore, key: DocumentKey) -> None:
    """Record that a document of the bot could not be served, for the health of later processes."""
    known = managed.unserved
    if key.space != BOT or in_turn() or key.name in known.value:
        return
    with suppress(VolumeBusy):
        if not known.loaded:
            await known.load()
        if key.name not in known.value:
            await known.save(tuple(sorted({*known.value, key.name})))


async def _mend(
    managed: ManagedStore, store: DocumentStore, key: DocumentKey, judged: Judged
) -> Content | None:
    """Recover or adopt in the store's turn; if nothing can be written, serve what is sound."""
    try:
        return await managed.look(key)
    except StorageError as error:
        is_edit = judged.verdict is Verdict.EDITED
        content = judged.content if is_edit else None
        content = content or await managed.reading(lambda: store.medium.rescue(key))
        if content is None:
            raise
        if judged.verdict in (Verdict.TORN, Verdict.ALTERED) or (is_edit and judged.settled):
            _note_unwritten(managed, key, error, is_edit=is_edit)
        return content


def _note_unwritten(
    managed: ManagedStore, key: DocumentKey, error: StorageError, *, is_edit: bool
) -> None:
    """Report a recovery or an adoption that the disk refused; each read tries it again."""
    kind = IncidentKind.NOT_ADOPTED if is_edit else IncidentKind.SERVED_FROM_MEMORY
    summary = (
        f"{key.name} was changed outside Seline, and is served as it is; it could not be adopted "
        f"({error.message}), so it has no checksum yet."
        if is_edit
        else f"{key.name} is broken on the volume and nothing can be written "
        f"({error.message}); its sound content is served from memory."
    )
    managed.note(kind, key.name, summary)
