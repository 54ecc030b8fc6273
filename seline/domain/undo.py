"""What takes a change back: one decision, which the API, the command line and the page render."""

from typing import NamedTuple, TypeAlias

from seline.domain.document import Revision


class RestoreBack(NamedTuple):
    """Restore the content before from its backup. `revision` is current now; None: no document."""

    document: str
    backup: str
    revision: Revision | None


class DeleteAgain(NamedTuple):
    """Delete the document that the change created. `revision` is current now."""

    document: str
    revision: Revision


class PinAgain(NamedTuple):
    """Pin the backup for the reason that it was pinned for."""

    document: str
    backup: str
    because: str


class UnpinAgain(NamedTuple):
    """Unpin the backup."""

    document: str
    backup: str


class RevokeAgain(NamedTuple):
    """Revoke the token that was created."""

    token: str


Undo: TypeAlias = RestoreBack | DeleteAgain | PinAgain | UnpinAgain | RevokeAgain


def undo_of_change(
    document: str,
    before: Revision | None,
    after: Revision | None,
    *,
    backup: str | None,
    was_broken: bool,
) -> Undo | None:
    """Return what takes a change of a document back, None if nothing can.

    A revision is None where there is no sound document. `backup` holds the content `before`.
    """
    if before == after or was_broken:
        return None
    if before is not None:
        return None if backup is None else RestoreBack(document, backup, after)
    return None if after is None else DeleteAgain(document, after)


def undo_of_pin(document: str, backup: str, before: str | None, after: str | None) -> Undo | None:
    """Return what takes a pin or its end back; each reason is None where there is no pin."""
    if before == after:
        return None
    if before is None:
        return UnpinAgain(document, backup)
    return PinAgain(document, backup, before)
