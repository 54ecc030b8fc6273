"""New document: a name and a text; whatever fails, both come back with the reason."""

import pytest

from seline.server import Serving
from tests.browser import Browser, Form

NAME = "notes.json"


def form(browser: Browser) -> Form:
    """Return the form of the page that is shown."""
    return next(form for form in browser.page.forms if "name" in form.fields)


async def test_a_document_is_made_and_taken_back(owner: Browser, server: Serving) -> None:
    page = await owner.get("/documents")
    await owner.get(page.links["New document"])
    assert form(owner).fields["text"].split() == ["{", "}"]

    page = await owner.press("Save", name=f" {NAME} ", text='{"a": [1]}')

    assert page.path == f"/documents/{NAME}"
    assert f"{NAME} was made." in page.text
    assert await server.data.load_json(NAME) == {"a": [1]}
    await owner.press("Undo")
    assert not await server.data.documents()


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "name", ["", "notes", "my notes.json", "_notes.json", "metadata.json", "é.json", "n" * 200]
)
async def test_a_wrong_name_comes_back_with_the_text(
    owner: Browser, server: Serving, name: str
) -> None:
    await owner.get("/documents/new")
    page = await owner.press("Save", name=name, text='{"a": 1}')

    assert page.status == 422
    assert "Nothing was saved." in page.text
    assert "is not a document's name" in page.text
    assert 'aria-invalid="true"' in page.html
    assert (form(owner).fields["name"], form(owner).fields["text"]) == (name, '{"a": 1}')
    assert not await server.data.documents()
    await owner.press("Save", name=NAME)
    assert await server.data.load_json(NAME) == {"a": 1}


@pytest.mark.parametrize("name", [NAME, "my notes"])
async def test_a_text_that_is_not_json_comes_back_with_its_place(
    owner: Browser, server: Serving, name: str
) -> None:
    await owner.get("/documents/new")
    page = await owner.press("Save", name=name, text='{\n "a" 1}')

    assert page.status == 422
    assert "Line 2, column 6: a colon is missing" in page.text
    assert ("is not a document's name" in page.text) is (name != NAME)
    assert form(owner).fields["name"] == name
    assert form(owner).fields["text"].split() == ["{", '"a"', "1}"]
    assert not await server.data.documents()


async def test_a_document_that_exists_is_kept(owner: Browser, server: Serving) -> None:
    await server.data.save_json(NAME, {"old": 1})
    await owner.get("/documents/new")
    page = await owner.press("Save", name=NAME, text='{"new": 1}')

    assert page.status == 412
    assert f"{NAME} exists already." in page.text
    assert (form(owner).fields["name"], form(owner).fields["text"]) == (NAME, '{"new": 1}')
    assert await server.data.load_json(NAME) == {"old": 1}
    page = await owner.get(page.links[f"Edit {NAME}"])
    assert "old" in page.text


async def test_only_who_may_change_is_offered_a_new_document(
    browser: Browser, server: Serving
) -> None:
    _, secret = await server.tokens.create(scope="read")
    await browser.sign_in(secret)

    assert "New document" not in (await browser.get("/documents")).links
    assert (await browser.get("/documents/new")).status == 403
