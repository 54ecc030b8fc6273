"""The figures of the long fault suites, from which `docs/reliability.md` is generated.

The file named by SELINE_FIGURES (default `.prove/figures.jsonl`) has one JSON object per line.
`python -m tests.proof.report` writes the document.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

DEFAULT = Path(".prove") / "figures.jsonl"


def note(suite: str, what: str, *, tried: int, failures: int, where: str, **more: object) -> None:
    """Append one figure and print it: how many faults were tried on the medium `where`, and failed.

    In the suite `negative control`, `failures` is how often a wrong store was flagged.
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
