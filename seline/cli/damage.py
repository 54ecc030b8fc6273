"""The verbs for damage: verify, quarantine, reset."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.exits import Exit
from seline.cli.group import front
from seline.cli.problem import Problem
from seline.cli.verbs import agreed, api_verb, dry_run_option, yes_option
from seline.domain.plural import counted
from seline.errors import DocumentNotFound, InvalidRequest

if TYPE_CHECKING:
    from seline.cli.client import Api

SECTION: Final = "Damage"


@api_verb(
    front,
    "verify",
    section=SECTION,
    examples="""
    seline verify
    seline verify --json
    seline verify --sums > sums.txt && (cd data && sha256sum --check ../sums.txt)
    """,
)
@click.option("--sums", is_flag=True, help="Print `sha256sum` lines of what was found sound.")
async def verify(api: Api, sums: bool) -> Exit:
    """Check every document and backup against its checksum, on the medium itself.

    What is broken is recovered where a sound content exists. Exits 3 if anything was damaged.
    """
    with terminal.busy("Reading every document and backup"):
        report = (await api.request("POST", "/verify")).value()
    if sums:
        await _print_sums(api)
        _tell(report)
    elif api.options.json:
        terminal.out_json(report)
    else:
        _show(report)
    return Exit.DAMAGE if report["damage"] else Exit.DONE


@api_verb(
    front,
    "quarantine",
    section=SECTION,
    examples="""
    seline quarantine
    seline quarantine user_profile_20250106_143022.json > broken.json
    """,
)
@click.argument("item", required=False)
async def quarantine(api: Api, item: str | None) -> None:
    """List what was set aside, or print one item's bytes as they are."""
    from seline.cli.client import segment

    if item is not None:
        with _named_item(item):
            terminal.out_bytes((await api.request("GET", f"/quarantine/{segment(item)}")).data)
        return
    listed = await api.get("/quarantine")
    if api.options.json:
        terminal.out_json(listed)
        return
    rows = [
        (one["name"], one["document"], one["taken_at"], terminal.size_text(one["size_bytes"]))
        for one in listed["quarantine"]
    ]
    if rows:
        terminal.out_table(("ITEM", "DOCUMENT", "SET ASIDE", "SIZE"), rows)
    else:
        terminal.say("Nothing was set aside.")


@api_verb(
    front,
    "reset",
    section=SECTION,
    examples="""
    seline reset user_profile.json --dry-run
    seline reset user_profile.json
    """,
)
@click.argument("name")
@dry_run_option
@yes_option
async def reset(api: Api, name: str, dry_run: bool, yes: bool) -> None:
    """Give up a broken document that has no sound backup; its bytes stay in quarantine.

    Then the name is free again, and the bot starts with an empty document.
    """
    from seline.cli.client import document_path
    from seline.cli.standing import trouble_with

    path = document_path(name, "reset")
    if await trouble_with(api, name) is None:
        raise Problem(
            f"{name} is sound; `reset` only gives up a broken document.",
            f"`seline delete {name}` removes it; `seline restore {name}` goes back to a backup.",
            code=InvalidRequest.code,
        )
    plan = (
        f"{name} would be given up: its broken bytes would be kept in quarantine/, and the name "
        "would be free again."
    )
    if not await agreed(plan, dry_run=dry_run, yes=yes):
        return
    answer = (await api.request("POST", path)).value()
    if api.options.json:
        terminal.out_json(answer)
    terminal.say(f"{name} is reset. Look at its bytes: seline quarantine")


@contextmanager
def _named_item(item: str) -> Generator[None]:
    """Point from an item that is not there to the list of those that are."""
    try:
        yield
    except Problem as problem:
        if problem.code != DocumentNotFound.code:
            raise
        raise Problem(
            f"Nothing of the name {item} lies in quarantine.",
            "`seline quarantine` lists what was set aside.",
            code=problem.code,
        ) from problem


def _show(report: dict[str, Any]) -> None:
    rows = [
        (found["backup"] or found["document"], found["verdict"], found["outcome"], _why(found))
        for found in report["findings"]
    ]
    if rows:
        terminal.out_table(("FOUND", "STATE", "OUTCOME", "WHY"), rows)
    _tell(report)


def _tell(report: dict[str, Any]) -> None:
    documents = counted(report["documents"], "document")
    backups = counted(report["backups"], "backup")
    size = terminal.size_text(report["bytes_read"])
    terminal.say(f"{documents} and {backups} were read ({size}).")
    if report["damage"]:
        terminal.say("Damage was found. Next: `seline status` says what was lost, if anything.")
    else:
        terminal.say("No damage.")


def _why(found: dict[str, Any]) -> str:
    lost = f"; lost: {found['lost']}" if found["lost"] else ""
    return f"{found['detail']}{lost}"


async def _print_sums(api: Api) -> None:
    """Print a line for each sound document and backup, of deleted documents too."""
    from seline.cli.client import document_path

    documents = (await api.get("/documents"))["documents"]
    for document in documents:
        if document["verdict"] == "sound":
            terminal.out(f"{document['revision']}  {document['name']}")
    kept = (await api.get("/storage-info"))["backups"]
    for name in sorted({backup["document"] for backup in kept}):
        for backup in (await api.get(document_path(name, "backups")))["backups"]:
            if backup["verdict"] == "sound":
                terminal.out(f"{backup['sha256']}  backups/{backup['name']}")
