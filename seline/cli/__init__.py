"""The command `seline`: every verb a client of the admin API, wherever the store is (SPEC §8)."""

from __future__ import annotations

import sys

from seline.cli import (
    backups,
    config,
    damage,
    demo,
    documents,
    exporting,
    importing,
    serving,
    status,
    tokens,
)
from seline.cli.front import front

__all__ = ["main"]

VERBS = (serving, status, documents, backups, damage, exporting, importing, tokens, config, demo)
"""The modules whose verbs `--help` shows, in this order."""


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.platform == "win32":
        sys.exit("seline: Seline needs Linux. Next: run it inside WSL.")
    front(prog_name="seline")
