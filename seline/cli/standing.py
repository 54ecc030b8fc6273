"""How a document stands before a verb asks whether to go ahead: broken beyond recovery, or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seline.cli.problem import Problem
from seline.errors import DocumentUnrecoverable

if TYPE_CHECKING:
    from seline.cli.client import Api


async def is_broken(api: Api, name: str) -> bool:
    """Whether a document is broken and nothing sound of it is left.

    Only a read can tell; as every read it mends what can be mended. Raises Problem, also where
    there is no such document.
    """
    from seline.cli.client import document_path

    try:
        async with api.stream("GET", document_path(name)):
            return False
    except Problem as problem:
        if problem.code != DocumentUnrecoverable.code:
            raise
        return True
