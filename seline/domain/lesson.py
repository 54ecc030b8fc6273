"""Lessons learned: what they look like, how one is added, and how they are told to a model.

`lessons_learned.json` is `{"lessons": [{category, problem, solution, context, learned_at,
occurrences, last_seen?}], "last_updated", "total_lessons"}`; a bare list of lessons, written by an
older bot, reads too. Fields that are not ours are kept.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, TypeAlias, cast

from seline.clock import instant_text
from seline.domain.document import Json

LESSONS_NAME: Final = "lessons_learned.json"
Lesson: TypeAlias = "dict[str, Json]"


def read_lessons(value: Json) -> list[Lesson]:
    """Return the lessons of a document; ones that are no objects are left out."""
    listed = value.get("lessons", []) if isinstance(value, dict) else value
    if not isinstance(listed, list):
        return []
    return [lesson for lesson in listed if isinstance(lesson, dict)]


def write_lessons(value: Json, lessons: list[Lesson], now: datetime) -> Json:
    """Return the document with these lessons, its own other fields kept."""
    rest = value if isinstance(value, dict) else {}
    return {
        **rest,
        "lessons": cast("list[Json]", lessons),
        "last_updated": instant_text(now),
        "total_lessons": len(lessons),
    }


def with_lesson(
    value: Json, *, category: str, problem: str, solution: str, context: Json, now: datetime
) -> Json:
    """Return the document with a lesson added, or seen once more.

    The same category and problem, whatever the case, raise `occurrences` and `last_seen`.
    """
    lessons = read_lessons(value)
    for lesson in lessons:
        if _same(lesson, category, problem):
            lesson["occurrences"] = occurrences(lesson) + 1
            lesson["last_seen"] = instant_text(now)
            lesson["solution"] = solution
            if context is not None:
                lesson["context"] = context
            return write_lessons(value, lessons, now)
    new: Lesson = {
        "category": category,
        "problem": problem,
        "solution": solution,
        "context": context,
        "learned_at": instant_text(now),
        "occurrences": 1,
    }
    return write_lessons(value, [*lessons, new], now)


def without_lesson(value: Json, index: int, now: datetime) -> Json | None:
    """Return the document without the lesson at `index` (as stored), None if there is none."""
    lessons = read_lessons(value)
    if not 0 <= index < len(lessons):
        return None
    return write_lessons(value, lessons[:index] + lessons[index + 1 :], now)


def select_lessons(
    value: Json, *, category: str | None = None, min_occurrences: int = 1
) -> list[Lesson]:
    """Return the lessons, most frequent first, the older one first among equals."""
    chosen = [
        lesson
        for lesson in read_lessons(value)
        if occurrences(lesson) >= min_occurrences
        and (category is None or _folded(lesson.get("category")) == category.casefold())
    ]
    return sorted(chosen, key=occurrences, reverse=True)


def format_lessons(value: Json, *, max_lessons: int) -> str:
    """Return the lessons as lines for a prompt, empty where there are none."""
    lines = [
        f"- [{lesson.get('category', '')}] {lesson.get('problem', '')} → "
        f"{lesson.get('solution', '')} (×{occurrences(lesson)})"
        for lesson in select_lessons(value)[: max(max_lessons, 0)]
    ]
    return "\n".join(lines)


def occurrences(lesson: Lesson) -> int:
    """Return how often a lesson was learned, at least once."""
    count = lesson.get("occurrences", 1)
    return count if isinstance(count, int) and count > 0 else 1


def _same(lesson: Lesson, category: str, problem: str) -> bool:
    return (
        _folded(lesson.get("category")) == category.casefold()
        and _folded(lesson.get("problem")) == problem.casefold()
    )


def _folded(value: Json) -> str:
    return value.casefold() if isinstance(value, str) else ""
