"""Azurite, Microsoft's emulator of Azure Storage, on loopback: it checks keys and tokens.

npm installs it once, under `.prove/`.
"""

import atexit
import base64
import datetime as dt
import hashlib
import hmac
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import pytest
from yarl import URL

from tests.destinations.real_server import RealServer, free_port, program
from tests.installing import installing

VERSION: Final = "3.35.0"
ACCOUNT: Final = "devstoreaccount1"
KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""Of Azurite's documentation: the same everywhere."""
_API: Final = "2021-12-02"


_SERVERS: Final[list[RealServer]] = []
_CONTAINERS: Final = count(1)


@asynccontextmanager
async def azurite() -> AsyncIterator[dict[str, Any]]:
    """Yield the table of a destination in an empty container; one process serves all tests."""
    if not _SERVERS:
        await _start()
    endpoint = f"http://127.0.0.1:{_SERVERS[0].port}/{ACCOUNT}"
    container = f"copies-{next(_CONTAINERS)}"
    url = URL(f"{endpoint}/{container}?restype=container&{sas_token('cd')}", encoded=True)
    async with aiohttp.ClientSession() as session:
        async with session.put(url) as answer:
            assert answer.status == 201, await answer.text()
        yield {
            "name": "nas",
            "url": f"az://{container}/prefix",
            "endpoint": endpoint,
            "account": ACCOUNT,
            "account_key": KEY,
        }
        async with session.delete(url) as answer:
            assert answer.status == 202, await answer.text()


async def _start() -> None:
    """Start Azurite; it ends with this process."""
    node, script, port = program("node"), _installed(), free_port()
    home = Path(mkdtemp(prefix="azurite-"))
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
    quiet = ["--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    server = RealServer([node, script, *options, *quiet], port, home / "files")
    atexit.register(shutil.rmtree, home)
    atexit.register(server.kill)
    await server.start()
    _SERVERS.append(server)


def sas_token(rights: str, *, key: str = KEY, hours: float = 1) -> str:
    """Return a token for the account with these rights, such as `rl`, for some hours."""
    now = dt.datetime.now(dt.UTC)
    end = (now + dt.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    signed = [ACCOUNT, rights, "b", "sco", "", end, "", "", _API, "", ""]
    made = hmac.new(base64.b64decode(key), "\n".join(signed).encode(), hashlib.sha256).digest()
    fields = {"sv": _API, "ss": "b", "srt": "sco", "sp": rights, "se": end}
    return urlencode({**fields, "sig": base64.b64encode(made).decode()}, quote_via=quote)


def _installed() -> str:
    """Return Azurite's program; skip where npm cannot install it."""
    with installing() as installed:
        folder = installed / f"azurite-{VERSION}"
        script = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        if not script.exists():
            folder.mkdir(exist_ok=True)
            npm = [program("npm"), "install", "--silent", "--no-audit", "--no-fund", "--prefix"]
            if subprocess.run([*npm, folder, f"azurite@{VERSION}"], check=False).returncode != 0:
                pytest.skip(f"npm cannot install azurite {VERSION}")
    return str(script)
