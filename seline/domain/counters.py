"""What a store has counted since it was opened."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from seline.errors import SelineError

LATENCY_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""The upper bounds of the latency histogram's buckets; one more bucket counts slower changes."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """The counters of one store. Only the writer's thread counts; any thread may copy.

    `waits` has one count per latency bucket: the time of a change from the queue to its answer.
    `queued` is the number of changes in the queue now; `refused` counts refusals by error code.
    """

    changes: int = 0
    batches: int = 0
    flushes: int = 0
    recoveries: int = 0
    queued: int = 0
    waits: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    waited_s: float = 0.0
    refused: Counter[str] = field(default_factory=Counter[str])

    def answered(self, waited_s: float) -> None:
        """Count one durable change."""
        self.changes += 1
        self.waits[bisect_left(LATENCY_BOUNDS_S, waited_s)] += 1
        self.waited_s += waited_s

    def refuse(self, error: BaseException, times: int = 1) -> None:
        """Count refusals by error code. An error of the caller's own function is not counted."""
        if isinstance(error, SelineError):
            self.refused[error.code] += times

    def copy(self, *, queued: int = 0, flushes: int = 0) -> "Counters":
        """Return the counts of this moment."""
        return replace(
            self,
            queued=queued,
            flushes=flushes,
            waits=self.waits.copy(),
            refused=self.refused.copy(),
        )
