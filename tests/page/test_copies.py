"""Copies: the destinations, the copies there, a restore with its preview, and its undo."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from seline.errors import ExportFailed
from seline.page import copies, work
from seline.server import Serving, serving
from tests.browser import Browser, Page, jar
from tests.http_client import settings_for


class At(NamedTuple):
    """A browser, and the server whose two documents are mirrored and changed since."""

    browser: Browser
    server: Serving


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[At]:
    nas = {"name": "nas", "url": f"file://{tmp_path}/nas", "mode": "both", "same_disk": True}
    settings = settings_for(tmp_path / "data", exports__destinations=[nas])
    async with serving(settings) as server, jar() as session:
        await server.acquired()
        browser = Browser(session, server.address)
        await browser.sign_in()
        yield At(browser, server)


async def filled(at: At) -> None:
    """Mirror two documents, then change one and delete the other."""
    for name in ("a.json", "b.json"):
        await at.server.data.save_json(name, {"n": 1})
    await at.server.operations.mirrors.run()
    await at.server.data.save_json("a.json", {"n": 2})
    await at.server.data.delete("b.json")


async def pressed(browser: Browser, label: str) -> Page:
    """Press a button and wait for the end of the work that it starts."""
    await browser.press(label)
    return await browser.wait()


async def chosen(at: At) -> None:
    """Open the page that chooses the documents of the newest copy."""
    page = await at.browser.get("/copies/nas")
    await at.browser.get(page.links["Restore from it"])


async def test_without_a_destination_the_page_says_what_that_means(owner: Browser) -> None:
    page = await owner.get("/copies")

    assert "if this volume is lost, so are the documents" in page.text


async def test_a_destination_shows_its_state_and_is_copied_to_and_proven(at: At) -> None:
    await at.server.data.save_json("a.json", {"n": 1})
    page = await at.browser.get("/copies")
    assert "Newest copy: never" in page.text
    assert 'data-poll="5"' in page.html
    for label in ("Mirror now", "Export now", "Prove a restore now"):
        await at.browser.press(label)
        page = await at.browser.wait()
        assert ": done." in page.text, page.text
        page = await at.browser.get("/copies")

    assert "nas Well is mirrored and takes exports" in page.text
    assert re.search(r"Newest copy: just now .* Last whole export: just now", page.text)
    assert re.search(r"Proven restorable: just now .* \(by the service\)", page.text)


async def test_a_restore_shows_what_changes_and_can_be_undone(at: At) -> None:
    await filled(at)
    await chosen(at)
    page = await pressed(at.browser, "Preview everything")
    assert "Created: 1 (b.json)" in page.text
    assert "Changed: 1 (a.json)" in page.text
    assert "Removed: 0" in page.text
    assert await at.server.data.load_json("a.json") == {"n": 2}

    page = await pressed(at.browser, "Restore")
    assert "Restored from" in page.text
    assert await at.server.data.load_json("a.json") == {"n": 1}
    assert await at.server.data.load_json("b.json") == {"n": 1}

    page = await pressed(at.browser, "Undo")
    assert "1 document has the content from before again." in page.text
    assert "1 document that was made is deleted." in page.text
    assert await at.server.data.load_json("a.json") == {"n": 2}
    assert [info.name for info in await at.server.data.documents()] == ["a.json"]


async def test_only_the_chosen_documents_are_restored(at: At) -> None:
    await filled(at)
    await chosen(at)
    form = next(form for form in at.browser.page.forms if "document:b.json" in form.fields)
    fields = {**form.fields}
    del fields["document:a.json"]
    await at.browser.post(form.action, fields)
    page = await at.browser.wait()
    assert "Changed: 0" in page.text
    await pressed(at.browser, "Restore")

    assert await at.server.data.load_json("a.json") == {"n": 2}
    assert await at.server.data.load_json("b.json") == {"n": 1}


async def test_nothing_chosen_changes_nothing(at: At) -> None:
    await filled(at)
    await chosen(at)
    form = next(form for form in at.browser.page.forms if "document:b.json" in form.fields)
    kept = {name: form.fields[name] for name in ("csrf", "at", "volume")}
    page = await at.browser.post(form.action, kept)

    assert page.status == 422
    assert "No document was chosen; nothing was changed." in page.text


async def test_many_copies_are_shown_page_by_page(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(at)
    copies = at.server.operations.copies("nas")
    [copy] = await copies.listed()
    many = [replace(copy, name=f"copy-{number:03}") for number in range(120)]

    async def listed(_copies: object, volume: str = "") -> object:
        return many

    monkeypatch.setattr(type(copies), "listed", listed)
    page = await at.browser.get("/copies/nas")
    assert ("copy-049" in page.text, "copy-050" in page.text) == (True, False)
    page = await at.browser.get(page.links["Next page"])
    page = await at.browser.get(page.links["Next page"])
    assert ("copy-119" in page.text, "copy-099" in page.text) == (True, False)


async def test_many_documents_are_found_by_a_part_of_the_name(
    at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "CHOICES_MAX", 1)
    await filled(at)
    await chosen(at)
    assert "1 more document has that part" in at.browser.page.text
    page = await at.browser.get(f"{at.browser.page.path}&find=B.js")

    [form] = [form for form in page.forms if form.action.endswith("/preview")][1:]
    assert [name for name in form.fields if name.startswith("document:")] == ["document:b.json"]


async def test_a_document_changed_after_the_restore_is_not_deleted_by_its_undo(at: At) -> None:
    await filled(at)
    await chosen(at)
    await pressed(at.browser, "Preview everything")
    page = await pressed(at.browser, "Restore")
    await at.server.data.save_json("b.json", {"n": 7})
    form = next(form for form in page.forms if form.action.endswith("/undo"))
    page = await at.browser.post(form.action, form.fields)

    assert page.status == 412
    assert await at.server.data.load_json("b.json") == {"n": 7}


async def test_a_long_preview_can_be_left_and_asks_on_its_page(
    at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "SHORT_S", 0.0)
    await filled(at)
    await chosen(at)
    page = await at.browser.press("Preview everything")
    assert page.path.startswith("/work/")
    page = await at.browser.wait()

    assert "Restore this?" in page.text
    assert page.links["Cancel"].startswith("/copies/nas/restore?")


@pytest.mark.prove
async def test_an_export_in_doubt_is_shown_and_accepted(tmp_path: Path) -> None:
    nas = {"name": "nas", "url": f"file://{tmp_path}/nas", "same_disk": True}
    settings = settings_for(tmp_path / "data", exports__destinations=[nas])
    async with serving(settings) as server, jar() as session:
        await server.acquired()
        for name in ("a.json", "b.json", "c.json"):
            await server.data.save_json(name, {"n": 1})
        await server.operations.exports.run()
        for name in ("a.json", "b.json"):
            await server.data.delete(name)
        await asyncio.sleep(1.01)  # an export's name has its second
        with pytest.raises(ExportFailed):
            await server.operations.exports.run()
        browser = Browser(session, server.address)
        await browser.sign_in()
        assert "it has 1 of 3 documents" in (await browser.get("/copies/nas")).text
        page = await browser.get("/copies")
        assert "run seline destinations accept nas" in page.text
        await browser.get(page.links["Accept the copy of this volume"])
        await asyncio.sleep(1.01)
        page = await pressed(browser, "Accept this volume's copy at nas")

        assert "takes this volume's copy now" in page.text
        assert "in doubt" not in (await browser.get("/copies")).text


@pytest.mark.parametrize(
    ("act", "question", "done"),
    [
        ("accept", "a restore takes that copy", "takes this volume's copy now"),
        ("use", "whatever was there before", "nas is in use."),
    ],
)
async def test_a_destination_is_accepted_and_used_after_a_question(
    at: At, act: str, question: str, done: str
) -> None:
    await at.server.data.save_json("a.json", {"n": 1})
    page = await at.browser.get(f"/copies/nas/{act}")
    assert question in page.text
    form = next(form for form in page.forms if form.action == f"/copies/nas/{act}")
    await at.browser.post(form.action, form.fields)
    page = await at.browser.wait()

    assert done in page.text
    assert (await at.browser.get(f"/copies/other/{act}")).status == 404


async def test_what_a_purge_waits_for_is_shown(at: At) -> None:
    await filled(at)
    await at.server.data.delete("a.json", purge=True)
    page = await at.browser.get("/copies")

    assert "Erased, and still in older copies" in page.text
    assert re.search(r"a\.json just now .*nas: in \d+ days", page.text)
    assert "newer export" in page.text


async def test_a_restore_from_the_page_is_in_the_audit_log(at: At) -> None:
    await filled(at)
    await chosen(at)
    await pressed(at.browser, "Preview everything")
    await pressed(at.browser, "Restore")
    page = await at.browser.get("/audit?document=b.json")

    assert "POST /copies/nas/restore" in page.text
    assert "b.json: created as" in page.text


async def test_a_reader_sees_the_copies_and_restores_none(at: At) -> None:
    await filled(at)
    _, secret = await at.server.tokens.create(scope="read")
    async with jar() as session:
        reader = Browser(session, at.server.address)
        await reader.sign_in(secret)
        for path in ("/copies", "/copies/nas"):
            page = await reader.get(path)
            assert page.status == 200
            assert {form.action for form in page.forms} == {"/sign-out", "/language"}
        assert "Restore from it" not in page.links
        assert (await reader.get("/copies/nas/restore")).status == 403
