"""The command `seline`: every verb a client of the admin API, wherever the store is (SPEC §8)."""

from __future__ import annotations

import sys
from typing import Final

from seline.cli import (
    alerts,
    backups,
    config,
    damage,
    demo,
    documents,
    exporting,
    importing,
    jobs,
    serving,
    status,
    terminal,
    tokens,
)
from seline.cli.group import front

__all__ = ["VERB_MODULES", "main"]

VERB_MODULES: Final = (
    serving,
    status,
    tokens,
    config,
    documents,
    backups,
    damage,
    demo,
    exporting,
    importing,
    jobs,
    alerts,
)
"""Each puts its verbs into the group when it is imported."""


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.platform == "win32":
        sys.exit("seline: Seline needs Linux. Next: run it inside WSL.")
    terminal.speak_plainly()
    front(prog_name="seline")
