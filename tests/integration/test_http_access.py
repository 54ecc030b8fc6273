"""Test every route with every kind of token: the table says who is answered, and how not."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from seline.clock import Clock
from seline.http.routes import ROUTES, Route
from seline.server import Serving, serving
from tests.http_client import ADMIN, NAME, settings_for

ANSWERED: Final = 0
"""Any status but those that refuse the caller."""
REFUSED_FOR: Final = {
    "open": dict.fromkeys(("none", "read", "admin", "revoked", "expired", "settings"), ANSWERED),
    "read": {
        **dict.fromkeys(("none", "revoked", "expired"), 401),
        **dict.fromkeys(("read", "admin", "settings"), ANSWERED),
    },
    "admin": {
        **dict.fromkeys(("none", "revoked", "expired"), 401),
        **dict.fromkeys(("admin", "settings"), ANSWERED),
        "read": 403,
    },
    "control": {
        **dict.fromkeys(("none", "revoked", "expired"), 401),
        **dict.fromkeys(("admin", "settings"), 404),
        "read": 403,
    },
}


async def test_every_route_with_every_kind_of_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare each answer with the row of the route's scope."""
    settings = settings_for(tmp_path / "data", server__trust_proxy=True)
    async with serving(settings) as server, aiohttp.ClientSession() as session:
        await server.acquired()
        secrets = await _secrets(server)
        later = Clock().now() + timedelta(minutes=2)
        monkeypatch.setattr(Clock, "now", lambda _: later)
        addresses = _addresses()
        wrong = []
        for route in ROUTES:
            for token, expected in REFUSED_FOR[route.scope].items():
                body = b"{bad" if token == "none" else None  # the token is checked before it
                headers = {"X-Forwarded-For": next(addresses)}  # none has too many failures
                if token != "none":
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


def _addresses() -> Iterator[str]:
    return (f"10.0.{high}.{low}" for high in range(256) for low in range(1, 255))


def _path(route: Route) -> str:
    parts = {"name": NAME, "backup": "b", "item": "i", "id": "i", "job": "j", "destination": "d"}
    return route.path.format(**parts)
