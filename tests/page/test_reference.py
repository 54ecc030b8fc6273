"""The reference of the HTTP API: every route, with examples that fit and commands that work."""

import json
import re
import shlex
from collections.abc import Mapping
from html import unescape
from typing import Any

import pytest

from seline.http import PREFIX
from seline.http.openapi import description
from seline.http.routes import ROUTES
from seline.page.examples import BACKUP, DOCUMENT, example_of
from seline.page.reference import shown_routes
from seline.server import Serving
from tests.browser import Browser
from tests.http_client import ADMIN

DESCRIPTION = description(ROUTES)
SCHEMAS: Mapping[str, Any] = DESCRIPTION["components"]["schemas"]
REFUSED = {400, 401, 403, 405, 408, 411, 413, 415, 417, 422, 500}
"""Statuses that say that a command is wrong, and not that there is no such document."""
ENGLISH = re.compile(r'<span lang="en">.*?</span>', re.DOTALL)


async def test_the_page_has_every_route_with_an_index(owner: Browser) -> None:
    page = await owner.get((await owner.get("/")).links["HTTP API"])
    targets = set(re.findall(r'href="#([a-z_]+)"', page.html))

    assert page.status == 200
    for route in ROUTES:
        heading = f"<code>{route.method} {route.path}</code>"
        assert (heading in page.html) == (route.scope != "control"), route
    assert targets
    assert targets - {"main"} <= set(re.findall(r'id="([a-z_]+)"', page.html))
    assert "revision_mismatch" in page.text
    assert "Keep a backup of the content before." in page.text
    assert f"{owner.address}{PREFIX}/documents" in page.html


async def test_the_headings_are_french_and_the_rest_is_marked_as_english(owner: Browser) -> None:
    page = await owner.get("/reference", Accept_Language="fr")

    assert "Paramètres" in page.text
    assert "sans jeton" in page.text
    assert "Save the body as the document." in page.text
    assert "Save the body" not in ENGLISH.sub("", page.html)


async def test_it_asks_to_sign_in(browser: Browser) -> None:
    assert "Sign in" in (await browser.get("/reference")).text


async def test_a_program_reads_it_with_a_token(browser: Browser, server: Serving) -> None:
    _, secret = await server.tokens.create(scope="read")

    page = await browser.get("/reference", Authorization=f"Bearer {secret}")
    assert (page.status, page.path) == (200, "/reference")
    assert "Save the body as the document." in page.text
    assert (await browser.get("/reference", Authorization="Bearer wrong")).status == 401
    assert (await browser.get("/documents", Authorization=f"Bearer {secret}")).path == (
        "/sign-in?next=%2Fdocuments"
    )


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_an_example_fits_its_schema(name: str) -> None:
    _fits(SCHEMAS[name], example_of(SCHEMAS[name], SCHEMAS), name)


async def test_each_command_is_understood_by_the_server(owner: Browser, server: Serving) -> None:
    await server.data.save_json(DOCUMENT, {"n": 1})
    page = await owner.get("/reference")
    for route in shown_routes(DESCRIPTION, owner.address):
        assert route.curl in unescape(page.html)
        url, asked = _request_of(route.curl)
        async with owner.session.request(url=url, **asked) as response:
            answer = await response.text()

        assert response.status not in REFUSED, (route.curl, answer)
        assert response.status < 400 or json.loads(answer)["code"] != "route_not_found"


def _request_of(command: str) -> tuple[str, dict[str, Any]]:
    """Return the address and the request of a `curl` command."""
    words = shlex.split(command.replace("$TOKEN", ADMIN))
    assert words.pop(0) == "curl"
    asked: dict[str, Any] = {"method": "GET", "headers": {}}
    while len(words) > 1:
        option, value = words.pop(0), words.pop(0)
        if option == "-H":
            name, _, text = value.partition(": ")
            asked["headers"][name] = text
        else:
            asked[{"-X": "method", "-d": "data"}[option]] = value
    return words[0], asked


def _fits(schema: Mapping[str, Any], value: Any, where: str) -> None:
    """Check the fields and types of a value at every depth."""
    if "$ref" in schema:
        _fits(SCHEMAS[schema["$ref"].rpartition("/")[2]], value, where)
    elif "anyOf" in schema:
        _fits(schema["anyOf"][0], value, where)
    elif "enum" in schema or "const" in schema:
        assert value in schema.get("enum", [schema.get("const")]), where
    elif "properties" in schema:
        assert set(value) == set(schema["properties"]), where
        for name, field in schema["properties"].items():
            _fits(field, value[name], f"{where}: {name}")
    elif "items" in schema:
        assert value, where
        for item in value:
            _fits(schema["items"], item, f"{where}[]")
    else:
        kinds = {"string": str, "integer": int, "number": float, "boolean": bool, "object": dict}
        kinds |= {"array": list, "null": type(None)}
        assert isinstance(value, kinds.get(schema.get("type", ""), object)), where


def test_the_examples_have_the_forms_of_real_names() -> None:
    assert re.fullmatch(r"user_profile_\d{8}_\d{6}\.json", BACKUP)
