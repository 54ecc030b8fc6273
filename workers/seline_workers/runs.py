"""The runs of jobs: one at a time per job, each with a time limit and a recorded outcome.

A run is a task of this module, never the scheduler's: APScheduler cancels its tasks when it stops.
A job that raises or overruns is recorded and reported; the other jobs go on.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec.structs import replace

from seline.clock import Clock
from seline.domain.job import JobRecord, Run, RunOutcome
from seline.errors import JobNotFound, SelineError, StoreClosed

LOG_AGAIN_S: Final = 3600.0
"""How soon the same failure of a job is logged again."""
_log = logging.getLogger("seline.jobs")
OnRunEnded: TypeAlias = Callable[[Run], Awaitable[None]]
JobTask: TypeAlias = tuple[Callable[[], Awaitable[str]], float]
"""What a run of a job awaits, and for how many seconds at most."""


async def ignore(_run: Run) -> None:
    """Do nothing after a run."""


class Runner:
    """Runs jobs on the event loop that calls it.

    `on_ended` is awaited after each run that ended or was skipped; a SelineError that it raises is
    logged.
    """

    def __init__(self, tasks: Mapping[str, JobTask], *, clock: Clock, on_ended: OnRunEnded) -> None:
        self._tasks = tasks
        self._clock = clock
        self._on_ended = on_ended
        self.records: dict[str, JobRecord] = {}
        """The record of each job that has run."""
        self.running: dict[str, Run] = {}
        """The runs in progress, by job."""
        self._pending: set[asyncio.Task[None]] = set()
        self._logged: dict[str, tuple[str, float]] = {}
        """The failure of each job that was logged last, and when."""
        self._ends: Counter[tuple[str, RunOutcome]] = Counter()
        self._closed = False

    def restore(self, records: Mapping[str, JobRecord]) -> None:
        """Continue from the records of earlier processes."""
        self.records = {name: kept for name, kept in records.items() if name in self._tasks}

    def record(self, name: str) -> JobRecord:
        """Return the record of a job. Raises JobNotFound."""
        self._check(name)
        return self.records.get(name, JobRecord())

    def runs(self, name: str) -> Sequence[Run]:
        """Return a job's runs, newest first, with the one in progress. Raises JobNotFound."""
        running, ended = self.running.get(name), self.record(name).runs
        return ended if running is None else (running, *ended)

    def ended_by_outcome(self, name: str) -> Mapping[str, int]:
        """Return how many runs of a job ended with each outcome in this process."""
        return {str(outcome): self._ends[name, outcome] for outcome in RunOutcome}

    def start(self, name: str, *, quiet: bool = False) -> Run:
        """Start a job, or return the run in progress. Raises JobNotFound, StoreClosed.

        `quiet`: a run that had nothing to do is not recorded, unless a success was awaited.
        """
        self._check(name)
        if self._closed:
            raise StoreClosed("The server is stopping; no job is started any more.")
        if name in self.running:
            return self.running[name]
        run = Run(id=secrets.token_hex(4), job=name, started_at=self._clock.now())
        self.running[name] = run
        self._spawn(self._run(run, quiet=quiet), name)
        return run

    def skip(self, name: str, why: str) -> None:
        """Record that a run was due and did not happen."""
        now = self._clock.now()
        run = Run(
            id=secrets.token_hex(4), job=name, started_at=now, ended_at=now,
            outcome=RunOutcome.SKIPPED, detail=why,
        )  # fmt: skip
        self._ends[name, RunOutcome.SKIPPED] += 1
        _log.info("job %s was skipped: %s", name, why)  # a job that is late is an alert
        self.records[name] = self.records.get(name, JobRecord()).with_run(run)
        if not self._closed:
            self._spawn(self._report(run), name)

    async def drain(self, budget_s: float) -> None:
        """Start nothing more, wait `budget_s` for the runs in progress, then cancel them."""
        self._closed = True
        if not self._pending:
            return
        _, late = await asyncio.wait(set(self._pending), timeout=budget_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)

    async def _run(self, run: Run, *, quiet: bool) -> None:
        try:
            outcome, detail = await self._outcome(run)
        except asyncio.CancelledError:  # by `drain` alone: this task has no other owner
            outcome, detail = RunOutcome.STOPPED, "the server stopped before it was done"
        del self.running[run.job]
        known = self.record(run.job)
        if quiet and outcome is RunOutcome.OK and not detail and not known.awaits_success:
            self.records[run.job] = replace(known, last_success=self._clock.now())
            return
        self._ends[run.job, outcome] += 1
        ended = replace(run, ended_at=self._clock.now(), outcome=outcome, detail=detail)
        self.records[run.job] = known.with_run(ended)
        await self._report(ended)

    async def _report(self, run: Run) -> None:
        try:
            await self._on_ended(run)
        except SelineError as error:
            _log.warning("the run of %s was not recorded: %s", run.job, error.message)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"seline-job-{name}")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _outcome(self, run: Run) -> tuple[RunOutcome, str]:
        work, timeout_s = self._tasks[run.job]
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                detail = await work()
        except TimeoutError as error:
            if not limit.expired():
                return RunOutcome.FAILED, f"something took too long: {error}".rstrip(": ")
            detail = f"it took longer than {timeout_s:g} s and was stopped"
            self._log_failure(run.job, detail)
            return RunOutcome.TIMEOUT, detail
        except SelineError as error:
            self._log_failure(run.job, error.message)
            return RunOutcome.FAILED, error.message
        except Exception as error:  # noqa: BLE001  # the border of a job: the others go on
            _log.exception("job %s failed", run.job)
            return RunOutcome.FAILED, f"{type(error).__name__}: {error}"
        self._logged.pop(run.job, None)
        if detail:
            _log.info("job %s: %s", run.job, detail)
        return RunOutcome.OK, detail

    def _log_failure(self, job: str, message: str) -> None:
        """Log why a job failed, if that is new, or was logged an hour ago."""
        now_s = self._clock.monotonic()
        logged, at_s = self._logged.get(job, ("", now_s))
        if message != logged or now_s - at_s >= LOG_AGAIN_S:
            self._logged[job] = message, now_s
            _log.error("job %s failed: %s", job, message)

    def _check(self, name: str) -> None:
        if name not in self._tasks:
            raise JobNotFound(f"There is no job {name}.", job=name)
