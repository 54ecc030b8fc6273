"""The job board: the jobs of this process, for the interfaces that list and start them."""

from collections.abc import Sequence
from typing import Protocol

from seline.domain.job import JobStatus, Run


class JobBoard(Protocol):
    """The jobs of this process. Call it in the event loop."""

    def jobs(self) -> Sequence[JobStatus]:
        """Return every job, disabled ones included, in the order of the job table."""
        ...

    def run_now(self, name: str) -> Run:
        """Start a job, or return its current run. Raises JobNotFound, StoreClosed."""
        ...

    def runs(self, name: str) -> Sequence[Run]:
        """Return a job's runs, newest first, the current one included. Raises JobNotFound."""
        ...
