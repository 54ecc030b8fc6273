"""Forecast when the volume will be full, from a short history of its usage.

The slope is the median of the slopes between every two points (Theil-Sen), so a large file that
existed for a day does not change it. The forecast gives a range. It needs at least a day of points.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from typing import Final

from seline.domain.plural import counted
from seline.domain.stored import Stored

POINT_EVERY: Final = timedelta(hours=1)
HOURLY_FOR: Final = timedelta(days=3)
KEPT_FOR: Final = timedelta(days=30)
SPAN_MIN: Final = timedelta(days=1)
POINTS_MIN: Final = 6
DAYS_MAX: Final = 3650.0
DAYS_WARN: Final = 14.0
_LOW, _HIGH = 0.1, 0.9


class Point(Stored, frozen=True, array_like=True):
    """The bytes in use at an instant; stored as `[instant, bytes]`."""

    at: datetime
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """In how many days growing writes will be refused.

    `days` is the estimate, `earliest` and `latest` its range. `latest` is None if the points do
    not exclude that usage never reaches the limit.
    """

    days: float
    earliest: float
    latest: float | None
    bytes_per_day: int


def with_point(points: Sequence[Point], point: Point) -> tuple[Point, ...]:
    """Return the points with a new one: hourly ones for three days, then daily ones for thirty.

    A point less than an hour after the newest is not added. Points in the future, which remain
    after the clock went back, are dropped.
    """
    past = [kept for kept in points if kept.at < point.at]
    if past and point.at - past[-1].at < POINT_EVERY:
        return tuple(past)
    return tuple(_thinned([*past, point], point.at))


def forecast(points: Sequence[Point], *, room_bytes: int) -> Forecast | None:
    """Return when `room_bytes` more will be used; None without growth or with too few points."""
    if len(points) < POINTS_MIN or points[-1].at - points[0].at < SPAN_MIN:
        return None
    slopes = sorted(
        (later.used_bytes - earlier.used_bytes) / ((later.at - earlier.at) / timedelta(days=1))
        for earlier, later in combinations(points, 2)
    )
    slow, middle, fast = (slopes[round(part * (len(slopes) - 1))] for part in (_LOW, 0.5, _HIGH))
    if middle <= 0:
        return None
    days = max(room_bytes, 0) / middle
    if days > DAYS_MAX:
        return None
    return Forecast(
        days=days,
        earliest=max(room_bytes, 0) / fast,
        latest=max(room_bytes, 0) / slow if slow > 0 else None,
        bytes_per_day=round(middle),
    )


def forecast_text(forecast: Forecast) -> str:
    """Return a forecast as text: `in about 12 days (9 to 20)`."""
    latest = "never" if forecast.latest is None else f"{forecast.latest:.0f}"
    days = counted(round(forecast.days), "day")
    return f"in about {days} ({forecast.earliest:.0f} to {latest})"


def _thinned(points: Sequence[Point], now: datetime) -> Iterable[Point]:
    """Yield the points to keep, oldest first: recent ones, and the first of each earlier day."""
    days_seen: set[object] = set()
    for point in points:
        age = now - point.at
        if age > KEPT_FOR:
            continue
        if age > HOURLY_FOR:
            if point.at.date() in days_seen:
                continue
            days_seen.add(point.at.date())
        yield point
