"""Connections: how many there are, how long they may wait, and what a malformed request gets.

A client needs no token to connect, so connections are bounded: in number, in the time of a
request's head, of a pause between requests, and of a response that is not read. When there are too
many, the one that has waited longest without a request is closed for the new one.

aiohttp answers a request that it cannot parse as text, and logs the bytes. Here every answer is a
problem, is counted, and no byte of a request reaches the log.
"""

import asyncio
import ipaddress
import logging
import resource
from collections.abc import Iterable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from seline import errors
from seline.errors import SelineError
from seline.http.access import HEADERS
from seline.http.context import CONTEXT
from seline.http.known_documents import KnownDocuments
from seline.http.metrics import REQUESTS, method_label
from seline.http.problems import problem, unexpected
from seline.logs import OncePerMinute

LINGERING_S: Final = 1.0
"""How long a refused body is still read, so that its sender receives the response."""
CONNECTIONS_MAX: Final = 512
CLIENT_CONNECTIONS_MAX: Final = 128
"""How many connections one address may have; behind a proxy all clients have the proxy's."""
HEAD_S: Final = 15.0
"""How long the head of a request may take."""
IDLE_S: Final = 150.0
"""How long a connection may wait for its next request: longer than proxies keep theirs."""
STALLED_S: Final = 60.0
"""How long a client may leave sent bytes unread."""
WATCH_S: Final = 1.0
RECEIVE_BYTES: Final = 64 << 10
"""How much is received at once. For asyncio's 256 KiB the memory would be mapped and unmapped each
time (`LARGE_BYTES` of the server's process), which costs 20 µs for each request."""
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)
UNROUTED: Final = "malformed"
"""The route label of a request that reaches no route."""
_log = logging.getLogger("seline.http.connections")
_log.addFilter(OncePerMinute())


def connections_max() -> int:
    """Return how many connections the process may have: the store keeps most descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if soft < 0 else min(CONNECTIONS_MAX, max(soft // 4, 1))


class ApiRunner(web.AppRunner):
    """Runs the app with connections that keep the limits of this module."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _ApiServer(self.app, made)


class _ApiServer(web.Server):
    """Makes the connections of the app, and bounds their number."""

    def __init__(self, app: web.Application, made: web.Server) -> None:
        super().__init__(made.request_handler, request_factory=made.request_factory)
        self._handler, self._factory = made.request_handler, made.request_factory
        self.request_handler, self.request_factory = self._handle, self._begin
        self.app = app
        self._known = KnownDocuments(app)
        self._open: set[_Connection] = set()
        self._behind_proxy = app[CONTEXT].settings.server.trust_proxy

    def __call__(self) -> web.RequestHandler:
        return _Connection(self)

    def admit(self, connection: "_Connection") -> bool:
        """Register a connection; return False if too many have a request in progress."""
        own = [other for other in self._open if other.client == connection.client]
        too_many = len(own) >= CLIENT_CONNECTIONS_MAX and not self._behind_proxy
        for group, is_full in ((own, too_many), (self._open, len(self._open) >= connections_max())):
            if is_full and not self._make_room(group):
                _log.warning("refused a connection of %s: too many are open", connection.client)
                return False
        self._open.add(connection)
        return True

    def forget(self, connection: "_Connection") -> None:
        """Remove a connection that was closed; idempotent."""
        self._open.discard(connection)

    def _make_room(self, group: Iterable["_Connection"]) -> bool:
        """Close the connection that has waited longest without a request, if there is one."""
        waiting = [other for other in group if other.waiting_since_s is not None]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda other: other.waiting_since_s or 0.0)
        _log.warning("closed a connection of %s for another: too many are open", oldest.client)
        self.forget(oldest)
        oldest.abort()
        return True

    def _begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        assert isinstance(protocol, _Connection)
        protocol.waiting_since_s = protocol.head_since_s = None
        return self._factory(message, payload, protocol, writer, task)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request. A document in memory is answered before the app is asked.

        An expectation that cannot be met is refused; aiohttp would answer it before the app.
        """
        expectation = request.headers.get("Expect")
        if expectation and expectation.lower() != "100-continue":
            raise errors.ExpectationFailed
        connection = request.protocol
        assert isinstance(connection, _Connection)
        known = None if connection.client is None else self._known.answer(request)
        return await self._handler(request) if known is None else known


class _Connection(web.RequestHandler):
    """One connection of a client.

    `waiting_since_s` is None while a request is in progress. `head_since_s` is when the head of the
    next request began, None if nothing of it has arrived.
    """

    def __init__(self, server: _ApiServer) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=cast("logging.Logger", None),  # what AppRunner passes for none
            lingering_time=LINGERING_S,
            keepalive_timeout=IDLE_S,
            auto_decompress=False,  # aiohttp would decompress before the token is checked
        )
        self._server = server
        self._now_s = asyncio.get_running_loop().time
        self.client: str | None = None
        """The address that the client's connections are counted under; None on this machine's
        control socket, which is not counted."""
        self.waiting_since_s: float | None = None
        self.head_since_s: float | None = None
        self._unread_since_s: float | None = None
        self._watching: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, or refuse the client if too many requests are in progress."""
        self.client = _client_of(transport.get_extra_info("peername"))
        if self.client is not None and not self._server.admit(self):
            assert isinstance(transport, asyncio.Transport)
            transport.write(_FULL)
            transport.close()
            return
        self.waiting_since_s = self.head_since_s = self._now_s()
        receiving: Any = transport
        if hasattr(receiving, "max_size"):  # asyncio's own; uvloop has none
            receiving.max_size = RECEIVE_BYTES
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._server.forget(self)
        if self._watching is not None:
            self._watching.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes; the first ones between two requests begin a head."""
        if data and self.waiting_since_s is not None and self.head_since_s is None:
            self.head_since_s = self._now_s()
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response, then wait for the next request."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self.waiting_since_s = self._now_s()

    def pause_writing(self) -> None:
        """Note since when the client does not read."""
        self._unread_since_s = self._now_s()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the client reads."""
        self._unread_since_s = None
        super().resume_writing()

    def abort(self) -> None:
        """Close the connection at once, with unsent bytes."""
        if self.transport is not None:
            self.transport.abort()

    def _watch(self) -> None:
        """Close the connection if its client is too slow, else look again later."""
        for kind, since_s, limit_s in (
            ("the head of a request", self.head_since_s, HEAD_S),
            ("reading the response", self._unread_since_s, STALLED_S),
        ):
            if since_s is not None and self._now_s() - since_s > limit_s:
                _log.warning(f"closed a connection of %s: {kind} took too long", self.client)
                return self.abort()
        self._watching = asyncio.get_running_loop().call_later(WATCH_S, self._watch)
        return None

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


def _client_of(peer: object) -> str | None:
    """Return the address of a peer, of IPv6 the network that one client has; None for a socket."""
    if not isinstance(peer, tuple):
        return None
    address = ipaddress.ip_address(str(cast("tuple[object, ...]", peer)[0]).partition("%")[0])
    if address.version == 4 or address.ipv4_mapped is not None:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _error_of(error: BaseException | None) -> SelineError:
    if isinstance(error, SelineError):
        return error
    if isinstance(error, HttpProcessingError):
        return errors.MalformedRequest()
    return unexpected()
