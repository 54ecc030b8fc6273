"""Fixtures for the tests of the admin API: a client of the server in this process."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from seline.server import Serving
from tests.http_client import Client


@pytest.fixture
async def client(server: Serving) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, server.address)
