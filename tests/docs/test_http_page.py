"""The answers that docs/http.md shows have the fields that the server answers."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp

from seline.commands import control_socket_path
from seline.http import PREFIX
from seline.http.openapi import description
from seline.http.routes import ROUTES
from seline.server import Serving, serving
from seline.settings import load_settings
from tests.docs.blocks import ROOT
from tests.faults.forms import chosen

DESCRIPTION = description(ROUTES)
PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
SHOWN = dict(re.findall(r"^```json (\S+ \S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
ALEX = {"userName": "Alex", "location": "Paris"}


async def test_every_answer_on_the_page_has_the_fields_of_the_server(tmp_path: Path) -> None:
    """Call each route in turn, on a server that has one document and one broken one."""
    answers: dict[str, Any] = {}
    settings = load_settings(
        environ=chosen(),
        arguments={
            "storage.data_dir": str(tmp_path / "data"),
            "server.host": "127.0.0.1",
            "server.port": 0,
            "exports.destinations": [
                {"name": "nas", "url": f"file://{tmp_path}/nas", "mode": "both"}
            ],
        },
    )
    async with serving(settings) as server:
        await server.acquired()
        (tmp_path / "data" / "broken.json").write_text("{")
        connector = aiohttp.UnixConnector(control_socket_path(str(tmp_path / "data")))
        async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
            await _call_everything(session, answers)
        metrics = await _metrics(server, tmp_path)

    assert {route for route in SHOWN if route not in answers} == set()
    for route, text in SHOWN.items():
        _compare(json.loads(text), answers[route], route)
        _conforms(route, answers[route])
    assert set(re.findall(r"^# TYPE (\w+)", metrics, re.MULTILINE)) <= set(
        re.findall(r"`(seline_\w+)`", PAGE)
    )


async def _call_everything(session: aiohttp.ClientSession, answers: dict[str, Any]) -> None:
    """Call every route that the page shows an answer of; keep the last answer of each."""

    async def call(route: str, body: object = None, query: str = "", **parts: str) -> Any:
        method, path = route.split()
        prefix = "" if path == "/readyz" else PREFIX
        address = prefix + path.format(**parts) + query
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        async with session.request(method, address, json=body, headers=headers) as response:
            answers[route] = await response.json()
            assert response.ok, answers[route]
        return answers[route]

    name = {"name": "user_profile.json"}
    await call("PUT /documents/{name}", ALEX, **name)
    await call("PUT /documents/{name}", {**ALEX, "location": "Lyon"}, **name)
    await call("PATCH /documents/{name}", {"location": "Nice"}, **name)
    await call("GET /documents")
    listed = await call("GET /documents/{name}/backups", **name)
    await call("GET /documents/{name}/diff", **name)
    backup = {**name, "backup": listed["backups"][0]["name"]}
    await call("PUT /documents/{name}/backups/{backup}/pin", {"because": "kept"}, **backup)
    await call("POST /restore-backup", {"filename": name["name"]})
    await session.get(PREFIX + "/documents/broken.json")
    while not any("document" in alert for alert in (await call("GET /alerts"))["alerts"]):
        await asyncio.sleep(0.1)
    await call("POST /documents/{name}/reset", name="broken.json")
    await call("GET /quarantine")
    await call("POST /verify")
    await call("POST /prune", query="?dry_run=true")
    export = await call("GET /export")
    await call("POST /import", export, query="?mode=merge&dry_run=true")
    run = await call("POST /jobs/{job}/run", job="usage")
    while not (await call("GET /jobs/{job}/runs", job=run["job"]))["runs"][0]["outcome"]:
        pass
    await call("GET /jobs")
    await call("POST /destinations/{destination}/use", destination="nas")
    await call("POST /destinations/{destination}/accept", destination="nas")
    await call("GET /destinations/{destination}/copies", destination="nas")
    await call("POST /destinations/{destination}/restore", destination="nas")
    await call("GET /destinations")
    await call("POST /alerts/test")
    alerts = (await call("GET /alerts"))["alerts"]
    alerts.sort(key=lambda alert: "document" not in alert)  # the page shows one about a document
    await call("GET /health")
    await call("GET /storage-info")
    await call("GET /readyz", query="?verbose")
    token = await call("POST /tokens", {"label": "dashboard"})
    await call("GET /tokens")
    await call("DELETE /tokens/{id}", id=token["id"])
    await call("GET /status")
    await call("GET /audit")
    await call("DELETE /documents/{name}", **name)


async def _metrics(server: Serving, data_dir: Path) -> str:
    _, secret = await server.tokens.create(scope="read")
    headers = {"Authorization": f"Bearer {secret}"}
    async with (
        aiohttp.ClientSession(server.address, headers=headers) as session,
        session.get("/metrics") as response,
    ):
        return await response.text()


def _conforms(route: str, answered: Any) -> None:
    """Compare an answer with the fields that the description has for the route."""
    method, path = route.split()
    operations = DESCRIPTION["paths"].get(path) or DESCRIPTION["paths"].get(PREFIX + path, {})
    for status, response in operations.get(method.lower(), {}).get("responses", {}).items():
        if status.startswith("2"):
            _has_fields(response["content"]["application/json"]["schema"], answered, route)


def _has_fields(schema: Any, value: Any, where: str) -> None:
    """Check the fields of every object, and that an object with named fields has no other one."""
    for reference in (schema, *schema.get("anyOf", ())):
        if "$ref" in reference:
            name = reference["$ref"].rpartition("/")[2]
            _has_fields(DESCRIPTION["components"]["schemas"][name], value, where)
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema["required"]) <= set(value) <= set(schema["properties"]), where
        for name, field in schema["properties"].items():
            if name in value:
                _has_fields(field, value[name], f"{where}: {name}")
    elif isinstance(value, list):
        for item in value:
            _has_fields(schema.get("items", {}), item, f"{where}[]")


def _compare(shown: Any, answered: Any, where: str) -> None:
    """Compare the fields at every depth; `{}`, `[]` and null on either side match anything."""
    if isinstance(shown, dict) and isinstance(answered, dict) and shown and answered:
        assert list(shown) == list(answered), where
        for field in shown:
            _compare(shown[field], answered[field], f"{where}: {field}")
    elif isinstance(shown, list) and isinstance(answered, list) and shown and answered:
        _compare(shown[0], answered[0], f"{where}[0]")
    elif shown not in ({}, [], None) and answered not in ({}, [], None):
        numbers = isinstance(shown, (int, float)) and isinstance(answered, (int, float))
        assert numbers or type(shown) is type(answered), where
