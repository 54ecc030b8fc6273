"""Import an export that was uploaded into a spool, however large it is.

Its documents are parsed one by one and written into a second spool as they will be stored. The
commit reads each from there, so neither the upload nor the documents are in memory at once.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Final

from seline.domain.document import METADATA_NAME, Content, Json, is_document_name
from seline.domain.export_reader import read_export
from seline.domain.json_codec import NotJson
from seline.domain.readable_export import ImportMode, ImportReport, parse_export
from seline.errors import InvalidRequest
from seline.manager.encoding import Encoding
from seline.manager.managed_store import ManagedStore
from seline.manager.transfer import content_of, import_contents
from seline.operations.spool import Spool

PIECE_BYTES: Final = 1 << 20
ESCAPED_MAX: Final = 4
"""How many times longer than its stored bytes a document's text may be."""


async def import_spool(
    store: ManagedStore, upload: Spool, mode: ImportMode, *, dry_run: bool
) -> ImportReport:
    """Import an uploaded export, all of it or nothing (V5); `dry_run` changes nothing.

    Raises InvalidRequest with line and column, ImportRefused, NotSerializable, DocumentTooLarge,
    and VolumeFull where the directory for temporary files is full.
    """
    work = partial(_contents, upload, store.encoding)
    contents = await store.reading(work, limit_s=math.inf)
    return await import_contents(store, contents, mode, dry_run=dry_run)


def _contents(upload: Spool, encoding: Encoding) -> dict[str, Content]:
    """Return the documents of an export, their bytes in a spool. Blocks."""
    documents, contents = Spool(), dict[str, Content]()

    def take(name: str, value: Json) -> None:
        if name != METADATA_NAME and is_document_name(name):
            contents[name] = _spooled(content_of(name, value, encoding), documents)

    try:
        rest = read_export(
            _pieces(upload),
            take,
            value_length_max=ESCAPED_MAX * encoding.document_bytes_max,
            depth_max=encoding.depth_max,
        )
    except NotJson as error:
        documents.close()
        raise refused_body(error) from error
    parse_export(rest)
    return contents


def refused_body(error: NotJson) -> InvalidRequest:
    """Return the error for a body that is not JSON, with line and column."""
    return InvalidRequest(
        f"The body is not JSON: {error}. Nothing was changed.",
        hint=error.hint,
        line=error.line,
        column=error.column,
    )


def _pieces(spool: Spool) -> Iterator[bytes]:
    for offset in range(0, spool.size_bytes, PIECE_BYTES):
        yield spool.read(offset, PIECE_BYTES)


def _spooled(content: Content, spool: Spool) -> Content:
    """Return the content with its bytes in a spool."""
    offset = spool.append(content.data)
    load = partial(spool.read, offset, content.size_bytes)
    return Content(content.revision, content.size_bytes, None, load)
