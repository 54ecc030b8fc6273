"""Export and import: all documents of one instant, and back in, all or none (V5)."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final

import msgspec

from seline import collector
from seline.clock import instant_text
from seline.domain.document import BOT, Content, DocumentInfo, DocumentKey, Json
from seline.domain.json_codec import decode
from seline.domain.pins import Pin
from seline.domain.readable_export import ImportReport, parse_export, plan_import
from seline.domain.verdict import Verdict
from seline.errors import (
    DocumentBusy,
    DocumentNotFound,
    DocumentUnreadable,
    DocumentUnrecoverable,
    ImportRefused,
    SelineError,
)
from seline.manager import changes
from seline.manager.blocks import Locked
from seline.manager.changes import preview
from seline.manager.encoding import content_of
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import served_content
from seline.ports.futures import wait_for
from seline.ports.store import Change, Current, Decision, DocumentStore, Snapshot
from seline.settings import Storage

IMPORT_TRIES: Final = 10


@asynccontextmanager
async def snapshot_of(store: ManagedStore) -> AsyncGenerator[Snapshot]:
    """Hold a snapshot of the bot's documents while the block is open.

    At its end the broken documents that were read are recovered, and reported.
    """
    taking = (await store.open()).snapshot(BOT)
    try:
        held = await wait_for(taking)
    except BaseException:  # cancelled, or interrupted
        taking.add_done_callback(_release)
        raise
    with held as snapshot:
        yield snapshot
        for name in snapshot.broken:
            with suppress(SelineError):  # it is reported, and an export goes on without it
                await served_content(store, DocumentKey(BOT, name))


async def export_of(snapshot: Snapshot, store: ManagedStore) -> dict[str, Json]:
    """Return the export of a snapshot; `unrecoverable` names the documents that it lacks."""
    files: dict[str, Json] = {}
    broken: list[Json] = []
    for name in snapshot.names:
        try:
            files[name] = await store.reading(partial(_value, snapshot, name))
        except DocumentNotFound:
            continue  # it was purged
        except (DocumentUnrecoverable, DocumentUnreadable):
            broken.append(name)
    export: dict[str, Json] = {"exported_at": instant_text(snapshot.taken_at), "files": files}
    taken: dict[str, Json] = {name: backup for name, backup in snapshot.broken.items() if backup}
    if taken:
        export["from_backups"] = taken
    if broken:
        export["unrecoverable"] = broken
    return export


def contents_of(export: Json, limits: Storage) -> dict[str, Content]:
    """Return the documents of an export. Raises ImportRefused."""
    return {
        name: imported_content(name, value, limits) for name, value in parse_export(export).items()
    }


def imported_content(name: str, value: Json, limits: Storage) -> Content:
    """Return the content of a document of an export. Raises ImportRefused."""
    try:
        return content_of(value, limits)
    except SelineError as error:
        raise ImportRefused(
            f"$.files[{name!r}]: {error.message}", hint=error.hint, document=name
        ) from error


@collector.without_full_ones
async def import_contents(
    store: ManagedStore, contents: Mapping[str, Content], *, replace: bool, dry_run: bool
) -> ImportReport:
    """Import documents, all or none; `dry_run` decides the same and changes nothing.

    A document that is created while `replace` waits has the import planned again. Raises
    DocumentBusy after IMPORT_TRIES.
    """
    opened = await store.open()
    incoming = {name: content.revision for name, content in contents.items()}
    for tries_left in reversed(range(IMPORT_TRIES)):
        documents = await store.listing(lambda: _judged_documents(opened, contents))
        current = {
            info.name: info.revision if info.verdict == Verdict.SOUND else None
            for info in documents
        }
        report = plan_import(current, incoming, replace=replace, dry_run=dry_run)
        try:
            await _commit(store, opened, contents, report, replace=replace)
        except DocumentBusy as busy:
            if "created" not in busy.details or not tries_left:
                raise
        else:
            return report
    raise AssertionError("the last try returns or raises")


def _judged_documents(opened: DocumentStore, names: Iterable[str]) -> list[DocumentInfo]:
    """List the documents; those named are read, so that their revision is certain. Blocks."""
    for name in names:
        opened.look(DocumentKey(BOT, name))
    return list(opened.documents(BOT))


async def _commit(
    store: ManagedStore,
    opened: DocumentStore,
    contents: Mapping[str, Content],
    report: ImportReport,
    *,
    replace: bool,
) -> None:
    """Commit an import, or only decide it. Raises DocumentBusy for a document not in `report`."""
    names = sorted({*contents, *report.deleted})
    pins: dict[str, Pin] = {}
    made = [_change(store, name, contents.get(name), pins) for name in names]
    if replace and made:
        made[0] = _unless_others(made[0], opened, frozenset(names))
    if report.dry_run:
        made = [preview(change) for change in made]
    elif made:
        made.append(store.pins.pin_all(pins))
    with Locked(store) as locked:
        await locked.lock(names)
        imported = locked.commit(made)
    await wait_for(imported)


def _unless_others(change: Change, opened: DocumentStore, names: frozenset[str]) -> Change:
    """Return the change, refused in its turn if there are documents besides `names`."""

    def decide(current: Current) -> Decision:
        created = {info.name for info in opened.documents(BOT)} - names
        if created:
            raise DocumentBusy(
                f"{min(created)} was created in the meantime; nothing was changed.",
                hint="Import again while nothing else creates documents.",
                created=sorted(created),
            )
        return change.decide(current)

    return msgspec.structs.replace(change, decide=decide)


def _change(
    store: ManagedStore, name: str, content: Content | None, pins: dict[str, Pin]
) -> Change:
    key = DocumentKey(BOT, name)
    if content is None:
        return store.change_of(key, changes.delete_if_there)
    decide = changes.put_imported(content, guard=store.pins.guard(key, into=pins))
    return store.change_of(key, decide, size_hint=content.size_bytes)


def _value(snapshot: Snapshot, name: str) -> Json:
    return decode(snapshot.read(name).data)


def _release(taking: Future[AbstractContextManager[Snapshot]]) -> None:
    """Release a snapshot for which no caller waits any more."""
    if not taking.cancelled() and taking.exception() is None:
        with taking.result():
            pass
