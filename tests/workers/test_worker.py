"""Test jobs in the real scheduler: runs, recorded outcomes, limits, clock jumps and the stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from seline import open_seline
from seline.clock import Clock
from seline.domain.job import Run, RunOutcome
from seline.errors import JobNotFound, StoreClosed, VolumeFull
from seline.library import Seline
from seline.settings import DEFAULT_JOBS, Job
from seline_workers import Worker
from seline_workers.table import JOBS, Work

OFTEN = {**DEFAULT_JOBS, "usage": Job(schedule="every 1 s", timeout_s=5.0)}
SELDOM = DEFAULT_JOBS
HOUR = timedelta(hours=1)
LIMIT = {
    "integrity": HOUR,
    "rotation": HOUR,
    "usage": HOUR,
    "export": 24 * HOUR,
    "mirror": HOUR,
    "drill": 7 * 24 * HOUR,
}


@pytest.fixture(autouse=True)
def short_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seline_workers.worker.CATCH_UP_AFTER", timedelta(seconds=1))


@pytest.fixture
async def seline(tmp_path: Path) -> AsyncIterator[Seline]:
    async with open_seline(tmp_path) as opened:
        yield opened


def make_worker(
    seline: Seline,
    work: Callable[[], Awaitable[str]] | None = None,
    *,
    settings: Mapping[str, Job] = SELDOM,
    on_end: Callable[[Run], Awaitable[None]] | None = None,
) -> Worker:
    table = usage_job(work) if work else JOBS
    more = {"on_run_ended": on_end} if on_end else {}
    return Worker(seline, settings, table=table, **more)


def usage_job(work: Callable[[], Awaitable[str]]) -> Mapping[str, Work]:
    """Return a table with one job."""
    return {"usage": lambda _operations: work()}


async def wait_for_run(worker: Worker, name: str, count: int = 1) -> Run:
    """Wait until `count` runs of a job have ended; return the newest of them."""
    async with asyncio.timeout(10):
        while len([run for run in worker.runs(name) if run.ended_at]) < count:
            await asyncio.sleep(0.01)
    return next(run for run in worker.runs(name) if run.ended_at)


async def test_every_job_in_the_table_runs_on_request(seline: Seline) -> None:
    await seline.data.save_json("user_profile.json", {"n": 1})
    worker = make_worker(seline)
    await worker.start(scheduled=False)
    for job in worker.jobs():
        worker.run_now(job.name)
        assert (await wait_for_run(worker, job.name)).outcome is RunOutcome.OK, job.name
    assert [job.next_run for job in worker.jobs()] == [None] * len(JOBS)
    await worker.stop()


@pytest.mark.prove
async def test_the_scheduler_repeats_a_job_until_the_worker_stops(seline: Seline) -> None:
    count = 0

    async def work() -> str:
        nonlocal count
        count += 1
        return f"run {count}"

    worker = make_worker(seline, work, settings=OFTEN)
    await worker.start()
    run = await wait_for_run(worker, "usage", count=2)
    assert run.detail == "run 2"
    await worker.stop()
    await asyncio.sleep(1.2)
    assert count == 2, "a stopped worker runs nothing"


async def test_two_requests_during_one_run_start_one_run(seline: Seline) -> None:
    release = asyncio.Event()

    async def work() -> str:
        await release.wait()
        return "done"

    worker = make_worker(seline, work)
    await worker.start(scheduled=False)
    first, second = worker.run_now("usage"), worker.run_now("usage")
    assert first.id == second.id
    release.set()
    await wait_for_run(worker, "usage")
    assert len(worker.runs("usage")) == 1
    await worker.stop()


async def test_a_scheduled_run_during_another_run_is_recorded_as_skipped(
    seline: Seline, caplog: pytest.LogCaptureFixture
) -> None:
    """That is no warning: a job that is late is an alert."""
    release = asyncio.Event()

    async def work() -> str:
        await release.wait()
        return "done"

    worker = make_worker(seline, work, settings=OFTEN)
    await worker.start()
    worker.run_now("usage")
    assert (await wait_for_run(worker, "usage")).outcome is RunOutcome.SKIPPED
    release.set()
    await worker.stop()
    assert caplog.records == []


async def test_a_failed_run_is_recorded_and_the_job_runs_again(seline: Seline) -> None:
    errors = [ValueError("a bug"), VolumeFull("no room")]

    async def work() -> str:
        if errors:
            raise errors.pop(0)
        return "fine"

    outcomes: list[RunOutcome | None] = []

    async def record_outcome(run: Run) -> None:
        outcomes.append(run.outcome)

    worker = make_worker(seline, work, on_end=record_outcome)
    await worker.start(scheduled=False)
    details = []
    for count in (1, 2, 3):
        worker.run_now("usage")
        details.append((await wait_for_run(worker, "usage", count=count)).detail)
    assert details == ["ValueError: a bug", "no room", "fine"]
    assert outcomes == [RunOutcome.FAILED, RunOutcome.FAILED, RunOutcome.OK]
    await worker.stop()


async def test_a_failure_that_lasts_is_logged_once_an_hour(
    seline: Seline, caplog: pytest.LogCaptureFixture
) -> None:
    """Log a failure of a job when it changes, and after an hour; then once it fails again."""
    messages = ["no room", "no room", "no room", "no room", "other", "", "other"]

    class Hours(Clock):
        hours = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.hours * 3600

    async def work() -> str:
        if message := messages.pop(0):
            raise VolumeFull(message)
        return "fine"

    clock = Hours()
    worker = Worker(seline, SELDOM, clock=clock, table=usage_job(work))
    await worker.start(scheduled=False)
    logged = []
    for count in range(1, 8):
        clock.hours += count == 3
        caplog.clear()
        worker.run_now("usage")
        await wait_for_run(worker, "usage", count=count)
        logged.append(sum(record.levelname == "ERROR" for record in caplog.records))
    assert logged == [1, 0, 1, 0, 1, 0, 1]
    await worker.stop()


async def test_a_job_that_hangs_ends_with_a_timeout(seline: Seline) -> None:
    async def work() -> str:
        await asyncio.sleep(60)
        return "never"

    jobs = {**DEFAULT_JOBS, "usage": Job(schedule="every 1 h", timeout_s=0.05)}
    worker = make_worker(seline, work, settings=jobs)
    await worker.start(scheduled=False)
    worker.run_now("usage")
    run = await wait_for_run(worker, "usage")
    assert run.outcome is RunOutcome.TIMEOUT
    await worker.stop()


async def test_stopping_the_worker_waits_for_a_running_job(seline: Seline) -> None:
    """APScheduler's shutdown cancels the tasks it started; job runs must not be among them."""
    ends: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("finished")
        return "done"

    worker = make_worker(seline, work, settings=OFTEN)
    await worker.start()
    async with asyncio.timeout(5):
        while not worker.jobs()[0].running:
            await asyncio.sleep(0.01)
    await worker.stop()
    assert ends == ["finished"]
    with pytest.raises(StoreClosed):
        worker.run_now("usage")


async def test_a_run_that_the_stop_cuts_off_is_recorded_as_stopped(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline_workers.worker.DRAIN_S", 0.05)

    async def work() -> str:
        await asyncio.sleep(60)
        return "never"

    worker = make_worker(seline, work)
    await worker.start(scheduled=False)
    worker.run_now("usage")
    await worker.stop()
    restarted = make_worker(seline, work)
    await restarted.start(scheduled=False)
    [run] = restarted.runs("usage")
    assert (run.outcome, run.detail) == (
        RunOutcome.STOPPED, "the server stopped before it was done"
    )  # fmt: skip


async def test_an_overdue_job_runs_at_start_and_its_outcome_survives_a_restart(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline_workers.worker.CATCH_UP_AFTER", timedelta(seconds=0.05))

    async def work() -> str:
        return "done"

    first = make_worker(seline, work)
    await first.start()
    run = await wait_for_run(first, "usage")
    await first.stop()
    second = make_worker(seline, work)
    await second.start()
    assert [recorded.id for recorded in second.runs("usage")] == [run.id]
    await asyncio.sleep(0.3)
    assert len(second.runs("usage")) == 1, "the job is not overdue: it has just run"
    await second.stop()


async def test_invalid_job_records_are_reset(seline: Seline) -> None:
    await seline.store.state("jobs.json", dict, dict).save({"usage": "nonsense"})
    worker = make_worker(seline)
    await worker.start(scheduled=False)
    assert worker.runs("usage") == ()
    await worker.stop()


class JumpingClock(Clock):
    """A wall clock offset by `jump`; monotonic time is not affected."""

    def __init__(self) -> None:
        self.jump = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.jump


@pytest.fixture
def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> JumpingClock:
    """Return a clock that APScheduler reads too and that the watchdog checks every 50 ms."""
    clock = JumpingClock()

    class JumpingDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return clock.now().astimezone(tz)

    monkeypatch.setattr("seline_workers.worker.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", JumpingDatetime)
    return clock


async def test_a_clock_jump_reschedules_the_jobs(
    seline: Seline, jumping_clock: JumpingClock
) -> None:
    """After a step back the scheduler would sleep too long, after a year count every missed run."""
    worker = Worker(seline, SELDOM, clock=jumping_clock)
    await worker.start()
    await asyncio.sleep(0)
    for jump in (timedelta(hours=-2), timedelta(days=365)):
        jumping_clock.jump = jump
        async with asyncio.timeout(5):
            while not all(
                job.next_run and timedelta() < job.next_run - jumping_clock.now() <= LIMIT[job.name]
                for job in worker.jobs()
            ):
                await asyncio.sleep(0.02)
    await worker.stop()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("jump", [timedelta(hours=-2), timedelta(days=365)], ids=str)
async def test_jobs_keep_running_after_a_clock_jump(
    seline: Seline, jumping_clock: JumpingClock, jump: timedelta
) -> None:
    async def work() -> str:
        return "done"

    table = usage_job(work)
    worker = Worker(seline, OFTEN, clock=jumping_clock, table=table)
    await worker.start()
    await wait_for_run(worker, "usage")

    jumping_clock.jump = jump
    before = len(worker.runs("usage"))
    await wait_for_run(worker, "usage", count=before + 2)

    await worker.stop()
    assert len(worker.runs("usage")) <= before + 4, "the missed runs of a year are not repeated"


async def test_a_job_without_success_for_too_long_is_reported_as_overdue(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline_workers.worker.LOOK_EVERY_S", 0.05)

    async def work() -> str:
        raise ValueError("always")

    reported: list[str] = []
    jobs = {**DEFAULT_JOBS, "usage": Job(schedule="every 1 s", timeout_s=0.1)}
    worker = Worker(
        seline,
        jobs,
        clock=Clock(),
        table=usage_job(work),
        on_overdue=lambda name, _since: reported.append(name),
    )
    await worker.start()
    async with asyncio.timeout(10):
        while not reported:
            await asyncio.sleep(0.05)
    assert reported[0] == "usage"
    await worker.stop()


async def test_a_crash_loop_in_which_no_job_ever_ran_is_reported_as_overdue(seline: Seline) -> None:
    """Each process ends before its first run; overdue counts from the first start of them all."""
    clock, reported = JumpingClock(), list[list[str]]()
    for day in range(20):
        clock.jump = timedelta(days=day)
        names = list[str]()
        worker = Worker(
            seline,
            DEFAULT_JOBS,
            clock=clock,
            on_overdue=lambda name, _since, names=names: names.append(name),  # type: ignore[misc]
        )
        await worker.start()
        await asyncio.sleep(0.05)
        await worker.stop()
        assert [worker.runs(name) for name in JOBS] == [()] * len(JOBS)
        reported.append(names)

    assert reported[0] == []
    assert {"usage", "integrity"} <= set(reported[1])
    assert set(reported[-1]) == set(JOBS)


async def test_a_job_is_not_overdue_because_nothing_ran_for_a_month(
    seline: Seline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The missed runs are made up for at once, so a report would be noise."""
    clock, names = JumpingClock(), list[str]()
    first = Worker(seline, DEFAULT_JOBS, clock=clock)
    await first.start()
    for name in JOBS:
        first.run_now(name)
        await wait_for_run(first, name)
    await first.stop()
    monkeypatch.setattr("seline_workers.worker.LOOK_EVERY_S", 0.02)
    clock.jump = timedelta(days=30)

    second = Worker(
        seline, DEFAULT_JOBS, clock=clock, on_overdue=lambda name, _since: names.append(name)
    )
    await second.start()
    await asyncio.sleep(0.2)
    await second.stop()

    assert names == []


async def test_a_job_with_nothing_to_do_is_not_overdue_after_a_restart(
    seline: Seline, jumping_clock: JumpingClock
) -> None:
    """The first success since a job was due is stored; it ends the alert of an overdue job."""
    names, ended = list[str](), list[RunOutcome | None]()

    async def work() -> str:
        return ""

    async def record_outcome(run: Run) -> None:
        ended.append(run.outcome)

    for starts, days in enumerate((0, 30), 1):
        jumping_clock.jump = timedelta(days=days)
        worker = Worker(
            seline,
            OFTEN,
            clock=jumping_clock,
            table=usage_job(work),
            on_run_ended=record_outcome,
            on_overdue=lambda name, _since: names.append(name),
        )
        await worker.start()
        async with asyncio.timeout(10):
            while len(ended) < starts:
                await asyncio.sleep(0.02)
        await worker.stop()

    assert (names, ended) == ([], [RunOutcome.OK] * 2)


async def test_a_run_with_nothing_to_do_ends_a_failure(seline: Seline) -> None:
    outcomes: list[RunOutcome | None] = []

    async def work() -> str:
        if not outcomes:
            raise VolumeFull("no room")
        return ""

    async def record_outcome(run: Run) -> None:
        outcomes.append(run.outcome)

    worker = make_worker(seline, work, settings=OFTEN, on_end=record_outcome)
    await worker.start()
    await wait_for_run(worker, "usage", count=2)
    await worker.stop()

    assert outcomes == [RunOutcome.FAILED, RunOutcome.OK]


async def test_a_disabled_job_is_listed_but_never_scheduled(seline: Seline) -> None:
    jobs = {**DEFAULT_JOBS, "usage": Job(schedule="every 1 s", timeout_s=1.0, enabled=False)}
    worker = make_worker(seline, settings=jobs)
    await worker.start()
    [usage] = [job for job in worker.jobs() if job.name == "usage"]
    assert (usage.enabled, usage.next_run) == (False, None)
    await worker.stop()


async def test_an_unknown_job_is_refused(seline: Seline) -> None:
    worker = make_worker(seline)
    for method in (worker.run_now, worker.runs):
        with pytest.raises(JobNotFound):
            method("nonsense")
