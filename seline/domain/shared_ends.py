"""How much two texts share at their beginning and at their end."""

from collections.abc import Callable
from typing import Final, Literal

PIECES_BYTES: Final = (16 << 10, 1 << 10)


def shared_ends(before: bytes, after: bytes) -> tuple[int, int]:
    """Return how many first and how many last bytes two texts share, without overlap."""
    shortest = min(len(before), len(after))
    prefix = _shared(shortest, lambda at, end: (before[at:end], after[at:end]), "big")
    old, new = len(before), len(after)
    suffix = _shared(
        shortest - prefix,
        lambda at, end: (before[old - end : old - at], after[new - end : new - at]),
        "little",
    )
    return prefix, suffix


def _shared(
    size_max: int,
    pieces: Callable[[int, int], tuple[bytes, bytes]],
    order: Literal["big", "little"],
) -> int:
    """Return how many bytes are the same: the first small piece that differs as two numbers.

    The highest bit in which the numbers differ is in the first byte that differs.
    """
    same = 0
    for size in PIECES_BYTES:
        while same + size < size_max:
            one, other = pieces(same, same + size)
            if one != other:
                break
            same += size
    end = min(same + PIECES_BYTES[-1], size_max)
    one, other = pieces(same, end)
    different = int.from_bytes(one, order) ^ int.from_bytes(other, order)
    return end - (different.bit_length() + 7) // 8
