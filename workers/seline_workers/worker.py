"""The worker: the jobs of the table, run by the clock and on request, in the server's event loop.

Start: read what earlier processes recorded, make up for missed runs, then follow the timetable.
Stop: drain what runs, then let the timetable go. Outcomes are kept in `.seline/jobs.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from seline.clock import Clock
from seline.domain.job import JobRecord, JobStatus, Run, read_records, write_records
from seline.domain.schedule import parse_schedule
from seline.errors import SelineError
from seline.manager import DataManager
from seline.manager.state import remember, remembered
from seline.operations.custody import Custody
from seline.settings import Job, Jobs
from seline_workers.runs import JobTask, Runner
from seline_workers.table import JOBS, Row
from seline_workers.timetable import Timetable
from seline_workers.watchdog import watch

DRAIN_S: Final = 5.0
STATE: Final = "jobs.json"
CATCH_UP_AFTER: Final = timedelta(seconds=5)
"""Missed runs begin a moment after the start, one after another."""

_log = logging.getLogger("seline.jobs")
Heard = Callable[[Run, JobRecord], Awaitable[None]]
Overdue = Callable[[str, datetime | None], None]


async def _nobody(_run: Run, _record: JobRecord) -> None:
    return


class Worker:
    """Runs jobs: a port `JobBoard`.

    `heard` hears of every run that ended or was skipped; `overdue` of a job that should long have
    succeeded, and of its last success, as often as one looks.
    """

    def __init__(
        self,
        data: DataManager,
        custody: Custody,
        settings: Jobs,
        *,
        clock: Clock,
        heard: Heard | None = None,
        overdue: Overdue = lambda _name, _last_success: None,
        table: Mapping[str, Row] = JOBS,
    ) -> None:
        self._data = data
        self._clock = clock
        self._heard = heard or _nobody
        self._overdue = overdue
        self._table = table
        self._settings: dict[str, Job] = {name: getattr(settings, name) for name in table}
        self._schedules = {
            name: parse_schedule(job.schedule) for name, job in self._settings.items()
        }
        self._runner = Runner(
            {name: self._task(row, custody) for name, row in table.items()},
            clock=clock,
            ended=self._ended,
        )
        self._timetable = Timetable(self._due, self._runner.skip)
        self._watching: asyncio.Task[None] | None = None
        self._counted_from = clock.now()

    async def start(self, *, scheduled: bool = True) -> None:
        """Take over the records and begin; `scheduled=False` only runs what is asked for."""
        self._runner.remember(await self._recorded())
        self._counted_from = self._clock.now()
        if not scheduled:
            return
        self._plan_everything()
        self._timetable.start()
        watching = watch(self._clock, self._jumped, self._look_for_overdue)
        self._watching = asyncio.get_running_loop().create_task(watching, name="seline-watchdog")

    async def stop(self) -> None:
        """Start nothing more, drain what runs within 5 s, let the timetable go; idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        await self._runner.drain(DRAIN_S)
        self._timetable.stop()

    # the port

    def jobs(self) -> Sequence[JobStatus]:
        return [self._status(name) for name in self._table]

    def run_now(self, name: str) -> Run:
        return self._runner.start(name)

    def runs(self, name: str) -> Sequence[Run]:
        return self._runner.runs(name)

    # by the clock

    def _plan_everything(self) -> None:
        now = self._clock.now()
        for place, (name, row) in enumerate(self._enabled()):
            overdue = self._schedules[name].is_overdue(self._runner.record(name).last_success, now)
            if row.catch_up and overdue:
                self._timetable.plan(name, now + CATCH_UP_AFTER * (place + 1))
            else:
                self._timetable.plan(name, self._schedules[name].next_after(now))

    def _enabled(self) -> list[tuple[str, Row]]:
        return [(name, row) for name, row in self._table.items() if self._settings[name].enabled]

    def _due(self, name: str) -> None:
        self._timetable.plan(name, self._schedules[name].next_after(self._clock.now()))
        if self._runner.running(name) is not None:
            self._runner.skip(name, "the run before it has not ended")
            return
        with contextlib.suppress(SelineError):
            self._runner.start(name)

    def _jumped(self, drift_s: float) -> None:
        _log.warning("the clock jumped by %+.0f s; the jobs are planned anew", drift_s)
        self._counted_from = self._clock.now()
        self._plan_everything()
        self._timetable.rebuild()

    def _look_for_overdue(self) -> None:
        now = self._clock.now()
        for name, _ in self._enabled():
            last_success = self._runner.record(name).last_success
            since = max(last_success or self._counted_from, self._counted_from)
            if now - since > 2 * self._schedules[name].period + self._allowed(name):
                self._overdue(name, last_success)

    def _allowed(self, name: str) -> timedelta:
        return timedelta(seconds=self._settings[name].timeout_s)

    # what is kept

    def _task(self, row: Row, custody: Custody) -> JobTask:
        return JobTask(
            work=partial(row.work, custody), timeout_s=self._settings[row.name].timeout_s
        )

    async def _recorded(self) -> Mapping[str, JobRecord]:
        try:
            return read_records(await remembered(self._data, STATE, {}))
        except (SelineError, ValueError, KeyError, TypeError) as error:
            _log.warning("the jobs' records cannot be read and are begun anew: %s", error)
            return {}

    async def _ended(self, run: Run, record: JobRecord) -> None:
        await self._heard(run, record)
        await remember(self._data, STATE, write_records(self._runner.records()))

    def _status(self, name: str) -> JobStatus:
        record = self._runner.record(name)
        job = self._settings[name]
        return JobStatus(
            name=name,
            schedule=job.schedule,
            enabled=job.enabled,
            next_run=self._timetable.planned(name),
            running=self._runner.running(name),
            last=record.runs[0] if record.runs else None,
            last_success=record.last_success,
            ended=self._runner.ended_by_outcome(name),
        )
