"""`python -m tests.benchmarks [NAME …] [--iops N]`: print each measure with its goal.

Each ratio compares Seline with raw system calls in the same run on the same file system. Nothing is
asserted, because machines differ. If the kernel can limit a volume's writes, the saves are measured
again with 3,000 writes per second, as on Railway; `--iops N` limits all measures.
"""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks import (
    checking,
    comparing,
    copying,
    journaling,
    page,
    requests,
    serving,
    storing,
)
from tests.benchmarks.place import can_be_limited, describe, place
from tests.benchmarks.printing import ROUNDS

HOST_IOPS = 3000
MEASURES: dict[str, Callable[[Path], None]] = {
    "saves": lambda here: asyncio.run(storing.saves(here)),
    "journal": lambda here: asyncio.run(journaling.journal(here)),
    "reads": lambda here: asyncio.run(storing.reads(here)),
    "export": lambda here: asyncio.run(storing.export(here)),
    "start": serving.start,
    "crashed": serving.start_after_crash,
    "idle": serving.idle,
    "home": page.home,
    "gets": requests.gets,
    "puts": requests.puts,
    "mirror": copying.mirror,
    "restore": copying.restore,
    "pass": lambda here: asyncio.run(checking.speed(here)),
    "busy": lambda here: asyncio.run(checking.saves_during_a_pass(here)),
    "peers": comparing.peers,
}
ONLY_IF_NAMED = frozenset({"peers"})
"""They write a page, and need other programs."""


def main() -> None:
    """Run the measures that are named, or all but those of `ONLY_IF_NAMED`, and print them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("measures", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--iops", type=int, help="the volume's limit of writes per second")
    options = parser.parse_args()
    unknown = sorted(set(options.measures) - set(MEASURES))
    if unknown:
        parser.error(f"there is no measure {unknown[0]}; the measures: {', '.join(MEASURES)}")
    measures = options.measures or [name for name in MEASURES if name not in ONLY_IF_NAMED]
    if options.iops or not can_be_limited():
        _run(measures, iops=options.iops)
    else:
        _run(measures, iops=None)
        _run([name for name in measures if name == "saves"], iops=HOST_IOPS)


def _run(measures: Sequence[str], *, iops: int | None) -> None:
    if not measures:
        return
    with place(iops=iops) as here:
        limit = f" limited to {iops:,} writes/s" if iops else ""
        print(f"Seline's measures, on {describe(here)}{limit}; medians of {ROUNDS} rounds")
        for name in measures:
            MEASURES[name](here)


if __name__ == "__main__":
    main()
