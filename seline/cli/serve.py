"""The verb serve: run the server and print how to call it for the first time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from seline.cli import terminal
from seline.cli.group import front
from seline.cli.verbs import GlobalOptions, WholeNumber, local_verb, settings_of
from seline.http import PREFIX

if TYPE_CHECKING:
    from seline.server import Serving

PORT_MAX: Final = 65_535


@local_verb(
    front,
    "serve",
    section="Server",
    examples="""
    seline serve
    seline serve --data-dir /srv/bot --port 9000
    SELINE_ADMIN_TOKEN=$(openssl rand -hex 24) seline serve --host 0.0.0.0
    """,
)
@click.option(
    "--host",
    metavar="HOST",
    help="The address to listen on (else loopback; every address if PORT is in the environment).",
)
@click.option("--port", type=WholeNumber(0, PORT_MAX), metavar="PORT", help="Else PORT or 8080.")
def serve(options: GlobalOptions, host: str | None, port: int | None) -> None:
    """Run the server on the data directory until it is stopped.

    The first start on a loopback address creates an admin token and prints it once, inside a
    ready `curl` line.
    """
    import asyncio

    from seline import logs
    from seline.server import run_server

    settings = settings_of(options, **{"server.host": host, "server.port": port})
    logs.configure(level=settings.log.level, form=settings.log.format)
    asyncio.run(run_server(settings, announce=_announce))


def _announce(running: Serving) -> None:
    """Print the server's address and how to call it.

    Only on a terminal, or with a new token: the log has the rest, and a platform that reads stdout
    takes each line of it for JSON. Not through the logger, which would keep the token.
    """
    secret = running.first_secret
    if secret is None and not sys.stdout.isatty():
        return
    health = f"{running.address}{PREFIX}/health"
    lines = ["", f"Seline keeps {running.data_dir} and listens on {running.address}"]
    if secret is not None:
        lines += [
            "The admin token of this first start, shown this once:",
            "",
            f"  curl -H 'Authorization: Bearer {secret}' {health}",
            "",
            "Next: run that line; `seline token create` makes more tokens.",
        ]
    elif running.tokens.has_any:
        lines += ["Next: `seline status`; `seline token create` makes another token."]
    else:
        lines += ["There is no token yet. Next: set SELINE_ADMIN_TOKEN, or `seline token create`."]
    for line in (*lines, ""):
        terminal.out(line)
    terminal.flush()
