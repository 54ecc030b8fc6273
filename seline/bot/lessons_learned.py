"""The lessons that a bot has learned, stored in `lessons_learned.json`."""

from seline.domain.document import Json
from seline.domain.lesson import (
    LESSONS_NAME,
    Lesson,
    format_lessons,
    select_lessons,
    with_lesson,
    without_lesson,
)
from seline.manager import DataManager


class LessonsLearned:
    """Lessons by category and problem, with the number of their occurrences."""

    def __init__(self, data: DataManager) -> None:
        """Store the lessons with `data`."""
        self._data = data

    async def add_lesson(
        self, category: str, problem: str, solution: str, context: Json = None
    ) -> Lesson:
        """Add a lesson, or count the one of this category and problem once more; return it."""
        now = self._data.store.clock.now()
        value = await self._data.update_json(
            LESSONS_NAME,
            lambda document: with_lesson(
                document,
                category=category,
                problem=problem,
                solution=solution,
                context=context,
                now=now,
            ),
        )
        return next(
            lesson
            for lesson in select_lessons(value, category=category)
            if str(lesson["problem"]).casefold() == problem.casefold()
        )

    async def get_lessons(
        self, category: str | None = None, min_occurrences: int = 1
    ) -> list[Lesson]:
        """Return the matching lessons, the most frequent first."""
        document = await self._data.load_json(LESSONS_NAME)
        return select_lessons(document, category=category, min_occurrences=min_occurrences)

    async def delete_lesson(self, index: int) -> bool:
        """Delete the lesson at `index` in the order of the document; False if there is none."""
        now = self._data.store.clock.now()
        deleted = False

        def without(document: Json) -> Json:
            nonlocal deleted
            rest = without_lesson(document, index, now)
            deleted = rest is not None
            return document if rest is None else rest

        await self._data.update_json(LESSONS_NAME, without, shrink=True)
        return deleted

    async def format_lessons_for_prompt(self, max_lessons: int = 10) -> str:
        """Return the most frequent lessons as lines for a prompt."""
        return format_lessons(await self._data.load_json(LESSONS_NAME), max_lessons=max_lessons)
