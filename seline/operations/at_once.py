"""What is done at once: how much of it, and which error counts if several parts fail."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from seline.errors import SelineError

READS_MAX: Final = 8
"""Files of a destination that are read at once."""
READ_BYTES_MAX: Final = 8 << 20
T = TypeVar("T")


def batches(
    items: Sequence[T],
    size_bytes: Callable[[T], int],
    *,
    count_max: int = READS_MAX,
    bytes_max: int = READ_BYTES_MAX,
) -> Iterator[list[T]]:
    """Divide items by number and bytes; one that is larger is alone."""
    batch: list[T] = []
    batch_bytes = 0
    for item in items:
        is_full = len(batch) >= count_max or batch_bytes + size_bytes(item) > bytes_max
        if batch and is_full:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(item)
        batch_bytes += size_bytes(item)
    if batch:
        yield batch


def error_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to raise of several: Seline's own before any other."""
    own = [error for error in group.exceptions if isinstance(error, SelineError)]
    return own[0] if own else group.exceptions[0]
