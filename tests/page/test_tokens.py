"""Tokens: one is made and shown once, listed with its last use, and revoked."""

import re

import pytest

from seline.server import Serving
from tests.browser import Browser, jar
from tests.http_client import Client

SECRET = re.compile(r"sel_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")


async def test_a_secret_is_shown_once_and_never_cached(owner: Browser, server: Serving) -> None:
    await owner.get("/tokens")
    page = await owner.press("Make the token", label="dashboard", scope="read", days="30")
    found = SECRET.search(page.text)
    assert found
    assert page.headers["Cache-Control"] == "no-store"
    assert "dashboard" in page.text
    assert "may only read" in page.text
    assert "Expires: in 30 days" in page.text

    assert not SECRET.search((await owner.get("/tokens")).html)
    client = Client(owner.session, owner.address)
    bearer = f"Bearer {found[0]}"
    assert (await client.call("GET", "/health", Authorization=bearer))[0] == 200
    assert (await client.call("POST", "/verify", Authorization=bearer))[0] == 403
    [token] = await server.tokens.listed()
    assert (token.label, token.scope) == ("dashboard", "read")


async def test_the_last_use_is_listed(owner: Browser, server: Serving) -> None:
    _, secret = await server.tokens.create(label="never used")
    page = await owner.get("/tokens")
    assert "Last used: never" in page.text
    server.tokens.grant(secret, client="here", needs="read")
    page = await owner.get("/tokens")

    assert "Last used: just now" in page.text


async def test_a_new_token_can_be_revoked_at_once(owner: Browser, server: Serving) -> None:
    await owner.get("/tokens")
    await owner.press("Make the token", scope="admin")
    page = await owner.press("Revoke it again")

    assert "is revoked." in page.text
    assert await server.tokens.listed() == ()


@pytest.mark.parametrize("days", ["0", "soon", "36501", "-1", "９"])
async def test_a_wrong_number_of_days_keeps_what_was_typed(
    owner: Browser, server: Serving, days: str
) -> None:
    await owner.get("/tokens")
    page = await owner.press("Make the token", label='for "me"', scope="read", days=days)

    assert page.status == 422
    assert "The days are a whole number from 1 to 36,500, or empty" in page.text
    form = next(form for form in page.forms if form.action == "/tokens")
    assert (form.fields["label"], form.fields["days"]) == ('for "me"', days)
    assert await server.tokens.listed() == ()


async def test_a_token_is_revoked_after_a_question(owner: Browser, server: Serving) -> None:
    token, secret = await server.tokens.create(label="old bot")
    async with jar() as session:
        other = Browser(session, server.address)
        await other.sign_in(secret)
        page = await owner.get("/tokens")
        page = await owner.get(page.links["Revoke"])
        assert f"old bot ({token.id})" in page.text
        assert "1 session of the page ends with it." in page.text
        assert len(await server.tokens.listed()) == 1

        page = await owner.press("Revoke")
        assert f"The token {token.id} is revoked." in page.text
        assert (await other.get("/")).path.startswith("/sign-in")


async def test_revoking_its_own_token_signs_the_browser_out(server: Serving) -> None:
    _, secret = await server.tokens.create()
    async with jar() as session:
        browser = Browser(session, server.address)
        await browser.sign_in(secret)
        page = await browser.get("/tokens")
        page = await browser.get(page.links["Revoke"])
        assert "This browser is signed in with it" in page.text
        page = await browser.press("Revoke")

        assert page.path.startswith("/sign-in")


async def test_a_token_that_is_gone_is_a_page(owner: Browser) -> None:
    page = await owner.get("/tokens/00000000/revoke")

    assert page.status == 404
    assert "seline token list" in page.text
