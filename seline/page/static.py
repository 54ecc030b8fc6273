"""Static files: served under an address with their digest, so that a browser keeps them.

`static/vendored/` has files of other projects with their licences; `static/vendored/digests.txt`
has the digest of each, and a test compares them.
"""

import functools
import gzip
import hashlib
from http import HTTPStatus
from importlib.resources import files
from typing import Final, NamedTuple

from aiohttp import web

TYPES: Final = {
    "pico.min.css": "text/css",
    "uPlot.min.css": "text/css",
    "uPlot.iife.min.js": "text/javascript",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "chart.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""The files that are served, with their types."""
DIGEST_CHARACTERS: Final = 16
ROUTE: Final = "/static/{digest}/{name}"


class StaticFile(NamedTuple):
    """The bytes of a file, plain and compressed."""

    data: bytes
    zipped: bytes
    digest: str


@functools.cache
def static_file(name: str) -> StaticFile:
    """Return a file that TYPES lists. Blocks once."""
    folder = files("seline.page").joinpath("static")
    path = folder.joinpath(name)
    data = (path if path.is_file() else folder.joinpath("vendored", name)).read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:DIGEST_CHARACTERS]
    return StaticFile(data, gzip.compress(data, 9, mtime=0), digest)


def address_of(name: str) -> str:
    """Return the address of a file, with its digest."""
    return ROUTE.format(digest=static_file(name).digest, name=name)


async def serve(request: web.Request) -> web.StreamResponse:
    """Answer a file; 404 for another digest, which belongs to another version."""
    name = request.match_info["name"]
    if name not in TYPES or static_file(name).digest != request.match_info["digest"]:
        return web.Response(status=HTTPStatus.NOT_FOUND)
    file = static_file(name)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    is_zipped = "gzip" in request.headers.get("Accept-Encoding", "")
    if is_zipped:
        headers["Content-Encoding"] = "gzip"
    body = file.zipped if is_zipped else file.data
    return web.Response(body=body, headers=headers, content_type=TYPES[name], charset="utf-8")
