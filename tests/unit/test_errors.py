"""Errors: what a bot's author sees in a traceback."""

import copy
import pickle
import traceback

import pytest

import seline.errors
from seline.errors import SelineError

ERRORS = sorted(
    (
        kind
        for kind in vars(seline.errors).values()
        if isinstance(kind, type) and issubclass(kind, SelineError)
    ),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", ERRORS)
def test_a_traceback_ends_with_the_next_step(kind: type[SelineError]) -> None:
    for error in (kind(), kind("What happened.", hint="Do this.", document="a.json")):
        for shown in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
            lines = "".join(traceback.format_exception(shown)).splitlines()

            assert lines[-2:] == [f"seline.errors.{kind.__name__}: {error}", f"Next: {error.hint}"]
