"""Fixtures for the tests of the page: a browser of the server in this process."""

from collections.abc import AsyncIterator

import pytest

from seline.server import Serving
from tests.browser import Browser, jar


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
