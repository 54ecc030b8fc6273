"""Schedules: `every 5 min`, `daily 03:00`, `weekly sun 04:30`, always in UTC."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

FORMS: Final = "'every N s|min|h', 'daily HH:MM' or 'weekly mon|…|sun HH:MM', in UTC"
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNITS: Final[Mapping[str, int]] = {"s": 1, "min": 60, "h": 3600}
_EVERY: Final = re.compile(r"every (\d{1,6}) ?(s|min|h)\Z")
_AT: Final = re.compile(r"(?:daily|weekly (mon|tue|wed|thu|fri|sat|sun)) (\d\d):(\d\d)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a job runs: either `every` so often, or daily or weekly at `hour`:`minute`.

    `weekday` (Monday is 0) is set for a weekly schedule only.
    """

    text: str
    every: timedelta | None = None
    weekday: int | None = None
    hour: int = 0
    minute: int = 0

    @property
    def period(self) -> timedelta:
        """The time between two runs."""
        if self.every is not None:
            return self.every
        return timedelta(days=1 if self.weekday is None else 7)

    def next_after(self, instant: datetime) -> datetime:
        """Return the first due instant after `instant` (aware, UTC)."""
        if self.every is not None:
            return instant + self.every
        due = instant.replace(hour=self.hour, minute=self.minute, second=0, microsecond=0)
        if self.weekday is not None:
            due += timedelta(days=(self.weekday - due.weekday()) % 7)
        return due if due > instant else due + self.period

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
        span = timedelta(seconds=int(every[1]) * _UNITS[every[2]])
        return Schedule(text=words, every=span)
    if at and int(at[2]) < 24 and int(at[3]) < 60:
        weekday = _DAYS.index(at[1]) if at[1] else None
        return Schedule(text=words, weekday=weekday, hour=int(at[2]), minute=int(at[3]))
    raise ValueError(f"{text!r} is no schedule; it must be {FORMS}")
