"""Connections: how many there are, how long they may wait, and what a malformed request gets.

aiohttp answers a request that it cannot parse as text, and logs the bytes. Here every answer is a
problem, is counted, and no byte of a request reaches the log.
"""

import asyncio
import logging
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from seline import errors
from seline.errors import SelineError
from seline.http.access import HEADERS
from seline.http.metrics import REQUESTS, method_label
from seline.http.problems import problem, unexpected
from seline.logs import OncePerMinute

LINGERING_S: Final = 1.0
"""How long a refused body is still read, so that its sender receives the response."""
UNROUTED: Final = "malformed"
"""The route label of a request that reaches no route."""
_log = logging.getLogger("seline.http.connections")
_log.addFilter(OncePerMinute())


class ApiRunner(web.AppRunner):
    """Runs the app with connections that keep the limits of this module."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _ApiServer(self.app, made)


class _ApiServer(web.Server):
    """Makes the connections of the app, and keeps the list of them."""

    def __init__(self, app: web.Application, made: web.Server) -> None:
        super().__init__(made.request_handler, request_factory=made.request_factory)
        self._handler = made.request_handler
        self.request_handler = self._handle
        self.app = app

    def __call__(self) -> web.RequestHandler:
        return _Connection(self)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Refuse an expectation that cannot be met; aiohttp would answer it before the app."""
        expectation = request.headers.get("Expect")
        if expectation and expectation.lower() != "100-continue":
            raise errors.ExpectationFailed
        return await self._handler(request)


class _Connection(web.RequestHandler):
    """One connection of a client."""

    def __init__(self, server: _ApiServer) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=cast("logging.Logger", None),  # what AppRunner passes for none
            lingering_time=LINGERING_S,
            auto_decompress=False,  # aiohttp would decompress before the token is checked
        )
        self._server = server

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002  # the exception decides
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # has bytes of the request
    ) -> web.StreamResponse:
        """Answer what has not reached the app, or failed outside it, as a problem."""
        response = _Unrouted(_error_of(exc))
        self._server.app[REQUESTS][UNROUTED, method_label(request), response.status] += 1
        kind = type(exc).__name__
        if response.status >= 500:
            _log.error("unexpected error outside a route: %s", kind)
        else:
            _log.warning("refused a malformed request of %s: %s", request.remote, kind)
        if request.writer.output_size > 0:
            raise ConnectionError("The response has already been sent in part.")
        return response

    def log_exception(self, *_args: Any, **named: Any) -> None:
        """Log an error of this connection without its text, which may be bytes of a request."""
        _log.warning("a connection was closed: %s", type(named.get("exc_info")).__name__)


class _Unrouted(web.Response):
    """A problem with the headers that the app sets, as no hook of the app sees it."""

    def __init__(self, error: SelineError) -> None:
        shown = problem(error)
        super().__init__(status=shown.status, body=shown.body, headers={**shown.headers, **HEADERS})
        self.force_close()

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)


def _error_of(error: BaseException | None) -> SelineError:
    if isinstance(error, SelineError):
        return error
    if isinstance(error, HttpProcessingError):
        return errors.MalformedRequest()
    return unexpected()
