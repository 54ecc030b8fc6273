"""A relay in front of a server, which can die in the middle of an upload."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """It passes `bytes_left` bytes on to the server; then it ends and refuses every connection."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.bytes_left = math.inf
        self.server: asyncio.Server | None = None
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.bytes_left <= 0:
            writer.transport.abort()
            return
        back, out = await asyncio.open_connection("127.0.0.1", self.to)
        self.writers += [writer, out]
        answering = asyncio.ensure_future(self.copy(back, writer))
        while data := await reader.read(4096):
            self.bytes_left -= len(data)
            if self.bytes_left <= 0:
                break
            out.write(data)
            await out.drain()
        out.close()
        answering.cancel()
        writer.transport.abort()

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    """Relay to a port of 127.0.0.1 until the block ends."""
    relaying = Relay(port)
    relaying.server = await asyncio.start_server(relaying.serve, "127.0.0.1", 0)
    try:
        yield relaying
    finally:
        relaying.server.close()
        for writer in relaying.writers:
            writer.transport.abort()
        await asyncio.sleep(0)
