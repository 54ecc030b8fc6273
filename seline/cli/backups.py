"""The verbs for backups: backups, pin, unpin, restore, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.group import front
from seline.cli.problem import Problem
from seline.cli.verbs import agreed, api_verb, dry_run_option, yes_option
from seline.domain.plural import counted

if TYPE_CHECKING:
    from seline.cli.client import Api

SECTION: Final = "Backups"


@api_verb(
    front,
    "backups",
    section=SECTION,
    examples="""
    seline backups user_profile.json
    seline backups user_profile.json --json
    seline load user_profile.json --backup user_profile_20250106_143022.json
    """,
)
@click.argument("name")
async def backups(api: Api, name: str) -> None:
    """List a document's backups, newest first, and why each is kept."""
    from seline.cli.client import document_path

    listed = await api.get(document_path(name, "backups"))
    if api.options.json:
        terminal.out_json(listed)
        return
    rows = [_row(backup) for backup in listed["backups"]]
    terminal.out_table(("BACKUP", "TAKEN", "SIZE", "STATE", "PINNED", "KEPT BECAUSE"), rows)
    if not rows:
        terminal.say(f"{name} has no backup yet: its next change makes one.")


@api_verb(
    front,
    "pin",
    section=SECTION,
    examples="""
    seline pin user_profile.json user_profile_20250106_143022.json
    seline pin user_profile.json user_profile_20250106_143022.json --because "before the move"
    """,
)
@click.argument("name")
@click.argument("backup")
@click.option("--because", metavar="TEXT", help="Why it is kept, shown in the list.")
async def pin(api: Api, name: str, backup: str, because: str | None) -> None:
    """Keep a backup outside rotation until it is unpinned."""
    await _change_pin(api, "PUT", name, backup, {"because": because} if because else None)
    terminal.say(f"{backup} is kept until `seline unpin {name} {backup}`.")


@api_verb(
    front,
    "unpin",
    section=SECTION,
    examples="""
    seline unpin user_profile.json user_profile_20250106_143022.json
    """,
)
@click.argument("name")
@click.argument("backup")
async def unpin(api: Api, name: str, backup: str) -> None:
    """Give a pinned backup back to rotation."""
    await _change_pin(api, "DELETE", name, backup)
    terminal.say(f"{backup} goes when its turn comes.")


@api_verb(
    front,
    "restore",
    section=SECTION,
    examples="""
    seline restore user_profile.json --dry-run
    seline restore user_profile.json
    seline restore user_profile.json user_profile_20250106_143022.json --yes
    """,
)
@click.argument("name")
@click.argument("backup", required=False)
@click.option("--backup", "named", metavar="BACKUP", help="The same as BACKUP.")
@dry_run_option
@yes_option
async def restore(
    api: Api, name: str, backup: str | None, named: str | None, dry_run: bool, yes: bool
) -> None:
    """Go back to a backup; what is current now becomes a backup itself.

    Without BACKUP it is the newest sound one that differs from what is current.
    """
    if backup and named and backup != named:
        raise click.UsageError(f"{backup} and --backup {named} name two backups: give one.")
    backup = backup or named
    plan = await _restore_plan(api, name, backup)
    if not await agreed(plan, dry_run=dry_run, yes=yes):
        return
    body = {"filename": name} if backup is None else {"filename": name, "backup": backup}
    answer = (await api.request("POST", "/restore-backup", body=body)).value()
    if api.options.json:
        terminal.out_json(answer)
    restored, undo = answer["restored"], answer.get("undo")
    terminal.say(f"{name} is back at {restored['backup']} (taken {restored['taken_at']}).")
    if undo:
        terminal.say(f"To undo: seline restore {name} --backup {undo['backup']}")


@api_verb(
    front,
    "prune",
    section=SECTION,
    examples="""
    seline prune --dry-run
    seline prune --yes
    """,
)
@dry_run_option
@yes_option
async def prune(api: Api, dry_run: bool, yes: bool) -> None:
    """Discard the backups that the retention policy no longer keeps.

    The newest sound backup of a document is never among them.
    """
    planned = await _prune(api, dry_run=True)
    if not planned["pruned"]:
        terminal.say("Nothing to prune: every backup is kept for a reason (`seline backups NAME`).")
        _show_pruned(api, planned)
        return
    _show_pruned(api, planned)
    if await agreed(_freed(planned, "would be discarded"), dry_run=dry_run, yes=yes):
        done = await _prune(api, dry_run=False)
        terminal.say(_freed(done, "are discarded"))


async def _change_pin(
    api: Api, method: str, name: str, backup: str, body: dict[str, str] | None = None
) -> None:
    from seline.cli.client import document_path

    path = document_path(name, "backups", backup, "pin")
    answer = await api.request(method, path, body=body)
    if api.options.json and answer.data:
        terminal.out_json(answer.value())


async def _restore_plan(api: Api, name: str, backup: str | None) -> str:
    """Say which backup it will be, as far as can be told. Raises Problem where there is none."""
    from seline.cli.client import document_path

    listed: list[dict[str, Any]] = (await api.get(document_path(name, "backups")))["backups"]
    documents = (await api.get("/documents"))["documents"]
    current = next((one for one in documents if one["name"] == name), None)
    if backup is None:
        if not listed:
            raise Problem(
                f"{name} has no backup to go back to.",
                "`seline documents` lists what there is; a document's next change makes a backup.",
                code="backup_not_found",
            )
        what = _candidate(listed, current)
    else:
        _named(listed, name, backup)
        what = backup
    return f"{name} would go back to {what}; {_undoing(name, current)}"


def _undoing(name: str, current: dict[str, Any] | None) -> str:
    """Say what would become of what is current now."""
    if current is None:
        return f"there is no {name} now, so nothing would be replaced."
    if current["verdict"] == "sound":
        return "what is current now would become a backup, so it could be undone."
    return (
        "what is current now would become a backup, so it could be undone; broken bytes would go "
        "to quarantine/."
    )


def _candidate(listed: list[dict[str, Any]], current: dict[str, Any] | None) -> str:
    """Return the newest sound backup that differs from what is current."""
    revision = None if current is None else current["revision"]
    for backup in listed:
        if backup["verdict"] == "sound" and backup["sha256"] != revision:
            return f"{backup['name']} (taken {backup['taken_at']})"
    return "its newest sound backup that differs from what is current"


def _named(listed: list[dict[str, Any]], name: str, backup: str) -> None:
    if any(known["name"] == backup for known in listed):
        return
    raise Problem(
        f"{name} has no backup {backup}.",
        f"`seline backups {name}` lists what there is.",
        code="backup_not_found",
    )


async def _prune(api: Api, *, dry_run: bool) -> Any:
    query = {"dry_run": "true" if dry_run else "false"}
    with terminal.busy("Looking through the backups"):
        return (await api.request("POST", "/prune", query=query)).value()


def _show_pruned(api: Api, report: dict[str, Any]) -> None:
    if api.options.json:
        terminal.out_json(report)
        return
    rows = [
        (one["backup"], terminal.size_text(one["size_bytes"]), one["because"])
        for one in report["pruned"]
    ]
    if rows:
        terminal.out_table(("BACKUP", "SIZE", "BECAUSE"), rows)


def _freed(report: dict[str, Any], what: str) -> str:
    size = sum(one["size_bytes"] for one in report["pruned"])
    count = counted(len(report["pruned"]), "backup")
    return f"{count} of {terminal.size_text(size)} {what}."


def _row(backup: dict[str, Any]) -> tuple[str, ...]:
    return (
        backup["name"],
        backup["taken_at"],
        terminal.size_text(backup["size_bytes"]),
        backup["verdict"],
        "yes" if backup["pinned"] else "",
        backup["because"],
    )
