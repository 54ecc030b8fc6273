"""The button that takes back what a form has done, and the addresses of its forms."""

from typing import Final

from seline.domain.undo import DeleteAgain, PinAgain, RestoreBack, RevokeAgain, Undo, UnpinAgain
from seline.manager.call_record import current_record
from seline.page.visit import Button, Visit

NO_DOCUMENT: Final = "absent"
"""In a form's field `revision`: the document must not exist. Empty: it is broken."""


def address(name: str) -> str:
    """Return where the page shows a document."""
    return f"/documents/{name}"


def token_address(identifier: str) -> str:
    """Return where a token is revoked."""
    return f"/tokens/{identifier}/revoke"


def undo_button(visit: Visit) -> Button | None:
    """Return the button that takes back what this form has done, None if no single one does."""
    record = current_record()
    ways = () if record is None else record.undo()
    return _button(visit, ways[0]) if len(ways) == 1 else None


def _button(visit: Visit, undo: Undo) -> Button:
    label = visit.texts("kit.undo")
    match undo:
        case RestoreBack(document, backup, revision):
            fields = {"backup": backup, "path": "", "revision": revision or NO_DOCUMENT}
            return Button(f"{address(document)}/restore", label, fields)
        case DeleteAgain(document, revision):
            return Button(f"{address(document)}/delete", label, {"revision": revision})
        case PinAgain(document, backup, because):
            fields = {"backup": backup, "because": because}
            return Button(f"{address(document)}/pin", label, fields)
        case UnpinAgain(document, backup):
            return Button(f"{address(document)}/unpin", label, {"backup": backup})
        case RevokeAgain(token):
            return Button(token_address(token), visit.texts("tokens.undo"))
