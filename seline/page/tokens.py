"""Tokens: make one, see when each was last used, and revoke one."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from aiohttp import web

from seline.access.tokens import SCOPES, name_of
from seline.domain.sentences.translate import translated
from seline.errors import InvalidRequest
from seline.page.undo import token_address, undo_button
from seline.page.visit import Button, PageRoute, View, Visit

DAYS_MAX: Final = 36_500


async def show(visit: Visit) -> web.Response:
    """Show the tokens and the form for a new one."""
    return await _page(visit)


async def make(visit: Visit) -> web.Response:
    """Make a token; its secret is shown once, on the page that follows."""
    try:
        expires_at = _expiry(visit)
    except InvalidRequest as error:
        failure = translated(visit.texts.language, error.message)
        return await _page(visit, form=visit.form, failure=failure)
    token, secret = await visit.context.tokens.create(
        scope=visit.field("scope"), label=visit.field("label").strip(), expires_at=expires_at
    )
    made = visit.texts("tokens.made", id=token.id)
    return visit.go("/tokens", made, undo=undo_button(visit), secret=secret)


async def ask_to_revoke(visit: Visit) -> web.Response:
    """Show what ends with a token, and ask."""
    token = await visit.context.tokens.revoke(visit.part("id"), dry_run=True)
    t, sessions = visit.texts, visit.site.sessions.listed()
    ends = [session for session in sessions if session.source == name_of(token)]
    is_own = visit.session is not None and visit.session.source == name_of(token)
    lines = [t("tokens.revoke_what", id=token.id, label=token.label or t("tokens.no_label"))]
    lines += [t.count("tokens.sessions_end", len(ends))] if ends else []
    lines += [t("tokens.own_session")] if is_own else []
    return visit.confirm(
        title=t("tokens.revoke_title", id=token.id),
        lines=tuple(lines),
        button=Button(token_address(token.id), t("tokens.revoke")),
        back="/tokens",
    )


async def revoke(visit: Visit) -> web.Response:
    """Revoke a token."""
    token = await visit.context.tokens.revoke(visit.part("id"))
    return visit.go("/tokens", visit.texts("tokens.revoked", id=token.id))


async def _page(
    visit: Visit, *, form: Mapping[str, str] | None = None, failure: str = ""
) -> web.Response:
    form = form or {}
    return visit.render(
        "tokens.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if failure else HTTPStatus.OK,
        tokens=await visit.context.tokens.listed(),
        scopes=[(scope, visit.texts(f"tokens.scope_{scope}")) for scope in reversed(SCOPES)],
        has_admin_token=bool(visit.context.settings.server.admin_token),
        form={name: form.get(name, "") for name in ("scope", "label", "days")},
        failure=failure,
    )


def _expiry(visit: Visit) -> datetime | None:
    """Return when the token of the form expires, None for never. Raises InvalidRequest."""
    text = visit.form.get("days", "").strip()
    if not text:
        return None
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(DAYS_MAX))
    if not is_number or not 1 <= int(text) <= DAYS_MAX:
        most = visit.texts.number(DAYS_MAX)
        raise InvalidRequest(visit.texts("tokens.wrong_days", most=most), fields=["days"])
    return visit.now + timedelta(days=int(text))


TOKENS: Final = View(
    "tokens",
    "/tokens",
    (
        PageRoute("GET", "/tokens", show, "admin"),
        PageRoute("POST", "/tokens", make, "admin"),
        PageRoute("GET", "/tokens/{id}/revoke", ask_to_revoke, "admin"),
        PageRoute("POST", "/tokens/{id}/revoke", revoke, "admin"),
    ),
)
