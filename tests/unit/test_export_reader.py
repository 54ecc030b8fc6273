"""Test the reader of exports: piece by piece it accepts and refuses what the whole is."""

import gc
import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seline.domain.document import Json
from seline.domain.export_reader import read_export
from seline.domain.json_codec import NotJson, decode_strict
from seline.domain.readable_export import parse_export
from seline.errors import ImportRefused
from tests.collector import counted_collections

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["a.json", "b.json", "user_profile.json", "metadata.json"])
exports = st.fixed_dictionaries(
    {"exported_at": st.just("2025-01-06T14:30:22Z"), "files": st.dictionaries(names, values)},
    optional={"unrecoverable": st.lists(names)},
)
wrapped = exports | exports.map(lambda export: {"success": True, "data": export})


def pieces_of(data: bytes, size: int) -> Iterator[bytes]:
    yield from (data[start : start + size] for start in range(0, len(data), size))


def read(data: bytes, *, size: int = 7, length_max: int = 1 << 20) -> dict[str, Json]:
    """Return the documents of an export that comes in pieces of `size` bytes."""
    documents: dict[str, Json] = {}
    rest = read_export(
        pieces_of(data, size), documents.__setitem__, value_length_max=length_max, depth_max=200
    )
    named = parse_export(rest)
    return {name: value for name, value in documents.items() if name in named}


@example({"files": {"a.json": 0.0, "b.json": -1e-9}}, 1, None, False)
@given(wrapped, st.integers(1, 50), st.sampled_from([None, 0, 2]), st.booleans())
def test_an_export_in_pieces_has_the_documents_of_the_whole(
    export: dict[str, Any], size: int, indent: int | None, ascii: bool
) -> None:
    data = json.dumps(export, indent=indent, ensure_ascii=ascii).encode()

    assert read(data, size=size) == parse_export(decode_strict(data))


@pytest.mark.parametrize("value", ["[" * 201 + "]" * 201, "[" * 9999 + "]" * 9999, '"\\ud800"'])
def test_what_no_document_may_be_is_refused_with_the_documents_name(value: str) -> None:
    data = f'{{"files": {{"a.json": 1, "b.json": {value}, "c.json": 2}}}}'.encode()

    with pytest.raises(ImportRefused, match=r"^\$\.files\['b\.json'\]: ") as refused:
        read(data)

    assert refused.value.details == {"document": "b.json"}
    assert refused.value.hint


@pytest.mark.parametrize("end", [b"}}", b""], ids=["whole", "cut off"])
def test_no_garbage_collection_stops_the_threads_while_a_large_document_is_parsed(
    end: bytes,
) -> None:
    data = b'{"files": {"a.json": ' + json.dumps([[n] for n in range(20_000)]).encode() + end
    with counted_collections() as collections, nullcontext() if end else pytest.raises(NotJson):
        read_export([data], lambda *_: None, value_length_max=len(data), depth_max=200)

    assert len(collections) <= 4
    assert gc.isenabled()


FLAWS = {
    "cut off in a name": b'{"files": {"a.js',
    "cut off in a value": b'{"files": {"a.json": [1, 2',
    "cut off after a value": b'{"files": {"a.json": 1',
    "nothing": b"  ",
    "a missing comma": b'{"files": {\n"a.json": 1\n"b.json": 2}}',
    "a missing colon": b'{"files" {}}',
    "a key without quotes": b"{files: {}}",
    "text after the end": b'{"files": {}}\n x',
    "a duplicate document": b'{"files": {"a.json": 1, "a.json": 2}}',
    "a duplicate key in a document": b'{"files": {"a.json": {\n"k": 1,\n"k": 2}}}',
    "not a number": b'{"files": {"a.json": NaN}}',
    "a lone surrogate": b'{"files": {"a.json": "\\ud800"}}',
    "not UTF-8": b'{"files": {"a.json": "\xff"}}',
    "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf{"files": {}}',
    "UTF-16 that is cut off": '{"files": {}}'.encode("utf-16")[:-1],
    "a number that is too large": b'{"files": {"a.json": 1e999}}',
    "a trailing comma": b'{"files": {"a.json": [1,]}}',
    "a wrong word": b'{"files": {"a.json": nul}}',
}


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_what_is_no_json_is_refused(flaw: str, size: int) -> None:
    with pytest.raises(NotJson) as whole:
        decode_strict(FLAWS[flaw])
    with pytest.raises(ImportRefused if whole.value.is_json else NotJson):
        read(FLAWS[flaw], size=size)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_export_may_have_a_byte_order_mark(encoding: str, size: int) -> None:
    data = '{"files": {"a.json": ["日", 1]}}'.encode(encoding)

    assert read(data, size=size) == read('{"files": {"a.json": ["日", 1]}}'.encode(), size=1000)


@pytest.mark.parametrize(
    "flaw",
    ["a missing comma", "a duplicate key in a document", "a wrong word", "cut off in a value"],
)
def test_a_flaw_has_its_place_in_the_whole_text(flaw: str) -> None:
    with pytest.raises(NotJson) as whole:
        decode_strict(FLAWS[flaw])
    with pytest.raises(NotJson) as pieces:
        read(FLAWS[flaw], size=3)

    assert (pieces.value.line, pieces.value.column) == (whole.value.line, whole.value.column)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"files": []}',
        '{"data": {"files": {}}, "files": {}}',
        '{"success": false, "data": {"files": {}}}',
        '{"files": {}, "more": 1}',
        '{"files": {"a": 1, "../b.json": 2}}',
        '{"data": 3}',
    ],
)
def test_what_is_no_export_is_refused_with_the_same_words(text: str) -> None:
    with pytest.raises(ImportRefused) as whole:
        parse_export(decode_strict(text.encode()))
    with pytest.raises(ImportRefused) as pieces:
        read(text.encode())

    assert pieces.value.message == whole.value.message


def test_a_value_beyond_the_limit_is_refused_before_it_is_read_whole() -> None:
    taken: list[int] = []

    def endless() -> Iterator[bytes]:
        yield b'{"files": {\n"a.json": "'
        for number in range(1000):
            taken.append(number)
            yield b"x" * 100

    with pytest.raises(ImportRefused, match="line 2 has more than 500 characters") as refused:
        read_export(endless(), lambda _name, _value: None, value_length_max=500, depth_max=200)
    assert refused.value.details == {"document": "a.json"}
    assert len(taken) < 20


def test_a_document_is_given_before_the_next_one_is_read() -> None:
    seen: list[str] = []

    def pieces() -> Iterator[bytes]:
        yield b'{"files": {"a.json": [1], '
        assert seen == ["a.json"]
        yield b'"b.json": [2]}}'

    read_export(
        pieces(), lambda name, _value: seen.append(name), value_length_max=100, depth_max=200
    )
    assert seen == ["a.json", "b.json"]
