"""The one file that knows APScheduler: each job's next instant is an entry, planned anew each time.

Not a repeating trigger: after a clock that jumped ahead a year, APScheduler 3 counts every run
that was missed in between before it goes on (55 s and 1.7 GB for a job of five minutes). An entry
that lies in the past is simply due, once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

_log = logging.getLogger("seline.jobs")
_PROBLEMS: Final = EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES


class Timetable:
    """Calls `due(name)` on the event loop at the instants planned.

    `missed(name, why)` hears of an instant that APScheduler let pass.
    """

    def __init__(self, due: Callable[[str], None], missed: Callable[[str, str], None]) -> None:
        self._due = due
        self._missed = missed
        self._planned: dict[str, datetime] = {}
        self._scheduler: Any = None

    def start(self) -> None:
        """Begin to watch the clock, inside the running event loop."""
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 2},
        )
        self._scheduler.add_listener(self._trouble, _PROBLEMS)
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
        """Begin anew: a wake-up computed before the clock jumped is worth nothing."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Watch the clock no more; idempotent."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None

    def _add(self, name: str, at: datetime) -> None:
        self._scheduler.add_job(
            self._fire, DateTrigger(at, timezone=UTC), [name], id=name, replace_existing=True
        )

    async def _fire(self, name: str) -> None:
        """Awaited by the scheduler, so that it runs on the loop and not on a thread."""
        self._planned.pop(name, None)
        self._due(name)

    def _trouble(self, event: Any) -> None:
        _log.error("the scheduler let job %s pass: event %s", event.job_id, event.code)
        self._missed(event.job_id, f"the scheduler reported event {event.code}")
