"""`python -m tests.proof.report`: write docs/reliability.md from the figures of the last long run.

Nothing in that document is written by hand: what no figure says is not in it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tests.proof.figures import DEFAULT

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
CONTROL = "negative control"
Figure: TypeAlias = Mapping[str, Any]

ABOVE = """\
# Reliability, in figures

Written by `make prove` from its own output; nothing here is typed by hand. Each line says how often
something was broken on purpose, and how often a promise of SPEC's V1 to V12 was broken after it.
"""
CONTROLS = """\
## Negative controls

The same suites against stores that are wrong on purpose. A suite that finds nothing here would
find nothing anywhere.
"""


def main() -> None:
    """Write the document, and print its headline."""
    path = Path(os.environ.get("SELINE_FIGURES") or DEFAULT)
    if not path.exists():
        sys.exit(f"There are no figures in {path}: run `make prove` first.")
    figures = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    DOCUMENT.write_text(document(figures), encoding="utf-8")
    print(f"{headline(figures)} ({DOCUMENT.name})")


def document(figures: Sequence[Figure]) -> str:
    """Return the document."""
    faults = [one for one in figures if one["suite"] != CONTROL]
    controls = [one for one in figures if one["suite"] == CONTROL]
    parts = [ABOVE, headline(figures) + "\n", *_sections(faults)]
    if controls:
        parts += [CONTROLS, _table(controls, "flagged")]
    return "\n".join(parts)


def headline(figures: Sequence[Figure]) -> str:
    """Return one sentence over everything that was tried."""
    faults = [one for one in figures if one["suite"] != CONTROL]
    tried = sum(one["tried"] for one in faults)
    failures = sum(one["failures"] for one in faults)
    places = sorted({one["where"] for one in faults})
    newest = max((one["date"] for one in faults), default="never")
    return (
        f"**{tried:,} faults tried, {failures:,} promises broken** "
        f"({newest}, on {', '.join(places) or 'nothing'})."
    )


def _sections(figures: Sequence[Figure]) -> Iterable[str]:
    for suite in dict.fromkeys(one["suite"] for one in figures):
        of_suite = [one for one in figures if one["suite"] == suite]
        yield f"## {suite[:1].upper()}{suite[1:]}\n\n{_table(of_suite, 'failures')}"


def _table(figures: Sequence[Figure], counted: str) -> str:
    lines = [f"| what | tried | {counted} | on | also |", "|---|---:|---:|---|---|"]
    lines += [
        f"| {one['what']} | {one['tried']:,} | {one['failures']:,} | {one['where']} "
        f"| {_also(one)} |"
        for one in figures
    ]
    return "\n".join(lines) + "\n"


def _also(figure: Figure) -> str:
    known = {"suite", "what", "tried", "failures", "where", "date"}
    return ", ".join(f"{name} {value}" for name, value in figure.items() if name not in known)


if __name__ == "__main__":
    main()
