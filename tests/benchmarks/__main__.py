"""`python -m tests.benchmarks [NAME …]`: print each measure of the project, with its goal.

Each ratio sets Seline against raw system calls in the same run on the same file system. Nothing
is asserted: machines differ, ratios are for people.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import checking, serving, storing
from tests.benchmarks.place import describe, place
from tests.benchmarks.printing import ROUNDS

MEASURES: dict[str, Callable[[Path], None]] = {
    "saves": lambda here: asyncio.run(storing.saves(here)),
    "reads": lambda here: asyncio.run(storing.reads(here)),
    "export": lambda here: asyncio.run(storing.export(here)),
    "start": serving.start,
    "idle": serving.idle,
    "pass": lambda here: asyncio.run(checking.speed(here)),
    "beside": lambda here: asyncio.run(checking.beside_saves(here)),
}


def main() -> None:
    """Run the measures named, else every one, and print them."""
    unknown = sorted(set(sys.argv[1:]) - set(MEASURES))
    if unknown:
        sys.exit(f"There is no measure {unknown[0]}; there are: {', '.join(MEASURES)}.")
    with place() as here:
        print(f"Seline's measures, on {describe(here)}; medians of {ROUNDS} rounds")
        for name in sys.argv[1:] or MEASURES:
            MEASURES[name](here)


if __name__ == "__main__":
    main()
