"""The verbs for backups: backups, pin, unpin, restore, prune."""

from typing import Any, Final

import click

from seline.cli import terminal
from seline.cli.difference import change_lines, summary
from seline.cli.verbs import Api, VerbOptions, api_verb, carry_out, preview_options
from seline.domain.plural import counted

CHANGES_SHOWN_MAX: Final = 20
"""How many changes the plan of a restore shows."""


@api_verb("backups")
@click.argument("name")
async def backups(api: Api, options: VerbOptions, name: str) -> None:
    """List a document's backups, newest first, and why each is kept.

    Examples:
      seline backups user_profile.json
      seline backups user_profile.json --json
      seline load user_profile.json --backup user_profile_20250106_143022.json
    """
    listed = await api.get("/documents/{}/backups", name)
    rows = [
        (
            backup["name"],
            backup["taken_at"],
            terminal.size_text(backup["size_bytes"]),
            backup["verdict"],
            "yes" if backup["pinned"] else "",
            backup["because"],
        )
        for backup in listed["backups"]
    ]
    terminal.out_list(
        listed,
        ("BACKUP", "TAKEN", "SIZE", "STATE", "PINNED", "KEPT BECAUSE"),
        rows,
        as_json=options.json,
        empty=f"{name} has no backup yet: its next change makes one.",
    )


@api_verb("pin")
@click.argument("name")
@click.argument("backup")
@click.option("--because", metavar="TEXT", help="Why it is kept, shown in the list.")
async def pin(api: Api, options: VerbOptions, name: str, backup: str, because: str | None) -> None:
    """Keep a backup until it is unpinned; rotation leaves it out.

    Examples:
      seline pin user_profile.json user_profile_20250106_143022.json
      seline pin user_profile.json user_profile_20250106_143022.json --because "before the move"
    """
    body = {"because": because} if because else None
    done = f"{backup} is kept until it is unpinned."
    await _pin(api, options, "PUT", name, backup, done, body)


@api_verb("unpin")
@click.argument("name")
@click.argument("backup")
async def unpin(api: Api, options: VerbOptions, name: str, backup: str) -> None:
    """Let rotation remove a pinned backup when it is due.

    Examples:
      seline unpin user_profile.json user_profile_20250106_143022.json
    """
    done = f"{backup} is rotated like any other backup."
    await _pin(api, options, "DELETE", name, backup, done)


async def _pin(
    api: Api,
    options: VerbOptions,
    method: str,
    name: str,
    backup: str,
    done: str,
    body: dict[str, str] | None = None,
) -> None:
    pinned = await api.request(method, "/documents/{}/backups/{}/pin", name, backup, body=body)
    if options.json:
        terminal.out_json(pinned)
    terminal.notice(done)
    terminal.notice_undo(pinned)


@api_verb("restore")
@click.argument("name")
@click.argument("backup", required=False)
@click.option("--backup", "named", metavar="BACKUP", help="The same as BACKUP.")
@click.option("--path", metavar="POINTER", help="Take only this value, such as /items/0.")
@preview_options
async def restore(
    api: Api,
    options: VerbOptions,
    name: str,
    backup: str | None,
    named: str | None,
    path: str | None,
) -> None:
    """Go back to a backup; the current content becomes a backup itself.

    Without BACKUP it is the newest sound one that differs from the current content. With --path
    the rest of the document stays as it is.

    Examples:
      seline restore user_profile.json --dry-run
      seline restore user_profile.json
      seline restore user_profile.json user_profile_20250106_143022.json --yes
      seline restore user_profile.json user_profile_20250106_143022.json --path /location
    """
    if named is not None and backup not in (None, named):
        raise click.UsageError(f"{backup} and --backup {named} name two backups: give one.")
    backup = named if backup is None else backup
    given = {"filename": name, "backup": backup, "path": path}
    body = {field: value for field, value in given.items() if value is not None}
    done = await carry_out(
        api,
        options,
        lambda query: api.request("POST", "/restore-backup", query=query, body=body),
        _restore_plan,
    )
    if done is None:
        return
    restored = done["restored"]
    part = f"{restored['path']} of {name}" if restored["path"] else name
    terminal.notice(f"{part} is back at {restored['backup']} (taken {restored['taken_at']}).")
    terminal.notice_undo(done)


def _restore_plan(preview: dict[str, Any]) -> str:
    restored = preview["restored"]
    name, backup, taken_at = restored["document"], restored["backup"], restored["taken_at"]
    current = {
        "backups": "the current content would become a backup, so it could be undone.",
        "quarantine": "the current content is broken, so its bytes would go to quarantine/.",
        "nowhere": f"there is no {name} now, so nothing would be replaced.",
    }
    difference = preview["difference"]
    if difference is not None:
        lines = change_lines(difference, CHANGES_SHOWN_MAX)
        terminal.out_changes(lines, is_notice=True)
        terminal.notice(f"{summary(difference)[0].upper()}{summary(difference)[1:]}.")
    part = f"{restored['path']} of {name}" if restored["path"] else name
    return f"{part} would go back to {backup} (taken {taken_at}); {current[preview['kept_in']]}"


@api_verb("prune")
@preview_options
async def prune(api: Api, options: VerbOptions) -> None:
    """Discard the backups that the retention policy no longer keeps.

    The newest sound backup of each document is always kept.

    Examples:
      seline prune --dry-run
      seline prune --yes
    """

    def show(preview: dict[str, Any]) -> str:
        if not preview["pruned"]:
            terminal.notice("Every backup is kept; `seline backups NAME` shows why.")
            return ""
        if not options.json:
            _print_pruned(preview)
        return _size(preview, "would be discarded")

    done = await carry_out(
        api, options, lambda query: api.request("POST", "/prune", query=query), show
    )
    if done is not None:
        was = "was" if len(done["pruned"]) == 1 else "were"
        terminal.notice(_size(done, f"{was} discarded"))


def _print_pruned(report: dict[str, Any]) -> None:
    rows = [
        (backup["backup"], terminal.size_text(backup["size_bytes"]), backup["because"])
        for backup in report["pruned"]
    ]
    terminal.out_table(("BACKUP", "SIZE", "BECAUSE"), rows)


def _size(report: dict[str, Any], outcome: str) -> str:
    count = counted(len(report["pruned"]), "backup")
    return f"{count} of {terminal.size_text(report['freed_bytes'])} {outcome}."
