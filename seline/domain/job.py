"""Jobs: their runs, their outcomes and their recorded history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from seline.domain.stored import Stored

RUNS_KEPT: Final = 20


class RunOutcome(StrEnum):
    """How a run ended."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"
    STOPPED = "stopped"
    """The process ended during the run."""


class Run(Stored, frozen=True, kw_only=True):
    """One run of a job. `ended_at` and `outcome` are None while it runs.

    `job` is empty in runs that a version before 0.2 recorded.
    """

    id: str
    job: str = ""
    started_at: datetime
    ended_at: datetime | None = None
    outcome: RunOutcome | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job's state. `next_run` is None if the job is disabled or no scheduler runs.

    `ended` counts the runs of this process by outcome.
    """

    name: str
    schedule: str
    enabled: bool
    next_run: datetime | None
    running: Run | None
    last: Run | None
    last_success: datetime | None
    ended: Mapping[str, int]


class JobRecord(Stored, frozen=True, kw_only=True):
    """The recorded history of one job: its last runs, newest first, and its last success.

    `due_since` is the first start at which a run was due that has not succeeded yet, None without
    one. So the time in which no process ran does not count as late.
    """

    runs: tuple[Run, ...] = ()
    last_success: datetime | None = None
    due_since: datetime | None = None

    @property
    def awaits_success(self) -> bool:
        """Whether a run was due at a start, or the last one did not succeed."""
        last = self.runs[0].outcome if self.runs else RunOutcome.OK
        return self.due_since is not None or last is not RunOutcome.OK

    def with_run(self, run: Run) -> "JobRecord":
        """Return the record with an ended run added."""
        runs = (run, *self.runs)[:RUNS_KEPT]
        if run.outcome is RunOutcome.OK:
            return JobRecord(runs=runs, last_success=run.ended_at)
        return replace(self, runs=runs)

    def waited_for(self, now: datetime, *, not_before: datetime | None) -> timedelta:
        """Return for how long a success has been awaited, at most since `not_before`."""
        known = (self.last_success, self.due_since, not_before)
        since = max((instant for instant in known if instant is not None), default=now)
        return now - since
