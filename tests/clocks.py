"""A clock for tests."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """A clock that tests set. Its monotonic time never goes back."""

    def __init__(self) -> None:
        self.instant = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return self.elapsed_s

    def advance(self, seconds: float) -> None:
        """Advance the wall clock and the monotonic time."""
        self.instant += timedelta(seconds=seconds)
        self.elapsed_s += seconds

    def set_back(self, seconds: float) -> None:
        """Set only the wall clock back, as a wrong time server does."""
        self.instant -= timedelta(seconds=seconds)
