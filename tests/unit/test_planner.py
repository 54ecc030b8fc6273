"""Test that a batch decides for several changes of one document as if each were alone."""

from datetime import UTC, datetime
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from seline.domain.document import BOT, Content, DocumentKey, Json
from seline.domain.json_codec import DEPTH_MAX, encode
from seline.domain.verdict import Judged, Verdict
from seline.errors import NotAnObject
from seline.manager import changes
from seline.manager.changes import Decide
from seline.manager.encoding import content_of
from seline.ports.store import Atom, Change, Current, Leave
from seline.settings import Storage
from seline.storage.planner import Found, Plan, plan_batch

KEY = DocumentKey(BOT, "document.json")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Storage(document_bytes_max=1 << 20, depth_max=DEPTH_MAX)
SAVED: tuple[Json, ...] = ({}, {"a": {"n": 1}}, [1, 2], None)

Verb: TypeAlias = tuple[str, str, int]

verbs = st.lists(
    st.tuples(
        st.sampled_from(["set a field", "change in place", "spoil and fail", "save", "delete"]),
        st.sampled_from("abc"),
        st.integers(0, 3),
    ),
    max_size=12,
)


def decide(verb: Verb) -> Decide:
    what, field, number = verb
    if what == "set a field":
        return changes.update_field(field, {"n": number}, LIMITS, guard=lambda *_: ())
    if what == "change in place":
        return changes.update(lambda value: changed_in_place(value, field, number), LIMITS)
    if what == "spoil and fail":
        return changes.update(lambda value: spoiled(value, field), LIMITS)
    if what == "save":
        return changes.save(content_of(SAVED[number], LIMITS))
    return changes.delete_if_there


def changed_in_place(value: Json | None, field: str, number: int) -> Json:
    """Modify every object of a value, as the caller of `update_json` may."""
    if not isinstance(value, dict):
        return {}
    for member in value.values():
        if isinstance(member, dict):
            member["n"] = -number
    value[field] = {"n": number}
    return value


def spoiled(value: Json | None, field: str) -> Json:
    """Modify the value, as a caller's function may, before it fails."""
    changed_in_place(value, field, 99)
    raise LookupError(field)


def planned(content: Content | None, verbs: list[Verb]) -> Plan:
    verdict = Verdict.MISSING if content is None else Verdict.SOUND
    found = Found(key=KEY, judged=Judged(verdict, content), content=content, updated_at=None)
    atoms = [Atom((Change(KEY, decide(verb)),)) for verb in verbs]
    return plan_batch(atoms, lambda _: found, lambda _: iter(()), NOW)


@given(verbs)
def test_many_changes_of_one_document_are_decided_as_one_after_another(verbs: list[Verb]) -> None:
    start = Content.of(encode({"a": {"n": 0}}))
    plan = planned(start, verbs)
    content: Content | None = start
    for verb, taken in zip(verbs, plan.taken, strict=False):
        (alone,) = planned(content, [verb]).taken
        if isinstance(alone, BaseException):
            assert isinstance(alone, (NotAnObject, LookupError))
            assert type(taken) is type(alone)
        else:
            content = alone[0][1].content
            assert not isinstance(taken, BaseException)
            assert taken[0][1].content == content
            assert taken[0][1].changed == alone[0][1].changed


def test_a_function_that_alters_its_value_and_fails_leaves_nothing_behind() -> None:
    verbs: list[Verb] = [
        ("set a field", "b", 1),
        ("spoil and fail", "a", 0),
        ("set a field", "c", 2),
    ]

    first, second, third = planned(Content.of(encode({"a": {"n": 0}})), verbs).taken

    assert isinstance(second, LookupError)
    assert not isinstance(first, BaseException)
    assert not isinstance(third, BaseException)
    assert third[0][1].content == Content.of(encode({"a": {"n": 0}, "b": {"n": 1}, "c": {"n": 2}}))


@pytest.mark.parametrize(("size_bytes", "handed_on"), [(1_000, True), (100_000, False)])
def test_a_batch_holds_no_large_value_beside_its_bytes(size_bytes: int, handed_on: bool) -> None:
    found = Found(key=KEY, judged=Judged(Verdict.MISSING), content=None, updated_at=None)
    seen: list[bool] = []

    def look(current: Current) -> Leave:
        seen.append(current.decoded is not UNSET)
        return Leave()

    update = changes.update_field("text", "x" * size_bytes, LIMITS)
    atoms = [Atom((Change(KEY, decide),)) for decide in (update, look)]
    plan_batch(atoms, lambda _: found, lambda _: iter(()), NOW)

    assert seen == [handed_on]
