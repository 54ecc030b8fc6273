"""`/livez` and `/readyz`: for platforms, without a token and without data."""

from typing import Final

from aiohttp import web

from seline.errors import SelineError, VolumeBusy, VolumeNotMounted
from seline.http.answers import Live, Ready
from seline.http.context import context
from seline.http.rendering import JsonAnswer, answer
from seline.manager import ManagedStore

LOOK_S: Final = 1.0
"""How long the disk may take to answer: a slow disk is not a lost volume."""


async def livez(_request: web.Request) -> JsonAnswer[Live]:
    """Answer as long as the event loop runs."""
    return answer(Live(status="ok"))


async def readyz(request: web.Request) -> JsonAnswer[Ready]:
    """Answer whether the volume is mounted, locked and open; a full one is ready, too."""
    unavailable = context(request).unavailable() or await _lost(context(request).data.store)
    body = Ready(status="ok" if unavailable is None else "unavailable")
    if "verbose" in request.query:
        body["checks"] = [
            {"name": "volume", "status": "ok" if unavailable is None else unavailable.code},
            {"name": "store", "status": "ok" if unavailable is None else "closed"},
        ]
    return answer(body, status=200 if unavailable is None else 503)


async def _lost(managed: ManagedStore) -> SelineError | None:
    """Return the error if the path no longer leads to the volume (V12)."""
    try:
        store = await managed.open()
        failure = await managed.reading(store.medium.unavailable, limit_s=LOOK_S)
    except VolumeBusy:
        return None
    except SelineError as closing:
        return closing
    return failure if isinstance(failure, VolumeNotMounted) else None
