"""The handlers for destinations: what is known of each, its copies, taking one into use again."""

from collections.abc import Sequence
from datetime import datetime

from aiohttp import web

from seline.clock import parse_instant
from seline.errors import InvalidRequest, RestorePending, SettingsError
from seline.http.answers import (
    CopyList,
    CopyRestored,
    DestinationAccepted,
    DestinationList,
    DestinationShown,
    DestinationUsed,
    IdentityBody,
)
from seline.http.context import context, operations
from seline.http.rendering import JsonAnswer, answer
from seline.http.requests import flag, read_body
from seline.http.undo import undo_steps
from seline.operations.destinations import DestinationRecord
from seline.outbound.sealing import AgeSealer
from seline.ports.destinations import Target
from seline.ports.sealing import Sealer


async def list_destinations(request: web.Request) -> JsonAnswer[DestinationList]:
    """Answer every configured destination; none of them is touched."""
    opened = operations(request)
    await opened.load()
    records = opened.exports.destinations.records()
    return answer(DestinationList(destinations=[_shown(*known) for known in records]))


async def use_destination(request: web.Request) -> JsonAnswer[DestinationUsed]:
    """Take a destination into use that was moved or replaced."""
    name = request.match_info["destination"]
    target, record = await operations(request).exports.destinations.use(name)
    return answer(
        DestinationUsed(
            success=True,
            name=name,
            marker=record.marker,
            on_data_disk=record.on_data_disk,
            mode=target.mode,
            has_copy=bool(record.whole_at or record.mirrored_at),
        )
    )


async def accept_copy(request: web.Request) -> JsonAnswer[DestinationAccepted]:
    """Copy now, and make that the copy which a restore takes from a destination."""
    name = request.match_info["destination"]
    await context(request).accept(name)
    return answer(DestinationAccepted(success=True, name=name))


async def list_copies(request: web.Request) -> JsonAnswer[CopyList]:
    """Answer the copies at a destination, the newest first."""
    name = request.match_info["destination"]
    listed = await operations(request).listed_copies(name)
    return answer(CopyList(destination=name, copies=listed))


async def restore_copy(request: web.Request) -> JsonAnswer[CopyRestored]:
    """Put the documents of a copy back, all of them or none."""
    name, query = request.match_info["destination"], request.query
    only = [document for document in query.get("only", "").split(",") if document]
    _check_not_pending(request, only)
    dry_run = flag(request, "dry_run", default=False)
    opened = operations(request)
    copy, report = await opened.restore_from(
        name,
        await _given_sealer(request),
        at=_instant(query.get("at")),
        volume=query.get("volume", ""),
        only=only,
        dry_run=dry_run,
        foreign=flag(request, "foreign", default=False),
        unencrypted=flag(request, "unencrypted", default=False),
    )
    return answer(
        CopyRestored(
            success=True,
            copy=copy.name,
            taken_at=copy.taken_at,
            volume=copy.volume,
            foreign=await opened.is_foreign(copy.volume),
            created=report.created,
            changed=report.changed,
            unchanged=report.unchanged,
            deleted=report.deleted,
            dry_run=report.dry_run,
            backups=report.backups,
            pins=report.pins,
            passed_over=copy.passed_over,
            purged=await opened.exports.purges.undone(copy, report.created),
            undo=undo_steps(),
        )
    )


def _check_not_pending(request: web.Request, only: Sequence[str]) -> None:
    """Raise RestorePending for chosen documents: the volume would count as whole with them."""
    pending = context(request).unavailable()
    if only and pending is not None:
        raise RestorePending(
            "Nothing was changed: the volume waits for a whole copy, and with chosen documents "
            f"alone it would count as whole. {pending.message}",
            hint=pending.hint,
        )


def _instant(text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_instant(text)
    except ValueError as error:
        raise InvalidRequest(
            f"at is an instant in ISO 8601, not {text!r:.40}. Nothing was changed.", fields=["at"]
        ) from error


async def _given_sealer(request: web.Request) -> Sealer | None:
    """Return what decrypts with the identity in the body, None without a body."""
    if not request.body_exists:
        return None
    identity = (await read_body(request, IdentityBody)).identity
    passphrase = context(request).settings.exports.passphrase or ""
    try:
        return AgeSealer(passphrase=passphrase, identities=identity.split())
    except SettingsError as error:
        raise InvalidRequest(error.message, hint=error.hint, fields=["identity"]) from error


def _shown(target: Target, record: DestinationRecord) -> DestinationShown:
    return DestinationShown(
        name=target.destination.name,
        where=target.destination.where,
        keep=target.keep,
        same_disk=target.same_disk,
        mode=target.mode,
        marker=record.marker,
        on_data_disk=record.on_data_disk,
        whole_at=record.whole_at,
        failed_at=record.failed_at,
        failure=record.failure,
        lacking=record.lacking,
        mirrored_at=record.mirrored_at,
        mirrored_since=record.mirrored_since,
        sequence=record.sequence,
        mirror_failed_at=record.mirror_failed_at,
        mirror_failure=record.mirror_failure,
        mirror_lacking=record.mirror_lacking,
        mirror_older=record.mirror_older,
        checked_at=record.checked_at,
        proven_at=record.proven_at,
        proven_by=record.proven_by,
        not_restored=record.not_restored,
        drill_failure=record.drill_failure,
    )
