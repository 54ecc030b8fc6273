"""Set aside: the broken files that a recovery kept, why each was set aside, and what it holds."""

from datetime import datetime
from typing import Final, NamedTuple

from aiohttp import web

from seline.domain.document import is_document_name
from seline.domain.json_codec import NotJson, decode_given, normalised
from seline.errors import SelineError
from seline.http.files import send_download
from seline.operations.difference import CURRENT, QUARANTINE
from seline.page.documents import rows_of
from seline.page.editing import EDIT_BYTES_MAX
from seline.page.json_view import DifferenceInWords, readable, shown
from seline.page.visit import PageRoute, View, Visit
from seline.ports.medium import QuarantineItem, not_in_quarantine

TEXT_SHOWN_MAX: Final = 20_000
REASON_BYTES_MAX: Final = 16 << 10
"""Of a larger item the reason is only on its own page."""


class Reason(NamedTuple):
    """Why an item was set aside: the key of a text, and the error of its JSON, in English."""

    key: str
    detail: str = ""


class ItemShown(NamedTuple):
    """An item in the list."""

    name: str
    document: str
    taken_at: datetime
    size_bytes: int
    reason: Reason | None


async def show_list(visit: Visit) -> web.Response:
    """List what was set aside, the newest first."""
    rows = rows_of(visit, await visit.context.operations.quarantine())
    items = [
        ItemShown(
            item.name, item.document, item.taken_at, item.size_bytes, await _reason_of(visit, item)
        )
        for item in rows.items
    ]
    return visit.render("set_aside.html", rows=rows, items=items)


async def show(visit: Visit) -> web.Response:
    """Show one item: why it was set aside, its text, and how it differs from the document."""
    item = await _found(visit)
    data = await visit.context.operations.read_quarantine(item.name)
    found, failure = await _difference(visit, item)
    text = _text(data)
    is_editable = text is not None and len(data) <= EDIT_BYTES_MAX
    return visit.render(
        "set_aside_item.html",
        item=item,
        has_document=is_document_name(item.document),
        reason=Reason("set_aside.why_json") if failure is None else _reason(data),
        failure=failure,
        found=found,
        text=None if text is None else _readable_lines(text[:TEXT_SHOWN_MAX]),
        is_whole=text is not None and len(text) <= TEXT_SHOWN_MAX,
        is_editable=is_editable,
    )


async def show_raw(visit: Visit) -> web.StreamResponse:
    """Send the bytes of an item as a file."""
    item = await _found(visit)
    reading = visit.context.operations.read_quarantine(item.name)
    return await send_download(visit.request, reading, item.name)


async def _found(visit: Visit) -> QuarantineItem:
    """Return the item that the address names. Raises DocumentNotFound."""
    name = visit.part("item")
    items = await visit.context.operations.quarantine()
    found = next((item for item in items if item.name == name), None)
    if found is None:
        raise not_in_quarantine(readable(name)[:200])
    return found


async def _difference(
    visit: Visit, item: QuarantineItem
) -> tuple[DifferenceInWords | None, SelineError | None]:
    """Return how an item differs from what is current, or why they cannot be compared."""
    try:
        compared = await visit.context.operations.diff(
            item.document, CURRENT, QUARANTINE + item.name
        )
    except SelineError as error:
        return None, error
    return shown(compared.difference), None


async def _reason_of(visit: Visit, item: QuarantineItem) -> Reason | None:
    """Return why a small item was set aside; None for a large one, or one that is gone."""
    if item.size_bytes > REASON_BYTES_MAX:
        return None
    try:
        return _reason(await visit.context.operations.read_quarantine(item.name))
    except SelineError:
        return None


def _reason(data: bytes) -> Reason:
    if len(data) > EDIT_BYTES_MAX:
        return Reason("set_aside.why_large")
    try:
        decode_given(data)
    except NotJson as error:
        return Reason("set_aside.why_not_json", str(error))
    return Reason("set_aside.why_json")


def _text(data: bytes) -> str | None:
    """Return the bytes as text; None if they are none."""
    try:
        text = normalised(data).decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _readable_lines(text: str) -> str:
    return "\n".join(readable(line.rstrip("\r").replace("\t", "  ")) for line in text.split("\n"))


SET_ASIDE: Final = View(
    "set_aside",
    "/set-aside",
    (
        PageRoute("GET", "/set-aside", show_list),
        PageRoute("GET", "/set-aside/{item}", show),
        PageRoute("GET", "/set-aside/{item}/raw", show_raw),
    ),
)
