"""Fixtures of the fault suites: worker processes, a fast directory, one open store, a clock."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seline.blocking import Seline, open_seline
from seline.clock import Clock
from tests.clocks import FakeClock
from tests.faults.powercut.trying import Workers, fast_place, workers
from tests.hints import conftest as of_next_steps

follow = of_next_steps.follow


@pytest.fixture(scope="module")
def worker_processes() -> Iterator[Workers]:
    """Yield the worker processes that run the cases."""
    with workers() as two:
        yield two


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory for the cases, in memory where that is possible."""
    (tmp_path / "cases").mkdir()
    with fast_place(tmp_path / "cases") as fast:
        yield fast


@pytest.fixture
def deadline_s(request: pytest.FixtureRequest, share_s: float) -> float:
    """Return the monotonic time at which a long test stops, `LIMIT_S` from now at the latest."""
    return time.monotonic() + min(request.module.LIMIT_S, max(3.0, share_s))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the data directory of the fixture `seline`."""
    return tmp_path / "data"


@pytest.fixture
def seline(directory: Path) -> Iterator[Seline]:
    """Yield an open blocking Seline that adopts hand edits without waiting."""
    with open_seline(directory, lock_wait_s=0, storage__settle_s=0) as opened:
        yield opened


@pytest.fixture
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Return the clock that every store reads: its monotonic time changes only by `advance`."""
    clock = FakeClock()
    monkeypatch.setattr(Clock, "monotonic", lambda _: clock.monotonic())
    return clock
