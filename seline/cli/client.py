"""The admin API as a client sees it: one `request` and one `stream`, whatever lies between.

An error answer becomes a `Problem` with the server's code, message and hint. Every request has a
connection of its own, so that one which was refused was certainly not carried out.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol, cast
from urllib.parse import quote

import aiohttp
from yarl import URL

from seline.cli.problem import Problem
from seline.cli.verbs import GlobalOptions
from seline.domain.document import check_document_name
from seline.errors import (
    InvalidRequest,
    MethodNotAllowed,
    OutcomeUnknown,
    RequestTooLarge,
    RouteNotFound,
    StoreClosed,
    TooManyRequests,
    Unauthorized,
)
from seline.settings import Settings

PREFIX: Final = "/api/v1/data-admin"
CONNECT_S: Final = 10.0
ANSWER_S: Final = 600.0
_PIECE_BYTES: Final = 1 << 16
_NOT_KNOWN_THERE: Final = (
    "SELINE_TOKEN (else SELINE_ADMIN_TOKEN) holds the token that was sent: copy the right one, or "
    "make one on the server's machine with `seline token create`."
)
_HINTS: Final[Mapping[str, tuple[str, str]]] = {
    kind.code: (kind.hint, here)
    for kind, here in (
        (
            Unauthorized,
            "Set SELINE_TOKEN to a token; `seline token create` on the server's machine makes one.",
        ),
        (TooManyRequests, "Wait a minute, then try again; a valid token is accepted at any time."),
        (InvalidRequest, "Mend what is named; the verb's --help shows what it takes."),
        (
            RequestTooLarge,
            "Split it into several documents, or raise `storage.document_bytes_max`.",
        ),
        (RouteNotFound, "Check --url, and that the server there is no older Seline."),
        (MethodNotAllowed, "Check --url, and that the server there is no older Seline."),
    )
}
"""For each code the hint that speaks of HTTP, and what to do at the command line instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResponse:
    """What the server answered, already known to be no error."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    def value(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.data)

    @property
    def revision(self) -> str:
        return self.headers.get("ETag", "").strip('"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where the API is: an address, or a socket; `where` names it for people."""

    where: str
    base: str
    socket: str | None = None
    token: str | None = None
    alone: bool = False

    def connector(self) -> aiohttp.BaseConnector:
        """Return what opens connections to it."""
        if self.socket is not None:
            return aiohttp.UnixConnector(path=self.socket, force_close=True)
        return aiohttp.TCPConnector(force_close=True)


class Way(Protocol):
    """A door that stands open, and may have to be found again while a verb runs."""

    session: aiohttp.ClientSession
    door: Door

    async def found_again(self) -> bool:
        """Find the door again after it shut: the holder ended, or another one came."""
        ...

    def has_said(self, message: str) -> bool:
        """Whether the store, opened for this command, has said these words already."""
        ...


class Api:
    """The admin API through an open door. `asked` and `settings` are the verb's own."""

    def __init__(self, way: Way, options: GlobalOptions, settings: Settings) -> None:
        self._way = way
        self.options = options
        self.settings = settings

    @property
    def door(self) -> Door:
        return self._way.door

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> ApiResponse:
        """Send one request and return its answer. `body` is bytes as they are, or a JSON value."""
        async with self.stream(method, path, query=query, body=body, headers=headers) as response:
            data = await response.read()
            return ApiResponse(status=response.status, headers=response.headers, data=data)

    async def get(self, path: str, **query: str) -> Any:
        """Return the JSON value at a path."""
        return (await self.request("GET", path, query=query)).value()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send one request; the block reads the answer. Raises Problem for an error answer."""
        asking = f"{PREFIX}{path}{query_text(query or {})}"
        sent = dict(headers or {})
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with self._in_plain_words(changes=method != "GET"):
            response = await self._answered(method, asking, data, sent)
            try:
                yield response
            finally:
                response.close()

    async def _answered(
        self, method: str, asking: str, data: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Return the answer, no error one; what a shut door did not take is sent once more."""
        while True:
            url = URL(f"{self.door.base}{asking}", encoded=True)
            try:
                response = await self._way.session.request(
                    method, url, data=data, headers=headers, allow_redirects=False
                )
            except aiohttp.ClientConnectorError:
                if await self._way.found_again():
                    continue
                raise
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return response
            problem = problem_of(response.status, await response.read(), self.door.where)
            problem.hint = self._hint(problem)
            problem.is_told = self._way.has_said(problem.message)
            if problem.code != StoreClosed.code or not await self._way.found_again():
                raise problem

    def _hint(self, problem: Problem) -> str:
        """Return the next step at the command line, where the server named one for HTTP."""
        if problem.code == Unauthorized.code and self.door.token is not None:
            return _NOT_KNOWN_THERE
        general, here = _HINTS.get(problem.code, ("", ""))
        return here if general and problem.hint == general else problem.hint

    @contextmanager
    def _in_plain_words(self, *, changes: bool) -> Generator[None]:
        """Say what a broken connection means for what was asked."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            raise Problem(
                f"Nobody answers at {self.door.where}: {error.strerror or error}.",
                "Check the address, and that the server runs there.",
            ) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            if isinstance(error, BrokenPipeError):
                raise  # our own reader went away, not the server
            raise self._cut_off(error, changes=changes) from error

    def _cut_off(self, error: Exception, *, changes: bool) -> Problem:
        why = str(error) or type(error).__name__
        message = f"The connection to {self.door.where} broke off: {why}."
        if changes:
            hint = "Look before you repeat it: it may have been done all the same."
            return Problem(message, hint, code=OutcomeUnknown.code)
        return Problem(message, "What was received is not whole: do not use it; try again.")


async def pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body as it comes."""
    async for piece in response.content.iter_chunked(_PIECE_BYTES):
        yield piece


def problem_of(status: int, data: bytes, where: str) -> Problem:
    """Read an error answer (RFC 9457); one that is none comes from something in between."""
    try:
        told = json.loads(data)
    except ValueError:
        told = None
    if not isinstance(told, dict) or "code" not in told:
        moved = " (a redirect: use the address it leads to)" if status < 400 else ""
        return Problem(
            f"{where} answered {status}{moved}, and not as Seline does.",
            "Check that the address is Seline's own, https:// included, and what stands before it.",
        )
    known = cast("dict[str, Any]", told)
    message = str(known.get("detail") or known.get("title") or f"HTTP {status}")
    hint = str(known.get("hint") or "")
    return Problem(message, hint, code=str(known["code"]), details=known)


def query_text(query: Mapping[str, str]) -> str:
    """Return a query with its `?`, empty where there is none."""
    pairs = (f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query.items())
    return f"?{text}" if (text := "&".join(pairs)) else ""


def document_path(name: str, *rest: str) -> str:
    """Return a document's path. Raises InvalidDocumentName."""
    return "/".join(("/documents", check_document_name(name), *map(segment, rest)))


def segment(text: str) -> str:
    """Return text as one segment of a path."""
    if text.strip(".") == "":
        raise Problem(
            f"{text!r} is no name.", "List the names first, then copy one.", code="invalid_request"
        )
    return quote(text, safe="")
