"""The verbs for the server: serve, status, config show."""

import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.errors import EXIT_FOR_CHECK, Exit
from seline.cli.verbs import Api, VerbOptions, WholeNumber, api_verb, front, local_verb, settings_of
from seline.domain.plural import counted
from seline.http import PREFIX

if TYPE_CHECKING:
    from seline.server import Serving
    from seline.settings import Settings

PORT_MAX: Final = 65_535
_MARKS: Final = {"ok": "ok  ", "info": "note", "warning": "WARN", "critical": "CRIT"}


@local_verb("serve")
@click.option(
    "--host",
    metavar="HOST",
    help="The address to listen on (else loopback; every address if PORT is in the environment).",
)
@click.option("--port", type=WholeNumber(0, PORT_MAX), metavar="PORT", help="Else PORT or 8080.")
def serve(options: VerbOptions, host: str | None, port: int | None) -> None:
    """Run the server on the data directory until it is stopped.

    The first start on a loopback address creates an admin token and prints it once, inside a
    ready `curl` line.

    Examples:
      seline serve
      seline serve --data-dir /srv/bot --port 9000
      SELINE_ADMIN_TOKEN=$(openssl rand -hex 24) seline serve --host 0.0.0.0
    """
    import asyncio

    from seline import logs
    from seline.server import run_server

    settings = settings_of(options, **{"server.host": host, "server.port": port})
    logs.configure(level=settings.log.level, form=settings.log.format)
    asyncio.run(run_server(settings, announce=_announce))


def _announce(running: "Serving") -> None:
    """Print the server's address and how to call it.

    Only on a terminal, or with a new token: the log has the rest, and a platform that reads stdout
    takes each line of it for JSON. Not through the logger, which would keep the token and the link.
    """
    secret = running.first_secret
    if secret is None and not sys.stdout.isatty():
        return
    health = f"{running.address}{PREFIX}/health"
    lines = ["", f"Seline keeps {running.data_dir} and listens on {running.listens_on}"]
    first = "Next: run that line; `seline token create` makes more tokens."
    if running.first_link:
        first = "Next: open the link, or run that line; `seline token create` makes more tokens."
        lines += [
            "Its page, and the link that signs you in once, within 15 minutes:",
            "",
            f"  {running.first_link}",
            "",
        ]
    if secret is not None:
        lines += [
            "The admin token of this first start, shown this once:",
            "",
            f"  curl -H 'Authorization: Bearer {secret}' {health}",
            "",
            first,
        ]
    elif running.tokens.has_any:
        lines += ["Next: `seline status`; `seline token create` makes another token."]
        if running.settings.server.page:
            lines.insert(2, f"Its page is {running.address}/")
    else:
        lines += ["There is no token yet. Next: set SELINE_ADMIN_TOKEN, or `seline token create`."]
    terminal.out("\n".join((*lines, "")))


@api_verb("status")
async def status(api: Api, options: VerbOptions) -> Exit:
    """Show the store's health and the next step for each problem.

    Exits 0 while nothing is critical; 3 if documents are broken, 6 if the volume is full.

    Examples:
      seline status
      seline status --json | jq -r .status
      seline status --url https://bot.example.org
    """
    health, documents = await api.get("/health"), None
    if health["metadata"] is not None:
        documents = (await api.get("/documents"))["documents"]
        health = await api.get("/health")  # with what the listing found
    if options.json:
        terminal.out_json(health)
    else:
        _show_health(
            health, documents, served_by=await _served_by(api, is_open=documents is not None)
        )
    return _exit(health)


def _show_health(
    health: dict[str, Any], documents: list[dict[str, Any]] | None, *, served_by: str
) -> None:
    """Print the health; without `documents` the volume is not open."""
    if documents is None:
        terminal.out(f"{health['status'].upper()}: the volume is not open")
        terminal.out(f"  {health['mount_path']} ({served_by})")
    else:
        count = counted(len(documents), "document")
        backups = counted(health["backup_count"], "backup")
        terminal.out(f"{health['status'].upper()}: {count}, {backups}")
        terminal.out(f"  in {health['mount_path']} ({served_by})")
        terminal.out(
            f"  {health['total_size_mb']} MB, {health['usage_percent']} % of the volume is used"
        )
    terminal.out()
    for check in health["checks"]:
        first, *more = check["detail"].splitlines() or [""]
        terminal.out(f"  {_MARKS[check['status']]}  {check['name']}: {first}")
        for line in more:
            terminal.out(f"        {line}")
        if check["fix"] and check["status"] != "ok":
            terminal.out(textwrap.indent(check["fix"], " " * 8))


async def _served_by(api: Api, *, is_open: bool) -> str:
    """Return which process answers."""
    if api.endpoint.opened_here and not is_open:  # a server that waits for a copy does not hold it
        return "opened for this command; a server may be waiting for it"
    if api.endpoint.opened_here:
        return "no process holds it: opened for this command"
    if api.endpoint.socket is None:
        return api.endpoint.where
    about = await api.get("/status")
    address = f", listening on {about['address']}" if about["address"] else ""
    return f"held by process {about['pid']} since {about['since']}{address}"


def _exit(health: dict[str, Any]) -> Exit:
    critical = [check["name"] for check in health["checks"] if check["status"] == "critical"]
    known = [EXIT_FOR_CHECK[name] for name in critical if name in EXIT_FOR_CHECK]
    return known[0] if known else Exit.FAILED if critical else Exit.DONE


@front.group("config")
def config() -> None:
    """Show the settings."""


@local_verb("show", group=config)
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
def show(options: VerbOptions, origin: bool) -> None:
    """Print every setting as this command would use it; secrets are masked.

    Examples:
      seline config show
      seline config show --origin
      seline config show --json | jq '."storage.data_dir"'
    """
    settings = settings_of(options)
    values, origins = _values(settings), settings.origins
    if not options.json:
        heads = ("SETTING", "VALUE", "FROM")[: 3 if origin else 2]
        rows = [(name, _text(value), origins[name])[: len(heads)] for name, value in values.items()]
        terminal.out_table(heads, rows)
    elif origin:
        terminal.out_json(
            {name: {"value": value, "origin": origins[name]} for name, value in values.items()}
        )
    else:
        terminal.out_json(values)


def _values(settings: "Settings") -> dict[str, Any]:
    """Return the settings by name; those without a fixed default show the value in use."""
    from seline.settings import setting_names, shown

    values = {name: shown(settings, name) for name in setting_names()}
    host, port = settings.bind
    return values | {
        "storage.data_dir": settings.data_dir,
        "server.host": host or "all addresses",
        "server.port": port,
    }


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"  # pyright: ignore[reportUnknownArgumentType]
    return str(value)
