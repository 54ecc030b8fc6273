"""When each job runs next: the one file that uses APScheduler.

Each job has one entry for its next instant, which is planned again after it. A repeating trigger is
not used: after a clock that jumped ahead a year, APScheduler 3 counts every missed run before it
continues (55 s and 1.7 GB for a job of five minutes). An entry in the past is due once.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

EXECUTOR: Final = "seline"
_log = logging.getLogger("seline.jobs")
_scheduler_log = logging.getLogger("seline.jobs.scheduler")
for _noisy in (_scheduler_log, logging.getLogger(f"apscheduler.executors.{EXECUTOR}")):
    _noisy.setLevel(logging.WARNING)  # each plan is a line; a bot's own APScheduler keeps its lines
_PROBLEMS: Final = EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES


class Timetable:
    """Calls `due(name)` on the event loop at the planned instants.

    `missed(name, why)` is called for an instant that APScheduler let pass.
    """

    def __init__(self, due: Callable[[str], None], missed: Callable[[str, str], None]) -> None:
        self._due = due
        self._missed = missed
        self._planned: dict[str, datetime] = {}
        self._scheduler: Any = None

    def start(self) -> None:
        """Start the scheduler, inside the running event loop."""
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            logger=_scheduler_log,
            executors={EXECUTOR: AsyncIOExecutor()},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 2},
        )
        self._scheduler.add_listener(self._report, _PROBLEMS)
        self._scheduler.start()
        for name, at in self._planned.items():
            self._add(name, at)

    def plan(self, name: str, at: datetime) -> None:
        """Plan a job's next run, instead of the one planned before."""
        self._planned[name] = at
        if self._scheduler is not None:
            self._add(name, at)

    def planned(self, name: str) -> datetime | None:
        """Return when a job runs next."""
        return self._planned.get(name)

    def rebuild(self) -> None:
        """Restart the scheduler: its wake-up was computed before the clock jumped."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Stop the scheduler; idempotent."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None

    def _add(self, name: str, at: datetime) -> None:
        self._scheduler.add_job(
            self._fire,
            DateTrigger(at, timezone=UTC),
            [name],
            id=name,
            executor=EXECUTOR,
            replace_existing=True,
        )

    async def _fire(self, name: str) -> None:
        """Run on the event loop and not on a thread, because it is a coroutine."""
        self._planned.pop(name, None)
        self._due(name)

    def _report(self, event: Any) -> None:
        _log.error("the scheduler missed job %s: event %s", event.job_id, event.code)
        self._missed(event.job_id, f"the scheduler reported event {event.code}")
