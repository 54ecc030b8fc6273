"""A week in seconds, through the real scheduler: each job as often as it should, and nothing grows.

The wall clocks of the worker and of APScheduler run forty thousand times too fast; the event loop's
own timers are shortened by as much.
"""

from __future__ import annotations

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
from seline.operations.custody import Custody
from seline.settings import Job, Jobs
from seline_workers import Worker
from seline_workers.table import Row

SPEED = 40_000
WEEK = timedelta(days=7)
HOURLY = Jobs(
    integrity=Job(schedule="every 1 h", timeout_s=3600.0),
    rotation=Job(schedule="every 2 h", timeout_s=600.0),
    usage=Job(schedule="every 30 min", timeout_s=60.0),
    export=Job(schedule="daily 03:00", timeout_s=3600.0),
)
EXPECTED = {"integrity": 168, "rotation": 84, "usage": 336, "export": 7}
START = datetime(2025, 1, 6, 14, 30, tzinfo=UTC)


class Fast:
    """A clock on which a week takes fifteen seconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return (time.monotonic() - self._began) * SPEED


@pytest.mark.timeout(120)
async def test_a_week_runs_each_job_as_often_as_it_should_and_nothing_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Fast()
    _hurry(monkeypatch, clock)
    counted: Counter[str] = Counter()
    under_way: Counter[str] = Counter()
    twice: list[str] = []

    def work(name: str) -> Callable[[object], Awaitable[str]]:
        async def run(_custody: object) -> str:
            under_way[name] += 1
            twice.extend([name] if under_way[name] > 1 else [])
            await asyncio.sleep(0)
            counted[name] += 1
            under_way[name] -= 1
            return "done"

        return run

    table = {name: Row(name=name, work=work(name), catch_up=False) for name in EXPECTED}
    async with open_seline(tmp_path) as seline:
        custody = Custody(seline.data, clock=clock)
        worker = Worker(seline.data, custody, HOURLY, clock=clock, table=table)
        await worker.start()
        sizes: list[tuple[int, int]] = []
        while clock.now() < START + WEEK:
            await asyncio.sleep(1)
            gc.collect()
            kept = (tmp_path / ".seline" / "jobs.json").stat().st_size
            sizes.append((len(asyncio.all_tasks()), kept))
        lived = (clock.now() - START) / WEEK
        await worker.stop()

    assert twice == []
    for name, expected in EXPECTED.items():
        # a run is planned from the instant of the one before it, which comes late by the noise
        assert 0.2 * expected - 1 <= counted[name] <= lived * expected + 1, (name, lived, counted)
        assert len(worker.runs(name)) <= RUNS_KEPT
    early, late = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    idle = [min(tasks for tasks, _ in half) for half in (early, late)]
    assert idle[1] <= idle[0] + len(EXPECTED), "tasks pile up"
    assert max(kept for _, kept in late) < 20_000, "the records pile up"


def _hurry(monkeypatch: pytest.MonkeyPatch, clock: Fast) -> None:
    class Hurried(datetime):
        """What APScheduler takes for the wall clock."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return clock.now().astimezone(tz)

    def wait(self: AsyncIOScheduler, seconds: float | None) -> None:
        real(self, None if seconds is None else seconds / SPEED)

    real = AsyncIOScheduler._start_timer
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Hurried)
    monkeypatch.setattr(AsyncIOScheduler, "_start_timer", wait)
