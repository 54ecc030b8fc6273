"""How a document stands before a verb asks whether to go ahead: what keeps it from being read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seline.cli.problem import Problem
from seline.errors import DocumentUnreadable, DocumentUnrecoverable

if TYPE_CHECKING:
    from seline.cli.client import Api

_OF_THE_DOCUMENT: Final = frozenset({DocumentUnrecoverable.code, DocumentUnreadable.code})


async def trouble_with(api: Api, name: str) -> Problem | None:
    """Return why a document cannot be served (broken beyond recovery, unreadable), None if it can.

    Only a read can tell; as every read it mends what can be mended. Raises Problem for anything
    else, also where there is no such document.
    """
    from seline.cli.client import document_path

    try:
        async with api.stream("GET", document_path(name)):
            return None
    except Problem as problem:
        if problem.code not in _OF_THE_DOCUMENT:
            raise
        return problem
