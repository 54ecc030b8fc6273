"""The S3 destination against a service on loopback that answers, refuses, breaks off or hangs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from seline import __version__, open_seline
from seline.errors import ExportDamaged, ExportFailed
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.export_folders import ExportFolders
from seline.operations.exports import Exporter
from seline.operations.own_exports import read_back
from seline.outbound.destinations import bucket as bucket_module
from seline.outbound.destinations.s3 import S3, addressed
from seline.ports.destinations import Listed, ObjectForbidden, ObjectMissing, ObjectTooLarge, Target
from seline.ports.sealing import UNSEALED
from seline.settings import load_settings
from tests.mirrored_bot import HOUR_S, Bot
from tests.s3_server import BUCKET, KEY_ID, SECRET, S3Server, refused, s3_server, xml

Call = Callable[[S3], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "list": lambda store: store.list("a"),
    "put": lambda store: store.put("a/b", b"new"),
    "get": lambda store: store.get("a/b"),
    "remove": lambda store: store.remove("a/b"),
}


@pytest.fixture
async def server() -> AsyncIterator[S3Server]:
    async with s3_server() as running:
        yield running


def store_at(server: S3Server, **options: Any) -> S3:
    given = {
        "access_key_id": KEY_ID,
        "secret_access_key": SECRET,
        "endpoint": server.url,
        "timeout_s": 20,
        **options,
    }
    return S3("bucket", f"s3://{BUCKET}/pre/fix", **given)


async def test_objects_are_stored_listed_by_level_and_removed(server: S3Server) -> None:
    store = store_at(server)
    assert list(await store.list("")) == []
    for key in ("top", "a/b", "a/c/d", "ab/e"):
        await store.put(key, key.encode())
    await store.put("a/b", b"replaced")

    assert set(await store.list("")) == {Listed("a", None), Listed("ab", None), Listed("top", 3)}
    assert set(await store.list("a")) == {Listed("b", 8), Listed("c", None)}
    assert list(await store.list("none")) == []
    assert await store.get("a/b") == b"replaced"
    await store.remove("a/b")
    await store.remove("a/b")
    with pytest.raises(ObjectMissing, match="Reading a/b"):
        await store.get("a/b")
    assert set(server.objects) == {f"pre/fix/{key}" for key in ("top", "a/c/d", "ab/e")}
    assert await store.on_data_disk("/data") is False


async def test_what_is_too_large_or_only_looked_for_is_not_read(server: S3Server) -> None:
    sent: list[int] = []

    async def two_gigabytes(request: web.Request) -> web.StreamResponse | None:
        if request.method != "GET":
            return None
        headers = {"ETag": '"0"', "Last-Modified": "Mon, 06 Jan 2025 14:30:22 GMT"}
        response = web.StreamResponse(headers={**headers, "Content-Length": str(2 << 30)})
        await response.prepare(request)
        sent.append(0)
        while sent[-1] < 2 << 30:
            await response.write(b"x" * 65_536)
            sent[-1] += 65_536
        return response

    server.fault = two_gigabytes
    store = store_at(server)
    with pytest.raises(ObjectTooLarge):
        await store.get("a", bytes_max=1 << 20)
    await store.put("a", b"1", replace=False)
    assert not server.objects, "it is there already"
    assert len(sent) == 2
    assert max(sent) < 64 << 20


async def test_an_object_that_exists_is_not_replaced_on_request(server: S3Server) -> None:
    store = store_at(server)
    await store.put("a", b"first", replace=False)
    await store.put("a", b"second", replace=False)
    assert server.objects == {"pre/fix/a": b"first"}
    assert server.requests[-1].method == "GET", "not every service knows a conditional upload"

    async def come_between(request: web.Request) -> None:
        if request.method == "PUT":
            server.objects["pre/fix/b"] = b"another's"

    server.fault = come_between
    await store.put("b", b"own", replace=False)
    assert server.objects["pre/fix/b"] == b"another's"


async def test_a_service_without_conditional_uploads_makes_what_does_not_exist(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as Backblaze B2, which answers that a header is not implemented."""

    async def lack(request: web.Request) -> web.Response | None:
        return refused(501, "NotImplemented") if "If-None-Match" in request.headers else None

    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    server.fault = lack
    store = store_at(server)
    for content in (b"first", b"second"):
        await store.put("a", content, replace=False)
    assert server.objects == {"pre/fix/a": b"first"}


@pytest.mark.parametrize("knows_conditions", [True, False])
async def test_a_key_that_only_writes_makes_what_does_not_exist(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, knows_conditions: bool
) -> None:
    """And replaces nothing: a service that cannot tell what exists stores nothing."""

    async def refuse(request: web.Request) -> web.Response | None:
        if request.method != "PUT":
            return refused(403, "AccessDenied")
        is_refused = "If-None-Match" in request.headers and not knows_conditions
        return refused(501, "NotImplemented") if is_refused else None

    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    server.fault = refuse
    store = store_at(server)
    if not knows_conditions:
        with pytest.raises(ObjectForbidden):
            await store.put("a", b"first", replace=False)
        assert server.objects == {}
        return
    for content in (b"first", b"second"):
        await store.put("a", content, replace=False)
    assert server.objects == {"pre/fix/a": b"first"}


async def test_a_conditional_upload_that_fails_is_an_error(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(request: web.Request) -> web.Response | None:
        return refused(403, "AccessDenied") if request.method == "PUT" else None

    server.fault = fail
    with pytest.raises(ExportFailed, match="no right"):
        await store_at(server).put("a", b"1", replace=False)


async def test_a_listing_has_every_page(server: S3Server) -> None:
    server.objects = {f"pre/fix/a/{number:05}": b"" for number in range(2500)}

    listed = await store_at(server).list("a")

    assert [entry.name for entry in listed] == [f"{number:05}" for number in range(2500)]


async def test_a_folder_that_the_console_made_is_no_object(server: S3Server) -> None:
    server.objects = {"pre/fix/": b"", "pre/fix/a/": b"", "pre/fix/a/b": b"1"}
    store = store_at(server)

    assert list(await store.list("")) == [Listed("a", None)]
    assert list(await store.list("a")) == [Listed("b", 1)]


async def test_a_large_object_is_sent_in_parts(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "SINGLE_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(bucket_module, "_PART_BYTES", 1 << 20)
    data = bytes(range(256)) * (9 << 10)

    await store_at(server).put("a", data)

    assert server.objects == {"pre/fix/a": data}
    assert sum("partNumber" in request.query for request in server.requests) == 3


async def test_objects_of_other_makers_are_named_where_a_listing_cannot_have_them(
    server: S3Server,
) -> None:
    server.objects = {"pre/fix/a//b": b""}
    with pytest.raises(ExportFailed, match="cannot be listed") as failed:
        await store_at(server).list("a")
    assert "prefix of its own" in failed.value.hint


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "InvalidAccessKeyId", "does not know the access key"),
        (403, "SignatureDoesNotMatch", "the secret is not that of the access key"),
        (403, "AccessDenied", "no right to do this"),
        (403, "", "no right to do this"),
        (403, "SomethingNew", r"answered 403 \(SomethingNew\)"),
        (401, "SomethingNew", "does not accept the access key"),
        (404, "NoSuchBucket", "no such bucket"),
        (403, "RequestTimeTooSkewed", "the clock of this machine differs"),
        (403, "QuotaExceeded", "the bucket is full"),
        (507, "XMinioStorageFull", "the bucket is full"),
        (400, "AuthorizationHeaderMalformed", "another region"),
        (400, "SomethingNew", r"answered 400 \(SomethingNew\)"),
        (404, "", "not one of S3"),
    ],
)
async def test_a_refusal_is_named_with_a_next_step_and_no_secret(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, call: str, status: int, code: str, said: str
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return refused(status, code)

    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    server.fault = refuse
    with pytest.raises(ExportFailed, match=said) as failed:
        await CALLS[call](store_at(server))

    error = failed.value
    assert not isinstance(error, ObjectMissing)
    assert isinstance(error, ObjectForbidden) is ("no right" in said)
    assert error.message.count("\n") == 0
    assert error.hint
    assert error.__suppress_context__ or error.__context__ is None
    for secret in (KEY_ID, SECRET, "AWS4"):
        assert secret not in f"{error.message}{error.hint}{error.__notes__}"


@pytest.mark.parametrize("call", CALLS)
async def test_a_service_that_hangs_for_ever_is_given_up(server: S3Server, call: str) -> None:
    async def hang(_: web.Request) -> None:
        await asyncio.Event().wait()

    server.fault = hang
    began = time.monotonic()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counting = asyncio.create_task(count())
    with pytest.raises(ExportFailed, match="did not answer"):
        await CALLS[call](store_at(server, timeout_s=0.5))
    counting.cancel()
    assert time.monotonic() - began < 10
    assert turns > 5, "the loop went on"


async def test_a_service_that_fails_ten_times_is_given_up(server: S3Server) -> None:
    async def fail(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=500)

    server.fault = fail
    with pytest.raises(ExportFailed, match="answered 500"):
        await store_at(server).put("a", b"1")
    assert 1 < len(server.requests) < 10, "tries are repeated, and bounded"


async def test_a_service_that_recovers_soon_has_the_object(server: S3Server) -> None:
    async def fail_twice(request: web.Request) -> web.Response | None:
        await request.read()
        return web.Response(status=503) if len(server.requests) < 3 else None

    server.fault = fail_twice
    await store_at(server).put("a", b"1")
    assert server.objects == {"pre/fix/a": b"1"}


async def test_an_upload_that_breaks_off_leaves_what_was_there(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(request: web.Request) -> web.Response:
        await request.content.readexactly(1 << 20)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    monkeypatch.setattr(bucket_module, "_RETRIES", 1)
    store = store_at(server)
    await store.put("a", b"before")
    server.fault = die
    with pytest.raises(ExportFailed, match=r"Writing a .*: the connection was lost"):
        await store.put("a", b"x" * (4 << 20))
    server.fault = None
    assert await store.get("a") == b"before"


async def test_a_cancelled_upload_stores_nothing(server: S3Server) -> None:
    began = asyncio.Event()

    async def wait(_: web.Request) -> None:
        began.set()
        await asyncio.Event().wait()

    server.fault = wait
    writing = asyncio.create_task(store_at(server).put("a", b"1"))
    await began.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert server.objects == {}


async def test_a_download_that_breaks_off_is_an_error(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        headers = {"ETag": '"0"', "Last-Modified": "Mon, 06 Jan 2025 14:30:22 GMT"}
        answer = web.StreamResponse(headers={**headers, "Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b"x" * 10)
        assert request.transport is not None
        request.transport.close()
        return answer

    monkeypatch.setattr(bucket_module, "_RETRIES", 1)
    server.fault = cut
    with pytest.raises(ExportFailed, match="Reading a "):
        await store_at(server).get("a")


async def test_a_page_of_another_service_is_no_empty_listing(server: S3Server) -> None:
    """obstore takes any page with status 200 for a listing without entries."""

    async def welcome(_: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>", content_type="text/html")

    server.fault = welcome
    for call in ("list", "put"):
        with pytest.raises(ExportFailed, match="not one of S3") as failed:
            await CALLS[call](store_at(server))
        assert "`endpoint`" in failed.value.hint


async def test_a_listing_whose_second_page_fails_returns_nothing(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail_later(request: web.Request) -> web.Response | None:
        return refused(403, "AccessDenied") if "continuation-token" in request.query else None

    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    server.objects = {f"pre/fix/a/{number:05}": b"" for number in range(1001)}
    server.fault = fail_later
    with pytest.raises(ExportFailed, match=r"Listing a .* no right"):
        await store_at(server).list("a")


async def test_a_service_that_cannot_be_reached_is_named(
    server: S3Server, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    closed = f"127.0.0.1:{unused_tcp_port}"
    for endpoint, said in (
        (f"http://{closed}", f"{closed} failed: the service refused the connection"),
        (server.url.replace("http:", "https:"), "the service cannot be reached"),
        ("https://copies.invalid", "the name of the service is not known"),
    ):
        with pytest.raises(ExportFailed, match=said) as failed:
            await store_at(server, endpoint=endpoint, timeout_s=20).get("a")
        assert "`endpoint`" in failed.value.hint


async def test_variables_of_amazon_replace_nothing_that_is_given(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "another",
        "AWS_SECRET_ACCESS_KEY": "another",
        "AWS_SESSION_TOKEN": "another",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REGION": "another",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
    }.items():
        monkeypatch.setenv(name, text)
    await store_at(server, region="auto").put("a", b"1")

    [request] = server.requests
    assert "/auto/s3/aws4_request" in request.headers["Authorization"]
    assert "x-amz-security-token" not in request.headers


async def test_the_host_has_the_name_of_the_bucket(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    store = store_at(server, endpoint="http://storage.example.test")
    await store.put("a", b"1")

    assert server.requests[0].host == f"{BUCKET}.storage.example.test"
    assert server.objects == {"pre/fix/a": b"1"}
    assert store.where == f"s3://{BUCKET}/pre/fix at storage.example.test"


@pytest.mark.parametrize(
    ("endpoint", "path_style", "address"),
    [
        ("https://storage.railway.app", None, "https://b.storage.railway.app"),
        ("https://storage.railway.app/", False, "https://b.storage.railway.app"),
        ("https://storage.railway.app", True, "https://storage.railway.app"),
        ("https://minio.example.org:9000", None, "https://b.minio.example.org:9000"),
        ("http://localhost:9000", None, "http://localhost:9000"),
        ("http://localhost:9000", False, "http://b.localhost:9000"),
        ("http://10.0.0.7:9000/", None, "http://10.0.0.7:9000"),
        ("http://10.0.0.7:9000", False, "http://10.0.0.7:9000"),
        ("http://[::1]:9000", None, "http://[::1]:9000"),
        ("https://db.example.co/storage/v1/s3", None, "https://db.example.co/storage/v1/s3"),
    ],
)
def test_the_style_of_an_address_follows_from_the_endpoint(
    endpoint: str, path_style: bool | None, address: str
) -> None:
    assert addressed(endpoint, "b", path_style) == (
        address,
        address.startswith(("https://b.", "http://b.")),
    )


def test_a_bucket_with_a_dot_is_addressed_by_path() -> None:
    """A certificate for every bucket of a service has one level of names."""
    assert addressed("https://s3.example.org", "my.bucket", None) == (
        "https://s3.example.org",
        False,
    )


async def test_an_error_inside_an_answer_is_an_error(server: S3Server) -> None:
    async def wrong(_: web.Request) -> web.Response:
        return xml("Error", "<Code>InternalError</Code>")

    server.fault = wrong
    with pytest.raises(ExportFailed):
        await store_at(server).list("a")


async def test_an_export_in_a_bucket_is_read_back_and_a_flipped_bit_is_found(
    server: S3Server, tmp_path: Path
) -> None:
    store = store_at(server)
    async with open_seline(tmp_path / "data") as seline:
        await seline.data.save_json("a.json", [1, 2])
        exporter = Exporter(seline.store, [Target(store, 7)], version=__version__)
        assert "read back" in await exporter.run()
        folders = ExportFolders(store)
        [export] = await folders.complete()
        await read_back(folders, export)

        pack = f"pre/fix/{export}/pack-0001.tar.zst"
        whole = server.objects[pack]
        server.objects[pack] = whole[:-1] + bytes([whole[-1] ^ 1])
        with pytest.raises(ExportDamaged):
            await read_back(folders, export)


async def test_a_bucket_on_railway_is_used_without_a_setting_and_the_log_says_so(
    server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variables = {"BUCKET": BUCKET, "ACCESS_KEY_ID": KEY_ID, "SECRET_ACCESS_KEY": SECRET}
    settings = load_settings(
        environ={"RAILWAY_ENVIRONMENT": "production", "ENDPOINT": server.url, **variables},
        arguments={"storage.data_dir": str(tmp_path / "data"), "storage.require_mount": False},
    )
    caplog.set_level("INFO", logger="seline")
    async with open_seline(settings=settings) as seline:
        [target] = seline.exports.destinations.targets
        await target.destination.put("a", b"1")

    assert server.objects == {"a": b"1"}
    told = f"BUCKET names a bucket, which receives copies as the destination bucket: s3://{BUCKET}"
    assert told in caplog.messages
    assert not any(secret in caplog.text for secret in (KEY_ID, SECRET))


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidAccessKeyId"])
async def test_an_empty_volume_does_not_begin_with_a_key_that_is_refused(
    server: S3Server, tmp_path: Path, code: str
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return refused(403, code)

    server.fault = refuse
    keys = {"access_key_id": KEY_ID, "secret_access_key": "wrong", "endpoint": server.url}
    table = {"name": "bucket", "url": f"s3://{BUCKET}", **keys}
    settings = load_settings(
        environ={},
        arguments={"storage.data_dir": str(tmp_path / "data"), "exports.destinations": [table]},
    )
    with pytest.raises(ExportFailed, match="copy at bucket cannot be taken"):
        await open_seline(settings=settings)


async def test_the_mirror_needs_only_the_right_to_write(server: S3Server, tmp_path: Path) -> None:
    async def only_write(request: web.Request) -> web.Response | None:
        return None if request.method == "PUT" else refused(403, "AccessDenied")

    server.fault = only_write
    store = store_at(server)
    async with open_seline(tmp_path / "data") as seline:
        operations = Operations(seline.store, [Target(store, 7, mode="mirror")], version="test")
        await seline.data.save_json("a.json", {"n": 1})
        await operations.mirrors.run()
        await operations.mirrors.close()

    server.fault = None
    copy = await Copies(store, UNSEALED).find()
    assert [document.name for document in copy.documents] == ["a.json"]


async def test_a_change_is_mirrored_by_three_uploads(server: S3Server, tmp_path: Path) -> None:
    store = store_at(server)
    async with open_seline(tmp_path / "data") as seline:
        operations = Operations(seline.store, [Target(store, 7, mode="mirror")], version="test")
        for number in range(20):
            await seline.data.save_json(f"{number}.json", {"n": number})
        await operations.mirrors.run()
        server.requests.clear()
        await seline.data.save_json("7.json", {"n": "changed"})
        await operations.mirrors.run()
        await operations.mirrors.close()

    assert [request.method for request in server.requests] == ["PUT"] * 3
    assert sum(request.content_length or 0 for request in server.requests) < 64 << 10


@pytest.mark.parametrize(("code", "fails"), [("InvalidAccessKeyId", True), ("AccessDenied", False)])
async def test_a_revoked_key_is_not_one_that_only_writes(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, fails: bool
) -> None:
    async def refuse(request: web.Request) -> web.Response | None:
        return refused(403, code) if request.method == "GET" else None

    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    bot = Bot(tmp_path, store_at(server))
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    server.fault = refuse
    bot.clock.advance(2 * HOUR_S)
    await bot.data.save_json("a.json", {"n": 2})
    if fails:
        with pytest.raises(ExportFailed, match="does not know the access key"):
            await bot.operations.drill()
        with pytest.raises(ExportFailed, match="does not know the access key"):
            await bot.mirrored()
    else:
        assert "only writes" in await bot.operations.drill()
        assert "1 document" in await bot.mirrored()
    await bot.operations.mirrors.close()
    await bot.store.close()
