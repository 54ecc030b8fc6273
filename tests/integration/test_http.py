"""Test the admin API on a real socket: routes, preconditions, authentication and limits."""

import asyncio
import errno
import gzip
import itertools
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from seline import errors, open_seline
from seline.access import audit
from seline.clock import Clock
from seline.commands import control_socket_path
from seline.errors import SelineError, SettingsError, VolumeLocked
from seline.http import files
from seline.http.problems import STATUS_FOR
from seline.http.routes import PREFIX, ROUTES, Route
from seline.server import Serving, alone, serving
from seline.settings import truth
from seline.storage.volume.lock import read_holder
from seline.storage.volume.os_errors import named
from seline.storage.volume.snapshots import PIECE_BYTES
from tests.faults.test_locking import start_holder, stop_holder
from tests.http_client import ADMIN, NAME, Client, settings_for


async def test_health_has_the_documented_shape(client: Client, tmp_path: Path) -> None:
    status, body, headers = await client.call("GET", "/health")
    assert status == 200
    assert body["status"] in ("healthy", "warning", "critical")
    assert body["mount_path"] == str(tmp_path / "data")
    assert {"total_size_mb", "backup_size_mb", "backup_count", "metadata"} <= set(body)
    assert body["metadata"]["schema_version"] == "1.0.0"
    assert all({"name", "status", "detail", "fix"} == set(check) for check in body["checks"])
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


async def test_storage_info_has_the_documented_shape(client: Client) -> None:
    await client.call("PUT", f"/documents/{NAME}", {"a": 1})
    await client.call("PUT", f"/documents/{NAME}", {"a": 2})
    _, body, _ = await client.call("GET", "/storage-info")
    assert set(body) == {"mount_path", "data_files", "backups", "summary"}
    assert {"name", "size_kb"} <= set(body["data_files"][0])
    assert {"name", "document", "size_kb", "taken_at"} <= set(body["backups"][0])
    assert {"total_size_mb", "usage_percent", "volume_limit_mb"} <= set(body["summary"])


async def test_export_has_the_documented_shape_and_can_be_imported(client: Client) -> None:
    await client.call("PUT", f"/documents/{NAME}", {"nom": "Zoé"})
    await client.call("PUT", "/documents/list.json", [1, 2])
    status, export, _ = await client.call("GET", "/export")
    assert (status, export["success"]) == (200, True)
    assert export["data"]["files"] == {NAME: {"nom": "Zoé"}, "list.json": [1, 2]}
    await client.call("DELETE", "/documents/list.json")
    status, dry, _ = await client.call("POST", "/import?mode=merge&dry_run=true", export)
    assert (status, dry["created"], dry["dry_run"]) == (200, ["list.json"], True)
    assert (await client.call("GET", "/documents/list.json"))[0] == 404
    await client.call("POST", "/import", export)
    assert (await client.call("GET", "/documents/list.json"))[1] == [1, 2]


async def test_an_import_of_one_document_leaves_the_others_alone(client: Client) -> None:
    export = {"files": {NAME: {"n": 1}, "list.json": [1]}}
    await client.call("PUT", "/documents/list.json", [2])

    status, done, _ = await client.call("POST", f"/import?only={NAME}", export)
    refused, why, _ = await client.call("POST", "/import?only=none.json", export)

    assert (status, done["created"], done["changed"]) == (200, [NAME], [])
    assert (await client.call("GET", "/documents/list.json"))[1] == [2]
    assert (refused, why["code"], "none.json" in why["detail"]) == (422, "import_refused", True)


async def test_a_number_beyond_a_float_comes_back_as_it_was_sent(client: Client) -> None:
    body = b'{"wei": 0.123456789012345678}'
    stored = b'{\n  "wei": 0.123456789012345678\n}\n'
    await client.call("PUT", f"/documents/{NAME}", body)
    export = b'{"files": {"list.json": ' + body + b"}}"
    await client.call("POST", "/import", export)

    for name in (NAME, "list.json"):
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with client.session.get(f"{client.base}/documents/{name}", headers=headers) as found:
            assert await found.read() == stored


async def test_restore_backup_has_the_documented_shape_and_can_be_undone(client: Client) -> None:
    for number in range(2):
        await client.call("PUT", f"/documents/{NAME}", {"n": number})
    status, body, _ = await client.call("POST", "/restore-backup", {"filename": NAME})
    assert (status, body["success"]) == (200, True)
    assert body["restored"]["document"] == NAME
    assert (await client.call("GET", f"/documents/{NAME}"))[1] == {"n": 0}
    [undo] = body["undo"]
    await client.call("POST", "/restore-backup", undo["body"])
    assert (await client.call("GET", f"/documents/{NAME}"))[1] == {"n": 1}


async def test_a_restore_without_a_backup_is_404(client: Client) -> None:
    status, body, headers = await client.call("POST", "/restore-backup", {"filename": NAME})
    assert (status, body["code"]) == (404, "backup_not_found")
    assert headers["Content-Type"].startswith("application/problem+json")
    assert body["type"] == "urn:seline:error:backup_not_found"
    assert body["hint"]


async def test_etags_decide_conditional_requests(client: Client) -> None:
    path = f"/documents/{NAME}"
    status, _, headers = await client.call("PUT", path, {"n": 1}, If_None_Match="*")
    first = headers["ETag"]
    assert status == 201
    assert (await client.call("PUT", path, {"n": 2}, If_None_Match="*"))[0] == 412
    status, _, headers = await client.call("PUT", path, {"n": 2}, If_Match=first)
    assert status == 200
    stale, body, _ = await client.call("PUT", path, {"n": 3}, If_Match=first)
    assert (stale, body["current"]) == (412, headers["ETag"].strip('"'))
    assert (await client.call("GET", path, If_None_Match=headers["ETag"]))[0] == 304
    assert (await client.call("GET", path))[2]["ETag"] == headers["ETag"]
    assert (await client.call("PUT", path, {"n": 3}, If_Match='W/"x"'))[0] == 422
    assert (await client.call("DELETE", path, If_Match=first))[0] == 412
    assert (await client.call("DELETE", path, If_Match=headers["ETag"]))[0] == 200


async def test_if_match_star_requires_an_existing_document(client: Client) -> None:
    path = f"/documents/{NAME}"
    status, body, _ = await client.call("PUT", path, {"n": 1}, If_Match="*")
    assert (status, body["code"], "current" in body) == (412, "revision_mismatch", False)
    assert "If-None-Match: *" in body["hint"]
    assert (await client.call("GET", path))[0] == 404
    await client.call("PUT", path, {"n": 1})
    assert (await client.call("PUT", path, {"n": 2}, If_Match="*"))[0] == 200
    puts = [client.call("PUT", path, {"n": number}, If_Match="*") for number in range(20)]
    assert {response[0] for response in await asyncio.gather(*puts)} == {200}
    assert (await client.call("DELETE", path, If_Match="*"))[0] == 200
    assert (await client.call("DELETE", path, If_Match="*"))[0] == 404


@pytest.mark.parametrize("tag", ['"abc"', '"*"', '""', '"a,b", "c"', '"' + "0" * 64 + '"'])
async def test_an_etag_other_than_the_current_one_is_412(client: Client, tag: str) -> None:
    path = f"/documents/{NAME}"
    assert (await client.call("PUT", path, {"n": 1}, If_Match=tag))[0] == 412
    _, saved, _ = await client.call("PUT", path, {"n": 1})
    for method, content in (("PUT", {"n": 2}), ("DELETE", None)):
        status, body, _ = await client.call(method, path, content, If_Match=tag)
        assert (status, body["current"]) == (412, saved["revision"])
    assert (await client.call("GET", path))[1] == {"n": 1}


async def test_one_matching_etag_of_several_is_enough(client: Client) -> None:
    path = f"/documents/{NAME}"
    tag = (await client.call("PUT", path, {"n": 1}))[2]["ETag"]
    assert (await client.call("PUT", path, {"n": 2}, If_Match=f'"abc" , {tag}'))[0] == 200
    assert (await client.call("PUT", path, {"n": 3}, If_Match=f'"abc", {tag}'))[0] == 412


@pytest.mark.parametrize("tag", ["abc", 'W/"x"', '"abc', '"a" "b"', "*, *", '"a", *', ""])
async def test_a_malformed_if_match_is_refused_and_named(client: Client, tag: str) -> None:
    status, body, _ = await client.call("PUT", f"/documents/{NAME}", {"n": 1}, If_Match=tag)
    assert (status, body["code"]) == (422, "invalid_request")
    assert "If-Match" in body["detail"]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("method", "path", "condition"),
    [
        ("PUT", f"/documents/{NAME}", "If-Unmodified-Since"),
        ("DELETE", f"/documents/{NAME}", "If-Unmodified-Since"),
        *[
            (method, path, condition)
            for condition in ("If-Match", "If-None-Match", "If-Unmodified-Since")
            for method, path in (
                ("POST", "/import"),
                ("POST", "/prune"),
                ("POST", f"/documents/{NAME}/reset"),
            )
        ],
    ],
)
async def test_a_precondition_that_a_change_does_not_judge_is_refused(
    client: Client, method: str, path: str, condition: str
) -> None:
    await client.call("PUT", f"/documents/{NAME}", {"n": 1})
    await client.call("PUT", f"/documents/{NAME}", {"n": 2})
    value = "Wed, 01 Jan 2020 00:00:00 GMT" if condition.endswith("Since") else '"abc"'
    content = None if method == "DELETE" else {"filename": NAME, "files": {}}
    status, body, _ = await client.call(method, path, content, **{condition: value})
    assert (status, body["fields"]) == (422, [condition])
    assert (await client.call("GET", f"/documents/{NAME}"))[1] == {"n": 2}


async def test_if_match_decides_over_if_unmodified_since(client: Client) -> None:
    path, long_ago = f"/documents/{NAME}", "Wed, 01 Jan 2020 00:00:00 GMT"
    tag = (await client.call("PUT", path, {"n": 1}))[2]["ETag"]
    conditions = {"If_Match": tag, "If_Unmodified_Since": long_ago}
    assert (await client.call("PUT", path, {"n": 2}, **conditions))[0] == 200
    assert (await client.call("PUT", path, {"n": 3}, **conditions))[0] == 412


async def test_a_read_judges_if_match_and_every_line_of_if_none_match(
    server: Serving, client: Client
) -> None:
    path = f"/documents/{NAME}"
    tag = (await client.call("PUT", path, {"n": 1}))[2]["ETag"]
    assert (await client.call("GET", path, If_Match=tag))[0] == 200
    assert (await client.call("GET", path, If_Match="*"))[0] == 200
    assert (await client.call("GET", path, If_Match='"abc"'))[0] == 412
    headers = [("Authorization", f"Bearer {ADMIN}"), ("If-None-Match", '"abc"')]
    headers.append(("If-None-Match", tag))
    async with client.session.get(client.base + path, headers=headers) as response:
        assert response.status == 304


async def test_one_of_several_racing_puts_creates_the_document(client: Client) -> None:
    for round_number in range(5):
        path = f"/documents/d{round_number}.json"
        puts = [client.call("PUT", path, {"n": number}) for number in range(10)]
        answers = await asyncio.gather(*puts)
        assert sorted(answer[0] for answer in answers) == [200] * 9 + [201]
        assert [answer[1]["created"] for answer in answers].count(True) == 1


@pytest.mark.usefixtures("files_at_once")
async def test_last_modified_is_never_later_than_date(client: Client, tmp_path: Path) -> None:
    path = f"/documents/{NAME}"
    await client.call("PUT", path, {"n": 1})
    _, _, headers = await client.call("GET", path)
    assert _instant(headers["Last-Modified"]) <= _instant(headers["Date"])
    ahead_s = time.time() + 3600
    os.utime(tmp_path / "data" / NAME, (ahead_s, ahead_s))
    _, _, headers = await client.call("GET", path)
    assert _instant(headers["Last-Modified"]) <= _instant(headers["Date"])


def _instant(header: str) -> datetime:
    return parsedate_to_datetime(header)


CODINGS = ("gzip", "GZIP", "deflate", "br", "zstd", "unknown", "identity, gzip")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("body", [b'{"a": 1}', gzip.compress(b'{"a": 1}')], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("method", "path"), [("PUT", f"/documents/{NAME}"), ("POST", "/import"), ("POST", "/verify")]
)
async def test_a_body_with_a_content_coding_is_refused_after_authentication(
    client: Client,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    body: bytes,
    coding: str,
) -> None:
    headers, url = {"Content-Encoding": coding}, client.base + path
    async with client.session.request(method, url, data=body, headers=headers) as response:
        assert response.status == 401
        assert (await response.json())["code"] == "unauthorized"
    status, problem, answer_headers = await client.call(method, path, body, Content_Encoding=coding)
    assert (status, problem["code"]) == (415, "unsupported_coding")
    assert answer_headers["Content-Type"].startswith("application/problem+json")
    assert answer_headers["Accept-Encoding"] == "identity"
    assert "Content-Encoding" in problem["hint"]
    assert (await client.call("GET", "/documents"))[1] == {"documents": []}
    assert [record for record in caplog.records if record.exc_info] == []


async def test_the_identity_content_coding_is_accepted(client: Client) -> None:
    path = f"/documents/{NAME}"
    assert (await client.call("PUT", path, {"n": 1}, Content_Encoding="Identity"))[0] == 201
    assert (await client.call("GET", path, Content_Encoding="gzip"))[1] == {"n": 1}


@pytest.mark.parametrize("path", [f"/documents/{NAME}", "/import"])
async def test_an_empty_body_is_reported_as_empty(client: Client, path: str) -> None:
    method = "PUT" if path.startswith("/documents") else "POST"
    status, body, _ = await client.call(method, path, b"")
    assert status == 422
    assert "empty body" in body["detail"]
    assert "file" not in body["detail"]


async def test_a_control_socket_route_explains_where_it_is_served(client: Client) -> None:
    status, body, _ = await client.call("GET", "/tokens")
    assert (status, body["code"]) == (404, "route_not_found")
    assert "the machine itself: `seline token list` beside the server" in body["hint"]
    assert "on Railway: `railway ssh`" in body["hint"]


async def test_backups_can_be_read_and_pinned(client: Client) -> None:
    for number in range(2):
        await client.call("PUT", f"/documents/{NAME}", {"n": number})
    _, body, _ = await client.call("GET", f"/documents/{NAME}/backups")
    [backup] = body["backups"]
    path = f"/documents/{NAME}/backups/{backup['name']}"
    assert (await client.call("GET", path))[1] == {"n": 0}
    assert (await client.call("PUT", path + "/pin", {"because": "release"}))[0] == 200
    _, body, _ = await client.call("GET", f"/documents/{NAME}/backups")
    assert body["backups"][0]["pinned"] is True
    assert (await client.call("DELETE", path + "/pin"))[0] == 200
    assert (await client.call("GET", path.replace("_profile", "_other")))[0] == 404


@pytest.mark.usefixtures("files_at_once")
async def test_a_flipped_byte_is_recovered_and_reported_in_health(
    client: Client, tmp_path: Path
) -> None:
    for number in range(2):
        await client.call("PUT", f"/documents/{NAME}", {"n": number, "text": "words"})
    file = tmp_path / "data" / NAME
    before = file.stat()
    broken = file.read_bytes().replace(b"words", b"wordt")
    file.write_bytes(broken)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await client.call("GET", f"/documents/{NAME}"))[1] == {"n": 1, "text": "words"}
    _, health, _ = await client.call("GET", "/health")
    assert health["status"] == "warning"
    assert any(check["name"] == "recovered" for check in health["checks"])
    _, quarantine, _ = await client.call("GET", "/quarantine")
    [item] = quarantine["quarantine"]
    assert (await client.call("GET", f"/quarantine/{item['name']}"))[1]["text"] == "wordt"


async def test_an_unrecoverable_document_is_503_until_it_is_reset(tmp_path: Path) -> None:
    async with serving(settings_for(tmp_path)) as running:
        await running.acquired()
        await running.data.save_json(NAME, {"n": 1})
    file = tmp_path / NAME
    before = file.stat()
    file.write_bytes(b"\0" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    async with serving(settings_for(tmp_path)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        client = Client(session, running.address)
        for request in (("GET", None), ("PUT", {"n": 2})):
            status, body, _ = await client.call(request[0], f"/documents/{NAME}", request[1])
            assert (status, body["code"]) == (503, "document_unrecoverable")
        assert (await client.call("GET", f"/documents/{NAME}/raw"))[1] == b"\0" * before.st_size
        export = (await client.call("GET", "/export"))[1]
        assert export["data"] | {"exported_at": ""} == {
            "exported_at": "", "files": {}, "unrecoverable": [NAME],
        }  # fmt: skip
        report = (await client.call("POST", "/verify"))[1]
        assert report["damage"] is True
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", report["findings"][0]["found_at"])
        assert (await client.call("GET", "/health"))[1]["status"] == "critical"
        assert (await client.call("POST", f"/documents/{NAME}/reset"))[0] == 200
        assert (await client.call("GET", f"/documents/{NAME}"))[0] == 404
        assert (await client.call("GET", "/health"))[1]["status"] == "warning"
        assert len((await client.call("GET", "/quarantine"))[1]["quarantine"]) == 1
        assert (await client.call("PUT", f"/documents/{NAME}", {"n": 2}))[0] == 201


async def test_unknown_paths_require_a_token_too(client: Client) -> None:
    async with client.session.get(client.base + "/nothing") as response:
        assert response.status == 401
    assert (await client.call("GET", "/nothing"))[0] == 404
    status, _, headers = await client.call("PATCH", "/health")
    assert (status, "GET" in headers["Allow"]) == (405, True)


async def test_wrong_tokens_are_rate_limited_and_the_right_one_is_not(client: Client) -> None:
    statuses = []
    for _ in range(15):
        headers = {"Authorization": "Bearer sel_00000000_wrong"}
        async with client.session.get(client.base + "/health", headers=headers) as response:
            statuses.append(response.status)
            assert response.status != 429 or int(response.headers["Retry-After"]) > 0
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert (await client.call("GET", "/health"))[0] == 200


@pytest.mark.parametrize(
    ("header", "lines_of"),
    [
        ("x-forwarded-for", lambda n: [f"10.0.0.{n}", "203.0.113.7"]),
        ("x-forwarded-for", lambda n: [f"10.0.0.{n}, 203.0.113.7:{4000 + n}"]),
        ("x-forwarded-for", lambda n: [f"[2001:db8::7]:{4000 + n}"]),
        ("x-forwarded-for", lambda n: [f"unknown-{n}"]),
        ("x-real-ip", lambda _: ["203.0.113.7"]),
    ],
)
async def test_a_client_behind_a_proxy_cannot_choose_its_address(
    tmp_path: Path, header: str, lines_of: Callable[[int], list[str]]
) -> None:
    settings = settings_for(tmp_path, server__trust_proxy=True, server__client_header=header)
    async with serving(settings) as running, aiohttp.ClientSession() as session:
        await running.acquired()

        async def status(lines: list[str]) -> int:
            headers = [("Authorization", "Bearer wrong"), *((header, line) for line in lines)]
            async with session.get(running.address + PREFIX + "/health", headers=headers) as got:
                return got.status

        assert [await status(lines_of(number)) for number in range(11)] == [401] * 10 + [429]
        assert await status(["198.51.100.1"]) == 401


async def test_a_token_in_a_url_is_refused(client: Client) -> None:
    status, body, _ = await client.call("GET", f"/health?token={ADMIN}")
    assert status == 422
    assert ADMIN not in json.dumps(body)


async def test_a_read_token_may_only_read_until_it_is_revoked(
    client: Client, server: Serving
) -> None:
    token, secret = await server.tokens.create(scope="read", label="dashboard")
    headers = {"Authorization": f"Bearer {secret}"}
    async with client.session.get(client.base + "/health", headers=headers) as response:
        assert response.status == 200
    async with client.session.post(client.base + "/verify", headers=headers) as response:
        assert response.status == 403
    await server.tokens.revoke(token.id)
    async with client.session.get(client.base + "/health", headers=headers) as response:
        assert response.status == 401


@pytest.mark.usefixtures("files_at_once")
async def test_tokens_are_stored_hashed(server: Serving, tmp_path: Path) -> None:
    _, secret = await server.tokens.create()
    key = secret.split("_", 2)[-1].encode()
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert not [path for path in files if key in path.read_bytes()]


async def test_a_foreign_origin_and_a_foreign_host_are_refused(client: Client) -> None:
    assert (await client.call("GET", "/health", Origin="https://evil.example"))[0] == 403
    assert (await client.call("GET", "/health", Host="evil.example"))[0] == 403
    assert (await client.call("GET", "/health", Host="localhost:8080"))[0] == 200


async def test_probes_need_no_token(client: Client) -> None:
    base = client.base.removesuffix(PREFIX)
    for path in ("/livez", "/readyz", "/readyz?verbose"):
        headers = {"Host": "healthcheck.railway.app"}
        async with client.session.get(base + path, headers=headers) as response:
            assert response.status == 200
            assert (await response.json())["status"] == "ok"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", f"/documents/{NAME}", b"{", 422),
        ("PUT", f"/documents/{NAME}", b'{"a": 1, "a": 2}', 422),
        ("PUT", f"/documents/{NAME}", b"", 422),
        ("PUT", f"/documents/{NAME}?backp=false", b"{}", 422),
        ("PUT", f"/documents/{NAME}?backup=perhaps", b"{}", 422),
        ("PUT", "/documents/metadata.json", b"{}", 422),
        ("PUT", "/documents/..%2Fevil.json", b"{}", 422),
        ("POST", "/restore-backup", b"[]", 422),
        ("POST", "/restore-backup", b"{}", 422),
        ("POST", "/restore-backup", b'{"filename": 3}', 422),
        ("POST", "/restore-backup", b'{"filename": "a.json", "extra": 1}', 422),
        ("POST", "/import", b'{"files": {"../x.json": {}}}', 422),
        ("POST", "/import?mode=overwrite", b'{"files": {}}', 422),
        ("GET", "/documents/none.json", None, 404),
        ("GET", f"/documents/{NAME}/backups", None, 404),
        ("DELETE", "/documents/none.json", None, 404),
        ("POST", "/documents/none.json/reset", None, 404),
        ("GET", "/quarantine/none_20250101_000000.json", None, 404),
        ("GET", "/quarantine/..%2F..%2Fetc%2Fpasswd", None, 404),
    ],
)
async def test_invalid_input_is_answered_with_a_problem_and_changes_nothing(
    client: Client, method: str, path: str, body: bytes | None, status: int
) -> None:
    response_status, problem, headers = await client.call(method, path, body)
    assert response_status == status
    assert headers["Content-Type"].startswith("application/problem+json")
    assert problem["status"] == status
    assert problem["hint"]
    assert (await client.call("GET", "/documents"))[1] == {"documents": []}


async def test_a_body_over_the_limit_is_413(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, storage__document_bytes_max=2048)
    async with serving(settings) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        client = Client(session, running.address)
        status, body, _ = await client.call("PUT", f"/documents/{NAME}", "x" * 4000)
        assert (status, body["code"]) == (413, "document_too_large")
        status, body, _ = await client.call("PUT", f"/documents/{NAME}", b" " * (3 << 20))
        assert (status, body["code"]) == (413, "request_too_large")


async def test_a_second_server_is_not_ready_until_the_first_ends(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    async with serving(settings_for(tmp_path)) as second, aiohttp.ClientSession() as session:
        client = Client(session, second.address)
        for _ in range(50):
            async with session.get(second.address + "/readyz") as response:
                assert response.status == 503
            status, body, _ = await client.call("GET", "/storage-info")
            if body["code"] == "volume_locked":
                break
            await asyncio.sleep(0.05)
        assert (status, body["code"]) == (503, "volume_locked")
        assert body["holder"]["pid"] == holder.pid
        async with session.get(second.address + "/livez") as response:
            assert response.status == 200
        stop_holder(holder)
        await asyncio.wait_for(second.acquired(), 5)
        assert await second.data.load_json("held.json") == {"n": 1}
        assert (await client.call("GET", "/health"))[0] == 200


async def test_a_stored_token_is_not_called_wrong_while_the_volume_is_not_held(
    tmp_path: Path,
) -> None:
    async with serving(settings_for(tmp_path)) as first:
        await first.acquired()
        _, secret = await first.tokens.create()
    holder = start_holder(tmp_path)
    async with serving(settings_for(tmp_path)) as second, aiohttp.ClientSession() as session:
        url = second.address + PREFIX + "/health"

        async def ask(token: str) -> tuple[int, str]:
            headers = {"Authorization": f"Bearer {token}"}
            async with session.get(url, headers=headers) as response:
                return response.status, (await response.json()).get("code", "")

        for _ in range(15):
            assert await ask(secret) == (503, "store_closed")
        assert [await ask("wrong") for _ in range(11)] == [
            *[(401, "unauthorized")] * 10,
            (429, "too_many_requests"),
        ]
        stop_holder(holder)
        await asyncio.wait_for(second.acquired(), 5)
        assert (await ask(secret))[0] == 200
        assert (await ask(secret[:-1] + "~"))[0] in (401, 429)


async def test_a_client_that_reads_nothing_does_not_keep_an_export_open(
    server: Serving, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "STALLED_S", 0.2)
    for number in range(8):
        await client.call("PUT", f"/documents/d{number}.json", "x" * (1 << 20))
    host, port = server.address.removeprefix("http://").rsplit(":", 1)
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.connect((host, int(port)))
    request = (
        f"GET {PREFIX}/export HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ADMIN}\r\n\r\n"
    )
    stalled.sendall(request.encode())
    snapshots = tmp_path / "data" / ".seline" / "exports"
    async with asyncio.timeout(10):
        while not list(snapshots.rglob("*.json")):
            await client.call("PUT", "/documents/d7.json", os.urandom(8).hex())
        while any(snapshots.iterdir()):
            await asyncio.sleep(0.02)
    stalled.close()


async def test_a_failing_export_aborts_the_connection(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.call("PUT", "/documents/big.json", "x" * (2 << 20))
    read, pieces = os.read, []

    def failing(descriptor: int, size_bytes: int) -> bytes:
        if size_bytes == PIECE_BYTES:
            pieces.append(descriptor)
            if len(pieces) == 4:
                raise OSError(5, "Input/output error")
        return read(descriptor, size_bytes)

    monkeypatch.setattr(os, "read", failing)
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await client.call("GET", "/export")
    assert (await client.call("GET", "/export"))[1]["success"] is True


async def test_the_control_socket_is_private_and_needs_no_token(
    server: Serving, tmp_path: Path
) -> None:
    path = control_socket_path(str(tmp_path / "data"))
    assert os.stat(path).st_mode & 0o777 == 0o600
    connector = aiohttp.UnixConnector(path=path)
    async with aiohttp.ClientSession(connector=connector) as session:
        base = "http://seline" + PREFIX
        async with session.post(base + "/tokens", json={"scope": "read"}) as response:
            created = await response.json()
            assert created["token"].startswith("sel_")
        async with session.get(base + "/tokens") as response:
            [listed] = (await response.json())["tokens"]
            assert created["token"] not in json.dumps(listed)
        async with session.get(base + "/status") as response:
            assert (await response.json())["pid"] == os.getpid()


async def test_a_command_without_a_server_serves_the_same_api(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 90) / ("y" * 90)
    async with alone(settings_for(deep)) as running:
        assert running.address == ""
        connector = aiohttp.UnixConnector(path=_short(control_socket_path(str(deep))))
        url = "http://seline" + PREFIX + "/health"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url) as response,
        ):
            assert response.status == 200


async def test_a_holder_names_one_time_since_which_it_holds_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a bot that answers its first command long after it has opened the directory."""
    ticks, start = itertools.count(), Clock().now()
    monkeypatch.setattr(Clock, "now", lambda _: start + timedelta(seconds=10 * next(ticks)))
    data = str(tmp_path / "data")
    async with open_seline(data):
        opened = read_holder(data)["since"]
        assert (await _ask_on_control_socket(data, "/status"))["since"] == opened
        assert read_holder(data)["since"] == opened
    async with serving(settings_for(tmp_path / "data"), http=False) as running:
        await running.acquired()
        assert (await _ask_on_control_socket(data, "/status"))["since"] == read_holder(data)[
            "since"
        ]


async def test_a_command_and_a_read_are_logged_below_the_changes_over_the_network(
    server: Serving, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "seline.http")
    await client.call("POST", "/verify")
    await _ask_on_control_socket(server.data_dir, "/verify", method="POST")
    await client.call("GET", "/health")
    await client.call("GET", "/documents/none.json")

    levels = [(r.message.partition("admin")[2], r.levelno) for r in caplog.records]
    assert levels == [
        ("/verify 200", logging.INFO),
        ("/verify 200", logging.DEBUG),
        ("/health 200", logging.DEBUG),
        ("/documents/none.json 404", logging.INFO),
    ]


async def _ask_on_control_socket(data: str, path: str, *, method: str = "GET") -> Any:
    connector = aiohttp.UnixConnector(path=control_socket_path(data))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, "http://seline" + PREFIX + path) as response,
    ):
        return await response.json()


def _short(path: str) -> str:
    """Return another path of the socket, short enough for a socket address."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    return f"/proc/self/fd/{directory}/control.sock"


async def test_a_port_in_use_is_refused_by_number(server: Serving, tmp_path: Path) -> None:
    port = int(server.address.rsplit(":", 1)[-1])
    with pytest.raises(SettingsError, match=str(port)):
        await Serving(settings_for(tmp_path / "other", server__port=port), is_process=True)
    assert not (tmp_path / "other").exists()


async def test_a_second_server_names_the_first_one_and_does_not_wait_for_the_volume(
    server: Serving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(server.address.rsplit(":", 1)[-1])
    with pytest.raises(VolumeLocked, match=server.address):
        await Serving(settings_for(tmp_path / "data", server__port=port), is_process=True)
    assert "waiting for the volume" not in caplog.text


async def test_every_mutating_request_is_audited(tmp_path: Path) -> None:
    async with serving(settings_for(tmp_path)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        client = Client(session, running.address)
        await client.call("PUT", f"/documents/{NAME}", {"n": 1})
        await client.call("PUT", f"/documents/{NAME}", {"n": 1}, If_Match="0" * 64)
    lines = (tmp_path / ".seline" / "audit.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["outcome"] for entry in entries] == ["201", "revision_mismatch"]
    assert all(entry["who"] == "SELINE_ADMIN_TOKEN" for entry in entries)


async def test_a_caller_cannot_wash_out_the_audit_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_BYTES_MAX", 8192)
    async with serving(settings_for(tmp_path)) as running, aiohttp.ClientSession() as session:
        await running.acquired()
        _, secret = await running.tokens.create()
        client = Client(session, running.address)
        await client.call("PUT", f"/documents/{NAME}", {"n": 1})
        for _ in range(200):
            path = "/documents/" + "n" * 2600
            other = f"Bearer {secret}"
            assert (await client.call("DELETE", path, Authorization=other))[0] == 422
    logs = [tmp_path / ".seline" / name for name in ("audit.jsonl.1", "audit.jsonl")]
    lines = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
    entries = [json.loads(line) for line in lines]
    assert entries[0]["who"] == "SELINE_ADMIN_TOKEN"
    assert max(map(len, lines)) < 600
    assert sum(log.stat().st_size for log in logs if log.exists()) < 3 * 8192
    assert not (tmp_path / ".seline" / "audit.jsonl.new").exists()


def _all_errors(parent: type[SelineError]) -> Iterator[type[SelineError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _all_errors(child)


def test_every_error_has_an_http_status() -> None:
    bases = {errors.DocumentError, errors.StorageError}
    defined = {error for error in _all_errors(SelineError) if error.__module__ == "seline.errors"}
    assert defined - bases == set(STATUS_FOR)


async def test_downloads_of_any_size_are_streamed_whole(client: Client, tmp_path: Path) -> None:
    for size in (10, 3 << 20):
        for number in range(2):
            await client.call("PUT", f"/documents/{NAME}", {"n": number, "text": "x" * size})
        _, listed, _ = await client.call("GET", f"/documents/{NAME}/backups")
        backup = listed["backups"][0]
        path = tmp_path / "data" / NAME
        before = path.stat()
        broken = path.read_bytes().replace(b"x", b"y", 1)
        path.write_bytes(broken)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        status, value, headers = await client.call(
            "GET", f"/documents/{NAME}/backups/{backup['name']}"
        )
        assert (status, value) == (200, {"n": 0, "text": "x" * size})
        assert headers["ETag"] == f'"{backup["sha256"]}"'
        assert headers["X-Request-Id"]
        await client.call("POST", "/verify")
        _, quarantine, _ = await client.call("GET", "/quarantine")
        item = quarantine["quarantine"][0]
        status, _, headers = await client.call("GET", f"/quarantine/{item['name']}")
        assert (status, int(headers["Content-Length"])) == (200, len(broken))
        assert item["name"] in headers["Content-Disposition"]
        status, _, headers = await client.call("GET", f"/documents/{NAME}/raw")
        assert (status, int(headers["Content-Length"])) == (200, path.stat().st_size)
        status, body, headers = await client.call("HEAD", f"/documents/{NAME}/raw")
        assert (status, body, int(headers["Content-Length"])) == (200, b"", path.stat().st_size)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" * 201 + b"]" * 201, "The body cannot be stored: nested deeper than 200 levels"),
        (b'{"n": ' + b"1" * 5_000 + b"}", "The body cannot be stored: "),
        (b'{"n": 1,}', "The body is not JSON: a comma before the closing bracket"),
        (b'{"n": NaN}', "The body is not JSON: NaN"),
    ],
)
async def test_json_beyond_a_limit_is_not_called_no_json(
    client: Client, body: bytes, message: str
) -> None:
    status, problem, _ = await client.call("PUT", f"/documents/{NAME}", body)
    assert status == 422
    assert problem["detail"].startswith(message)


@pytest.mark.parametrize("given", ["true", "1", "yes", "false", "0", "no", "True", "2", "on", ""])
async def test_a_boolean_of_a_query_is_parsed_as_one_of_a_setting(
    client: Client, given: str
) -> None:
    try:
        meant: bool | None = truth(given)
    except ValueError:
        meant = None
    await client.call("PUT", f"/documents/{NAME}", {"n": 1})

    status, body, _ = await client.call("DELETE", f"/documents/{NAME}?dry_run=true&purge={given}")

    assert (status, body.get("purged")) == ((422, None) if meant is None else (200, meant))


async def test_health_is_readable_in_a_terminal(client: Client) -> None:
    async with client.session.get(
        client.base + "/health", headers={"Authorization": f"Bearer {ADMIN}"}
    ) as response:
        lines = (await response.text()).splitlines()
    assert lines[0] == "{"
    assert lines[1].startswith('  "status": ')


async def test_a_read_that_fails_speaks_of_no_change(tmp_path: Path) -> None:
    error = named(OSError(errno.EIO, "x"), "Listing the documents", str(tmp_path))
    assert error.message == "Listing the documents: EIO, Input/output error: the disk failed."


RUNS: Final = "/jobs/usage/runs"
POLLED: Final = [route for route in ROUTES if route.is_polled]


@pytest.mark.parametrize("route", POLLED, ids=lambda route: route.path)
async def test_who_asks_again_is_answered_without_a_body_while_nothing_has_changed(
    client: Client, server: Serving, monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    path = route.path.removeprefix(PREFIX).replace("{job}", "usage")
    await client.call("PUT", f"/documents/{NAME}", {"n": 1})
    await client.call("PUT", f"/documents/{NAME}", {"n": 2})
    now = Clock().now()
    async with asyncio.timeout(30):
        while True:  # other tests change the files that the disk has, which health shows
            status, body, headers = await client.call("GET", path)
            now += timedelta(seconds=90)
            monkeypatch.setattr(Clock, "now", lambda _, now=now: now)  # ages are no change
            again = await client.call("GET", path, If_None_Match=headers["ETag"])
            if again[0] == 304 or path != "/health":
                break
    other = await client.call("GET", path, If_None_Match='"of another answer"')

    assert (status, again[:2], again[2]["ETag"]) == (200, (304, b""), headers["ETag"])
    assert (other[0], set(other[1])) == (200, set(body))


async def test_a_run_of_a_job_is_news(client: Client) -> None:
    etags = {path: (await client.call("GET", path))[2]["ETag"] for path in ("/jobs", RUNS)}
    await client.call("POST", "/jobs/usage/run")
    async with asyncio.timeout(10):
        while (await client.call("GET", RUNS))[1]["runs"][0]["outcome"] is None:
            await asyncio.sleep(0.01)

    for path, etag in etags.items():
        assert (await client.call("GET", path, If_None_Match=etag))[0] == 200
