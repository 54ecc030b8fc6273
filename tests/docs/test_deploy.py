"""The advice of docs/deploy.md on a proxy, followed: its settings, and its lines for the proxy."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.command_line import Served, line_at, served
from tests.docs.blocks import blocks

HOST = "bot.example.org"


@asynccontextmanager
async def proxy(server: Served, client: list[str]) -> AsyncIterator[str]:
    """Forward each request of `client` to the server with the headers that the nginx block sets."""
    [lines] = blocks("docs/deploy.md", "nginx")
    given = dict(re.findall(r"proxy_set_header (\S+) (\S+);", lines))

    async def forward(request: web.Request) -> web.Response:
        before = request.headers.get("X-Forwarded-For")
        values = {
            "$host": request.host.partition(":")[0],
            "$proxy_add_x_forwarded_for": f"{before}, {client[0]}" if before else client[0],
        }
        headers = dict(request.headers) | {name: values[value] for name, value in given.items()}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{server.url}{request.path_qs}", headers=headers) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read())

    app = web.Application()
    app.router.add_get("/{any:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def environ() -> dict[str, str]:
    [lines] = [code for code in blocks("docs/deploy.md", "sh") if "TRUST_PROXY" in code]
    return dict(line.split("=", 1) for line in lines.split())


@pytest.mark.prove
async def test_the_proxy_advice_lets_a_client_in_and_tells_clients_apart(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    with served(line_at(tmp_path, **environ)) as server:
        client = ["203.0.113.7"]
        async with proxy(server, client) as front, aiohttp.ClientSession() as session:

            async def ask(token: str, host: str = HOST, **headers: str) -> tuple[int, str]:
                async with session.get(
                    f"{front}/api/v1/data-admin/health",
                    headers={"Host": host, "Authorization": f"Bearer {token}", **headers},
                ) as answer:
                    body = json.loads(await answer.read())
                    return answer.status, body.get("code", "")

            assert (await ask(server.token))[0] == 200
            assert (await ask(server.token, Origin=f"http://{HOST}"))[0] == 200
            assert (await ask(server.token, Origin="http://evil.example"))[0] == 403
            assert (await ask(server.token, host="evil.example"))[0] == 403
            for _ in range(11):
                last = await ask("wrong", **{"X-Forwarded-For": "198.51.100.1"})
            assert last == (429, "too_many_requests")
            client[0] = "203.0.113.8"
            assert await ask("wrong") == (401, "unauthorized")
