"""For how long documents have been gone, whatever the clock does and whoever deleted them.

V8  The backups of a deleted document go only after `deleted_days`. A clock that jumps far ahead and
    comes back must not make it so, nor may a document that somebody moved away a minute ago count
    as gone since its last backup. So the days are added up as they are seen to pass: from one look
    to the next counts at most a week.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from seline.clock import instant_text, parse_instant
from seline.domain.document import Json

STEP_MIN: Final = timedelta(hours=12)
"""What passes in less is added up later, so that not every look has to be written down."""
STEP_MAX: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedFor:
    """A document that is not there: for how long, as seen at `seen_at`."""

    seen_at: datetime
    age: timedelta = timedelta()

    def seen_again(self, now: datetime) -> DeletedFor:
        """Return this after another look; a clock that went back only begins anew from there."""
        passed = now - self.seen_at
        if timedelta() <= passed < STEP_MIN:
            return self
        return DeletedFor(seen_at=now, age=self.age + min(max(passed, timedelta()), STEP_MAX))


def with_look(
    gone: Mapping[str, DeletedFor], missing: Iterable[str], now: datetime
) -> dict[str, DeletedFor]:
    """Return what is known after a look that found `missing`; what is there again is forgotten."""
    return {
        name: gone[name].seen_again(now) if name in gone else DeletedFor(seen_at=now)
        for name in missing
    }


def read_gone(state: Json) -> dict[str, DeletedFor]:
    """Return what `deleted.json` holds. Raises ValueError where it has another shape."""
    if not isinstance(state, dict) or not isinstance(state.get("deleted"), dict):
        raise ValueError("deleted.json has another shape")  # noqa: TRY004
    found = state["deleted"]
    assert isinstance(found, dict)
    return {name: _read(item) for name, item in found.items()}


def write_gone(gone: Mapping[str, DeletedFor]) -> Json:
    """Return the value of `deleted.json`."""
    return {
        "deleted": {
            name: {"seen_at": instant_text(one.seen_at), "age_s": one.age.total_seconds()}
            for name, one in sorted(gone.items())
        }
    }


def _read(item: Json) -> DeletedFor:
    if not isinstance(item, dict) or not isinstance(age_s := item.get("age_s"), int | float):
        raise ValueError("a deleted document has an age")  # noqa: TRY004
    return DeletedFor(seen_at=parse_instant(str(item["seen_at"])), age=timedelta(seconds=age_s))
