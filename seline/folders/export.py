"""Export folders: write one that a server streams as a .tar, read one back for an import.

The manifest is written last: a folder without a manifest is not a whole export.
"""

import io
import json
import os
import tarfile
from collections.abc import Coroutine, Iterator, Mapping
from typing import IO

import msgspec

from seline.domain.copy import Copy
from seline.domain.export_summary import SUMMARY_NAME, decode_summary
from seline.domain.manifest import (
    LIST_NAME,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    decode_manifest,
    encode_manifest,
    parse_export_name,
)
from seline.errors import ExportDamaged, ExportFailed, ImportRefused, KeyMissing
from seline.operations.copies import Copies
from seline.operations.export_folders import ExportFolders
from seline.operations.own_exports import check_packs
from seline.operations.packs import (
    DOCUMENTS,
    check_documents,
    check_pack,
    file_entry,
    member_bytes,
    members_of,
    pack_bytes_max,
    with_names,
)
from seline.outbound.destinations.folder import Folder
from seline.ports.sealing import UNSEALED, Sealer


async def write_export(tar: IO[bytes], directory: str) -> Manifest:
    """Write the export of a .tar into a directory and read its packs back; return its manifest.

    Raises ExportDamaged and ExportFailed.
    """
    target = ExportFolders(Folder("this folder", directory))
    await target.store.make()
    export, content = "", b""
    for export, file, content in _members(tar):
        if export in await target.complete():
            raise ExportFailed(f"{directory} holds {export} already.")
        if file != MANIFEST_NAME:
            await target.put(export, file, content)
    manifest = decode_manifest(content)
    await check_packs(target, manifest)
    await target.put(export, MANIFEST_NAME, content)
    return manifest


def _members(tar: IO[bytes]) -> Iterator[tuple[str, str, bytes]]:
    """Yield (export, file, bytes) in the order sent. Raises ExportDamaged.

    The last file must be the manifest.
    """
    file = ""
    with tarfile.open(fileobj=tar, mode="r:") as members:
        for member in members:
            folder, _, file = member.name.partition("/")
            content = member_bytes(members, member)
            if parse_export_name(folder) is None or "/" in file or content is None:
                raise ExportDamaged(f"The server's export has an unknown member: {member.name!r}.")
            yield folder, file, content
    if file != MANIFEST_NAME:
        raise ExportDamaged("The server sent an export without a manifest.")


def find_export(source: str) -> str | None:
    """Return the directory itself if it is a whole export, else the last one in it, or None.

    The last one is the one written last, not the one with the latest instant, and not in doubt
    unless all are. Raises ImportRefused if the directory holds exports of several volumes,
    ExportDamaged if a manifest is broken.
    """
    if _is_whole(source):
        return source
    inside = [name for name in os.listdir(source) if parse_export_name(name) is not None]
    whole = [path for name in sorted(inside) if _is_whole(path := os.path.join(source, name))]
    found = [(_manifest(path), path) for path in whole]
    found.sort(key=lambda item: (not _is_in_doubt(*item), item[0].sequence))
    last = {manifest.volume: (manifest, path) for manifest, path in found}
    if len(last) > 1:
        listed = ", ".join(f"{path} (of {manifest.place})" for manifest, path in last.values())
        raise ImportRefused(
            f"{source} holds exports of {len(last)} volumes. The last of each: {listed}.",
            hint="Name the folder of the export that you mean.",
        )
    return next((path for _, path in last.values()), None)


def copy_of_export(source: str, sealer: Sealer = UNSEALED) -> Coroutine[None, None, Copy]:
    """Open an export folder as a copy. Raises ExportDamaged, KeyMissing."""
    parent, name = os.path.split(os.path.abspath(source))
    return Copies(Folder("this folder", parent), sealer, takes_plain=True).open_export(name)


def has_unfinished_export(source: str) -> bool:
    """Return whether a directory is, or holds, an export without a manifest.

    Call it where `find_export` returns None.
    """
    own = os.path.basename(os.path.abspath(source))
    return any(parse_export_name(name) is not None for name in (own, *os.listdir(source)))


def _manifest(export: str) -> Manifest:
    try:
        with open(os.path.join(export, MANIFEST_NAME), "rb") as file:
            return decode_manifest(file.read())
    except ExportDamaged as error:
        raise ExportDamaged(
            f"{export}: {error.message}", hint="Name the folder of another export."
        ) from error


def _is_in_doubt(manifest: Manifest, export: str) -> bool:
    try:
        return bool(decode_summary(_stored(export, SUMMARY_NAME), manifest).doubt)
    except ExportDamaged:
        return False  # it has none


def _is_whole(directory: str) -> bool:
    return os.path.isfile(os.path.join(directory, MANIFEST_NAME))


def read_manifest(source: str, sealer: Sealer = UNSEALED) -> Manifest:
    """Return the manifest of an export, with its documents. Raises ExportDamaged, KeyMissing."""
    manifest = _manifest(source)
    if manifest.encrypted and not (sealer.suffix and sealer.can_open):
        raise KeyMissing
    if manifest.encrypted:
        return with_names(manifest, _stored(source, LIST_NAME), sealer)
    return manifest


def read_export(source: str, sealer: Sealer = UNSEALED) -> tuple[dict[str, bytes], Manifest]:
    """Return an export's documents by name, and its manifest.

    `sealer` decrypts an encrypted one. Checks every digest. Raises ExportDamaged, KeyMissing.
    """
    manifest = read_manifest(source, sealer)
    documents = {
        member.removeprefix(DOCUMENTS): content
        for member, content in _packed(source, manifest, sealer)
        if member.startswith(DOCUMENTS)
    }
    check_documents(manifest, documents)
    return {item.name: documents[item.name] for item in manifest.documents}, manifest


def write_tar(source: str, manifest: Manifest, sealer: Sealer, target: IO[bytes]) -> None:
    """Write an export as the .tar that an import takes: decrypted, its manifest last.

    `manifest` has its documents. Raises ExportDamaged.
    """
    packs: list[FileEntry] = []
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for pack in manifest.packs:
            data = _stored(source, pack.name)
            check_pack(pack, data)
            if manifest.encrypted:
                data = sealer.open(data)
            packs.append(file_entry(pack.name.removesuffix(sealer.suffix), data))
            _add(tar, f"{manifest.name}/{packs[-1].name}", data)
        plain = msgspec.structs.replace(manifest, encrypted=False, packs=tuple(packs), files=())
        _add(tar, f"{manifest.name}/{MANIFEST_NAME}", encode_manifest(plain))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))


def import_body(documents: Mapping[str, bytes]) -> bytes:
    """Return documents as the body of one import, their bytes unchanged."""
    files = (json.dumps(name).encode() + b": " + data for name, data in documents.items())
    return b'{"files": {' + b",\n".join(files) + b"}}"


def _packed(source: str, manifest: Manifest, sealer: Sealer) -> Iterator[tuple[str, bytes]]:
    opening = sealer if manifest.encrypted else UNSEALED
    for pack in manifest.packs:
        data, bytes_max = _stored(source, pack.name), pack_bytes_max(manifest)
        yield from members_of(pack, data, opening, bytes_max=bytes_max)


def _stored(source: str, name: str) -> bytes:
    try:
        with open(os.path.join(source, name), "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ExportDamaged(f"{name} is missing.", pack=name) from error
