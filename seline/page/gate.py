"""Who may see a page: session, origin and form are checked before a view's handler runs.

An error becomes a page. A request to an address that does not exist gets a page, too, if it comes
from a browser and not to the API.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from seline.access.sessions import AGE_MAX, SESSIONS_MAX, Session
from seline.errors import (
    DocumentNotFound,
    Forbidden,
    InvalidDocumentName,
    InvalidRequest,
    MethodNotAllowed,
    RequestTooLarge,
    RouteNotFound,
    SelineError,
    StoreClosed,
    TooManyRequests,
)
from seline.http import PREFIX
from seline.http.access import audited, bearer_of, check_browser, client_of, refuse_token_in_address
from seline.http.context import context
from seline.http.polling import unless_known
from seline.http.problems import status_of, unexpected
from seline.http.requests import DECODING, INLINE_BYTES_MAX, body_pieces, check_coding
from seline.page.rendering import NOT_INSTALLED, is_installed
from seline.page.texts import Texts, preferred, texts_in
from seline.page.visit import FORM_BYTES_MAX, HTML, KEPT_BYTES_MAX, Page, PageRoute, Sent, Visit

COOKIE: Final = "seline"
SECURE_COOKIE: Final = "__Host-seline"
LANGUAGE_COOKIE: Final = "seline_language"
FIELDS_MAX: Final = 200
STARTING_S: Final = 2
TWICE_S: Final = 2.0
"""For how long after its answer the same form counts as sent twice by one double click."""
_FORM: Final = "application/x-www-form-urlencoded"
_OWN_SITES: Final = frozenset({"same-origin", "none"})
_log = logging.getLogger("seline.page")
_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(route: PageRoute) -> _Answer:
    """Return the handler of a route for aiohttp."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if not await asyncio.to_thread(is_installed):
            return web.Response(text=NOT_INSTALLED, status=HTTPStatus.NOT_IMPLEMENTED)
        visit = Visit(request=request, texts=await texts_for(request))
        try:
            return await filled(await _admitted(visit, route))
        except SelineError as error:
            return await filled(error_page(visit, error))
        except Exception:  # the border of a request: no internals are answered
            if request.transport is None:
                raise
            _log.exception("unexpected error answering %s %s", request.method, request.path[:200])
            return await filled(error_page(visit, unexpected()))

    return answer


async def filled(response: web.StreamResponse) -> web.StreamResponse:
    """Return a response that is rendered, if it is a page."""
    if isinstance(response, Page):
        await response.fill()
    return response


@web.middleware
async def stray_pages(request: web.Request, handler: _Answer) -> web.StreamResponse:
    """Answer a browser with a page where it asks for an address that does not exist."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        is_api = request.path.startswith(PREFIX)
        if is_api or HTML not in request.headers.get("Accept", "") or not is_installed():
            raise
        visit = Visit(request=request, texts=await texts_for(request))
        if context(request).unavailable() is None:
            await _find_session(visit)
        if isinstance(error, web.HTTPNotFound):
            stray = RouteNotFound(f"There is nothing at {request.path[:200]}.")
            return await filled(error_page(visit, stray))
        allowed = ", ".join(sorted(error.allowed_methods))
        response = error_page(visit, MethodNotAllowed(f"This address takes {allowed}."))
        response.headers["Allow"] = allowed
        return await filled(response)


async def texts_for(request: web.Request) -> Texts:
    """Return the texts in the language of the cookie, else of the browser."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return await texts_in(preferred(chosen or request.headers.get("Accept-Language", "")))


def error_page(visit: Visit, error: SelineError) -> web.Response:
    """Return an error as a page: what happened, and the next step."""
    response = visit.render(
        "error.html", status=status_of(error), error=error, document=_document_of(visit, error)
    )
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.details.get("retry_after_s", 60))
    return response


def _document_of(visit: Visit, error: SelineError) -> str:
    """Return the document whose page leads on from an error; empty if there is none."""
    name = visit.request.match_info.get("name", "")
    is_below = visit.request.path.startswith(f"/documents/{name}/")
    is_unknown = isinstance(error, (DocumentNotFound, InvalidDocumentName))
    return name if is_below and visit.session is not None and not is_unknown else ""


async def _admitted(visit: Visit, route: PageRoute) -> web.StreamResponse:
    request = visit.request
    check_browser(request)
    refuse_token_in_address(request)
    if request.method == "POST":
        _check_site(request)
    unavailable = context(request).unavailable()
    if isinstance(unavailable, StoreClosed):
        unopened = HTTPStatus.SERVICE_UNAVAILABLE
        return visit.render("starting.html", status=unopened, refresh_s=STARTING_S)
    if unavailable is not None:
        raise type(unavailable)  # its message may name places on this machine
    await _find_session(visit)
    if visit.session is None and route.takes_token and (secret := bearer_of(request)):
        context(request).tokens.authenticate(secret, client=client_of(request), needs="read")
        return await route.handler(visit)
    if visit.session is None and route.needs != "open":
        return await _without_session(visit)
    if request.method != "POST":
        return await _found(visit, route)
    visit.form = await _read_form(visit, route.form_bytes_max)
    return await _posted(visit, route)


async def _find_session(visit: Visit) -> None:
    visit.secret = secret_of(visit.request)
    visit.session = await visit.site.sessions.find(visit.secret, is_use=not visit.is_poll)


async def _found(visit: Visit, route: PageRoute) -> web.StreamResponse:
    _check_scope(visit, route)
    response = await filled(await route.handler(visit))
    is_shown = visit.is_poll and response.status == HTTPStatus.OK
    return unless_known(visit.request, response) if is_shown else response


async def _posted(visit: Visit, route: PageRoute) -> web.StreamResponse:
    """Answer a form; what needs a session is a line in the audit log."""
    session = visit.session
    if session is None or route.needs == "open":
        return await route.handler(visit)
    if not hmac.compare_digest(visit.form.get("csrf", "").encode(), visit.csrf.encode()):
        raise Forbidden(
            "This form belongs to a session that has ended; nothing was changed.",
            hint="Open the page again, then send the form again.",
        )
    _check_scope(visit, route)
    return await _answered_once(
        visit,
        session,
        lambda _: audited(visit.request, lambda _: route.handler(visit), named(session)),
    )


async def _answered_once(visit: Visit, session: Session, answer: _Answer) -> web.StreamResponse:
    """Answer a form that is sent twice at once, as by a double click, as the first time.

    The browser drops the answer to the first. The second would be refused: its backup is used up,
    or its document exists already.
    """
    sent, now_s = visit.site.sent, asyncio.get_running_loop().time
    digest = hashlib.sha256(repr((visit.request.path, visit.form)).encode()).digest()
    first = sent.get(session.id)
    if first is not None and first.digest == digest:
        await first.answered.wait()
        if first.led_to and now_s() < first.again_until_s:
            return visit.go(first.led_to)
    mine = sent[session.id] = Sent(digest=digest)
    sent.move_to_end(session.id)
    while len(sent) > SESSIONS_MAX:
        sent.popitem(last=False)
    try:
        response = await answer(visit.request)
        mine.led_to = response.headers.get("Location", "")
        return response
    finally:
        mine.again_until_s = now_s() + TWICE_S
        mine.answered.set()


def named(session: Session) -> str:
    """Return who acts in a session, for the audit log."""
    return f"{session.source}, page session {session.id}"


def _check_scope(visit: Visit, route: PageRoute) -> None:
    if route.needs == "admin" and not visit.may_change:
        raise Forbidden


def _check_site(request: web.Request) -> None:
    """Refuse a form that another site sends; `check_browser` has compared the origin."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in _OWN_SITES:
        raise Forbidden(
            "Pages of other sites may not send this form; nothing was changed.",
            hint="Open the page of Seline itself, and send it there.",
        )


async def _without_session(visit: Visit) -> web.StreamResponse:
    """Ask for a sign-in that leads back; a form comes back with what was typed."""
    request = visit.request
    if request.method == "POST":
        return visit.render(
            "sign_in.html",
            status=HTTPStatus.UNAUTHORIZED,
            next=request.path_qs,
            kept=await _kept_fields(visit),
            once="",
            failure=None,
            ended=True,
        )
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        # A link on another site does not send a SameSite=Strict cookie; the page itself does.
        return visit.render("again.html", refresh_s=0, again=request.path_qs)
    fields = {"next": request.path_qs} if request.path_qs != "/" else {}
    if visit.secret:
        fields["ended"] = "1"
    return visit.go(f"/sign-in?{urlencode(fields)}" if fields else "/sign-in")


async def _kept_fields(visit: Visit) -> Mapping[str, str]:
    """Return the fields of a form without a session, none of a form over KEPT_BYTES_MAX."""
    try:
        form = await _read_form(visit, KEPT_BYTES_MAX)
    except RequestTooLarge:
        return {}
    return {name: value for name, value in form.items() if name != "csrf"}


async def _read_form(visit: Visit, bytes_max: int) -> Mapping[str, str]:
    """Return the fields of a form; of a repeated field the last value.

    Few large ones are in memory at once for browsers that have not signed in.
    """
    request = visit.request
    if request.content_type != _FORM:
        raise InvalidRequest(f"A form is sent as {_FORM}, not as {request.content_type[:80]}.")
    check_coding(request)
    is_small = request.content_length is not None and request.content_length <= FORM_BYTES_MAX
    is_free = is_small or visit.session is not None
    async with contextlib.nullcontext() if is_free else visit.site.large_forms:
        body = b"".join([piece async for piece in body_pieces(request, bytes_max)])
        if len(body) <= INLINE_BYTES_MAX:
            return _fields(body)
        async with request.config_dict[DECODING]:
            return await asyncio.to_thread(_fields, body)


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX
        )
    except ValueError as error:
        raise InvalidRequest(
            f"The form is not UTF-8 text in at most {FIELDS_MAX} fields."
        ) from error
    # Browsers send each line break of a text as two characters.
    return {name: value.replace("\r\n", "\n") for name, value in pairs}


# the cookie


def secret_of(request: web.Request) -> str:
    """Return the secret in the cookie of the session, empty without one.

    Behind TLS it is the cookie that no page of a neighbouring host can set.
    """
    insecure = "" if came_by_tls(request) else request.cookies.get(COOKIE, "")
    return request.cookies.get(SECURE_COOKIE) or insecure


def set_cookie(response: web.Response, request: web.Request, secret: str) -> None:
    """Give the browser the cookie of a session, only over TLS if it came by TLS."""
    is_secure = came_by_tls(request)
    response.set_cookie(
        SECURE_COOKIE if is_secure else COOKIE,
        secret,
        max_age=int(AGE_MAX.total_seconds()),
        path="/",
        secure=is_secure,
        httponly=True,
        samesite="Strict",
    )


def delete_cookies(response: web.Response) -> None:
    """Have the browser forget the cookie of the session."""
    for name, secure in ((COOKIE, False), (SECURE_COOKIE, True)):
        response.del_cookie(name, path="/", secure=secure, httponly=True, samesite="Strict")


def came_by_tls(request: web.Request) -> bool:
    """Whether the browser uses TLS, by its own word or by the proxy's.

    Either may be wrong without harm: the cookie is then not sent back.
    """
    forwarded = request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
    origin = request.headers.get("Origin", "")
    return request.secure or forwarded == "https" or origin.startswith("https://")
