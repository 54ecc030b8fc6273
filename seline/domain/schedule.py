"""Schedules: `every 5 min`, `daily 03:00`, `weekly sun 04:30`, always in UTC."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

FORMS: Final = "'every N s|min|h', 'daily HH:MM' or 'weekly mon|…|sun HH:MM', in UTC"
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONDAY: Final = datetime(2001, 1, 1, tzinfo=UTC)
_UNITS: Final[Mapping[str, int]] = {"s": 1, "min": 60, "h": 3600}
_EVERY: Final = re.compile(r"every (\d{1,6}) ?(s|min|h)\Z")
_AT: Final = re.compile(r"(?:daily|weekly (mon|tue|wed|thu|fri|sat|sun)) (\d\d):(\d\d)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a job runs: every `period`, counted from `anchor`, or from its last run without one."""

    text: str
    period: timedelta
    anchor: datetime | None = None

    def next_after(self, instant: datetime) -> datetime:
        """Return the first due instant after `instant` (aware, UTC)."""
        if self.anchor is None:
            return instant + self.period
        return self.anchor + ((instant - self.anchor) // self.period + 1) * self.period

    def is_overdue(self, last_success: datetime | None, now: datetime) -> bool:
        """Whether a run was due since `last_success`, or `last_success` is in the future."""
        if last_success is None:
            return True
        return last_success > now or self.next_after(last_success) <= now


def parse_schedule(text: str) -> Schedule:
    """Parse a schedule in one of `FORMS`. Raises ValueError."""
    words = " ".join(text.lower().split())
    every, at = _EVERY.match(words), _AT.match(words)
    if every and int(every[1]) > 0:
        return Schedule(text=words, period=timedelta(seconds=int(every[1]) * _UNITS[every[2]]))
    if at and int(at[2]) < 24 and int(at[3]) < 60:
        day = _DAYS.index(at[1]) if at[1] else 0
        anchor = _MONDAY + timedelta(days=day, hours=int(at[2]), minutes=int(at[3]))
        return Schedule(text=words, period=timedelta(days=7 if at[1] else 1), anchor=anchor)
    raise ValueError(f"{text!r} is no schedule; it must be {FORMS}")
