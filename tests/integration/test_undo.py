"""Every route that changes something answers what undoes it, or the table says why nothing does."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from seline.commands import control_socket_path
from seline.http import PREFIX
from seline.http.openapi import description
from seline.http.routes import ROUTES
from seline.server import serving
from tests.command_line import Line, line_at
from tests.hints.following import run
from tests.http_client import settings_for

DESCRIPTION = description(ROUTES)
DOCUMENT: Final = "/documents/{name}"
PIN: Final = DOCUMENT + "/backups/{backup}/pin"
RESTORE: Final = "/restore-backup"
MERGE: Final = "application/merge-patch+json"


class Store:
    """The API of a store over its control socket, and a command line beside it."""

    def __init__(self, session: aiohttp.ClientSession, line: Line, backup: str = "") -> None:
        self.session = session
        self.line = line
        self.backup = backup

    async def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Any:
        """Return the answer, which is no error. `path` has the prefix, or does without."""
        named = path.format(name="a.json", backup=self.backup)
        address = named if named.startswith(PREFIX) else PREFIX + named
        async with self.session.request(method, address, json=body, headers=headers) as response:
            answer = await response.json()
            assert response.ok, answer
        return answer

    async def state(self) -> dict[str, Any]:
        """Return the documents, the pins and the tokens."""
        export = await self.call("GET", "/export")
        backups = (await self.call("GET", DOCUMENT + "/backups"))["backups"]
        return {
            "documents": export["data"]["files"],
            "pins": {each["name"]: each["because"] for each in backups if each["pinned"]},
            "tokens": [token["id"] for token in (await self.call("GET", "/tokens"))["tokens"]],
        }


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """Yield a store with a copy, a changed, a deleted and a pinned content."""
    table = {"name": "bucket", "url": f"file://{tmp_path}/bucket", "mode": "mirror"}
    settings = settings_for(tmp_path / "data", exports__destinations=[{**table, "same_disk": True}])
    async with serving(settings) as running:
        await running.acquired()
        connector = aiohttp.UnixConnector(control_socket_path(str(tmp_path / "data")))
        async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
            opened = Store(session, line_at(tmp_path))
            for name in ("a.json", "copied.json", "deleted.json"):
                await opened.call("PUT", f"/documents/{name}", {"n": 1, "of": name})
            await running.operations.mirrors.run()
            await opened.call("DELETE", "/documents/copied.json?purge=true")
            await opened.call("DELETE", "/documents/deleted.json")
            await opened.call("PUT", DOCUMENT, {"n": 2, "of": "me"})
            listed = await opened.call("GET", DOCUMENT + "/backups")
            opened.backup = listed["backups"][0]["name"]
            yield opened


async def pinned(store: Store) -> None:
    await store.call("PUT", PIN, {"because": "before 'the' move"})


ACTS: dict[str, tuple[str, str, object]] = {
    "save": ("PUT", DOCUMENT, {"n": 3}),
    "save that removes most of it": ("PUT", DOCUMENT + "?shrink=true", {}),
    "new document": ("PUT", "/documents/new.json", {"n": 3}),
    "deleted document again": ("PUT", "/documents/deleted.json", {"n": 3}),
    "merge": ("PATCH", DOCUMENT, {"n": None}),
    "merge into a new document": ("PATCH", "/documents/new.json", {"n": 3}),
    "delete": ("DELETE", DOCUMENT, None),
    "restore": ("POST", RESTORE, {"filename": "a.json"}),
    "restore of one value": (
        "POST",
        RESTORE,
        {"filename": "a.json", "backup": "{backup}", "path": "/of"},
    ),
    "undelete": ("POST", RESTORE, {"filename": "deleted.json"}),
    "import": ("POST", "/import", {"files": {"a.json": [1], "new.json": [2]}}),
    "import in place of all": ("POST", "/import?mode=replace", {"files": {"new.json": [2]}}),
    "pin": ("PUT", PIN, {"because": "kept"}),
    "pin for another reason": ("PUT", PIN, {"because": "kept"}),
    "unpin": ("DELETE", PIN, None),
    "restore of a copy": ("POST", "/destinations/bucket/restore", None),
    "token": ("POST", "/tokens", {"scope": "read"}),
}
PREPARED: dict[str, Callable[[Store], Any]] = {"pin for another reason": pinned, "unpin": pinned}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("act", ACTS)
async def test_the_undo_of_an_answer_leads_back_to_the_state_before(store: Store, act: str) -> None:
    if act in PREPARED:
        await PREPARED[act](store)
    before = await store.state()

    for step in await _undo(store, act, before):
        await store.call(step["method"], step["path"], step["body"], step["headers"])
    assert await store.state() == before

    for step in await _undo(store, act, before):
        ran = await asyncio.to_thread(run, store.line, step["command"])
        assert ran.code == 0, ran.err
    assert await store.state() == before


async def _undo(store: Store, act: str, before: object) -> Any:
    """Act, and return the undo of the answer."""
    method, path, body = ACTS[act]
    if isinstance(body, dict) and body.get("backup"):
        body = {**body, "backup": store.backup}
    headers = {"Content-Type": MERGE} if method == "PATCH" else None
    done = await store.call(method, path, body, headers)
    assert await store.state() != before
    return done["undo"]


def test_a_route_that_changes_something_has_an_undo_or_the_reason_why_not() -> None:
    acted = {
        (method, PREFIX + path.partition("?")[0].replace("/new.json", "/{name}"))
        for method, path, _ in ACTS.values()
    }
    for route in ROUTES:
        if route.method == "GET":
            assert not route.no_undo
            continue
        path = route.path.replace("{destination}", "bucket")
        assert ((route.method, path) in acted) is not bool(route.no_undo), route
        if route.scope != "control":
            assert _has_undo(route.method, route.path) is not bool(route.no_undo), route


def _has_undo(method: str, path: str) -> bool:
    """Return whether the description has the field."""
    operation = DESCRIPTION["paths"][path][method.lower()]
    [schema] = {
        json.dumps(response["content"]["application/json"]["schema"])
        for status, response in operation["responses"].items()
        if status.startswith("2")
    }
    found = json.loads(schema)
    if "$ref" in found:
        found = DESCRIPTION["components"]["schemas"][found["$ref"].rpartition("/")[2]]
    return "undo" in found["properties"]


async def test_what_keeps_nothing_has_no_undo(store: Store, tmp_path: Path) -> None:
    (tmp_path / "data" / "broken.json").write_text("{ no JSON")
    os.utime(tmp_path / "data" / "broken.json", (1e9, 1e9))

    for method, path, body in (
        ("PUT", DOCUMENT, {"n": 2, "of": "me"}),  # as it is already
        ("PUT", DOCUMENT + "?backup=false", {"n": 4}),
        ("DELETE", DOCUMENT + "?dry_run=true", None),
        ("POST", "/import?dry_run=true", {"files": {"a.json": [1]}}),
        ("POST", "/import", {"files": {"broken.json": [1]}}),  # what was there is not JSON
        ("DELETE", PIN, None),  # it is not pinned
        ("DELETE", DOCUMENT + "?purge=true", None),
    ):
        assert (await store.call(method, path, body))["undo"] == [], path


async def test_an_undo_is_refused_once_the_document_has_changed_again(store: Store) -> None:
    for act in ("save", "new document", "delete"):
        method, path, body = ACTS[act]
        [step] = (await store.call(method, path, body))["undo"]
        newer = await store.call("PUT", path, {"newer": act})
        address, headers = step["path"], step["headers"]
        async with store.session.request(
            step["method"], address, json=step["body"], headers=headers
        ) as response:
            assert response.status == 412
        assert (await store.call("GET", path)) == {"newer": act}
        assert newer["undo"], "the newer change has its own"
