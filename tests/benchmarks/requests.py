"""Requests over HTTP: reads beside a handler of aiohttp that returns the same bytes, changes beside
the store without HTTP.

The servers are processes on loopback, and are asked in turn by this one, with a protocol that does
nothing but count answers.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

import seline
from seline.blocking import open_seline
from tests.benchmarks.printing import ROUNDS, print_measure
from tests.benchmarks.serving import processor_s, serving

TOKEN = "a-token-of-the-benchmark"
CONNECTIONS = (1, 16, 64)
ROUND_S = 1.0
NAME = "profile.json"
VALUES = [{"text": letter * 1000} for letter in "xy"]
VALUE = VALUES[0]
BODY = json.dumps(VALUE, indent=2).encode()
WRITERS = 64
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
                rates[asked].append(asyncio.run(_rate(asked, [[_get()]] * connections)))
            ours, bare = (statistics.median(each) for each in rates.values())
            detail = f"{ours:,.0f} requests/s, the bare handler {bare:,.0f}"
            what = f"GET of 1 KiB / a bare handler: {connections} connections"
            print_measure(what, f"{ours / bare:.2f} ×", "≥ 0.6", detail)


def puts(here: Path) -> None:
    """Measure PUT of documents of 1 KiB with many connections, each with its own document."""
    ours, store, bare, _ = puts_per_second(here)
    what = f"PUT of 1 KiB / the store itself: {WRITERS} writers"
    detail = f"{ours:,.0f} requests/s, the store {store:,.0f} saves/s"
    print_measure(what, f"{ours / store:.2f} ×", "≥ 0.5", detail)
    what = "the same / a bare handler that saves in the store"
    print_measure(what, f"{ours / bare:.2f} ×", "", f"the bare handler {bare:,.0f} requests/s")


class Puts(NamedTuple):
    """Changes per second: by PUT, by the store itself, by a bare handler that saves in it.

    `processor_us`: the processor time of the server for each PUT.
    """

    ours: float
    store: float
    bare: float
    processor_us: float


def puts_per_second(here: Path) -> Puts:
    """Return the medians of the rounds, in which each has a turn."""
    requests = [_puts(number) for number in range(WRITERS)]
    rates: tuple[list[float], ...] = [], [], [], []
    bare_server = _bare_server(here / "bare")
    with serving(here / "puts", SELINE_ADMIN_TOKEN=TOKEN) as server, bare_server as port:
        for _ in range(ROUNDS):
            used_s, began = processor_s(server.pid), time.perf_counter()
            rates[0].append(asyncio.run(_rate(server.port, requests)))
            share = (processor_s(server.pid) - used_s) / (time.perf_counter() - began)
            rates[3].append(share / rates[0][-1] * 1e6)
            rates[1].append(asyncio.run(_saves(here / "saved")))
            rates[2].append(asyncio.run(_rate(port, requests)))
    return Puts(*map(statistics.median, rates))


def _get() -> bytes:
    return _head("GET", PATH) + b"\r\n"


def _puts(number: int) -> list[bytes]:
    """Return requests that change one document each time."""
    head = _head("PUT", PATH.replace(NAME, f"d{number}.json"))
    bodies = [json.dumps(value).encode() for value in VALUES]
    return [head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


def _head(method: str, path: str) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    )


async def _saves(volume: Path) -> float:
    """Return the saves per second of a store in this process."""

    async def write(name: str) -> int:
        saved = 0
        while time.perf_counter() < until:
            await opened.data.save_json(name, VALUES[saved % 2])
            saved += 1
        return saved

    async with seline.open_seline(volume, lock_wait_s=0) as opened:
        started = time.perf_counter()
        until = started + ROUND_S
        saved = sum(await asyncio.gather(*(write(f"d{number}.json") for number in range(WRITERS))))
        return saved / (time.perf_counter() - started)


async def _rate(port: int, requests: Sequence[Sequence[bytes]]) -> float:
    """Return the answers per second; each connection sends its requests in turn, for ever."""
    loop = asyncio.get_running_loop()
    callers = [_Caller(each) for each in requests]
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
    """Sends its requests again and again, each after the answer to the one before."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self.answers = 0
        self.failed = b""
        self._requests = cycle(requests)
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(next(self._requests))

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
        self._transport.write(next(self._requests))

    def close(self) -> None:
        """Close the connection."""
        assert self._transport is not None
        self._transport.abort()


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))


@contextmanager
def _bare_server(volume: Path | None = None) -> Generator[int]:
    """Serve the same bytes with aiohttp alone, or save bodies in a `volume`; yield the port."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(theirs, volume))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join(20)
        process.kill()


def _serve(until_closed: Connection, volume: Path | None) -> None:
    asyncio.run(_serve_until(until_closed, volume))


async def _serve_until(until_closed: Connection, volume: Path | None) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="application/json")

    async def save(request: web.Request) -> web.Response:
        assert opened is not None
        await opened.data.save_json(request.match_info["name"], json.loads(await request.read()))
        return await answer(request)

    opened = None if volume is None else await seline.open_seline(volume, lock_wait_s=0)
    app = web.Application()
    app.router.add_get(PATH, answer)
    app.router.add_put(PATH.replace(NAME, "{name}"), save)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    until_closed.send(runner.addresses[0][1])
    await asyncio.to_thread(until_closed.poll, None)
    await runner.cleanup()
    if opened is not None:
        await opened.close()
