"""How a person types `seline`: one decision for every text that names a command."""

import functools
import os
import re
import shlex
import shutil
import sys
from typing import Final

COMMAND: Final = re.compile(
    r"(`|&& |\| |\A|: |^  )(?:(?<!: )(?<!^  )[^\s`/][^\s`]*/)?seline (?=([a-z]+))", re.MULTILINE
)
"""A command in a text: what is before it, and its verb. `typed` may have put a path first."""


@functools.cache
def program() -> str:
    """Return how this process was called: a path if `seline` alone would not be found."""
    called = sys.argv[0]
    is_path = os.path.basename(called) == "seline" and os.sep in called
    return called if is_path and shutil.which("seline") is None else "seline"


def typed(text: str) -> str:
    """Return a text for readers elsewhere, with its commands as they are typed here.

    A path is named only if it is relative, as that of `make run`: another would name a place on
    this machine.
    """
    called = program()
    if called != "seline":
        called = "seline" if os.path.isabs(called) else shlex.quote(called)
    return COMMAND.sub(lambda found: f"{found[1]}{called} ", text)
