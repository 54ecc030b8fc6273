"""Which documents cannot be served is known to the next process, too.

Verify keeps it among Seline's own documents: `{"documents": ["user_profile.json", …]}`. It is a
list of suspects: whoever reads it looks at each before it says anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from seline.domain.document import SELINE, DocumentKey, Json
from seline.domain.json_codec import NotJson, decode
from seline.errors import SelineError
from seline.ports.store import DocumentStore

if TYPE_CHECKING:
    from seline.manager.data import DataManager

UNSERVED: Final = "unserved.json"


async def remember(data: DataManager, names: Iterable[str]) -> None:
    """Take note of what the last verify could not serve, if it is news and can be written."""
    value: Json = {"documents": [*sorted(names)]}
    with suppress(SelineError):
        if await data.load_state(UNSERVED, {"documents": []}) != value:
            await data.update_state(UNSERVED, lambda _before: value)


def remembered(store: DocumentStore) -> frozenset[str]:
    """Return what the last verify could not serve. Blocks."""
    try:
        judged, _ = store.look(DocumentKey(SELINE, UNSERVED))
        value = None if judged.content is None else decode(judged.content.data)
    except (SelineError, NotJson):
        return frozenset()
    names = value.get("documents") if isinstance(value, dict) else None
    return frozenset(map(str, names)) if isinstance(names, list) else frozenset()
