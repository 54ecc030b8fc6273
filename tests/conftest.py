"""What every test shares: strict mode, a still clock, and the end of a slice of the long rounds."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings

from seline import open_seline
from seline.library import Seline
from tests.clocks import FakeClock

os.environ["SELINE_STRICT"] = "1"
settings.register_profile("seline", deadline=None)  # a busy machine is not a defect
settings.load_profile("seline")
PROVE_UNTIL = time.monotonic() + 60 * float(os.environ.pop("SELINE_PROVE_MINUTES", "") or math.inf)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Draw the rounds of a slice by lot, anew each day, so that no suite is the one left out."""
    if math.isfinite(PROVE_UNTIL):
        random.Random(f"{datetime.now(UTC):%Y-%m-%d}").shuffle(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start no long round once the time of this slice (`SELINE_PROVE_MINUTES`) is over."""
    if item.get_closest_marker("prove") and time.monotonic() >= PROVE_UNTIL:
        pytest.skip("left out of this slice; `make prove` alone runs it")


@pytest.fixture
def share_s(request: pytest.FixtureRequest) -> float:
    """Give the seconds that this long round may take: its share of what is left of the slice.

    Rounds share evenly; one marked `prove(share=20)` counts for twenty. A round that needs less
    leaves the rest to those after it. Without a slice there is no end (`inf`).
    """
    items = request.session.items
    to_come = items[items.index(request.node) :]
    left_s = max(0.0, PROVE_UNTIL - time.monotonic())
    return left_s * _share_of(request.node) / sum(map(_share_of, to_come))


def _share_of(item: pytest.Item) -> float:
    mark = item.get_closest_marker("prove")
    return 0.0 if mark is None else float(mark.kwargs.get("share", 1))


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands at 2025-01-06 14:30:22 UTC."""
    return FakeClock()


@pytest.fixture
async def seline(tmp_path: Path) -> AsyncIterator[Seline]:
    """Give an open Seline on an empty directory."""
    async with open_seline(tmp_path / "data", lock_wait_s=0) as opened:
        yield opened
