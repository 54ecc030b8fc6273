"""Audit: what was done here and elsewhere, newest first, of one document, page by page."""

import asyncio
from pathlib import Path

import pytest

from seline.page import audit, work
from seline.server import Serving
from tests.browser import Browser
from tests.http_client import NAME, Client


async def test_a_change_shows_who_and_both_revisions(owner: Browser) -> None:
    client = Client(owner.session, owner.address)
    await client.call("PUT", f"/documents/{NAME}", {"n": 1})
    await client.call("PUT", f"/documents/{NAME}", {"n": 2})
    await client.call("DELETE", f"/documents/{NAME}")
    page = await owner.get("/audit")

    text = page.text
    assert text.index("DELETE") < text.index("→") < text.index("created as")
    assert text.index("created as") < text.index("POST /sign-in")
    assert "SELINE_ADMIN_TOKEN, page session" in text


async def test_the_acts_of_the_page_name_the_session_and_what_they_changed(
    owner: Browser, server: Serving
) -> None:
    await owner.get("/tokens")
    await owner.press("Make the token", scope="read")
    page = await owner.get("/audit")

    [session] = server.sessions.listed()
    assert f"page session {session.id} POST /tokens" in page.text


async def test_the_entries_of_one_document(owner: Browser) -> None:
    client = Client(owner.session, owner.address)
    for name in (NAME, "other.json"):
        await client.call("PUT", f"/documents/{name}", {"n": 1})
    page = await owner.get(f"/audit?document={NAME}")
    assert NAME in page.text
    assert "other.json" not in page.text
    page = await owner.get("/audit?document=%22%3Cb%3E")

    assert 'No entry names "<b>.' in page.text


async def test_pages_lead_to_older_entries_and_back(
    owner: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PAGE", 2)
    client = Client(owner.session, owner.address)
    for number in range(3):
        await client.call("PUT", f"/documents/d{number}.json", {})
    page = await owner.get("/audit")
    assert "d2.json" in page.text
    assert "d0.json" not in page.text
    assert "Newest" not in page.links
    page = await owner.get(page.links["Older"])
    assert "d0.json" in page.text
    assert "d2.json" not in page.text
    assert "Older" not in page.links
    page = await owner.get(page.links["Newest"])

    assert "d2.json" in page.text


async def test_damaged_lines_are_counted(owner: Browser, tmp_path: Path) -> None:
    with (tmp_path / "data" / ".seline" / "audit.jsonl").open("ab") as file:
        file.write(b"{\n")
    page = await owner.get("/audit")

    assert "1 line of the log is damaged and left out." in page.text


async def test_a_wrong_position_is_a_page(owner: Browser) -> None:
    page = await owner.get("/audit?before=soon")

    assert page.status == 422


async def test_long_work_has_a_second_line_once_it_has_ended(
    owner: Browser, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()
    verify = server.operations.verify

    async def slow(**_: object) -> object:
        await release.wait()
        await server.data.save_json(NAME, {"n": 1})
        return await verify()

    monkeypatch.setattr(work, "SHORT_S", 0.01)
    monkeypatch.setattr(server.operations, "verify", slow)
    await owner.post("/fix/verify", {"csrf": owner.page.forms[0].fields["csrf"]})
    release.set()
    await owner.wait()
    page = await owner.get(f"/audit?document={NAME}")

    assert "POST /fix/verify, ended done" in page.text
    assert f"{NAME}: created as" in page.text
