"""A browser for tests of the page: it keeps cookies, follows redirects, and sends forms.

It runs no scripts, as `docs/page.md` promises that none is needed.
"""

import asyncio
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from tests.http_client import ADMIN

_VOID = frozenset({"input", "meta", "link", "br", "img", "hr"})


@dataclass
class Form:
    """A form: where it posts, the fields with their values, and the labels of its buttons."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: dict[str, dict[str, str]] = field(default_factory=dict)
    """By label, what each button adds to the fields."""


class Page(HTMLParser):
    """An answer, parsed."""

    def __init__(self, status: int, headers: Any, path: str, html: str) -> None:
        super().__init__()
        self.status, self.headers, self.path, self.html = status, headers, path, html
        self.forms: list[Form] = []
        self.links: dict[str, str] = {}
        self.text = ""
        self._open: list[tuple[str, dict[str, str], int]] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(values["action"]))
        elif tag == "input" and self.forms:
            self.forms[-1].fields[values["name"]] = values.get("value", "")
        if tag not in _VOID:
            self._open.append((tag, values, len(self.text)))

    def handle_endtag(self, tag: str) -> None:
        opened, values, start = self._open.pop()
        assert opened == tag, (opened, tag, self.getpos())
        inner = self.text[start:].strip()
        if tag == "button":
            added = {values["name"]: values["value"]} if "name" in values else {}
            self.forms[-1].buttons[inner] = added
        elif tag == "a":
            self.links[inner] = values["href"]
        elif tag == "textarea":
            self.forms[-1].fields[values["name"]] = inner
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


def jar() -> aiohttp.ClientSession:
    """Return a client that keeps cookies of an address without a name, too."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


class Browser:
    """Visit the page of one server."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session, self.address = session, address
        self.headers = {"Accept": "text/html", "Accept-Language": "en", "Sec-Fetch-Site": "none"}
        self.page = Page(0, {}, "/", "")

    async def get(self, path: str = "/", **headers: str) -> Page:
        """Open an address and follow redirects."""
        return await self._ask("GET", path, None, headers)

    async def post(self, path: str, fields: dict[str, str], **headers: str) -> Page:
        """Send fields as a form of this page does, and follow the redirect."""
        own = {"Origin": self.address, "Sec-Fetch-Site": "same-origin"}
        return await self._ask("POST", path, fields, {**own, **headers})

    async def wait(self) -> Page:
        """Ask again as long as the page says so, and return the one that is final."""
        async with asyncio.timeout(30):
            while '<meta http-equiv="refresh"' in self.page.html:
                await asyncio.sleep(0.02)
                await self.get(self.page.path)
        return self.page

    async def press(self, label: str, /, **fields: str) -> Page:
        """Press a button of the page that is shown, with some fields filled in."""
        form = next(form for form in self.page.forms if label in form.buttons)
        return await self.post(form.action, {**form.fields, **form.buttons[label], **fields})

    async def sign_in(self, token: str = ADMIN) -> Page:
        """Sign in with a token."""
        await self.get("/sign-in")
        return await self.press("Sign in", token=token)

    @property
    def cookies(self) -> dict[str, Any]:
        """Return the cookies of the server, by name."""
        return {cookie.key: cookie for cookie in self.session.cookie_jar}

    async def _ask(
        self, method: str, path: str, fields: dict[str, str] | None, headers: dict[str, str]
    ) -> Page:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method,
            urljoin(self.address, path),
            data=fields,
            headers={**self.headers, **named},
            allow_redirects=False,
        ) as response:
            html = await response.text()
            kept = response.headers
            self.page = Page(response.status, kept, path, html)
        if response.status != 303:
            return self.page
        target = kept["Location"]
        assert not urlsplit(target).netloc, target
        return await self._ask("GET", target, None, {"Sec-Fetch-Site": "same-origin"})
