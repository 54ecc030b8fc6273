"""Change one value in a document's text, without decoding the rest of it.

Only for text that `encode` made: a line that begins with two spaces and a quote is a member of the
object at the top there, because no text in quotes has the end of a line in it. The result is what
`encode` would make of the changed value.
"""

from typing import Final, NamedTuple

import msgspec

from seline.domain.document import Json
from seline.domain.json_codec import encode_decoded

_END: Final = b"\n}\n"


class Splice(NamedTuple):
    """The bytes that replace those from `at` to `end`; `old` is what a member was, None if new."""

    at: int
    end: int
    new: bytes
    old: bytes | None = None


def with_member(text: bytes, key: str, value: Json) -> Splice | None:
    """Return how a member of an object is set; None if the text is no object."""
    name, new = _name(key), _indented(value, b"  ")
    at = text.find(name)
    if at >= 0:
        start, end = at + len(name), _end_of_member(text, at + len(name))
        return Splice(start, end, new, text[start:end])
    if text == b"{}\n":
        return Splice(1, 1, name + new + b"\n")
    if not text.startswith(b"{\n"):
        return None
    return Splice(len(text) - len(_END), len(text) - len(_END), b"," + name + new)


def with_item(text: bytes, key: str | None, item: Json) -> Splice | None:
    """Return how an item is appended to the list of a member, or to the document itself (None).

    None: there is no such list.
    """
    start, end, indent = 0, len(text) - 1, b""
    if key is not None:
        name = _name(key)
        start, indent = text.find(name) + len(name), b"  "
        if start < len(name):
            return None
        end = _end_of_member(text, start)
    new = _indented(item, indent + b"  ")
    if text[start:end] == b"[]":
        return Splice(start + 1, start + 1, b"\n  %b%b\n%b" % (indent, new, indent))
    if not text.startswith(b"[", start):
        return None
    last = end - len(b"\n" + indent + b"]")
    return Splice(last, last, b",\n  %b%b" % (indent, new))


def _name(key: str) -> bytes:
    return b"\n  %b: " % msgspec.json.encode(key)


def _indented(value: Json, indent: bytes) -> bytes:
    return encode_decoded(value)[:-1].replace(b"\n", b"\n" + indent)


def _end_of_member(text: bytes, start: int) -> int:
    """Return where the value ends that starts there; a large one is usually the last member."""
    if text[start : start + 1] in b"[{" and text.rfind(b'\n  "') < start:
        return len(text) - len(_END)
    end = text.find(b',\n  "', start)
    return len(text) - len(_END) if end < 0 else end
