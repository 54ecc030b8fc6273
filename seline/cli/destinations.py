"""The verb destinations: list where exports go, or take a moved destination into use again."""

from typing import Any, Final

import click

from seline.cli import terminal
from seline.cli.errors import Exit
from seline.cli.verbs import Api, VerbOptions, api_verb, carry_out, preview_options


@api_verb("destinations")
@click.argument("action", required=False, type=click.Choice(["use", "accept"]))
@click.argument("name", required=False)
@preview_options
async def destinations(
    api: Api, options: VerbOptions, action: str | None, name: str | None
) -> Exit:
    """List where copies go; `use NAME` takes a destination into use that was moved or replaced.

    `exports.destinations` sets them. The first copy puts a marker there. A later one that does not
    find it fails, because the disk may not be mounted. `accept NAME` copies now, and makes that the
    copy which a restore takes: after over half of the documents were deleted on purpose, or where
    this volume replaces another one in a mirror.

    Examples:
      seline destinations
      seline destinations use nas
      seline destinations accept bucket --yes
    """
    if action is None:
        _show(options, await api.get("/destinations"))
        return Exit.DONE
    if name is None:
        raise click.UsageError(
            f"`seline destinations {action}` needs a name: see `seline destinations`."
        )
    done = await _change(api, options, action, name)
    if done is None:
        return Exit.DONE
    if action == "accept":
        terminal.notice(f"{name} has this volume's copy; a restore takes it.")
    else:
        job = "mirror" if done["mode"] == "mirror" else "export"
        if not done["has_copy"]:
            terminal.notice(f"No copy of this volume is known to be at {name}.")
        terminal.notice(f"{name} is in use. Next: seline jobs run {job}")
    return Exit.DONE


_PLANS: Final = {
    "accept": "This volume would be copied to {} now, and a restore would take that copy.",
    "use": "{} would be taken into use with the marker that is there, or a new one.",
}


async def _change(api: Api, options: VerbOptions, action: str, name: str) -> Any | None:
    """Ask, then make the change; return what was done, None after a dry run."""

    async def send(query: dict[str, str]) -> Any:
        if query:
            listed = (await api.get("/destinations"))["destinations"]
            if any(found["name"] == name for found in listed):
                return {"name": name}
        return await api.request("POST", f"/destinations/{{}}/{action}", name)

    return await carry_out(api, options, send, lambda _preview: _PLANS[action].format(name))


def _show(options: VerbOptions, listed: dict[str, Any]) -> None:
    rows = [
        (
            found["name"],
            found["where"],
            found["mirrored_at"] or found["whole_at"] or "-",
            f"{found['proven_at']} by {found['proven_by']}" if found["proven_at"] else "-",
            _problem(found),
        )
        for found in listed["destinations"]
    ]
    terminal.out_list(
        listed,
        ("DESTINATION", "WHERE", "LAST WHOLE COPY", "PROVEN", "PROBLEM"),
        rows,
        as_json=options.json,
        empty="There are none: set `exports.destinations`.",
    )


def _problem(found: dict[str, Any]) -> str:
    """Return the first problem of a destination that is known, `-` without one."""
    is_exposed = found["on_data_disk"] and not found["same_disk"]
    return (
        found["mirror_failure"]
        or found["failure"]
        or found["drill_failure"]
        or ", ".join(f"lacks {name}" for name in found["mirror_lacking"] or found["lacking"])
        or ("it is on the disk of the data directory" if is_exposed else "-")
    )
