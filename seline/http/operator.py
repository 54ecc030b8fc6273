"""The handlers for the operator's verbs, and for tokens and the process."""

from typing import Final

from aiohttp import web

from seline.clock import parse_instant
from seline.domain.readable_export import is_replace
from seline.errors import InvalidRequest
from seline.http.context import context, data, operations
from seline.http.files import send_download, spooled_body
from seline.http.rendering import answer, members
from seline.http.requests import SMALL_BODY_BYTES, check_json, flag, read_object, text_field
from seline.operations.health import unopened_health

EXPORT_BYTES_MAX: Final = 1 << 30
TAR: Final = "application/x-tar"
"""The type of an export folder, as `GET /export?form=folder` answers it."""


async def health(request: web.Request) -> web.StreamResponse:
    """Answer the state of the store, with what to do; also while it is not open."""
    unavailable = context(request).unavailable()
    if unavailable is not None:
        return answer(unopened_health(context(request).settings.data_dir, unavailable), indent=2)
    return answer(await operations(request).health(), indent=2)


async def storage_info(request: web.Request) -> web.StreamResponse:
    """Answer the documents, the backups and the usage of the volume."""
    return answer(await operations(request).storage_info())


async def restore_backup(request: web.Request) -> web.StreamResponse:
    """Go back to a backup."""
    body = await read_object(
        request, SMALL_BODY_BYTES, required=("filename",), optional=("backup",)
    )
    filename = text_field(body, "filename")
    if filename is None:
        raise InvalidRequest("filename is text.", fields=["filename"])
    dry_run = flag(request, "dry_run", default=False)
    restored = await data(request).restore(filename, text_field(body, "backup"), dry_run=dry_run)
    undo = None if restored.undo is None else {"filename": filename, "backup": restored.undo}
    done = "would be" if dry_run else "was"
    return answer(
        {
            "success": True,
            "message": f"{filename} {done} restored from {restored.backup}.",
            "restored": {
                "document": filename,
                "backup": restored.backup,
                "taken_at": restored.taken_at,
            },
            "undo": undo,
            "kept_in": restored.kept_in,
            "dry_run": dry_run,
        },
        headers={"ETag": f'"{restored.revision}"'},
    )


async def import_documents(request: web.Request) -> web.StreamResponse:
    """Import an export, all of it or nothing."""
    replace = is_replace(request.query.get("mode", "merge"))
    dry_run = flag(request, "dry_run", default=False)
    only, skip = _names(request, "only"), _names(request, "skip")
    foreign = flag(request, "foreign", default=False)
    backups = flag(request, "backups", default=True)
    if request.content_type == TAR:
        async with spooled_body(request, EXPORT_BYTES_MAX) as upload:
            report, is_foreign = await operations(request).import_folder(
                upload,
                replace=replace,
                dry_run=dry_run,
                only=only,
                skip=skip,
                backups=backups,
                foreign=foreign,
            )
        return answer({"success": True, **members(report), "foreign": is_foreign})
    check_json(request)
    async with spooled_body(request, EXPORT_BYTES_MAX) as upload:
        report, is_foreign = await operations(request).import_spool(
            upload,
            replace=replace,
            dry_run=dry_run,
            only=only,
            volume=request.query.get("volume", ""),
            foreign=foreign,
        )
    return answer({"success": True, **members(report), "foreign": is_foreign})


def _names(request: web.Request, parameter: str) -> list[str]:
    return [name for name in request.query.get(parameter, "").split(",") if name]


async def verify(request: web.Request) -> web.StreamResponse:
    """Check every document and backup now."""
    report = await operations(request).verify()
    return answer({"success": True, "damage": report.damage, **members(report)})


async def prune(request: web.Request) -> web.StreamResponse:
    """Discard what the policy drops."""
    dry_run = flag(request, "dry_run", default=False)
    pruned = await operations(request).prune(dry_run=dry_run)
    freed = sum(item.size_bytes for item in pruned)
    return answer({"success": True, "dry_run": dry_run, "pruned": pruned, "freed_bytes": freed})


async def list_quarantine(request: web.Request) -> web.StreamResponse:
    """Answer the quarantined files, newest first."""
    return answer({"quarantine": await operations(request).quarantine()})


async def get_quarantined(request: web.Request) -> web.StreamResponse:
    """Answer a quarantined file's bytes."""
    item = request.match_info["item"]
    return await send_download(request, operations(request).read_quarantine(item), item)


async def status(request: web.Request) -> web.StreamResponse:
    """Answer which process this is."""
    return answer(context(request).about())


async def create_token(request: web.Request) -> web.StreamResponse:
    """Make a token; its secret is answered only here."""
    body = await read_object(
        request, SMALL_BODY_BYTES, required=(), optional=("scope", "label", "expires_at")
    )
    expires = text_field(body, "expires_at")
    try:
        expires_at = None if expires is None else parse_instant(expires)
    except ValueError as error:
        raise InvalidRequest(
            f"expires_at is an instant such as 2027-01-06T14:30:22Z, not {expires!r}."
        ) from error
    token, secret = await context(request).tokens.create(
        scope=text_field(body, "scope") or "admin",
        label=text_field(body, "label") or "",
        expires_at=expires_at,
    )
    shown = members(token, "scope", "expires_at")
    return answer({"success": True, "id": token.id, "token": secret, **shown}, status=201)


async def list_tokens(request: web.Request) -> web.StreamResponse:
    """Answer the tokens, without their hashes."""
    tokens = await context(request).tokens.listed()
    shown = ("id", "scope", "label", "created_at", "expires_at")
    return answer({"tokens": [members(token, *shown) for token in tokens]})


async def revoke_token(request: web.Request) -> web.StreamResponse:
    """Revoke a token."""
    dry_run = flag(request, "dry_run", default=False)
    token = await context(request).tokens.revoke(request.match_info["id"], dry_run=dry_run)
    return answer({"success": True, "id": token.id, "dry_run": dry_run})
