"""Fixtures: a client of the server in this process, and a volume that is mirrored."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from seline.server import Serving
from tests.http_client import Client
from tests.mirrored_bot import Bot, Counted


@pytest.fixture
async def client(server: Serving) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, server.address)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return the folder that is the destination of `bot`."""
    return tmp_path / "bucket"


@pytest.fixture
async def bot(tmp_path: Path, place: Path) -> AsyncIterator[Bot]:
    """Yield a volume that is mirrored to `place`."""
    made = Bot(tmp_path, Counted(place))
    yield made
    await made.operations.mirrors.close()
    await made.store.close()
