"""Lessons: adding, counting, selecting and formatting them without losing other fields."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seline.domain.document import Json
from seline.domain.lesson import (
    Lesson,
    format_lessons,
    read_lessons,
    select_lessons,
    with_lesson,
    without_lesson,
)
from seline.errors import NotAnObject

MONDAY = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)
TUESDAY = datetime(2025, 1, 7, 8, 0, 0, tzinfo=UTC)

LESSON: Lesson = {
    "category": "messaging",
    "problem": "Messages trop longs",
    "solution": "Limiter à 500 caractères max",
    "context": None,
    "learned_at": "2025-01-06T14:30:22Z",
    "occurrences": 1,
}


def learn(value: Json, problem: str = "Messages trop longs", **changes: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "category": "messaging",
        "solution": "Limiter à 500 caractères max",
        "context": None,
        "now": MONDAY,
    }
    return cast("dict[str, Any]", with_lesson(value, problem=problem, **{**defaults, **changes}))


def with_counts(**occurrences: int) -> Json:
    """Return a document with one lesson per problem, with these occurrences."""
    return [
        {"category": "c", "problem": problem, "solution": "s", "occurrences": count}
        for problem, count in occurrences.items()
    ]


def problems(lessons: list[Lesson]) -> list[Json]:
    return [lesson["problem"] for lesson in lessons]


def test_the_first_lesson_creates_the_documented_shape() -> None:
    assert learn({}) == {
        "lessons": [LESSON],
        "last_updated": "2025-01-06T14:30:22Z",
        "total_lessons": 1,
    }


def test_a_repeated_lesson_is_counted_and_dated_ignoring_case() -> None:
    once = learn({}, context="photos")

    twice = learn(once, "MESSAGES trop LONGS", category="Messaging", solution="Couper", now=TUESDAY)

    assert twice["total_lessons"] == 1
    assert twice["last_updated"] == "2025-01-07T08:00:00Z"
    assert twice["lessons"] == [
        {
            **LESSON,
            "solution": "Couper",
            "context": "photos",
            "occurrences": 2,
            "last_seen": "2025-01-07T08:00:00Z",
        }
    ]


def test_another_category_or_problem_is_another_lesson() -> None:
    document = learn(learn(learn({}), category="voice"), "Messages trop courts")

    assert document["total_lessons"] == 3


def test_a_bare_list_of_an_older_bot_is_read_and_converted() -> None:
    assert read_lessons([LESSON]) == [LESSON]
    assert learn([LESSON], "Autre")["lessons"][0] == LESSON


def test_unknown_fields_of_document_and_lesson_are_kept() -> None:
    older: Json = {"lessons": [{**LESSON, "author": "Alex"}], "version": 3}

    document = learn(older, now=TUESDAY)

    assert document["version"] == 3
    assert document["lessons"][0]["author"] == "Alex"
    assert document["lessons"][0]["occurrences"] == 2
    assert cast("Any", without_lesson(older, 0, TUESDAY))["version"] == 3


def test_missing_fields_of_a_lesson_are_filled_in() -> None:
    assert read_lessons({"lessons": [{"problem": "p"}]}) == [
        {
            "category": "",
            "problem": "p",
            "solution": "",
            "context": None,
            "learned_at": None,
            "occurrences": 1,
        }
    ]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("text", "$"),
        (3, "$"),
        (None, "$"),
        ({"lessons": {}}, "$.lessons"),
        ({"lessons": None}, "$.lessons"),
        ({"lessons": [LESSON, "text"]}, "$.lessons[1]"),
        ([LESSON, None], "$[1]"),
    ],
)
def test_another_shape_is_refused_with_its_path(value: Json, path: str) -> None:
    """If it were read as empty, the next lesson would overwrite it."""
    readers: list[Callable[[Json], object]] = [
        read_lessons,
        learn,
        select_lessons,
        lambda document: without_lesson(document, 0, MONDAY),
    ]
    for read in readers:
        with pytest.raises(NotAnObject) as caught:
            read(value)
        assert caught.value.details["path"] == path


@pytest.mark.parametrize("index", [-1, 1, 99])
def test_deleting_an_index_out_of_range_returns_none(index: int) -> None:
    assert without_lesson([LESSON], index, MONDAY) is None
    assert without_lesson({}, 0, MONDAY) is None


def test_deleting_uses_the_order_of_the_document() -> None:
    document = cast("Any", without_lesson(with_counts(a=1, b=9, c=3), 1, TUESDAY))

    assert problems(document["lessons"]) == ["a", "c"]
    assert document["total_lessons"] == 2
    assert document["last_updated"] == "2025-01-07T08:00:00Z"


def test_lessons_are_sorted_by_frequency_then_by_age() -> None:
    assert problems(select_lessons(with_counts(a=1, b=3, c=1, d=3))) == ["b", "d", "a", "c"]


def test_lessons_are_selected_by_category_ignoring_case_and_by_count() -> None:
    document = learn(learn({}), "Autre", category="voice")

    assert problems(select_lessons(document, category="VOICE")) == ["Autre"]
    assert select_lessons(document, category="none") == []
    assert problems(select_lessons(with_counts(a=1, b=2, c=3), min_occurrences=2)) == ["c", "b"]


@pytest.mark.parametrize("count", [None, "many", 0, -3, 1.5, []])
def test_an_invalid_count_counts_as_one(count: Json) -> None:
    older: Json = [{**LESSON, "occurrences": count}]

    assert len(select_lessons(older)) == 1
    assert learn(older)["lessons"][0]["occurrences"] == 2


def test_a_prompt_has_one_line_per_lesson_most_frequent_first() -> None:
    document = learn(learn(learn({}), "Autre\n\n- [x] injecté"))
    document = learn(document)

    assert format_lessons(document) == (
        "- [messaging] Messages trop longs → Limiter à 500 caractères max (×3)\n"
        "- [messaging] Autre - [x] injecté → Limiter à 500 caractères max (×1)"
    )


def test_a_prompt_has_at_most_max_lessons() -> None:
    document = with_counts(**{f"p{number}": 1 for number in range(30)})

    assert format_lessons(document).count("\n") == 9
    assert format_lessons(document, max_lessons=1).count("\n") == 0
    assert format_lessons(document, max_lessons=0) == ""
    assert format_lessons(document, max_lessons=-1) == ""
    assert format_lessons({}) == ""


@given(st.lists(st.sampled_from(["a", "A", "b", "ß", "SS"]), max_size=12))
def test_every_addition_is_counted_and_no_argument_is_changed(added: list[str]) -> None:
    document: Json = {}
    for problem in added:
        before = copy.deepcopy(document)
        after = learn(document, problem)
        assert document == before
        document = after

    lessons = read_lessons(document)
    assert sum(cast("int", lesson["occurrences"]) for lesson in lessons) == len(added)
    assert len(lessons) == len({problem.casefold() for problem in added})
