"""Fixtures of the tests that follow next steps."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.command_line import Line, line_at
from tests.hints.collected import collected, matches
from tests.hints.following import Step, as_on_the_path


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Return a command line on an empty directory."""
    return line_at(tmp_path)


@pytest.fixture
def follow(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Step]]:
    """Yield a function that takes a printed next step; it must be one that the test names.

    A test that passes has taken every next step of its mark `follows`.
    """
    mark = request.node.get_closest_marker("follows")
    assert mark is not None, "mark the test with the next steps that it follows"
    left = set(mark.args)

    def take(text: str) -> Step:
        text = as_on_the_path(text)
        named = {key for pattern in mark.args for key in collected() if fnmatchcase(key, pattern)}
        found = {key for key in named if matches(key, text)}
        assert found, f"this is none of {', '.join(sorted(named))}: {text}"
        left.difference_update(
            [pattern for pattern in mark.args if any(fnmatchcase(key, pattern) for key in found)]
        )
        return Step(text)

    failed = request.session.testsfailed
    yield take
    if request.session.testsfailed == failed:
        assert not left, f"never followed: {', '.join(sorted(left))}"
