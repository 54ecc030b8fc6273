"""Read a readable export from pieces of text: one document is in memory at a time.

`read_export` accepts what `parse_export` accepts, and gives each document to the caller as soon as
its end is found. `decode_strict` checks the bytes of each, so the rules are the same.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final

from seline import collector
from seline.domain.document import Json
from seline.domain.json_codec import MARK_BYTES_MAX, NotJson, decode_strict, encoding_of
from seline.errors import ImportRefused

_SPACE: Final = re.compile(r"[ \t\r\n]*")


def _nothing(_part: object) -> None:
    """Build nothing."""


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_nothing, parse_int=_nothing, parse_float=_nothing
)
"""Finds where a value ends. Its hooks build nothing, and let other threads run."""
LITERAL_MAX: Final = 16
"""More characters than a literal or an escape has."""
_DELIMITERS: Final = frozenset(" \t\r\n,:]}")
_CUT: Final = "cut off: the text ends too early"


def read_export(
    pieces: Iterable[bytes],
    take: Callable[[str, Json], None],
    *,
    value_length_max: int,
    depth_max: int,
) -> Json:
    """Call `take` with the name and value of each document; return the rest of the export.

    In what is returned each document's value is None. `value_length_max` bounds the characters
    of one value. Raises NotJson with the place in the whole text, ImportRefused with the name of a
    document that is longer, or is JSON beyond another limit.
    """
    reader = _Reader(pieces, value_length_max, depth_max)
    rest = reader.export(take)
    reader.end()
    return rest


def _is_cut(error: json.JSONDecodeError) -> bool:
    """Whether more text may make it valid: a string, or what is at the end, is incomplete."""
    return error.msg.startswith("Unterminated") or error.pos >= len(error.doc) - LITERAL_MAX


class _Reader:
    """A window of the text, from the next character that is not parsed yet."""

    def __init__(self, pieces: Iterable[bytes], value_length_max: int, depth_max: int) -> None:
        self._pieces = iter(pieces)
        head = b""
        while len(head) < MARK_BYTES_MAX and (piece := next(self._pieces, None)) is not None:
            head += piece
        self._pieces = chain((head,), self._pieces)
        self._encoding = encoding_of(head)
        self._decoder = codecs.getincrementaldecoder(self._encoding)()
        self._value_length_max = value_length_max
        self._depth_max = depth_max
        self._text = ""
        self._at = 0
        self._line, self._column = 1, 1
        self._is_whole = False
        """Whether all pieces are in the window."""

    def export(self, take: Callable[[str, Json], None], *, is_inner: bool = False) -> Json:
        """Parse an object that has `files`, or has it in its `data`."""
        if self._peek() != "{":
            return self._value()
        found: dict[str, Json] = {}
        for key in self._keys(found):
            if key == "files":
                found[key] = self._documents(take)
            elif key == "data" and not is_inner:
                found[key] = self.export(take, is_inner=True)
            else:
                found[key] = self._value()
        return found

    def end(self) -> None:
        """Raise NotJson unless only white space follows."""
        if self._peek():
            raise self._flaw("something follows after the end")

    def _documents(self, take: Callable[[str, Json], None]) -> Json:
        if self._peek() != "{":
            return self._value()
        found: dict[str, Json] = {}
        for name in self._keys(found):
            try:
                with collector.paused():
                    take(name, self._value())
            except NotJson as error:
                if not error.is_json:
                    raise
                raise ImportRefused(
                    f"$.files[{name!r}]: {error.reason}. Nothing was changed.",
                    hint=error.hint,
                    document=name,
                ) from error
            except ImportRefused as refused:
                refused.details.setdefault("document", name)
                raise
            found[name] = None
        return found

    def _keys(self, found: dict[str, Json]) -> Iterator[str]:
        """Yield each key of an object; the caller parses the value before the next one."""
        self._expect("{", "an object is missing")
        if self._peek() == "}":
            self._advance(1)
            return
        while True:
            if self._peek() != '"':
                raise self._flaw("a key in double quotes is missing")
            key = str(self._value())
            if key in found:
                raise self._flaw(f"duplicate key {json.dumps(key, ensure_ascii=False)}")
            self._expect(":", "a colon is missing")
            yield key
            if self._peek() == "}":
                self._advance(1)
                return
            self._expect(",", "a comma or a closing bracket is missing")

    def _value(self) -> Json:
        """Parse the next value strictly."""
        self._peek()
        end = self._end_of_value()
        try:
            value = decode_strict(self._text[self._at : end].encode(), depth_max=self._depth_max)
        except NotJson as error:
            raise self._placed(error) from error
        self._advance(end - self._at)
        return value

    def _end_of_value(self) -> int:
        """Return where the next value ends, with as many more pieces as that takes."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._is_whole or not _is_cut(error):
                    return len(self._text)  # the strict decoder raises the reason
            except (RecursionError, ValueError):
                return len(self._text)
            else:
                if self._is_whole or len(self._text) - end > LITERAL_MAX:
                    return end
                if self._text[end : end + 1] in _DELIMITERS:
                    return end  # else the next piece may have the rest of a number
            self._grow()

    def _grow(self) -> None:
        """Take pieces until the window has doubled, so that a long value is not parsed often."""
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > self._value_length_max:
            raise ImportRefused(
                f"A value at line {self._line} has more than {self._value_length_max} characters. "
                "Nothing was changed.",
                hint="Split the document into several.",
            )
        texts, wanted = [self._text], 2 * len(self._text)
        size = len(self._text)
        while size <= wanted and not self._is_whole:
            piece = next(self._pieces, None)
            self._is_whole = piece is None
            try:
                texts.append(self._decoder.decode(piece or b"", final=piece is None))
            except UnicodeDecodeError as error:
                wide = f"broken {self._encoding.upper()}"
                raise NotJson("not UTF-8" if "8" in self._encoding else wide) from error
            size += len(texts[-1])
        self._text = "".join(texts)

    def _peek(self) -> str:
        """Skip white space and return the next character, "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._advance(space.end() - self._at if space else 0)
            if self._at < len(self._text) or self._is_whole:
                return self._text[self._at : self._at + 1]
            self._grow()

    def _expect(self, character: str, reason: str) -> None:
        if self._peek() != character:
            raise self._flaw(reason)
        self._advance(1)

    def _advance(self, count: int) -> None:
        """Go on by some characters and count lines and columns."""
        end = self._at + count
        lines = self._text.count("\n", self._at, end)
        if lines:
            self._column = end - self._text.rindex("\n", self._at, end)
        else:
            self._column += count
        self._line += lines
        self._at = end

    def _flaw(self, reason: str) -> NotJson:
        ended = self._is_whole and self._at >= len(self._text)
        return NotJson(_CUT if ended else reason, self._line, self._column)

    def _placed(self, error: NotJson) -> NotJson:
        """Return an error in the next value with its place in the whole text."""
        line, column = error.line or 1, error.column or 1
        if line == 1:
            column += self._column - 1
        line += self._line - 1
        return NotJson(error.reason, line, column, is_json=error.is_json)
