"""Static files: unchanged from their projects, small, and kept by the browser."""

import hashlib
import re

import pytest

from seline.page.static import TYPES, address_of, static_file
from tests.browser import Browser
from tests.docs.blocks import ROOT

VENDORED = ROOT / "seline" / "page" / "static" / "vendored"
FIRST_LOAD_BYTES_MAX = 120 * 1024


def test_vendored_files_are_as_their_projects_published_them() -> None:
    lines = (VENDORED / "digests.txt").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines if not line.startswith("#"))
    found = {path.name: path for path in VENDORED.iterdir() if path.name != "digests.txt"}

    assert listed.keys() == found.keys()
    for name, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name], name
    for project in ("pico", "uPlot"):
        assert "MIT" in (VENDORED / f"{project}.LICENSE").read_text()


async def test_a_first_visit_loads_little(owner: Browser) -> None:
    linked = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', owner.page.html))
    sizes = [len(owner.page.html.encode())]
    for path in linked:
        async with owner.session.get(owner.address + path) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            sizes.append(int(response.headers["Content-Length"]))

    assert len(linked) == 4
    assert sum(sizes) <= FIRST_LOAD_BYTES_MAX


@pytest.mark.parametrize("name", TYPES)
async def test_a_file_is_kept_by_the_browser_and_needs_no_session(
    browser: Browser, name: str
) -> None:
    async with browser.session.get(
        browser.address + address_of(name), headers={"Accept-Encoding": "identity"}
    ) as response:
        body, headers = await response.read(), response.headers

    assert response.status == 200
    assert body == static_file(name).data
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert headers["Content-Type"].startswith(TYPES[name])
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/0000000000000000/page.css",
        "/static/x/..%2F..%2Fhome.py",
        "/static/x/digests.txt",
        "/static/page.css",
    ],
)
async def test_nothing_else_is_served(browser: Browser, path: str) -> None:
    async with browser.session.get(browser.address + path) as response:
        assert response.status == 404


def test_the_files_of_the_page_fetch_nothing_from_elsewhere() -> None:
    for name in TYPES:
        text = static_file(name).data.decode()
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//|@import", text), name
