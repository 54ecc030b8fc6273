"""The verb audit: list who changed what."""

from typing import Any, Final

import click

from seline.cli import terminal
from seline.cli.verbs import Api, VerbOptions, WholeNumber, api_verb
from seline.quoting import quoted

LIMIT_MAX: Final = 1_000


@api_verb("audit")
@click.option(
    "--limit",
    type=WholeNumber(1, LIMIT_MAX),
    default=20,
    show_default=True,
    help="How many entries.",
)
@click.option("--before", default="", metavar="INSTANT", help="Only older entries.")
@click.option("--document", default="", metavar="NAME", help="Only entries about this document.")
async def audit(api: Api, options: VerbOptions, limit: int, before: str, document: str) -> None:
    """List the calls that may have changed something, newest first: who, what, and the outcome.

    The log has the calls of the admin API, the command line and the page; not what a bot saves.

    Examples:
      seline audit
      seline audit --limit 100 --document user_profile.json
      seline audit --json
    """
    given = {"limit": str(limit), "before": before, "document": document}
    query = {name: value for name, value in given.items() if value}
    listed = await api.request("GET", "/audit", query=query)
    terminal.out_list(
        listed,
        ("AT", "WHO", "WHAT", "OUTCOME", "CHANGED"),
        [_row(entry) for entry in listed["entries"]],
        as_json=options.json,
        empty="There is no entry.",
    )
    if listed["damaged"]:
        terminal.warn(f"{listed['damaged']} damaged lines of the log were skipped.")
    if listed["next"] and not options.json:
        only = f" --document {quoted(document)}" if document else ""
        terminal.notice(f"Older ones: `seline audit --before {listed['next']}{only}`.")


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    changes: list[dict[str, Any]] = entry["changes"]
    shown = [
        f"{change['document']} {_short(change['before'])} to {_short(change['after'])}"
        for change in changes
    ]
    more = entry["changed"] - len(changes)
    return (
        entry["at"],
        entry["who"],
        entry["what"],
        entry["outcome"],
        ", ".join([*shown, *([f"{more} more"] if more > 0 else [])]),
    )


def _short(revision: str | None) -> str:
    return "none" if revision is None else revision[:12]
