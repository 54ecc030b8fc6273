"""Bodies through files: an upload goes into a spool, a download is read piece by piece.

aiofiles leaks a file whose opening is cancelled. So it only gets descriptors that have another
owner (`closefd=False`): the spool, or the file that `opened` closes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from typing import BinaryIO, Final

import aiofiles
from aiohttp import web

from seline.http.requests import body_pieces
from seline.manager import ManagedStore
from seline.operations.spool import Spool, temporary_space

PIECE_BYTES: Final = 256 << 10


@asynccontextmanager
async def spooled(request: web.Request, bytes_max: int) -> AsyncGenerator[Spool]:
    """Hold the body in a spool. Raises as `body_pieces` does, and VolumeFull."""
    with closing(Spool()) as spool:
        async for piece in body_pieces(request, bytes_max):
            if spool.holds(piece):
                spool.append(piece)
            else:
                await _append(spool, piece)
        yield spool


async def _append(spool: Spool, piece: bytes) -> None:
    descriptor = await asyncio.to_thread(spool.spill)
    with temporary_space():
        async with aiofiles.open(descriptor, "r+b", closefd=False) as file:
            await file.seek(spool.size_bytes)
            await file.write(piece)
    spool.size_bytes += len(piece)


@asynccontextmanager
async def opened(
    managed: ManagedStore, open_file: Callable[[], BinaryIO]
) -> AsyncGenerator[BinaryIO]:
    """Open a file on the reader threads and close it, also if the caller is cancelled."""
    opening = asyncio.ensure_future(managed.reading(open_file))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise
    with file:
        yield file


async def spool_pieces(spool: Spool) -> AsyncGenerator[bytes]:
    """Yield the bytes of a spool."""
    if spool.descriptor is None:
        for offset in range(0, spool.size_bytes, PIECE_BYTES):
            yield spool.read(offset, PIECE_BYTES)
    else:
        async for piece in pieces_of(spool.descriptor):
            yield piece


async def pieces_of(descriptor: int) -> AsyncGenerator[bytes]:
    """Yield the bytes of an open file from its beginning; the caller closes it."""
    async with aiofiles.open(descriptor, "rb", closefd=False) as file:
        await file.seek(0, os.SEEK_SET)
        while piece := await file.read(PIECE_BYTES):
            yield piece


def _close(opening: asyncio.Future[BinaryIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
