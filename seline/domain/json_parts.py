"""Take a JSON text apart one level at a time; nothing below that level is decoded.

A large text is decoded by one call that stops all threads for its time. So a large object or list
is divided with patterns, of which each match is short and lets other threads run.

A group that is repeated without going back is an atomic group, `(?>(?:...)*)`: Python before 3.11.5
matches a possessive repeat of a group wrongly.
"""

import re
from collections.abc import Iterator
from typing import Final, TypeAlias, cast

import msgspec

from seline.domain.json_codec import decode, encode_decoded

Parts: TypeAlias = dict[str, bytes] | list[bytes]

DECODED_BYTES_MAX: Final = 128 << 10
"""Up to this size one call divides a text."""
_SPACE: Final = b" \t\r\n"
_STRING: Final = rb'"[^"\\]*+(?>(?:\\.[^"\\]*+)*)"'
_FLAT: Final = rb'[\[{](?>(?:[^"\[\]{}]++|%b){0,999})[\]}]' % _STRING
"""An object or a list that has no other one in it, if it is short."""
_RUN: Final = rb'(?>(?:[^"\[\]{}]++|%b|%b){0,999})' % (_STRING, _FLAT)
_VALUE: Final = rb'(%b|[\[{]%b[\]}]|[^\s,"\[\]{}]++)' % (_STRING, _RUN)
_ITEM: Final = re.compile(rb"\s*+%b\s*+[,\]]" % _VALUE)
_MEMBER: Final = re.compile(rb"\s*+(%b)\s*+:\s*+%b\s*+[,}]" % (_STRING, _VALUE))
_KEY: Final = re.compile(rb"\s*+(%b)\s*+:\s*+" % _STRING)
_SKIPPED: Final = re.compile(_RUN)
_BLANK: Final = re.compile(rb"\s*+")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


def parts_of(text: bytes) -> Parts | None:
    """Return the members of an object or the items of a list as texts; None for a plain value.

    `text` is valid JSON without white space around it.
    """
    if text[:1] == b"{":
        if len(text) > DECODED_BYTES_MAX:
            return dict(_members(text))
        return {key: bytes(raw) for key, raw in _OBJECT.decode(text).items()}
    if text[:1] == b"[":
        if len(text) > DECODED_BYTES_MAX:
            return list(_items(text))
        return [bytes(raw) for raw in _LIST.decode(text)]
    return None


def stripped(text: bytes) -> bytes:
    """Return a JSON text without the white space around it."""
    return text.strip(_SPACE)


def without_space(text: bytes) -> bytes:
    """Return a JSON text without any white space: equal values usually have equal ones."""
    return text.translate(None, _SPACE)


def is_same_scalar(one: bytes, other: bytes) -> bool:
    """Whether two plain values are written as the same document: 1 and 1.0 are not."""
    return encode_decoded(decode(one)) == encode_decoded(decode(other))


def _members(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the members of an object."""
    at, end = 1, len(text)
    while at < end:
        for member in _MEMBER.finditer(text, at):
            if member.start() != at:
                break
            at = member.end()
            yield cast("str", decode(member[1])), member[2]
        key = _KEY.match(text, at)
        if key is None:
            return
        value_end = _end_of_container(text, key.end())
        yield cast("str", decode(key[1])), text[key.end() : value_end]
        at = _after(text, value_end)


def _items(text: bytes) -> Iterator[bytes]:
    """Yield the items of a list."""
    at, end = 1, len(text)
    while at < end:
        for item in _ITEM.finditer(text, at):
            if item.start() != at:
                break
            at = item.end()
            yield item[1]
        blank = _BLANK.match(text, at)
        start = blank.end() if blank else at
        if text[start : start + 1] not in (b"[", b"{"):
            return
        value_end = _end_of_container(text, start)
        yield text[start:value_end]
        at = _after(text, value_end)


def _end_of_container(text: bytes, at: int) -> int:
    """Return where the object or list ends that starts at `at`."""
    depth = 0
    while True:
        skipped = _SKIPPED.match(text, at) if depth else None
        at = skipped.end() if skipped else at
        mark = text[at : at + 1]
        if mark in (b"[", b"{"):
            depth, at = depth + 1, at + 1
        elif mark in (b"]", b"}"):
            depth, at = depth - 1, at + 1
            if depth == 0:
                return at
        elif skipped is None or not skipped[0]:
            raise ValueError("the text is not JSON")  # else this would never end


def _after(text: bytes, at: int) -> int:
    """Return where the next part starts, after a comma or the closing bracket."""
    blank = _BLANK.match(text, at)
    return (blank.end() if blank else at) + 1
