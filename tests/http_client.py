"""Call a server in tests: its settings, and a client with its admin token."""

import json
from pathlib import Path
from typing import Any

import aiohttp

from seline.http import PREFIX
from seline.settings import load_settings
from tests.faults.forms import chosen

ADMIN = "an-admin-token-of-some-length"
NAME = "user_profile.json"


def settings_for(data_dir: Path, **arguments: object) -> Any:
    """Return settings of a server on a free loopback port; `a__b=1` sets `a.b`."""
    named: dict[str, object] = {
        "storage.data_dir": str(data_dir),
        "storage.settle_s": 0.2,
        "server.host": "127.0.0.1",
        "server.port": 0,
        "server.admin_token": ADMIN,
    }
    named.update({name.replace("__", "."): value for name, value in arguments.items()})
    return load_settings(environ=chosen(), arguments=named)


class Client:
    """Call one server with the admin token."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session = session
        self.base = address + PREFIX

    async def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, Any]:
        """Return the response's status, its body (decoded if it is JSON) and its headers."""
        request_headers = {"Authorization": f"Bearer {ADMIN}"}
        request_headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        if data is not None:
            request_headers.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, self.base + path, data=data, headers=request_headers
        ) as response:
            text = await response.read()
            try:
                return response.status, json.loads(text), response.headers
            except ValueError:
                return response.status, text, response.headers
