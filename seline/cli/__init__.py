"""The command `seline`: each verb is a client of the admin API, on this machine or another one."""

import sys
from typing import Final

from seline.cli import (
    alerts,
    backups,
    damage,
    demo,
    documents,
    exports,
    imports,
    jobs,
    server,
    terminal,
    tokens,
)
from seline.cli.verbs import front

__all__ = ["VERB_MODULES", "main"]

VERB_MODULES: Final = (
    alerts,
    backups,
    damage,
    demo,
    documents,
    exports,
    imports,
    jobs,
    server,
    tokens,
)
"""Each module adds its verbs to the group when it is imported."""


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.platform == "win32":
        sys.exit("seline: Seline needs Linux. Next: run it inside WSL.")
    terminal.escape_unencodable()
    front(prog_name="seline")
