"""The verbs for backups: backups, pin, unpin, restore, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.group import front
from seline.cli.verbs import GlobalOptions, api_verb, confirm, dry_run_option, yes_option
from seline.domain.plural import counted
from seline.errors import BackupNotFound

if TYPE_CHECKING:
    from seline.client import Api

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
async def backups(api: Api, options: GlobalOptions, name: str) -> None:
    """List a document's backups, newest first, and why each is kept."""
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
async def pin(
    api: Api, options: GlobalOptions, name: str, backup: str, because: str | None
) -> None:
    """Keep a backup until it is unpinned; rotation leaves it out."""
    await _pin(api, options, "PUT", name, backup, {"because": because} if because else None)
    terminal.notice(f"{backup} is kept until `seline unpin {name} {backup}`.")


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
async def unpin(api: Api, options: GlobalOptions, name: str, backup: str) -> None:
    """Let rotation remove a pinned backup when it is due."""
    await _pin(api, options, "DELETE", name, backup)
    terminal.notice(f"{backup} is rotated like any other backup.")


async def _pin(
    api: Api,
    options: GlobalOptions,
    method: str,
    name: str,
    backup: str,
    body: dict[str, str] | None = None,
) -> None:
    response = await api.request(method, "/documents/{}/backups/{}/pin", name, backup, body=body)
    if options.json and response.data:
        terminal.out_json(response.value())


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
    api: Api,
    options: GlobalOptions,
    name: str,
    backup: str | None,
    named: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Go back to a backup; the current content becomes a backup itself.

    Without BACKUP it is the newest sound one that differs from the current content.
    """
    if backup and named and backup != named:
        raise click.UsageError(f"{backup} and --backup {named} name two backups: give one.")
    backup = backup or named
    plan = await _restore_plan(api, name, backup)
    if not await confirm(plan, dry_run=dry_run, yes=yes):
        return
    body = {"filename": name} if backup is None else {"filename": name, "backup": backup}
    done = (await api.request("POST", "/restore-backup", body=body)).value()
    if options.json:
        terminal.out_json(done)
    restored, undo = done["restored"], done.get("undo")
    terminal.notice(f"{name} is back at {restored['backup']} (taken {restored['taken_at']}).")
    if undo:
        terminal.notice(f"To undo: seline restore {name} --backup {undo['backup']}")


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
async def prune(api: Api, options: GlobalOptions, dry_run: bool, yes: bool) -> None:
    """Discard the backups that the retention policy no longer keeps.

    The newest sound backup of each document is always kept.
    """
    planned = await _prune(api, dry_run=True)
    if not planned["pruned"]:
        terminal.notice("Nothing to prune: every backup is kept (`seline backups NAME` says why).")
    _show_pruned(options, planned)
    if not planned["pruned"]:
        return
    if await confirm(_size(planned, "would be discarded"), dry_run=dry_run, yes=yes):
        done = await _prune(api, dry_run=False)
        terminal.notice(_size(done, "are discarded"))


async def _restore_plan(api: Api, name: str, backup: str | None) -> str:
    """Return which backup a restore would take. Raises BackupNotFound."""
    listed: list[dict[str, Any]] = (await api.get("/documents/{}/backups", name))["backups"]
    documents = (await api.get("/documents"))["documents"]
    current = next((document for document in documents if document["name"] == name), None)
    if backup is None:
        if not listed:
            raise BackupNotFound(
                f"{name} has no backup to go back to.",
                hint="`seline documents` lists the documents; a document's next change makes a "
                "backup.",
            )
        what = _candidate(listed, current)
    else:
        _check_named(listed, name, backup)
        what = backup
    return f"{name} would go back to {what}; {_undoing(name, current)}"


def _undoing(name: str, current: dict[str, Any] | None) -> str:
    """Return what would become of the current content."""
    if current is None:
        return f"there is no {name} now, so nothing would be replaced."
    if current["verdict"] == "sound":
        return "the current content would become a backup, so it could be undone."
    return (
        "the current content would become a backup, so it could be undone; broken bytes would go "
        "to quarantine/."
    )


def _candidate(listed: list[dict[str, Any]], current: dict[str, Any] | None) -> str:
    """Return the newest sound backup that differs from the current content."""
    revision = None if current is None else current["revision"]
    for backup in listed:
        if backup["verdict"] == "sound" and backup["sha256"] != revision:
            return f"{backup['name']} (taken {backup['taken_at']})"
    return "its newest sound backup that differs from the current content"


def _check_named(listed: list[dict[str, Any]], name: str, backup: str) -> None:
    if not any(known["name"] == backup for known in listed):
        raise BackupNotFound(
            f"{name} has no backup {backup}.", hint=f"`seline backups {name}` lists its backups."
        )


async def _prune(api: Api, *, dry_run: bool) -> Any:
    query = {"dry_run": "true" if dry_run else "false"}
    with terminal.busy("Reading the backups"):
        return (await api.request("POST", "/prune", query=query)).value()


def _show_pruned(options: GlobalOptions, report: dict[str, Any]) -> None:
    rows = [
        (backup["backup"], terminal.size_text(backup["size_bytes"]), backup["because"])
        for backup in report["pruned"]
    ]
    terminal.out_list(report, ("BACKUP", "SIZE", "BECAUSE"), rows, as_json=options.json)


def _size(report: dict[str, Any], outcome: str) -> str:
    size = sum(backup["size_bytes"] for backup in report["pruned"])
    count = counted(len(report["pruned"]), "backup")
    return f"{count} of {terminal.size_text(size)} {outcome}."
