"""The handler of exports: the readable JSON, or a folder of packs as one .tar, streamed.

A failure after the first byte aborts the connection, so that a part is not taken for the whole.
"""

import tarfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

import msgspec
from aiohttp import web

from seline.clock import instant_text
from seline.errors import (
    DocumentNotFound,
    DocumentUnreadable,
    DocumentUnrecoverable,
    InvalidRequest,
)
from seline.http.context import context, data
from seline.http.files import send, spool_pieces
from seline.ports.store import Snapshot

FORMS: Final = ("json", "folder")


async def export(request: web.Request) -> web.StreamResponse:
    """Stream every document of one instant."""
    form = request.query.get("form", "json")
    if form not in FORMS:
        raise InvalidRequest(f"form is {' or '.join(FORMS)}, not {form!r}.", fields=["form"])
    response = web.StreamResponse()
    response.content_type = "application/json" if form == "json" else "application/x-tar"
    if form == "json":
        response.charset = "utf-8"
    return await send(request, response, _readable(request) if form == "json" else _tar(request))


async def _readable(request: web.Request) -> AsyncGenerator[bytes]:
    manager = data(request)
    async with manager.exported() as snapshot:
        pieces = _json_pieces(snapshot)
        while (piece := await manager.store.reading(lambda: next(pieces, None))) is not None:
            yield piece


def _json_pieces(snapshot: Snapshot) -> Iterator[bytes]:
    """Yield the export's bytes; each document is checked whole before its first byte."""
    taken_at = msgspec.json.encode(instant_text(snapshot.taken_at))
    yield b'{"success": true, "data": {"exported_at": ' + taken_at + b', "files": {'
    unrecoverable: list[str] = []
    comma = b""
    for name in snapshot.names:
        try:
            content = snapshot.open(name)
        except DocumentNotFound:
            continue  # it was purged
        except (DocumentUnrecoverable, DocumentUnreadable):
            unrecoverable.append(name)
            continue
        yield comma + b"\n" + msgspec.json.encode(name) + b": "
        yield from content
        comma = b","
    yield b"}"
    taken = {name: backup for name, backup in snapshot.broken.items() if backup}
    if taken:
        yield b', "from_backups": ' + msgspec.json.encode(taken)
    if unrecoverable:
        yield b', "unrecoverable": ' + msgspec.json.encode(unrecoverable)
    yield b"}}\n"


async def _tar(request: web.Request) -> AsyncGenerator[bytes]:
    """Yield the export folder as a tar file, the manifest last."""
    async with aclosing(context(request).operations.exports.files()) as files:
        async for folder, file, spool in files:
            info = tarfile.TarInfo(f"{folder}/{file}")
            info.size, info.mode = spool.size_bytes, 0o600
            padding = -spool.size_bytes % tarfile.BLOCKSIZE
            yield info.tobuf(tarfile.USTAR_FORMAT)
            async for piece in spool_pieces(spool):
                yield piece
            spool.close()
            yield b"\0" * padding
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
