"""Detect a save that removes most of a document, so that the content before it is pinned (V11)."""

from typing import Final

from seline.domain.document import Json
from seline.domain.json_codec import NotJson, decode

GUARDED_BYTES_MIN: Final = 512
LEFT_RATIO_MIN: Final = 0.5


def blank_save(before: bytes, after: bytes, changed: tuple[Json, Json] | None = None) -> str | None:
    """Return the reason if `after` removes most of `before`, else None.

    That is: more than half of the bytes, or more than half of the fields that are not empty.
    Fields are counted at the top level and at any depth, and either count suffices. The first
    detects a save that removes four of five settings and keeps one large one; the second, a save
    that blanks the one object that wraps a profile. A list of plain values is one field. null, "",
    [] and {} are empty; 0 and false are not. A document under 512 bytes is never guarded.
    `changed` is the old and the new value of the only field that differs, if known.
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
    old_counts, new_counts = _field_counts(old_value), _field_counts(new_value)
    if any(old_counts) and not any(new_counts):
        return "only blanks are left"
    for before_count, after_count in zip(old_counts, new_counts, strict=True):
        if after_count < before_count * LEFT_RATIO_MIN:
            return f"{before_count - after_count} of {before_count} fields were removed"
    return None


def _loses_nothing(before: Json, after: Json) -> bool:
    """Whether no member has fewer fields than before: a fast check that settles most saves."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return False
    for key, value in before.items():
        now = after.get(key)
        if now != value and _fields_in(now) < _fields_in(value):
            return False
    return True


def _field_counts(document: Json) -> tuple[int, int]:
    """Return how many fields are not empty at the top level, and how many at any depth."""
    if not isinstance(document, (dict, list)):
        return _is_filled(document), _is_filled(document)
    counts = list(map(_fields_in, document.values() if isinstance(document, dict) else document))
    return sum(map(bool, counts)), sum(counts)


def _fields_in(value: Json) -> int:
    """Count the fields in one member; a plain value, or a list's plain values together, is one."""
    if isinstance(value, dict):
        return sum(map(_fields_in, value.values()))
    if isinstance(value, list):
        plain = any(_is_filled(item) for item in value if not isinstance(item, (dict, list)))
        return plain + sum(_fields_in(item) for item in value if isinstance(item, (dict, list)))
    return _is_filled(value)


def _is_filled(value: Json) -> bool:
    return value is not None and value != ""
