"""The command `seline`: each verb is a client of the admin API, on this machine or another one."""

import sys

from seline.cli import (
    alerts,
    audit,
    backups,
    bench,
    copies,
    damage,
    demo,
    destinations,
    difference,
    documents,
    drill,
    exports,
    imports,
    jobs,
    keys,
    migrate,
    server,
    terminal,
    tokens,
)
from seline.cli.verbs import front

# Each module adds its verbs to `front` when it is imported.
__all__ = [
    "alerts",
    "audit",
    "backups",
    "bench",
    "copies",
    "damage",
    "demo",
    "destinations",
    "difference",
    "documents",
    "drill",
    "exports",
    "imports",
    "jobs",
    "keys",
    "main",
    "migrate",
    "server",
    "tokens",
]


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.platform == "win32":
        sys.exit("seline: Seline needs Linux. Next: run it inside WSL.")
    terminal.escape_unencodable()
    front(prog_name="seline")
