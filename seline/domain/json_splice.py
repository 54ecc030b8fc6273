"""Change one value in a document's text, without decoding the rest of it.

Only for text that `encode` made: a line that begins with two spaces and a quote is a member of the
object at the top there, because no text in quotes has the end of a line in it. The result is what
`encode` would make of the changed value.
"""

from typing import Final, NamedTuple

import msgspec

from seline.domain.document import Json, Origin
from seline.domain.json_codec import encode_decoded

_END: Final = b"\n}\n"
_NEXT: Final = b',\n  "'


class Splice(NamedTuple):
    """The bytes that replace those from `at` to `end`; `old` is what a member was, None if new.

    They are all or a part of the value that begins at `value_at` of the result, or a whole new
    member with that value.
    """

    at: int
    end: int
    new: bytes
    value_at: int
    old: bytes | None = None


def with_member(text: bytes, key: str, value: Json, origin: Origin | None = None) -> Splice | None:
    """Return how a member of an object is set; None if the text is no object.

    `origin` is that of the text, if it is known: a member that was changed last is found at once.
    """
    name, new = _name(key), _indented(value, b"  ")
    place = _place_of(text, name, origin)
    if place is not None:
        start, end = place
        return Splice(start, end, new, start, text[start:end])
    if text == b"{}\n":
        return Splice(1, 1, name + new + b"\n", 1 + len(name))
    if not text.startswith(b"{\n"):
        return None
    at = len(text) - len(_END)
    return Splice(at, at, b"," + name + new, at + len(b",") + len(name))


def with_item(
    text: bytes, key: str | None, item: Json, origin: Origin | None = None
) -> Splice | None:
    """Return how an item is appended to the list of a member, or to the document itself (None).

    None: there is no such list. `origin` as for `with_member`.
    """
    start, end, indent = 0, len(text) - 1, b""
    if key is not None:
        place = _place_of(text, _name(key), origin)
        if place is None:
            return None
        (start, end), indent = place, b"  "
    new = _indented(item, indent + b"  ")
    if end - start == len(b"[]") and text.startswith(b"[]", start):
        at = start + len(b"[")
        return Splice(at, at, b"\n  %b%b\n%b" % (indent, new, indent), start)
    if not text.startswith(b"[", start):
        return None
    last = end - len(b"\n" + indent + b"]")
    return Splice(last, last, b",\n  %b%b" % (indent, new), start)


def _name(key: str) -> bytes:
    return b"\n  %b: " % msgspec.json.encode(key)


def _indented(value: Json, indent: bytes) -> bytes:
    return encode_decoded(value)[:-1].replace(b"\n", b"\n" + indent)


def _place_of(text: bytes, name: bytes, origin: Origin | None) -> tuple[int, int] | None:
    """Return where a member's value begins and ends, None if there is no such member."""
    if origin is not None and text.endswith(name, 0, origin.value_at):
        start, end = origin.value_at, text.find(_NEXT, origin.until)
    else:
        at = text.find(name)
        if at < 0:
            return None
        start = at + len(name)
        end = -1 if _is_last(text, start) else text.find(_NEXT, start)
    return start, len(text) - len(_END) if end < 0 else end


def _is_last(text: bytes, start: int) -> bool:
    """Whether a list or an object that starts there is the last member; a large one usually is."""
    return text[start : start + 1] in b"[{" and text.rfind(b'\n  "') < start
