"""How long documents have been deleted, measured safely against clock jumps.

V8  The backups of a deleted document are removed only after `deleted_days`. A clock that jumps
    ahead must not shorten that, and a document that was moved away a minute ago must not count as
    deleted since its last backup. So the age is a sum of the intervals between observations, each
    of which adds at most a week.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from seline.clock import instant_text, parse_instant
from seline.domain.document import Json

STEP_MIN: Final = timedelta(hours=12)
"""Shorter intervals are not recorded yet, so that not every observation writes the state."""
STEP_MAX: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedFor:
    """How long a document has been deleted, as of `seen_at`."""

    seen_at: datetime
    age: timedelta = timedelta()

    def seen_again(self, now: datetime) -> DeletedFor:
        """Return the state after another observation. A clock that went back adds nothing."""
        passed = now - self.seen_at
        if timedelta() <= passed < STEP_MIN:
            return self
        return DeletedFor(seen_at=now, age=self.age + min(max(passed, timedelta()), STEP_MAX))


def with_look(
    gone: Mapping[str, DeletedFor], missing: Iterable[str], now: datetime
) -> dict[str, DeletedFor]:
    """Return the state after an observation that found `missing`; other documents are dropped."""
    return {
        name: gone[name].seen_again(now) if name in gone else DeletedFor(seen_at=now)
        for name in missing
    }


def read_gone(state: Json) -> dict[str, DeletedFor]:
    """Read the value of `deleted.json`. Raises ValueError if it has another shape."""
    if not isinstance(state, dict) or not isinstance(state.get("deleted"), dict):
        raise ValueError("deleted.json has another shape")  # noqa: TRY004
    found = state["deleted"]
    assert isinstance(found, dict)
    return {name: _read(item) for name, item in found.items()}


def write_gone(gone: Mapping[str, DeletedFor]) -> Json:
    """Return the value of `deleted.json`."""
    return {
        "deleted": {
            name: {"seen_at": instant_text(item.seen_at), "age_s": item.age.total_seconds()}
            for name, item in sorted(gone.items())
        }
    }


def _read(item: Json) -> DeletedFor:
    if not isinstance(item, dict) or not isinstance(age_s := item.get("age_s"), int | float):
        raise ValueError("a deleted document has an age")  # noqa: TRY004
    return DeletedFor(seen_at=parse_instant(str(item["seen_at"])), age=timedelta(seconds=age_s))
