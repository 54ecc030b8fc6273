"""Sign in with a token or with the one-time link, sign out, choose a language, end sessions."""

from http import HTTPStatus
from typing import Final

from aiohttp import web

from seline.access.tokens import Grant
from seline.domain.texts import LANGUAGES
from seline.errors import SelineError, TooManyRequests, Unauthorized
from seline.http.access import client_of
from seline.page.gate import LANGUAGE_COOKIE, delete_cookies, error_page, named, set_cookie
from seline.page.visit import KEPT_BYTES_MAX, Button, PageRoute, View, Visit, own_address

LANGUAGE_S: Final = 365 * 86_400
KEPT: Final = "kept:"
"""What the names of fields begin with that a form had when its session ended."""


async def show_sign_in(visit: Visit) -> web.Response:
    """Show the form for a token, or the button of a one-time link."""
    query = visit.request.query
    following = own_address(query.get("next", "/"))
    if visit.session is not None:
        return visit.go(following)
    return _form(visit, following, once=query.get("once", ""), ended="ended" in query)


async def sign_in(visit: Visit) -> web.Response:
    """Start a session. A wrong token comes back with the way to make one."""
    following = own_address(visit.form.get("next", "/"))
    kept = {
        name.removeprefix(KEPT): value
        for name, value in visit.form.items()
        if name.startswith(KEPT)
    }
    try:
        grant = _grant(visit)
    except TooManyRequests as error:
        return error_page(visit, error)
    except SelineError as error:
        return _form(visit, following, kept=kept, failure=error)
    session, visit.secret = await visit.site.sessions.create(grant)
    if visit.session is not None:
        await visit.site.sessions.end(visit.session.id)
    visit.session = session
    visit.context.audit.append(who=named(session), what="POST /sign-in", outcome="303")
    response = _resumed(visit, following, kept) if kept else visit.go(following)
    set_cookie(response, visit.request, visit.secret)
    return response


async def sign_out(visit: Visit) -> web.Response:
    """End the session of this browser."""
    assert visit.session is not None
    await visit.site.sessions.end(visit.session.id)
    response = visit.go("/sign-in")
    delete_cookies(response)
    return response


async def choose_language(visit: Visit) -> web.Response:
    """Keep the language in a cookie, and go back."""
    response = visit.go(own_address(visit.form.get("next", "/")))
    chosen = visit.form.get("language", "")
    if chosen in LANGUAGES:
        response.set_cookie(
            LANGUAGE_COOKIE, chosen, max_age=LANGUAGE_S, path="/", httponly=True, samesite="Lax"
        )
    return response


async def show_sessions(visit: Visit) -> web.Response:
    """List the sessions, with a button that ends each."""
    return visit.render("sessions.html", sessions=visit.site.sessions.listed())


async def end_session(visit: Visit) -> web.Response:
    """End one session."""
    await visit.site.sessions.end(visit.part("id"))
    return visit.go("/sessions", visit.texts("sessions.ended"))


def _grant(visit: Visit) -> Grant:
    """Return what the token or the code of the form gives access to. Raises Unauthorized."""
    tokens, client = visit.context.tokens, client_of(visit.request)
    code = visit.form.get("once", "")
    if not code:
        return tokens.grant(visit.form.get("token", "").strip(), client=client, needs="read")
    grant = visit.site.once.use(code)
    if grant is None:
        tokens.failures.count(client)
        raise Unauthorized(visit.texts("sign_in.link_used"))
    return grant


def _form(
    visit: Visit,
    following: str,
    *,
    once: str = "",
    kept: dict[str, str] | None = None,
    failure: SelineError | None = None,
    ended: bool = False,
) -> web.Response:
    return visit.render(
        "sign_in.html",
        status=HTTPStatus.OK if failure is None else HTTPStatus.UNAUTHORIZED,
        next=following,
        once=once,
        kept=kept or {},
        failure=failure,
        ended=ended,
    )


def _resumed(visit: Visit, action: str, kept: dict[str, str]) -> web.Response:
    """Return the page that sends the form again which a session was too old for."""
    t = visit.texts
    return visit.confirm(
        title=t("sign_in.resume_title"),
        lines=(t("sign_in.resume"),),
        button=Button(action, t("sign_in.resume_button"), kept),
        back="/",
        is_dangerous=False,
    )


SIGN_IN: Final = View(
    "sign_in",
    "",
    (
        PageRoute("GET", "/sign-in", show_sign_in, "open"),
        PageRoute("POST", "/sign-in", sign_in, "open", 2 * KEPT_BYTES_MAX),
        PageRoute("POST", "/sign-out", sign_out),
        PageRoute("POST", "/language", choose_language, "open"),
        PageRoute("GET", "/sessions", show_sessions, "admin"),
        PageRoute("POST", "/sessions/{id}/end", end_session, "admin"),
    ),
)
"""It is not in the navigation: it has no address there."""
