"""Fixtures: Debian's Chromium, a page of it, and the server that it visits."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from tests.chromium.place import Place, lived_in, new

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
OFF: Final = (
    "--no-sandbox",  # a container's root has none
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
)
OpenPage: TypeAlias = Callable[..., Any]
"""Opens a page of a new context; the arguments are those of Playwright's `new_context`."""


@pytest.fixture
def chromium() -> Iterator[Any]:
    """Yield a running Chromium; skip the test where it or Playwright is missing."""
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if path is None:
        pytest.skip("Chromium is not installed (Debian, Ubuntu: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=list(OFF))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[OpenPage]:
    """Return what opens a page, each with cookies of its own."""

    def open_one(language: str = "en", **options: Any) -> Any:
        options.setdefault("viewport", {"width": 1280, "height": 800})
        page = chromium.new_context(locale=language, **options).new_page()
        page.set_default_timeout(60_000)
        return page

    yield open_one
    for context in chromium.contexts:
        context.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Serve a volume with nine days of history."""
    with lived_in(tmp_path / "place") as served:
        yield served


@pytest.fixture
def new_place(tmp_path: Path) -> Iterator[Place]:
    """Serve an empty volume, as the first start does."""
    with new(tmp_path / "new") as served:
        yield served
