"""How much two texts share at their beginning and at their end."""

from collections.abc import Callable
from typing import Final

COMPARED_BYTES: Final = 16 << 10


def shared_ends(before: bytes, after: bytes) -> tuple[int, int]:
    """Return how many first and how many last bytes two texts share, without overlap."""
    shortest = min(len(before), len(after))
    prefix = _shared(shortest, lambda low, high: before[low:high] == after[low:high])
    old, new = len(before), len(after)
    suffix = _shared(
        shortest - prefix,
        lambda low, high: before[old - high : old - low] == after[new - high : new - low],
    )
    return prefix, suffix


def _shared(size_max: int, is_same: Callable[[int, int], bool]) -> int:
    """Return how many bytes are the same: by pieces, and by halving the first that differs."""
    low = 0
    while low < size_max and is_same(low, min(low + COMPARED_BYTES, size_max)):
        low = min(low + COMPARED_BYTES, size_max)
    high = min(low + COMPARED_BYTES, size_max)
    while low < high:  # everything before `low` is the same, not everything before `high`
        middle = (low + high) // 2
        if is_same(low, middle + 1):
            low = middle + 1
        else:
            high = middle
    return low
