"""Edit a document as text. An error shows what was typed again, with the place of the error."""

import asyncio
from http import HTTPStatus
from typing import Final, NamedTuple

from aiohttp import web

from seline import collector
from seline.domain.backup import parse_aside_name
from seline.domain.document import BOT, Content, DocumentKey, check_document_name
from seline.domain.json_codec import OTHER_HINT, NotJson, normalised
from seline.errors import InvalidRequest, RevisionMismatch, SelineError
from seline.http.problems import status_of
from seline.http.requests import DECODING, INLINE_BYTES_MAX
from seline.manager.changes import CREATED
from seline.manager.encoding import given_content
from seline.operations.difference import difference_between
from seline.page.documents import ServedDocument, current_of, if_match
from seline.page.json_view import DifferenceInWords, readable, shown
from seline.page.texts import Texts
from seline.page.undo import NO_DOCUMENT, address, undo_button
from seline.page.visit import FORM_BYTES_MAX, PageRoute, View, Visit
from seline.ports.medium import not_in_quarantine

EDIT_BYTES_MAX: Final = 256 << 10
"""How large a document may be that is edited in a browser."""
SENT_BYTES_MAX: Final = 6 * EDIT_BYTES_MAX + FORM_BYTES_MAX
"""A form sends a line break as six characters, and any other byte as at most three."""
AROUND_LINES: Final = 2
LINE_SHOWN_MAX: Final = 120


class Place(NamedTuple):
    """The lines around an error: the number, the text, and whether the error is in it."""

    line: int
    text: str
    is_wrong: bool


async def show(visit: Visit) -> web.Response:
    """Show the form with the text of the document, or of an item that was set aside."""
    name, item = check_document_name(visit.part("name")), visit.request.query.get("item", "")
    current = await current_of(visit, name)
    text = await _item_text(visit, name, item) if item else _text_of(name, current)
    return _form(visit, text, current.revision, item=item)


async def save(visit: Visit) -> web.Response:
    """Save the text. If that fails, show the form again with it, and why."""
    name, text = check_document_name(visit.part("name")), visit.field("text")
    revision = visit.field("revision")
    try:
        content = await content_of_text(visit, text)
    except NotJson as error:
        return _form(visit, text, revision, wrong=error)
    except SelineError as error:
        return _form(visit, text, revision, failure=error)
    try:
        outcome = await visit.context.data.store.save(
            DocumentKey(BOT, name), content, backup=True, if_match=if_match(revision), shrink=False
        )
    except RevisionMismatch as error:
        return await _conflict(visit, text, content, error)
    except SelineError as error:
        return _form(visit, text, revision, failure=error)
    is_new = outcome.answer == CREATED
    key = "edit.created" if is_new else "edit.saved" if outcome.changed else "edit.unchanged"
    return visit.go(address(name), visit.texts(key, name=name), undo=undo_button(visit))


async def _conflict(
    visit: Visit, text: str, content: Content, error: RevisionMismatch
) -> web.Response:
    """Show both contents and what differs; the form saves over what is current now."""
    current = await current_of(visit, visit.part("name"))
    found = await difference_between(current.content, content)
    return _form(visit, text, current.revision, failure=error, found=shown(found), newer=current)


def _form(
    visit: Visit,
    text: str,
    revision: str,
    *,
    item: str = "",
    wrong: NotJson | None = None,
    failure: SelineError | None = None,
    found: DifferenceInWords | None = None,
    newer: ServedDocument | None = None,
) -> web.Response:
    status = HTTPStatus.OK if failure is None else status_of(failure)
    return visit.render(
        "edit.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if wrong is not None else status,
        name=visit.part("name"),
        text=text,
        revision=revision,
        item=item,
        wrong=wrong,
        places=[] if wrong is None else places_of(text, wrong),
        next_step="" if wrong is None else next_step_of(visit.texts, text, wrong),
        failure=failure,
        found=found,
        newer_text="" if newer is None else _shown_text(newer),
        is_newer=newer is not None,
        is_absent=revision == NO_DOCUMENT,
    )


def next_step_of(t: Texts, text: str, error: NotJson) -> str:
    """Return what to do about a text of a form: the hint of the codec is about a file."""
    if not text.strip():
        return t("edit.fill")
    return t("edit.correct") if error.hint == OTHER_HINT else error.hint


def places_of(text: str, error: NotJson) -> list[Place]:
    """Return the lines around an error; of a long line the part with the error."""
    if error.line is None:
        return []
    lines = text.split("\n")
    first = max(0, error.line - 1 - AROUND_LINES)
    places: list[Place] = []
    for number, line in enumerate(lines[first : error.line + AROUND_LINES], first + 1):
        column = (error.column or 1) if number == error.line else 1
        start = max(0, column - LINE_SHOWN_MAX // 2)
        cut = readable(line[start : start + LINE_SHOWN_MAX])
        places.append(Place(number, ("…" if start else "") + cut, number == error.line))
    return places


def _shown_text(current: ServedDocument) -> str:
    """Return the text of the newer content; empty if there is none or it is too large."""
    content = current.content
    if content is None or content.size_bytes > EDIT_BYTES_MAX:
        return ""
    return normalised(content.data).decode(errors="replace")


def _text_of(name: str, current: ServedDocument) -> str:
    """Return the text to edit. Raises the error of a broken document, InvalidRequest."""
    if current.failure is not None:
        raise current.failure
    if current.content is None:
        return ""
    _check_size(name, current.content.size_bytes)
    return normalised(current.content.data).decode(errors="replace")


async def _item_text(visit: Visit, name: str, item: str) -> str:
    """Return the text of an item that was set aside. Raises DocumentNotFound, InvalidRequest."""
    parsed = parse_aside_name(item)
    if parsed is None or parsed[0] != name:
        raise not_in_quarantine(readable(item)[:200])
    data = await visit.context.operations.read_quarantine(item)
    _check_size(name, len(data))
    try:
        return normalised(data).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{item} is not UTF-8 text, so it cannot be edited here.",
            hint=f"`seline quarantine {item} > copy.json` writes its bytes to a file.",
        ) from error


def _check_size(name: str, size_bytes: int) -> None:
    if size_bytes > EDIT_BYTES_MAX:
        raise InvalidRequest(
            f"This text has {size_bytes} bytes; the page edits at most {EDIT_BYTES_MAX}.",
            hint=f"Edit a copy: `seline load {name} > copy.json`, then "
            f"`seline save {name} copy.json`.",
        )


async def content_of_text(visit: Visit, text: str) -> Content:
    """Return what is saved. Raises NotJson, DocumentTooLarge.

    A large text is decoded outside the event loop, one at a time.
    """
    data = text.encode()
    limits = visit.context.settings.storage
    if len(data) <= INLINE_BYTES_MAX:
        return given_content(data, limits)

    def decode() -> Content:
        with collector.paused():
            return given_content(data, limits)

    async with visit.request.config_dict[DECODING]:
        return await asyncio.to_thread(decode)


EDIT: Final = View(
    "edit",
    "",
    (
        PageRoute("GET", "/documents/{name}/edit", show, "admin"),
        PageRoute("POST", "/documents/{name}/edit", save, "admin", SENT_BYTES_MAX),
    ),
)
"""It is not in the navigation: a document leads to it."""
