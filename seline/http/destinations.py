"""The handlers for destinations: what is known of each, its copies, taking one into use again."""

from typing import Final

from aiohttp import web

from seline.domain.document import Json
from seline.http.context import operations
from seline.http.rendering import answer, members
from seline.operations.destinations import DestinationRecord

_NOT_SHOWN: Final = frozenset({"cure", "encrypted", "revisions"})


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


def _shown(record: DestinationRecord) -> dict[str, Json]:
    return {name: value for name, value in members(record).items() if name not in _NOT_SHOWN}
