"""What every failure of a destination keeps to: it is typed, in time, and names no secret."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from seline.errors import ExportFailed

PATIENCE_S = 20.0
"""A call that takes longer waits for ever; no test waits as long."""


async def failure(call: Awaitable[Any], *secrets: str) -> ExportFailed:
    """Return the error of a call, which must end; its text contains none of the secrets."""
    try:
        returned = await asyncio.wait_for(call, PATIENCE_S)
    except ExportFailed as error:
        text = " ".join([str(error), error.hint, *error.__notes__])
        assert not [secret for secret in secrets if secret in text]
        return error
    raise AssertionError(f"it did not fail, and returned {returned!r}")
