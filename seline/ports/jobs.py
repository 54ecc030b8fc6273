"""The job board: what the doors may ask of the worker. HTTP and worker never meet but here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from seline.domain.job import JobStatus, Run


class JobBoard(Protocol):
    """The jobs of this process. Called on the event loop."""

    def jobs(self) -> Sequence[JobStatus]:
        """Return every job of the table, in its order, those that are off too."""
        ...

    def run_now(self, name: str) -> Run:
        """Start a job, or return the run that is under way. Raises JobNotFound, StoreClosed."""
        ...

    def runs(self, name: str) -> Sequence[Run]:
        """Return a job's runs, newest first, the one under way included. Raises JobNotFound."""
        ...
