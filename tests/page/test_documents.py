"""Documents: the list, one document, its backups, restore, undo, delete and pins."""

import asyncio
import json
from pathlib import Path

import pytest

from seline.page.documents import ROWS_MAX, reasons_in_words
from seline.page.texts import Texts
from seline.server import Serving
from tests.browser import Browser

NAME = "user_profile.json"


async def two_versions(server: Serving) -> None:
    """Save a document twice: its first version is a backup."""
    await server.data.save_json(NAME, {"userName": "Alex", "level": 1, "old": True})
    await server.data.save_json(NAME, {"userName": "Sam", "level": 1, "new": [1, 2]})


async def backup_of(server: Serving, name: str = NAME) -> str:
    """Return the name of the newest backup."""
    return (await server.data.backups(name))[0].name


# the list


async def test_documents_are_listed_and_found_by_name(owner: Browser, server: Serving) -> None:
    assert "There are no documents yet." in (await owner.get("/documents")).text
    for number in range(ROWS_MAX + 2):
        await server.data.save_json(f"chat_{number:03}.json", {"n": number})
    page = await owner.get("/documents")

    assert page.status == 200
    assert f"{ROWS_MAX + 2} documents" in page.text
    assert page.links["chat_000.json"] == "/documents/chat_000.json"
    assert "chat_050.json" not in page.text
    page = await owner.get(page.links["Next page"])
    assert "chat_051.json" in page.text
    assert "Page 2 of 2" in page.text
    page = await owner.get("/documents?q=CHAT_05")
    assert "2 documents were found" in page.text
    assert "chat_049.json" not in page.text
    assert "No document has nothing in its name." in (await owner.get("/documents?q=nothing")).text


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999999999999", "²"])
async def test_a_page_that_does_not_exist_is_the_nearest(
    owner: Browser, server: Serving, number: str
) -> None:
    await server.data.save_json(NAME, {"n": 1})
    page = await owner.get(f"/documents?page={number}")

    assert page.status == 200
    assert NAME in page.text


async def test_what_is_sought_is_escaped(owner: Browser, server: Serving) -> None:
    await server.data.save_json(NAME, {"n": 1})
    page = await owner.get('/documents?q="><script>alert(1)</script>')

    assert "<script>alert" not in page.html
    assert "No document has" in page.text


# one document


async def test_a_document_shows_its_contents_and_its_backups(
    owner: Browser, server: Serving
) -> None:
    await two_versions(server)
    page = await owner.get(f"/documents/{NAME}")

    assert page.status == 200
    assert 'userName "Sam"' in page.text
    assert "2 items" in page.text
    assert "kept among the newest 5" in page.text
    assert "Open one to see what a restore would change." in page.text
    assert f"/documents/{NAME}/backups/{await backup_of(server)}" in page.links.values()


async def test_an_unknown_document_is_a_page_with_the_next_step(owner: Browser) -> None:
    assert (await owner.get("/documents/other.json")).status == 404
    assert (await owner.get("/documents/%3Cscript%3E.json")).status == 422
    assert (await owner.get("/documents/%E2%80%AEx.json")).status == 422
    assert "<script>.json" not in owner.page.html


async def test_a_broken_document_still_shows_its_timeline(
    owner: Browser, server: Serving, tmp_path: Path
) -> None:
    (tmp_path / "data" / NAME).write_text('{"a": ')
    await server.operations.verify()
    page = await owner.get(f"/documents/{NAME}")

    assert page.status == 200
    assert f"seline reset {NAME}" in page.text
    assert page.links["Download"] == f"/documents/{NAME}/raw"
    page = await owner.get(f"/documents/{NAME}/delete")
    assert "It is broken: its file goes to Set aside" in page.text
    page = await owner.press("Delete")
    assert f"{NAME} was deleted. The broken file is under Set aside." in page.text
    assert all("Undo" not in form.buttons for form in page.forms)


async def test_a_reader_sees_no_button_that_changes(
    owner: Browser, server: Serving, browser: Browser
) -> None:
    await two_versions(server)
    _, token = await server.tokens.create(scope="read", label="reader")
    await owner.press("Sign out")
    await browser.sign_in(token)
    page = await browser.get(f"/documents/{NAME}")
    labels = {label for form in page.forms for label in form.buttons}
    assert not labels & {"Pin", "Delete", "Restore"}
    page = await browser.get(f"/documents/{NAME}/backups/{await backup_of(server)}")
    assert "What would change" in page.text
    assert "Restore" not in {label for form in page.forms for label in form.buttons}
    csrf = page.forms[0].fields["csrf"]
    fields = {"csrf": csrf, "backup": "", "path": "", "revision": ""}
    assert (await browser.post(f"/documents/{NAME}/restore", fields)).status == 403


async def test_the_bytes_are_a_download(owner: Browser, server: Serving) -> None:
    await two_versions(server)
    page = await owner.get(f"/documents/{NAME}/raw")

    assert page.headers["Content-Disposition"] == f'attachment; filename="{NAME}"'
    assert json.loads(page.html)["userName"] == "Sam"


# hostile and large contents


async def test_hostile_contents_are_escaped(owner: Browser, server: Serving) -> None:
    hostile = {"<script>alert(1)</script>": '"><img src=x onerror=alert(1)>'}
    await server.data.save_json(NAME, {"n": 1})
    await server.data.save_json(NAME, {**hostile, "rtl\u202e": "abc\u202edef\u0000", "📦": "🤖"})
    page = await owner.get(f"/documents/{NAME}")

    assert "<script>alert" not in page.html
    assert "<img src=x" not in page.html
    assert "\u202e" not in page.html
    assert "abc\\u202edef\\u0000" in page.html
    assert "🤖" in page.text
    page = await owner.get(f"/documents/{NAME}/backups/{await backup_of(server)}")
    assert "<script>alert" not in page.html
    assert "\u202e" not in page.html


async def test_a_deep_document_opens_level_by_level(owner: Browser, server: Serving) -> None:
    value: object = "at the bottom"
    for _ in range(150):
        value = [value]
    await server.data.save_json(NAME, {"deep": value})
    page = await owner.get(f"/documents/{NAME}")
    assert "at the bottom" not in page.text
    opened = 0
    while "at the bottom" not in page.text:
        page = await owner.get(page.links["Open 1 item"])
        opened += 1

    assert 30 < opened < 100


async def test_a_large_document_is_bounded(owner: Browser, server: Serving) -> None:
    many = [{"id": number, "text": "x" * 60} for number in range(12_000)]
    await server.data.save_json(NAME, {"many": many, "long": "é" * 300_000})
    page = await owner.get(f"/documents/{NAME}")

    assert len(page.html) < 100_000
    page = await owner.get(f"/documents/{NAME}?at=/many&from=11950")
    assert "11999" in page.text
    assert "11949" not in page.text
    page = await owner.get(f"/documents/{NAME}?at=/long")
    assert len(page.html) < 50_000
    assert (await owner.get(f"/documents/{NAME}?at=/none")).status == 404
    assert (await owner.get(f"/documents/{NAME}?at=none")).status == 422


# restore and undo


async def test_a_backup_is_previewed_restored_and_undone(owner: Browser, server: Serving) -> None:
    await two_versions(server)
    page = await owner.get(f"/documents/{NAME}/backups/{await backup_of(server)}")
    assert "1 change · 1 addition · 1 removal" in page.text
    assert 'Changed userName now "Sam" after "Alex"' in page.text
    assert "Removed new now [ 1, 2 ]" in page.text

    page = await owner.press("Restore")
    assert page.path == f"/documents/{NAME}"
    assert f"{NAME} is again as it was on" in page.text
    assert (await server.data.load_json(NAME))["userName"] == "Alex"

    page = await owner.press("Undo")
    assert await server.data.load_json(NAME) == {"userName": "Sam", "level": 1, "new": [1, 2]}
    assert "is again as it was on" in page.text
    await owner.press("Undo")
    assert (await server.data.load_json(NAME))["userName"] == "Alex"


async def test_one_value_is_restored_and_undone(owner: Browser, server: Serving) -> None:
    await two_versions(server)
    page = await owner.get(f"/documents/{NAME}/backups/{await backup_of(server)}?path=/userName")
    assert "Only this value: userName" in page.text
    assert "1 change" in page.text
    page = await owner.press("Restore this value")
    assert "The value userName is again as it was on" in page.text
    assert await server.data.load_json(NAME) == {"userName": "Alex", "level": 1, "new": [1, 2]}

    await owner.press("Undo")
    assert (await server.data.load_json(NAME))["userName"] == "Sam"


async def test_a_restore_over_a_newer_content_asks_again(owner: Browser, server: Serving) -> None:
    await two_versions(server)
    await owner.get(f"/documents/{NAME}/backups/{await backup_of(server)}")
    await server.data.save_json(NAME, {"userName": "Kim"})
    page = await owner.press("Restore")

    assert page.status == 412
    assert "nothing was restored" in page.text
    assert 'now "Kim" after "Alex"' in page.text
    assert await server.data.load_json(NAME) == {"userName": "Kim"}
    page = await owner.press("Restore")
    assert page.status == 200
    assert (await server.data.load_json(NAME))["userName"] == "Alex"


async def test_a_backup_that_is_gone_is_a_page(owner: Browser, server: Serving) -> None:
    await two_versions(server)
    gone = "user_profile_20200101_000000.json"
    page = await owner.get(f"/documents/{NAME}/backups/{gone}")

    assert page.status == 404
    assert page.links[NAME] == f"/documents/{NAME}"
    assert NAME not in (await owner.get("/documents/none.json/edit?item=x")).links


async def test_a_form_that_is_sent_twice_at_once_is_answered_as_the_first(
    owner: Browser, server: Serving
) -> None:
    """A double click: the browser drops the first answer and shows the second."""
    await two_versions(server)
    page = await owner.get(f"/documents/{NAME}/backups/{await backup_of(server)}")
    form = next(form for form in page.forms if "Restore" in form.buttons)
    other = Browser(owner.session, owner.address)

    pages = await asyncio.gather(*(each.post(form.action, form.fields) for each in (owner, other)))

    assert [page.status for page in pages] == [200, 200]
    assert any("is again as it was on" in page.text for page in pages)
    assert (await server.data.load_json(NAME))["userName"] == "Alex"
    assert len(await server.data.backups(NAME)) == 1


async def test_a_form_whose_first_answer_was_an_error_is_carried_out(
    owner: Browser, server: Serving
) -> None:
    await two_versions(server)
    page = await owner.get(f"/documents/{NAME}/backups/{await backup_of(server)}")
    form = next(form for form in page.forms if "Restore" in form.buttons)
    await server.data.save_json(NAME, {"userName": "Kim"})

    assert [(await owner.post(form.action, form.fields)).status for _ in range(2)] == [412, 412]


async def test_a_restore_that_would_change_nothing_is_not_offered(
    owner: Browser, server: Serving
) -> None:
    await two_versions(server)
    backup = await backup_of(server)
    before = await owner.get(f"/documents/{NAME}/backups/{backup}")
    await server.data.delete(NAME)
    await owner.get("/documents/deleted")
    await owner.press("Restore")
    newest = await backup_of(server)
    page = await owner.get(f"/documents/{NAME}/backups/{newest}")
    form = next(form for form in before.forms if "Restore" in form.buttons)

    assert "there is nothing to restore" in page.text
    assert not [form for form in page.forms if "Restore" in form.buttons]
    page = await owner.post(form.action, {**form.fields, "backup": newest})
    assert "nothing was changed" in page.text
    assert "Undo" not in page.text


# delete, undelete, pin


async def test_a_document_is_deleted_after_a_question_and_comes_back(
    owner: Browser, server: Serving
) -> None:
    await two_versions(server)
    await owner.get(f"/documents/{NAME}")
    page = await owner.get(owner.page.links["Delete"])
    assert "Its content becomes its newest backup" in page.text
    page = await owner.press("Delete")
    assert f"{NAME} was deleted." in page.text
    assert not await server.data.documents()

    page = await owner.get(f"/documents/{NAME}")
    assert "does not exist any more" in page.text
    page = await owner.get("/documents")
    page = await owner.get(page.links["1 deleted document can be restored"])
    page = await owner.press("Restore")
    assert (await server.data.load_json(NAME))["userName"] == "Sam"
    page = await owner.press("Undo")
    assert not await server.data.documents()
    await owner.press("Undo")
    assert (await server.data.load_json(NAME))["userName"] == "Sam"


async def test_a_delete_of_a_newer_content_asks_again(owner: Browser, server: Serving) -> None:
    await two_versions(server)
    await owner.get(f"/documents/{NAME}/delete")
    await server.data.save_json(NAME, {"userName": "Kim"})
    page = await owner.press("Delete")

    assert "nothing was deleted" in page.text
    assert await server.data.documents()
    await owner.press("Delete")
    assert not await server.data.documents()


async def test_an_undelete_never_replaces_a_document(owner: Browser, server: Serving) -> None:
    await two_versions(server)
    await server.data.delete(NAME)
    await owner.get("/documents/deleted")
    await server.data.save_json(NAME, {"userName": "Kim"})
    page = await owner.press("Restore")

    assert "nothing was restored" in page.text
    assert await server.data.load_json(NAME) == {"userName": "Kim"}


async def test_a_backup_is_pinned_and_unpinned(owner: Browser, server: Serving) -> None:
    await two_versions(server)
    await owner.get(f"/documents/{NAME}")
    page = await owner.press("Pin")
    assert "kept because it is pinned" in page.text
    assert (await server.data.backups(NAME))[0].pinned
    page = await owner.press("Undo")
    assert not (await server.data.backups(NAME))[0].pinned
    page = await owner.press("Pin")
    page = await owner.press("Unpin")
    assert "is not pinned any more" in page.text


async def test_the_view_is_complete_in_french(owner: Browser, server: Serving) -> None:
    await two_versions(server)
    page = await owner.get(f"/documents/{NAME}", Accept_Language="fr")

    assert "Contenu" in page.text
    assert "gardée parmi les 5 plus récentes" in page.text


@pytest.mark.parametrize(
    ("because", "text"),
    [
        ("newest 10, hourly, daily", "kept among the newest 10, kept for its hour"),
        (
            "pinned: before a blank save of 2026-01-02 (3 fields; 1 left)",
            "removed much (3 fields; 1 left)",
        ),
        ("goes at the next rotation: same content as its document", "will be removed: same"),
    ],
)
def test_a_reason_is_in_words(because: str, text: str) -> None:
    found = reasons_in_words(Texts("en"), because)

    assert text in "; ".join(part for part, _ in found)
