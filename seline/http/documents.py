"""The handlers for single documents and their backups."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Final, TypeVar, cast

from aiohttp import web

from seline.domain.backup import Backup
from seline.domain.document import BOT, DocumentKey, IfMatch, Json, Revision, check_document_name
from seline.domain.pins import BY_HAND
from seline.domain.report import Reset
from seline.errors import RevisionMismatch
from seline.http.answers import (
    BackupList,
    BackupShown,
    DeletedAnswer,
    DifferenceAnswer,
    DocumentInfos,
    PinBody,
    Pinning,
    RestoreAnswer,
    RestoreBody,
    Saved,
)
from seline.http.context import context, data, operations
from seline.http.files import send_download, send_spool
from seline.http.rendering import (
    JsonAnswer,
    SuccessAnswer,
    answer,
    difference_members,
    done,
    exact_answer,
    http_date,
    members,
    plain,
)
from seline.http.requests import (
    ANY_SOUND,
    INLINE_BYTES_MAX,
    check_read,
    etag,
    flag,
    not_modified,
    precondition,
    read_body,
    read_content,
    read_patch,
)
from seline.http.undo import undo_steps
from seline.manager.changes import CREATED
from seline.operations.difference import CURRENT, difference_between
from seline.spool import spooled

BEYOND_DOCUMENT_BYTES: Final = 1 << 20
"""What a request's body may have beyond the largest document."""
JSON: Final = "application/json; charset=utf-8"
_Changed = TypeVar("_Changed")


async def list_documents(request: web.Request) -> JsonAnswer[DocumentInfos]:
    """Answer the name, revision, size, instant and number of backups of each document.

    `deleted=true` answers the deleted ones that have backups instead.
    """
    if flag(request, "deleted", default=False):
        return answer(DocumentInfos(documents=await operations(request).deleted_documents()))
    return answer(DocumentInfos(documents=await data(request).documents()))


async def get_document(request: web.Request) -> web.StreamResponse:
    """Answer the bare value, as it is stored."""
    content, updated_at = await data(request).read_content(request.match_info["name"])
    check_read(request, content.revision)
    headers = {"ETag": etag(content.revision)}
    if not_modified(request, content.revision):
        return web.Response(status=304, headers=headers)
    # Never later than Date (RFC 9110, 8.8.2.1).
    modified = min(updated_at, data(request).store.clock.now())
    headers["Last-Modified"] = http_date(modified)
    if content.size_bytes <= INLINE_BYTES_MAX:
        return web.Response(body=content.data, headers={**headers, "Content-Type": JSON})
    spool = await asyncio.to_thread(spooled, content.data)
    del content  # a slow client occupies no memory
    return await send_spool(request, spool, JSON, headers)


async def put_document(request: web.Request) -> JsonAnswer[Saved]:
    """Save the body as the document."""
    name = check_document_name(request.match_info["name"])
    backup, shrink = flag(request, "backup", default=True), flag(request, "shrink", default=False)
    accepted = precondition(request)
    storage, store = context(request).settings.storage, data(request).store
    bytes_max = storage.document_bytes_max + BEYOND_DOCUMENT_BYTES
    content = await read_content(request, bytes_max, storage)
    outcome = await _under(
        accepted,
        lambda expected: store.save(
            DocumentKey(BOT, name), content, backup=backup, if_match=expected, shrink=shrink
        ),
    )
    return _saved(name, content.revision, created=outcome.answer == CREATED)


async def patch_document(request: web.Request) -> JsonAnswer[Saved]:
    """Merge the body, a merge patch (RFC 7396), into the document."""
    name = check_document_name(request.match_info["name"])
    backup, shrink = flag(request, "backup", default=True), flag(request, "shrink", default=False)
    accepted = precondition(request)
    storage = context(request).settings.storage
    patch = await read_patch(request, storage.document_bytes_max + BEYOND_DOCUMENT_BYTES, storage)
    revision, created = await _under(
        accepted,
        lambda expected: data(request).merge_json(
            name, patch, backup=backup, if_match=expected, shrink=shrink
        ),
    )
    return _saved(name, revision, created=created)


async def delete_document(request: web.Request) -> SuccessAnswer[DeletedAnswer]:
    """Delete the document; its content is kept as its newest backup, unless it is purged."""
    name, purge = request.match_info["name"], flag(request, "purge", default=False)
    dry_run = flag(request, "dry_run", default=False)
    deleted = await _under(
        precondition(request),
        lambda expected: data(request).delete(
            name, purge=purge, if_match=expected, dry_run=dry_run
        ),
    )
    return done(DeletedAnswer(**asdict(deleted), undo=undo_steps()))


async def restore_backup(request: web.Request) -> JsonAnswer[RestoreAnswer]:
    """Go back to a backup, or take one value from it; a dry run answers the difference."""
    body = await read_body(request, RestoreBody)
    name, path, dry_run = body.filename, body.path, flag(request, "dry_run", default=False)
    restored, plan = await _under(
        precondition(request),
        lambda expected: data(request).planned_restore(
            name, body.backup, path, expected, dry_run=dry_run
        ),
    )
    shown: Json = None
    if dry_run and plan.kept_in != "quarantine":
        shown = difference_members(await difference_between(plan.before, plan.after))
    part = f"{path} of {name}" if path else name
    would_be = "would be" if dry_run else "was"
    answered = {
        "success": True,
        "message": f"{part} {would_be} restored from {restored.backup}.",
        "restored": {**members(restored, "document", "backup", "taken_at"), "path": path},
        "kept_in": restored.kept_in,
        "dry_run": dry_run,
        "difference": shown,
        "undo": plain(undo_steps()),
    }
    return exact_answer(cast("RestoreAnswer", answered), headers={"ETag": etag(restored.revision)})


async def reset_document(request: web.Request) -> SuccessAnswer[Reset]:
    """Give up a broken document."""
    dry_run = flag(request, "dry_run", default=False)
    reset = await data(request).reset(request.match_info["name"], dry_run=dry_run)
    return done(reset)


async def get_raw(request: web.Request) -> web.StreamResponse:
    """Answer the document's bytes on the volume, sound or not."""
    name = request.match_info["name"]
    return await send_download(request, operations(request).raw(name), name)


async def get_difference(request: web.Request) -> JsonAnswer[DifferenceAnswer]:
    """Answer the difference between two contents of the document."""
    query = request.query
    compared = await operations(request).diff(
        request.match_info["name"], query.get("from", ""), query.get("to", CURRENT)
    )
    shown = {
        "document": compared.document,
        "from": plain(compared.before),
        "to": plain(compared.after),
        **difference_members(compared.difference),
    }
    return exact_answer(cast("DifferenceAnswer", shown))


async def list_backups(request: web.Request) -> JsonAnswer[BackupList]:
    """Answer a document's backups, newest first, each judged."""
    backups = await data(request).backups(request.match_info["name"])
    return answer(BackupList(backups=[_shown(backup) for backup in backups]))


async def get_backup(request: web.Request) -> web.StreamResponse:
    """Answer a backup's value."""
    name, backup = request.match_info["name"], request.match_info["backup"]
    content = await operations(request).backup_content(name, backup)
    headers = {"ETag": etag(content.revision)}
    spool = await asyncio.to_thread(spooled, content.data)
    del content  # a slow client occupies no memory
    return await send_spool(request, spool, JSON, headers)


async def pin_backup(request: web.Request) -> JsonAnswer[Pinning]:
    """Keep a backup outside rotation."""
    name, backup = request.match_info["name"], request.match_info["backup"]
    because = BY_HAND
    if request.body_exists:
        because = (await read_body(request, PinBody, 4096)).because or because
    await data(request).pin(name, backup, because[:200])
    return _pinning(name, backup, pinned=True)


async def unpin_backup(request: web.Request) -> JsonAnswer[Pinning]:
    """Return a backup to rotation."""
    name, backup = request.match_info["name"], request.match_info["backup"]
    await data(request).unpin(name, backup)
    return _pinning(name, backup, pinned=False)


def _pinning(name: str, backup: str, *, pinned: bool) -> JsonAnswer[Pinning]:
    shown = Pinning(success=True, document=name, backup=backup, pinned=pinned, undo=undo_steps())
    return answer(shown)


def _saved(name: str, revision: Revision, *, created: bool) -> JsonAnswer[Saved]:
    return answer(
        Saved(success=True, name=name, revision=revision, created=created, undo=undo_steps()),
        status=201 if created else 200,
        headers={"ETag": etag(revision)},
    )


def _shown(backup: Backup) -> BackupShown:
    return BackupShown(
        name=backup.name,
        document=backup.document,
        taken_at=backup.taken_at,
        size_bytes=backup.size_bytes,
        sha256=backup.revision,
        verdict=backup.verdict,
        pinned=backup.pinned,
        because=backup.because,
    )


async def _under(
    accepted: Sequence[IfMatch], change: Callable[[IfMatch], Awaitable[_Changed]]
) -> _Changed:
    """Make a change under its precondition.

    The store compares one revision, in the change's turn. If another revision is current that the
    caller accepts too, the change is tried again with that one. The store refuses ANY_SOUND first,
    which is no revision, and its error names the current one.
    """
    expected = accepted[0] if accepted else None
    while True:
        try:
            return await change(expected)
        except RevisionMismatch as refusal:
            current, any_sound = refusal.details.get("current"), ANY_SOUND in accepted
            if current is None and any_sound:
                raise RevisionMismatch(
                    "`If-Match: *` asks for a sound document, and there is none. "
                    "Nothing was written.",
                    hint="To create it, send `If-None-Match: *` instead, or neither.",
                    **refusal.details,
                ) from refusal
            if current is None or not (any_sound or current in accepted):
                raise
            expected = current
