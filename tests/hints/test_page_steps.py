"""The next steps that the page gives: the form that they describe is accepted."""

from collections.abc import AsyncIterator

import pytest

from seline.server import Serving
from tests.browser import Browser, jar


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
    refused = await owner.post("/fix/prune", {"csrf": old})
    assert "Open the page again, then send the form again." in refused.text

    page = await owner.get("/")
    page = await owner.post("/fix/prune", {"csrf": page.forms[0].fields["csrf"]})

    assert page.status == 200


@pytest.mark.follows("page/gate:_check_site")
async def test_a_form_of_another_site_is_sent_from_the_page_itself(owner: Browser) -> None:
    csrf = owner.page.forms[0].fields["csrf"]
    refused = await owner.post("/fix/prune", {"csrf": csrf}, Sec_Fetch_Site="cross-site")
    assert "Open the page of Seline itself, and send it there." in refused.text

    page = await owner.get("/")
    page = await owner.post("/fix/prune", {"csrf": page.forms[0].fields["csrf"]})

    assert page.status == 200
