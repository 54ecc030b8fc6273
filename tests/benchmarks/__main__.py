"""`python -m tests.benchmarks [NAME …] [--iops N]`: print each measure, with its goal.

Each ratio sets Seline against raw system calls in the same run on the same file system. Nothing
is asserted: machines differ, ratios are for people. `--iops 3000` bounds the volume to as many
writes in a second, which is what some hosts give.
"""

from __future__ import annotations

import argparse
import asyncio
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
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("measures", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--iops", type=int, help="how many writes the volume takes in a second")
    asked = parser.parse_args()
    unknown = sorted(set(asked.measures) - set(MEASURES))
    if unknown:
        parser.error(f"there is no measure {unknown[0]}; there are: {', '.join(MEASURES)}")
    with place(iops=asked.iops) as here:
        bound = f" bounded to {asked.iops} writes/s" if asked.iops else ""
        print(f"Seline's measures, on {describe(here)}{bound}; medians of {ROUNDS} rounds")
        for name in asked.measures or MEASURES:
            MEASURES[name](here)


if __name__ == "__main__":
    main()
