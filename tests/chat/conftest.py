"""Fixtures for the tests of the chat: an open store, and a bot of each library."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from seline import open_seline
from seline.library import Seline
from tests.chat.screen import OWNER

OWNERS = [f"telegram:{OWNER}", f"discord:{OWNER}"]


@pytest.fixture
async def seline(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Seline]:
    """Yield an open Seline whose owners are known; a parameter has more settings."""
    more = getattr(request, "param", {})
    async with open_seline(tmp_path / "data", chat__owners=OWNERS, **more) as opened:
        yield opened


@pytest.fixture(params=["aiogram", "python-telegram-bot", "discord.py"])
async def bot(seline: Seline, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Yield a bot of each library, over the open Seline."""
    from tests.chat.bots import BOTS  # the libraries take seconds; not every process needs them

    made = BOTS[request.param]()
    await made.start(seline)
    yield made
    await made.stop()
