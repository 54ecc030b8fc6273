"""Fixtures for the tests of the page: a browser of the server in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seline.server import Serving, serving
from tests.browser import Browser, jar
from tests.http_client import settings_for


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Serving]:
    """Serve page and API in this process; a file that was written by hand settles soon."""
    async with serving(settings_for(tmp_path / "data", storage__settle_s=0.1)) as running:
        await running.acquired()
        yield running


@pytest.fixture
async def browser(server: Serving) -> AsyncIterator[Browser]:
    """Yield a browser that has not signed in."""
    async with jar() as session:
        yield Browser(session, server.address)


@pytest.fixture
async def owner(browser: Browser) -> Browser:
    """Return a browser that has signed in as admin."""
    page = await browser.sign_in()
    assert page.status == 200, page.text
    return browser
