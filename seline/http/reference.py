"""The handler of the API's own description."""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from seline.domain.document import Content
from seline.http.requests import check_read, etag, not_modified

DESCRIPTION: Final[web.AppKey[Callable[[], Content]]] = web.AppKey("description")
"""Returns the OpenAPI document; the app makes it once, at the first call."""


async def get_openapi(request: web.Request) -> web.StreamResponse:
    """Answer the OpenAPI description of this API."""
    content = request.config_dict[DESCRIPTION]()
    check_read(request, content.revision)
    headers = {"ETag": etag(content.revision)}
    if not_modified(request, content.revision):
        return web.Response(status=304, headers=headers)
    return web.Response(body=content.data, content_type="application/json", headers=headers)
