"""The verb diff, and how a difference is shown to a person."""

import json
from collections.abc import Iterator
from typing import Any, Final

import click

from seline.cli import terminal
from seline.cli.verbs import Api, VerbOptions, api_verb
from seline.domain.plural import counted

_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}
_COLOURS: Final = {"added": "green", "removed": "red", "changed": "yellow"}


@api_verb("diff")
@click.argument("name")
@click.argument("before", metavar="[FROM]", default="")
@click.argument("after", metavar="[TO]", default="current")
async def diff(api: Api, options: VerbOptions, name: str, before: str, after: str) -> None:
    """Show what differs between two contents of a document.

    FROM and TO are a backup's name, `current`, `quarantine:ITEM`, `copy:DESTINATION` or
    `copy:DESTINATION@INSTANT`. Without them: the newest backup that differs, and what is current.

    Examples:
      seline diff user_profile.json
      seline diff user_profile.json user_profile_20250106_143022.json
      seline diff user_profile.json copy:nas@2025-01-06 current --json | jq .patch
    """
    query = {"from": before, "to": after} if before else {"to": after}
    with terminal.busy("Comparing"):
        compared = await api.request("GET", "/documents/{}/diff", name, query=query)
    if options.json:
        terminal.out_json(compared)
        return
    terminal.out_changes(change_lines(compared))
    of, to = compared["from"]["content"], compared["to"]["content"]
    terminal.notice(f"{name} from {of} to {to}: {summary(compared)}.")


def summary(difference: dict[str, Any]) -> str:
    """Return how many values differ, in words."""
    counts = [f"{difference[kind]:,} {kind}" for kind in _SIGNS if difference[kind]]
    return ", ".join(counts) or "nothing differs"


def change_lines(
    difference: dict[str, Any], lines_max: int | None = None
) -> Iterator[tuple[str, str]]:
    """Yield a line for each change, and its colour, which may be empty."""
    for change in difference["changes"][:lines_max]:
        kind = change["kind"]
        path = _path(change["path"])
        before, after = _value(change, "before"), _value(change, "after")
        values = {"added": after, "removed": before, "changed": f"{before} → {after}"}
        yield f"{_SIGNS[kind]} {path}: {values[kind]}", _COLOURS[kind]
    count = sum(difference[kind] for kind in _SIGNS)
    left = count - min(len(difference["changes"]), count if lines_max is None else lines_max)
    if left:
        yield f"  and {counted(left, 'more change')}", ""


def _path(path: str) -> str:
    """Return a path as text for a terminal, quoted if it has white space or cannot be printed."""
    if not path:
        return "the whole document"
    return path if path.isprintable() and " " not in path else _text(path)


def _value(change: dict[str, Any], side: str) -> str:
    value = change[side]
    if side in change["shortened"]:
        return str(value) if str(value).isprintable() else _text(value)
    return _text(value)


def _text(value: object) -> str:
    """Return a value as JSON on one line that cannot command a terminal."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)
