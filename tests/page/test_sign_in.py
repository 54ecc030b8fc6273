"""Signing in and out: with a token, with the one-time link, and what ends a session."""

import json
from pathlib import Path

import aiohttp
import pytest

from seline.access.sessions import OneTimeLink
from seline.access.tokens import CLIENT_FAILURES_MAX
from seline.server import Serving, serving
from tests.browser import Browser, jar
from tests.clocks import FakeClock
from tests.http_client import ADMIN, settings_for


async def test_a_token_signs_in_and_leads_back_to_where_one_was(browser: Browser) -> None:
    asked = await browser.get("/sessions?from=here")
    assert asked.path == "/sign-in?next=%2Fsessions%3Ffrom%3Dhere"

    page = await browser.press("Sign in", token=f" {ADMIN} ")

    assert (page.status, page.path) == (200, "/sessions?from=here")
    assert "SELINE_ADMIN_TOKEN" in page.text


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    "following",
    ["//evil.example/", "/\\evil.example", "https://evil.example", "\t//evil.example", "/\t/e", ""],
)
async def test_a_sign_in_leads_nowhere_else(browser: Browser, following: str) -> None:
    await browser.get("/sign-in")
    page = await browser.press("Sign in", token=ADMIN, next=following)

    assert page.path == "/"


async def test_a_wrong_token_says_so_and_how_to_make_one(browser: Browser) -> None:
    page = await browser.sign_in("sel_00000000_" + "x" * 43)

    assert page.status == 401
    assert "This token is not known here." in page.text
    assert "seline token create" in page.text
    assert not browser.cookies


async def test_failed_attempts_are_limited_and_a_right_token_still_signs_in(
    browser: Browser,
) -> None:
    for _ in range(CLIENT_FAILURES_MAX):
        assert (await browser.sign_in("wrong")).status == 401
    refused = await browser.sign_in("wrong")
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) > 0

    assert (await browser.sign_in()).path == "/"


async def test_a_wrong_code_of_a_link_counts_as_a_failed_attempt(browser: Browser) -> None:
    for _ in range(CLIENT_FAILURES_MAX):
        assert (await browser.post("/sign-in", {"once": "x"})).status == 401

    assert (await browser.post("/sign-in", {"once": "x"})).status == 429


async def test_the_cookie_is_no_script_s_and_no_other_site_s(owner: Browser) -> None:
    cookie = owner.cookies["seline"]

    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert cookie["path"] == "/"
    assert not cookie["secure"]


@pytest.mark.parametrize(
    "headers", [{"X-Forwarded-Proto": "https"}, {"X-Forwarded-Proto": "http, https"}]
)
async def test_the_cookie_is_secure_behind_tls(browser: Browser, headers: dict[str, str]) -> None:
    async with browser.session.post(
        browser.address + "/sign-in", data={"token": ADMIN}, headers=headers, allow_redirects=False
    ) as response:
        sent = response.headers["Set-Cookie"]

    assert response.status == 303
    assert sent.startswith("__Host-seline=")
    assert "Secure" in sent
    assert "domain" not in sent.lower()


async def test_signing_out_ends_the_session_on_the_server(owner: Browser) -> None:
    stolen = owner.cookies["seline"].value
    assert (await owner.press("Sign out")).path == "/sign-in"
    assert not owner.cookies

    page = await owner.get("/", Cookie=f"seline={stolen}")

    assert page.path.startswith("/sign-in")


async def test_a_restart_keeps_a_session_and_no_secret_is_stored(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data")
    async with jar() as session:
        async with serving(settings) as server:
            await server.acquired()
            browser = Browser(session, server.address)
            await browser.sign_in()
            secret = browser.cookies["seline"].value
            stored = (tmp_path / "data" / ".seline" / "sessions.json").read_text()
        async with serving(settings) as server:
            await server.acquired()
            page = await Browser(session, server.address).get("/sessions")

    assert page.status == 200
    assert secret not in stored
    assert ADMIN not in stored
    assert json.loads(stored)["sessions"][0]["scope"] == "admin"


async def test_another_admin_token_ends_the_sessions_of_the_last_one(tmp_path: Path) -> None:
    async with jar() as session:
        async with serving(settings_for(tmp_path / "data")) as server:
            await server.acquired()
            await Browser(session, server.address).sign_in()
        settings = settings_for(tmp_path / "data", server__admin_token="another-admin-token")
        async with serving(settings) as server:
            await server.acquired()
            page = await Browser(session, server.address).get("/sessions")

    assert page.path.startswith("/sign-in")
    assert "Your session has ended" in page.text


async def test_revoking_a_token_ends_its_sessions(browser: Browser, server: Serving) -> None:
    token, secret = await server.tokens.create(scope="admin")
    await browser.sign_in(secret)
    assert (await browser.get("/sessions")).status == 200

    await server.tokens.revoke(token.id)

    assert (await browser.get("/sessions")).path.startswith("/sign-in")
    assert not server.sessions.listed()


async def test_a_read_token_sees_and_changes_nothing(browser: Browser, server: Serving) -> None:
    _, secret = await server.tokens.create(scope="read")
    home = await browser.sign_in(secret)
    assert home.path == "/"
    assert {form.action for form in home.forms} == {"/sign-out", "/language"}
    csrf = home.forms[0].fields["csrf"]

    assert (await browser.get("/sessions")).status == 403
    assert (await browser.post("/fix/verify", {"csrf": csrf})).status == 403


# the one-time link


async def test_the_one_time_link_signs_in_once(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", server__admin_token=None)
    async with Serving(settings, is_process=True) as server, jar() as session, jar() as other:
        await server.acquired()
        link = server.first_link.removeprefix(server.address)
        first, second = Browser(session, server.address), Browser(other, server.address)

        await second.get(link)
        await first.get(link)
        assert (await first.press("Sign in")).path == "/"
        page = await second.press("Sign in")

    assert page.status == 401
    assert "This link was used already" in page.text


async def test_opening_the_link_does_not_use_it(tmp_path: Path) -> None:
    """A chat's preview or a virus scanner opens links, too."""
    settings = settings_for(tmp_path / "data", server__admin_token=None)
    async with Serving(settings, is_process=True) as server, jar() as session:
        await server.acquired()
        browser = Browser(session, server.address)
        for _ in range(2):
            await browser.get(server.first_link)
        page = await browser.press("Sign in")

    assert page.path == "/"


async def test_a_later_start_prints_no_link(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", server__admin_token=None)
    async with Serving(settings, is_process=True) as server:
        await server.acquired()
        assert server.first_link.startswith(f"{server.address}/sign-in?once=")
        assert server.first_secret
    async with Serving(settings, is_process=True) as server:
        await server.acquired()
        assert not server.first_link


async def test_no_link_is_made_without_the_page(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", server__admin_token=None, server__page=False)
    async with Serving(settings, is_process=True) as server, aiohttp.ClientSession() as session:
        await server.acquired()
        async with session.get(server.address) as response:
            assert response.status == 404

    assert not server.first_link


def test_a_link_is_valid_for_fifteen_minutes(clock: FakeClock) -> None:
    link = OneTimeLink(clock)
    late, code = link.make(), link.make()
    assert link.use(late) is None  # another one was made since
    clock.advance(15 * 60)

    assert link.use(code) is None


def test_without_a_link_no_code_is_right(clock: FakeClock) -> None:
    assert OneTimeLink(clock).use("") is None
