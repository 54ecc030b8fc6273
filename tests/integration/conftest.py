"""Fixtures for the tests of the admin API: a server in this process, and a client of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from seline.server import Serving, serving
from tests.http_client import Client, settings_for


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(settings_for(tmp_path / "data")) as running:
        await running.acquired()
        yield running


@pytest.fixture
async def client(server: Serving) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, server.address)
