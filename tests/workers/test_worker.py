"""Jobs through the real scheduler: one run at a time, outcomes kept, a stop cancels nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from seline import open_seline
from seline.clock import SystemClock
from seline.domain.job import JobRecord, Run, RunOutcome
from seline.errors import JobNotFound, StoreClosed, VolumeFull
from seline.library import Seline
from seline.operations.custody import Custody
from seline.settings import Job, Jobs
from seline_workers import Worker
from seline_workers.table import JOBS, Row

OFTEN = Jobs(usage=Job(schedule="every 1 s", timeout_s=5.0))
SELDOM = Jobs()
HOUR = timedelta(hours=1)
LIMIT = {"integrity": HOUR, "rotation": HOUR, "usage": HOUR, "export": 24 * HOUR}


@pytest.fixture
async def seline(tmp_path: Path) -> AsyncIterator[Seline]:
    async with open_seline(tmp_path) as opened:
        yield opened


def a_worker(
    seline: Seline,
    *rows: Row,
    settings: Jobs = SELDOM,
    heard: Callable[[Run, JobRecord], Awaitable[None]] | None = None,
) -> Worker:
    custody = Custody(seline.data, clock=SystemClock())
    table = {row.name: row for row in rows} if rows else JOBS
    more = {"heard": heard} if heard else {}
    return Worker(seline.data, custody, settings, clock=SystemClock(), table=table, **more)


def a_row(
    work: Callable[[], Awaitable[str]], *, name: str = "usage", catch_up: bool = False
) -> Row:
    return Row(name=name, work=lambda _custody: work(), catch_up=catch_up)


async def ended(worker: Worker, name: str, count: int = 1) -> Run:
    async with asyncio.timeout(10):
        while len([run for run in worker.runs(name) if run.ended_at]) < count:
            await asyncio.sleep(0.01)
    return next(run for run in worker.runs(name) if run.ended_at)


async def test_every_job_of_the_table_runs_on_request(seline: Seline) -> None:
    await seline.data.save_json("user_profile.json", {"n": 1})
    worker = a_worker(seline)
    await worker.start(scheduled=False)
    for job in worker.jobs():
        worker.run_now(job.name)
        assert (await ended(worker, job.name)).outcome is RunOutcome.OK, job.name
    assert [job.next_run for job in worker.jobs()] == [None] * len(JOBS)
    await worker.stop()


async def test_the_clock_runs_a_job_again_and_again(seline: Seline) -> None:
    count = 0

    async def work() -> str:
        nonlocal count
        count += 1
        return f"run {count}"

    worker = a_worker(seline, a_row(work), settings=OFTEN)
    await worker.start()
    run = await ended(worker, "usage", count=2)
    assert run.detail == "run 2"
    await worker.stop()
    await asyncio.sleep(1.2)
    assert count == 2, "a worker that was stopped runs nothing"


async def test_a_job_asked_for_twice_runs_once(seline: Seline) -> None:
    release = asyncio.Event()

    async def work() -> str:
        await release.wait()
        return "done"

    worker = a_worker(seline, a_row(work))
    await worker.start(scheduled=False)
    first, second = worker.run_now("usage"), worker.run_now("usage")
    assert first.id == second.id
    release.set()
    await ended(worker, "usage")
    assert len(worker.runs("usage")) == 1
    await worker.stop()


async def test_an_instant_that_meets_a_run_is_skipped_and_counted(seline: Seline) -> None:
    release = asyncio.Event()

    async def work() -> str:
        await release.wait()
        return "done"

    worker = a_worker(seline, a_row(work), settings=OFTEN)
    await worker.start()
    worker.run_now("usage")
    assert (await ended(worker, "usage")).outcome is RunOutcome.SKIPPED
    release.set()
    await worker.stop()


async def test_a_job_that_raises_is_recorded_and_the_next_run_happens(seline: Seline) -> None:
    errors = [ValueError("a bug"), VolumeFull("no room")]

    async def work() -> str:
        if errors:
            raise errors.pop(0)
        return "fine"

    heard: list[RunOutcome | None] = []

    async def hear(run: Run, _record: JobRecord) -> None:
        heard.append(run.outcome)

    worker = a_worker(seline, a_row(work), heard=hear)
    await worker.start(scheduled=False)
    details = []
    for count in (1, 2, 3):
        worker.run_now("usage")
        details.append((await ended(worker, "usage", count=count)).detail)
    assert details == ["ValueError: a bug", "no room", "fine"]
    assert heard == [RunOutcome.FAILED, RunOutcome.FAILED, RunOutcome.OK]
    await worker.stop()


async def test_a_job_that_hangs_is_stopped_by_its_limit(seline: Seline) -> None:
    async def work() -> str:
        await asyncio.sleep(60)
        return "never"

    jobs = Jobs(usage=Job(schedule="every 1 h", timeout_s=0.05))
    worker = a_worker(seline, a_row(work), settings=jobs)
    await worker.start(scheduled=False)
    worker.run_now("usage")
    run = await ended(worker, "usage")
    assert run.outcome is RunOutcome.TIMEOUT
    await worker.stop()


async def test_a_slow_job_is_drained_not_cancelled_when_the_worker_stops(seline: Seline) -> None:
    """APScheduler's own shutdown cancels what it runs: ours must not be among it."""
    ends: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("finished")
        return "done"

    worker = a_worker(seline, a_row(work), settings=OFTEN)
    await worker.start()
    async with asyncio.timeout(5):
        while not worker.jobs()[0].running:
            await asyncio.sleep(0.01)
    await worker.stop()
    assert ends == ["finished"]
    with pytest.raises(StoreClosed):
        worker.run_now("usage")


async def test_what_does_not_end_in_time_is_recorded_as_stopped(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline_workers.worker.DRAIN_S", 0.05)

    async def work() -> str:
        await asyncio.sleep(60)
        return "never"

    worker = a_worker(seline, a_row(work))
    await worker.start(scheduled=False)
    worker.run_now("usage")
    await worker.stop()
    later = a_worker(seline, a_row(work))
    await later.start(scheduled=False)
    [run] = later.runs("usage")
    assert (run.outcome, run.detail) == (
        RunOutcome.STOPPED, "the server stopped before it was done"
    )  # fmt: skip


async def test_outcomes_survive_a_restart_and_a_missed_run_is_made_up_for(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline_workers.worker.CATCH_UP_AFTER", timedelta(seconds=0.05))

    async def work() -> str:
        return "done"

    first = a_worker(seline, a_row(work, catch_up=True))
    await first.start()
    run = await ended(first, "usage")
    await first.stop()
    second = a_worker(seline, a_row(work, catch_up=True))
    await second.start()
    assert [kept.id for kept in second.runs("usage")] == [run.id]
    await asyncio.sleep(0.3)
    assert len(second.runs("usage")) == 1, "it is not overdue: it ran a moment ago"
    await second.stop()


async def test_broken_records_are_begun_anew(seline: Seline) -> None:
    await seline.data.update_state("jobs.json", lambda _: {"usage": "nonsense"})
    worker = a_worker(seline)
    await worker.start(scheduled=False)
    assert worker.runs("usage") == ()
    await worker.stop()


class JumpingClock(SystemClock):
    """The wall clock, set wrong by `jump`; monotonic time knows nothing of it."""

    def __init__(self) -> None:
        self.jump = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.jump


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> JumpingClock:
    """Return a clock that APScheduler takes for the wall clock too, watched closely."""
    clock = JumpingClock()

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return clock.now().astimezone(tz)

    monkeypatch.setattr("seline_workers.watchdog.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Jumping)
    return clock


async def test_a_clock_that_jumps_has_the_jobs_planned_anew(
    seline: Seline, jumping: JumpingClock
) -> None:
    """Set back, a scheduler would sleep too long; ahead a year, it would count every missed run."""
    custody = Custody(seline.data, clock=jumping)
    worker = Worker(seline.data, custody, SELDOM, clock=jumping)
    await worker.start()
    await asyncio.sleep(0)
    for jump in (timedelta(hours=-2), timedelta(days=365)):
        jumping.jump = jump
        async with asyncio.timeout(5):
            while not all(
                job.next_run and timedelta() < job.next_run - jumping.now() <= LIMIT[job.name]
                for job in worker.jobs()
            ):
                await asyncio.sleep(0.02)
    await worker.stop()


@pytest.mark.parametrize("jump", [timedelta(hours=-2), timedelta(days=365)], ids=str)
async def test_jobs_run_on_after_the_clock_jumped(
    seline: Seline, jumping: JumpingClock, jump: timedelta
) -> None:
    async def work() -> str:
        return "done"

    custody = Custody(seline.data, clock=jumping)
    table = {"usage": a_row(work)}
    worker = Worker(seline.data, custody, OFTEN, clock=jumping, table=table)
    await worker.start()
    await ended(worker, "usage")

    jumping.jump = jump
    before = len(worker.runs("usage"))
    await ended(worker, "usage", count=before + 2)

    await worker.stop()
    assert len(worker.runs("usage")) <= before + 4, "a year of missed runs was not made up for"


async def test_a_job_without_success_for_long_is_told_as_overdue(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline_workers.watchdog.LOOK_EVERY_S", 0.05)

    async def work() -> str:
        raise ValueError("always")

    told: list[str] = []
    jobs = Jobs(usage=Job(schedule="every 1 s", timeout_s=0.1))
    worker = Worker(
        seline.data,
        Custody(seline.data, clock=SystemClock()),
        jobs,
        clock=SystemClock(),
        table={"usage": a_row(work)},
        overdue=lambda name, _since: told.append(name),
    )
    await worker.start()
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0.05)
    assert told[0] == "usage"
    await worker.stop()


async def test_a_job_that_is_off_is_listed_and_never_planned(seline: Seline) -> None:
    jobs = Jobs(usage=Job(schedule="every 1 s", timeout_s=1.0, enabled=False))
    worker = a_worker(seline, settings=jobs)
    await worker.start()
    [usage] = [job for job in worker.jobs() if job.name == "usage"]
    assert (usage.enabled, usage.next_run) == (False, None)
    await worker.stop()


async def test_an_unknown_job_is_refused(seline: Seline) -> None:
    worker = a_worker(seline)
    for call in (worker.run_now, worker.runs):
        with pytest.raises(JobNotFound):
            call("nonsense")
