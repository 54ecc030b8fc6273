"""Edit: a document as text; whatever fails, the text comes back."""

import json

import pytest

from seline.errors import VolumeFull
from seline.page.editing import EDIT_BYTES_MAX
from seline.server import Serving
from tests.browser import Browser

NAME = "user_profile.json"
PAGE = f"/documents/{NAME}"


def typed(browser: Browser) -> str:
    """Return the text in the form."""
    return next(form.fields["text"] for form in browser.page.forms if "text" in form.fields)


async def test_a_document_is_edited_and_the_edit_undone(owner: Browser, server: Serving) -> None:
    await server.data.save_json(NAME, {"userName": "Alex", "n": 1})
    page = await owner.get(PAGE)
    await owner.get(page.links["Edit"])
    assert json.loads(typed(owner)) == {"userName": "Alex", "n": 1}
    page = await owner.press("Save", text='{"userName": "Sam 🤖",\r\n "n": 1.50}')
    assert page.path == PAGE
    assert f"{NAME} was saved. The content before is a backup." in page.text
    assert await server.data.load_json(NAME) == {"userName": "Sam 🤖", "n": 1.5}

    await owner.press("Undo")
    assert await server.data.load_json(NAME) == {"userName": "Alex", "n": 1}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{\n  "a": 1,\n  "b" 2\n}', "Line 3, column 7: a colon is missing"),
        ('{"a": 1,\n}', "Line 2, column 1: a comma before the closing bracket"),
        ('{"a": 1, "a": 2}', 'Line 1, column 10: duplicate key "a"'),
        ("", "The text is empty."),
        ('{"a": NaN}', "NaN"),
        ("[" * 300 + "]" * 300, "nested deeper than"),
        ('{"a": "' + "x" * 500 + '" 1}', "Line 1, column 510:"),
    ],
)
async def test_what_is_not_json_comes_back_with_its_place(
    owner: Browser, server: Serving, text: str, place: str
) -> None:
    await server.data.save_json(NAME, {"a": 0})
    await owner.get(f"{PAGE}/edit")
    page = await owner.press("Save", text=text)

    assert page.status == 422
    assert place in page.text
    assert typed(owner).split() == text.split()
    assert await server.data.load_json(NAME) == {"a": 0}
    await owner.press("Save", text='{"a": 9}')
    assert await server.data.load_json(NAME) == {"a": 9}


async def test_an_edit_over_a_newer_content_loses_neither(owner: Browser, server: Serving) -> None:
    await server.data.save_json(NAME, {"userName": "Alex", "n": 1})
    await owner.get(f"{PAGE}/edit")
    await server.data.save_json(NAME, {"userName": "Kim", "n": 1})
    page = await owner.press("Save", text='{"userName": "Sam", "n": 1}')

    assert page.status == 412
    assert 'Changed userName now "Kim" after "Sam"' in page.text
    assert "Sam" in typed(owner)
    assert '"userName": "Kim"' in page.text
    assert (await server.data.load_json(NAME))["userName"] == "Kim"

    page = await owner.press("Save my text")
    assert (await server.data.load_json(NAME))["userName"] == "Sam"
    await owner.press("Undo")
    assert (await server.data.load_json(NAME))["userName"] == "Kim"


async def test_an_edit_of_a_document_that_was_deleted_brings_it_back(
    owner: Browser, server: Serving
) -> None:
    await server.data.save_json(NAME, {"n": 1})
    await owner.get(f"{PAGE}/edit")
    await server.data.delete(NAME)
    page = await owner.press("Save", text='{"n": 2}')
    assert "was deleted while you were editing" in page.text
    page = await owner.press("Save my text")
    assert f"{NAME} was made." in page.text
    assert await server.data.load_json(NAME) == {"n": 2}
    await owner.press("Undo")

    assert not await server.data.documents()


async def test_a_text_that_cannot_be_saved_comes_back(
    owner: Browser, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise VolumeFull

    await server.data.save_json(NAME, {"n": 1})
    await owner.get(f"{PAGE}/edit")
    monkeypatch.setattr(server.data.store, "save", full)
    page = await owner.press("Save", text='{"n": 2}')

    assert page.status == 507
    assert "Nothing was saved." in page.text
    assert typed(owner) == '{"n": 2}'


async def test_the_same_content_changes_nothing(owner: Browser, server: Serving) -> None:
    await server.data.save_json(NAME, {"n": 1})
    await owner.get(f"{PAGE}/edit")
    page = await owner.press("Save")

    assert "has this content already" in page.text
    assert all("Undo" not in form.buttons for form in page.forms)


async def test_a_hostile_text_is_escaped(owner: Browser, server: Serving) -> None:
    hostile = "</textarea><script>alert(1)</script>"
    await server.data.save_json(NAME, {"a": hostile})
    page = await owner.get(f"{PAGE}/edit")
    assert "<script>alert" not in page.html
    assert json.loads(typed(owner)) == {"a": hostile}
    page = await owner.press("Save", text=hostile)
    assert page.status == 422
    assert "<script>alert" not in page.html


async def test_the_largest_text_is_edited_and_a_larger_one_is_not(
    owner: Browser, server: Serving
) -> None:
    lines = ["é" * 20 for _ in range(5_000)]
    await server.data.save_json(NAME, lines)
    await owner.get(f"{PAGE}/edit")
    assert EDIT_BYTES_MAX * 0.8 < len(typed(owner).encode()) < EDIT_BYTES_MAX
    await owner.press("Save", text=json.dumps([*lines, "last"], ensure_ascii=False, indent=0))
    assert (await server.data.load_json(NAME))[-1] == "last"

    await server.data.save_json(NAME, ["x" * EDIT_BYTES_MAX])
    page = await owner.get(f"{PAGE}/edit")
    assert page.status == 422
    assert f"seline load {NAME} > copy.json" in page.text


async def test_a_new_document_is_made(owner: Browser, server: Serving) -> None:
    await owner.get("/documents/new.json/edit")
    await owner.press("Save", text='{"n": 1}')

    assert await server.data.load_json("new.json") == {"n": 1}
