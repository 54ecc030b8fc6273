"""Test a WebDAV destination with faults of its server: no half object, no false success."""

import asyncio
import math
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from seline.outbound.destinations.multistatus import read_resources
from seline.outbound.destinations.webdav import WebDav
from seline.ports.destinations import Listed, ObjectForbidden, ObjectTooLarge
from seline.ports.futures import run_without_loop
from tests.destinations.failing import failure
from tests.destinations.relay import relay
from tests.destinations.webdav_server import PASSWORD, USER, WebDavServer, refusing, webdav_server

CALLS: dict[str, Callable[[WebDav], Any]] = {
    "PROPFIND": lambda store: store.list(""),
    "PUT": lambda store: store.put("old", b"new"),
    "MOVE": lambda store: store.put("old", b"new"),
    "MKCOL": lambda store: store.put("folder/new", b"new"),
    "GET": lambda store: store.get("old"),
    "DELETE": lambda store: store.remove("old"),
}
"""A call that sends each method."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebDavServer]:
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "old").write_bytes(b"old")
    with webdav_server(tmp_path) as serving:
        yield serving


def store_at(url: str, **more: Any) -> WebDav:
    given: dict[str, Any] = {"user": USER, "password": PASSWORD, "timeout_s": 10, **more}
    return WebDav("nas", f"{url}/top", **given)


@pytest.fixture
async def store(server: WebDavServer) -> AsyncIterator[WebDav]:
    store = store_at(server.url)
    yield store
    await store.close()


def uploading(answer: Callable[[Path, bytes, Any], Iterable[bytes]]) -> Any:
    """Return a fault of PUT: it gets the path, the body and `start_response`."""

    def fault(environ: dict[str, Any], start_response: Any) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] != "PUT":
            return None
        data = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        return answer(Path(environ["PATH_INFO"].lstrip("/")), data, start_response)

    return fault


async def test_a_server_that_dies_mid_upload_leaves_the_old_object_whole(
    server: WebDavServer,
) -> None:
    async with relay(server.port) as relayed:
        store = store_at(f"webdav://127.0.0.1:{relayed.port}")
        relayed.bytes_left = 300_000
        await failure(store.put("old", b"x" * 600_000), PASSWORD)
        await failure(store.get("old"), PASSWORD)
        relayed.bytes_left = math.inf

        assert await store.get("old") == b"old"
        assert await store.list("") == [Listed("old", 3)]
        assert any((server.folder / "top").glob("old.*.part")), "the half one is still there"
        await store.put("old", b"new")
        assert await store.get("old") == b"new"
        await store.close()


async def test_an_upload_is_sent_whole_again_after_the_server_closed_the_connection(
    server: WebDavServer,
) -> None:
    async def recover() -> None:
        while relayed.bytes_left > 0:
            await asyncio.sleep(0)
        relayed.bytes_left = math.inf

    async with relay(server.port) as relayed:
        store = store_at(f"webdav://127.0.0.1:{relayed.port}")
        await store.put("old", b"the connection is in use now")
        relayed.bytes_left = 300_000
        await asyncio.gather(store.put("old", bytes(range(256)) * 2344), recover())

        assert await store.get("old") == bytes(range(256)) * 2344
        await store.close()


async def test_an_upload_that_arrives_short_replaces_nothing(
    store: WebDav, server: WebDavServer
) -> None:
    def keeps_half(path: Path, data: bytes, start_response: Any) -> Iterable[bytes]:
        (server.folder / path).write_bytes(data[: len(data) // 2])
        start_response("201 Created", [("Content-Length", "0")])
        return [b""]

    server.fault = uploading(keeps_half)
    error = await failure(store.put("old", b"x" * 1000), PASSWORD)

    assert "500 of the 1000 bytes" in error.message
    assert await store.get("old") == b"old"
    assert [path.name for path in (server.folder / "top").iterdir()] == ["old"], "it is discarded"


@pytest.mark.parametrize("method", CALLS)
async def test_a_server_that_hangs_for_ever_ends_the_call(
    server: WebDavServer, method: str
) -> None:
    ends, store = threading.Event(), store_at(server.url, timeout_s=0.3)

    def hangs(environ: dict[str, Any], start_response: Any) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] == method:
            assert ends.wait(20)
        return None

    server.fault = hangs
    try:
        error = await failure(CALLS[method](store), PASSWORD)
        assert "took over 0.3 s" in error.message
    finally:
        ends.set()
        await store.close()


@pytest.mark.parametrize("method", CALLS)
async def test_a_server_that_answers_500_ten_times_makes_no_call_succeed(
    store: WebDav, server: WebDavServer, method: str
) -> None:
    server.fault = refusing("500 Broken", method)
    for _ in range(10):
        error = await failure(CALLS[method](store), PASSWORD)
        assert "the server answered 500" in error.message
    server.fault = None

    assert await store.get("old") == b"old"
    assert await store.list("") == [Listed("old", 3)]
    await CALLS[method](store)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("401 Who", "refuses the login"),
        ("403 No", "forbids it"),
        ("507 Full", "it is full"),
        ("413 Large", "too large"),
        ("405 What", "does not know the method"),
        ("302 Elsewhere", "a redirect"),
    ],
)
async def test_a_refused_upload_names_the_reason(
    store: WebDav, server: WebDavServer, status: str, says: str
) -> None:
    server.fault = refusing(status, "PUT")
    error = await failure(store.put("old", b"new"), PASSWORD)

    assert says in error.message
    assert await store.get("old") == b"old"


async def test_wrong_credentials_fail_before_anything_is_uploaded(server: WebDavServer) -> None:
    store = store_at(server.url, password="another-password")
    for call in CALLS.values():
        error = await failure(call(store), "another-password", PASSWORD)
        assert "refuses the login" in error.message
        assert not isinstance(error, ObjectForbidden)
    await store.close()

    assert "PUT" not in server.requests


async def test_a_server_that_is_gone_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        store = store_at(f"webdav://127.0.0.1:{listener.getsockname()[1]}")
    for call in CALLS.values():
        assert "cannot connect" in (await failure(call(store), PASSWORD)).message
    await store.close()


async def test_a_redirect_to_another_host_gets_no_password(
    store: WebDav, server: WebDavServer, tmp_path: Path
) -> None:
    with webdav_server(tmp_path) as other:

        def redirects(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            url = other.url.replace("webdav", "http") + environ["PATH_INFO"]
            start_response("307 Elsewhere", [("Location", url), ("Content-Length", "0")])
            return [b""]

        server.fault = redirects
        for call in CALLS.values():
            assert "a redirect" in (await failure(call(store), PASSWORD)).message
        assert other.requests == []


async def test_the_rest_of_an_upload_is_not_listed_and_goes_with_its_export(
    store: WebDav, server: WebDavServer
) -> None:
    await store.put("export/manifest.json", b"{}")
    (server.folder / "top" / "export" / "pack-0001.0a1b2c3d.part").write_bytes(b"half")

    assert await store.list("export") == [Listed("manifest.json", 2)]
    await store.remove("export/manifest.json")
    await store.remove("export")
    assert await store.list("") == [Listed("old", 3)]


@pytest.mark.parametrize("path", ["", "/", "/My%20files/%C3%A9/", "/My files"])
async def test_the_folder_may_be_the_root_or_have_any_name(server: WebDavServer, path: str) -> None:
    store = WebDav("nas", f"{server.url}{path}", user=USER, password=PASSWORD, timeout_s=10)
    await store.make()
    await store.put("heads/1", b"1")

    assert await store.list("heads") == [Listed("1", 1)]
    assert (server.folder / unquote(path).strip("/") / "heads" / "1").exists()
    await store.close()


async def test_a_folder_that_was_removed_is_made_again(store: WebDav, server: WebDavServer) -> None:
    await store.put("mirror/objects/1", b"1")
    (server.folder / "top/mirror/objects/1").unlink()
    (server.folder / "top/mirror/objects").rmdir()
    await store.put("mirror/objects/2", b"2")

    assert await store.list("mirror/objects") == [Listed("2", 1)]


def answering(body: bytes, status: str = "207 Multi-Status") -> Any:
    def fault(environ: dict[str, Any], start_response: Any) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] != "PROPFIND":
            return None
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    return fault


def multistatus(*entries: str, before: str = "") -> str:
    return f'{before}<d:multistatus xmlns:d="DAV:">{"".join(entries)}</d:multistatus>'


def entry(href: str, prop: str, status: str = "200 OK") -> str:
    return (
        f"<d:response><d:href>{href}</d:href><d:propstat><d:prop>{prop}</d:prop>"
        f"<d:status>HTTP/1.1 {status}</d:status></d:propstat></d:response>"
    )


FOLDER = "<d:resourcetype><d:collection/></d:resourcetype>"
TOP = entry("/top/", FOLDER)
LAUGHS = (
    '<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>'
)
OUTSIDE = '<!DOCTYPE d [<!ENTITY c SYSTEM "file:///etc/passwd">]>'
BAD_LISTINGS = {
    "cut off": multistatus(TOP, entry("/top/a", "<d:getcontentlength>1</d:getcontentlength>"))[
        :-40
    ],
    "without a size": multistatus(TOP, entry("/top/a", "<d:resourcetype/>")),
    "with an entry that was refused": multistatus(TOP, entry("/top/a", FOLDER, "403 Forbidden")),
    "with a size that is no number": multistatus(
        TOP, entry("/top/a", "<d:getcontentlength>one</d:getcontentlength>")
    ),
    "of another folder": multistatus(entry("/behind/a-proxy/", FOLDER)),
    "a page for people": "<!doctype html><html><body><p>Hello</body></html>",
    "other XML": "<other/>",
    "with entities": multistatus(entry("&c;", FOLDER), before=LAUGHS),
    "with a file of this machine": multistatus(entry("&c;", FOLDER), before=OUTSIDE),
    "empty": "",
}


@pytest.mark.parametrize("listing", BAD_LISTINGS)
async def test_a_listing_that_cannot_be_read_fails(
    store: WebDav, server: WebDavServer, listing: str
) -> None:
    server.fault = answering(BAD_LISTINGS[listing].encode())
    error = await failure(store.list(""), PASSWORD)

    assert "root:" not in str(error.__cause__)


async def test_a_listing_may_have_whole_addresses_and_other_prefixes(
    store: WebDav, server: WebDavServer
) -> None:
    listing = multistatus(
        entry("http://127.0.0.1/top", FOLDER),
        entry("http://127.0.0.1/top/a%62", "<d:getcontentlength> 5 </d:getcontentlength>"),
        entry("/top/folder/", FOLDER),
        entry("/top/folder/deeper", FOLDER),
    )
    server.fault = answering(re.sub(r"(?<=[</:])d(?=[:=])", "lp1", listing).encode())

    assert await store.list("") == [Listed("ab", 5), Listed("folder", None)]


async def test_a_long_listing_lets_other_tasks_run() -> None:
    size = "<d:getcontentlength>1</d:getcontentlength>"
    body = multistatus(TOP, *(entry(f"/top/{number}", size) for number in range(5000))).encode()
    reading = asyncio.ensure_future(read_resources(body))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1

    assert reading.result()["/top/4999"] == 1
    assert len(reading.result()) == 5001
    assert turns > 10


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-7"])
async def test_no_encoding_hides_a_document_type(encoding: str) -> None:
    declared = f'<?xml version="1.0" encoding="{encoding}"?>{LAUGHS}'
    with pytest.raises(ValueError):
        await read_resources(multistatus(entry("&c;", FOLDER), before=declared).encode(encoding))


async def test_an_endless_answer_ends(server: WebDavServer, monkeypatch: Any) -> None:
    monkeypatch.setattr("seline.outbound.destinations.webdav.ANSWER_BYTES_MAX", 1 << 20)

    def endless(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("207 Multi-Status", [])
        return (b" " * 65_536 for _ in range(10_000))

    server.fault = endless
    store = store_at(server.url)
    assert "too long" in (await failure(store.list(""), PASSWORD)).message
    await store.close()


async def test_a_cancelled_upload_leaves_no_half_object(
    store: WebDav, server: WebDavServer
) -> None:
    began = threading.Event()

    def slow(environ: dict[str, Any], start_response: Any) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] == "MOVE":
            began.set()
        return None

    server.fault = slow
    put = asyncio.ensure_future(store.put("old", b"x" * (4 << 20)))
    await asyncio.sleep(0.01)
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put

    assert await store.get("old") == (b"x" * (4 << 20) if began.is_set() else b"old")
    assert [entry.name for entry in await store.list("")] == ["old"]


async def test_an_answer_without_an_end_is_read_to_the_limit(
    store: WebDav, server: WebDavServer
) -> None:
    def endless(environ: dict[str, Any], start_response: Any) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] != "GET":
            return None
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return repeat(b"x" * 65_536)

    server.fault = endless
    error = await failure(store.get("old", bytes_max=1 << 20), PASSWORD)

    assert isinstance(error, ObjectTooLarge)


def test_a_store_outlives_an_event_loop(server: WebDavServer) -> None:
    store = store_at(server.url)
    asyncio.run(store.put("old", b"1"))
    assert asyncio.run(store.get("old")) == b"1"
    run_without_loop(store.close())

    async def last() -> bytes:
        data = await store.get("old")
        await store.close()
        return data

    assert asyncio.run(last()) == b"1"


def test_a_store_says_nothing_of_its_password() -> None:
    store = store_at("webdavs://127.0.0.1:1")
    assert PASSWORD not in f"{store!r} {store.where} {store.name}"
