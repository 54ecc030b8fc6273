"""The command `seline`: each verb is a client of the admin API, on this machine or another one."""

import sys
from typing import Final

from seline.cli import (
    alerts,
    backups,
    config,
    damage,
    demo,
    documents,
    exports,
    imports,
    jobs,
    serve,
    status,
    terminal,
    tokens,
)
from seline.cli.group import front

__all__ = ["VERB_MODULES", "main"]

VERB_MODULES: Final = (
    serve,
    status,
    tokens,
    config,
    documents,
    backups,
    damage,
    demo,
    exports,
    imports,
    jobs,
    alerts,
)
"""Each module adds its verbs to the group when it is imported."""


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.platform == "win32":
        sys.exit("seline: Seline needs Linux. Next: run it inside WSL.")
    terminal.escape_unencodable()
    front(prog_name="seline")
