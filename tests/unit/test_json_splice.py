"""A value that is changed in the text gives what the encoder would make of the whole."""

from hypothesis import given, settings
from hypothesis import strategies as st

from seline.domain.document import Content, Json
from seline.domain.json_codec import decode, encode
from seline.domain.json_splice import Splice, with_item, with_member
from tests.unit.values import json_values

keys = st.sampled_from(("a", "b", "", '"\n,\n  "é', "  ")) | st.text(max_size=4)


def spliced(before: Content, splice: Splice | None) -> Content:
    """Return what a splice makes of a content."""
    assert splice is not None
    return before.spliced(splice.at, splice.end, splice.new, splice.value_at)


def encoded(value: Json) -> Content:
    """Return a value's content."""
    return Content.of(encode(value), is_encoded=True)


@settings(max_examples=50)
@given(st.dictionaries(keys, json_values, max_size=5), st.lists(st.tuples(keys, json_values)))
def test_members_that_are_set_are_as_if_everything_were_encoded(
    value: dict[str, Json], changes: list[tuple[str, Json]]
) -> None:
    value = decode(encode(value))  # type: ignore[assignment]
    content = encoded(value)
    for key, new in changes:
        splice = with_member(content.data, key, decode(encode(new)), content.origin)
        assert splice is not None
        assert splice.old is None if key not in value else decode(splice.old or b"") == value[key]
        content, value = spliced(content, splice), {**value, key: decode(encode(new))}

        assert content.data == encode(value)
        assert content.revision == encoded(value).revision


@settings(max_examples=200)
@given(st.lists(st.tuples(keys, st.booleans(), json_values), max_size=12))
def test_members_and_items_in_turn_are_as_if_everything_were_encoded(
    changes: list[tuple[str, bool, Json]],
) -> None:
    """Each finds the place where the change before was made, if it concerns the same member."""
    value: dict[str, Json] = {"first": [], "b": {"c": []}, "a": [], "last": 0}
    content = encoded(value)
    for key, is_item, new in changes:
        new, old = decode(encode(new)), value.get(key)
        if is_item and isinstance(old, list):
            splice = with_item(content.data, key, new, content.origin)
            value = {**value, key: [*old, new]}
        else:
            splice = with_member(content.data, key, new, content.origin)
            assert splice is not None
            assert splice.old is None if key not in value else decode(splice.old or b"") == old
            value = {**value, key: new}
        content = spliced(content, splice)

        assert content.data == encode(value)
        assert content.revision == encoded(value).revision


@given(st.dictionaries(keys, json_values, max_size=3), keys, st.lists(json_values, max_size=3))
def test_items_that_are_appended_are_as_if_everything_were_encoded(
    others: dict[str, Json], key: str, items: list[Json]
) -> None:
    member, whole = encoded({**others, key: []}), encoded([])
    for number, item in enumerate(items, start=1):
        member = spliced(member, with_item(member.data, key, decode(encode(item)), member.origin))
        whole = spliced(whole, with_item(whole.data, None, decode(encode(item)), whole.origin))

        assert member.data == encode({**others, key: items[:number]})
        assert whole.data == encode(items[:number])
        assert member.revision == Content.of(member.data).revision


def test_what_is_no_object_or_no_list_is_left_to_the_decoder() -> None:
    assert with_member(encode([1]), "a", 1) is None
    assert with_item(encode({"a": 1, "b": "[]"}), "b", 1) is None
    assert with_item(encode({"a": {"c": []}}), "c", 1) is None
    assert with_item(encode({"a": []}), None, 1) is None
