"""Who may call: the token is checked before body, name and route, then host and origin.

The control socket has mode 0600 in a directory of mode 0700, so its callers are admins. Every call
that may change something is a line in the audit log.
"""

import ipaddress
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from seline.access.tokens import Scope
from seline.errors import Forbidden, InvalidRequest, RouteNotFound
from seline.http import PREFIX
from seline.http.context import app_value, context, is_control
from seline.http.metrics import REQUESTS, method_label
from seline.http.polling import unless_known
from seline.http.requests import check_coding, check_conditions, check_query
from seline.http.routes import Route
from seline.logs import OncePerMinute, logged_fields, logged_with
from seline.manager.call_record import recorded
from seline.settings import Settings

ROUTE = web.AppKey("routes", dict[tuple[str, str], Route])
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
PATH_LOGGED_MAX: Final = 200
_QUIET: Final = frozenset({"/livez", "/readyz", "/metrics"})
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BRACKETED: Final = re.compile(r"\[([^\]]+)\](?::[0-9]*)?")
_SAFE: Final = frozenset({"GET", "HEAD"})
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_log = logging.getLogger("seline.http")
_refusals = logging.getLogger("seline.http.refusals")
_refusals.addFilter(OncePerMinute())
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def access(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Authenticate a request, or refuse it, before its body is read."""
    route = _route_of(request)
    if _is_open(request, route):
        return await handler(request)
    check_browser(request)
    who = _authenticate(request, route)
    unavailable = context(request).unavailable()
    if unavailable is not None and not (route is not None and route.answers(unavailable)):
        raise unavailable
    if route is not None:
        check_query(request, route.query)
        check_coding(request)
    if request.method in _SAFE:
        response = await handler(request)
        is_polled = route is not None and route.is_polled
        return unless_known(request, response) if is_polled else response
    if route is not None:
        check_conditions(request, is_judged=route.is_conditional)
    return await audited(request, handler, who)


@web.middleware
async def traced(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Log each request; all of its log lines have the caller's request id, else a new one."""
    request_id = request_id_of(request)
    resource = request.match_info.route.resource
    path = "unknown" if resource is None else resource.canonical
    started_s = time.monotonic()
    with logged_with(request_id=request_id):
        response = await handler(request)
        if not response.prepared:
            response.headers["X-Request-Id"] = request_id
        app_value(request, REQUESTS)[path, method_label(request), response.status] += 1
        took_ms = round((time.monotonic() - started_s) * 1000, 1)
        logger = _refusals if response.status == HTTPStatus.TOO_MANY_REQUESTS else _log
        logger.log(
            logging.DEBUG if _is_quiet(request, path, response) else logging.INFO,
            "%s %s %d",
            request.method,
            request.path[:PATH_LOGGED_MAX],
            response.status,
            extra={"route": path, "took_ms": took_ms},
        )
    return response


def request_id_of(request: web.BaseRequest) -> str:
    """Return the caller's id of a request, else a new one."""
    given = request.headers.get("X-Request-Id")
    if given is not None and _PLAIN_ID.fullmatch(given):
        return given
    return f"{random.getrandbits(64):016x}"


def _is_quiet(request: web.Request, path: str, response: web.StreamResponse) -> bool:
    """Whether it was a read, a probe, a command here, or for an address that is not served.

    The metrics count reads, and a line costs as much processor time as the read.
    """
    is_read = request.method in _SAFE and response.status < HTTPStatus.BAD_REQUEST
    is_stray = path == "unknown" and response.status == HTTPStatus.NOT_FOUND
    return is_read or path in _QUIET or is_stray or is_control(request)


def _is_open(request: web.Request, route: Route | None) -> bool:
    if route is None:
        return not request.path.startswith(PREFIX)
    return route.scope == "open" or (
        route.path == "/metrics" and context(request).settings.server.metrics_open
    )


async def set_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers with which browsers neither frame nor cache; of a stream, also its id."""
    headers, request_id = response.headers, logged_fields().get("request_id")
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if request_id is not None:
        headers["X-Request-Id"] = request_id
    headers.pop("Server", None)


def _route_of(request: web.Request) -> Route | None:
    resource = request.match_info.route.resource
    if resource is None:
        return None
    method = "GET" if request.method == "HEAD" else request.method
    return app_value(request, ROUTE).get((method, resource.canonical))


def _authenticate(request: web.Request, route: Route | None) -> str:
    """Return who calls, for the audit log."""
    if is_control(request):
        return "control socket"
    refuse_token_in_address(request)
    needs: Scope = "read" if route is not None and route.scope == "read" else "admin"
    who = context(request).tokens.authenticate(
        bearer_of(request), client=client_of(request), needs=needs
    )
    if route is not None and route.scope == "control":
        raise RouteNotFound(
            f"{request.path} is answered on the server's own machine alone, on its control socket.",
            hint="On the machine itself: `seline token list` beside the server; "
            "on Railway: `railway ssh` first.",
        )
    return who


def refuse_token_in_address(request: web.Request) -> None:
    """Raise InvalidRequest for a token in an address."""
    if "token" in request.query or "access_token" in request.query:
        raise InvalidRequest(
            "A token must not be in an address, because addresses are logged.",
            hint="Send it as `Authorization: Bearer …`, and revoke this one.",
        )


def bearer_of(request: web.BaseRequest) -> str | None:
    """Return the token in the header `Authorization`, None without one."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def client_of(request: web.Request) -> str:
    """Return the client's address: the one that the nearest proxy saw, if it is trusted.

    That is the last of all lines of the header; a client can write only those before it.
    """
    server, remote = context(request).settings.server, request.remote or "unknown"
    if not server.trust_proxy:
        return remote
    seen = request.headers.getall(server.client_header, [])
    return _address(",".join(seen).rpartition(",")[2].strip()) or remote


def _address(text: str) -> str | None:
    """Return an address without its port and brackets, None if it is not one."""
    bracketed = _BRACKETED.fullmatch(text)
    host = bracketed[1] if bracketed else text.partition(":")[0] if text.count(":") == 1 else text
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def check_browser(request: web.Request) -> None:
    """Refuse pages of other sites, and DNS names that point to this machine."""
    if is_control(request):
        return
    named_host = request.headers.get("Host", "")
    if not is_own_name(named_host, context(request).settings):
        named, port = repr(str(_host_of(named_host))[:100]), _port_of(request)
        raise Forbidden(
            f"This server does not answer to the name {named}.",
            hint=f"Call it as http://127.0.0.1:{port} on its own machine, or add the name to "
            "`server.allowed_hosts` (behind a proxy: the name that the clients use).",
        )
    origin = request.headers.get("Origin")
    if origin is not None and _site_of(origin) != request.headers.get("Host"):
        raise Forbidden(
            "Pages of other sites may not call this API.", hint="Call it from a program."
        )


def is_own_name(host_and_port: str, settings: Settings) -> bool:
    """Whether the server answers to what a `Host` header names."""
    allowed = settings.server.allowed_hosts
    if settings.bind_is_public and not allowed:
        return True
    host = _host_of(host_and_port)
    return host in _LOOPBACK or host in allowed


def _port_of(request: web.Request) -> int:
    """Return the port of this server that was called, 0 if the client has gone."""
    port: int = request.get_extra_info("sockname", ("", 0))[1]
    return port


@lru_cache(maxsize=64)
def _host_of(host_and_port: str) -> str | None:
    """Return the host of a `Host` header, None if the header is not valid."""
    try:
        return urlsplit(f"//{host_and_port}").hostname
    except ValueError:
        return None


def _site_of(origin: str) -> str | None:
    """Return host and port of an `Origin` header, None if the header is not valid."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def audited(request: web.Request, handler: _Handler, who: str) -> web.StreamResponse:
    """Answer a request, and write who called, what it changed, and the outcome to the audit log."""
    query = f"?{request.query_string}" if request.query_string else ""
    outcome, what = "failed", f"{request.method} {request.path}{query}"
    with recorded() as record:
        try:
            response = await handler(request)
            outcome = str(response.status)
            return response
        except Exception as error:
            outcome = str(getattr(error, "code", type(error).__name__))
            raise
        finally:
            context(request).audit.append(who=who, what=what, outcome=outcome, record=record)
