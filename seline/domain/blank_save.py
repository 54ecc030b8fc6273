"""Does this save remove most of a document? Then what was there is kept apart (V11).

The owner's predecessor lost its profile to five blank saves in a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from seline.domain.document import Json
from seline.domain.json_codec import NotJson, decode

GUARDED_BYTES_MIN: Final = 512
LEFT_RATIO_MIN: Final = 0.5


class _Fields(NamedTuple):
    """How many fields hold something: at the top of the document, and at any depth."""

    at_top: int
    anywhere: int


def blank_save(before: bytes, after: bytes, changed: tuple[Json, Json] | None = None) -> str | None:
    """Return in plain words why `after` removes most of `before`, None if it does not.

    Most is more than half of the bytes, or of the fields that hold something, or all of them.
    Fields are counted twice, and either count suffices: at the top, where four of five settings
    may go beside one large one that stays; and at any depth, where a profile may go blank inside
    the one object that wraps it. A list of plain values is one field, however long. null, "", []
    and {} hold nothing; 0 and false do. Under 512 bytes nothing is guarded. `changed` is
    the only field that differs, as it was and as it shall be, where that is known.
    """
    if len(before) < GUARDED_BYTES_MIN:
        return None
    if len(after) < len(before) * LEFT_RATIO_MIN:
        return f"it shrank from {len(before)} to {len(after)} bytes"
    if changed is not None and _fields_in(changed[1]) >= _fields_in(changed[0]):
        return None
    try:
        old_value, new_value = decode(before), decode(after)
    except NotJson:
        return None
    if _loses_nothing(old_value, new_value):
        return None
    old, new = _fields(old_value), _fields(new_value)
    if old.anywhere and not new.anywhere:
        return "only blanks are left"
    for held, left in zip(old, new, strict=True):
        if left < held * LEFT_RATIO_MIN:
            return f"{held - left} of {held} fields went"
    return None


def _loses_nothing(before: Json, after: Json) -> bool:
    """Whether every member holds as many fields as it did: true of most saves, and soon told."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return False
    for key, value in before.items():
        now = after.get(key)
        if now != value and _fields_in(now) < _fields_in(value):
            return False
    return True


def _fields(document: Json) -> _Fields:
    if isinstance(document, (dict, list)):
        counts = [_fields_in(member) for member in _members(document)]
        return _Fields(at_top=sum(map(bool, counts)), anywhere=sum(counts))
    return _Fields(*2 * [int(_holds(document))])


def _fields_in(value: Json) -> int:
    """Count the fields of one member, itself included if it is no object."""
    if isinstance(value, dict):
        return sum(map(_fields_in, value.values()))
    if isinstance(value, list):
        plain = any(_holds(item) for item in value if not isinstance(item, (dict, list)))
        return plain + sum(_fields_in(item) for item in value if isinstance(item, (dict, list)))
    return _holds(value)


def _holds(value: Json) -> bool:
    return value is not None and value != ""


def _members(document: dict[str, Json] | list[Json]) -> Iterable[Json]:
    return document.values() if isinstance(document, dict) else document
