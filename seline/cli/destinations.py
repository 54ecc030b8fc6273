"""The verb destinations: list where exports go, or take a moved destination into use again."""

from typing import Any

import click

from seline.cli import terminal
from seline.cli.errors import Exit
from seline.cli.verbs import Api, VerbOptions, api_verb


@api_verb("destinations")
@click.argument("action", required=False, type=click.Choice(["use"]))
@click.argument("name", required=False)
async def destinations(
    api: Api, options: VerbOptions, action: str | None, name: str | None
) -> Exit:
    """List where exports go; `use NAME` takes a destination into use that was moved or replaced.

    `exports.destinations` sets them. The first export puts a marker in the folder. A later one that
    does not find it fails, because the disk may not be mounted.

    Examples:
      seline destinations
      seline destinations use nas
    """
    if action is None:
        _show(options, await api.get("/destinations"))
        return Exit.DONE
    if name is None:
        raise click.UsageError("`seline destinations use` needs a name: see `seline destinations`.")
    with terminal.busy(f"Looking at {name}"):
        used = await api.request("POST", "/destinations/{}/use", name)
    if options.json:
        terminal.out_json(used)
    terminal.notice(f"{name} is in use. Next: seline jobs run export")
    return Exit.DONE


def _show(options: VerbOptions, listed: dict[str, Any]) -> None:
    rows = [
        (
            found["name"],
            found["where"],
            found["whole_at"] or "-",
            found["failure"] or ", ".join(f"lacks {name}" for name in found["lacking"]) or "-",
        )
        for found in listed["destinations"]
    ]
    terminal.out_list(
        listed,
        ("DESTINATION", "WHERE", "LAST WHOLE EXPORT", "PROBLEM"),
        rows,
        as_json=options.json,
        empty="There are none: set `exports.destinations`.",
    )
