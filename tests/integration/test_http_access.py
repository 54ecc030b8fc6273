"""Test every route with every kind of token: the table says who is answered, and how not.

A session of the page is no token: the API does not take its cookie, with a form's token or without.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from seline.clock import Clock
from seline.http.routes import ROUTES, Route
from seline.page.gate import COOKIE
from seline.page.visit import csrf_of
from seline.server import Serving, serving
from tests.http_client import ADMIN, NAME, settings_for

ANSWERED: Final = 0
"""Any status but those that refuse the caller."""
SESSIONS: Final = ("session without its form token", "session with its form token")
NO_TOKEN: Final = ("none", "revoked", "expired", *SESSIONS)
REFUSED_FOR: Final = {
    "open": dict.fromkeys((*NO_TOKEN, "read", "admin", "settings"), ANSWERED),
    "read": {
        **dict.fromkeys(NO_TOKEN, 401),
        **dict.fromkeys(("read", "admin", "settings"), ANSWERED),
    },
    "admin": {
        **dict.fromkeys(NO_TOKEN, 401),
        **dict.fromkeys(("admin", "settings"), ANSWERED),
        "read": 403,
    },
    "control": {
        **dict.fromkeys(NO_TOKEN, 401),
        **dict.fromkeys(("admin", "settings"), 404),
        "read": 403,
    },
}


async def test_every_route_with_every_kind_of_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare each answer with the row of the route's scope."""
    settings = settings_for(tmp_path / "data", server__trust_proxy=True)
    jar = aiohttp.DummyCookieJar()
    async with serving(settings) as server, aiohttp.ClientSession(cookie_jar=jar) as session:
        await server.acquired()
        secrets = await _secrets(server)
        cookie = await _session_cookie(server)
        later = Clock().now() + timedelta(minutes=2)
        monkeypatch.setattr(Clock, "now", lambda _: later)
        addresses = _addresses()
        wrong = []
        for route in ROUTES:
            for token, expected in REFUSED_FOR[route.scope].items():
                body: bytes | None = b"{bad" if token == "none" else None  # it is checked before
                headers = {"X-Forwarded-For": next(addresses)}  # none has too many failures
                if token in SESSIONS:
                    headers["Cookie"] = f"{COOKIE}={cookie}"
                if token == SESSIONS[1]:
                    body = f"csrf={csrf_of(cookie)}".encode()
                    headers["Content-Type"] = "application/x-www-form-urlencoded"
                if token in secrets:
                    headers["Authorization"] = f"Bearer {secrets[token]}"
                url = server.address + _path(route)
                async with session.request(
                    route.method, url, headers=headers, data=body
                ) as response:
                    code = response.status
                    refused = code in (401, 403, 429)
                    problem = await response.json() if code == 404 else {}
                is_hidden = problem.get("code") == "route_not_found"
                got = code if refused or is_hidden else ANSWERED
                if got != expected:
                    wrong.append((route.method, route.path, token, code))

    assert not wrong


async def _secrets(server: Serving) -> dict[str, str]:
    """Return the secret of each kind of token."""
    tokens = server.tokens
    _, read = await tokens.create(scope="read")
    _, admin = await tokens.create(scope="admin")
    known, revoked = await tokens.create(scope="admin")
    await tokens.revoke(known.id)
    soon = Clock().now() + timedelta(minutes=1)
    _, expired = await tokens.create(scope="admin", expires_at=soon)
    return {"read": read, "admin": admin, "revoked": revoked, "expired": expired, "settings": ADMIN}


async def _session_cookie(server: Serving) -> str:
    """Return the cookie of a session of the page that may change everything."""
    grant = server.tokens.granted("SELINE_ADMIN_TOKEN")
    assert grant is not None
    _, cookie = await server.sessions.create(grant)
    assert await server.sessions.find(cookie) is not None
    return cookie


def _addresses() -> Iterator[str]:
    return (f"10.0.{high}.{low}" for high in range(256) for low in range(1, 255))


def _path(route: Route) -> str:
    parts = {"name": NAME, "backup": "b", "item": "i", "id": "i", "job": "j", "destination": "d"}
    return route.path.format(**parts)
