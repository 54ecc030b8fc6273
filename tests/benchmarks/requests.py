"""Requests over HTTP, beside a handler of aiohttp that returns the same bytes.

Both servers are processes of their own on loopback, and are asked in turn by this one, with a
protocol that does nothing but count answers.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from aiohttp import web

from seline.blocking import open_seline
from tests.benchmarks.printing import ROUNDS, print_measure
from tests.benchmarks.serving import serving

TOKEN = "a-token-of-the-benchmark"
CONNECTIONS = (1, 16, 64)
ROUND_S = 1.0
NAME = "profile.json"
VALUE = {"text": "x" * 1000}
BODY = json.dumps(VALUE, indent=2).encode()
PATH = f"/api/v1/data-admin/documents/{NAME}"
SPAWN = get_context("spawn")


def gets(here: Path) -> None:
    """Measure GET of a document of 1 KiB, with one connection and with many."""
    volume = here / "requests"
    with open_seline(volume) as seline:
        seline.data.save_json(NAME, VALUE)
    with serving(volume, SELINE_ADMIN_TOKEN=TOKEN) as server, _bare_server() as port:
        for connections in CONNECTIONS:
            rates: dict[int, list[float]] = {server.port: [], port: []}
            for asked in [server.port, port] * ROUNDS:
                rates[asked].append(asyncio.run(_rate(asked, [_get()] * connections)))
            ours, bare = (statistics.median(each) for each in rates.values())
            detail = f"{ours:,.0f} requests/s, the bare handler {bare:,.0f}"
            what = f"GET of 1 KiB / a bare handler: {connections} connections"
            print_measure(what, f"{ours / bare:.2f} ×", "≥ 0.6", detail)


def _get() -> bytes:
    return (
        f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    )


async def _rate(port: int, requests: list[bytes]) -> float:
    """Return the answers per second; each request has a connection, and is repeated on it."""
    loop = asyncio.get_running_loop()
    callers = [_Caller(request) for request in requests]
    for caller in callers:
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)
    started = time.perf_counter()
    before = sum(caller.answers for caller in callers)
    await asyncio.sleep(ROUND_S)
    answers = sum(caller.answers for caller in callers) - before
    taken_s = time.perf_counter() - started
    for caller in callers:
        caller.close()
    assert not any(caller.failed for caller in callers), next(
        caller.failed for caller in callers if caller.failed
    )
    return answers / taken_s


class _Caller(asyncio.Protocol):
    """Sends the same request again and again, each after the answer to the one before."""

    def __init__(self, request: bytes) -> None:
        self.answers = 0
        self.failed = b""
        self._request = request
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 20"):
            self.failed = self._received
        self._received = b""
        self.answers += 1
        assert self._transport is not None
        self._transport.write(self._request)

    def close(self) -> None:
        """Close the connection."""
        assert self._transport is not None
        self._transport.abort()


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))


@contextmanager
def _bare_server() -> Generator[int]:
    """Serve the same bytes with aiohttp alone; yield the port."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(theirs,))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join(20)
        process.kill()


def _serve(until_closed: Connection) -> None:
    asyncio.run(_serve_until(until_closed))


async def _serve_until(until_closed: Connection) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="application/json")

    app = web.Application()
    app.router.add_get(PATH, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    until_closed.send(runner.addresses[0][1])
    await asyncio.to_thread(until_closed.poll, None)
    await runner.cleanup()
