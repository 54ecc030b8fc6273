"""What the services remember across restarts, in documents of Seline's own.

It only spares work or tells how things stood, so what is broken beyond recovery is given up (its
bytes stay in quarantine) and begun anew: a job must not stop for ever because its notes rotted.
"""

from __future__ import annotations

import logging
from typing import Final

from seline.domain.document import SELINE, DocumentKey, Json
from seline.errors import DocumentUnrecoverable, SelineError
from seline.manager import DataManager, changes

_log = logging.getLogger("seline.state")
NOT_KEPT: Final = "state_not_kept"


async def remembered(data: DataManager, name: str, default: Json) -> Json:
    """Return what was kept, the default where nothing was or where it is broken for good."""
    try:
        return await data.load_state(name, default)
    except DocumentUnrecoverable as error:
        _log.warning("%s It is set aside and begun anew.", error.message)
        await data.change(DocumentKey(SELINE, name), changes.reset)
        return default


async def remember(data: DataManager, name: str, state: Json) -> None:
    """Keep state, as far as it can be: on a full volume the work is done all the same."""
    try:
        await data.update_state(name, lambda _before: state)
    except DocumentUnrecoverable:
        await remembered(data, name, None)
        await data.update_state(name, lambda _before: state)
    except SelineError as error:
        data.note(NOT_KEPT, "", f"{name} could not be kept: {error.message}")
