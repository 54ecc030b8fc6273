"""The clock: aware instants in UTC, and monotonic seconds.

Only this module reads the date and the time; functions that decide something take `now` as an
argument. Timeouts use `time.monotonic`, and the storage room compares files' times in nanoseconds.
"""

import time
from datetime import UTC, datetime


class Clock:
    """The machine's clock. Tests pass one with the same methods."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start, which never decrease."""
        return time.monotonic()


def instant_text(instant: datetime) -> str:
    """Return an instant as Seline writes it in JSON: `2025-01-06T14:30:22Z`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_instant(text: str) -> datetime:
    """Parse an ISO 8601 instant; without an offset it is UTC. Raises ValueError."""
    return in_utc(datetime.fromisoformat(text))


def in_utc(instant: datetime) -> datetime:
    """Return an instant in UTC; without an offset it is UTC already. Raises ValueError."""
    if instant.tzinfo is None:
        return instant.replace(tzinfo=UTC)
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{instant} is not between the years 1 and 9999 in UTC") from error
