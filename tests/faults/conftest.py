"""What the suites of faults share: processes that try cases, a fast place for them, one store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seline.blocking import Seline, open_seline
from seline.clock import SystemClock
from tests.clocks import FakeClock
from tests.faults.powercut.trying import Workers, fast_place, workers


@pytest.fixture(scope="module")
def hands() -> Iterator[Workers]:
    """Give the processes that try."""
    with workers() as two:
        yield two


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give a fast directory for the cases."""
    (tmp_path / "cases").mkdir()
    with fast_place(tmp_path / "cases") as fast:
        yield fast


@pytest.fixture
def until_s(request: pytest.FixtureRequest, share_s: float) -> float:
    """Give the monotonic instant until which a test may go on: its suite's `LIMIT_S` at most."""
    return time.monotonic() + min(request.module.LIMIT_S, max(3.0, share_s))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give the directory of the store that is `opened`."""
    return tmp_path / "data"


@pytest.fixture
def opened(directory: Path) -> Iterator[Seline]:
    """Give an open Seline that takes a hand edit for settled at once."""
    with open_seline(directory, lock_wait_s=0, storage__settle_s=0) as seline:
        yield seline


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Let monotonic time stand still for every store, until it is advanced."""
    clock = FakeClock()
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: clock.monotonic())
    return clock
