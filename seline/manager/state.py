"""What the services remember across restarts, in documents of Seline's own.

It only spares work, tells how things stood, or lets somebody in, so what is broken beyond recovery
is given up (its bytes stay in quarantine) and begun anew: a job must not stop for ever, nor
a bot stay down, because notes beside its documents rotted.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from seline.domain.document import SELINE, DocumentKey, Json
from seline.errors import (
    DocumentUnreadable,
    DocumentUnrecoverable,
    SelineError,
    StorageError,
)
from seline.manager import DataManager, changes

_log = logging.getLogger("seline.state")
NOT_KEPT: Final = "state_not_kept"


async def remembered(data: DataManager, name: str, default: Json) -> Json:
    """Return what was kept, the default where nothing was, or where it cannot be read.

    What is broken for good is set aside; what the disk does not give stays where it is.
    """
    try:
        return await data.load_state(name, default)
    except DocumentUnreadable as error:
        _log.warning("%s It is left alone, and done without.", error.message)
    except DocumentUnrecoverable as error:
        _log.warning("%s It is set aside and begun anew.", error.message)
        with contextlib.suppress(StorageError):  # a volume that takes no writes still gives reads
            await data.change(DocumentKey(SELINE, name), changes.reset)
    return default


async def remember(data: DataManager, name: str, state: Json) -> None:
    """Keep state, as far as it can be: on a full volume the work is done all the same."""
    try:
        await _keep(data, name, state)
    except SelineError as error:
        data.note(NOT_KEPT, "", f"{name} could not be kept: {error.message}")


async def _keep(data: DataManager, name: str, state: Json) -> None:
    try:
        await data.update_state(name, lambda _before: state)
    except DocumentUnrecoverable:
        await remembered(data, name, None)
        await data.update_state(name, lambda _before: state)
