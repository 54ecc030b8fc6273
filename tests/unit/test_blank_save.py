"""Which saves count as removing most of a document (V11)."""

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seline.domain import blank_save as module
from seline.domain.blank_save import GUARDED_BYTES_MIN, blank_save
from seline.domain.document import Json
from seline.domain.json_codec import encode
from tests.unit.values import json_values

BLANKS: tuple[Json, ...] = (None, "", [], {}, [None, ""], {"a": {"b": []}})
LONG_NAMES = [f"a_very_long_name_of_a_field_{number}" for number in range(20)]
fields: dict[str, Json] = {f"field_{number}": "x" * 40 for number in range(20)}


def reason(before: Json, after: Json) -> str | None:
    return blank_save(encode(before), encode(after))


def selected(value: Json, names: set[str]) -> dict[str, Any]:
    assert isinstance(value, dict)
    return {name: item for name, item in value.items() if name in names}


@pytest.mark.parametrize("blank", BLANKS, ids=repr)
def test_a_save_that_leaves_only_blanks_is_detected(blank: Json) -> None:
    assert reason(dict(fields), blank) is not None


@pytest.mark.parametrize("blank", [None, "", [], {}], ids=repr)
def test_fields_set_to_blanks_count_as_removed(blank: Json) -> None:
    after: Json = dict.fromkeys(LONG_NAMES, blank)

    assert reason(dict.fromkeys(LONG_NAMES, 1), after) == "only blanks are left"


def test_a_change_within_the_only_field_is_judged_by_what_is_left() -> None:
    values: list[Json] = [None, "", [], 1, 23, -0.5, True, "null", "nul", "a b", "é", {"null": 1}]
    for old, new in itertools.permutations(values, 2):
        before, after = ({"0": [[]] * 200, "k": value} for value in (old, new))

        is_blank = bool(new in (None, "", []) and old not in (None, "", []))
        assert (reason(before, after) is not None) == is_blank, (old, new)


def test_zero_and_false_are_not_blank() -> None:
    before: Json = dict.fromkeys(LONG_NAMES, 1)

    assert reason(before, dict.fromkeys(LONG_NAMES, False)) is None
    assert reason(before, dict.fromkeys(LONG_NAMES, 0)) is None


def test_removing_more_than_half_of_the_fields_is_detected() -> None:
    filler = {"a_long_text": "y" * 4000}
    before: Json = {**filler, **{f"f{number}": 1 for number in range(9)}}

    assert reason(before, selected(before, {"a_long_text", *(f"f{n}" for n in range(4))})) is None
    assert reason(before, selected(before, {"a_long_text", "f0", "f1", "f2"})) == (
        "6 of 10 fields were removed"
    )


def test_removing_more_than_half_of_the_bytes_is_detected() -> None:
    before: Json = {"a": "x" * 1000, "b": 1}

    assert "bytes" in (reason(before, {"a": "x" * 400, "b": 1}) or "")
    assert reason(before, {"a": "x" * 600, "b": 1}) is None


def test_a_profile_blanked_inside_a_wrapping_object_is_detected() -> None:
    before: Json = {"version": 1, "kind": "p", "user": {f"field_{n}": n + 1 for n in range(40)}}

    after: Json = {"version": 1, "kind": "p", "user": {f"field_{n}": None for n in range(40)}}

    assert reason(before, after) == "40 of 42 fields were removed"


def test_removing_settings_beside_one_large_object_is_detected() -> None:
    large: Json = {f"key_{number}": "x" * 20 for number in range(50)}
    before: Json = {"cache": large, "a": 1, "b": 2, "c": 3, "d": 4}

    assert reason(before, {"cache": large}) == "4 of 5 fields were removed"


def test_a_list_of_plain_values_counts_as_one_field() -> None:
    before: Json = {"bio": "x" * 4000, "name": "Alex", "scores": list(range(50))}

    assert reason(before, {"bio": "x" * 4000, "name": "Alex", "scores": []}) is None


def test_emptied_lists_of_plain_values_count_as_removed() -> None:
    before: Json = {"bio": "x" * 4000, "a": [1, 2], "b": [0], "c": ["x"], "d": [False]}

    assert reason(before, {"bio": "x" * 4000, "a": [], "b": [], "c": [""], "d": [None]}) == (
        "4 of 5 fields were removed"
    )


def test_a_list_that_loses_most_of_its_items_is_detected() -> None:
    item: Json = {"n": 1}
    before: list[Json] = [item] * 60

    assert reason(before, [*before[:20], "z" * 900]) is not None
    assert reason(before, before[:40]) is None


@pytest.mark.parametrize(
    "after",
    [[], "text" * 200, 7, None, {"other": "x" * 900}],
    ids=["list", "text", "number", "null", "other object"],
)
def test_replacing_the_fields_by_another_type_is_detected(after: Json) -> None:
    assert reason(dict(fields), after) is not None


def test_changing_or_adding_one_field_is_no_blank_save() -> None:
    assert reason(dict(fields), {**fields, "field_0": ""}) is None
    assert reason(dict(fields), {**fields, "another": "x" * 4000}) is None


def test_small_documents_are_not_guarded() -> None:
    before = encode({"a": "x" * (GUARDED_BYTES_MIN - 20)})
    padded = before + b" " * (GUARDED_BYTES_MIN - len(before))

    assert blank_save(padded[:-1], b"{}") is None
    assert blank_save(padded, b"{}") is not None


def test_bytes_that_do_not_parse_are_compared_by_size_only() -> None:
    assert blank_save(b"x" * 1000, b"y" * 1000) is None
    assert blank_save(b"x" * 1000, b"y" * 10) is not None


@settings(max_examples=50)
@given(json_values, json_values)
def test_adding_to_a_document_is_never_a_blank_save(first: Json, second: Json) -> None:
    before: dict[str, Json] = {"filler": "x" * GUARDED_BYTES_MIN, "first": first}

    after = {**copy.deepcopy(before), "second": second}

    assert reason(before, after) is None


@given(json_values, json_values, st.integers(0, 3))
def test_the_fast_check_decides_like_the_full_count(first: Json, second: Json, copies: int) -> None:
    """The same members in a list skip the fast check; at the top level they count the same."""
    before: list[Json] = ["x" * GUARDED_BYTES_MIN, first, *[1] * copies]
    after: list[Json] = ["x" * GUARDED_BYTES_MIN, second, *[1] * copies]

    old, new = (dict(zip("abcde", value, strict=False)) for value in (before, after))

    sizes = [len(encode(value)) for value in (before, after, old, new)]
    if sizes[1] * 2 >= sizes[0] and sizes[3] * 2 >= sizes[2]:
        assert reason(before, after) == reason(old, new)


@given(st.dictionaries(st.sampled_from("abcd"), json_values), st.data())
def test_counting_only_what_differs_decides_like_the_full_count(
    value: dict[str, Json], data: st.DataObject
) -> None:
    """The filler is in one line and in many, so that what differs is anywhere in the text."""
    filler: dict[str, Json] = {"0": ["x" * 99] * 6, **value, "z": [1, {"n": [], "m": "y" * 99}]}
    changed = copy.deepcopy(filler)
    node: Json = changed
    while isinstance(node, (dict, list)) and node:
        key: Any = data.draw(
            st.sampled_from([*node] if isinstance(node, dict) else range(len(node)))
        )
        child = node[key]
        if not isinstance(child, (dict, list)) or data.draw(st.booleans()):
            node[key] = data.draw(json_values)
            if data.draw(st.booleans()):
                del node[key]
            break
        node = child
    before, after = encode(filler), encode(changed)

    quick = blank_save(before, after)
    with pytest.MonkeyPatch.context() as patch:
        for shortcut in ("_is_within_a_value", "_changed_parts_lose_nothing"):
            patch.setattr(module, shortcut, lambda *_: False)
        assert quick == blank_save(before, after)


def test_an_item_more_in_a_long_list_decodes_no_more_than_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items: list[Json] = [{"at": number, "text": "an item"} for number in range(500)]
    before, after = encode({"n": 1, "items": items}), encode({"n": 1, "items": [*items, {"at": 1}]})

    monkeypatch.setattr(module, "decode", None)

    assert blank_save(before, after) is None


@given(json_values, json_values, st.integers(0, 3))
def test_passing_the_changed_field_gives_the_same_result(
    first: Json, second: Json, copies: int
) -> None:
    others: dict[str, Json] = {
        "filler": "x" * GUARDED_BYTES_MIN,
        **{f"n{i}": 1 for i in range(copies)},
    }
    before, after = encode({**others, "field": first}), encode({**others, "field": second})

    assert blank_save(before, after, changed=(first, second)) == blank_save(before, after)
