"""Call the admin API: one request, one stream.

An error response raises the `SelineError` class of its code, with the server's message and hint.
Each request opens its own connection: where the connection is refused, nothing was done.
"""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from seline import errors
from seline.errors import InvalidRequest, OutcomeUnknown, SelineError, StoreClosed
from seline.http import PREFIX

CONNECT_S: Final = 10.0
RESPONSE_S: Final = 600.0
RETRY_S: Final = 0.1
PIECE_BYTES: Final = 1 << 16
_ERRORS: Final[Mapping[str, type[SelineError]]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SelineError)
}
_OF_EVERY_PROBLEM: Final = frozenset(
    {"type", "title", "status", "detail", "code", "hint", "message", "self"}
)
"""The members of a problem that are no details of its error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the API listens: a base URL, or a Unix socket.

    `where` is its name for a person. `opened_here`: this process opened the store itself.
    """

    where: str
    base: str = "http://localhost"
    socket: str | None = None
    token: str | None = None
    opened_here: bool = False

    def session(self) -> aiohttp.ClientSession:
        """Return a session that opens a connection for each request."""
        connector = (
            aiohttp.TCPConnector(force_close=True)
            if self.socket is None
            else aiohttp.UnixConnector(path=self.socket, force_close=True)
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=RESPONSE_S)
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)


class Api:
    """The admin API at an endpoint; closed by its maker.

    `find_again` returns the next endpoint after another process's socket stops accepting, or after
    `release`, which closes a store that this process opened.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        find_again: Callable[[], Awaitable[Endpoint]] | None = None,
        release: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._find_again = find_again
        self._release = release
        self._session = endpoint.session()

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()

    @asynccontextmanager
    async def released(self) -> AsyncGenerator[None]:
        """Close a store that this process opened, for the block: another process may open it."""
        if not self.endpoint.opened_here or self._release is None:
            yield
            return
        await self._release()
        yield
        await self._find_endpoint()

    async def request(
        self,
        method: str,
        path: str,
        *names: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send one request and return the JSON value of the response, None for an empty one.

        Each `{}` of the path takes one of `names`. `body` is a JSON value, or a binary file that is
        sent from its start, piece by piece.
        """
        request = self.stream(method, path, *names, query=query, body=body, headers=headers)
        async with request as response:
            data = await response.read()
        return json.loads(data) if data else None

    async def get(self, path: str, *names: str) -> Any:
        """Return the JSON value at a path."""
        return await self.request("GET", path, *names)

    async def read(self, path: str, *names: str) -> bytes:
        """Return the bytes at a path."""
        async with self.stream("GET", path, *names) as response:
            return await response.read()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *names: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send one request; the block reads the response's body."""
        target = PREFIX + path.format(*map(_segment, names))
        sent = dict(headers or {})
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        if isinstance(body, io.IOBase):
            sent["Content-Length"] = str(body.seek(0, io.SEEK_END))
        with self._connection_errors(changes=method != "GET"):
            response = await self._send(method, target, body, params=query, headers=sent)
            try:
                yield response
            finally:
                response.close()

    async def _send(
        self, method: str, target: str, body: object, *, headers: dict[str, str], **options: Any
    ) -> aiohttp.ClientResponse:
        """Return the response; send the request again where it was certainly not carried out."""
        while True:
            url = URL(f"{self.endpoint.base}{target}", encoded=True)
            try:
                data = _payload(body, headers)
                response = await self._session.request(
                    method, url, data=data, headers=headers, allow_redirects=False, **options
                )
                if response.status < HTTPStatus.MULTIPLE_CHOICES:
                    return response
                raise error_of(response.status, await response.read(), self.endpoint.where)
            except (aiohttp.ClientConnectorError, StoreClosed):
                if not await self._reconnect():
                    raise

    async def _reconnect(self) -> bool:
        """Find the endpoint again; False for an address, or a store that this process opened."""
        if self._find_again is None or self.endpoint.socket is None or self.endpoint.opened_here:
            return False
        await asyncio.sleep(RETRY_S)
        await self._find_endpoint()
        return True

    async def _find_endpoint(self) -> None:
        assert self._find_again is not None
        self.endpoint = await self._find_again()
        await self._session.close()
        self._session = self.endpoint.session()

    @contextmanager
    def _connection_errors(self, *, changes: bool) -> Generator[None]:
        """Turn a connection's error into a SelineError that names the request's outcome."""
        where = self.endpoint.where
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            raise SelineError(
                f"Nothing answers at {where}: {error.strerror or error}.",
                hint="Check the address, and that the server runs there.",
            ) from error
        except BrokenPipeError:
            raise  # the reader of the caller's own output
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            if isinstance(error.__cause__, InvalidRequest):
                raise error.__cause__ from None  # the body could not be sent whole
            message = f"The connection to {where} broke: {str(error) or type(error).__name__}."
            if changes:
                hint = "The change may have been made: look before you repeat it."
                raise OutcomeUnknown(message, hint=hint) from error
            hint = "What was received is incomplete: do not use it; try again."
            raise SelineError(message, hint=hint) from error


def error_of(status: int, data: bytes, where: str) -> SelineError:
    """Return the error that a response describes (RFC 9457).

    A code of a newer server becomes a plain SelineError, as does a response that is not Seline's.
    """
    try:
        problem = json.loads(data)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        moved = " (a redirect: use the address it leads to)" if status < 400 else ""
        return SelineError(
            f"{where} answered {status}{moved}, and not as Seline does.",
            hint="Check that the address is Seline's own, https:// included, and any proxy before "
            "it.",
        )
    message = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    kind = _ERRORS.get(str(problem["code"]), SelineError)
    details = {name: value for name, value in problem.items() if name not in _OF_EVERY_PROBLEM}
    return kind(message, hint=str(problem.get("hint") or ""), **details)


def _payload(body: object, headers: Mapping[str, str]) -> AsyncIterator[bytes] | bytes | None:
    if isinstance(body, io.IOBase):
        return _pieces(body, int(headers["Content-Length"]))
    return None if body is None else json.dumps(body).encode()


async def _pieces(file: io.IOBase, size_bytes: int) -> AsyncGenerator[bytes]:
    """Yield a file; seek for each piece, because an earlier attempt may still be reading.

    Raises InvalidRequest for a file that has become shorter: the server would wait for the rest.
    """
    for offset in range(0, size_bytes, PIECE_BYTES):
        file.seek(offset)
        wanted_bytes = min(PIECE_BYTES, size_bytes - offset)
        piece = file.read(wanted_bytes)
        if len(piece) < wanted_bytes:
            raise InvalidRequest(
                "The body became shorter while it was sent. Nothing was changed.",
                hint="Send it again once no other process writes it.",
            )
        yield piece


def _segment(name: str) -> str:
    """Return a name as one segment of a path. Raises InvalidRequest for dots alone."""
    if name.strip(".") == "":
        raise InvalidRequest(f"{name!r} is not a name.", hint="List the names, then copy one.")
    return quote(name, safe="")
