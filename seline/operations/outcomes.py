"""What one job did at each of several destinations, as one text."""

import logging
from collections.abc import Iterable

from seline.domain.plural import in_one_line
from seline.errors import ExportFailed, SelineError

Outcome = str | BaseException
"""What was done in a line, empty if nothing, or what made it fail."""
_log = logging.getLogger("seline.exports")


def joined(outcomes: Iterable[tuple[str, Outcome]]) -> str:
    """Return the lines of all destinations, each given by name, as one.

    Raises ExportFailed if one failed; it names each failure and has the lines of the others.
    """
    outcomes = list(outcomes)
    failed = [_failure(name, error) for name, error in outcomes if isinstance(error, BaseException)]
    done = [line for _, line in outcomes if isinstance(line, str) and line]
    if failed:
        raise ExportFailed(in_one_line([*failed, *done]))
    return in_one_line(done)


def explained(error: Exception) -> tuple[str, str]:
    """Return the message of an error, and what to do."""
    if isinstance(error, SelineError):
        return error.message, error.hint
    return f"{type(error).__name__}: {error}", ExportFailed.hint


def _failure(name: str, error: BaseException) -> str:
    if not isinstance(error, Exception):
        raise error
    if not isinstance(error, SelineError):  # a defect; the other destinations are reported as well
        _log.error("%s: an unexpected error", name, exc_info=error)
    message, cure = explained(error)
    return f"{name}: {message} {cure}"
