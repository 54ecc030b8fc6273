"""`/livez` and `/readyz`: asked by platforms, without a token, and answering without data."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from seline.errors import SelineError, VolumeBusy, VolumeNotMounted
from seline.http.context import context
from seline.http.rendering import answer
from seline.manager import ManagedStore

LOOK_S: Final = 1.0
"""How long the path's disk may take to answer: a slow one is no lost one."""


async def livez(_request: web.Request) -> web.StreamResponse:
    """Answer that the loop turns."""
    return answer({"status": "ok"})


async def readyz(request: web.Request) -> web.StreamResponse:
    """Answer whether the volume is held, in its place, and open; a full one stays ready."""
    trouble = context(request).trouble() or await _lost(context(request).data.store)
    body: dict[str, object] = {"status": "ok" if trouble is None else "unavailable"}
    if "verbose" in request.query:
        body["checks"] = [
            {"name": "volume", "status": "ok" if trouble is None else trouble.code},
            {"name": "store", "status": "ok" if trouble is None else "closed"},
        ]
    return answer(body, status=200 if trouble is None else 503)


async def _lost(managed: ManagedStore) -> SelineError | None:
    """Say that the path leads to the volume no more, as at a start without it (V12)."""
    try:
        store = await managed.open()
        trouble = await managed.reading(store.trouble, limit_s=LOOK_S)
    except VolumeBusy:
        return None
    except SelineError as closing:
        return closing
    return trouble if isinstance(trouble, VolumeNotMounted) else None
