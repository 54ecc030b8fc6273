"""The worker: runs the jobs of the table by schedule and on request, in the server's event loop.

Start: read the records of earlier processes, plan missed runs, then follow the timetable. Stop:
drain the runs in progress, then stop the timetable. Outcomes are stored in `.seline/jobs.json`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeAlias

from msgspec.structs import replace

from seline.clock import Clock
from seline.domain.job import JobRecord, JobStatus, Run
from seline.domain.schedule import parse_schedule
from seline.errors import SelineError
from seline.operations import Operations
from seline.settings import Job
from seline_workers.runs import OnRunEnded, Runner, ignore
from seline_workers.table import JOBS, Work
from seline_workers.timetable import Timetable

DRAIN_S: Final = 5.0
CATCH_UP_AFTER: Final = timedelta(seconds=5)
"""Missed runs begin a moment after the start, one after another."""
LOOK_EVERY_S: Final = 20.0
JUMP_S: Final = 30.0
"""How far the clocks differ after a jump of the wall clock."""
_log = logging.getLogger("seline.jobs")
OnOverdue: TypeAlias = Callable[[str, datetime | None], None]


class Worker:
    """Runs jobs. Call it in the event loop.

    `on_run_ended` is awaited after every run that ended or was skipped. `on_overdue` is called
    with the name and the last success of a job that has not succeeded for long, every few seconds.
    """

    def __init__(
        self,
        operations: Operations,
        settings: Mapping[str, Job],
        *,
        clock: Clock | None = None,
        on_run_ended: OnRunEnded = ignore,
        on_overdue: OnOverdue = lambda _name, _last_success: None,
        table: Mapping[str, Work] = JOBS,
    ) -> None:
        self._clock = clock or operations.store.clock
        self._on_run_ended = on_run_ended
        self._on_overdue = on_overdue
        self._settings = {name: settings[name] for name in table}
        self._schedules = {
            name: parse_schedule(job.schedule) for name, job in self._settings.items()
        }
        self._records = operations.store.state(
            "jobs.json", dict[str, JobRecord], dict[str, JobRecord]
        )
        self._runner = Runner(
            {
                name: (partial(work, operations), self._settings[name].timeout_s)
                for name, work in table.items()
            },
            clock=self._clock,
            on_ended=self._ended,
        )
        self._timetable = Timetable(self._due, self._runner.skip)
        self._watching: asyncio.Task[None] | None = None
        self._jumped_at: datetime | None = None

    async def start(self, *, scheduled: bool = True) -> None:
        """Read the records and start; `scheduled=False` only runs what is requested."""
        self._runner.restore(await self._records.load())
        if not scheduled:
            return
        await self._record_due()
        self._plan_everything()
        self._timetable.start()
        self._watching = asyncio.get_running_loop().create_task(
            self._watch(), name="seline-watchdog"
        )

    async def stop(self) -> None:
        """Start nothing more, drain the runs for 5 s, stop the timetable; idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        await self._runner.drain(DRAIN_S)
        self._timetable.stop()

    def jobs(self) -> Sequence[JobStatus]:
        """Return every job, disabled ones included, in the order of the job table."""
        return [self._status(name) for name in self._settings]

    def run_now(self, name: str) -> Run:
        """Start a job, or return its current run. Raises JobNotFound, StoreClosed."""
        return self._runner.start(name)

    def runs(self, name: str) -> Sequence[Run]:
        """Return a job's runs, newest first, the current one included. Raises JobNotFound."""
        return self._runner.runs(name)

    # by schedule

    async def _record_due(self) -> None:
        """Record since when runs are due: a process may be killed before it runs any.

        If it cannot be stored, it is kept in memory.
        """
        now, due = self._clock.now(), False
        for name in self._enabled():
            record = self._runner.record(name)
            known = record.due_since is not None and record.due_since <= now
            if self._schedules[name].is_overdue(record.last_success, now) and not known:
                self._runner.records[name] = replace(record, due_since=now)
                due = True
        if due:
            with contextlib.suppress(SelineError):
                await self._records.save(dict(self._runner.records))

    def _plan_everything(self) -> None:
        now = self._clock.now()
        for place, name in enumerate(self._enabled()):
            if self._schedules[name].is_overdue(self._runner.record(name).last_success, now):
                self._timetable.plan(name, now + CATCH_UP_AFTER * (place + 1))
            else:
                self._timetable.plan(name, self._schedules[name].next_after(now))

    def _enabled(self) -> list[str]:
        return [name for name, job in self._settings.items() if job.enabled]

    def _due(self, name: str) -> None:
        self._timetable.plan(name, self._schedules[name].next_after(self._clock.now()))
        if name in self._runner.running:
            self._runner.skip(name, "the run before it has not ended")
            return
        with contextlib.suppress(SelineError):
            self._runner.start(name, quiet=True)

    async def _watch(self) -> None:
        """Notice for ever that the wall clock jumped, and report what is overdue.

        A scheduler sleeps until an instant of the wall clock. If that is set back an hour, it
        sleeps an hour too long. A machine that slept counts as a jump, too.
        """
        wall, monotonic_s = self._clock.now(), self._clock.monotonic()
        while True:
            self._report_overdue()
            await asyncio.sleep(LOOK_EVERY_S)
            now, now_s = self._clock.now(), self._clock.monotonic()
            drift_s = (now - wall).total_seconds() - (now_s - monotonic_s)
            wall, monotonic_s = now, now_s
            if abs(drift_s) > JUMP_S:
                self._jumped(drift_s)

    def _jumped(self, drift_s: float) -> None:
        _log.warning("the clock jumped by %+.0f s; all jobs are planned again", drift_s)
        self._jumped_at = self._clock.now()
        self._plan_everything()
        self._timetable.rebuild()

    def _report_overdue(self) -> None:
        now = self._clock.now()
        for name in self._enabled():
            record = self._runner.record(name)
            allowed = timedelta(seconds=self._settings[name].timeout_s)
            waited = record.waited_for(now, not_before=self._jumped_at)
            if waited > 2 * self._schedules[name].period + allowed:
                self._on_overdue(name, record.last_success)

    # parts

    async def _ended(self, run: Run) -> None:
        await self._on_run_ended(run)
        await self._records.save(dict(self._runner.records))

    def _status(self, name: str) -> JobStatus:
        record = self._runner.record(name)
        job = self._settings[name]
        return JobStatus(
            name=name,
            schedule=job.schedule,
            enabled=job.enabled,
            next_run=self._timetable.planned(name),
            running=self._runner.running.get(name),
            last=record.runs[0] if record.runs else None,
            last_success=record.last_success,
            ended=self._runner.ended_by_outcome(name),
        )
