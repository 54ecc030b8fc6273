"""Bodies through files: an upload is written into a spool, a download is read from one.

aiofiles leaks a file whose opening is cancelled, and a cancelled read goes on in its thread. So it
opens no file: it calls the spool, which owns the descriptor and reads nothing after its close.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing, asynccontextmanager, closing
from typing import Final

from aiofiles.os import wrap
from aiohttp import web

from seline.errors import SelineError
from seline.http.requests import body_pieces
from seline.spool import Spool, spooled

PIECE_BYTES: Final = 256 << 10
STALLED_S: Final = 60.0
"""How long a download waits for a client that reads nothing."""
_log = logging.getLogger("seline.http")


@asynccontextmanager
async def spooled_body(request: web.Request, bytes_max: int) -> AsyncGenerator[Spool]:
    """Hold the body in a spool. Raises as `body_pieces` does, and VolumeFull."""
    with closing(Spool()) as spool:
        async for piece in body_pieces(request, bytes_max):
            if spool.holds(piece):
                spool.append(piece)
            else:
                await asyncio.to_thread(spool.append, piece)
        yield spool


async def send_spool(
    request: web.Request, spool: Spool, content_type: str, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send the bytes of a spool and close it."""
    response = web.StreamResponse(headers={**headers, "Content-Type": content_type})
    response.content_length = spool.size_bytes
    with closing(spool):
        return await send(request, response, spool_pieces(spool))


async def send_download(
    request: web.Request, reading: Awaitable[bytes], name: str
) -> web.StreamResponse:
    """Send bytes as a file, through a spool: a slow client occupies no memory."""
    spool = await asyncio.to_thread(spooled, await reading)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return await send_spool(request, spool, "application/octet-stream", headers)


async def send(
    request: web.Request, response: web.StreamResponse, pieces: AsyncGenerator[bytes]
) -> web.StreamResponse:
    """Send a body piece by piece; a failure after the first byte aborts the connection."""
    async with aclosing(pieces):
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        try:
            async for piece in pieces:
                async with asyncio.timeout(STALLED_S):
                    await response.write(piece)
            await response.write_eof()
        except (Exception, asyncio.CancelledError) as error:
            if request.transport is not None:
                request.transport.abort()
            if not isinstance(error, (SelineError, ConnectionError, TimeoutError)):
                raise
            why = error.message if isinstance(error, SelineError) else "the client reads no more"
            level = logging.WARNING if request.remote else logging.DEBUG  # else the verb reports it
            _log.log(level, "a download by %s was aborted: %s", request.remote, why)
    return response


async def spool_pieces(spool: Spool) -> AsyncGenerator[bytes]:
    """Yield the bytes of a spool."""
    read = wrap(spool.read)
    for offset in range(0, spool.size_bytes, PIECE_BYTES):
        if spool.descriptor is None:
            yield spool.read(offset, PIECE_BYTES)
        else:
            yield await read(offset, PIECE_BYTES)
