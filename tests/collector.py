"""Count the garbage collections of this process."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def counted_collections() -> Iterator[list[str]]:
    """Give a list that gets an entry at the start and one at the end of each collection."""
    noted: list[str] = []

    def note(phase: str, _info: dict[str, int]) -> None:
        noted.append(phase)

    gc.callbacks.append(note)
    try:
        yield noted
    finally:
        gc.callbacks.remove(note)
