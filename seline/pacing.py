"""Let other threads run while one thread looks at thousands of files."""

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

FILES: Final = 64
"""How many files are looked at between two pauses: about 1 ms."""
DOCUMENTS: Final = 8
"""Of how many documents all backups are looked at between two pauses: about 1 ms."""
NAMES: Final = 1_000
"""How many names are looked at between two pauses: about 1 ms."""
PAUSE_S: Final = 50e-6


def paced(items: Iterable[T], every: int = FILES) -> Iterator[T]:
    """Yield the items, with a short pause after every so many.

    Without the pauses a change waits for the interpreter's lock up to 5 ms, several times: a thread
    that gives the lock up for a system call often has it back before another one wakes.
    """
    for number, item in enumerate(items, 1):
        yield item
        if number % every == 0:
            time.sleep(PAUSE_S)
