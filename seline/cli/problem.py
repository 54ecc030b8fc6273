"""What went wrong, from this process or from the server: one shape, one way out.

Whatever is raised inside `way_out` ends as a message, the next step and an exit code. The traceback
of a defect of Seline itself goes to a file that the message names, never to the terminal.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import click

from seline.cli import terminal
from seline.cli.exits import Exit, exit_for
from seline.errors import SelineError


class Problem(Exception):
    """An error with its code, message and next step; `exit` overrules the code's row.

    `is_told`: its message stands on stderr already.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        code: str = SelineError.code,
        exit: Exit | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        self.message = message
        self.hint = hint
        self.code = code
        self.exit = exit_for(code) if exit is None else exit
        self.details = details or {}
        self.is_told = False
        super().__init__(message)

    @classmethod
    def of(cls, error: SelineError) -> Problem:
        """Take an error raised in this process."""
        return cls(error.message, error.hint, code=error.code, details=error.details)


class Stopped(Exception):
    """The verb has said what it had to say; only the exit code is left."""

    def __init__(self, exit: Exit) -> None:
        self.exit = exit
        super().__init__()


@contextmanager
def way_out() -> Generator[None]:
    """Turn whatever a verb raises into talk and an exit code."""
    try:
        yield
        sys.stdout.flush()
    except (click.ClickException, click.exceptions.Exit):
        raise
    except Stopped as stopped:
        _flush_and_leave(stopped.exit)
    except (KeyboardInterrupt, click.Abort):
        terminal.say()
        terminal.complain(
            "Interrupted.", "What was answered is done; `seline status` shows the state."
        )
        _leave(Exit.INTERRUPTED)
    except Exception as error:  # noqa: BLE001  # the border of the process: nothing lies beyond
        _leave(_told(error))


def _told(error: Exception) -> Exit:
    """Say what happened and return the exit code."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        _let_stdout_go()
        return Exit.PIPE_CLOSED
    problem = _problem_of(error)
    if problem.is_told:
        terminal.advise(problem.hint)
    else:
        terminal.complain(problem.message, problem.hint)
    return problem.exit


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, SelineError):
        return Problem.of(error)
    if isinstance(error, OSError):
        return _of_os(error)
    return Problem(
        f"Something in Seline itself went wrong: {type(error).__name__}: {error}",
        f"Report it with the command you ran and the details in {_written_down(error)}.",
    )


def _written_down(error: Exception) -> str:
    """Keep the traceback for a report; return where."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="seline-error-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.writelines(traceback.format_exception(error))
    return file.name


def _of_os(error: OSError) -> Problem:
    where = f"{error.filename}: " if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Problem(
        f"{where}{error.strerror or error}.",
        "Free space where the file is to be written, then try again."
        if full
        else "Check the path, and that you may read and write there.",
        exit=Exit.FULL if full else Exit.FAILED,
    )


def _flush_and_leave(code: Exit) -> NoReturn:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _let_stdout_go()
        code = Exit.PIPE_CLOSED
    _leave(code)


def _leave(code: Exit) -> NoReturn:
    raise click.exceptions.Exit(int(code))


def _let_stdout_go() -> None:
    """Point stdout nowhere, so that the interpreter's own last flush stays quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
