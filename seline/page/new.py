"""A new document: its name and its text. If it cannot be saved, both return with the reason."""

from http import HTTPStatus
from typing import Final

from aiohttp import web

from seline.domain.document import ABSENT, BOT, DocumentKey, check_document_name
from seline.domain.json_codec import NotJson
from seline.errors import InvalidDocumentName, RevisionMismatch, SelineError
from seline.http.problems import status_of
from seline.page.editing import SENT_BYTES_MAX, content_of_text, next_step_of, places_of
from seline.page.undo import address, undo_button
from seline.page.visit import PageRoute, View, Visit

TEXT: Final = "{\n  \n}"
"""What the form begins with."""


async def show(visit: Visit) -> web.Response:
    """Show the form."""
    return _form(visit, "", TEXT)


async def make(visit: Visit) -> web.Response:
    """Save the text under the name, unless there is such a document."""
    name, text = visit.field("name").strip(), visit.field("text")
    wrong_name = _wrong_name(name)
    try:
        content = await content_of_text(visit, text)
        if wrong_name is not None:
            raise wrong_name
        await visit.context.data.store.save(
            DocumentKey(BOT, name), content, backup=True, if_match=ABSENT, shrink=False
        )
    except NotJson as error:
        return _form(visit, name, text, wrong=error, failure=wrong_name)
    except SelineError as error:
        return _form(visit, name, text, failure=error)
    made = visit.texts("edit.created", name=name)
    return visit.go(address(name), made, undo=undo_button(visit))


def _wrong_name(name: str) -> InvalidDocumentName | None:
    try:
        check_document_name(name)
    except InvalidDocumentName as error:
        return error
    return None


def _form(
    visit: Visit,
    name: str,
    text: str,
    *,
    wrong: NotJson | None = None,
    failure: SelineError | None = None,
) -> web.Response:
    status = HTTPStatus.OK if failure is None else status_of(failure)
    exists = isinstance(failure, RevisionMismatch)
    return visit.render(
        "new.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if wrong is not None else status,
        name=name,
        text=text,
        wrong=wrong,
        places=[] if wrong is None else places_of(text, wrong),
        next_step="" if wrong is None else next_step_of(visit.texts, text, wrong),
        failure=failure,
        exists=exists,
        is_name_wrong=exists or isinstance(failure, InvalidDocumentName),
    )


NEW: Final = View(
    "new",
    "",
    (
        PageRoute("GET", "/documents/new", show, "admin"),
        PageRoute("POST", "/documents/new", make, "admin", SENT_BYTES_MAX),
    ),
)
"""It is not in the navigation: the list of documents leads to it."""
