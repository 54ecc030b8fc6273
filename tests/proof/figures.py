"""The figures of the long tier: each suite adds its own, `docs/reliability.md` is made of them.

They are kept beside the run, in the file named by SELINE_FIGURES (default `.prove/figures.jsonl`),
one JSON object per line; `python -m tests.proof.report` writes the document.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

DEFAULT = Path(".prove") / "figures.jsonl"


def note(suite: str, what: str, *, tried: int, failures: int, where: str, **more: object) -> None:
    """Add one figure and print it: so many were tried, so many broke a promise, on what medium.

    The suite `negative control` counts how many a wrong store was caught by.
    """
    path = Path(os.environ.get("SELINE_FIGURES") or DEFAULT)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {
        "suite": suite,
        "what": what,
        "tried": tried,
        "failures": failures,
        "where": where,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        **more,
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    extra = "".join(f", {name} {number}" for name, number in more.items())
    print(f"\n{suite}: {what}: {tried:,} tried, {failures} failures, on {where}{extra}")
