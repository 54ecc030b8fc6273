"""Does this save remove most of a document? Then what was there is kept apart (V11).

The owner's predecessor lost its profile to five blank saves in a row.
"""

from __future__ import annotations

from typing import Final

from seline.domain.document import Json
from seline.domain.json_text import NotJson, decode

GUARDED_BYTES_MIN: Final = 512
KEPT_RATIO_MIN: Final = 0.5


def blank_save(before: bytes, after: bytes) -> str | None:
    """Return in plain words why `after` removes most of `before`, None if it does not.

    Fields are counted at the top of an object or list, where a bot's data has its shape; a loss
    further down shows in the bytes. Documents under 512 bytes are not guarded.
    """
    if len(before) < GUARDED_BYTES_MIN:
        return None
    if len(after) < len(before) * KEPT_RATIO_MIN:
        return f"it shrank from {len(before)} to {len(after)} bytes"
    try:
        value, old = decode(after), decode(before)
    except NotJson:
        return None
    fields, old_fields = _fields(value), _fields(old)
    if fields < old_fields * KEPT_RATIO_MIN:
        return f"{old_fields - fields} of {old_fields} fields went"
    if _only_blanks(value) and not _only_blanks(old):
        return "only blanks are left"
    return None


def _fields(value: Json) -> int:
    return len(value) if isinstance(value, (dict, list)) else 1


def _only_blanks(value: Json) -> bool:
    """Whether every leaf is null, "", [] or {}; 0 and false are values."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif item is not None and item != "":
            return False
    return True
