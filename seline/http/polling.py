"""The ETag of an answer that is asked for again and again, and 304 while nothing has changed."""

import hashlib
import re
from typing import Final

from aiohttp import web

from seline.http.requests import not_modified

_AGE: Final = re.compile(rb'_age_s":\s*[0-9]+')
"""An age grows every second, and is no change."""


def unless_known(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Return an answer with its ETag, or 304 without a body to a reader that has it.

    The ETag is weak: answers that differ in ages only have the same one.
    """
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    digest = hashlib.sha256(_AGE.sub(b"", response.body)).hexdigest()
    response.headers["ETag"] = f'W/"{digest}"'
    if not not_modified(request, digest):
        return response
    return web.Response(status=304, headers={"ETag": response.headers["ETag"]})
