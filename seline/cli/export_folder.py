"""An export folder on this machine: taken from the server as one .tar, checked, then put in place.

The manifest is written last: a folder without one is no export.
"""

from __future__ import annotations

import json
import os
import shlex
import tarfile
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from seline.cli import terminal
from seline.cli.exits import Exit
from seline.domain.manifest import (
    MANIFEST_NAME,
    Manifest,
    decode_manifest,
    parse_export_name,
)
from seline.domain.plural import counted
from seline.errors import DocumentUnrecoverable, ExportDamaged, ExportFailed
from seline.operations.exports import check_packs
from seline.operations.packs import DOCUMENTS, check_documents, members_of
from seline.outbound.destinations.folder import Folder

if TYPE_CHECKING:
    from seline.cli.client import Api


async def export_folder(api: Api, directory: str) -> Exit:
    """Write one export into a directory; say its name, and what is not in it."""
    target = Folder("this folder", directory)
    with tempfile.TemporaryFile() as tar:
        await _receive(api, tar)
        tar.seek(0)
        name, content = "", b""
        for name, file, content in _members(tar):
            if name in await target.exports():
                raise ExportFailed(f"{directory} holds {name} already.")
            if file != MANIFEST_NAME:
                await target.put(name, file, content)
    manifest = decode_manifest(content)
    await check_packs(target, manifest)
    await target.put(name, MANIFEST_NAME, content)
    terminal.out(os.path.join(directory, name))
    return _told(manifest)


async def _receive(api: Api, tar: IO[bytes]) -> None:
    from seline.cli.client import pieces

    with terminal.progress("Exporting", None) as advance:
        async with api.stream("GET", "/export", query={"form": "folder"}) as response:
            async for piece in pieces(response):
                tar.write(piece)
                advance(len(piece))


def _members(tar: IO[bytes]) -> Iterator[tuple[str, str, bytes]]:
    """Yield (export, file, bytes) in the order sent; the manifest must be the last."""
    file = ""
    with tarfile.open(fileobj=tar, mode="r:") as members:
        for member in members:
            folder, _, file = member.name.partition("/")
            content = members.extractfile(member)
            if parse_export_name(folder) is None or "/" in file or content is None:
                raise ExportDamaged(f"The server sent what is no export: {member.name!r}.")
            yield folder, file, content.read()
    if file != MANIFEST_NAME:
        raise ExportDamaged("The server sent an export without a manifest.")


def _told(manifest: Manifest) -> Exit:
    documents = counted(len(manifest.documents), "document")
    backups = counted(sum(len(one.backups) for one in manifest.documents), "backup")
    terminal.say(f"The export is whole and was read back: {documents}, {backups}.")
    if not manifest.unrecoverable:
        return Exit.DONE
    names = ", ".join(manifest.unrecoverable)
    terminal.complain(
        f"It lacks what is broken and has no sound backup: {names}.",
        DocumentUnrecoverable.hint,
    )
    return Exit.DAMAGE


def export_in(source: str) -> str | None:
    """Return the export that a directory is, or the newest of those it holds, None without any."""
    if _is_export(source):
        return source
    inside = [name for name in os.listdir(source) if parse_export_name(name) is not None]
    found = [path for name in sorted(inside) if _is_export(path := os.path.join(source, name))]
    return found[-1] if found else None


def has_unfinished_export(source: str) -> bool:
    """Whether a directory is, or holds, an export that has no manifest."""
    own = os.path.basename(os.path.abspath(source))
    return any(parse_export_name(name) is not None for name in (own, *os.listdir(source)))


def _is_export(directory: str) -> bool:
    """Whether it has a manifest, which is written last."""
    return os.path.isfile(os.path.join(directory, MANIFEST_NAME))


def as_body(source: str) -> bytes:
    """Return an export folder's documents as the body of an import, every digest checked."""
    manifest = _manifest(source)
    if manifest.encrypted:
        raise ExportDamaged("This export is encrypted; this Seline cannot read it.")
    documents: dict[str, bytes] = {}
    for pack in manifest.packs:
        try:
            with open(os.path.join(source, pack.name), "rb") as file:
                members = dict(members_of(pack, file.read()))
        except FileNotFoundError as error:
            raise ExportDamaged(f"{pack.name} is missing.", pack=pack.name) from error
        documents |= {
            name.removeprefix(DOCUMENTS): content
            for name, content in members.items()
            if name.startswith(DOCUMENTS)
        }
    check_documents(manifest, documents)
    if manifest.unrecoverable:
        names = ", ".join(manifest.unrecoverable)
        terminal.complain(
            f"This export lacks what was broken when it was made: {names}.",
            "An older export beside it may hold that: name its folder.",
        )
    files = b",".join(
        json.dumps(document.name).encode() + b": " + documents[document.name]
        for document in manifest.documents
    )
    return b'{"files": {' + files + b"}}"


def left_out(source: str) -> str:
    """Say which backups an export folder holds, which no import takes, and how to look at them."""
    manifest = _manifest(source)
    count = sum(len(document.backups) for document in manifest.documents)
    if not count:
        return ""
    held = "1 backup, which is" if count == 1 else f"{count:,} backups, which are"
    packs = f"{shlex.quote(os.path.abspath(source))}/pack-*.tar.zst"
    return (
        f"The export holds {held} not imported: only documents are.\n"
        "To look at them, in a folder of your own:\n"
        f'  for pack in {packs}; do tar --zstd -xf "$pack"; done'
    )


def _manifest(source: str) -> Manifest:
    with open(os.path.join(source, MANIFEST_NAME), "rb") as file:
        return decode_manifest(file.read())
