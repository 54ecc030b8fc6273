"""The difference of two contents: true, short, exact as a patch, and bounded."""

import copy
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seline.domain import difference, json_parts
from seline.domain.difference import CHANGES_MAX, SHOWN_BYTES_MAX, difference_of
from seline.domain.document import Json
from seline.domain.json_codec import encode

keys = st.sampled_from(("", "a", "b", "/", "~", "~1", "a/b", "é", "0", "-"))
scalars = st.sampled_from((None, True, False, 0, 1, 1.0, -0.0, 2**80, 2**80 + 1, "", "1", "a b"))
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


def target_of(value: Any, path: str) -> tuple[Any, str]:
    """Return the container that a pointer ends in, and the last token."""
    *above, last = [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]
    for token in above:
        value = value[int(token)] if isinstance(value, list) else value[token]
    return value, last


def applied(value: Any, patch: Any) -> Any:
    """Apply an RFC 6902 patch of the operations add, remove and replace."""
    value = copy.deepcopy(value)
    for operation in patch:
        if operation["path"] == "":
            value = operation["value"]
            continue
        container, token = target_of(value, operation["path"])
        at: Any = int(token) if isinstance(container, list) else token
        if operation["op"] != "add":
            assert operation["op"] in ("remove", "replace")
            container[at]  # it must exist
        if operation["op"] == "remove":
            del container[at]
        elif operation["op"] == "add" and isinstance(container, list):
            assert 0 <= at <= len(container)
            container.insert(at, operation["value"])
        else:
            container[at] = operation["value"]
    return value


def written(value: Any) -> str:
    """Return a value as text that tells 1, 1.0 and true apart; the order of keys has no meaning."""
    return json.dumps(value, sort_keys=True)


def at(value: Any, path: str) -> Any:
    if path == "":
        return value
    container, token = target_of(value, path)
    return container[int(token) if isinstance(container, list) else token]


@pytest.fixture(params=[False, True], ids=["decoded", "divided"])
def divided(request: pytest.FixtureRequest) -> Any:
    """Compare also as large contents are compared."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setattr(json_parts, "DECODED_BYTES_MAX", 0)
        yield


@pytest.mark.usefixtures("divided")
@given(before=values, after=values)
@example(before=[], after=[[[[]]]])
def test_the_patch_makes_the_second_content_and_each_change_is_true(
    before: Json, after: Json
) -> None:
    found = difference_of(encode(before), encode(after))

    assert found.patch is not None
    assert written(applied(before, found.patch)) == written(after)
    assert (found.changes == ()) == (written(before) == written(after))
    for change in found.changes:
        if change.kind == "removed" and not change.shortened:
            assert written(at(before, change.path)) == written(change.before)
        if change.kind != "removed" and "after" not in change.shortened:
            assert written(at(after, change.path)) == written(change.after)


@given(before=values, after=values)
def test_white_space_and_the_order_of_keys_are_no_difference(before: Json, after: Json) -> None:
    compact = json.dumps(before, sort_keys=True, separators=(",", ":")).encode()
    assert difference_of(compact, encode(before)).changes == ()

    found = difference_of(compact, encode(after))
    assert written(applied(before, found.patch)) == written(after)


PEOPLE = [{"id": n, "name": f"user {n}", "xp": n} for n in range(50)]
EDITED = [*PEOPLE[:30], {**PEOPLE[30], "xp": 99}, *PEOPLE[31:]]


@pytest.mark.parametrize(
    ("before", "after", "paths"),
    [
        (PEOPLE, [{"id": -1}, *PEOPLE], ["added /0"]),
        (PEOPLE, PEOPLE[1:], ["removed /0"]),
        (PEOPLE, [*PEOPLE, {"id": 50}], ["added /50"]),
        (PEOPLE, EDITED, ["changed /30/xp"]),
        (PEOPLE, [{"id": -1}, *EDITED], ["added /0", "changed /31/xp"]),
        (PEOPLE, [*PEOPLE[:3], *PEOPLE[4:], {"id": 50}], ["removed /3", "added /49"]),
        ([1, 1, 1], [1, 1, 1, 1], ["added /3"]),
        ({"a/b": 1, "": {"~": 2}}, {"": {"~": 3}}, ["removed /a~1b", "changed //~0"]),
        ({"n": 1}, {"n": 1.0}, ["changed /n"]),
        ({"n": []}, {"n": {}}, ["changed /n"]),
        ({"n": None}, {}, ["removed /n"]),
        (1, [1], ["changed "]),
    ],
)
def test_changes_are_few_and_name_their_place(before: Json, after: Json, paths: list[str]) -> None:
    found = difference_of(encode(before), encode(after))

    assert [f"{change.kind} {change.path}" for change in found.changes] == paths


def test_a_document_that_does_not_exist_is_added_or_removed_whole() -> None:
    added, removed = difference_of(None, b"{}\n"), difference_of(b"{}\n", None)

    assert (added.patch, removed.patch) == (
        ({"op": "add", "path": "", "value": {}},),
        ({"op": "remove", "path": ""},),
    )
    assert difference_of(None, None).patch == ()


def test_many_changes_are_counted_and_the_first_are_listed() -> None:
    count = difference.OPERATIONS_MAX + 1
    found = difference_of(b"{}", encode({f"k{n}": n for n in range(count)}))

    assert (len(found.changes), found.added, found.truncated) == (CHANGES_MAX, count, True)
    assert found.patch is None


def test_a_long_value_is_shown_by_its_beginning() -> None:
    long = "x" * 5000
    found = difference_of(encode({"a": long}), encode({"a": 1}))

    [change] = found.changes
    assert change.before == '"' + long[: SHOWN_BYTES_MAX - 1] + "…"
    assert (change.after, change.shortened, found.truncated) == (1, ("before",), False)
    assert found.patch == ({"op": "replace", "path": "/a", "value": 1},)


def test_long_keys_do_not_make_the_answer_long() -> None:
    before = {f"{'k' * 100_000}{n}": n for n in range(20)}
    found = difference_of(encode(before), b"{}")

    assert (found.removed, found.truncated, found.patch) == (20, True, None)
    assert sum(len(change.path) for change in found.changes) <= difference.FORM_BYTES_MAX
