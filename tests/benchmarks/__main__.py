"""`python -m tests.benchmarks [NAME …] [--iops N]`: print each measure, with its goal.

Each ratio sets Seline against raw system calls in the same run on the same file system. Nothing
is asserted: machines differ, ratios are for people. The saves are measured once more on a volume
that takes 3,000 writes in a second, as Railway's do, where the kernel can bound one; `--iops N`
bounds everything.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks import checking, serving, storing
from tests.benchmarks.place import can_be_bounded, describe, place
from tests.benchmarks.printing import ROUNDS

HOST_IOPS = 3000
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
    measures = asked.measures or list(MEASURES)
    if asked.iops or not can_be_bounded():
        _run(measures, iops=asked.iops)
    else:
        _run(measures, iops=None)
        _run([name for name in measures if name == "saves"], iops=HOST_IOPS)


def _run(measures: Sequence[str], *, iops: int | None) -> None:
    if not measures:
        return
    with place(iops=iops) as here:
        bound = f" bounded to {iops:,} writes/s" if iops else ""
        print(f"Seline's measures, on {describe(here)}{bound}; medians of {ROUNDS} rounds")
        for name in measures:
            MEASURES[name](here)


if __name__ == "__main__":
    main()
