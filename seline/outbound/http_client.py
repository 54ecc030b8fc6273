"""Send one bounded HTTP request to another service, and report the outcome without secrets.

Addresses and tokens are secrets (Telegram's token is part of its address), so no exception leaves
this module and no outcome contains one. Redirects are not followed: they would forward the secret.

A proxy is used as the environment sets it: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.
"""

import asyncio
import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from seline.clock import Clock, in_utc
from seline.domain.document import Json
from seline.ports.alerts import Delivery

CONNECT_S: Final = 5.0
READ_S: Final = 10.0
TOTAL_S: Final = 15.0
TIMEOUT: Final = aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S, sock_read=READ_S)
ANSWER_BYTES_MAX: Final = 64 << 10
REASON_CHARACTERS_MAX: Final = 200
REFUSALS: Final = frozenset({400, 413, 415, 422})
"""The statuses with which a service refuses this request for good."""


def open_session(timeout: aiohttp.ClientTimeout = TIMEOUT) -> aiohttp.ClientSession:
    """Return a session for all sinks. The caller closes it."""
    return aiohttp.ClientSession(
        timeout=timeout, headers={"User-Agent": "seline"}, cookie_jar=aiohttp.DummyCookieJar()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request, and how to read its answer.

    With a `payload` it is a POST of JSON, else a GET. `secrets` are masked in the outcome. The last
    three are paths into a JSON answer: `confirmation` must be true for a success, `reason` is the
    service's own error text, `retry_after` a number of seconds.
    """

    url: str = field(repr=False)
    payload: Json = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    confirmation: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    retry_after: tuple[str, ...] = ()


async def deliver(
    session: aiohttp.ClientSession, request: HttpRequest, *, sink: str, kind: str
) -> Delivery:
    """Send a request once. Every failure is an outcome; raises only on cancellation."""
    started_s = time.monotonic()
    failed = Delivery(sink=sink, kind=kind, delivered=False)
    proxy = proxy_for(request.url)
    try:
        delivery = await _exchange(session, request, failed, proxy)
    except Exception as error:  # noqa: BLE001  # the border: an error's own text holds the address
        delivery = replace(failed, detail=reason_of(error, proxy))
    return replace(delivery, took_ms=round((time.monotonic() - started_s) * 1000, 1))


async def _exchange(
    session: aiohttp.ClientSession, request: HttpRequest, failed: Delivery, proxy: str | None
) -> Delivery:
    method, data, headers = "GET", None, dict(request.headers)
    if request.payload is not None:
        # "replace": a path that is not UTF-8 holds surrogates, which UTF-8 cannot encode
        data = json.dumps(request.payload, ensure_ascii=False).encode(errors="replace")
        method, headers["Content-Type"] = "POST", "application/json; charset=utf-8"
    async with session.request(
        method, request.url, data=data, headers=headers, proxy=proxy, allow_redirects=False
    ) as response:
        answer = await _read_json(response)
        status, retry_after = response.status, response.headers.get("Retry-After", "")
    confirmed = not request.confirmation or _field(answer, request.confirmation) is True
    if status in range(200, 300) and confirmed:
        return replace(failed, delivered=True)
    return replace(
        failed,
        detail=_refusal(request, status, answer),
        retry_after_s=_seconds(_field(answer, request.retry_after)) or _retry_after_s(retry_after),
        refused=status in REFUSALS,
    )


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment sets for an address, None for none.

    aiohttp's own `trust_env` also reads `~/.netrc`, and would send its logins to a sink.
    """
    proxies, parts = getproxies(), urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


class AnswerTooLong(aiohttp.ClientPayloadError):
    """An answer has more bytes than the caller takes."""


async def read_bounded(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """Return the body of an answer. Raises AnswerTooLong for one of more than `bytes_max`."""
    if (response.content_length or 0) > bytes_max:
        raise AnswerTooLong
    pieces: list[bytes] = []
    size_bytes = 0
    async for piece in response.content.iter_any():
        size_bytes += len(piece)
        if size_bytes > bytes_max:
            raise AnswerTooLong
        pieces.append(piece)
    return b"".join(pieces)


async def _read_json(response: aiohttp.ClientResponse) -> Json:
    """Read a bounded part of the answer; return None if it is not JSON."""
    data = b""
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > ANSWER_BYTES_MAX:
            break
    try:
        return cast("Json", json.loads(data))
    except (ValueError, RecursionError):
        return None


def _refusal(request: HttpRequest, status: int, answer: Json) -> str:
    """Return why a service refuses, in its own words without secrets, if it gives any."""
    detail = f"it answered {status}"
    if status in range(300, 400):
        detail += ", a redirect: use the address it leads to"
    reason = _field(answer, request.reason)
    masked = _masked(reason, request.secrets) if isinstance(reason, str) else ""
    return f"{detail} ({masked[:REASON_CHARACTERS_MAX]})" if masked else detail


def _field(value: Json, path: tuple[str, ...]) -> Json:
    """Return a field of a JSON object, None if it is missing or the path is empty."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if path else None


def _seconds(value: Json) -> float | None:
    """Return a number of seconds, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _retry_after_s(header: str) -> float | None:
    """Read `Retry-After`: seconds or an HTTP date (RFC 9110)."""
    try:
        return float(header)
    except ValueError:
        pass
    try:
        instant = in_utc(parsedate_to_datetime(header))
    except ValueError:
        return None
    return max(0.0, (instant - Clock().now()).total_seconds())


def _masked(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "********")
    return " ".join(text.split())


def reason_of(error: Exception, proxy: str | None) -> str:
    """Describe an error without its own text."""
    if proxy is not None and not proxy.startswith(("http://", "https://")):
        return "the proxy that the environment sets is not an http:// address"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy that the environment sets answered {error.status}"
    unreached = (aiohttp.ClientProxyConnectionError, aiohttp.ClientConnectorDNSError)
    if proxy is not None and isinstance(error, unreached):
        return "the proxy that the environment sets cannot be reached"
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    if isinstance(error, aiohttp.ClientConnectorError):
        number = cast("Any", error.os_error).errno or 0
        return f"cannot connect: {os.strerror(number)}" if number > 0 else "cannot connect"
    if isinstance(error, aiohttp.ClientOSError):
        return "the connection was lost"
    return f"the request failed ({type(error).__name__})"


_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ConnectionTimeoutError, f"no connection within {CONNECT_S:.0f} s"),
    (aiohttp.ServerTimeoutError, f"no answer within {READ_S:.0f} s"),
    (asyncio.TimeoutError, f"no answer within {TOTAL_S:.0f} s"),
    (aiohttp.ClientConnectorDNSError, "its host name is not known"),
    (aiohttp.ClientConnectorCertificateError, "its certificate is not valid"),
    (aiohttp.ClientSSLError, "no secure connection can be made"),
    (ssl.SSLError, "no secure connection can be made"),
    (aiohttp.ServerDisconnectedError, "it closed the connection without an answer"),
    (aiohttp.ClientPayloadError, "its answer is cut off or too long"),
    (aiohttp.InvalidURL, "its address cannot be used"),
)
