"""Import an export that was uploaded into a spool, however large it is.

The documents of a readable export are parsed one by one and written into a second spool as they
will be stored. The commit reads each from there, so neither the upload nor the documents are in
memory at once. An export folder comes as a .tar, and is put back as any copy is (`restore`).
"""

import os
import tarfile
from typing import Final

from seline.domain.copy import Copy
from seline.domain.document import METADATA_NAME, Content, Json, is_document_name
from seline.domain.export_reader import read_export
from seline.domain.json_codec import NotJson, decode_given
from seline.domain.manifest import Manifest
from seline.domain.readable_export import parse_export
from seline.errors import ExportDamaged, ImportRefused, InvalidRequest, KeyMissing
from seline.manager.transfer import imported_content
from seline.operations.copies import copy_of_export
from seline.operations.mirror_store import in_thread
from seline.ports.sealing import UNSEALED, Sealer
from seline.settings import Storage
from seline.spool import HELD_BYTES_MAX, Spool

PIECE_BYTES: Final = 1 << 20
ENVELOPE_LEVELS: Final = 3
"""The levels around a document in an export: `data`, `files`, the document's name."""
ESCAPED_MAX: Final = 4
"""How many times longer than its stored bytes a document's text may be."""


def contents_of_upload(upload: Spool, limits: Storage) -> dict[str, Content]:
    """Return the documents of an uploaded export, their bytes in a spool. Blocks.

    Raises InvalidRequest with line and column, ImportRefused, NotSerializable, DocumentTooLarge,
    and VolumeFull where the directory for temporary files is full.
    """
    documents, contents = Spool(), dict[str, Content]()
    pieces = (upload.read(at, PIECE_BYTES) for at in range(0, upload.size_bytes, PIECE_BYTES))

    def take(name: str, value: Json) -> None:
        if name != METADATA_NAME and is_document_name(name):
            content = imported_content(name, value, limits)
            contents[name] = content.moved_to(documents.keep(content.data))

    try:
        rest = read_export(
            pieces,
            take,
            value_length_max=ESCAPED_MAX * limits.document_bytes_max,
            depth_max=limits.depth_max,
        )
    except NotJson as error:
        documents.close()
        raise refused_body(_as_one_value(upload, error, limits)) from error
    parse_export(rest)
    return contents


def _as_one_value(upload: Spool, error: NotJson, limits: Storage) -> NotJson:
    """Return the error of a small upload that is parsed whole: it has the path and the place."""
    if upload.size_bytes > HELD_BYTES_MAX:
        return error
    try:
        whole = upload.read(0, upload.size_bytes)
        decode_given(whole, depth_max=limits.depth_max + ENVELOPE_LEVELS)
    except NotJson as placed:
        return placed
    return error


async def copy_of_upload(upload: Spool) -> Copy:
    """Open an uploaded .tar of an export folder as a copy. Raises ExportDamaged, KeyMissing."""
    files = await in_thread(lambda: _files_of(upload))

    async def get(name: str, bytes_max: int) -> bytes:
        if name not in files:
            raise ExportDamaged(f"The .tar has no {name}. Nothing was changed.")
        at, size_bytes = files[name]
        return await in_thread(lambda: upload.read(at, min(size_bytes, bytes_max + 1)))

    def opening(manifest: Manifest) -> Sealer:
        if manifest.encrypted:
            raise KeyMissing
        return UNSEALED

    return await copy_of_export("The export", get, opening)


def _files_of(upload: Spool) -> dict[str, tuple[int, int]]:
    """Return the place and the size of each file in a .tar, by its name without folders."""
    try:
        with upload.opened() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return {
                os.path.basename(member.name): (member.offset_data, member.size)
                for member in tar
                if member.isreg() and not member.issparse()
            }
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ExportDamaged(
            f"The body is not the .tar of an export: {error}. Nothing was changed."
        ) from error


def foreign_export(volume: str) -> ImportRefused:
    """Return the error for a copy of another volume."""
    return ImportRefused(
        f"The copy is of the volume {volume}, not of this one. Nothing was changed.",
        hint="Send `foreign=true` if you mean it; a dry run shows what it would replace.",
        volume=volume,
    )


def refused_body(error: NotJson) -> InvalidRequest:
    """Return the error for a body that is not JSON, or beyond a limit, with line and column."""
    what = "cannot be stored" if error.is_json else "is not JSON"
    return InvalidRequest(
        f"The body {what}: {error}. Nothing was changed.",
        hint=error.hint,
        line=error.line,
        column=error.column,
    )
