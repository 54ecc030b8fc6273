"""The verb import: an export back in, or a folder of .json files from an older bot.

Everything or nothing (V5), and first the plan. Nothing is read or written beside the files named:
a folder's links are never followed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.documents import read_source, told_of_source
from seline.cli.exits import Exit
from seline.cli.group import front
from seline.cli.problem import Problem
from seline.cli.verbs import GlobalOptions, agreed, dry_run_option, own_verb, with_api, yes_option
from seline.domain.plural import counted

if TYPE_CHECKING:
    from seline.cli.client import Api
    from seline.cli.legacy_folder import LegacyFile

_NAMES_SHOWN_MAX: Final = 20


@own_verb(
    front,
    "import",
    section="Everything at once",
    examples="""
    seline import seline_backup.json --dry-run
    seline import seline_backup.json
    seline import ./old-data/
    seline import /mnt/nas/seline
    seline import /mnt/nas/seline/seline-20250106T143022Z
    gunzip < seline_backup.json.gz | seline import - --yes
    seline import seline_backup.json --mode replace
    """,
)
@click.argument("source", type=click.Path(allow_dash=True))
@click.option(
    "--mode",
    type=click.Choice(["merge", "replace"]),
    default="merge",
    show_default=True,
    help="merge: other documents stay; replace: they are deleted, with backups.",
)
@click.option("--skip-broken", is_flag=True, help="Leave out a folder's unusable files.")
@dry_run_option
@yes_option
def import_source(
    options: GlobalOptions, source: str, mode: str, skip_broken: bool, dry_run: bool, yes: bool
) -> Exit | None:
    """Take in an export, or a folder of .json files from an older bot; all of it or nothing.

    SOURCE is a file or a folder that `seline export` wrote (of several dated ones in it the
    newest), `-` for stdin, or a folder of .json files. Of a dated folder the documents are taken;
    its backups can be read by hand.
    """
    body, left_out = _read(source, skip_broken=skip_broken)
    with told_of_source(source, body):
        code = with_api(
            options,
            lambda api: _plan_and_import(api, body, mode, dry_run=dry_run, yes=yes),
            makes=True,
        )
    if left_out:
        terminal.say(left_out)
    return code


async def _plan_and_import(api: Api, body: bytes, mode: str, *, dry_run: bool, yes: bool) -> None:
    plan = await _import(api, body, mode, dry_run=True)
    if api.options.json and dry_run:
        terminal.out_json(plan)
    if not any(plan[outcome] for outcome in ("created", "changed", "deleted")):
        terminal.say(f"{_plan_text(plan)}\nThere is nothing to change.")
        if api.options.json and not dry_run:
            terminal.out_json({**plan, "dry_run": False})
        return
    if not await agreed(_plan_text(plan), dry_run=dry_run, yes=yes):
        return
    done = await _import(api, body, mode, dry_run=False)
    if api.options.json:
        terminal.out_json(done)
    terminal.say("The import is done; every content that was replaced is a backup now.")


def _read(source: str, *, skip_broken: bool) -> tuple[bytes, str]:
    """Return the source as the body of an import, and words on what it holds besides."""
    if source != "-" and os.path.isdir(source):
        from seline.cli.export_folder import as_body, export_in, left_out

        export = export_in(source)
        if export is not None:
            terminal.say(f"The export {export}:")
            with terminal.busy("Checking the export"):
                return as_body(export), left_out(export)
        return _folder_body(source, skip_broken=skip_broken), ""
    return read_source(source), ""


async def _import(api: Api, body: bytes, mode: str, *, dry_run: bool) -> dict[str, Any]:
    query = {"mode": mode, "dry_run": "true" if dry_run else "false"}
    with terminal.busy("Checking the import" if dry_run else "Importing"):
        answer = await api.request("POST", "/import", query=query, body=body)
    report: dict[str, Any] = answer.value()
    return report


def _plan_text(plan: dict[str, Any]) -> str:
    lines = ["The import would do this, all of it or nothing:"]
    for outcome in ("created", "changed", "unchanged", "deleted"):
        names = plan[outcome]
        if names:
            lines.append(f"  {outcome}: {len(names):,}  {_shortened(names)}")
    if len(lines) == 1:
        lines.append("  it holds no documents")
    return "\n".join(lines)


def _shortened(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN_MAX
    shown = ", ".join(names[:_NAMES_SHOWN_MAX])
    return shown if more <= 0 else f"{shown} and {more:,} more"


def _folder_body(source: str, *, skip_broken: bool) -> bytes:
    """Return a folder as an export. Raises Problem where a file cannot be used."""
    from seline.cli.export_folder import has_unfinished_export
    from seline.cli.legacy_folder import as_export, look_through
    from seline.domain.manifest import MANIFEST_NAME

    with terminal.busy("Reading the folder"):
        found = look_through(source)
    _tell(found, skip_broken=skip_broken)
    if found.unusable and not skip_broken:
        count = counted(len(found.unusable), "file")
        raise Problem(
            f"{count} of {source} cannot be taken; nothing was imported, and nothing was touched.",
            "Mend what is named above, or leave it out with --skip-broken.",
            code="import_refused",
        )
    if not found.usable and has_unfinished_export(source):
        raise Problem(
            f"The export {source} is not whole: it has no {MANIFEST_NAME}.",
            "Take another export: the manifest is written last, so this one was never finished.",
            code="export_damaged",
        )
    if not found.usable:
        raise Problem(
            f"{source} holds no .json file that can be taken.",
            "Name the folder in which the older bot kept its files.",
            code="import_refused",
        )
    return as_export(found.usable)


def _tell(found: LegacyFile, *, skip_broken: bool) -> None:
    for usable in found.usable:
        if usable.file != usable.name:
            terminal.say(f"renamed: {usable.file} becomes {usable.name}")
    for unusable in found.unusable:
        word = "left out" if skip_broken else "unusable"
        terminal.say(f"{word}: {unusable.file}: {unusable.why}")
        terminal.say(f"  {unusable.cure}")
    for file in found.passed_over:
        terminal.say(f"passed over: {file} (Seline makes its own)")
