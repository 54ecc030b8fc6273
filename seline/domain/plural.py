"""Counts with their noun, lists that say how many more there are, and sentences in one line."""

from collections.abc import Iterable, Sequence
from typing import Final

NAMES_SHOWN_MAX: Final = 10


def counted(count: int, noun: str) -> str:
    """Return `1 document`, `2 documents`."""
    return f"{count:,} {noun}{ending(count)}"


def ending(count: int) -> str:
    """Return the letter that the noun of a count ends with, empty for 1."""
    return "" if count == 1 else "s"


def shortened(names: Sequence[str], shown_max: int = NAMES_SHOWN_MAX) -> str:
    """Return the first names as text, and how many more there are."""
    shown = ", ".join(names[:shown_max])
    more = len(names) - shown_max
    return shown if more <= 0 else f"{shown} and {more:,} more"


def in_one_line(parts: Iterable[str]) -> str:
    """Join clauses with semicolons, and whole sentences with spaces."""
    return "; ".join(parts).replace(".; ", ". ")
