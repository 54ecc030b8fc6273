"""The verb export: write all documents of one instant to stdout, to a file, or to a folder.

A file gets its name only once all its bytes are on the disk.
"""

import errno
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from seline.cli import terminal
from seline.cli.errors import Exit
from seline.cli.verbs import Api, VerbOptions, api_verb
from seline.domain.plural import counted

if TYPE_CHECKING:
    from seline.domain.manifest import Manifest

_TAIL_BYTES: Final = 1 << 16
_FROM_BACKUPS: Final = re.compile(
    rb'"from_backups"\s*:\s*(\{[^}]*\})(?:,\s*"unrecoverable"\s*:\s*\[[^\]]*\])?\s*\}\s*\}\s*\Z'
)
_UNRECOVERABLE: Final = re.compile(rb'"unrecoverable"\s*:\s*(\[[^\]]*\])\s*\}\s*\}\s*\Z')


@api_verb("export")
@click.argument("file", default="-", type=click.Path(allow_dash=True))
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
async def export(api: Api, options: VerbOptions, file: str, force: bool) -> Exit:
    """Write all documents of one instant as one readable JSON object.

    A directory (or a name without an ending like .json) gets a dated folder of verified packs
    instead, with the documents' backups in it, but not those of deleted documents. `seline import`
    reads both. Exits 3 if a broken document is not in the export.

    Examples:
      seline export seline_backup.json
      seline export > seline_backup.json
      seline export | gzip > seline_backup.json.gz
      seline export backup.json --force --url https://bot.example.org
      seline export /mnt/nas/seline
    """
    del options  # an export is JSON already
    if _is_folder(file):
        return await _export_folder(api, file)
    if file == "-":
        return await _report_whole(api, "stdout", await _receive(api, terminal.out_bytes))
    from seline.outbound.whole_file import whole_file

    _check_absent(file, force=force)
    with whole_file(file, replace=force) as target:
        tail = await _receive(api, target.write)
    return await _report_whole(api, file, tail)


def _is_folder(path: str) -> bool:
    """Return whether a path names a folder: an existing one, or a new name without an ending."""
    if path == "-":
        return False
    if path.endswith("/") or os.path.isdir(path):
        return True
    return not os.path.lexists(path) and not os.path.splitext(path)[1]


async def _export_folder(api: Api, directory: str) -> Exit:
    import tempfile

    from seline.folders.export import write_export

    with tempfile.TemporaryFile() as tar:
        await _receive(api, tar.write, form="folder")
        tar.seek(0)
        manifest = await write_export(tar, directory)
    terminal.out(os.path.join(directory, manifest.name))
    documents = counted(len(manifest.documents), "document")
    backups = counted(sum(len(document.backups) for document in manifest.documents), "backup")
    complete = [await _report_left_out(api), await _report_deleted(api, manifest)]
    whole = "is whole" if all(complete) else "has every document"
    terminal.notice(f"The export {whole} and was read back: {documents}, {backups}.")
    _report_from_backups(manifest.from_backups)
    return _report_lacking("", manifest.unrecoverable)


async def _receive(api: Api, write: Callable[[bytes], object], **query: str) -> bytes:
    """Write an export as it arrives; return its last bytes."""
    tail = b""
    with terminal.progress("Exporting") as advance:
        async with api.stream("GET", "/export", query=query) as response:
            async for chunk in response.content.iter_any():
                write(chunk)
                advance(len(chunk))
                tail = (tail + chunk)[-_TAIL_BYTES:]
    return tail


async def _report_whole(api: Api, where: str, tail: bytes) -> Exit:
    taken = _FROM_BACKUPS.search(tail)
    _report_from_backups(json.loads(taken[1]) if taken else {})
    found = _UNRECOVERABLE.search(tail)
    is_complete = await _report_left_out(api)
    if found is not None:
        return _report_lacking(f" ({where})", json.loads(found[1]))
    terminal.notice(f"The export {'is whole' if is_complete else 'has every document'} ({where}).")
    return Exit.DONE


async def _report_left_out(api: Api) -> bool:
    """Report what the data directory holds that no export has; return whether that is nothing."""
    checks = (await api.get("/health"))["checks"]
    found = next((check for check in checks if check["name"] == "left_out"), None)
    if found is not None:
        terminal.report(f"Not in the export: {found['detail']}", found["fix"])
    return found is None


async def _report_deleted(api: Api, manifest: "Manifest") -> bool:
    """Report the backups of deleted documents, which no export has; return whether none exist."""
    from seline.domain.readable_export import deleted_backups_text

    known = {document.name for document in manifest.documents} | set(manifest.unrecoverable)
    backups = (await api.get("/storage-info"))["backups"]
    lacking = deleted_backups_text((backup["document"] for backup in backups), known)
    if lacking:
        terminal.notice(f"Not in the export: {lacking}.")
    return not lacking


def _report_from_backups(backups: Mapping[str, str]) -> None:
    from seline.domain.readable_export import from_backups_text

    if backups:
        terminal.notice(f"In the export, {from_backups_text(backups)}.")


def _report_lacking(where: str, names: Sequence[str]) -> Exit:
    """Report the documents that the export lacks; return the exit code."""
    if not names:
        return Exit.DONE
    terminal.report(
        f"The export{where} lacks what cannot be served: {', '.join(names)}.",
        f"`seline load {names[0]}` says why, and what to do.",
    )
    return Exit.DAMAGE


def _check_absent(file: str, *, force: bool) -> None:
    """Raise FileExistsError before the export is made."""
    if os.path.lexists(file) and not force:
        raise FileExistsError(errno.EEXIST, "it exists already; nothing was written", file)
