"""Send the admin API what no honest client sends: malformed, slow and too many requests."""

import asyncio
import contextlib
import json
import logging
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from seline.http import connections, requests
from seline.http.routes import PREFIX
from seline.server import Serving, listening, serving
from tests.http_client import ADMIN, NAME, Client, settings_for

BEARER = f"Authorization: Bearer {ADMIN}".encode()
HEALTH = f"GET {PREFIX}/health HTTP/1.1\r\n".encode()
DOCUMENT = f"{PREFIX}/documents/{NAME}".encode()


async def connect(server: Serving) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to a server."""
    host, port = server.address.removeprefix("http://").rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


async def exchange(server: Serving, request: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes; return the status, the headers and the JSON of the answer."""
    reader, writer = await connect(server)
    writer.write(request)
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["Content-Length"]))
    writer.close()
    return int(head[0].split(" ")[1]), headers, json.loads(body)


def lines(*more: bytes, host: bytes = b"127.0.0.1") -> bytes:
    """Return the rest of a head with the admin token."""
    return b"\r\n".join([b"Host: " + host, BEARER, *more, b"", b""])


DIGITS = b"user_profile_20250106_143022_" + b"1" * 5_000 + b".json"
ODD_REQUESTS = {
    "host": (HEALTH + lines(host=b"["), 403),
    "origin": (HEALTH + lines(b"Origin: http://["), 403),
    "expect that is not ASCII": (HEALTH + lines(b"Expect: \xe9"), 417),
    "expect": (HEALTH + lines(b"Expect: a-miracle"), 417),
    "expect of no route": (b"GET /none HTTP/1.1\r\n" + lines(b"Expect: \xe9"), 417),
    "coding that is not ASCII": (
        b"PUT " + DOCUMENT + b" HTTP/1.1\r\n"
        + lines(b"Content-Encoding: \xe9", b"Content-Length: 2") + b"{}",
        415,
    ),
    "etag that is not ASCII": (
        b"PUT " + DOCUMENT + b" HTTP/1.1\r\n" + lines(b"If-Match: \xe9", b"Content-Length: 2")
        + b"{}",
        422,
    ),
    "content type that is not ASCII": (
        f"POST {PREFIX}/import HTTP/1.1\r\n".encode()
        + lines(b"Content-Type: \xe9/\xe9", b"Content-Length: 2") + b"{}",
        422,
    ),
    "backup with 5,000 digits": (
        b"GET " + DOCUMENT + b"/backups/" + DIGITS + b" HTTP/1.1\r\n" + lines(), 404,
    ),
    "quarantined file with 5,000 digits": (
        f"GET {PREFIX}/quarantine/".encode() + DIGITS + b" HTTP/1.1\r\n" + lines(), 404,
    ),
    "header over the limit": (HEALTH + lines(b"X: " + b"x" * 9_000), 400),
    "two lengths": (HEALTH + lines(b"Content-Length: 1", b"Content-Length: 2"), 400),
    "line break after the token": (HEALTH + BEARER + b"\r\r\nHost: x\r\n\r\n", 400),
    "header without a colon": (HEALTH + lines(ADMIN.encode()), 400),
    "no HTTP at all": (BEARER + b"\r\n\r\n", 400),
    "broken chunks": (
        b"PUT " + DOCUMENT + b" HTTP/1.1\r\n" + lines(b"Transfer-Encoding: chunked")
        + b"2\r\n{}\r\n" + ADMIN.encode() + b"\r\n",
        400,
    ),
}  # fmt: skip


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("request_bytes", "status"), ODD_REQUESTS.values(), ids=list(ODD_REQUESTS))
async def test_an_odd_request_gets_a_problem_is_counted_and_is_not_logged(
    server: Serving,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    request_bytes: bytes,
    status: int,
) -> None:
    answered, headers, body = await exchange(server, request_bytes)
    assert (answered, body["status"]) == (status, status)
    assert headers["Content-Type"].startswith("application/problem+json")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers
    assert body["hint"]
    async with client.session.get(
        server.address + "/metrics", headers={"Authorization": f"Bearer {ADMIN}"}
    ) as response:
        assert f'status="{status}"}} 1.0' in await response.text()
    assert [record for record in caplog.records if record.exc_info] == []
    assert ADMIN not in caplog.text


async def test_malformed_requests_of_one_kind_are_one_line_a_minute(
    server: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        assert (await exchange(server, HEALTH + lines(b"no colon")))[0] == 400
    refused = [record for record in caplog.records if "malformed" in record.getMessage()]
    assert len(refused) <= 1


async def test_a_client_that_disconnects_during_an_upload_causes_no_traceback(
    server: Serving, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    head = b"PUT " + DOCUMENT + b" HTTP/1.1\r\n" + lines(b"Content-Length: 1000")
    _, writer = await connect(server)
    writer.write(head + b"{")
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.transport.abort()
    async with asyncio.timeout(5):
        while not any("499" in record.getMessage() for record in caplog.records):
            await asyncio.sleep(0.02)
    assert [record for record in caplog.records if record.exc_info] == []
    assert (await client.call("GET", "/documents"))[1] == {"documents": []}


async def test_methods_that_a_client_invents_share_one_label(
    server: Serving, client: Client
) -> None:
    for number in range(3):
        await client.call(f"ODD{number}", "/health")
    async with client.session.get(
        server.address + "/metrics", headers={"Authorization": f"Bearer {ADMIN}"}
    ) as response:
        text = await response.text()
    assert "ODD" not in text
    assert 'method="other"' in text


async def is_closed(reader: asyncio.StreamReader, within_s: float) -> bool:
    """Return whether the server closes a connection within a time."""
    try:
        async with asyncio.timeout(within_s):
            await reader.read()
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("sent", [b"", b"G", HEALTH + b"Host: 127.0.0.1\r\n"])
async def test_a_head_that_does_not_arrive_ends_the_connection(
    server: Serving, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    monkeypatch.setattr(connections, "WATCH_S", 0.05)
    reader, writer = await connect(server)
    writer.write(sent)
    assert await is_closed(reader, 3)
    writer.close()


async def test_a_slow_head_after_a_request_ends_the_connection(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    monkeypatch.setattr(connections, "WATCH_S", 0.05)
    reader, writer = await connect(server)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await reader.readuntil(b'ok"}\n')
    assert not await is_closed(reader, 0.6), "a pause between two requests may be longer"
    writer.write(b"GET /livez HT")
    assert await is_closed(reader, 3)
    writer.close()


@pytest.mark.parametrize("path", [f"/documents/{NAME}", "/import"])
async def test_a_body_that_does_not_arrive_is_408(
    server: Serving, client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(requests, "BODY_S", 0.3)
    method = "PUT" if path.startswith("/documents") else "POST"
    head = f"{method} {PREFIX}{path} HTTP/1.1\r\n".encode() + lines(b"Content-Length: 100")
    status, _, body = await exchange(server, head + b"{")
    assert (status, body["code"]) == (408, "request_timed_out")
    assert (await client.call("GET", "/documents"))[1] == {"documents": []}


async def test_connections_that_wait_are_closed_for_those_that_ask(
    server: Serving,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connections, "CLIENT_CONNECTIONS_MAX", 8)
    slow = [await connect(server) for _ in range(30)]
    for _, writer in slow:
        writer.write(b"G")
    for number in range(3):
        async with asyncio.timeout(2):
            assert (await client.call("PUT", f"/documents/{NAME}", {"n": number}))[0] < 300
    closed = [await is_closed(reader, 0.02) for reader, _ in slow]
    assert closed.count(False) <= 8
    assert closed[0]
    assert not closed[-1]
    assert len([record for record in caplog.records if "too many" in record.message]) <= 1
    for _, writer in slow:
        writer.close()


@pytest.mark.parametrize("limit", ["CLIENT_CONNECTIONS_MAX", "CONNECTIONS_MAX"])
async def test_a_connection_beyond_those_in_progress_is_503(
    server: Serving, client: Client, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    uploads = [await connect(server) for _ in range(3)]
    for number, (_, writer) in enumerate(uploads):
        head = f"PUT {PREFIX}/documents/d{number}.json HTTP/1.1\r\n".encode()
        writer.write(head + lines(b"Content-Length: 2") + b"{")
    await asyncio.sleep(0.1)
    monkeypatch.setattr(connections, limit, 3)
    reader, writer = await connect(server)
    assert b"503 " in (await reader.read())
    writer.close()
    for reader, writer in uploads:
        writer.write(b"}")
        assert b" 201 " in await reader.readline()
        writer.close()
    monkeypatch.undo()
    assert len((await client.call("GET", "/documents"))[1]["documents"]) == 3


@pytest.mark.prove
async def test_a_thousand_slow_connections_stop_neither_the_service_nor_the_store(
    tmp_path: Path,
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    server, log = start_server(tmp_path)
    slow: list[socket.socket] = []
    try:
        address = await ready_address(log)
        host, port = address.removeprefix("http://").rsplit(":", 1)
        for _ in range(1_012):
            slow.append(socket.create_connection((host, int(port)), timeout=5))
            with contextlib.suppress(OSError):
                slow[-1].send(b"G")
        async with aiohttp.ClientSession() as session, asyncio.timeout(10):
            client = Client(session, address)
            for number in range(20):
                assert (await client.call("PUT", f"/documents/{NAME}", {"n": number}))[0] < 300
                async with session.get(address + "/livez") as response:
                    assert response.status == 200
    finally:
        for connection in slow:
            connection.close()
        server.terminate()
        server.wait(20)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert log.stat().st_size < 50_000


def start_server(directory: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a server that may open 1,024 files; return it and its log."""
    log = directory / "log"
    server = subprocess.Popen(
        ["/bin/sh", "-c", 'ulimit -n 1024; exec "$0" -m seline serve --port 0', sys.executable],
        env={"SELINE_DATA_DIR": str(directory / "data"), "SELINE_ADMIN_TOKEN": ADMIN},
        stdout=log.open("wb"), stderr=subprocess.STDOUT, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return server, log


async def ready_address(log: Path) -> str:
    """Wait until a server has logged its address, and return it."""
    async with asyncio.timeout(20):
        while not (found := re.search(r"ready on (http://[\d.:]+)", log.read_text())):
            await asyncio.sleep(0.05)
    return found[1]


LARGE_BODIES = {
    "records": json.dumps([{"id": number, "on": True} for number in range(120_000)]).encode(),
    "a duplicate key at the end": (
        b"{" + b"".join(b'"k%d": 1, ' % number for number in range(120_000)) + b'"k0": 2}'
    ),
    "a text with many commas": json.dumps("a, " * 1_500_000).encode(),
    "too many values": b"[" + b"{}," * 1_500_000 + b"{}]",
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("body", LARGE_BODIES.values(), ids=list(LARGE_BODIES))
@pytest.mark.parametrize(
    "path", [f"/documents/{NAME}", pytest.param("/import?dry_run=true", marks=pytest.mark.prove)]
)
async def test_a_large_body_is_decoded_while_others_are_answered(
    tmp_path: Path, body: bytes, path: str
) -> None:
    method = "PUT" if path.startswith("/documents") else "POST"
    if method == "POST":
        body = b'{"files": {"a.json": ' + body + b"}}"
    server, log = start_server(tmp_path)
    waits_s: list[float] = []
    try:
        address = await ready_address(log)
        async with aiohttp.ClientSession() as session, aiohttp.ClientSession() as prober:
            calling = asyncio.ensure_future(Client(session, address).call(method, path, body))
            started_s = time.monotonic()
            while not calling.done():
                asked_s = time.monotonic()
                async with prober.get(address + "/livez") as response:
                    assert response.status == 200
                waits_s.append(time.monotonic() - asked_s)
                await asyncio.sleep(0.005)
            took_s = time.monotonic() - started_s
            status, answered, _ = calling.result()
    finally:
        server.terminate()
        server.wait(20)
    if b'"k0": 2' in body:
        assert (status, "duplicate key" in answered["detail"]) == (422, True)
    elif body == LARGE_BODIES["too many values"]:
        assert (status, answered["code"]) == (413, "request_too_large")
    else:
        assert status in (200, 201)
    assert max(waits_s) < max(0.4, 0.4 * took_s), "the event loop was blocked"


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b'{"a": [1, 2], "b": {}}', 5),
        (b'"1,2,3,{[,,,"', 0),
        (rb'["\",\",\"", "\\", 1]', 3),
        (b'["open, , , ,', 5),
    ],
)
def test_values_are_counted_outside_texts(body: bytes, values: int) -> None:
    assert requests.count_values(body, values) == values


async def start_reading_nothing(server_address: str, path: str) -> socket.socket:
    """Ask for a document, and do not read the answer."""
    host, port = server_address.removeprefix("http://").rsplit(":", 1)
    unread = socket.socket()
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    unread.connect((host, int(port)))
    unread.sendall(f"GET {PREFIX}{path} HTTP/1.1\r\n".encode() + lines())
    return unread


@pytest.mark.one_in(3)
@pytest.mark.parametrize("path", [f"/documents/{NAME}", f"/documents/{NAME}/raw", "/export"])
async def test_a_client_that_does_not_read_delays_a_stop_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(listening, "FINISH_S", 1.0)
    running = await serving(settings_for(tmp_path))
    await running.acquired()
    await running.data.save_json(NAME, "x" * (20 << 20))
    unread = await start_reading_nothing(running.address, path)
    await asyncio.sleep(0.5)
    began_s = time.monotonic()
    await running.close()
    assert time.monotonic() - began_s < 3
    unread.close()


@pytest.mark.prove
async def test_unread_documents_occupy_no_memory(tmp_path: Path) -> None:
    server, log = start_server(tmp_path)
    unread: list[socket.socket] = []
    try:
        address = await ready_address(log)
        async with aiohttp.ClientSession() as session:
            client = Client(session, address)
            await client.call("PUT", f"/documents/{NAME}", "x" * (20 << 20))
            before = resident_bytes(server.pid)
            path = f"/documents/{NAME}"
            unread += [await start_reading_nothing(address, path) for _ in range(16)]
            async with asyncio.timeout(20):
                await asyncio.sleep(1)
                while resident_bytes(server.pid) - before > 60 << 20:
                    await asyncio.sleep(0.1)
    finally:
        for connection in unread:
            connection.close()
        server.terminate()
        server.wait(20)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.prove
async def test_a_response_that_is_not_read_is_given_up(
    server: Serving, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALLED_S", 0.3)
    monkeypatch.setattr(connections, "WATCH_S", 0.05)
    await client.call("PUT", f"/documents/{NAME}", "x" * (20 << 20))
    unread = await start_reading_nothing(server.address, f"/documents/{NAME}")
    unread.setblocking(False)
    await asyncio.sleep(1.5)
    received = 0
    with pytest.raises((ConnectionError, EOFError)):
        while True:
            async with asyncio.timeout(5):
                piece = await asyncio.get_running_loop().sock_recv(unread, 1 << 20)
            received += len(piece)
            if not piece:
                raise EOFError
    assert received < 20 << 20
    unread.close()
