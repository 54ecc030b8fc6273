"""What every test shares: strict mode, and a clock that stands still until it is told."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seline import open_seline
from seline.library import Seline
from tests.clocks import FakeClock

os.environ["SELINE_STRICT"] = "1"


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands at 2025-01-06 14:30:22 UTC."""
    return FakeClock()


@pytest.fixture
async def seline(tmp_path: Path) -> AsyncIterator[Seline]:
    """Give an open Seline on an empty directory."""
    async with open_seline(tmp_path / "data", lock_wait_s=0) as opened:
        yield opened
