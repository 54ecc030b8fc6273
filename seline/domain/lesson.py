"""Lessons learned: read, add, delete, select and format them.

`lessons_learned.json` is `{"lessons": [{category, problem, solution, context, learned_at,
occurrences, last_seen?}], "last_updated", "total_lessons"}`. A bare list of lessons, as an older
bot writes it, is read too. Unknown fields of the document and of each lesson are kept. No function
here changes its arguments.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeAlias, cast

from seline.clock import instant_text
from seline.domain.document import Json
from seline.domain.json_flaws import Path, path_text
from seline.errors import NotAnObject

LESSONS_NAME: Final = "lessons_learned.json"
Lesson: TypeAlias = dict[str, Json]


def read_lessons(value: Json) -> list[Lesson]:
    """Return the lessons of a document, each with all the fields above; `{}` has none.

    Raises NotAnObject with the path if the document has another shape: treating it as empty would
    overwrite it.
    """
    return [{**_UNKNOWN, **lesson} for lesson in _stored(value)]


def write_lessons(value: Json, lessons: list[Lesson], now: datetime) -> Json:
    """Return the document with these lessons and its other fields."""
    rest = value if isinstance(value, dict) else {}
    return {
        **rest,
        "lessons": cast("list[Json]", lessons),
        "last_updated": instant_text(now),
        "total_lessons": len(lessons),
    }


def with_lesson(
    value: Json, *, category: str, problem: str, solution: str, context: Json = None, now: datetime
) -> Json:
    """Return the document with a lesson added or counted once more.

    If a lesson has the same category and problem, ignoring case, its `occurrences` and `last_seen`
    are updated, and the new solution and context (unless None) replace the old. Raises NotAnObject.
    """
    update: Lesson = (
        {"solution": solution} if context is None else {"solution": solution, "context": context}
    )
    lessons = _stored(value)
    for position, lesson in enumerate(lessons):
        if _same(lesson, category, problem):
            again: Lesson = {"occurrences": occurrences(lesson) + 1, "last_seen": instant_text(now)}
            lessons[position] = {**lesson, **update, **again}
            return write_lessons(value, lessons, now)
    learned = {"category": category, "problem": problem, "learned_at": instant_text(now)}
    new: Lesson = {**_UNKNOWN, **learned, **update}
    return write_lessons(value, [*lessons, new], now)


def without_lesson(value: Json, index: int, now: datetime) -> Json | None:
    """Return the document without the lesson at `index` (stored order), None if out of range."""
    lessons = _stored(value)
    if not 0 <= index < len(lessons):
        return None
    return write_lessons(value, lessons[:index] + lessons[index + 1 :], now)


def select_lessons(
    value: Json, *, category: str | None = None, min_occurrences: int = 1
) -> list[Lesson]:
    """Return the matching lessons, the most frequent first, equally frequent ones by age."""
    chosen = [
        lesson
        for lesson in read_lessons(value)
        if occurrences(lesson) >= min_occurrences
        and (category is None or _folded(lesson.get("category")) == category.casefold())
    ]
    return sorted(chosen, key=occurrences, reverse=True)


def format_lessons(value: Json, *, max_lessons: int = 10) -> str:
    """Return the most frequent lessons as lines for a prompt; empty without lessons."""
    return "\n".join(map(_line, select_lessons(value)[: max(max_lessons, 0)]))


def occurrences(lesson: Lesson) -> int:
    """Return how often a lesson was learned, at least 1."""
    count = lesson.get("occurrences", 1)
    return count if isinstance(count, int) and count > 0 else 1


_UNKNOWN: Final[Mapping[str, Json]] = {
    "category": "",
    "problem": "",
    "solution": "",
    "context": None,
    "learned_at": None,
    "occurrences": 1,
}


def _stored(value: Json) -> list[Lesson]:
    path: Path = ("lessons",) if isinstance(value, dict) else ()
    listed = value.get("lessons", []) if isinstance(value, dict) else value
    if not isinstance(listed, list):
        raise _refusal(path, "it is not a list of lessons")
    lessons: list[Lesson] = []
    for position, lesson in enumerate(listed):
        if not isinstance(lesson, dict):
            raise _refusal((*path, position), "a lesson is an object")
        lessons.append(lesson)
    return lessons


def _refusal(path: Path, why: str) -> NotAnObject:
    where = path_text(path)
    return NotAnObject(
        f"{LESSONS_NAME}, {where}: {why}.",
        hint="Mend the document by hand, or restore it from a backup.",
        document=LESSONS_NAME,
        path=where,
    )


def _line(lesson: Lesson) -> str:
    """Return a lesson as one line. Line breaks in it become spaces, so that it cannot fake one."""
    category, problem, solution = (
        " ".join(str(lesson[field]).split()) for field in ("category", "problem", "solution")
    )
    return f"- [{category}] {problem} → {solution} (×{occurrences(lesson)})"


def _same(lesson: Lesson, category: str, problem: str) -> bool:
    return (
        _folded(lesson.get("category")) == category.casefold()
        and _folded(lesson.get("problem")) == problem.casefold()
    )


def _folded(value: Json) -> str:
    return value.casefold() if isinstance(value, str) else ""
