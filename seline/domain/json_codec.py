"""Encode and decode strict JSON: what JSON cannot represent exactly is refused with a reason.

The output is UTF-8 with a 2-space indent, unescaped non-ASCII text and a final newline. A decoded
number with more digits than a float has keeps its text (`ExactFloat`), so a field that is not
changed is written as it was. Every value is checked before msgspec encodes it, because msgspec
silently writes NaN as null, bytes as base64, sets as lists and integer keys as text. Every save
pays for this check, so it only returns yes or no. If it fails, `find_flaw` finds the path, the
reason and the fix.
"""

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from math import isfinite
from typing import Any, Final, NoReturn, cast

import msgspec

from seline.domain.document import Json
from seline.domain.exact_float import ExactFloat, parse_float
from seline.domain.json_flaws import Flaw, find_flaw
from seline.errors import NotSerializable

DEPTH_MAX: Final = 200
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
HINTS: Final[Mapping[str, str]] = {
    "empty file": "Delete the file, or put `{}` into it.",
    "only white space": "Delete the file, or put `{}` into it.",
    "only NUL bytes": "A crash left it so: take it from a backup, or leave it out.",
    "cut off": "It was not written completely: take it from a backup, or close what is open.",
    "starts with a byte order mark": "Save it as UTF-8 without a byte order mark.",
    "broken UTF-": "It was not written completely: take it from a backup, or save it as UTF-8.",
    "UTF-32LE": "Save it as UTF-8: `iconv -f UTF-32LE -t UTF-8`.",
    "UTF-32BE": "Save it as UTF-8: `iconv -f UTF-32BE -t UTF-8`.",
    "UTF-16LE": "Save it as UTF-8: `iconv -f UTF-16LE -t UTF-8`.",
    "UTF-16BE": "Save it as UTF-8: `iconv -f UTF-16BE -t UTF-8`.",
    "not UTF-8 and not Windows-1252": (
        "Find out its encoding (`file -i` names it), and save it as UTF-8 with an editor."
    ),
    "not UTF-8": (
        "Save it as UTF-8; if the text above reads right: `iconv -f WINDOWS-1252 -t UTF-8`."
    ),
    "an archive": "Unpack it, and use the .json file that is in it.",
    "duplicate key": "Keep the right one of the two.",
    "NaN": "Put null or a number in its place.",
    "Infinity": "Put null or a number in its place.",
    "-Infinity": "Put null or a number in its place.",
    "a comma before the closing bracket": "Remove that comma.",
    "something follows after the end": "Remove what follows, or put both into a list.",
}
"""The next step by the beginning of a reason."""
OTHER_HINT: Final = "Correct it at the place named, with any text editor."


def _encoded_number(value: object) -> msgspec.Raw:
    assert isinstance(value, ExactFloat)
    return msgspec.Raw(value.text.encode())


def _finite_float(text: str) -> float:
    number = parse_float(text)
    if not isfinite(number):
        raise msgspec.DecodeError(text)
    return number


_ENCODER = msgspec.json.Encoder(enc_hook=_encoded_number)
_DECODER = msgspec.json.Decoder(float_hook=_finite_float)


class NotJson(ValueError):
    """These bytes are not strict JSON. `line` and `column` count from 1, None if unknown.

    `is_json`: they are, and go beyond a limit.
    """

    def __init__(
        self,
        reason: str,
        line: int | None = None,
        column: int | None = None,
        *,
        is_json: bool = False,
    ) -> None:
        self.reason = reason
        self.is_json = is_json
        self.line = line
        self.column = column
        where = "" if line is None else f" (line {line}, column {column})"
        super().__init__(f"{reason}{where}")

    @property
    def hint(self) -> str:
        """The next step for the author of the bytes."""
        return hint_for(self.reason)


def encode(value: object, *, depth_max: int = DEPTH_MAX) -> bytes:
    """Return a value as a document's bytes.

    Raises NotSerializable with the path and the type of the value, and the fix as its hint. That
    includes a value that contains itself, or that another thread changes during the call.
    """
    try:
        if not _is_plain((value,), depth_max):
            return _encode_wide(value, depth_max)
        return encode_decoded(cast("Json", value))
    except (UnicodeEncodeError, RecursionError):
        _refuse(_flaw_in(value, depth_max) or _OUT_OF_STACK)
    except RuntimeError:
        _refuse(_CHANGING)


def encode_decoded(value: Json) -> bytes:
    """Return a value that `decode` returned as bytes, without the check that `encode` makes."""
    return msgspec.json.format(_ENCODER.encode(value), indent=2) + b"\n"


def decode(data: bytes) -> Json:
    """Return the value of bytes that are known to be strict JSON. Raises NotJson."""
    try:
        value: Json = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        decode_strict(data)
        raise NotJson(str(error)) from error
    return value


def decode_strict(data: bytes, *, depth_max: int = DEPTH_MAX) -> Json:
    """Return the value of bytes of unknown origin. Raises NotJson.

    Refuses what lenient decoders accept: duplicate keys, NaN and Infinity, numbers beyond a float,
    lone surrogates, a byte order mark (`decode_given` takes one), nesting beyond `depth_max`.
    """
    return _strict(data, depth_max)[0]


def _strict(data: bytes, depth_max: int) -> tuple[Json, bool]:
    """Return the value, and whether msgspec encodes it exactly."""
    text = _text(data)
    try:
        unique = partial(_unique, text)
        value = json.loads(
            text, object_pairs_hook=unique, parse_float=parse_float, parse_constant=_no_constant
        )
        if _is_plain((value,), depth_max) and _is_unicode(text, value):
            return cast("Json", value), True
    except json.JSONDecodeError as error:
        raise NotJson(_reason(error, text), error.lineno, error.colno) from error
    except RecursionError as error:
        raise NotJson(f"nested deeper than {depth_max} levels", is_json=True) from error
    except ValueError as error:
        if isinstance(error, NotJson):
            raise
        raise NotJson(_TOO_MANY_DIGITS, is_json=True) from error
    flaw = find_flaw(value, depth_max)
    if flaw is not None:
        raise NotJson(f"{flaw.what} at {flaw.where}", is_json=True)
    return cast("Json", value), False


def decode_given(data: bytes, *, depth_max: int = DEPTH_MAX) -> Json:
    """Return the value of a text that a person or a program gives. Raises NotJson.

    It is strict, and takes a byte order mark: `normalised`.
    """
    return decode_strict(normalised(data), depth_max=depth_max)


def encode_given(data: bytes, *, depth_max: int = DEPTH_MAX) -> bytes:
    """Return a text that a person or a program gives as a document's bytes. Raises NotJson.

    It is `encode` of what `decode_given` returns, with one check of the value instead of two.
    """
    value, is_plain = _strict(normalised(data), depth_max)
    return encode_decoded(value if is_plain else _with_wide_integers(value))


def normalised(data: bytes) -> bytes:
    """Return a text with a byte order mark as UTF-8 without one; any other bytes as they are."""
    encoding = encoding_of(data)
    if encoding == _WITH_MARK:
        return data[len(codecs.BOM_UTF8) :]
    try:
        return data if encoding == "utf-8" else data.decode(encoding).encode()
    except UnicodeError:
        return data


def encoding_of(head: bytes) -> str:
    """Return the encoding that the byte order mark of a text names; UTF-8 without one."""
    if not head.startswith(_ANY_MARK):
        return "utf-8"
    return next(encoding for mark, encoding in _MARKS.items() if head.startswith(mark))


def archive_kind(head: bytes) -> str:
    """Return `gzip`, `zstd`, `zip` or `tar` for the beginning of an archive, else an empty text."""
    if not head.startswith(_ANY_ARCHIVE):
        return "tar" if head.startswith(_TAR, _TAR_AT) else ""
    return next(kind for start, kind in _ARCHIVES.items() if head.startswith(start))


def hint_for(reason: str) -> str:
    """Return the next step for a reason that `why_not_json` returned."""
    hints = (hint for start, hint in HINTS.items() if reason.startswith(start))
    return next(hints, OTHER_HINT)


def why_not_json(data: bytes) -> str | None:
    """Return why bytes are not strict JSON, with line and column; None if they are."""
    try:
        decode_strict(data)
    except NotJson as error:
        return str(error)
    return None


# encoding


def _is_plain(items: Iterable[Any], depth_left: int) -> bool:
    """Whether msgspec encodes every item exactly. It raises for lone surrogates itself."""
    for item in items:
        kind = type(item)  # pyright: ignore[reportUnknownVariableType]
        if kind is str or kind is bool or item is None:
            continue
        if kind is int:
            if not _INT_MIN <= item <= _INT_MAX:
                return False
        elif kind is dict:
            if depth_left <= 0 or not _is_plain_object(item, depth_left):
                return False
        elif kind is list or kind is tuple:
            if depth_left <= 0 or not _is_plain(item, depth_left - 1):
                return False
        elif (kind is not float or not isfinite(item)) and kind is not ExactFloat:
            return False
    return True


def _is_plain_object(item: dict[Any, Any], depth_left: int) -> bool:
    for key in item:
        if type(key) is not str:
            return False
    return _is_plain(item.values(), depth_left - 1)


def _encode_wide(value: object, depth_max: int) -> bytes:
    """Encode a value with integers over 64 bits; msgspec does not guarantee to encode them."""
    flaw = find_flaw(value, depth_max)
    if flaw is not None:
        _refuse(flaw)
    return encode_decoded(_with_wide_integers(value))


def _with_wide_integers(value: Any) -> Any:
    """Return a value with its integers over 64 bits as the text that they are written as."""
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is dict:
        return {key: _with_wide_integers(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_with_wide_integers(item) for item in value]
    if kind is int and not _INT_MIN <= value <= _INT_MAX:
        return msgspec.Raw(str(value).encode())
    return value


def _flaw_in(value: object, depth_max: int) -> Flaw | None:
    try:
        return find_flaw(value, depth_max)
    except RuntimeError:
        return _CHANGING


def _refuse(flaw: Flaw) -> NoReturn:
    raise NotSerializable(
        f"{flaw.where}: {flaw.what}. Nothing was written.", hint=flaw.fix, path=flaw.where
    )


_OUT_OF_STACK: Final = Flaw(
    "$",
    "nested too deeply for the program's stack",
    "Save from a place that is itself less deep in calls, or flatten the value.",
)
_CHANGING: Final = Flaw(
    "$",
    "another thread changed the value while it was being written",
    "Save a copy that no other thread changes.",
)

# decoding

_WITH_MARK: Final = "utf-8-sig"
_MARKS: Final[Mapping[bytes, str]] = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: _WITH_MARK,
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ANY_MARK: Final = tuple(_MARKS)
MARK_BYTES_MAX: Final = 4
_WIDE: Final[Mapping[re.Pattern[bytes], str]] = {
    re.compile(rb"[^\0]\0\0\0"): "UTF-32LE",
    re.compile(rb"\0\0\0[^\0]"): "UTF-32BE",
    re.compile(rb"[^\0]\0"): "UTF-16LE",
    re.compile(rb"\0[^\0]"): "UTF-16BE",
}
"""How a text without a mark begins: the first character of JSON is ASCII."""
_ARCHIVES: Final[Mapping[bytes, str]] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_REASONS: Final[Mapping[str, str]] = {
    "Expecting value": "a value is missing",
    "Expecting ',' delimiter": "a comma or a closing bracket is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Expecting property name enclosed in double quotes": "a key in double quotes is missing",
    "Illegal trailing comma before end of object": "a comma before the closing bracket",
    "Illegal trailing comma before end of array": "a comma before the closing bracket",
    "Invalid control character at": "a line break or control character inside a text",
    "Invalid \\escape": "a backslash that escapes nothing",
    "Invalid \\uXXXX escape": "a \\u escape without four hex digits",
    "Extra data": "something follows after the end",
}
_TAR_AT, _TAR = 257, b"ustar"
_ANY_ARCHIVE: Final = tuple(_ARCHIVES)
_AROUND_BYTES: Final = 12
_TOO_MANY_DIGITS: Final = "an integer with more than 4300 digits"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_TOKEN = re.compile(r'(?P<string>"(?>(?:[^"\\]++|\\.)*)")(?P<is_key>\s*:)?|(?P<bracket>[{}])')


def _text(data: bytes) -> str:
    """Return the bytes as text. Raises NotJson if they are empty, binary or not UTF-8."""
    if not data.strip(b" \t\r\n"):
        raise NotJson("only white space" if data else "empty file")
    if why := _why_no_text(data):
        raise NotJson(why, 1, 1)
    nul = data.find(b"\0")
    if nul >= 0:
        raise NotJson(f"a NUL byte at byte {nul}" if data.strip(b"\0") else "only NUL bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise NotJson(_why_not_utf8(data, error.start), line, column) from error


def _why_no_text(data: bytes) -> str:
    """Return what the first bytes show: an archive, or another encoding; else an empty text."""
    encoding = encoding_of(data)
    if encoding != "utf-8":
        is_marked = encoding == _WITH_MARK or normalised(data) is not data
        return "starts with a byte order mark" if is_marked else f"broken {encoding.upper()}"
    if kind := archive_kind(data):
        return f"an archive ({kind})"
    if b"\0" not in data[:MARK_BYTES_MAX]:
        return ""
    wide = (name for start, name in _WIDE.items() if start.match(data) and _is_in(name, data))
    return next((f"{name}, not UTF-8" for name in wide), "")


def _is_in(encoding: str, data: bytes) -> bool:
    try:
        return "\0" not in data.decode(encoding)
    except UnicodeError:
        return False


def _why_not_utf8(data: bytes, at: int) -> str:
    """Return why bytes are not UTF-8, with how Windows-1252, the usual cause, reads them."""
    around = data[max(0, at - _AROUND_BYTES) : at + _AROUND_BYTES].replace(b"\n", b" ")
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return f"not UTF-8 and not Windows-1252 at byte {at}"
    return f"not UTF-8 at byte {at}; read as Windows-1252: {around.decode('cp1252')!r}"


def _unique(text: str, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Return an object of `text`. Raises NotJson if it has a key twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _duplicate_key(text)
    return value


def _no_constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is not a JSON number")


def _is_unicode(text: str, value: object) -> bool:
    """Whether no escape is a lone surrogate. Unescaped text cannot contain one."""
    if not _SURROGATE_ESCAPE.search(text):
        return True
    try:
        _ENCODER.encode(value)
    except UnicodeEncodeError:
        return False
    return True


def _reason(error: json.JSONDecodeError, text: str) -> str:
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        return "cut off: the text ends too early"
    if text[error.pos] in "}]" and text[: error.pos].rstrip().endswith(","):
        return "a comma before the closing bracket"  # Python 3.13 reports the comma
    return _REASONS.get(error.msg.removesuffix(": "), error.msg)


def _duplicate_key(text: str) -> NotJson:
    """Return the error for the first duplicate key of a text, with its line and column."""
    open_objects: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        if token["bracket"] == "{":
            open_objects.append(set())
        elif token["bracket"] == "}":
            open_objects.pop()
        elif token["is_key"]:
            key = json.loads(token["string"])
            if key in open_objects[-1]:
                line = text.count("\n", 0, token.start()) + 1
                column = token.start() - text.rfind("\n", 0, token.start())
                return NotJson(f"duplicate key {json.dumps(key, ensure_ascii=False)}", line, column)
            open_objects[-1].add(key)
    return NotJson("duplicate key")
