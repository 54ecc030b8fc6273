"""Jobs: their runs, their outcomes and their recorded history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

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
    """The recorded history of one job: its last runs, newest first, and its last success."""

    runs: tuple[Run, ...] = ()
    last_success: datetime | None = None

    def with_run(self, run: Run) -> "JobRecord":
        """Return the record with an ended run added."""
        success = run.ended_at if run.outcome is RunOutcome.OK else self.last_success
        return JobRecord(runs=(run, *self.runs)[:RUNS_KEPT], last_success=success)
