"""One request to a service elsewhere, within bounds, and what became of it in harmless words.

Addresses and tokens are secrets (Telegram's token is in its address): no exception leaves this
file, and no answer carries one. Redirects are not followed: they would carry the secret elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast

import aiohttp

from seline.domain.document import Json
from seline.ports.alerts import Delivery

CONNECT_S: Final = 5.0
READ_S: Final = 10.0
TOTAL_S: Final = 15.0
TIMEOUT: Final = aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S, sock_read=READ_S)
ANSWER_BYTES_MAX: Final = 64 << 10
SAID_CHARACTERS_MAX: Final = 200
SUCCESS: Final = range(200, 300)
REFUSALS: Final = frozenset({400, 413, 415, 422})
"""The statuses that mean: not this alert, ever."""


def open_session(timeout: aiohttp.ClientTimeout = TIMEOUT) -> aiohttp.ClientSession:
    """Return the session that every sink shares; whoever opens it closes it."""
    return aiohttp.ClientSession(
        timeout=timeout,
        headers={"User-Agent": "seline"},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """What the other side answered: its status, its headers' wish, and its body if it is JSON."""

    status: int
    retry_after_s: float | None
    value: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Whom a delivery is for. `secrets` are never repeated, whatever the other side echoes."""

    sink: str
    kind: str
    secrets: tuple[str, ...] = ()


async def post(
    session: aiohttp.ClientSession,
    url: str,
    payload: Json,
    envelope: Recipient,
    *,
    headers: Mapping[str, str] | None = None,
    said: Callable[[Json], str] = lambda _: "",
    patience: Callable[[Json], float | None] = lambda _: None,
    accepted: Callable[[Json], bool] = lambda _: True,
) -> Delivery:
    """Send JSON once. `said`, `patience` and `accepted` read the service's own answer body.

    `said`: why it failed; `patience`: how many seconds it asks to wait; `accepted`: whether a
    success is one.
    """
    started_s = time.monotonic()
    try:
        answer = await _answer(session, url, payload, headers or {})
    except Exception as error:  # noqa: BLE001  # the border: an error's own text holds the address
        delivery = _failed(envelope, _why(error))
    else:
        delivery = _judged(answer, envelope, said=said, patience=patience, accepted=accepted)
    return replace(delivery, took_ms=round((time.monotonic() - started_s) * 1000, 1))


async def ping(session: aiohttp.ClientSession, url: str, envelope: Recipient) -> Delivery:
    """Ask for an address once; every success is one."""
    started_s = time.monotonic()
    try:
        async with session.get(url, allow_redirects=False) as response:
            answer = await _read(response)
    except Exception as error:  # noqa: BLE001  # the border: an error's own text holds the address
        delivery = _failed(envelope, _why(error))
    else:
        delivery = _judged(answer, envelope)
    return replace(delivery, took_ms=round((time.monotonic() - started_s) * 1000, 1))


def field_of(value: Json, *path: str) -> Json:
    """Return a field of an answer, None where it is not there."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def seconds(value: Json) -> float | None:
    """Return a number of seconds, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


async def _answer(
    session: aiohttp.ClientSession, url: str, payload: Json, headers: Mapping[str, str]
) -> HttpReply:
    sent = {"Content-Type": "application/json; charset=utf-8", **headers}
    data = json.dumps(payload, ensure_ascii=False).encode(errors="replace")
    async with session.post(url, data=data, headers=sent, allow_redirects=False) as response:
        return await _read(response)


async def _read(response: aiohttp.ClientResponse) -> HttpReply:
    """Read an answer, and no more of it than can matter."""
    data = b""
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > ANSWER_BYTES_MAX:
            break
    try:
        value: Json = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    retry_after_s = _retry_after(response.headers.get("Retry-After", ""))
    return HttpReply(status=response.status, retry_after_s=retry_after_s, value=value)


def _retry_after(text: str) -> float | None:
    """Read `Retry-After`: seconds, or an HTTP date (RFC 9110)."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        instant = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def _judged(
    answer: HttpReply,
    envelope: Recipient,
    *,
    said: Callable[[Json], str] = lambda _: "",
    patience: Callable[[Json], float | None] = lambda _: None,
    accepted: Callable[[Json], bool] = lambda _: True,
) -> Delivery:
    if answer.status in SUCCESS and accepted(answer.value):
        return Delivery(sink=envelope.sink, kind=envelope.kind, delivered=True)
    words = _masked(said(answer.value), envelope.secrets)[:SAID_CHARACTERS_MAX]
    told = f"it answered {answer.status}"
    if answer.status in range(300, 400):
        told += ", a redirect: use the address it leads to"
    return replace(
        _failed(envelope, f"{told} ({words})" if words else told),
        retry_after_s=patience(answer.value) or answer.retry_after_s,
        refused=answer.status in REFUSALS,
    )


def _failed(envelope: Recipient, detail: str) -> Delivery:
    return Delivery(sink=envelope.sink, kind=envelope.kind, delivered=False, detail=detail)


def _masked(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "********")
    return " ".join(text.split())


def _why(error: Exception) -> str:
    """Say what went wrong without the error's own text."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, aiohttp.ClientConnectorError):
        number = cast("Any", error.os_error).errno or 0
        return f"cannot connect: {os.strerror(number)}" if number > 0 else "cannot connect"
    return f"the request failed ({type(error).__name__})"


_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ConnectionTimeoutError, f"no connection within {CONNECT_S:.0f} s"),
    (aiohttp.ServerTimeoutError, f"no answer within {READ_S:.0f} s"),
    (asyncio.TimeoutError, f"no answer within {TOTAL_S:.0f} s"),
    (aiohttp.ClientConnectorDNSError, "its host name is not known"),
    (aiohttp.ClientConnectorCertificateError, "its certificate is not valid"),
    (aiohttp.ClientSSLError, "no secure connection can be made"),
    (ssl.SSLError, "no secure connection can be made"),
    (aiohttp.ServerDisconnectedError, "it closed the connection without an answer"),
    (aiohttp.InvalidURL, "its address cannot be used"),
)
