"""The next steps in answers of the admin API: the request that they describe is answered."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from seline.commands import control_socket_path
from seline.http import requests
from seline.http.routes import PREFIX
from seline.logs import logged_fields
from seline.operations.operations import Operations
from seline.server import Serving, serving
from tests.command_line import line_at
from tests.faults.test_locking import start_holder, stop_holder
from tests.hints.following import Step, run
from tests.http_client import ADMIN, NAME, Client, settings_for

AT: Final = f"/documents/{NAME}"
BEARER: Final = f"Authorization: Bearer {ADMIN}\r\n"
Follow = Callable[[str], Step]


@pytest.fixture
async def client(server: Serving) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        client = Client(session, server.address)
        await done(client.call("PUT", AT, {"n": 1}))
        yield client


async def refused(answer: Awaitable[tuple[int, Any, Any]]) -> str:
    """Return the next step of an answer that refuses the request."""
    status, problem, _ = await answer
    assert status >= 400, status
    return str(problem["hint"])


async def done(answer: Awaitable[tuple[int, Any, Any]]) -> Any:
    """Return the body of an answer that is no refusal."""
    status, body, _ = await answer
    assert status < 300, body
    return body


def headers_of(step: Step) -> dict[str, str]:
    """Return the headers that the text gives, as arguments of `Client.call`."""
    pairs = (quoted.partition(": ") for quoted in step.quoted)
    headers = {name.replace("-", "_"): value for name, colon, value in pairs if colon}
    assert headers, step.text
    return headers


# a request that is corrected


@pytest.mark.follows("error:invalid_request")
async def test_a_parameter_that_is_named_is_left_out(client: Client, follow: Follow) -> None:
    _, problem, _ = await client.call("GET", f"{AT}?pretty=1")
    follow(problem["hint"]).asks("Correct what is named")
    [named] = problem["fields"]

    await done(client.call("GET", f"{AT}?pretty=1".replace(f"?{named}=1", "")))


@pytest.mark.follows("http/requests:check_json")
async def test_a_body_is_declared_as_json(client: Client, follow: Follow) -> None:
    await done(client.call("PUT", AT, {"n": 2}))
    restore = {"filename": NAME}
    plain = {"Content_Type": "text/plain"}
    step = follow(await refused(client.call("POST", "/restore-backup", restore, **plain)))

    await done(client.call("POST", "/restore-backup", restore, **headers_of(step)))


@pytest.mark.follows("http/requests:body_pieces")
async def test_the_body_is_sent_as_the_text_says(
    server: Serving, client: Client, tmp_path: Path, follow: Follow
) -> None:
    step = follow(await refused(client.call("PUT", AT, b"")))
    [curl] = step.quoted
    (tmp_path / "profile.json").write_text('{"n": 2}')
    words = curl.replace("FILE", "profile.json").split()
    sent = await asyncio.create_subprocess_exec(
        *words, "--silent", "--fail", "--request", "PUT", "--header", BEARER.strip(),
        "--header", "Content-Type: application/json", server.address + PREFIX + AT,
        cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await sent.wait() == 0

    assert await done(client.call("GET", AT)) == {"n": 2}


@pytest.mark.follows("error:unsupported_coding")
async def test_a_body_is_sent_without_a_coding(client: Client, follow: Follow) -> None:
    coded = {"Content_Encoding": "gzip"}
    step = follow(await refused(client.call("PUT", AT, {"n": 2}, **coded)))
    step.asks("Send the body as it is")
    for name in step.quoted:
        del coded[name.replace("-", "_")]

    await done(client.call("PUT", AT, {"n": 2}, **coded))


@pytest.mark.follows("error:unsupported_media_type")
async def test_a_patch_is_declared_as_a_merge_patch(client: Client, follow: Follow) -> None:
    plain = {"Content_Type": "application/json"}
    step = follow(await refused(client.call("PATCH", AT, {"m": 2}, **plain)))

    await done(client.call("PATCH", AT, {"m": 2}, **headers_of(step)))
    assert await done(client.call("GET", AT)) == {"n": 1, "m": 2}


@pytest.mark.follows("error:request_too_large", "http/requests:_large")
async def test_a_large_body_is_split_saved_on_the_machine_or_allowed(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {str(number): "x" * 100 for number in range(16)}
    monkeypatch.setattr(requests, "VALUES_MAX", 20)
    monkeypatch.setattr(requests, "INLINE_BYTES_MAX", 0)
    limit = {"storage__document_bytes_max": 1024}
    async with (
        serving(settings_for(tmp_path / "data", **limit)) as running,
        aiohttp.ClientSession() as session,
    ):
        await running.acquired()
        client = Client(session, running.address)
        large = follow(await refused(client.call("PUT", AT, value)))
        large.asks("Split it into several documents", "raise")
        many = follow(await refused(client.call("PUT", AT, [{}] * 40)))
        many.asks("Split it into several documents", "save it on the machine itself")

        for key, part in value.items():
            await done(client.call("PUT", f"/documents/part-{key}.json", {key: part}))
        line = line_at(tmp_path)
        here = await asyncio.to_thread(line, "save", NAME, stdin=json.dumps([{}] * 40))
        assert here.code == 0, here.err
    [setting] = large.quoted
    higher = {setting.replace(".", "__"): 4096}
    monkeypatch.undo()
    async with (
        serving(settings_for(tmp_path / "data", **higher)) as running,
        aiohttp.ClientSession() as session,
    ):
        await running.acquired()
        await done(Client(session, running.address).call("PUT", AT, value))


@pytest.mark.follows("error:route_not_found", "error:method_not_allowed")
async def test_an_address_is_corrected(client: Client, follow: Follow) -> None:
    for method, path in (("GET", "/document/a.json"), ("POST", AT)):
        follow(await refused(client.call(method, path))).asks("Check the address")

    await done(client.call("GET", AT))


@pytest.mark.follows("http/problems:unexpected")
async def test_the_log_has_the_line_of_an_unexpected_error(
    client: Client, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    logged: list[str] = []

    class Ids(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(logged_fields()["request_id"])

    handler = Ids(level=logging.ERROR)
    monkeypatch.setattr(Operations, "health", _defect)
    logging.getLogger().addHandler(handler)
    try:
        _, problem, headers = await client.call("GET", "/health")
    finally:
        logging.getLogger().removeHandler(handler)

    follow(problem["hint"]).asks("Look at the log line with this request's id")

    assert logged == [headers["X-Request-Id"]]


def _defect(_operations: Operations) -> None:
    raise ZeroDivisionError


# preconditions


@pytest.mark.follows("http/requests:check_conditions", "http/requests:check_conditions#2")
async def test_a_precondition_is_one_that_the_route_judges(client: Client, follow: Follow) -> None:
    date = {"If_Unmodified_Since": "Mon, 06 Jan 2025 14:30:22 GMT"}
    judged = follow(await refused(client.call("PUT", AT, {"n": 2}, **date)))
    judged.asks("Send `If-Match` with the ETag of your last read")
    etag = (await client.call("GET", AT))[2]["ETag"]
    await done(client.call("PUT", AT, {"n": 2}, **{judged.quoted[0].replace("-", "_"): etag}))

    body = {"files": {NAME: {"n": 3}}}
    unjudged = follow(await refused(client.call("POST", "/import", body, If_Match=etag)))
    unjudged.asks("Send it without")
    shown = await done(client.call("POST", f"/import?{unjudged.quoted[0]}", body))
    assert shown["changed"] == [NAME]
    await done(client.call("POST", "/import", body))


@pytest.mark.follows("http/documents:_under")
async def test_a_document_is_created_under_the_other_condition(
    client: Client, follow: Follow
) -> None:
    step = follow(await refused(client.call("PUT", "/documents/new.json", {}, If_Match="*")))
    step.asks("instead, or neither")

    await done(client.call("PUT", "/documents/new.json", {}, **headers_of(step)))
    await done(client.call("PUT", "/documents/newer.json", {}))


@pytest.mark.follows("http/requests:check_read", "http/requests:_tags")
async def test_a_read_or_a_change_is_sent_as_the_text_says(client: Client, follow: Follow) -> None:
    read = follow(await refused(client.call("GET", AT, If_Match='"other"')))
    read.asks("Read it without `If-Match`")
    etag = (await client.call("GET", AT))[2]["ETag"]

    weak = f"W/{etag}"
    step = follow(await refused(client.call("PUT", AT, {"n": 2}, If_Match=weak)))
    step.asks("Send the ETag of the read on which the change is based, without")
    await done(client.call("PUT", AT, {"n": 2}, If_Match=weak.removeprefix(step.quoted[0])))


# imports


@pytest.mark.follows(
    "domain/readable_export:only_named",
    "domain/readable_export:only_named#2",
    "domain/readable_export:is_replace",
    "error:import_refused",
)
async def test_an_import_is_corrected(client: Client, follow: Follow) -> None:
    body = {"files": {NAME: {"n": 2}, "b.json": {}}}
    both = follow(await refused(client.call("POST", f"/import?only={NAME}&mode=replace", body)))
    both.asks("Leave `replace` out")
    await done(client.call("POST", f"/import?only={NAME}", body))

    none = follow(await refused(client.call("POST", "/import?only=c.json", body)))
    none.asks("A dry run without `only` lists what it holds")
    held = await done(client.call("POST", "/import?dry_run=true", body))
    assert {*held["created"], *held["changed"], *held["unchanged"]} == set(body["files"])

    mode = follow(await refused(client.call("POST", "/import?mode=all", body)))
    for word in mode.quoted:
        await done(client.call("POST", f"/import?mode={word}", body))

    wrong = {"files": {"a b.json": {}}}
    _, problem, _ = await client.call("POST", "/import", wrong)
    step = follow(problem["hint"])
    step.asks("Correct what is named, then import again")
    mended = {"files": {name.replace(" ", "_"): {} for name in problem["names"]}}
    query = step.quoted[0].removeprefix("--").replace("-", "_")
    assert (await done(client.call("POST", f"/import?{query}=true", mended)))["dry_run"]
    await done(client.call("POST", "/import", mended))


# HTTP itself


async def raw(server: Serving, *parts: str, pause_s: float = 0.0) -> tuple[int, Any]:
    """Send a request in parts; return the status and the body of the answer."""
    host, port = server.address.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    for part in parts:
        writer.write(part.encode())
        await asyncio.sleep(pause_s)
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if " 100 " in head.splitlines()[0]:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
    writer.close()
    return int(head.split()[1]), json.loads(body)


def get(*lines: str) -> str:
    return "\r\n".join([f"GET {PREFIX}{AT} HTTP/1.1", "Host: 127.0.0.1", BEARER + "X: y", *lines,
                        "", ""])  # fmt: skip


def put(*lines: str, body: str = '{"n": 2}') -> list[str]:
    """Return the head and the body of a request."""
    head = get(f"Content-Length: {len(body)}", *lines).replace("GET", "PUT", 1)
    return [head, body]


@pytest.mark.follows("error:malformed_request")
async def test_a_head_within_the_limit_is_answered(
    server: Serving, client: Client, follow: Follow
) -> None:
    status, problem = await raw(server, get("no colon"))
    assert status == 400
    step = follow(problem["hint"])
    step.asks("Send HTTP/1.1", "bytes a line")
    limit = re.search(r"at most (\d+) bytes", step.text)
    assert limit is not None

    assert (await raw(server, get("Long: ".ljust(int(limit[1]), "x"))))[0] == 200
    assert (await raw(server, get("Long: ".ljust(int(limit[1]) + 100, "x"))))[0] == 400


@pytest.mark.follows("error:expectation_failed")
async def test_an_expectation_that_is_named_is_met(
    server: Serving, client: Client, follow: Follow
) -> None:
    status, problem = await raw(server, *put("Expect: a-miracle"))
    assert status == 417
    step = follow(problem["hint"])
    step.asks("Send it without `Expect`, or with")

    for lines in ([], [step.quoted[-1]]):
        assert (await raw(server, *put(*lines)))[0] == 200


@pytest.mark.follows("error:request_timed_out")
async def test_a_request_that_is_sent_faster_is_answered(
    server: Serving, client: Client, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(requests, "BODY_S", 0.1)
        patch.setattr(requests, "BODY_BYTES_PER_S", 1000)
        status, problem = await raw(server, *put(), pause_s=0.5)
    assert status == 408
    follow(problem["hint"]).asks("Send it again over a faster connection")

    assert (await raw(server, *put()))[0] == 200


# who may call


@pytest.mark.follows("error:unauthorized", "error:forbidden", "error:too_many_requests")
async def test_a_token_is_made_as_the_text_says(
    server: Serving, client: Client, tmp_path: Path, follow: Follow
) -> None:
    line = line_at(tmp_path)

    async def token(step: Step) -> str:
        [command] = step.commands()
        made = await asyncio.to_thread(run, line, command)
        assert made.code == 0, made.err
        return f"Bearer {made.out.strip()}"

    unknown = follow(await refused(client.call("PUT", AT, {"n": 2}, Authorization="Bearer x")))
    unknown.asks("Send a valid token", "SELINE_TOKEN", "SELINE_ADMIN_TOKEN")
    made = await token(unknown)
    await done(client.call("PUT", AT, {"n": 2}, Authorization=made))
    for variable in ("SELINE_TOKEN", "SELINE_ADMIN_TOKEN"):
        secret = {variable: made.removeprefix("Bearer ")}
        called = await asyncio.to_thread(line, "load", NAME, "--url", server.address, **secret)
        assert called.code == 0, called.err

    reader = await asyncio.to_thread(run, line, "seline token create --scope read")
    read = f"Bearer {reader.out.strip()}"
    small = follow(await refused(client.call("PUT", AT, {"n": 3}, Authorization=read)))
    small.asks("Use a token with scope `admin`")
    await done(client.call("PUT", AT, {"n": 3}, Authorization=await token(small)))

    wrong = {"Authorization": "Bearer wrong"}
    while (await client.call("GET", AT, **wrong))[0] == 401:
        pass
    many = follow(await refused(client.call("GET", AT, **wrong)))
    many.asks("Wait a minute, then try again", "a valid token is accepted at any time")
    await done(client.call("GET", AT, Authorization=made))


@pytest.mark.follows("http/access:_authenticate", "http/access:refuse_token_in_address")
async def test_a_token_is_sent_and_managed_where_the_text_says(
    client: Client, tmp_path: Path, follow: Follow
) -> None:
    line = line_at(tmp_path)
    made = (await asyncio.to_thread(line, "token", "create", "--json")).value()
    in_address = follow(await refused(client.call("GET", f"{AT}?token={made['token']}")))
    in_address.asks("and revoke this one")
    [header] = headers_of(in_address).items()
    sent = {header[0]: header[1].replace("…", made["token"])}
    await done(client.call("GET", AT, **sent))
    revoked = await asyncio.to_thread(line, "token", "revoke", made["id"], "--yes")
    assert revoked.code == 0
    assert (await client.call("GET", AT, **sent))[0] == 401

    elsewhere = follow(await refused(client.call("GET", "/tokens")))
    elsewhere.asks("On the machine itself")
    listed = await asyncio.to_thread(run, line, elsewhere.commands()[0])
    assert listed.code == 0, listed.err


@pytest.mark.follows("http/access:check_browser#2")
async def test_a_page_of_another_site_is_no_program(client: Client, follow: Follow) -> None:
    origin = {"Origin": "https://example.org"}
    follow(await refused(client.call("GET", AT, **origin))).asks("Call it from a program")

    await done(client.call("GET", AT))


@pytest.mark.follows("access/tokens:create")
async def test_a_scope_is_one_of_those_named(server: Serving, follow: Follow) -> None:
    connector = aiohttp.UnixConnector(path=control_socket_path(server.data_dir))
    async with aiohttp.ClientSession(connector=connector) as session:
        client = Client(session, "http://localhost")
        step = follow(await refused(client.call("POST", "/tokens", {"scope": "all"})))
        for scope in step.quoted:
            await done(client.call("POST", "/tokens", {"scope": scope}))


@pytest.mark.prove
@pytest.mark.follows("access/tokens:grant")
async def test_a_stored_token_is_accepted_once_the_volume_is_open(
    tmp_path: Path, follow: Follow
) -> None:
    data = tmp_path / "data"
    line = line_at(tmp_path)
    secret = (await asyncio.to_thread(line, "token", "create")).out.strip()
    holder = await asyncio.to_thread(start_holder, data)
    async with serving(settings_for(data)) as running, aiohttp.ClientSession() as session:
        client = Client(session, running.address)
        step = follow(
            await refused(client.call("GET", "/health", Authorization=f"Bearer {secret}"))
        )
        step.asks("Try again in a moment", "answers 200 once it is open")
        await asyncio.to_thread(stop_holder, holder)
        async with asyncio.timeout(20):
            while (await session.get(running.address + step.quoted[0])).status != 200:
                await asyncio.sleep(0.05)
        await done(client.call("GET", "/health", Authorization=f"Bearer {secret}"))


@pytest.mark.follows("http/access:check_browser")
async def test_a_server_for_this_machine_is_called_by_its_own_name(
    server: Serving, client: Client, follow: Follow
) -> None:
    def asking(host: str) -> str:
        return get().replace("Host: 127.0.0.1", f"Host: {host}")

    status, problem = await raw(server, asking("bot.example.org"))
    assert status == 403
    step = follow(problem["hint"])
    address = re.search(r"http://([\d.]+):(\d+)", step.text)
    assert address is not None
    assert server.address.endswith(f":{address[2]}")

    assert (await raw(server, asking(address[1])))[0] == 200


@pytest.mark.follows("server/serving:_unavailable")
async def test_a_request_at_the_end_of_a_server_is_sent_to_the_next_one(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings_for(tmp_path)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        client = Client(session, running.address)
        await done(client.call("PUT", AT, {"n": 1}))
        stopping = asyncio.ensure_future(running.close())
        await asyncio.sleep(0)
        follow(await refused(client.call("GET", AT))).asks("Try again in a moment")
        await stopping
    async with serving(settings_for(tmp_path)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        assert await done(Client(session, running.address).call("GET", AT)) == {"n": 1}


@pytest.mark.follows("domain/export_reader:_grow")
async def test_a_document_that_is_too_large_to_import_is_split(
    tmp_path: Path, follow: Follow
) -> None:
    value = {str(number): "x" * 100_000 for number in range(40)}
    limit = {"storage__document_bytes_max": 200_000}
    async with (
        serving(settings_for(tmp_path / "data", **limit)) as running,
        aiohttp.ClientSession() as session,
    ):
        await running.acquired()
        client = Client(session, running.address)
        large = {"files": {NAME: value}}
        follow(await refused(client.call("POST", "/import", large))).asks("Split the document")
        parts = {f"part-{key}.json": {key: part} for key, part in value.items()}
        await done(client.call("POST", "/import", {"files": parts}))
