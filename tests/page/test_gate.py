"""What every view relies on: forms of this page only, safe headers, errors as pages."""

import asyncio
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import pytest

from seline import errors
from seline.access.tokens import name_of
from seline.clock import Clock
from seline.http.app import build_app
from seline.http.routes import ROUTES
from seline.page import rendering, static, visit
from seline.page.assembly import VIEWS, add_page
from seline.page.gate import COOKIE
from seline.page.rendering import render
from seline.page.visit import LARGE_FORMS_MAX, SECURITY_HEADERS, csrf_of
from seline.server import Serving, serving
from tests.browser import Browser, jar
from tests.http_client import ADMIN, settings_for

POSTS = [route for view in VIEWS for route in view.routes if route.method == "POST"]
GETS = [route for view in VIEWS for route in view.routes if route.method == "GET"]
ENDED = ("none", "of no session", "ended", "token revoked", "token expired")
NEEDING = [route for view in VIEWS for route in view.routes if route.needs != "open"]


def address(path: str) -> str:
    """Return the address of a route, with something for each part of it."""
    return path.replace("{id:[0-9a-f]{16}}", "0" * 16).replace("{", "").replace("}", "")


def by_address(route: Any) -> str:
    return f"{route.method} {route.path}"


async def test_without_a_session_a_view_asks_for_a_sign_in(browser: Browser) -> None:
    for route in NEEDING:
        if route.method == "GET":
            page = await browser.get(address(route.path))
            assert (page.status, page.path.partition("?")[0]) == (200, "/sign-in"), route
        else:
            page = await browser.post(address(route.path), {"some": "field"})
            assert page.status == 401, route
        assert "Paste a token." in page.text


@pytest.mark.parametrize("csrf", [None, "", "0" * 64, "é"])
async def test_a_form_needs_the_token_of_its_session(owner: Browser, csrf: str | None) -> None:
    for route in NEEDING:
        if route.method == "POST":
            fields = {} if csrf is None else {"csrf": csrf} | {"a": ""}
            page = await owner.post(address(route.path), fields)
            assert page.status in ((403,) if csrf is not None else (403, 422)), route
    assert (await owner.get("/sessions")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
async def test_a_form_of_another_site_is_refused(owner: Browser, headers: dict[str, str]) -> None:
    csrf = owner.page.forms[0].fields["csrf"]
    for route in POSTS:
        fields = {"csrf": csrf, "token": ADMIN}
        page = await owner.post(address(route.path), fields, **headers)
        assert page.status == 403, route
    assert (await owner.get("/sessions")).status == 200


async def test_every_view_has_the_headers_that_keep_it_safe(owner: Browser) -> None:
    for route in GETS:
        async with owner.session.get(owner.address + address(route.path)) as response:
            headers = response.headers
        assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS, route
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"


GRANTED: Final = 0
"""Any status but those that refuse the visitor."""
LED_TO_SIGN_IN: Final = 303
REFUSED_FOR: Final[dict[tuple[str, str], dict[str, int]]] = {
    ("GET", "read"): {**dict.fromkeys(ENDED, LED_TO_SIGN_IN), "read": GRANTED, "admin": GRANTED},
    ("GET", "admin"): {**dict.fromkeys(ENDED, LED_TO_SIGN_IN), "read": 403, "admin": GRANTED},
    ("POST", "read"): {
        **dict.fromkeys(ENDED, 401),
        "admin without its form token": 403,
        "read": GRANTED,
        "admin": GRANTED,
    },
    ("POST", "admin"): {
        **dict.fromkeys(ENDED, 401),
        "admin without its form token": 403,
        "read": 403,
        "admin": GRANTED,
    },
}
"""By the method of a route and what it needs: the status with each kind of session."""


async def test_every_view_with_every_kind_of_session(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookies = await session_cookies(server)
    later = Clock().now() + timedelta(minutes=2)
    monkeypatch.setattr(Clock, "now", lambda _: later)
    routes = sorted(NEEDING, key=lambda route: route.path == "/sign-out")  # it ends its session
    wrong = []
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        for route in routes:
            for kind, expected in REFUSED_FOR[route.method, route.needs].items():
                secret = cookies[kind.removesuffix(" without its form token")]
                fields = {"csrf": csrf_of(secret)} if kind in cookies else {"some": "field"}
                async with session.request(
                    route.method,
                    server.address + address(route.path),
                    data=fields if route.method == "POST" else None,
                    headers={"Cookie": f"{COOKIE}={secret}", "Origin": server.address},
                    allow_redirects=False,
                ) as response:
                    leads_to = response.headers.get("Location", "")
                    to_sign_in = route.method == "GET" and leads_to.startswith("/sign-in")
                    refused = response.status in (401, 403) or to_sign_in
                if (response.status if refused else GRANTED) != expected:
                    wrong.append((by_address(route), kind, response.status))

    assert not wrong


def test_no_route_is_outside_of_the_tables() -> None:
    """Every route of the app is a row of the API's table or of a view, which the tests try."""
    app = build_app(cast("Any", None))
    add_page(app, cast("Any", None), cast("Any", None))
    served = {(route.method, route.resource.canonical) for route in app.router.routes()}
    rows = [(route.method, route.path) for route in ROUTES]
    rows += [(route.method, re.sub(r":[^/]*", "}", route.path)) for route in (*POSTS, *GETS)]
    heads = [("HEAD", path) for method, path in rows if method == "GET"]

    assert served == {*rows, *heads, ("GET", static.ROUTE)}


def test_few_routes_need_no_session() -> None:
    """What is added here is open to everybody who reaches the server."""
    open_routes = {by_address(route) for route in (*POSTS, *GETS) if route.needs == "open"}
    of_api = {route.path for route in ROUTES if route.scope == "open"}

    assert open_routes == {"GET /sign-in", "POST /sign-in", "POST /language"}
    assert of_api == {"/livez", "/readyz"}
    assert [route.path for route in GETS if route.takes_token] == ["/reference"]


async def session_cookies(server: Serving) -> dict[str, str]:
    """Return the cookie of each kind of session; empty for none."""
    tokens, sessions = server.tokens, server.sessions
    soon = Clock().now() + timedelta(minutes=1)
    cookies = {"none": "", "of no session": "x" * 43}
    for kind in ("ended", "token revoked", "token expired", "read", "admin"):
        scope = "read" if kind == "read" else "admin"
        expires_at = soon if kind == "token expired" else None
        token, _ = await tokens.create(scope=scope, expires_at=expires_at)
        grant = tokens.granted(name_of(token))
        assert grant is not None
        made, cookies[kind] = await sessions.create(grant)
        if kind == "ended":
            await sessions.end(made.id)
        elif kind == "token revoked":
            await tokens.revoke(token.id)
    return cookies


async def test_a_form_whose_session_has_ended_is_kept_and_can_be_sent_again(
    owner: Browser, server: Serving
) -> None:
    (session,) = server.sessions.listed()
    form = next(form for form in owner.page.forms if form.action == "/sign-out")
    await server.sessions.end(session.id)
    asked = await owner.post("/fix/verify", {**form.fields, "why": 'a "quoted"\r\n<text>'})
    assert asked.status == 401
    assert "What you sent is kept" in asked.text

    again = await owner.press("Sign in", token=ADMIN)
    assert "nothing was changed yet" in again.text
    kept = next(form for form in again.forms if form.action == "/fix/verify")
    assert kept.fields["why"] == 'a "quoted"\n<text>'
    page = await owner.press("Send it now")

    assert (page.status, page.path) == (200, "/")
    assert "0 documents and 0 backups were checked" in page.text


@pytest.mark.parametrize(("size", "is_kept"), [(300 << 10, True), ((1 << 20) + 1, False)])
async def test_a_large_form_is_kept_up_to_a_limit(
    browser: Browser, size: int, is_kept: bool
) -> None:
    asked = await browser.post("/fix/verify", {"text": "x" * size})

    assert asked.status == 401
    assert ("What you sent is kept" in asked.text) == is_kept
    page = await browser.press("Sign in", token=ADMIN)
    kept = [form for form in page.forms if form.action == "/fix/verify"]
    assert [len(form.fields["text"]) for form in kept] == ([size] if is_kept else [])


async def test_large_forms_of_strangers_wait_and_a_sign_in_does_not(browser: Browser) -> None:
    """Bodies that never end occupy every place; each holds at most its share of memory."""
    host = browser.address.removeprefix("http://")
    head = (
        f"POST /sign-in HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
    )
    slow = [await asyncio.open_connection(*host.split(":")) for _ in range(LARGE_FORMS_MAX + 1)]
    for _, writer in slow:
        writer.write(head.encode())
        await writer.drain()

    assert (await browser.sign_in()).path == "/"
    for _, writer in slow:
        writer.close()


async def test_a_link_on_another_site_opens_the_view(owner: Browser) -> None:
    """A browser does not send the cookie then; the page has it asked for again."""
    cookies = owner.session.cookie_jar
    owner.session._cookie_jar = type(cookies)(unsafe=True)
    page = await owner.get("/sessions", Sec_Fetch_Site="cross-site")
    owner.session._cookie_jar = cookies
    assert page.headers["Refresh"] == "0"

    assert (await owner.get(page.links["Open the page"])).status == 200


async def test_an_address_that_does_not_exist_is_a_page_for_a_browser(owner: Browser) -> None:
    page = await owner.get("/no-such-view")

    assert page.status == 404
    assert "There is nothing at /no-such-view." in page.text
    assert "Home" in page.links
    assert page.headers["Content-Security-Policy"] == SECURITY_HEADERS["Content-Security-Policy"]


async def test_another_method_is_a_page_for_a_browser(owner: Browser) -> None:
    page = await owner.get("/sign-out")

    assert page.status == 405
    assert page.headers["Allow"] == "POST"


async def test_a_program_still_gets_a_problem(browser: Browser) -> None:
    async with browser.session.get(browser.address + "/no-such-view") as response:
        problem = await response.json()

    assert (response.status, problem["code"]) == (404, "route_not_found")
    async with browser.session.get(
        browser.address + "/api/v1/data-admin/nothing", headers={"Accept": "text/html"}
    ) as response:
        assert response.content_type == "application/problem+json"


async def test_an_error_is_a_page_with_its_status_and_next_step(owner: Browser) -> None:
    csrf = owner.page.forms[0].fields["csrf"]
    page = await owner.post("/fix/jobs/nothing", {"csrf": csrf})

    assert page.status == 404
    assert "lists the jobs" in page.text


async def test_a_token_in_an_address_is_refused(browser: Browser) -> None:
    page = await browser.get(f"/?token={ADMIN}")

    assert page.status == 422
    assert ADMIN not in page.html


async def test_other_forms_are_refused(owner: Browser) -> None:
    async with owner.session.post(owner.address + "/sign-out", json={"csrf": ""}) as response:
        assert response.status == 422
    fields = {"a": "x" * (65 << 10)}
    assert (await owner.post("/sign-out", fields)).status == 413
    assert (await owner.post("/sign-out", {f"f{n}": "" for n in range(201)})).status == 422


async def test_while_the_volume_is_opened_the_page_waits_for_it(tmp_path: Path) -> None:
    async with serving(settings_for(tmp_path / "data")) as server, jar() as session:
        await server.acquired()
        server._failure = errors.StoreClosed("The store is being opened.")
        page = await Browser(session, server.address).get("/")
        assert (page.status, page.headers["Refresh"]) == (503, "2")
        server._failure = errors.VolumeNotMounted(f"{tmp_path} is not mounted.")
        page = await Browser(session, server.address).get("/")
        server._failure = None

    assert page.status == 503
    assert str(tmp_path) not in page.text
    assert "Attach the volume" in page.text


async def test_without_the_extra_the_page_names_the_command(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering.environment.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    page = await browser.get("/")
    rendering.environment.cache_clear()

    assert page.status == 501
    assert page.headers["Content-Type"].startswith("text/plain")
    assert "pip install 'seline[page]'" in page.text


async def test_the_language_comes_from_the_browser_and_can_be_chosen(browser: Browser) -> None:
    assert "Se connecter" in (await browser.get("/sign-in", Accept_Language="de, fr;q=0.8")).text
    page = await browser.get("/sign-in?next=%2Fsessions")
    page = await browser.press("Français")

    assert 'lang="fr"' in page.html
    assert page.path == "/sign-in?next=/sessions"
    assert "Se connecter" in page.text


async def test_no_page_is_rendered_in_the_event_loop(
    owner: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = list[threading.Thread]()

    def html(*given: Any) -> str:
        threads.append(threading.current_thread())
        return render(*given)

    monkeypatch.setattr(visit, "render", html)
    for path in ("/", "/documents/gone.json", "/no-such-view", "/sign-out"):
        await owner.get(path)

    assert len(threads) == 4
    assert threading.main_thread() not in threads


async def test_a_head_has_no_body(owner: Browser) -> None:
    async with owner.session.head(owner.address + "/") as response:
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.prove
async def test_ordinary_requests_import_no_templates(tmp_path: Path) -> None:
    """A server whose page is never opened keeps the memory that jinja2 needs."""
    code = (
        "import sys, seline.server.serving, seline.page.assembly;sys.exit('jinja2' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(__import__("sys").executable, "-c", code)

    assert await process.wait() == 0
