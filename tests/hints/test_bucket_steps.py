"""The next steps of an `s3://` destination: each is done as it is printed, and then it works."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from seline import open_seline
from seline.errors import ExportFailed, SettingsError
from seline.outbound.destinations import bucket as bucket_module
from seline.outbound.destinations.table import build_targets
from seline.ports.destinations import ObjectStore
from seline.server.serving import serving
from seline.settings import load_settings
from tests.command_line import line_at
from tests.hints.following import Step, run
from tests.hints.test_destination_steps import check as bucket_check
from tests.s3_server import BUCKET, KEY_ID, SECRET, S3Server, refused, s3_server

Follow = Callable[[str], Step]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Server]:
    monkeypatch.setattr(bucket_module, "_RETRIES", 0)
    async with s3_server() as running:
        yield running


def store_of(environ: dict[str, str] | None = None, **table: object) -> ObjectStore:
    """Return the store of a table of `exports.destinations`, read as from a settings file."""
    given = {"name": "off-site", "url": f"s3://{BUCKET}", **table}
    given = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(environ=environ or {}, arguments={"exports.destinations": [given]})
    return build_targets(settings)[0].destination


async def refuse(code: str, _: web.Request) -> web.Response:
    return refused(403, code)


def options(server: S3Server, **changed: object) -> dict[str, Any]:
    keys = {"access_key_id": KEY_ID, "secret_access_key": SECRET}
    return {"endpoint": server.url, **keys, **changed}


async def failing(store: ObjectStore, key: str = "a") -> str:
    """Return the next step of an upload that fails."""
    with pytest.raises(ExportFailed) as failed:
        await store.put(key, b"1")
    return failed.value.hint


@pytest.mark.follows("outbound/destinations/s3:#6", "outbound/destinations/s3:#2")
async def test_wrong_keys_and_a_wrong_bucket_are_corrected(
    server: S3Server, follow: Follow
) -> None:
    wrong = store_of(**options(server, access_key_id="another"))
    follow(await failing(wrong)).asks("`access_key_id`", "or the variables")
    wrong = store_of(**options(server, url="s3://another"))
    follow(await failing(wrong)).asks("Correct the name of the bucket", "`url`", "BUCKET")

    variables = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    await store_of(variables, endpoint=server.url).put("a", b"1")


@pytest.mark.follows(
    "outbound/destinations/s3:", "outbound/destinations/bucket:", "outbound/destinations/bucket:#2"
)
async def test_what_a_service_refuses_works_once_it_is_mended(
    server: S3Server, follow: Follow
) -> None:
    store = store_of(**options(server))
    for code, asked in (
        ("AccessDenied", "rights to list, read, write and remove"),
        ("RequestTimeTooSkewed", "Set the clock"),
        ("QuotaExceeded", "raise its quota"),
    ):
        server.fault = partial(refuse, code)
        follow(await failing(store)).asks(asked)
        server.fault = None
        await store.put("a", b"1")
        assert [entry.name for entry in await store.list("")] == ["a"]
        assert await store.get("a") == b"1"
        await store.remove("a")


@pytest.mark.follows("outbound/destinations/s3:#3")
async def test_the_region_is_set_to_that_of_the_bucket(server: S3Server, follow: Follow) -> None:
    async def check(request: web.Request) -> web.Response | None:
        here = "/eu-central-1/s3/" in request.headers["Authorization"]
        return None if here else refused(400, "AuthorizationHeaderMalformed")

    server.fault = check
    follow(await failing(store_of(**options(server)))).asks("`region`")
    await store_of(**options(server, region="eu-central-1")).put("a", b"1")


@pytest.mark.follows(
    "outbound/destinations/s3:#4",
    "outbound/destinations/s3:#5",
    "outbound/destinations/bucket:_by_words",
)
async def test_the_endpoint_is_set_to_the_service(
    server: S3Server, unused_tcp_port: int, follow: Follow
) -> None:
    async def welcome(_: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>", content_type="text/html")

    async with s3_server() as site:
        site.fault = welcome
        wrong = store_of(**options(site))
        follow(await failing(wrong)).asks("Set `endpoint`, or the variable ENDPOINT", "S3 API")
    closed = store_of(**options(server, endpoint=f"http://127.0.0.1:{unused_tcp_port}"))
    follow(await failing(closed)).asks("Check the network and the `endpoint`")

    async def break_off(request: web.Request) -> None:
        if request.host.startswith(BUCKET):
            assert request.transport is not None
            request.transport.abort()

    server.fault = break_off
    address = server.url.replace("127.0.0.1", "localhost")
    by_host = store_of(**options(server, endpoint=address, path_style=False))
    follow(await failing(by_host)).asks("`path_style = true`")
    await store_of(**options(server, endpoint=address, path_style=True)).put("a", b"1")


@pytest.mark.follows("outbound/destinations/bucket:_call")
async def test_a_slow_service_gets_more_time(server: S3Server, follow: Follow) -> None:
    async def wait(_: web.Request) -> None:
        await asyncio.sleep(0.6)

    server.fault = wait
    step = follow(await failing(store_of(**options(server, timeout_s=1))))
    step.asks("raise its `timeout_s`")
    assert "path_style" not in step.text
    await store_of(**options(server, timeout_s=9)).put("a", b"1")


async def test_a_refused_connection_asks_for_no_other_address(
    server: S3Server, unused_tcp_port: int
) -> None:
    closed = f"http://127.0.0.1:{unused_tcp_port}"
    hint = await failing(store_of(**options(server, endpoint=closed)))
    assert "`endpoint`" in hint
    assert "path_style" not in hint


@pytest.mark.follows("outbound/destinations/bucket:_explained")
async def test_a_prefix_leaves_out_the_objects_of_others(server: S3Server, follow: Follow) -> None:
    server.objects = {"b//c": b""}
    with pytest.raises(ExportFailed) as failed:
        await store_of(**options(server)).list("b")
    [url] = [text for text in follow(failed.value.hint).quoted if text.startswith("s3:")]
    store = store_of(**options(server, url=url.replace("BUCKET", BUCKET)))
    await store.put("a", b"1")
    assert [entry.name for entry in await store.list("")] == ["a"]


@pytest.mark.follows("outbound/destinations/s3:build", "outbound/destinations/endpoint:*")
async def test_the_settings_of_a_bucket_are_completed(server: S3Server, follow: Follow) -> None:
    def refused_step(**changed: object) -> Step:
        with pytest.raises(SettingsError) as raised:
            store_of(**options(server, **changed))
        assert SECRET not in raised.value.message
        return follow(raised.value.hint)

    step = refused_step(secret_access_key=None)
    step.asks("`secret_access_key`", "AWS_SECRET_ACCESS_KEY")
    refused_step(url="s3://user@copies").asks("s3://BUCKET/PREFIX")
    for wrong in ("storage.example.org", f"https://{SECRET}@s3.example.org"):
        refused_step(endpoint=wrong).asks("such as https://storage.example.org")
    refused_step(endpoint="http://s3.example.org").asks("https://", "`allow_http = true`")
    refused_step(path_style="perhaps").asks("true or false")

    store_of(**options(server, endpoint="http://s3.example.org", allow_http=True))
    store_of(**options(server, endpoint="https://s3.example.org", path_style=True))
    await store_of(**options(server, url=f"s3://{BUCKET}/prefix")).put("a", b"1")
    assert server.objects == {"prefix/a": b"1"}


@pytest.mark.follows("outbound/extra:_missing")
def test_a_missing_library_is_installed(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(SettingsError) as raised:
        store_of()
    assert follow(raised.value.hint).quoted == ["pip install 'seline[s3]'"]


@pytest.mark.prove
@pytest.mark.follows("operations/destinations:_another#2")
async def test_a_bucket_that_was_emptied_is_used_again(
    server: S3Server, tmp_path: Path, follow: Follow
) -> None:
    table = options(server, name="off-site", url=f"s3://{BUCKET}", mode="mirror")
    line = line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps([table]))

    def steps() -> None:
        line("save", "a.json", stdin="[1]")
        assert line("jobs", "run", "mirror").code == 0
        assert line("jobs", "run", "drill").code == 0
        assert "last proven restorable" in bucket_check(line)["detail"]
        server.objects.clear()
        failed = line("jobs", "run", "mirror")
        assert (failed.code, "no marker of Seline's" in failed.out) == (1, True)
        detail = bucket_check(line)["detail"]
        assert "earlier copies are not counted" in detail
        assert "newest copy is of" not in detail
        assert "last proven" not in detail
        step = follow(bucket_check(line)["fix"])
        step.asks("Correct its `url`", "If it was emptied or replaced")
        use, again = step.commands()
        assert "No copy of this volume" in (taken := run(line, use).err)
        assert taken.partition("Next: ")[2].strip() == again
        assert run(line, again).code == 0
        assert bucket_check(line)["status"] == "ok"

    await asyncio.to_thread(steps)


@pytest.mark.prove
@pytest.mark.follows("alert:copy_unreadable", "domain/incident:#2")
async def test_a_copy_that_a_key_could_not_read_is_restored_with_another_one(
    server: S3Server, tmp_path: Path, follow: Follow
) -> None:
    table = options(server, name="off-site", url=f"s3://{BUCKET}", mode="mirror")
    arguments = {"storage.data_dir": str(tmp_path / "data"), "exports.destinations": [table]}
    settings = load_settings(environ={}, arguments=arguments)
    async with serving(settings, http=False) as bot:
        await bot.acquired()
        await bot.data.save_json("a.json", [1])
        await bot.operations.mirrors.run()
    shutil.rmtree(tmp_path / "data")

    async def only_writes(request: web.Request) -> web.Response | None:
        return refused(403, "AccessDenied") if request.method == "GET" else None

    server.fault = only_writes
    for starts_empty in (True, False):
        async with serving(settings, http=False) as bot:
            await bot.acquired()
            assert [info.name for info in await bot.data.documents()] == ["b.json"] * (
                not starts_empty
            )
            found = {check["name"]: check for check in (await bot.operations.health())["checks"]}
            assert ("copy_unreadable" in found) is starts_empty, "it says so once"
            if starts_empty:
                await bot.data.save_json("b.json", [2])
                check = found["copy_unreadable"]
                assert "off-site refuses to be read, so no copy was looked for" in check["detail"]
                while not bot.alerts.log.listing():
                    await asyncio.sleep(0.01)
                alert = bot.alerts.log.listing()[0]
                assert "off-site refuses to be read" in alert.summary
    steps = [follow(check["fix"]), follow(alert.fix)]
    server.fault = None  # a key that may read
    line = line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps([table]))
    for step in steps:
        step.asks("a key that may read")
        [command] = step.commands(NAME="off-site")
        ran = await asyncio.to_thread(run, line, f"{command} --yes")
        assert ran.code == 0, ran.err
    assert {info.name for info in await documents(tmp_path)} == {"a.json", "b.json"}


async def documents(tmp_path: Path) -> list[Any]:
    async with open_seline(tmp_path / "data") as seline:
        return await seline.data.documents()
