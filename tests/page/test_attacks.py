"""What an attacker tries: forms of other sites, planted cookies, hostile values."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from seline.access.tokens import CLIENT_FAILURES_MAX
from seline.page.gate import COOKIE
from seline.page.visit import FORM_BYTES_MAX, SECURITY_HEADERS
from seline.server import Serving
from tests.browser import Browser
from tests.http_client import ADMIN

HOSTILE = "javascript:alert(1)"
BREAK = "<script>alert(1)</script>\"'>"


async def test_a_sign_in_gives_a_new_secret_to_a_planted_cookie(
    browser: Browser, server: Serving
) -> None:
    grant = server.tokens.granted("SELINE_ADMIN_TOKEN")
    assert grant is not None
    _, planted = await server.sessions.create(grant)
    await browser.get("/sign-in")
    page = await browser.post("/sign-in", {"token": ADMIN}, Cookie=f"{COOKIE}={planted}")

    assert page.status == 200
    assert browser.cookies[COOKIE].value != planted
    assert await server.sessions.find(planted) is None


async def test_behind_tls_a_cookie_of_a_neighbouring_host_is_no_session(owner: Browser) -> None:
    """A page of a sibling domain can set `seline`; it cannot set a cookie that `__Host-` begins."""
    for headers, status in (({"X-Forwarded-Proto": "https"}, 303), ({}, 200)):
        async with owner.session.get(
            owner.address, headers=headers, allow_redirects=False
        ) as response:
            assert response.status == status


async def test_a_form_that_names_no_origin_needs_its_token(owner: Browser) -> None:
    async with owner.session.post(owner.address + "/sign-out", data={"a": ""}) as response:
        assert response.status == 403
    assert (await owner.get("/")).path == "/"


async def test_an_address_that_begins_with_two_slashes_leads_to_no_other_host(
    browser: Browser,
) -> None:
    host, port = browser.address.removeprefix("http://").split(":")
    for path in (
        "//evil.example",
        "//evil.example/documents",
        "/\\evil.example",
        "/%2F/evil.example",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/html\r\n"
        writer.write(f"{head}Sec-Fetch-Site: cross-site\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        assert "Location: //" not in answer, path
        for link in ('href="//', 'value="//', 'href="/\\', "Location: http"):
            assert link not in answer, (path, link)


async def test_a_line_break_in_an_address_adds_no_header(owner: Browser) -> None:
    csrf = owner.page.forms[0].fields["csrf"]
    for back in ("/x\r\nSet-Cookie: a=b", "/\thttps://evil.example", f"/{chr(0x2028)}"):
        page = await owner.post("/jobs/usage/run", {"csrf": csrf, "back": back})
        page = await owner.wait()
        assert page.path in ("/", page.path if page.path.startswith("/work/") else "/")
    assert "a" not in owner.cookies


async def test_a_hostile_value_is_no_link_and_no_element(owner: Browser, server: Serving) -> None:
    name = "user_profile.json"
    await server.data.save_json(name, {"a": HOSTILE, BREAK: BREAK})
    await server.data.save_json(name, {"a": BREAK, HOSTILE: [HOSTILE]})
    [backup] = [each.name for each in await server.data.backups(name)]
    base = f"/documents/{name}"
    for path in (base, f"{base}/edit", f"{base}/backups/{backup}", f"{base}?at=/{HOSTILE}"):
        page = await owner.get(path)
        assert page.status == 200, path
        assert HOSTILE in page.html, path
        assert f'href="{HOSTILE}' not in page.html, path
        assert "<script>" not in page.html, path
    for path in (f"{base}?at=/{BREAK}x", f"/documents?q={BREAK}", f"/audit?document={BREAK}"):
        assert "<script>alert" not in (await owner.get(path)).html, path


async def test_every_error_keeps_to_the_policy(
    owner: Browser, monkeypatch: pytest.MonkeyPatch, server: Serving
) -> None:
    csrf = owner.page.forms[0].fields["csrf"]
    pages = [
        await owner.get("/no-such-view"),
        await owner.get("/sign-out"),
        await owner.get("/?token=x"),
        await owner.post("/sign-out", {"a": ""}),
        await owner.post("/sign-out", {"csrf": csrf, "text": "x" * (FORM_BYTES_MAX + 1)}),
    ]
    monkeypatch.setattr(server.operations, "health", lambda: 1 / 0)
    pages.append(await owner.get("/"))
    async with aiohttp.ClientSession(headers={"Origin": owner.address}) as session:
        stranger = Browser(session, owner.address)
        pages.append(await stranger.post("/sign-out", {"a": ""}))
        for _ in range(CLIENT_FAILURES_MAX + 1):
            page = await stranger.post("/sign-in", {"token": "wrong"})
        pages.append(page)

    assert [page.status for page in pages] == [404, 405, 422, 403, 413, 500, 401, 429]
    for page in pages:
        kept = {name: page.headers[name] for name in SECURITY_HEADERS}
        assert kept == SECURITY_HEADERS, page.status
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["X-Frame-Options"] == "DENY"


async def test_no_secret_is_in_the_log_or_in_the_audit_log(
    browser: Browser, server: Serving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    code = "c" * 43
    await browser.get(f"/sign-in?once={code}")
    await browser.post("/sign-in", {"once": code})
    await browser.get(f"/?token={ADMIN}")
    await browser.sign_in()
    secret, csrf = browser.cookies[COOKIE].value, browser.page.forms[0].fields["csrf"]
    await browser.press("Sign out")
    logged = "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    audit = "".join(path.read_text() for path in (tmp_path / "data/.seline").glob("audit*"))

    assert "/sign-in" in logged
    assert "POST /sign-in" in audit
    for kept in (code, ADMIN, secret, csrf):
        assert kept not in logged
        assert kept not in audit
