"""Put a copy back: onto a store in use, or onto a volume that never held a document.

`restore_copy`  onto a store in use: everything is fetched into a spool and compared with its digest
                before anything is changed. All documents change in one commit (V5), and what they
                replace becomes a backup. Then the pins and the missing backups are added.
`fill_volume`   onto an empty volume, in batches, so that memory and temporary space do not limit
                it. A mark in `volume.json` is durable before the first write, and is removed after
                the last. While it is there the volume is not served, and the restore of any whole
                copy completes it. `fill_or_leave_empty` erases a part of a copy that is damaged.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from math import inf
from typing import Final, TypeAlias, TypeVar

import msgspec

from seline import collector
from seline.domain.copy import Copy
from seline.domain.document import BOT, SELINE, Content, DocumentKey, Revision
from seline.domain.json_codec import NotJson, decode_strict
from seline.domain.manifest import FileEntry, PackedDocument
from seline.domain.readable_export import ImportReport, only_named, plan_import
from seline.domain.usage import blocks
from seline.domain.verdict import usable_as_backup
from seline.domain.volume_file import VolumeFile
from seline.errors import (
    BackupNotFound,
    DocumentTooLarge,
    ExportDamaged,
    ExportFailed,
    ImportRefused,
    KeyMissing,
    TooManyDocuments,
    VolumeFull,
)
from seline.manager import changes
from seline.manager.managed_store import ManagedStore
from seline.manager.transfer import import_contents
from seline.operations.at_once import batches, error_of
from seline.ports.futures import wait_for
from seline.ports.store import AddedBackup, Change, DocumentStore
from seline.spool import Spool

BATCH_FILES_MAX: Final = 128
BATCH_BYTES_MAX: Final = 8 << 20
FETCHES_MAX: Final = 16
Progress: TypeAlias = Callable[[int, int, int], object]
"""Is called with the documents that are in place, of how many, and their bytes."""
_Named = tuple[DocumentKey, FileEntry]
T = TypeVar("T", bound=FileEntry)


def ignore(_done: int, _of_all: int, _size_bytes: int) -> None:
    """Show no progress."""


# onto a store in use


@collector.without_full_ones
async def restore_copy(
    store: ManagedStore,
    copy: Copy,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    backups: bool = True,
    replace_all: bool = False,
    dry_run: bool = False,
    progress: Progress = ignore,
) -> ImportReport:
    """Put the documents of a copy back, all or none, then its pins and the missing backups.

    `only` chooses documents, `skip` leaves some out; without `replace_all` those that the copy
    lacks stay. Without `backups` none is added. `dry_run` does the same and changes nothing.
    Raises ExportDamaged, ExportFailed, KeyMissing, ImportRefused and StorageError; VolumeFull once
    the documents are in place names how many backups were added.
    """
    listed = {document.name: document for document in copy.documents if document.name not in skip}
    chosen = list(only_named(listed, only, replace=replace_all, of="copy").values())
    contents, spool = dict[str, Content](), Spool()
    done, size_bytes = 0, 0
    current = [document for document in chosen if document.sha256]
    async with aclosing(fetched(copy, current)) as batches:
        async for batch in batches:
            kept = await store.reading(partial(_checked, store, batch, spool), limit_s=inf)
            contents.update(kept)
            size_bytes += sum(content.size_bytes for content in kept.values())
            done += len(batch)
            progress(done, len(current), size_bytes)
    missing = await missing_backups(store, chosen if backups else ())
    report = await import_contents(store, contents, replace=replace_all, dry_run=True)
    written = [contents[name].size_bytes for name in (*report.created, *report.changed)]
    await _check_room_for(store, written, missing)
    pins = [pin for pin in copy.pins if pin.document in {document.name for document in chosen}]
    if dry_run:
        return replace(report, backups=len(missing), pins=store.pins.lacking(pins))
    added = await _kept_backups(store, copy, missing, spool)
    report = await import_contents(store, contents, replace=replace_all, dry_run=False)
    added_pins = await store.pins.add(pins)
    return replace(report, backups=await _add(store, added), pins=added_pins)


async def missing_backups(store: ManagedStore, documents: Iterable[PackedDocument]) -> list[_Named]:
    """Return the backups of a copy that the store lacks, or has broken."""
    opened = await store.open()

    def missing() -> list[_Named]:
        return [
            (DocumentKey(BOT, document.name), backup)
            for document in documents
            for backup in document.backups
            if not _has_backup(opened, DocumentKey(BOT, document.name), backup)
        ]

    return await store.reading(missing, limit_s=inf)


def _has_backup(opened: DocumentStore, key: DocumentKey, backup: FileEntry) -> bool:
    try:
        judged = opened.read_backup(key, backup.name)
    except BackupNotFound:
        return False
    content = judged.content if usable_as_backup(key, judged) else None
    return content is not None and content.revision == backup.sha256


async def _check_room_for(
    store: ManagedStore, documents: Iterable[int], backups: Sequence[_Named]
) -> None:
    """Raise VolumeFull unless there is room for the backups beside documents of these sizes."""
    needed = sum(blocks(backup.size_bytes) for _, backup in backups)
    needed += sum(map(blocks, documents))
    medium = (await store.open()).medium
    if backups and not await store.reading(lambda: medium.has_room_for(needed)):
        raise VolumeFull(
            f"The documents of the copy and {len(backups)} backups need {needed:,} bytes, for "
            "which the volume has no room. Nothing was changed.",
            hint="Leave them out (`seline import EXPORT --no-backups`, over HTTP `backups=false`), "
            "or enlarge the volume.",
            needed_bytes=needed,
        )


def _checked(
    store: ManagedStore, batch: Sequence[tuple[PackedDocument, Content]], spool: Spool
) -> dict[str, Content]:
    """Check the documents of a batch, and move them into a spool. Blocks."""
    _check_contents(store, batch)
    return {
        document.name: content.moved_to(spool.keep(content.data)) for document, content in batch
    }


async def _kept_backups(
    store: ManagedStore, copy: Copy, backups: Sequence[_Named], spool: Spool
) -> list[AddedBackup]:
    """Fetch backups into a spool."""
    keys = {entry.name: key for key, entry in backups}
    kept: list[AddedBackup] = []

    def keep(batch: Sequence[tuple[FileEntry, Content]]) -> None:
        for entry, content in batch:
            held = content.moved_to(spool.keep(content.data))
            kept.append(AddedBackup(key=keys[entry.name], name=entry.name, content=held))

    async with aclosing(fetched(copy, [entry for _, entry in backups])) as batches:
        async for batch in batches:
            await store.reading(partial(keep, batch), limit_s=inf)
    return kept


async def _add(store: ManagedStore, backups: Sequence[AddedBackup], *, always: bool = False) -> int:
    """Add backups in batches; return how many. Raises StorageError, which names how many."""
    opened, added = await store.open(), 0
    for first in range(0, len(backups), BATCH_FILES_MAX):
        batch = backups[first : first + BATCH_FILES_MAX]
        try:
            outcome = await wait_for(opened.add_backups(batch, always=always))
            added += sum(outcome)
        except VolumeFull as full:
            raise VolumeFull(
                f"{full.message} The documents are in place, and {added} of {len(backups)} "
                "backups were added."
            ) from full
    return added


# onto an empty volume


def may_be_filled(store: DocumentStore) -> bool:
    """Whether a copy may be restored onto a volume before it is served. Blocks.

    It never held a document, or a restore onto it was interrupted. Raises StorageError.
    """
    content = store.look(DocumentKey(SELINE, "volume.json"))[0].content
    known = VolumeFile()
    if content is not None:
        try:
            known = msgspec.json.decode(content.data, type=VolumeFile)
        except msgspec.DecodeError:
            return False
    if known.restoring:
        return True
    names = [*store.documents(BOT), *store.documents(BOT, deleted=True)]
    return not (known.is_identified or names)


async def fill_volume(
    store: ManagedStore, copy: Copy, *, progress: Progress = ignore
) -> ImportReport:
    """Restore a whole copy onto an empty volume, or complete such a restore.

    `store` was made `for_restore`, and no one else uses it. The volume becomes the one that made
    the copy. Raises ExportDamaged, ExportFailed, KeyMissing, ImportRefused, StorageError; then the
    volume is not served until a restore is completed.
    """
    opened = await store.open()
    if not await store.listing(lambda: may_be_filled(opened)):
        raise ImportRefused(
            f"The volume at {opened.medium.place} holds documents; nothing was changed.",
            hint="Restore onto an empty data directory, or onto the store while it runs.",
        )
    await _check_fits(store, copy)
    there = await store.listing(lambda: opened.documents(BOT))
    before = {info.name: info.revision for info in there}
    await store.volume_file.update(lambda known: known.marked(copy, store.new_id))
    pins = await store.pins.add(copy.pins)
    incoming = await _fill_documents(store, copy, progress)
    await _remove_others(store, before.keys() - incoming.keys())
    backups = await _fill_backups(store, copy)
    await store.volume_file.update(lambda known: msgspec.structs.replace(known, restoring=""))
    report = plan_import(before, incoming, replace=True)
    return replace(report, backups=backups, pins=pins)


async def fill_or_leave_empty(
    store: ManagedStore, copy: Copy, *, progress: Progress = ignore
) -> ImportReport:
    """Do as `fill_volume` does; erase what is in place if the copy turns out not to be whole."""
    try:
        return await fill_volume(store, copy, progress=progress)
    except (ExportDamaged, ExportFailed, ImportRefused, KeyMissing):
        if store.volume_file.value.restoring:
            await _erase(store, copy)
        raise


async def _erase(store: ManagedStore, copy: Copy) -> None:
    """Erase the documents of a copy, with their backups and pins; then nothing was restored."""
    keys = [DocumentKey(BOT, document.name) for document in copy.documents]
    erase = changes.purge(has_backups=True)
    for first in range(0, len(keys), BATCH_FILES_MAX):
        batch = keys[first : first + BATCH_FILES_MAX]
        for erased in [store.submit((Change(key, erase),)) for key in batch]:
            await wait_for(erased)
    await wait_for(store.submit((store.pins.change(lambda _: ()),)))
    opened = await store.open()
    left = await store.listing(
        lambda: [*opened.documents(BOT), *opened.documents(BOT, deleted=True)]
    )
    if not left:
        await store.volume_file.update(lambda _: VolumeFile())


async def _fill_documents(
    store: ManagedStore, copy: Copy, progress: Progress
) -> dict[str, Revision]:
    current = [document for document in copy.documents if document.sha256]
    done, size_bytes = 0, 0
    async with aclosing(fetched(copy, current)) as batches:
        async for batch in batches:
            await _put_in_place(store, batch)
            done += len(batch)
            size_bytes += sum(content.size_bytes for _, content in batch)
            progress(done, len(current), size_bytes)
    return {document.name: document.sha256 for document in current}


async def _fill_backups(store: ManagedStore, copy: Copy) -> int:
    """Add the backups that are not there yet, a batch after the other; return how many."""
    added = 0
    missing = await missing_backups(store, copy.documents)
    keys = {entry.name: key for key, entry in missing}
    async with aclosing(fetched(copy, [entry for _, entry in missing])) as batches:
        async for batch in batches:
            kept = [AddedBackup(key=keys[e.name], name=e.name, content=c) for e, c in batch]
            added += await _add(store, kept, always=True)
    return added


async def _check_fits(store: ManagedStore, copy: Copy) -> None:
    """Raise unless the limits and the volume allow every document and backup of a copy."""
    limits = store.limits
    count = sum(bool(document.sha256) for document in copy.documents)
    if count > limits.documents_max:
        raise TooManyDocuments(
            f"The copy has {count} documents; `storage.documents_max` allows "
            f"{limits.documents_max}. Nothing was changed.",
            hint="Raise `storage.documents_max`, then restore again.",
        )
    for document in copy.documents:
        _check_size(store, document.name, document.size_bytes)
    files = [entry for document in copy.documents for entry in (document, *document.backups)]
    medium = (await store.open()).medium
    usage = await store.reading(medium.usage)
    there = usage.documents_bytes + usage.backups_bytes
    needed = sum(blocks(entry.size_bytes) for entry in files) - there
    if needed > max(usage.last_room_bytes, 0):
        raise VolumeFull(
            f"The copy needs {needed:,} bytes more, and the volume at {medium.place} has room for "
            f"{max(usage.last_room_bytes, 0):,}. Nothing was changed.",
            hint="Enlarge the volume, or raise `storage.volume_limit_mb`; then restore again.",
            needed_bytes=needed,
        )


async def _put_in_place(
    store: ManagedStore, batch: Sequence[tuple[PackedDocument, Content]]
) -> None:
    """Save the documents of a batch; they share commits, and memory holds no more."""
    await store.reading(partial(_check_contents, store, batch), limit_s=inf)
    pending = []
    for document, content in batch:
        change = Change(DocumentKey(BOT, document.name), changes.put_copied(content))
        pending.append(store.submit((change,)))
    for saved in pending:
        await wait_for(saved)


async def _remove_others(store: ManagedStore, names: Iterable[str]) -> None:
    """Delete what an interrupted restore of another copy has left; it is kept as a backup."""
    for name in sorted(names):
        await wait_for(store.submit((Change(DocumentKey(BOT, name), changes.delete_if_there),)))


# contents


async def fetched(copy: Copy, files: Sequence[T]) -> AsyncGenerator[list[tuple[T, Content]]]:
    """Yield the contents of a copy in batches, each compared; the next one is fetched as well.

    Raises ExportFailed, ExportDamaged, KeyMissing.
    """
    coming: asyncio.Task[list[tuple[T, Content]]] | None = None
    try:
        for batch in _in_batches(files):
            following = asyncio.ensure_future(_fetch(copy, batch))
            before, coming = coming, following
            if before is not None:
                yield await before
        if coming is not None:
            yield await coming
    finally:
        if coming is not None:
            coming.cancel()


async def _fetch(copy: Copy, files: Sequence[T]) -> list[tuple[T, Content]]:
    """Fetch contents at once; `copy.fetch` compares each with its digest."""
    digests = list({file.sha256: None for file in files})
    found: dict[Revision, bytes] = {}
    slots = asyncio.Semaphore(FETCHES_MAX)

    async def fetch(digest: Revision) -> None:
        async with slots:
            found[digest] = await copy.fetch(digest)

    try:
        async with asyncio.TaskGroup() as fetching:
            for digest in digests:
                fetching.create_task(fetch(digest))
    except BaseExceptionGroup as group:  # a defect or an interrupt, too
        raise error_of(group) from group
    data = [found[file.sha256] for file in files]
    return [
        (file, Content(file.sha256, len(held), held))
        for file, held in zip(files, data, strict=True)
    ]


def _check_contents(store: ManagedStore, batch: Sequence[tuple[PackedDocument, Content]]) -> None:
    for document, content in batch:
        _check_content(store, document.name, content.data)


def _check_content(store: ManagedStore, name: str, data: bytes) -> None:
    """Raise ImportRefused for what the limits forbid, ExportDamaged for what is no document."""
    _check_size(store, name, len(data))
    try:
        decode_strict(data, depth_max=store.limits.depth_max)
    except NotJson as error:
        if not error.is_json:  # Seline stores none: something else has written the copy
            raise ExportDamaged(f"{name} of the copy is no JSON: {error}.") from error
        raise ImportRefused(
            f"$.files[{name!r}]: {error}. Nothing was changed.", hint=error.hint, document=name
        ) from error


def _check_size(store: ManagedStore, name: str, size_bytes: int) -> None:
    size_max = store.limits.document_bytes_max
    if size_bytes > size_max:
        raise ImportRefused(
            f"$.files[{name!r}]: the document has {size_bytes} bytes; {size_max} are allowed. "
            "Nothing was changed.",
            hint=DocumentTooLarge.hint,
            document=name,
        )


def _in_batches(files: Sequence[T]) -> Iterator[list[T]]:
    return batches(
        files, lambda file: file.size_bytes, count_max=BATCH_FILES_MAX, bytes_max=BATCH_BYTES_MAX
    )
