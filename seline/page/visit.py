"""A visit: one request of a browser, with its session and its form; and what a view declares.

A handler takes a `Visit`, calls one operation, and returns `visit.render(...)` after a GET, or
`visit.go(...)` after a POST. An error that it raises becomes a page.
"""

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web

from seline.access.sessions import ONE_TIME_LINK, OneTimeLink, Session, Sessions
from seline.errors import InvalidRequest
from seline.http.context import AppContext, context
from seline.page.rendering import render
from seline.page.texts import Texts

FORM_BYTES_MAX: Final = 64 << 10
KEPT_BYTES_MAX: Final = 1 << 20
"""How large a form may be that is kept until its sender has signed in again."""
LARGE_FORMS_MAX: Final = 4
FLASHES_MAX: Final = 200
_ADDRESS_MAX: Final = 2_000
_rendering: Final = ThreadPoolExecutor(2, thread_name_prefix="seline-page")
HTML: Final = "text/html"
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    # With `no-referrer`, browsers send `Origin: null` with the forms of this page, too.
    "Referrer-Policy": "same-origin",
    "Vary": "Accept-Language, Cookie",
}
POLL_HEADER: Final = "Seline-Poll"
"""What `page.js` sends when it asks for a page again that is shown."""
POLL_S: Final = 5
"""How often a script asks for a page again that shows a state."""
Needs: TypeAlias = Literal["open", "read", "admin"]
"""What a route of the page needs: nothing, or a session of this scope."""
_PageHandler: TypeAlias = Callable[["Visit"], Awaitable[web.StreamResponse]]


class PageRoute(NamedTuple):
    """One address of a view. A form may have `form_bytes_max` bytes as it is sent.

    `takes_token`: a program may read it with a token of scope `read` in place of a session.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: _PageHandler
    needs: Needs = "read"
    form_bytes_max: int = FORM_BYTES_MAX
    takes_token: bool = False


class Page(web.Response):
    """A page that is not rendered yet: a long one would hold the event loop."""

    def __init__(self, html: Callable[[], str], *, status: int, headers: Mapping[str, str]) -> None:
        """`html` returns the body, and blocks."""
        super().__init__(status=status, headers=headers, content_type=HTML, charset="utf-8")
        self._html = html

    async def fill(self) -> None:
        """Render the page in a thread, unless it is rendered."""
        if self.body is None:
            self.text = await asyncio.get_running_loop().run_in_executor(_rendering, self._html)


class View(NamedTuple):
    """A view: its name (the texts are `NAME.*`), the address in the navigation, its routes."""

    name: str
    path: str
    routes: tuple[PageRoute, ...]

    @property
    def needs(self) -> Needs:
        """What the page at the address in the navigation needs."""
        needs: Needs = "open"
        for route in self.routes:
            if route.path == self.path and route.method == "GET":
                needs = route.needs
        return needs


class Button(NamedTuple):
    """A form of one button: where it posts, its label, and hidden fields.

    `asks`: it is a link to the page that asks first, and has no fields.
    """

    action: str
    label: str
    fields: Mapping[str, str] = {}
    asks: bool = False


class Flash(NamedTuple):
    """A message that the next page at `path` shows once, with what undoes the change.

    `secret` is a new token, which no other page shows.
    """

    path: str
    text: str
    undo: Button | None = None
    secret: str = ""


@dataclass(slots=True, kw_only=True)
class Sent:
    """The form that a session sent last. `again_until_s` is of the event loop's clock."""

    digest: bytes
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    led_to: str = ""
    """Where its redirect leads; empty if it changed nothing."""
    again_until_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Site:
    """What the page keeps while the process runs."""

    sessions: Sessions
    once: OneTimeLink
    views: tuple[View, ...]
    flashes: OrderedDict[str, Flash] = field(default_factory=OrderedDict[str, Flash])
    """By the id of the session."""
    sent: OrderedDict[str, Sent] = field(default_factory=OrderedDict[str, Sent])
    """By the id of the session."""
    large_forms: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(LARGE_FORMS_MAX)
    )
    """Bounds the large forms that are read at once for browsers without a session."""


SITE: Final = web.AppKey("page", Site)


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request. `session` is None on an open route without one; `secret` is its cookie's."""

    request: web.Request
    texts: Texts
    session: Session | None = None
    secret: str = ""
    form: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def context(self) -> AppContext:
        """What the handlers of the API use, too: documents, operations, tokens, jobs, alerts."""
        return context(self.request)

    @property
    def site(self) -> Site:
        """What the page keeps."""
        return self.request.config_dict[SITE]

    @property
    def now(self) -> datetime:
        """The current instant, of the store's clock."""
        return self.context.data.store.clock.now()

    @property
    def may_change(self) -> bool:
        """Whether the session has scope `admin`: what it may not do is not shown."""
        return self.session is not None and self.session.scope == "admin"

    def source_of(self, session: Session) -> str:
        """Return in words what a session was made from."""
        is_link = session.source == ONE_TIME_LINK
        return self.texts("sessions.one_time_link") if is_link else session.source

    @property
    def csrf(self) -> str:
        """The token that each form of this session has."""
        return csrf_of(self.secret) if self.session is not None else ""

    @property
    def here(self) -> str:
        """The address of this page with its query; `/` if it answers a form or has a token."""
        has_token = "token" in self.request.query or "access_token" in self.request.query
        is_read = self.request.method in ("GET", "HEAD")
        return own_address(self.request.path_qs) if is_read and not has_token else "/"

    @property
    def is_poll(self) -> bool:
        """Whether a script asks for this page again; it does not prolong the session."""
        return POLL_HEADER in self.request.headers

    def part(self, name: str) -> str:
        """Return a part of the address, such as a document's name."""
        return self.request.match_info[name]

    def field(self, name: str) -> str:
        """Return a field of the form. Raises InvalidRequest if it is not there."""
        if name not in self.form:
            raise InvalidRequest(f"The form has no field {name}.", fields=[name])
        return self.form[name]

    def render(
        self,
        template: str,
        *,
        status: int = HTTPStatus.OK,
        refresh_s: int | None = None,
        poll_s: int | None = None,
        **values: Any,
    ) -> web.Response:
        """Return a page, which `Page.fill` renders.

        `refresh_s`: the browser asks for it again, without a script.

        `poll_s`: a script asks for it again, and replaces what is marked as `data-live`.
        """
        session = self.session
        flash = None if session is None else self.site.flashes.get(session.id)
        is_here = flash is not None and flash.path == self.request.path
        is_read = self.request.method == "GET" and not self.is_poll
        if session is not None and is_here and is_read:
            del self.site.flashes[session.id]
        known = {
            "visit": self,
            "flash": flash if is_here else None,
            "views": [view for view in self.site.views if self._may_see(view)],
            "service": self.context.settings.service,
            "poll_s": poll_s,
        }
        html = partial(render, template, self.texts, self.now, {**known, **values})
        headers = dict(SECURITY_HEADERS)
        if refresh_s is not None:
            headers["Refresh"] = str(refresh_s)
        return Page(html, status=status, headers=headers)

    def _may_see(self, view: View) -> bool:
        return self.session is not None and (self.may_change or view.needs != "admin")

    def go(
        self, path: str, text: str = "", *, undo: Button | None = None, secret: str = ""
    ) -> web.Response:
        """Return the redirect after a POST; the page at `path` shows `text` and an undo button."""
        if text and self.session is not None:
            flashes = self.site.flashes
            shown_at = path.partition("?")[0].partition("#")[0]
            flashes[self.session.id] = Flash(shown_at, text, undo, secret)
            flashes.move_to_end(self.session.id)
            while len(flashes) > FLASHES_MAX:
                flashes.popitem(last=False)
        headers = {**SECURITY_HEADERS, "Location": path}
        return web.Response(status=HTTPStatus.SEE_OTHER, headers=headers)

    def confirm(
        self,
        *,
        title: str,
        lines: tuple[str, ...],
        button: Button,
        back: str,
        is_dangerous: bool = True,
        status: int = HTTPStatus.OK,
    ) -> web.Response:
        """Return the page that asks before a change; `back` is where its second link leads."""
        return self.render(
            "confirm.html",
            status=status,
            title=title,
            lines=lines,
            button=button,
            back=back,
            is_dangerous=is_dangerous,
        )


def csrf_of(secret: str) -> str:
    """Return the token of the forms of a session, from the secret of its cookie."""
    return hmac.new(secret.encode(), b"forms of the page", hashlib.sha256).hexdigest()


def own_address(text: str) -> str:
    """Return an address of this page that `next` names; `/` for any other."""
    is_plain = text.isascii() and text.isprintable() and "\\" not in text and " " not in text
    if not is_plain or len(text) > _ADDRESS_MAX or not text.startswith("/"):
        return "/"
    return "/" if text.startswith("//") or urlsplit(text).netloc else text
