"""One run of a job at a time, each with a limit, its outcome kept: whatever a job does.

A run is a task of ours, never the scheduler's: APScheduler cancels what it runs when it stops.
A job that raises or overruns is recorded and told; the others never notice.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace

from seline.clock import Clock
from seline.domain.job import JobRecord, Run, RunOutcome
from seline.errors import JobNotFound, SelineError, StoreClosed

_log = logging.getLogger("seline.jobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask:
    """A job as the runner sees it: what to await, and for how many seconds at most."""

    work: Callable[[], Awaitable[str]]
    timeout_s: float


class Runner:
    """Runs jobs on the event loop that calls it.

    `ended` hears of each run that ended or was skipped, after it was recorded; what it raises is
    logged.
    """

    def __init__(
        self,
        tasks: Mapping[str, JobTask],
        *,
        clock: Clock,
        ended: Callable[[Run, JobRecord], Awaitable[None]],
    ) -> None:
        self._tasks = tasks
        self._clock = clock
        self._ended = ended
        self._records: dict[str, JobRecord] = {}
        self._running: dict[str, Run] = {}
        self._tasks_under_way: set[asyncio.Task[None]] = set()
        self._ends: Counter[tuple[str, RunOutcome]] = Counter()
        self._closed = False

    def remember(self, records: Mapping[str, JobRecord]) -> None:
        """Take over what earlier processes recorded."""
        self._records = {name: kept for name, kept in records.items() if name in self._tasks}

    def record(self, name: str) -> JobRecord:
        """Return what is remembered of a job. Raises JobNotFound."""
        self._check(name)
        return self._records.get(name, JobRecord())

    def records(self) -> Mapping[str, JobRecord]:
        """Return what is remembered of every job."""
        return dict(self._records)

    def running(self, name: str) -> Run | None:
        """Return the run under way."""
        return self._running.get(name)

    def runs(self, name: str) -> Sequence[Run]:
        """Return a job's runs, newest first. Raises JobNotFound."""
        under_way = self.running(name)
        ended = self.record(name).runs
        return ended if under_way is None else (under_way, *ended)

    def ended_by_outcome(self, name: str) -> Mapping[str, int]:
        """Return how many runs of a job came to what, in this process."""
        return {str(outcome): self._ends[name, outcome] for outcome in RunOutcome}

    def start(self, name: str) -> Run:
        """Start a job, or return the run under way. Raises JobNotFound, StoreClosed."""
        self._check(name)
        if self._closed:
            raise StoreClosed("The server is stopping; no job is started any more.")
        if name in self._running:
            return self._running[name]
        run = Run(id=secrets.token_hex(4), job=name, started_at=self._clock.now())
        self._running[name] = run
        self._under_way(self._run(run), name)
        return run

    def skip(self, name: str, why: str) -> None:
        """Record that a run was due and did not happen."""
        now = self._clock.now()
        run = Run(
            id=secrets.token_hex(4), job=name, started_at=now, ended_at=now,
            outcome=RunOutcome.SKIPPED, detail=why,
        )  # fmt: skip
        self._ends[name, RunOutcome.SKIPPED] += 1
        _log.warning("job %s was skipped: %s", name, why)
        self._records[name] = record = self._records.get(name, JobRecord()).with_run(run)
        if not self._closed:
            self._under_way(self._tell(run, record), name)

    async def drain(self, budget_s: float) -> None:
        """Start nothing more, give what runs `budget_s` to end, then cancel it."""
        self._closed = True
        if not self._tasks_under_way:
            return
        _, late = await asyncio.wait(set(self._tasks_under_way), timeout=budget_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)

    async def _run(self, run: Run) -> None:
        try:
            outcome, detail = await self._outcome(run)
        except asyncio.CancelledError:  # by `drain` alone: this task has no other owner
            outcome, detail = RunOutcome.STOPPED, "the server stopped before it was done"
        del self._running[run.job]
        self._ends[run.job, outcome] += 1
        done = replace(run, ended_at=self._clock.now(), outcome=outcome, detail=detail)
        self._records[run.job] = record = self.record(run.job).with_run(done)
        await self._tell(done, record)

    async def _tell(self, run: Run, record: JobRecord) -> None:
        try:
            await self._ended(run, record)
        except SelineError as error:
            _log.warning("the run of %s was not recorded: %s", run.job, error.message)

    def _under_way(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"seline-job-{name}")
        self._tasks_under_way.add(task)
        task.add_done_callback(self._tasks_under_way.discard)

    async def _outcome(self, run: Run) -> tuple[RunOutcome, str]:
        task = self._tasks[run.job]
        limit = asyncio.timeout(task.timeout_s)
        try:
            async with limit:
                detail = await task.work()
        except TimeoutError as error:
            if not limit.expired():
                return RunOutcome.FAILED, f"something took too long: {error}".rstrip(": ")
            detail = f"it took longer than {task.timeout_s:g} s and was stopped"
            _log.error("job %s: %s", run.job, detail)
            return RunOutcome.TIMEOUT, detail
        except SelineError as error:
            _log.error("job %s failed: %s", run.job, error.message)
            return RunOutcome.FAILED, error.message
        except Exception as error:  # noqa: BLE001  # the border of a job: the others go on
            _log.exception("job %s failed", run.job)
            return RunOutcome.FAILED, f"{type(error).__name__}: {error}"
        _log.info("job %s: %s", run.job, detail)
        return RunOutcome.OK, detail

    def _check(self, name: str) -> None:
        if name not in self._tasks:
            raise JobNotFound(f"There is no job {name}.", job=name)
