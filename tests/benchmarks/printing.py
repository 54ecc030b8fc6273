"""Measure calls and print the results."""

import statistics
import time
from collections.abc import Callable

import msgspec

ROUNDS = 7
DOCUMENT = {f"field_{number:02d}": f"value {number} of a profile" for number in range(27)}
BYTES = msgspec.json.format(msgspec.json.encode(DOCUMENT), indent=2) + b"\n"


def print_measure(what: str, measured: str, goal: str, detail: str) -> None:
    """Print one measure with its goal."""
    print(f"  {what:<52} {measured:>10}   goal {goal:<10} {detail}", flush=True)


def ratio(ratios: list[float]) -> str:
    """Return the median of the ratios as text."""
    return f"{statistics.median(ratios):.2f} ×"


def per_call(call: Callable[[], object], count: int) -> float:
    """Return the mean time of `count` calls, in seconds."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count
