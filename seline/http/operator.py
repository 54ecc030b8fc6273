"""The handlers for the operator's verbs, and for tokens and the process."""

from dataclasses import asdict
from typing import Final

from aiohttp import web

from seline.clock import parse_instant
from seline.domain.readable_export import is_replace
from seline.errors import InvalidRequest
from seline.http.answers import (
    AuditList,
    Imported,
    PruneAnswer,
    QuarantineList,
    TokenBody,
    VerifyAnswer,
)
from seline.http.context import context, operations
from seline.http.files import send_download, spooled_body
from seline.http.rendering import JsonAnswer, SuccessAnswer, answer, done, members
from seline.http.requests import check_json, flag, read_body
from seline.http.undo import undo_steps
from seline.operations.health import HealthBody, unopened_health
from seline.operations.usage import StorageInfo
from seline.program import typed

EXPORT_BYTES_MAX: Final = 1 << 30
TAR: Final = "application/x-tar"
"""The type of an export folder, as `GET /export?form=folder` answers it."""


async def health(request: web.Request) -> JsonAnswer[HealthBody]:
    """Answer the state of the store, with what to do; also while it is not open."""
    unavailable = context(request).unavailable()
    if unavailable is not None:
        return answer(unopened_health(context(request).settings.data_dir, unavailable), indent=2)
    health = await operations(request).health()
    for check in health["checks"]:
        check["fix"] = typed(check["fix"])
    return answer(health, indent=2)


async def storage_info(request: web.Request) -> JsonAnswer[StorageInfo]:
    """Answer the documents, the backups and the usage of the volume."""
    return answer(await operations(request).storage_info())


async def import_documents(request: web.Request) -> SuccessAnswer[Imported]:
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
        return done(Imported(**asdict(report), foreign=is_foreign, undo=undo_steps()))
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
    return done(Imported(**asdict(report), foreign=is_foreign, undo=undo_steps()))


def _names(request: web.Request, parameter: str) -> list[str]:
    return [name for name in request.query.get(parameter, "").split(",") if name]


async def verify(request: web.Request) -> JsonAnswer[VerifyAnswer]:
    """Check every document and backup now."""
    report = await operations(request).verify()
    return answer(
        VerifyAnswer(
            success=True,
            damage=report.damage,
            started_at=report.started_at,
            ended_at=report.ended_at,
            documents=report.documents,
            backups=report.backups,
            bytes_read=report.bytes_read,
            findings=report.findings,
            left_out=report.left_out,
            left_out_count=report.left_out_count,
        )
    )


async def prune(request: web.Request) -> JsonAnswer[PruneAnswer]:
    """Discard what the policy drops."""
    dry_run = flag(request, "dry_run", default=False)
    pruned = await operations(request).prune(dry_run=dry_run)
    freed = sum(item.size_bytes for item in pruned)
    return answer(PruneAnswer(success=True, dry_run=dry_run, pruned=pruned, freed_bytes=freed))


async def list_quarantine(request: web.Request) -> JsonAnswer[QuarantineList]:
    """Answer the quarantined files, newest first."""
    return answer(QuarantineList(quarantine=await operations(request).quarantine()))


async def get_quarantined(request: web.Request) -> web.StreamResponse:
    """Answer a quarantined file's bytes."""
    item = request.match_info["item"]
    return await send_download(request, operations(request).read_quarantine(item), item)


async def list_audit(request: web.Request) -> JsonAnswer[AuditList]:
    """Answer the entries of the audit log, newest first."""
    query = request.query
    text = query.get("limit", "100")
    page = await context(request).audit.read(
        limit=int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0,
        before=query.get("before", ""),
        document=query.get("document", ""),
    )
    return answer(AuditList(entries=page.entries, next=page.next or None, damaged=page.damaged))


async def status(request: web.Request) -> web.StreamResponse:
    """Answer which process this is."""
    return answer(context(request).about())


async def create_token(request: web.Request) -> web.StreamResponse:
    """Make a token; its secret is answered only here."""
    body = await read_body(request, TokenBody)
    try:
        expires_at = None if body.expires_at is None else parse_instant(body.expires_at)
    except ValueError as error:
        raise InvalidRequest(
            f"expires_at is an instant such as 2027-01-06T14:30:22Z, not {body.expires_at!r}."
        ) from error
    token, secret = await context(request).tokens.create(
        scope=body.scope or "admin", label=body.label, expires_at=expires_at
    )
    shown = members(token, "scope", "expires_at")
    created = {"success": True, "id": token.id, "token": secret, **shown, "undo": undo_steps()}
    return answer(created, status=201)


async def list_tokens(request: web.Request) -> web.StreamResponse:
    """Answer the tokens, without their hashes."""
    tokens = await context(request).tokens.listed()
    shown = ("id", "scope", "label", "created_at", "expires_at", "used_at")
    return answer({"tokens": [members(token, *shown) for token in tokens]})


async def revoke_token(request: web.Request) -> web.StreamResponse:
    """Revoke a token."""
    dry_run = flag(request, "dry_run", default=False)
    token = await context(request).tokens.revoke(request.match_info["id"], dry_run=dry_run)
    return answer({"success": True, "id": token.id, "dry_run": dry_run})
