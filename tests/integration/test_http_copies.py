"""Test the routes of copies: what they refuse, and that a key in a request is not kept."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from seline.outbound.sealing import KeyPair, new_key
from seline.server import serving
from tests.http_client import Client, settings_for
from tests.integration.test_hostile_copies import forge_copy
from tests.mirrored_bot import flip

RESTORE = "/destinations/bucket/restore"
KEY = new_key()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """Yield a client of a server whose document is mirrored, and changed since."""
    table = {"name": "bucket", "url": f"file://{tmp_path}/bucket", "mode": "mirror"}
    settings = settings_for(
        tmp_path / "data",
        exports__destinations=[{**table, "same_disk": True}],
        exports__encrypt_to=[KEY.recipient],
    )
    async with serving(settings) as running, aiohttp.ClientSession() as http:
        await running.acquired()
        client = Client(http, running.address)
        await client.call("PUT", "/documents/a.json", {"n": 1})
        await running.operations.mirrors.run()
        await client.call("PUT", "/documents/a.json", {"n": 2})
        yield client


async def test_a_copy_is_restored_with_the_key_of_the_request(
    client: Client, tmp_path: Path
) -> None:
    body = {"identity": KEY.identity}
    status, dry, _ = await client.call("POST", f"{RESTORE}?dry_run=true", body)
    assert (status, dry["changed"], dry["undo"]) == (200, ["a.json"], [])
    status, done, _ = await client.call("POST", RESTORE, body)
    assert (status, done["changed"], len(done["undo"])) == (200, ["a.json"], 1)
    assert (await client.call("GET", "/documents/a.json"))[1] == {"n": 1}
    await client.call("POST", "/restore-backup", done["undo"][0]["body"])
    assert (await client.call("GET", "/documents/a.json"))[1] == {"n": 2}

    assert (await client.call("POST", RESTORE))[1]["code"] == "key_missing", "it is not kept"
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or KEY.identity.encode() not in path.read_bytes()


async def test_a_damaged_copy_is_refused_with_the_instant_of_one_that_is_whole(
    client: Client, tmp_path: Path
) -> None:
    before = {path.name for path in tmp_path.rglob("objects/*")}
    await asyncio.sleep(1.1)  # the next copy has another instant
    await client.call("POST", "/jobs/mirror/run")
    while len(list(tmp_path.rglob("heads/*"))) < 2:
        await asyncio.sleep(0.01)
    [damaged] = [path for path in tmp_path.rglob("objects/*") if path.name not in before]
    flip(damaged)
    await client.call("PUT", "/documents/a.json", {"n": 3})

    body = {"identity": KEY.identity}
    status, refused, _ = await client.call("POST", RESTORE, body)
    assert (status, refused["code"]) == (422, "export_damaged")
    assert (await client.call("GET", "/documents/a.json"))[1] == {"n": 3}
    [query] = re.findall(r"`(at=.*?)`", refused["hint"])
    assert (await client.call("POST", f"{RESTORE}?{query}", body))[0] == 200
    assert (await client.call("GET", "/documents/a.json"))[1] == {"n": 1}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?at=yesterday", "invalid_request"),
        ("?at=2020-01-01", "copy_not_found"),
        ("?volume=00000000", "copy_not_found"),
        ("?only=b.json", "import_refused"),
        ("?when=now", "invalid_request"),
    ],
)
async def test_what_names_no_copy_is_refused(client: Client, query: str, code: str) -> None:
    _, answer, _ = await client.call("POST", RESTORE + query, {"identity": KEY.identity})
    assert answer["code"] == code
    assert (await client.call("GET", "/documents/a.json"))[1] == {"n": 2}


@pytest.mark.parametrize(
    "identity",
    ["", "AGE-SECRET-KEY-1", KEY.identity[:-1], 7],
    ids=["none", "begun", "cut", "number"],
)
async def test_a_wrong_identity_is_refused_without_being_repeated(
    client: Client, identity: object
) -> None:
    status, answer, _ = await client.call("POST", RESTORE, {"identity": identity})
    assert (status, answer["code"]) in ((422, "invalid_request"), (422, "key_missing"))
    assert KEY.identity[:-1] not in str(answer)
    other: KeyPair = new_key()
    _, answer, _ = await client.call("POST", RESTORE, {"identity": other.identity})
    assert answer["code"] == "key_missing"


async def test_a_destination_that_is_not_configured_is_not_found(client: Client) -> None:
    for method, path in (("GET", "copies"), ("POST", "restore")):
        status, answer, _ = await client.call(method, f"/destinations/nas/{path}")
        assert (status, answer["code"]) == (404, "destination_not_found")


async def test_another_volumes_copy_and_one_that_is_not_encrypted_are_taken_on_request(
    client: Client, tmp_path: Path
) -> None:
    await forge_copy(tmp_path / "bucket", "deadbeef")
    query = "?volume=deadbeef"
    for more, code in (("", "copy_not_encrypted"), ("&unencrypted=true", "import_refused")):
        query += more
        status, refused, _ = await client.call("POST", RESTORE + query)
        assert (status >= 400, refused["code"]) == (True, code)
    assert "foreign=true" in refused["hint"]
    _, dry, _ = await client.call("POST", f"{RESTORE}{query}&dry_run=true")
    assert (dry["foreign"], dry["created"]) == (True, ["owner.json"])
    status, done, _ = await client.call("POST", f"{RESTORE}{query}&foreign=true")
    assert (status, done["foreign"], done["created"]) == (200, True, ["owner.json"])
