"""Test a week of scheduled jobs in fifteen seconds: the number of runs, and that nothing grows.

The clocks of the worker and of APScheduler run 40,000 times too fast; APScheduler's timers in the
event loop are shortened by the same factor.
"""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from seline import open_seline
from seline.domain.job import RUNS_KEPT
from seline.settings import Job
from seline_workers import Worker

SPEED = 40_000
HOURLY = {
    "integrity": Job(schedule="every 1 h", timeout_s=3600.0),
    "rotation": Job(schedule="every 2 h", timeout_s=600.0),
    "usage": Job(schedule="every 30 min", timeout_s=60.0),
    "export": Job(schedule="daily 03:00", timeout_s=3600.0),
}
A_DAY = {"integrity": 24, "rotation": 12, "usage": 48, "export": 1}
START = datetime(2025, 1, 6, 14, 30, tzinfo=UTC)


class FastClock:
    """A clock on which a day takes two seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return (time.monotonic() - self._started) * SPEED


@pytest.mark.timeout(120)
@pytest.mark.parametrize("days", [2, pytest.param(7, marks=pytest.mark.prove)])
async def test_each_job_runs_as_often_as_scheduled_and_nothing_grows(
    days: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FastClock()
    _speed_up(monkeypatch, clock)
    runs: Counter[str] = Counter()
    running: Counter[str] = Counter()
    overlapping: list[str] = []

    def work(name: str) -> Callable[[object], Awaitable[str]]:
        async def run(_operations: object) -> str:
            running[name] += 1
            overlapping.extend([name] if running[name] > 1 else [])
            await asyncio.sleep(0)
            runs[name] += 1
            running[name] -= 1
            return "done"

        return run

    table = {name: work(name) for name in A_DAY}
    async with open_seline(tmp_path) as seline:
        worker = Worker(seline, HOURLY, clock=clock, table=table)
        await worker.start()
        sizes: list[tuple[int, int]] = []
        while clock.now() < START + timedelta(days=days):
            await asyncio.sleep(0.5)
            gc.collect()
            record_bytes = (tmp_path / ".seline" / "jobs.json").stat().st_size
            sizes.append((len(asyncio.all_tasks()), record_bytes))
        passed = (clock.now() - START) / timedelta(days=1)
        await worker.stop()

    assert overlapping == []
    for name, a_day in A_DAY.items():
        # a run is scheduled from the one before it, which starts late on a busy machine; the
        # upper bound has one run that catches up at the start, and one at the end of the time
        assert 0.2 * days * a_day - 1 <= runs[name] <= passed * a_day + 2, (name, passed, runs)
        assert len(worker.runs(name)) <= RUNS_KEPT
    early, late = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    idle = [min(tasks for tasks, _ in half) for half in (early, late)]
    assert idle[1] <= idle[0] + len(A_DAY), "tasks accumulate"
    assert max(record_bytes for _, record_bytes in late) < 20_000, "job records accumulate"


def _speed_up(monkeypatch: pytest.MonkeyPatch, clock: FastClock) -> None:
    class FastDatetime(datetime):
        """The wall clock that APScheduler reads."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return clock.now().astimezone(tz)

    def start_timer(self: AsyncIOScheduler, seconds: float | None) -> None:
        start_real_timer(self, None if seconds is None else seconds / SPEED)

    start_real_timer = AsyncIOScheduler._start_timer
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", FastDatetime)
    monkeypatch.setattr(AsyncIOScheduler, "_start_timer", start_timer)
