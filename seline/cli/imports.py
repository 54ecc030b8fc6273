"""The verb import: read an export, or a folder of .json files from an older bot.

All or nothing (V5), after a preview. Only the named file or folder is read; no link in a folder is
followed.
"""

import io
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final

import click

from seline.cli import terminal
from seline.cli.documents import json_source
from seline.cli.keys import sealer_of_identity
from seline.cli.verbs import (
    Api,
    VerbOptions,
    agrees_in_scratch,
    carry_out,
    local_verb,
    preview_options,
    run_async,
    settings_of,
    with_api,
    would_make_store,
)
from seline.domain.plural import counted, shortened
from seline.errors import ExportDamaged, ImportRefused, RestoreUnfinished
from seline.quoting import on_one_line, quoted

if TYPE_CHECKING:
    from seline.domain.left_out import LeftOut
    from seline.domain.manifest import Manifest
    from seline.folders.legacy import LegacyFile
    from seline.ports.sealing import Sealer

_NAMES_SHOWN_MAX: Final = 20
_LEFT_OUT_SHOWN_MAX: Final = 100


@local_verb("import")
@click.argument("source", type=click.Path(allow_dash=True))
@click.option(
    "--mode",
    type=click.Choice(["merge", "replace"]),
    default="merge",
    show_default=True,
    help="merge: keep other documents; replace: delete them, with backups.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Import this document and no other; may be repeated.",
)
@click.option(
    "--prefix",
    default="",
    metavar="TEXT",
    help="Read a folder's sub-folders too, and begin each name with this.",
)
@click.option(
    "--identity",
    metavar="FILE",
    help="Decrypt an encrypted export with this identity (else the setting exports.passphrase).",
)
@click.option("--skip-broken", is_flag=True, help="Leave out a folder's unusable files.")
@click.option("--no-backups", is_flag=True, help="Leave out the backups of an export folder.")
@preview_options
def import_source(
    options: VerbOptions,
    source: str,
    mode: str,
    only: tuple[str, ...],
    prefix: str,
    identity: str | None,
    skip_broken: bool,
    no_backups: bool,
) -> None:
    """Import an export, or a folder of .json files from an older bot; all of it or nothing.

    SOURCE is a file or a folder that `seline export` wrote (the last one, if it holds several),
    `-` for stdin, or a folder of .json files. A dated folder's backups are imported, too; none
    replaces a file.

    Examples:
      seline import seline_backup.json --dry-run
      seline import seline_backup.json
      seline import ./old-data/
      seline import ./old-data/guilds --prefix guilds_
      seline import /mnt/nas/seline
      seline import /mnt/nas/seline/seline-20250106T143022Z-1a2b3c4d
      seline import /mnt/nas/seline --identity key.txt
      gunzip < seline_backup.json.gz | seline import - --yes
      seline import seline_backup.json --mode replace
      seline import /mnt/nas/seline --only user_profile.json
    """
    chosen = {"mode": mode} | ({"only": ",".join(only)} if only else {})
    chosen |= {"backups": "false"} if no_backups else {}
    if source != "-" and os.path.isdir(source):
        _import_folder(options, source, prefix, chosen, identity, skip_broken=skip_broken)
        return
    _refuse_archive(source)
    with json_source(source) as body:
        _preview_and_import(options, partial(_send, body, chosen))


def _import_folder(
    options: VerbOptions,
    source: str,
    prefix: str,
    chosen: dict[str, str],
    identity: str | None,
    *,
    skip_broken: bool,
) -> None:
    from seline.folders.export import find_export

    export = None if prefix else find_export(source)
    if export is not None:
        sealer = sealer_of_identity(options, identity)
        _import_export(options, source, export, sealer, chosen, skip_broken=skip_broken)
        return
    send = _send_usable if skip_broken else _send_documents
    files, has_copies = _read_legacy(source, prefix, skip_broken=skip_broken)
    send = send if files else _send_usable
    documents = {file.name: file.data for file in files}
    renamed = {file.name: file.file for file in files if file.file != file.name}
    copies = os.path.join(source, "backups", "") if has_copies else ""
    _preview_and_import(options, partial(send, documents, chosen), renamed, copies)


def _import_export(
    options: VerbOptions,
    source: str,
    export: str,
    sealer: "Sealer",
    chosen: dict[str, str],
    *,
    skip_broken: bool,
) -> None:
    """Import an export folder with its backups: it is sent as one .tar."""
    import tempfile

    from seline.folders.export import write_tar

    manifest = _read_manifest(source, export, sealer)
    chosen |= {"foreign": "true"} if manifest.volume else {}  # this command asks
    with tempfile.TemporaryFile() as tar:
        with terminal.busy("Checking the export"):
            write_tar(export, manifest, sealer, tar)
        send = partial(_send_folder, tar, chosen)
        if skip_broken:
            send = partial(_send_usable_folder, tar, chosen)
        try:
            _preview_and_import(options, send)
        except RestoreUnfinished:
            if options.dry_run or chosen.get("only"):
                raise
            _complete_restore(options, export, sealer)


def _complete_restore(options: VerbOptions, export: str, sealer: "Sealer") -> None:
    """Complete an interrupted restore with the copy that an export folder holds."""
    from seline.folders.export import copy_of_export
    from seline.library import LOCK_WAIT_S, restore_volume

    copy = run_async(copy_of_export(export, sealer))
    with terminal.busy("Restoring"):
        report = restore_volume(settings_of(options), copy, lock_wait_s=LOCK_WAIT_S)
    if options.json:
        terminal.out_json(asdict(report))
    terminal.notice(
        f"The interrupted restore is completed from {export}: "
        f"{counted(len(copy.documents), 'document')}, and their backups."
    )


async def _send(
    body: IO[bytes], chosen: dict[str, str], api: Api, query: dict[str, str]
) -> dict[str, Any]:
    answer: dict[str, Any] = await api.request("POST", "/import", query=query | chosen, body=body)
    return answer


async def _send_folder(
    tar: IO[bytes], chosen: dict[str, str], api: Api, query: dict[str, str]
) -> dict[str, Any]:
    answer: dict[str, Any] = await api.request(
        "POST",
        "/import",
        query=query | chosen,
        body=tar,
        headers={"Content-Type": "application/x-tar"},
    )
    return answer


async def _send_usable_folder(
    tar: IO[bytes], chosen: dict[str, str], api: Api, query: dict[str, str]
) -> dict[str, Any]:
    """Import an export folder; leave out each document that the store refuses, and name it."""
    left_out = {name for name in chosen.get("skip", "").split(",") if name}
    while True:
        try:
            return await _send_folder(tar, chosen, api, query)
        except ImportRefused as refused:
            name = refused.details.get("document", "")
            if not name or name in left_out:
                raise
            left_out.add(name)
            chosen["skip"] = ",".join(sorted(left_out))
            _notify_refused(name, refused)


async def _send_documents(
    documents: dict[str, bytes], chosen: dict[str, str], api: Api, query: dict[str, str]
) -> dict[str, Any]:
    from seline.folders.export import import_body

    return await _send(io.BytesIO(import_body(documents)), chosen, api, query)


async def _send_usable(
    documents: dict[str, bytes], chosen: dict[str, str], api: Api, query: dict[str, str]
) -> dict[str, Any]:
    """Import documents; remove each that the store refuses, and name it.

    If none is left, the store keeps its own, also with the mode `replace`.
    """
    count = len(documents)
    while True:
        if not documents:
            chosen["mode"] = "merge"
        try:
            answer = await _send_documents(documents, chosen, api, query)
        except ImportRefused as refused:
            name = refused.details.get("document", "")
            if documents.pop(name, None) is None:
                raise
            _notify_refused(name, refused)
        else:
            _notify_count(count - len(documents))
            return answer


def _notify_refused(name: str, refused: ImportRefused) -> None:
    reason = refused.message.removeprefix(f"$.files[{name!r}]: ").partition(" Nothing ")[0]
    _notify_left_out(name, reason, refused.hint)


def _notify_left_out(name: str, reason: str, hint: str) -> None:
    terminal.notice(f"left out: {name}: {reason}")
    terminal.notice(f"  {hint}")


def _notify_count(count: int) -> None:
    if count:
        terminal.notice(f"{counted(count, 'file')} {'is' if count == 1 else 'are'} left out.")


def _preview_and_import(
    options: VerbOptions,
    send: Callable[[Api, dict[str, str]], Awaitable[Any]],
    renamed: Mapping[str, str] = MappingProxyType({}),
    copies: str = "",
) -> None:
    """Import after a preview; that of a new store is made in a scratch one, so it changes nothing.

    `send` takes the query parameters of the request. `renamed` has the file of each new name,
    `copies` is the folder with an older bot's backups.
    """
    show_plan = partial(_show_plan, renamed)
    is_new = would_make_store(options)
    if is_new and not agrees_in_scratch(options, send, show_plan):
        if copies and not options.dry_run:  # they can be copied into an open store only
            with_api(options, lambda api: _notify_copies(api, options, copies), create=True)
        return
    agreed = is_new and would_make_store(options)

    async def work(api: Api) -> None:
        done = await carry_out(api, options, partial(send, api), show_plan, agreed=agreed)
        if done is not None:
            replaced = done["changed"] or done["deleted"]
            kept = "each replaced content is a backup now" if replaced else "it replaced nothing"
            terminal.notice(f"The import is done; {kept}.")
            terminal.notice_undo(done)
        if copies and not options.dry_run:
            await _notify_copies(api, options, copies)

    with_api(options, work, create=True)


def _refuse_archive(source: str) -> None:
    """Raise ImportRefused for an archive, with the commands that import what is in it."""
    from seline.folders.archive import unpack_step

    hint = unpack_step(source) if os.path.isfile(source) else ""
    if hint:
        raise ImportRefused(f"{source} is an archive; nothing was changed.", hint=hint)


def _show_plan(renamed: Mapping[str, str], plan: dict[str, Any]) -> str:
    if any(plan.get(outcome) for outcome in ("created", "changed", "deleted", "backups")):
        return _plan_text(plan, renamed)
    terminal.notice(_plan_text(plan, renamed))
    return ""


def _plan_text(plan: dict[str, Any], renamed: Mapping[str, str]) -> str:
    lines = ["The import would do this, all of it or nothing:"]
    if plan["foreign"]:
        lines.insert(0, "This is the export of ANOTHER volume, not of this one.")
    for outcome in ("created", "changed", "unchanged", "deleted"):
        names = plan[outcome]
        if names:
            lines.append(f"  {outcome}: {len(names):,}  {shortened(names, _NAMES_SHOWN_MAX)}")
    if plan.get("backups"):  # an older server adds none
        lines.append(f"  backups added: {plan['backups']:,}")
    replacing = [f"{renamed[name]} (as {name})" for name in plan["changed"] if name in renamed]
    if replacing:
        shown = shortened(replacing, _NAMES_SHOWN_MAX)
        lines.append(f"  replaced by a file of another name: {shown}")
    if not any(plan[outcome] for outcome in ("created", "changed", "unchanged", "deleted")):
        lines.append("  it holds no documents")
    return "\n".join(lines)


def _read_manifest(source: str, export: str, sealer: "Sealer") -> "Manifest":
    """Return the manifest of an export, and print what it is."""
    from seline.domain.readable_export import from_backups_text
    from seline.folders.export import read_manifest

    manifest = read_manifest(export, sealer)
    volume = f", of the volume {manifest.volume} at {manifest.place}" if manifest.volume else ""
    terminal.notice(f"The export {export}{volume}:")
    if manifest.from_backups:
        terminal.notice(f"In the export, {from_backups_text(manifest.from_backups)}.")
    if manifest.unrecoverable:
        names = ", ".join(manifest.unrecoverable)
        terminal.report(
            f"This export lacks documents that were broken when it was made: {names}.",
            "An older export beside it may hold them: name its folder.",
        )
    if export != source:
        _notify_beside(source)
    return manifest


def _notify_beside(source: str) -> None:
    """Name what a folder of exports holds besides exports, and how to import it."""
    from seline.cures import free_path
    from seline.domain.manifest import parse_export_name
    from seline.operations.export_folders import MARKER_NAME

    others = sorted(
        name
        for name in os.listdir(source)
        if name != MARKER_NAME and parse_export_name(name) is None
    )
    if others:
        count, beside = counted(len(others), "name"), free_path(os.path.join(source, "others"))
        terminal.report(
            f"Not imported, as it is no export: {count} in {source}: {shortened(others)}.",
            f"`mkdir -- {quoted(beside)} && mv -n -- {_each(source, others)} {quoted(beside)} && "
            f"seline import {quoted(beside)}`",
        )


def _each(folder: str, names: Sequence[str]) -> str:
    return " ".join(quoted(os.path.join(folder, name)) for name in names)


async def _notify_copies(api: Api, options: VerbOptions, folder: str) -> None:
    """Show how to copy an older bot's backups into the store, unless it would rotate the copies."""
    checks = {check["name"]: check["detail"] for check in (await api.get("/health"))["checks"]}
    if "checksums: unsupported" in checks["volume"]:
        terminal.notice(f"The backups stay in {folder}: here they would be rotated.")
        return
    data_dir = "DATA_DIR" if options.url else settings_of(options).data_dir
    to = quoted(os.path.join(data_dir, "backups", ""))
    files = f"find {quoted(folder)} -maxdepth 1 -type f -name '*_{'?' * 8}_{'?' * 6}*.json'"
    copy = """sh -c 'cp -n -- "$1" "$2"; cmp -- "$1" "$2${1##*/}"' sh"""  # cmp names what cp skips
    step = f"{files} -exec {copy} {{}} {to} \\;"
    if os.geteuid() == 0:  # the copies are root's, and the store may be another user's
        step += f" && chown -R --reference={quoted(data_dir)} {to}"
    hint = f"To restore from the older backups, copy them: `{step}`"
    terminal.notice(on_one_line(hint))


def _read_legacy(source: str, prefix: str, *, skip_broken: bool) -> "tuple[list[LegacyFile], bool]":
    """Return a folder's usable files, and whether it has backups.

    Raises ImportRefused, ExportDamaged.
    """
    from seline.domain.left_out import AFTER_IMPORT
    from seline.domain.manifest import MANIFEST_NAME
    from seline.folders.export import has_unfinished_export
    from seline.folders.legacy import folder_of_documents, read_legacy_folder

    with terminal.busy("Reading the folder"):
        files, others = read_legacy_folder(source, prefix=prefix)
    _notify(files, others, skip_broken=skip_broken)
    usable = [file for file in files if not file.reason]
    if len(usable) < len(files) and not skip_broken:
        raise ImportRefused(
            f"{counted(len(files) - len(usable), 'file')} of {source} cannot be imported; nothing "
            "was changed.",
            hint="Correct the files that are named above, or leave them out with --skip-broken.",
        )
    if not usable and has_unfinished_export(source):
        raise ExportDamaged(
            f"The export {source} is not whole: it has no {MANIFEST_NAME}.",
            hint="Take another export: the manifest is written last, so this one is unfinished.",
        )
    has_copies = any(item.hint == AFTER_IMPORT for item in others)
    inner = folder_of_documents(source)
    if not usable and (inner or not has_copies):
        hint = "Name the folder in which the older bot kept its files."
        if inner:
            hint = f"Name the folder in which the files are: `seline import {quoted(inner)}`"
        raise ImportRefused(f"{source} holds no .json file that can be imported.", hint=hint)
    _notify_count(len(files) - len(usable))
    return usable, has_copies


def _notify(
    files: "Sequence[LegacyFile]", others: "Sequence[LeftOut]", *, skip_broken: bool
) -> None:
    for file in files:
        if file.reason:
            word = "left out" if skip_broken else "unusable"
            terminal.notice(f"{word}: {file.file}: {file.reason}")
            terminal.notice(f"  {file.hint}")
        elif file.file != file.name:
            terminal.notice(f"renamed: {file.file} becomes {file.name}")
    for item in others[:_LEFT_OUT_SHOWN_MAX]:
        _notify_left_out(item.name, item.reason, item.hint)
    if len(others) > _LEFT_OUT_SHOWN_MAX:
        terminal.notice(f"and {len(others) - _LEFT_OUT_SHOWN_MAX:,} more are left out")
