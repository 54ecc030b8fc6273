"""Jobs: their runs, their outcomes and their recorded history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, cast

from seline.clock import instant_text, parse_instant
from seline.domain.document import Json

RUNS_KEPT: Final = 20


class RunOutcome(StrEnum):
    """How a run ended."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"
    STOPPED = "stopped"
    """The process ended during the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a job. `ended_at` and `outcome` are None while it runs."""

    id: str
    job: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """The recorded history of one job: its last runs, newest first, and its last success."""

    runs: tuple[Run, ...] = ()
    last_success: datetime | None = None

    def with_run(self, run: Run) -> JobRecord:
        """Return the record with an ended run added."""
        success = run.ended_at if run.outcome is RunOutcome.OK else self.last_success
        return JobRecord(runs=(run, *self.runs)[:RUNS_KEPT], last_success=success)


Records = Mapping[str, JobRecord]


def write_records(records: Records) -> Json:
    """Return the records as the value of `jobs.json`."""
    return {
        name: {
            "last_success": _text(record.last_success),
            "runs": [_write_run(run) for run in record.runs],
        }
        for name, record in records.items()
    }


def read_records(value: Json) -> dict[str, JobRecord]:
    """Read the value of `jobs.json`. Raises ValueError, KeyError or TypeError for another shape."""
    if not isinstance(value, dict):
        raise TypeError("jobs.json holds no object")
    return {name: _read_record(name, cast("dict[str, Json]", kept)) for name, kept in value.items()}


def _read_record(name: str, kept: dict[str, Json]) -> JobRecord:
    runs = cast("Sequence[dict[str, str]]", kept["runs"])
    return JobRecord(
        runs=tuple(_read_run(name, run) for run in runs),
        last_success=_instant(kept["last_success"]),
    )


def _write_run(run: Run) -> Json:
    return {
        "id": run.id,
        "started_at": instant_text(run.started_at),
        "ended_at": _text(run.ended_at),
        "outcome": None if run.outcome is None else str(run.outcome),
        "detail": run.detail,
    }


def _read_run(job: str, kept: Mapping[str, str]) -> Run:
    return Run(
        id=kept["id"],
        job=job,
        started_at=parse_instant(kept["started_at"]),
        ended_at=_instant(kept["ended_at"]),
        outcome=RunOutcome(kept["outcome"]) if kept["outcome"] else None,
        detail=kept["detail"],
    )


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant_text(instant)


def _instant(text: object) -> datetime | None:
    return parse_instant(text) if isinstance(text, str) else None
