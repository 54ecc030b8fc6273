"""A clock for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Tells the time that it was set to; monotonic time never goes back."""

    def __init__(self) -> None:
        self.instant = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return self.elapsed_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.instant += timedelta(seconds=seconds)
        self.elapsed_s += seconds

    def set_back(self, seconds: float) -> None:
        """Set the wall clock back, as a bad time server does; monotonic time goes on."""
        self.instant -= timedelta(seconds=seconds)
