"""Test PATCH of a document: the merge in its turn, its preconditions, and what it refuses."""

import asyncio
import json

import pytest

from seline.server import Serving
from tests.http_client import NAME, Client

MERGE = {"Content_Type": "application/merge-patch+json"}
AT = f"/documents/{NAME}"


async def test_a_patch_merges_and_null_removes(client: Client) -> None:
    await client.call("PUT", AT, {"name": "Alex", "city": "Paris", "tags": {"a": 1, "b": 2}})

    patch = {"city": None, "tags": {"b": 3}, "wei": 2**80}
    status, body, headers = await client.call("PATCH", AT, patch, **MERGE)

    merged = {"name": "Alex", "tags": {"a": 1, "b": 3}, "wei": 2**80}
    assert (status, body["success"], body["created"]) == (200, True, False)
    assert headers["ETag"] == f'"{body["revision"]}"'
    assert (await client.call("GET", AT))[1] == merged
    _, listed, _ = await client.call("GET", f"{AT}/backups")
    assert len(listed["backups"]) == 1


async def test_concurrent_patches_lose_nothing(client: Client) -> None:
    await client.call("PUT", AT, {})
    patches = [client.call("PATCH", AT, {f"k{n}": n}, **MERGE) for n in range(20)]

    assert {status for status, *_ in await asyncio.gather(*patches)} == {200}
    assert (await client.call("GET", AT))[1] == {f"k{n}": n for n in range(20)}


async def test_a_patch_obeys_its_precondition(client: Client) -> None:
    _, _, headers = await client.call("PUT", AT, {"n": 1})
    first = headers["ETag"]

    assert (await client.call("PATCH", AT, {"n": 2}, If_Match=first, **MERGE))[0] == 200
    assert (await client.call("PATCH", AT, {"n": 3}, If_Match=first, **MERGE))[0] == 412
    assert (await client.call("PATCH", AT, {"n": 3}, If_None_Match="*", **MERGE))[0] == 412
    assert (await client.call("PATCH", AT, {"m": 4}, If_Match="*", **MERGE))[0] == 200
    assert (await client.call("GET", AT))[1] == {"n": 2, "m": 4}


async def test_a_patch_of_a_missing_document_creates_it_unless_it_must_exist(
    client: Client,
) -> None:
    status, body, _ = await client.call("PATCH", AT, {"n": 1}, If_Match="*", **MERGE)
    assert (status, body["code"]) == (412, "revision_mismatch")

    status, body, _ = await client.call("PATCH", AT, {"n": 1, "gone": None}, **MERGE)
    assert (status, body["created"]) == (201, True)
    assert (await client.call("GET", AT))[1] == {"n": 1}


async def test_a_patch_that_is_no_object_replaces_the_document(client: Client) -> None:
    await client.call("PUT", AT, {"n": 1})

    assert (await client.call("PATCH", AT, [1, 2], **MERGE))[0] == 200
    assert (await client.call("GET", AT))[1] == [1, 2]


@pytest.mark.parametrize("declared", ["application/json", "application/json-patch+json", ""])
async def test_another_media_type_is_refused_and_the_right_one_named(
    client: Client, declared: str
) -> None:
    await client.call("PUT", AT, {"n": 1})

    status, body, headers = await client.call("PATCH", AT, {"n": 2}, Content_Type=declared)

    assert (status, body["code"]) == (415, "unsupported_media_type")
    assert headers["Accept-Patch"] == "application/merge-patch+json"
    assert "application/merge-patch+json" in body["hint"]
    assert (await client.call("GET", AT))[1] == {"n": 1}


async def test_a_patch_that_is_no_json_is_refused_with_its_place(client: Client) -> None:
    status, body, _ = await client.call("PATCH", AT, b'{"a": 1,}', **MERGE)

    assert (status, body["line"]) == (422, 1)
    assert (await client.call("GET", AT))[0] == 404


async def test_a_merge_beyond_the_limit_is_refused(client: Client, server: Serving) -> None:
    limit = server.settings.storage.document_bytes_max
    await client.call("PUT", AT, {"a": "x" * (limit // 2)})

    status, body, _ = await client.call("PATCH", AT, {"b": "x" * (limit // 2)}, **MERGE)

    assert (status, body["code"]) == (413, "document_too_large")
    assert list((await client.call("GET", AT))[1]) == ["a"]


async def test_a_patch_that_removes_most_is_guarded_as_any_save(client: Client) -> None:
    await client.call("PUT", AT, {"keep": 1, **{f"k{n}": "words" * 100 for n in range(20)}})

    await client.call("PATCH", f"{AT}?backup=false", {f"k{n}": None for n in range(20)}, **MERGE)

    _, listed, _ = await client.call("GET", f"{AT}/backups")
    [backup] = listed["backups"]
    assert backup["pinned"], json.dumps(backup)
