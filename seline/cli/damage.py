"""The verbs for damage: verify, quarantine, reset."""

from typing import Any

import click

from seline.cli import terminal
from seline.cli.errors import Exit
from seline.cli.verbs import Api, VerbOptions, api_verb, carry_out, preview_options
from seline.domain.plural import counted


@api_verb("verify")
@click.option("--sums", is_flag=True, help="Print `sha256sum` lines of what is sound.")
async def verify(api: Api, options: VerbOptions, sums: bool) -> Exit:
    """Read every document and backup from the disk and compare it with its checksum.

    A broken document is recovered if a sound content exists. Exits 3 if anything was damaged.

    Examples:
      seline verify
      seline verify --json
      seline verify --sums > sums.txt && (cd data && sha256sum --check ../sums.txt)
    """
    with terminal.busy("Reading every document and backup"):
        report = await api.request("POST", "/verify")
    if options.json and not sums:
        terminal.out_json(report)
    else:
        await _print_sums(api) if sums else _print_findings(report)
        _notify(report)
    return Exit.DAMAGE if report["damage"] else Exit.DONE


@api_verb("quarantine")
@click.argument("item", required=False)
async def quarantine(api: Api, options: VerbOptions, item: str | None) -> None:
    """List the quarantined items, or print one item's bytes unchanged.

    Examples:
      seline quarantine
      seline quarantine user_profile_20250106_143022.seline.json > broken.json
    """
    if item is not None:
        terminal.out_bytes(await api.read("/quarantine/{}", item))
        return
    listed = await api.get("/quarantine")
    rows = [
        (item["name"], item["document"], item["taken_at"], terminal.size_text(item["size_bytes"]))
        for item in listed["quarantine"]
    ]
    terminal.out_list(
        listed,
        ("ITEM", "DOCUMENT", "QUARANTINED", "SIZE"),
        rows,
        as_json=options.json,
        empty="Nothing is in quarantine.",
    )


@api_verb("reset")
@click.argument("name")
@preview_options
async def reset(api: Api, options: VerbOptions, name: str) -> None:
    """Give up a broken document that has no sound backup; its bytes stay in quarantine.

    Then the name is free, and the bot starts with an empty document.

    Examples:
      seline reset user_profile.json --dry-run
      seline reset user_profile.json
    """
    plan = (
        f"{name} would be given up: its broken bytes would be kept in quarantine/, and the name "
        "would be free."
    )
    done = await carry_out(
        api,
        options,
        lambda query: api.request("POST", "/documents/{}/reset", name, query=query),
        lambda _preview: plan,
    )
    if done is not None:
        terminal.notice(f"{name} is reset. To see its bytes: seline quarantine")


def _print_findings(report: dict[str, Any]) -> None:
    rows = [
        (found["backup"] or found["document"], found["verdict"], found["outcome"], _why(found))
        for found in report["findings"]
    ]
    if rows:
        terminal.out_table(("FOUND", "STATE", "OUTCOME", "WHY"), rows)


def _notify(report: dict[str, Any]) -> None:
    documents = counted(report["documents"], "document")
    backups = counted(report["backups"], "backup")
    size = terminal.size_text(report["bytes_read"])
    terminal.notice(f"{documents} and {backups} were read ({size}).")
    _print_left_out(report)
    unchecked = sum(found["outcome"] == "unsettled" for found in report["findings"])
    if report["damage"]:
        terminal.notice("Damage was found. Next: `seline status` shows whether content was lost.")
    elif unchecked:
        terminal.notice(
            f"No damage in what was checked; {counted(unchecked, 'document')} could not be, as "
            "another program is writing just now."
        )
    elif report.get("left_out_count"):
        terminal.notice("No damage in what Seline keeps.")
    else:
        terminal.notice("No damage.")


def _print_left_out(report: dict[str, Any]) -> None:
    """Print each file that Seline does not keep, why, and the next step."""
    listed, count = report.get("left_out", []), report.get("left_out_count", 0)
    if not count:
        return
    terminal.notice(f"Not kept by Seline, and in no backup or export: {counted(count, 'name')}.")
    for item in listed:
        terminal.report(f"{item['name']}: {item['reason']}", item["hint"])
    if count > len(listed):
        terminal.notice(f"and {count - len(listed):,} more")


def _why(found: dict[str, Any]) -> str:
    lost = f"; lost: {found['lost']}" if found["lost"] else ""
    return f"{found['detail']}{lost}"


async def _print_sums(api: Api) -> None:
    """Print a line for each sound document and backup, those of deleted documents included."""
    documents = (await api.get("/documents"))["documents"]
    for document in documents:
        if document["verdict"] == "sound":
            terminal.out(f"{document['revision']}  {document['name']}")
    kept = (await api.get("/storage-info"))["backups"]
    for name in sorted({backup["document"] for backup in kept}):
        for backup in (await api.get("/documents/{}/backups", name))["backups"]:
            if backup["verdict"] == "sound":
                terminal.out(f"{backup['sha256']}  backups/{backup['name']}")
