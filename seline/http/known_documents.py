"""Answer a plain read of a document in memory at once, without the app's router and middlewares.

It asks the same checks as `access` and `documents.get_document`, and answers only what passes all
of them. Every other request is left to the app, which refuses it, logs it or reads the disk. The
response is the app's, byte for byte, but for the order of its headers.
"""

import logging
from collections import Counter
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from seline.errors import SelineError
from seline.http import PREFIX
from seline.http.access import HEADERS, bearer_of, is_own_name, request_id_of
from seline.http.context import CONTEXT
from seline.http.documents import JSON
from seline.http.metrics import REQUESTS
from seline.http.rendering import http_date
from seline.http.requests import INLINE_BYTES_MAX, etag, not_modified

_PATH: Final = PREFIX + "/documents/"
_ROUTE: Final = _PATH + "{name}"
_FIXED: Final = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
_FOUND: Final = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\n{_FIXED}"
_NOT_MODIFIED: Final = f"HTTP/1.1 304 Not Modified\r\n{_FIXED}"
_log = logging.getLogger("seline.http")


class KnownDocuments:
    """Answers for one app from what its store has in memory."""

    def __init__(self, app: web.Application) -> None:
        self._context = app[CONTEXT]
        self._requests: Counter[tuple[str, str, int]] = app[REQUESTS]

    def answer(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """Return the response to a GET over the network, None if the app must answer."""
        name = _name_in(request)
        if name is None or not self._may_read(request):
            return None
        try:
            known = self._context.data.known_content(name)
        except SelineError:
            return None
        if known is None or known[0].size_bytes > INLINE_BYTES_MAX:
            return None
        (content, updated_at), now = known, self._context.data.store.clock.now()
        lines = (
            f"ETag: {etag(content.revision)}\r\nDate: {http_date(now)}\r\n"
            f"X-Request-Id: {request_id_of(request)}\r\n"
        )
        if not_modified(request, content.revision):
            return self._counted(304, f"{_NOT_MODIFIED}{lines}\r\n".encode())
        head = (
            f"{_FOUND}{lines}Last-Modified: {http_date(min(updated_at, now))}\r\n"
            f"Content-Length: {content.size_bytes}\r\n\r\n"
        )
        return self._counted(200, head.encode() + content.data)

    def _may_read(self, request: web.BaseRequest) -> bool:
        """Whether the caller may read documents now; a refusal is the app's, and counted there."""
        context = self._context
        if context.unavailable() is not None:
            return False
        if not is_own_name(request.headers.get("Host", ""), context.settings):
            return False
        secret = bearer_of(request)
        grant = None if secret is None else context.tokens.find(secret)
        if grant is not None:
            context.tokens.note_use(grant)
        return grant is not None

    def _counted(self, status: int, sent: bytes) -> web.StreamResponse:
        self._requests[_ROUTE, "GET", status] += 1
        return _Prebuilt(status, sent)


class _Prebuilt(web.StreamResponse):
    """A response to a request that keeps the connection, as the bytes to send."""

    def __init__(self, status: int, sent: bytes) -> None:
        super().__init__(status=status)
        self._sent = sent

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send it."""
        await request.writer.write_eof(self._sent)
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: it is sent."""


def _name_in(request: web.BaseRequest) -> str | None:
    """Return what a plain GET names, None for any other request, and where reads are logged."""
    path, headers = request.raw_path, request.headers
    is_plain = (
        request.method == "GET"
        and path.startswith(_PATH)
        and request.keep_alive
        and request.version == (1, 1)
        and not request.body_exists
        and "Origin" not in headers
        and "If-Match" not in headers
        and "Upgrade" not in headers
        and not _log.isEnabledFor(logging.DEBUG)
    )
    return path[len(_PATH) :] if is_plain else None
