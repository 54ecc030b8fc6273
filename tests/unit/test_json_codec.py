"""Strict JSON: encoded values decode equal; what JSON cannot represent is refused."""

import collections
import contextlib
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import json
import pickle
import sys
import types
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seline.domain.document import Json
from seline.domain.json_codec import (
    DEPTH_MAX,
    NotJson,
    decode,
    decode_given,
    decode_strict,
    encode,
    encode_decoded,
    encode_given,
    normalised,
    why_not_json,
)
from seline.domain.json_flaws import path_text
from seline.errors import NotSerializable
from tests.unit.values import json_values


class Colour(enum.Enum):
    RED = "red"


class Mood(enum.StrEnum):
    CALM = "calm"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int = 1


class Pair(NamedTuple):
    left: int
    right: int


class Name(str):
    __slots__ = ()


async def a_coroutine() -> None:
    """A coroutine that a bot forgets to await."""


def nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


def refused(value: object, **options: Any) -> NotSerializable:
    with pytest.raises(NotSerializable) as caught:
        encode(value, **options)
    return caught.value


# encoding


@given(json_values)
def test_encoded_values_decode_equal_with_all_three_decoders(value: Json) -> None:
    data = encode(value)

    assert decode(data) == value
    assert decode_strict(data) == value
    assert json.loads(data) == value
    assert why_not_json(data) is None


@given(json_values)
def test_equal_values_encode_to_equal_bytes(value: Json) -> None:
    assert encode(value) == encode(value)
    assert encode(decode(encode(value))) == encode(value)


@given(json_values)
def test_types_round_trip_so_that_true_is_not_1(value: Json) -> None:
    assert repr(decode(encode(value))) == repr(value)


def test_a_document_is_indented_readable_and_ends_with_a_newline() -> None:
    value: Json = {"ville": "Orléans", "visites": [1, {}], "rien": []}

    assert encode(value).decode() == (
        '{\n  "ville": "Orléans",\n  "visites": [\n    1,\n    {}\n  ],\n  "rien": []\n}\n'
    )


def test_tuples_are_decoded_as_lists() -> None:
    assert decode(encode({"at": (1, (2, 3))})) == {"at": [1, [2, 3]]}


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**4299])
def test_integers_of_any_size_are_exact_and_in_the_same_layout(number: int) -> None:
    value: Json = {"n": number, "deep": [{}, []]}

    data = encode(value)

    assert decode(data) == value
    assert data == f'{{\n  "n": {number},\n  "deep": [\n    {{}},\n    []\n  ]\n}}\n'.encode()


@pytest.mark.parametrize(
    "text", [f"[{2**64}]", f'{{"n": {-(10**4299)}}}', "[1.10, 0.1234567890123456789]", "[]", '"é"']
)
def test_a_given_text_is_encoded_as_its_decoded_value(text: str) -> None:
    assert encode_given(text.encode("utf-8-sig")) == encode(decode_given(text.encode()))
    with pytest.raises(NotJson):
        encode_given(text.encode() + b"]")


@given(json_values)
def test_a_given_value_of_any_shape_is_encoded_as_it_is(value: Json) -> None:
    assert encode_given(json.dumps(value).encode()) == encode(value)


FIXES: list[tuple[object, str, str]] = [
    (dt.datetime.now(dt.UTC), "datetime", ".isoformat()"),
    (dt.date(2025, 1, 6), "date", ".isoformat()"),
    (dt.time(1), "time", ".isoformat()"),
    (dt.timedelta(1), "timedelta", ".total_seconds()"),
    (decimal.Decimal(1), "Decimal", "str(value)"),
    (uuid.UUID(int=1), "UUID", "str(value)"),
    (Colour.RED, "Colour", ".value"),
    (Mood.CALM, "Mood", ".value"),
    (Level.LOW, "Level", ".value"),
    ({1}, "set", "sorted list"),
    (frozenset({1}), "frozenset", "sorted list"),
    (b"x", "bytes", ".decode()"),
    (bytearray(b"x"), "bytearray", ".decode()"),
    (float("nan"), "finite", "None"),
    (float("inf"), "finite", "None"),
    (float("-inf"), "finite", "None"),
    (Point(), "Point", "dataclasses.asdict"),
    (Pair(1, 2), "Pair", "_asdict()"),
    (Name("x"), "Name", "str(value)"),
    (collections.defaultdict(int), "defaultdict", "dict(value)"),
    (collections.OrderedDict(a=1), "OrderedDict", "dict(value)"),
    (collections.deque([1]), "deque", "list(value)"),
    ({}.keys(), "dict_keys", "list(value)"),
    (1j, "complex", "value.real"),
    (len, "builtin_function", "Call it"),
    (object(), "object", "Convert it"),
    ("\ud800", "lone surrogate", "encode("),
    (10**5000, "4300 digits", "hex(value)"),
]


@pytest.mark.parametrize(("value", "type_name", "fix"), FIXES, ids=[row[1] for row in FIXES])
def test_a_value_json_cannot_represent_is_refused_with_path_type_and_fix(
    value: object, type_name: str, fix: str
) -> None:
    error = refused({"visits": [0, 1, 2, {"at": value}]})

    assert error.details["path"] == "$.visits[3].at"
    assert error.message.startswith("$.visits[3].at: ")
    assert type_name in error.message
    assert fix in error.hint


def test_a_forgotten_await_is_reported() -> None:
    coroutine = a_coroutine()

    error = refused({"profile": coroutine})

    coroutine.close()
    assert "await" in error.hint


def test_a_numpy_float_is_refused_though_it_derives_from_float() -> None:
    numpy_float = type("float64", (type("generic", (), {"__module__": "numpy"}), float), {})

    assert refused([numpy_float(1.0)]).hint == "Use .item()."


def test_a_key_that_is_not_text_is_refused_with_the_fix() -> None:
    error = refused({"coins": {123456: 5}})

    assert error.details["path"] == "$.coins"
    assert error.hint == "JSON keys are text: use str(123456)."


@pytest.mark.parametrize("key", [None, True, 1.5, (1, 2), Name("x"), Mood.CALM, "\udc00"])
def test_every_key_that_is_not_plain_text_is_refused(key: object) -> None:
    assert refused({key: 1}).details["path"] == "$"


def test_the_first_flaw_in_encoding_order_is_reported() -> None:
    assert refused({"a": {"b": [1, b""]}, "c": {1}}).details["path"] == "$.a.b[1]"


def test_keys_that_are_not_identifiers_are_quoted_in_paths() -> None:
    assert path_text(("a b", "é", 0, "", 'say "x"')) == '$["a b"].é[0][""]["say \\"x\\""]'


def test_nesting_is_allowed_exactly_up_to_the_limit() -> None:
    assert decode_strict(encode(nested(DEPTH_MAX))) == nested(DEPTH_MAX)
    assert "deeper than 200" in refused(nested(DEPTH_MAX + 1)).message
    assert "deeper than 3" in refused({"a": {"b": {"c": {}}}}, depth_max=3).message


@pytest.mark.parametrize("wide", [1, 2, 50])
def test_a_value_that_contains_itself_is_nested_too_deeply(wide: int) -> None:
    a_list: list[object] = []
    a_list.extend([a_list] * wide)
    a_dict: dict[str, object] = {}
    a_dict.update({f"k{n}": a_dict for n in range(wide)})

    assert "contains itself" in refused(a_list).message
    assert refused(a_dict).message.startswith("$.k0.k0.k0.k0.k0…")


def test_a_depth_limit_above_the_stack_raises_no_recursion_error() -> None:
    deep = nested(sys.getrecursionlimit() * 3)

    assert "too deeply" in refused(deep, depth_max=10**6).message


@pytest.mark.parametrize("module", ["json_codec.py", "json_flaws.py"])
def test_a_value_that_another_thread_changes_is_refused(module: str) -> None:
    value: dict[str, Any] = {"a": 1, "b": "\ud800" if module == "json_flaws.py" else 2}

    def other_thread(frame: types.FrameType, _event: str, _arg: object) -> Any:
        """Change the value between any two lines, as another thread can."""
        if frame.f_code.co_filename.endswith(module):
            value[f"n{len(value)}"] = 1
        return other_thread

    before = sys.gettrace()
    sys.settrace(other_thread)
    try:
        with pytest.raises(NotSerializable) as refused:
            encode(value)
    finally:
        sys.settrace(before)
    assert "changed" in refused.value.message
    assert "copy" in refused.value.hint


def test_a_refused_value_is_not_changed() -> None:
    value = {"a": [1, {2}], "n": 2**80}

    refused(value)

    assert value == {"a": [1, {2}], "n": 2**80}


# decoding

BROKEN: list[tuple[bytes, str]] = [
    (b"", "empty file"),
    (b" \r\n\t", "only white space"),
    (b"\0\0\0", "only NUL bytes"),
    (b'{"a": 1}\0\0', "a NUL byte at byte 8"),
    (b"\xef\xbb\xbf{}", "starts with a byte order mark (line 1, column 1)"),
    ("{}".encode("utf-16"), "starts with a byte order mark (line 1, column 1)"),
    ("{}".encode("utf-16")[:-1], "broken UTF-16 (line 1, column 1)"),
    ("{}".encode("utf-32")[:-1], "broken UTF-32 (line 1, column 1)"),
    *(
        (text.encode(encoding), f"{encoding}, not UTF-8 (line 1, column 1)")
        for encoding in ("UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE")
        for text in ("1", '"日"', '  {"é": 1}')
    ),
    (b"{" + bytes(40), "a NUL byte at byte 1"),
    (
        '{\n  "a": "é"}'.encode("latin-1"),
        """not UTF-8 at byte 10; read as Windows-1252: '{   "a": "é"}' (line 2, column 9)""",
    ),
    (
        b'"\xed\xa0\x80"',
        """not UTF-8 at byte 1; read as Windows-1252: '"í\\xa0€"' (line 1, column 2)""",
    ),
    (b'"\x81"', "not UTF-8 and not Windows-1252 at byte 1 (line 1, column 2)"),
    (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'duplicate key "c" (line 1, column 24)'),
    (b'{"a": 1,\n "\\u0061": 2}', 'duplicate key "a" (line 2, column 2)'),
    (b"[NaN]", "NaN is not a JSON number"),
    (b"[-Infinity]", "-Infinity is not a JSON number"),
    (b'{"a": [1e999]}', "not a finite number at $.a[0]"),
    (b'{"a": "\\ud800"}', "a text with a lone surrogate at $.a"),
    (b'{"\\udc00": 1}', "the key '\\udc00' holds a lone surrogate at $"),
    (b"1" * 5000, "an integer with more than 4300 digits"),
    (b"{} x", "something follows after the end (line 1, column 4)"),
    (b'{"a": [1,', "cut off: the text ends too early (line 1, column 10)"),
    (b'{"a": "un', "cut off: the text ends too early (line 1, column 7)"),
    (b'{"a" 1}', "a colon is missing (line 1, column 6)"),
    (b'{"a": 1 "b": 2}', "a comma or a closing bracket is missing (line 1, column 9)"),
    (b"{a: 1}", "a key in double quotes is missing (line 1, column 2)"),
    (b'["a\nb"]', "a line break or control character inside a text (line 1, column 4)"),
    (b'["\\x"]', "a backslash that escapes nothing (line 1, column 3)"),
    (b"[,]", "a value is missing (line 1, column 2)"),
    (b"[" * 100_000, "nested deeper than 200 levels"),
    (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 200 levels"),
]


@pytest.mark.parametrize(("data", "reason"), BROKEN, ids=[row[1][:40] for row in BROKEN])
def test_bytes_that_are_not_strict_json_are_refused_with_the_reason(
    data: bytes, reason: str
) -> None:
    with pytest.raises(NotJson) as caught:
        decode_strict(data)

    assert str(caught.value) == reason == why_not_json(data)
    assert (caught.value.line is None) == ("(line" not in reason)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_text_that_is_given_may_have_a_byte_order_mark(encoding: str) -> None:
    text = '{"city": "Orléans 日"}'

    assert normalised(text.encode(encoding)) == text.encode()
    assert decode_given(text.encode(encoding)) == {"city": "Orléans 日"}
    with pytest.raises(NotJson, match="starts with a byte order mark"):
        decode_strict(text.encode(encoding))


def test_nesting_over_the_limit_is_refused_though_it_parses() -> None:
    assert decode_strict(b"[" * 200 + b"]" * 200) == decode(b"[" * 200 + b"]" * 200)
    assert (why_not_json(b"[" * 201 + b"]" * 201) or "").startswith("nested deeper than 200")


def test_an_escaped_surrogate_pair_is_one_character() -> None:
    assert decode_strict(b'"\\ud83d\\ude00"') == "😀"
    assert decode_strict(b'"\\\\ud800"') == "\\ud800"


def test_brackets_and_colons_inside_texts_hide_no_duplicate_key() -> None:
    data = b'[{"x": "}:{", "y\\"": ":"}, {"k": "k", "q": [{"k": 1}], "k": 2}]'

    column = data.rindex(b'"k"') + 1
    assert why_not_json(data) == f'duplicate key "k" (line 1, column {column})'


@pytest.mark.parametrize(
    "data", [row[0] for row in BROKEN if "duplicate" not in row[1]], ids=lambda data: repr(data[:9])
)
def test_the_fast_decoder_raises_not_json_for_the_same_bytes(data: bytes) -> None:
    with pytest.raises(NotJson) as caught:
        decode(data)

    assert caught.value.reason


@given(st.binary(max_size=40))
def test_any_bytes_decode_or_raise_not_json(data: bytes) -> None:
    try:
        value = decode_strict(data)
    except NotJson:
        assert why_not_json(data)
    else:
        assert decode(data) == value


@given(json_values, st.integers(0, 400), st.integers(0, 7))
def test_a_flipped_bit_raises_nothing_but_not_json(value: Json, at: int, bit: int) -> None:
    data = bytearray(encode(value))
    data[at % len(data)] ^= 1 << bit

    with contextlib.suppress(NotJson):
        decode_strict(bytes(data))


@given(json_values)
def test_json_truncated_anywhere_is_refused(value: Json) -> None:
    data = encode([value]).rstrip()

    assert all(why_not_json(data[:end]) is not None for end in range(len(data)))


# numbers that a float cannot hold


@pytest.mark.parametrize(
    "number",
    [
        "0.123456789012345678",
        "-1234567890.12345678901",
        "3.14159265358979323846264338327950288",
        "9007199254740993.0",
        "0.10000000000000001",
        "1e-400",
        "3e-324",
        "1.00000000000000000001E+2",
        "1e-99999999999999999999",
        "0." + "1" * 5000,
    ],
)
def test_a_number_that_is_not_changed_keeps_its_text(number: str) -> None:
    data = f'{{\n  "wei": {number},\n  "wide": {10**40},\n  "n": 1\n}}\n'.encode()
    for value in (decode(data), decode_strict(data)):
        assert isinstance(value, dict)
        assert value["wei"] == float(number)
        for same in (value, copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert encode(same) == data
    narrow = json.dumps({"wei": 0, "n": [1]}, indent=2).replace("0", number, 1).encode() + b"\n"
    assert encode(decode_strict(narrow)) == encode_decoded(decode(narrow)) == narrow


@pytest.mark.parametrize("number", ["0.1", "1.50", "1E5", "-0.0", "0.30000000000000004", "5e-324"])
def test_a_number_that_a_float_holds_is_a_plain_float(number: str) -> None:
    for value in (decode(number.encode()), decode_strict(number.encode())):
        assert type(value) is float
        assert repr(value) == repr(float(number))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_was_encoded_is_decoded_as_a_plain_float(number: float) -> None:
    assert type(decode(encode(number))) is float
