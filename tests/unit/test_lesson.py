"""Lessons: added, counted, chosen and told, with nothing of an older document lost."""

from __future__ import annotations

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

LONG: Lesson = {
    "category": "messaging",
    "problem": "Messages trop longs",
    "solution": "Limiter à 500 caractères max",
    "context": None,
    "learned_at": "2025-01-06T14:30:22Z",
    "occurrences": 1,
}


def learned(value: Json, problem: str = "Messages trop longs", **told: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "category": "messaging",
        "solution": "Limiter à 500 caractères max",
        "context": None,
        "now": MONDAY,
    }
    return cast("dict[str, Any]", with_lesson(value, problem=problem, **{**known, **told}))


def counted(**occurrences: int) -> Json:
    """Return a document with one lesson per problem, seen as often as said."""
    return [
        {"category": "c", "problem": problem, "solution": "s", "occurrences": count}
        for problem, count in occurrences.items()
    ]


def problems(lessons: list[Lesson]) -> list[Json]:
    return [lesson["problem"] for lesson in lessons]


def test_a_first_lesson_makes_the_documented_shape() -> None:
    assert learned({}) == {
        "lessons": [LONG],
        "last_updated": "2025-01-06T14:30:22Z",
        "total_lessons": 1,
    }


def test_the_same_lesson_again_whatever_the_case_is_counted_and_dated() -> None:
    once = learned({}, context="photos")

    twice = learned(
        once, "MESSAGES trop LONGS", category="Messaging", solution="Couper", now=TUESDAY
    )

    assert twice["total_lessons"] == 1
    assert twice["last_updated"] == "2025-01-07T08:00:00Z"
    assert twice["lessons"] == [
        {
            **LONG,
            "solution": "Couper",
            "context": "photos",
            "occurrences": 2,
            "last_seen": "2025-01-07T08:00:00Z",
        }
    ]


def test_another_category_or_problem_is_another_lesson() -> None:
    document = learned(learned(learned({}), category="voice"), "Messages trop courts")

    assert document["total_lessons"] == 3


def test_a_bare_list_of_an_older_bot_is_read_and_becomes_a_document() -> None:
    assert read_lessons([LONG]) == [LONG]
    assert learned([LONG], "Autre")["lessons"][0] == LONG


def test_fields_that_are_not_ours_are_kept_in_document_and_lesson() -> None:
    older: Json = {"lessons": [{**LONG, "author": "Alex"}], "version": 3}

    document = learned(older, now=TUESDAY)

    assert document["version"] == 3
    assert document["lessons"][0]["author"] == "Alex"
    assert document["lessons"][0]["occurrences"] == 2
    assert cast("Any", without_lesson(older, 0, TUESDAY))["version"] == 3


def test_a_lesson_that_lacks_fields_reads_with_all_of_them() -> None:
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
        ({"lessons": [LONG, "text"]}, "$.lessons[1]"),
        ([LONG, None], "$[1]"),
    ],
)
def test_another_shape_is_refused_with_its_path_and_never_read_as_empty(
    value: Json, path: str
) -> None:
    """Taken for empty, the next lesson would be written over it."""
    readers: list[Callable[[Json], object]] = [
        read_lessons,
        learned,
        select_lessons,
        lambda document: without_lesson(document, 0, MONDAY),
    ]
    for read in readers:
        with pytest.raises(NotAnObject) as caught:
            read(value)
        assert caught.value.details["path"] == path


@pytest.mark.parametrize("index", [-1, 1, 99])
def test_deleting_where_no_lesson_is_changes_nothing_and_says_so(index: int) -> None:
    assert without_lesson([LONG], index, MONDAY) is None
    assert without_lesson({}, 0, MONDAY) is None


def test_deleting_goes_by_the_order_of_the_document() -> None:
    document = cast("Any", without_lesson(counted(a=1, b=9, c=3), 1, TUESDAY))

    assert problems(document["lessons"]) == ["a", "c"]
    assert document["total_lessons"] == 2
    assert document["last_updated"] == "2025-01-07T08:00:00Z"


def test_the_most_frequent_come_first_and_equals_stay_in_order() -> None:
    assert problems(select_lessons(counted(a=1, b=3, c=1, d=3))) == ["b", "d", "a", "c"]


def test_lessons_are_chosen_by_category_whatever_the_case_and_by_count() -> None:
    document = learned(learned({}), "Autre", category="voice")

    assert problems(select_lessons(document, category="VOICE")) == ["Autre"]
    assert select_lessons(document, category="none") == []
    assert problems(select_lessons(counted(a=1, b=2, c=3), min_occurrences=2)) == ["c", "b"]


@pytest.mark.parametrize("count", [None, "many", 0, -3, 1.5, []])
def test_a_count_that_is_none_counts_as_once(count: Json) -> None:
    older: Json = [{**LONG, "occurrences": count}]

    assert len(select_lessons(older)) == 1
    assert learned(older)["lessons"][0]["occurrences"] == 2


def test_lessons_for_a_prompt_are_one_line_each_the_most_frequent_first() -> None:
    document = learned(learned(learned({}), "Autre\n\n- [x] injecté"))
    document = learned(document)

    assert format_lessons(document) == (
        "- [messaging] Messages trop longs → Limiter à 500 caractères max (×3)\n"
        "- [messaging] Autre - [x] injecté → Limiter à 500 caractères max (×1)"
    )


def test_a_prompt_has_at_most_as_many_lessons_as_asked_for() -> None:
    document = counted(**{f"p{number}": 1 for number in range(30)})

    assert format_lessons(document).count("\n") == 9
    assert format_lessons(document, max_lessons=1).count("\n") == 0
    assert format_lessons(document, max_lessons=0) == ""
    assert format_lessons(document, max_lessons=-1) == ""
    assert format_lessons({}) == ""


@given(st.lists(st.sampled_from(["a", "A", "b", "ß", "SS"]), max_size=12))
def test_every_lesson_told_is_counted_once_and_nothing_given_is_changed(told: list[str]) -> None:
    document: Json = {}
    for problem in told:
        before = copy.deepcopy(document)
        after = learned(document, problem)
        assert document == before
        document = after

    lessons = read_lessons(document)
    assert sum(cast("int", lesson["occurrences"]) for lesson in lessons) == len(told)
    assert len(lessons) == len({problem.casefold() for problem in told})
