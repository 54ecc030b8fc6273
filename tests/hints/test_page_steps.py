"""The next steps that the page gives: the form that they describe is accepted."""

import asyncio
import html
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seline.page.editing import EDIT_BYTES_MAX
from seline.server import Serving
from tests.browser import Browser, Page, jar
from tests.command_line import line_at
from tests.hints.following import run, shell


@pytest.fixture
async def owner(server: Serving) -> AsyncIterator[Browser]:
    async with jar() as session:
        browser = Browser(session, server.address)
        await browser.sign_in()
        yield browser


@pytest.mark.follows("page/gate:_posted")
async def test_a_form_of_an_ended_session_is_sent_again_from_the_page(owner: Browser) -> None:
    old = owner.page.forms[0].fields["csrf"]
    await owner.press("Sign out")
    await owner.sign_in()
    refused = await owner.post("/prune", {"csrf": old})
    assert "Open the page again, then send the form again." in refused.text

    page = await owner.get("/")
    page = await owner.post("/prune", {"csrf": page.forms[0].fields["csrf"]})

    assert page.status == 200


@pytest.mark.follows("page/gate:_check_site")
async def test_a_form_of_another_site_is_sent_from_the_page_itself(owner: Browser) -> None:
    csrf = owner.page.forms[0].fields["csrf"]
    refused = await owner.post("/prune", {"csrf": csrf}, Sec_Fetch_Site="cross-site")
    assert "Open the page of Seline itself, and send it there." in refused.text

    page = await owner.get("/")
    page = await owner.post("/prune", {"csrf": page.forms[0].fields["csrf"]})

    assert page.status == 200


def commands_of(page: Page) -> list[str]:
    """Return the commands that a page shows, in order."""
    shown = re.findall(r"<code>(seline [^<]*)</code>", page.html)
    assert shown, page.text
    return [html.unescape(command) for command in shown]


@pytest.mark.follows("page/editing:_check_size")
async def test_a_document_that_is_too_large_for_the_page_is_edited_as_a_copy(
    owner: Browser, server: Serving, tmp_path: Path
) -> None:
    await server.data.save_json("a.json", ["x" * EDIT_BYTES_MAX])
    loading, saving = commands_of(await owner.get("/documents/a.json/edit"))
    line = line_at(tmp_path)

    await asyncio.to_thread(run, line, loading)
    copy = line.folder / "copy.json"
    copy.write_text(copy.read_text().replace("xx", "y", 1))
    ran = await asyncio.to_thread(run, line, saving)

    assert ran.code == 0, ran.err
    assert (await server.data.load_json("a.json"))[0].startswith("y")


@pytest.mark.prove
@pytest.mark.follows("page/editing:_item_text")
async def test_an_item_that_is_no_text_is_written_to_a_file(
    owner: Browser, server: Serving, tmp_path: Path
) -> None:
    await server.data.save_json("a.json", {"n": 1})
    (tmp_path / "data" / "a.json").write_bytes(b'{"n": ')
    await server.operations.verify()
    [item] = await server.operations.quarantine()
    (tmp_path / "data" / "quarantine" / item.name).write_bytes(b'{"a": "caf\xe9"}')
    page = await owner.get(f"/documents/a.json/edit?item={item.name}")
    [command] = commands_of(page)

    await asyncio.to_thread(shell, tmp_path, command, SELINE_DATA_DIR="data")

    assert (tmp_path / "copy.json").read_bytes() == b'{"a": "caf\xe9"}'
