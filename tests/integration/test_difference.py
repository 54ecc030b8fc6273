"""The difference of a document's contents over HTTP and on the command line."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from seline import blocking
from seline.cli.difference import change_lines
from seline.domain.difference import difference_of
from seline.domain.document import Content
from seline.domain.json_codec import encode
from seline.operations import difference
from seline.operations.difference import difference_between
from seline.server import Serving, serving
from tests.command_line import line_at
from tests.http_client import NAME, Client, settings_for

DIFF = f"/documents/{NAME}/diff"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Serving]:
    """Serve a volume that is mirrored."""
    table = {"name": "nas", "url": f"file://{tmp_path}/nas", "mode": "mirror", "same_disk": True}
    settings = settings_for(tmp_path / "data", exports__destinations=[table])
    async with serving(settings) as running:
        await running.acquired()
        yield running


@pytest.fixture
async def client(server: Serving) -> AsyncIterator[Client]:
    """Yield a client of a server whose document is mirrored, and changed since."""
    async with aiohttp.ClientSession() as http:
        client = Client(http, server.address)
        await client.call("PUT", f"/documents/{NAME}", {"name": "Alex", "xp": 2**80, "n": 1})
        await server.operations.mirrors.run()
        await client.call("PUT", f"/documents/{NAME}", {"name": "Sam", "xp": 2**80, "m": 1.0})
        yield client


def shown(body: Any) -> list[tuple[Any, ...]]:
    return [
        (change["kind"], change["path"], change["before"], change["after"])
        for change in body["changes"]
    ]


CHANGES = [
    ("changed", "/name", "Alex", "Sam"),
    ("removed", "/n", 1, None),
    ("added", "/m", None, 1.0),
]


async def test_the_newest_backup_is_compared_with_what_is_current(client: Client) -> None:
    [backup] = (await client.call("GET", f"/documents/{NAME}/backups"))[1]["backups"]
    _, _, headers = await client.call("GET", f"/documents/{NAME}")

    status, body, _ = await client.call("GET", DIFF)

    assert (status, shown(body)) == (200, CHANGES)
    assert (body["added"], body["removed"], body["changed"], body["truncated"]) == (1, 1, 1, False)
    assert body["from"] == {
        "content": backup["name"],
        "revision": backup["sha256"],
        "taken_at": backup["taken_at"],
    }
    assert f'"{body["to"]["revision"]}"' == headers["ETag"]
    named = await client.call("GET", f"{DIFF}?from={backup['name']}&to=current")
    assert named[1] == body


async def test_a_number_of_any_size_is_exact(client: Client) -> None:
    await client.call("PUT", f"/documents/{NAME}", {"name": "Sam", "xp": 2**80 + 1, "m": 1.0})

    _, body, _ = await client.call("GET", DIFF)

    assert shown(body) == [("changed", "/xp", 2**80, 2**80 + 1)]
    assert body["patch"] == [{"op": "replace", "path": "/xp", "value": 2**80 + 1}]


async def test_a_copy_off_the_volume_is_compared(client: Client) -> None:
    [copy] = (await client.call("GET", "/destinations/nas/copies"))[1]["copies"]

    for which in ("", f"@{copy['taken_at']}", f"@{copy['name']}"):
        status, body, _ = await client.call("GET", f"{DIFF}?from=copy:nas{which}")
        assert (status, shown(body)) == (200, CHANGES), which
        assert body["from"]["taken_at"] == copy["taken_at"]


async def test_a_deleted_document_differs_by_one_change(client: Client) -> None:
    await client.call("DELETE", f"/documents/{NAME}")

    status, body, _ = await client.call("GET", DIFF)

    assert (status, body["to"]["revision"]) == (200, None)
    assert [(change["kind"], change["path"]) for change in body["changes"]] == [("removed", "")]


async def test_a_quarantined_item_is_compared_if_it_is_json(client: Client, tmp_path: Path) -> None:
    aside = tmp_path / "data" / "quarantine"
    aside.mkdir(exist_ok=True)
    whole, torn = (
        "user_profile_20250106_143022.seline.json",
        "user_profile_20250106_143023.seline.json",
    )
    (aside / whole).write_text('{"name": "Sam"}')
    (aside / torn).write_text('{\n"name": "S')

    status, body, _ = await client.call("GET", f"{DIFF}?from=quarantine:{whole}")
    assert (status, body["added"]) == (200, 2)

    status, body, _ = await client.call("GET", f"{DIFF}?from=quarantine:{torn}")
    assert (status, body["code"], body["line"]) == (422, "invalid_request", 2)
    assert body["detail"].startswith(f"{torn} is not JSON: cut off")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/documents/other.json/diff", "backup_not_found"),
        ("/documents/other.json/diff?from=current", "document_not_found"),
        (f"{DIFF}?from=user_profile_20200101_000000.json", "backup_not_found"),
        (f"{DIFF}?from=quarantine:nothing.json", "document_not_found"),
        (f"{DIFF}?from=copy:moon", "destination_not_found"),
        (f"{DIFF}?from=copy:nas@2020-01-01", "copy_not_found"),
        (f"{DIFF}?from=copy:nas@nothing", "copy_not_found"),
        (f"{DIFF}?form=current", "invalid_request"),
        ("/documents/other.json/diff?from=copy:nas", "document_not_found"),
    ],
)
async def test_what_cannot_be_compared_is_named(client: Client, path: str, code: str) -> None:
    status, body, _ = await client.call("GET", path)

    assert (body["code"], bool(body["hint"])) == (code, True)
    assert status in (404, 422)


async def test_a_large_comparison_leaves_the_event_loop_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop runs while the comparison is held up on its thread."""
    turns: list[int] = []

    def slow(before: bytes | None, after: bytes | None) -> Any:
        while len(turns) < 3:
            time.sleep(0.001)
        return difference_of(before, after)

    monkeypatch.setattr(difference, "difference_of", slow)
    large = Content.of(encode({f"k{n}": n for n in range(2000)}))
    async with asyncio.TaskGroup() as group:
        compared = group.create_task(difference_between(large, None))
        for turn in range(3):
            await asyncio.sleep(0)
            turns.append(turn)
    assert compared.result().removed == 1


def test_the_command_prints_a_line_for_each_change(tmp_path: Path) -> None:
    line = line_at(tmp_path)
    line("save", NAME, stdin='{"name": "Alex", "a b": 1}')
    line("save", NAME, stdin='{"name": "\\u001b[31mSam", "c": []}')

    ran = line("diff", NAME)

    assert ran.code == 0
    assert ran.out.splitlines() == ['~ /name: "Alex" → "\\u001b[31mSam"', '- "/a b": 1', "+ /c: []"]
    assert "to current: 1 added, 1 removed, 1 changed." in ran.err
    assert line("diff", NAME, "current", "--json").value()["changes"] == []
    assert "nothing differs" in line("diff", NAME, "current").err
    assert line("diff", "other.json").code == 4


def test_a_long_difference_is_cut_and_counted() -> None:
    found = difference_of(b"{}", json.dumps({f"k{n}": n for n in range(2000)}).encode())
    body = {
        "changes": [
            {"path": c.path, "kind": c.kind, "before": c.before, "after": c.after, "shortened": []}
            for c in found.changes
        ],
        "added": found.added,
        "removed": 0,
        "changed": 0,
    }

    lines = [text for text, _ in change_lines(body, 5)]

    assert (len(lines), lines[0], lines[-1]) == (6, "+ /k0: 0", "  and 1,995 more changes")


async def test_python_compares_as_http_does(server: Serving, client: Client) -> None:
    _, answered, _ = await client.call("GET", f"{DIFF}?from=copy:nas&to=current")

    found = await server.operations.diff(NAME, "copy:nas")

    assert [(c.kind, c.path, c.before, c.after) for c in found.difference.changes] == CHANGES
    assert list(found.difference.patch or ()) == answered["patch"]
    assert found.before.revision == answered["from"]["revision"]


def test_python_compares_without_await(tmp_path: Path) -> None:
    with blocking.open_seline(tmp_path / "data") as seline:
        seline.data.save_json(NAME, {"n": 1})
        seline.data.save_json(NAME, {"n": 2})
        [backup] = seline.data.backups(NAME)

        [change] = seline.diff(NAME, "current", backup.name).difference.changes

    assert (change.kind, change.path, change.before, change.after) == ("changed", "/n", 2, 1)
