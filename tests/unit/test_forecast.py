"""The forecast of a full volume, its range, and the thinning of its points."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seline.domain.forecast import (
    KEPT_FOR,
    POINT_EVERY,
    Forecast,
    Point,
    forecast,
    forecast_text,
    with_point,
)

START = datetime(2025, 1, 6, tzinfo=UTC)
MB = 1_000_000


def series(hours: int, used: Callable[[int], int]) -> tuple[Point, ...]:
    points: tuple[Point, ...] = ()
    for hour in range(hours):
        points = with_point(points, Point(START + timedelta(hours=hour), used(hour)))
    return points


def test_steady_growth_is_forecast_exactly() -> None:
    found = forecast(series(72, lambda hour: hour * MB), room_bytes=240 * MB)
    assert found is not None
    assert found.days == pytest.approx(10)
    assert found.earliest == pytest.approx(10)
    assert found.latest == pytest.approx(10)
    assert found.bytes_per_day == 24 * MB


def test_less_than_a_day_of_points_gives_no_forecast() -> None:
    assert forecast(series(24, lambda hour: hour * MB), room_bytes=MB) is None
    assert forecast(series(26, lambda hour: hour * MB), room_bytes=MB) is not None


@pytest.mark.parametrize("used", [lambda _: MB, lambda hour: (1000 - hour) * MB])
def test_without_growth_there_is_no_forecast(used: Callable[[int], int]) -> None:
    assert forecast(series(72, used), room_bytes=MB) is None


def test_a_short_lived_large_file_does_not_change_the_forecast() -> None:
    points = series(72, lambda hour: hour * MB + (400 * MB if hour in (30, 31, 32) else 0))
    found = forecast(points, room_bytes=240 * MB)
    assert found is not None
    assert found.days == pytest.approx(10, rel=0.1)


def test_noise_widens_the_range() -> None:
    points = series(72, lambda hour: hour * MB + (hour * 7919 % 40) * MB)
    found = forecast(points, room_bytes=240 * MB)
    assert found is not None
    assert found.earliest < found.days
    assert found.latest is None or found.latest > found.days


def test_a_full_volume_is_forecast_full_in_zero_days() -> None:
    found = forecast(series(72, lambda hour: hour * MB), room_bytes=-5)
    assert found is not None
    assert found.days == 0


@pytest.mark.parametrize(
    ("days", "text"), [(1.2, "in about 1 day (1 to 3)"), (12.4, "in about 12 days (1 to 3)")]
)
def test_one_day_is_singular_in_the_text(days: float, text: str) -> None:
    assert forecast_text(Forecast(days=days, earliest=1.0, latest=3.0, bytes_per_day=1)) == text


def test_sixty_days_of_points_stay_few() -> None:
    assert len(series(24 * 60, lambda hour: hour)) <= 3 * 24 + KEPT_FOR.days + 2


@given(st.lists(st.integers(-500, 500), max_size=200))
def test_points_stay_in_order_when_the_clock_jumps(jumps: list[int]) -> None:
    points: tuple[Point, ...] = ()
    at = START
    for jump in jumps:
        at += timedelta(minutes=jump)
        points = with_point(points, Point(at, 1))
    instants = [point.at for point in points]
    assert instants == sorted(instants)
    assert all(later - earlier >= POINT_EVERY for earlier, later in pairwise(instants))
    forecast(points, room_bytes=1)


def test_a_point_is_stored_as_a_list_of_instant_and_bytes() -> None:
    points = series(5, lambda hour: hour)

    data = msgspec.json.encode(points)

    assert json.loads(data)[0] == ["2025-01-06T00:00:00Z", 0]
    assert msgspec.json.decode(data, type=tuple[Point, ...]) == points
