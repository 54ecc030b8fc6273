"""Set aside: what a recovery kept, why, and how it is brought back."""

from pathlib import Path

import pytest

from seline.page.editing import EDIT_BYTES_MAX
from seline.page.set_aside import TEXT_SHOWN_MAX
from seline.server import Serving
from tests.browser import Browser

NAME = "user_profile.json"


async def set_aside(server: Serving, tmp_path: Path, data: bytes) -> str:
    """Break a saved document with these bytes; return the name of the item."""
    await server.data.save_json(NAME, {"userName": "Alex"})
    (tmp_path / "data" / NAME).write_bytes(data)
    await server.operations.verify()
    return (await server.operations.quarantine())[0].name


async def test_what_was_set_aside_is_listed_with_its_reason(
    owner: Browser, server: Serving, tmp_path: Path
) -> None:
    assert "Nothing was set aside" in (await owner.get("/set-aside")).text
    item = await set_aside(server, tmp_path, b'{"userName": ')
    page = await owner.get("/set-aside")

    assert page.links[NAME] == f"/set-aside/{item}"
    assert "It is not JSON: cut off: the text ends too early" in page.text
    assert page.links["Set aside"] == "/set-aside"


async def test_a_broken_text_is_corrected_and_comes_back(
    owner: Browser, server: Serving, tmp_path: Path
) -> None:
    item = await set_aside(server, tmp_path, b'{"userName": "Sam", ')
    page = await owner.get(f"/set-aside/{item}")
    assert '{"userName": "Sam",' in page.text
    assert "It is not JSON: cut off" in page.text
    page = await owner.get(page.links["Open in the editor"])
    assert f"This is the text of {item}." in page.text
    page = await owner.press("Save")
    assert page.status == 422
    page = await owner.press("Save", text='{"userName": "Sam"}')
    assert await server.data.load_json(NAME) == {"userName": "Sam"}

    await owner.press("Undo")
    assert await server.data.load_json(NAME) == {"userName": "Alex"}


async def test_an_item_that_is_json_shows_what_differs(
    owner: Browser, server: Serving, tmp_path: Path
) -> None:
    await set_aside(server, tmp_path, b'{"userName": ')
    item = "user_profile_20260102_030405.seline.json"  # a later write to the first is adopted
    (tmp_path / "data" / "quarantine" / item).write_bytes(b'{"userName": "Sam"}')
    page = await owner.get(f"/set-aside/{item}")

    assert page.status == 200
    assert 'Changed userName now "Alex" after "Sam"' in page.text
    assert "another program wrote it" in page.text


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"</code><script>alert(1)</script>", "script"),
        ('{"a\u202e": "\u2066'.encode(), "a\\u202e"),
        (b"\x00" * 100, "no text that can be shown"),
        (b"\xff\xfe\x00\xd8", "no text that can be shown"),
        (b'{"a": "caf\xe9"}', "no text that can be shown"),
        (b"", "The file is empty."),
        (b"[" * 100_000, "Only the beginning is shown"),
        (b'{"a": "' + b"x" * EDIT_BYTES_MAX, "seline save"),
    ],
)
async def test_hostile_bytes_are_escaped_and_bounded(
    owner: Browser, server: Serving, tmp_path: Path, data: bytes, text: str
) -> None:
    item = await set_aside(server, tmp_path, b'{"userName": ')
    (tmp_path / "data" / "quarantine" / item).write_bytes(data)
    page = await owner.get(f"/set-aside/{item}")

    assert page.status == 200
    assert text in page.text
    assert "<script>alert" not in page.html
    assert not {"\u202e", "\u2066"} & set(page.html)
    assert len(page.html) < TEXT_SHOWN_MAX + 10_000
    assert (await owner.get("/set-aside")).status == 200


async def test_the_bytes_are_a_download(owner: Browser, server: Serving, tmp_path: Path) -> None:
    item = await set_aside(server, tmp_path, b'{"userName": ')
    page = await owner.get(f"/set-aside/{item}/raw")

    assert page.html == '{"userName": '
    assert page.headers["Content-Disposition"] == f'attachment; filename="{item}"'


@pytest.mark.parametrize(
    "path", ["/set-aside/%s", "/set-aside/%s/raw", "/documents/a.json/edit?item=%s"]
)
@pytest.mark.parametrize("item", ["none", "..%2f..%2fpins.json", "a_20260101_000000.seline.json"])
async def test_an_item_that_does_not_exist_is_a_page(owner: Browser, path: str, item: str) -> None:
    assert (await owner.get(path % item)).status == 404
