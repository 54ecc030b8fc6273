"""How long documents have been deleted, measured safely against clock jumps.

V8  The backups of a deleted document are removed only after `deleted_days`. A clock that jumps
    ahead must not shorten that, and a document that was moved away a minute ago must not count as
    deleted since its last backup. So the age is a sum of the intervals between observations, each
    of which adds at most a week.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from seline.domain.stored import Stored

STEP_MIN: Final = timedelta(hours=12)
"""Shorter intervals are not recorded yet, so that not every observation writes the state."""
STEP_MAX: Final = timedelta(days=7)


class DeletedFor(Stored, frozen=True, kw_only=True):
    """How long a document has been deleted, in seconds, as of `seen_at`."""

    seen_at: datetime
    age_s: float = 0.0

    def seen_again(self, now: datetime) -> "DeletedFor":
        """Return the state after another observation. A clock that went back adds nothing."""
        passed = now - self.seen_at
        if timedelta() <= passed < STEP_MIN:
            return self
        step = min(max(passed, timedelta()), STEP_MAX)
        return DeletedFor(seen_at=now, age_s=self.age_s + step.total_seconds())


def observed(
    deleted: Mapping[str, DeletedFor], missing: Iterable[str], now: datetime
) -> dict[str, DeletedFor]:
    """Return the state after an observation that found `missing`; other documents are dropped."""
    return {
        name: deleted[name].seen_again(now) if name in deleted else DeletedFor(seen_at=now)
        for name in missing
    }
