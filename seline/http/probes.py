"""`/livez` and `/readyz`: asked by platforms, without a token, and answering without data."""

from __future__ import annotations

from aiohttp import web

from seline.http.doors import doors
from seline.http.rendering import answer


async def livez(_request: web.Request) -> web.StreamResponse:
    """Answer that the loop turns."""
    return answer({"status": "ok"})


async def readyz(request: web.Request) -> web.StreamResponse:
    """Answer whether the volume is held and the store open; a full one stays ready."""
    trouble = doors(request).trouble()
    body: dict[str, object] = {"status": "ok" if trouble is None else "unavailable"}
    if "verbose" in request.query:
        body["checks"] = [
            {"name": "volume", "status": "ok" if trouble is None else trouble.code},
            {"name": "store", "status": "ok" if trouble is None else "closed"},
        ]
    return answer(body, status=200 if trouble is None else 503)
