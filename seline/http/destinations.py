"""The handlers for destinations: what is known of each, its copies, taking one into use again."""

from datetime import datetime
from typing import Final

from aiohttp import web

from seline.clock import parse_instant
from seline.domain.document import Json
from seline.errors import InvalidRequest, SettingsError
from seline.http.context import context, operations
from seline.http.rendering import answer, members
from seline.http.requests import SMALL_BODY_BYTES, flag, read_object, text_field
from seline.operations.destinations import DestinationRecord
from seline.outbound.sealing import AgeSealer
from seline.ports.sealing import Sealer

_NOT_SHOWN: Final = frozenset(
    {
        "cure",
        "largest",
        "whole_since",
        "mirror_began_at",
        "mirror_cure",
        "drill_cure",
        "encrypted",
        "life",
        "revisions",
    }
)


async def list_destinations(request: web.Request) -> web.StreamResponse:
    """Answer every configured destination; none of them is touched."""
    opened = operations(request)
    await opened.load()
    shown = [
        {
            "name": target.destination.name,
            "where": target.destination.where,
            "keep": target.keep,
            "same_disk": target.same_disk,
            "mode": target.mode,
            **_shown(record),
        }
        for target, record in opened.exports.destinations.records()
    ]
    return answer({"destinations": shown})


async def use_destination(request: web.Request) -> web.StreamResponse:
    """Take a destination into use that was moved or replaced."""
    name = request.match_info["destination"]
    record = await operations(request).exports.destinations.use(name)
    return answer({"success": True, "name": name, **members(record, "marker", "on_data_disk")})


async def accept_copy(request: web.Request) -> web.StreamResponse:
    """Copy now to a destination that is mirrored, and make that the copy which a restore takes."""
    name = request.match_info["destination"]
    await operations(request).mirrors.accept(name)
    return answer({"success": True, "name": name})


async def list_copies(request: web.Request) -> web.StreamResponse:
    """Answer the copies at a destination, the newest first."""
    name = request.match_info["destination"]
    listed = await operations(request).copies(name).listed()
    return answer({"destination": name, "copies": listed})


async def restore_copy(request: web.Request) -> web.StreamResponse:
    """Put the documents of a copy back, all of them or none."""
    name, query = request.match_info["destination"], request.query
    only = [document for document in query.get("only", "").split(",") if document]
    dry_run = flag(request, "dry_run", default=False)
    opened = operations(request)
    copy, (report, undo) = await opened.restore_from(
        name,
        await _given_sealer(request),
        at=_instant(query.get("at")),
        volume=query.get("volume", ""),
        only=only,
        dry_run=dry_run,
    )
    return answer(
        {
            "success": True,
            "copy": copy.name,
            "taken_at": copy.taken_at,
            "volume": copy.volume,
            "foreign": copy.volume != await opened.exports.known_volume_id(),
            **members(report),
            "undo": undo,
        }
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
    body = await read_object(request, SMALL_BODY_BYTES, required=("identity",), optional=())
    identity = text_field(body, "identity") or ""
    passphrase = context(request).settings.exports.passphrase or ""
    try:
        return AgeSealer(passphrase=passphrase, identities=identity.split())
    except SettingsError as error:
        raise InvalidRequest(error.message, hint=error.hint, fields=["identity"]) from error


def _shown(record: DestinationRecord) -> dict[str, Json]:
    return {name: value for name, value in members(record).items() if name not in _NOT_SHOWN}
