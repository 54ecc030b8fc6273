"""Detect a save that removes most of a document, so that the content before it is pinned (V11)."""

import re
from itertools import compress
from typing import Final

import msgspec

from seline import collector
from seline.domain.document import Json
from seline.domain.json_codec import NotJson, decode
from seline.domain.shared_ends import shared_ends

GUARDED_BYTES_MIN: Final = 512
LEFT_RATIO_MIN: Final = 0.5
_BETWEEN: Final = b" \t\r\n,"
_DEEP: Final = 1 << 10
_PLAIN: Final = re.compile(rb"[\w .+\-\x80-\xff]*")
"""What has no delimiter of JSON in it, no quote and no escape."""
_PARTS: Final = msgspec.json.Decoder()


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
    prefix, suffix = shared_ends(before, after)
    if _is_within_a_value(before, after, prefix, suffix):
        return None
    with collector.paused():
        return _why_blank(before, after, prefix, suffix)


def _why_blank(before: bytes, after: bytes, prefix: int, suffix: int) -> str | None:
    """Decode and count what differs, or everything; return the reason if most was removed."""
    if _changed_parts_lose_nothing(before, after, prefix, suffix):
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


def _changed_parts_lose_nothing(before: bytes, after: bytes, prefix: int, suffix: int) -> bool:
    """Whether the members or items that differ have as many fields as before, or more.

    Only they are decoded: what is equal around them has as many fields in both.
    """
    parts = _changed_parts(before, after, prefix, suffix)
    for wrapped in (b"[%b]", b"{%b}") if parts else ():
        try:
            old, new = (_PARTS.decode(wrapped % part) for part in parts or ())
        except msgspec.DecodeError:
            continue
        return all(now >= then for then, now in zip(_tally(old), _tally(new), strict=True))
    return False


def _is_within_a_value(before: bytes, after: bytes, prefix: int, suffix: int) -> bool:
    """Whether all that differs is a part of one value or key, which is not empty afterwards."""
    old, new = before[prefix : len(before) - suffix], after[prefix : len(after) - suffix]
    is_plain = _PLAIN.fullmatch(old) and _PLAIN.fullmatch(new)
    return bool(is_plain and new.strip() and new != b"null")


def _changed_parts(
    before: bytes, after: bytes, prefix: int, suffix: int
) -> tuple[bytes, bytes] | None:
    """Return the lines that differ, with the rest of the members or items that they belong to.

    No text in quotes has the end of a line in it. So what is between lines that both texts have,
    and can be decoded as members or as items, is part of one object or one list in both. The
    indent only helps to find it. None: that is the whole text.
    """
    start = before.rfind(b"\n", 0, prefix) + 1
    end = before.find(b"\n", len(before) - suffix) if suffix else -1
    if not before[:start].strip() or end < 0:
        return None
    rest = len(before) - end
    parts = before[start:end], after[start : len(after) - rest]
    indent = min(map(_indent, parts))
    if any(re.match(rb" {%d}[^ \]}]" % indent, part) is None for part in parts):
        start = _sibling_before(before, start, b"\n" + b" " * indent)
    closing = re.compile(rb"(?>(?:\n {%d}[^\n]*+)*)\n {%d}[\]}][^\n]*+" % (indent + 1, indent))
    if follows := closing.match(before, end):
        rest -= len(follows[0])
    parts = before[start : len(before) - rest], after[start : len(after) - rest]
    return (parts[0].strip(_BETWEEN), parts[1].strip(_BETWEEN)) if start else None


def _indent(part: bytes) -> int:
    lines = (line for line in part.split(b"\n") if line)
    return min((len(line) - len(line.lstrip(b" ")) for line in lines), default=_DEEP)


def _sibling_before(text: bytes, start: int, line: bytes) -> int:
    """Return where the line begins that opens what goes on at `start`; 0 if there is none."""
    at = start - 1
    while (at := text.rfind(line, 0, at)) >= 0:
        after = at + len(line)
        if text[after : after + 1] not in b" ]}":
            return at + 1
    return 0


def _tally(part: Json) -> tuple[int, ...]:
    """Return counts of members or items; if none of them falls, no count of `blank_save` does."""
    assert isinstance(part, (dict, list))
    values = list(part.values() if isinstance(part, dict) else part)
    counts = list(map(_fields_in, values))
    is_plain = [not isinstance(value, (dict, list)) for value in values]
    plain = sum(compress(counts, is_plain)) if isinstance(part, list) else 0
    return sum(map(bool, counts)) - plain, sum(counts) - plain, plain


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
