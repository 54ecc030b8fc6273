"""The usage ratio, its levels, and which writes still fit (V9)."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from seline.domain.usage import (
    LEVELS,
    Room,
    Usage,
    UsageLevel,
    level_of,
    next_level,
    reserve_bytes,
    room_for,
)
from seline.operations.usage import UsageReport

MB = 1_000_000


def a_usage(**known: Any) -> Usage:
    """Return the usage of an empty 500 MB volume on its own mount."""
    empty: dict[str, Any] = {
        "capacity_bytes": 500 * MB,
        "used_bytes": 0,
        "available_bytes": 500 * MB,
        "documents_bytes": 0,
        "backups_bytes": 0,
        "inodes_total": None,
        "inodes_free": None,
        "limit_bytes": None,
        "own_mount": True,
    }
    return Usage(**{**empty, **known})


def filled(used_mb: float, **known: Any) -> Usage:
    used_bytes = int(used_mb * MB)
    return a_usage(used_bytes=used_bytes, available_bytes=500 * MB - used_bytes, **known)


usages = st.builds(
    a_usage,
    used_bytes=st.integers(0, 500 * MB),
    available_bytes=st.integers(0, 500 * MB),
    files_bytes=st.integers(0, 500 * MB),
    limit_bytes=st.none() | st.integers(1, 500 * MB),
    own_mount=st.booleans(),
)
ratios = st.floats(0, 1.2)
levels = st.sampled_from(UsageLevel)


def test_a_mount_counts_like_df_without_the_blocks_of_root() -> None:
    usage = a_usage(capacity_bytes=500 * MB, used_bytes=368 * MB, available_bytes=32 * MB)

    assert usage.usage_ratio == pytest.approx(0.92)


def test_the_limit_counts_if_it_is_nearer_than_the_volume() -> None:
    assert filled(100, limit_bytes=125 * MB).usage_ratio == pytest.approx(0.8)
    assert filled(100, limit_bytes=5000 * MB).usage_ratio == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("used_mb", "files_free", "refused", "of_files", "percent"),
    [
        (275, 40, True, False, 55),
        (275, 0, True, True, 100),
        (275, 4, False, True, 96),
        (485, 4, False, False, 97),
    ],
)
def test_the_level_is_attributed_to_what_decides_it(
    used_mb: float, files_free: int, refused: bool, of_files: bool, percent: float
) -> None:
    """A save that is too large for the bytes is not refused for want of files."""
    usage = filled(used_mb, inodes_total=100, inodes_free=files_free)
    report = UsageReport(usage=usage, level=UsageLevel.CRITICAL, refused=refused, forecast=None)

    assert report.of_files is of_files
    assert report.ratio * 100 == pytest.approx(percent)


def test_files_decide_the_level_of_a_shared_disk_that_is_fuller_by_bytes() -> None:
    """Its bytes alone are never critical."""
    usage = filled(485, own_mount=False, inodes_total=100, inodes_free=4)

    assert UsageReport(usage=usage, level=UsageLevel.CRITICAL, forecast=None).of_files


@pytest.mark.parametrize(
    ("used_mb", "level"),
    [
        (100, "ok"),
        (300, "half"),
        (410, "warning"),
        (470, "high"),
        (490, "high"),
        (499.5, "critical"),
    ],
)
def test_a_shared_disk_counts_with_its_free_share_and_is_critical_without_room(
    used_mb: float, level: UsageLevel
) -> None:
    shared = filled(used_mb, own_mount=False, limit_bytes=500 * MB, documents_bytes=MB)

    assert shared.usage_ratio == pytest.approx(used_mb / 500)
    assert level_of(shared.level_ratio) == level
    assert room_for(1000, shared) == ("refuse" if level == "critical" else "free")


def test_a_shared_disk_with_more_room_than_the_limit_leaves_does_not_warn() -> None:
    """92 % of a large disk may be used for years: 40 MB free are more than 30 MB, the limit."""
    shared = filled(460, own_mount=False, limit_bytes=30 * MB, documents_bytes=3 * MB)

    assert shared.usage_ratio == pytest.approx(0.1)
    assert level_of(shared.level_ratio) == "ok"
    assert level_of(replace(shared, limit_bytes=50 * MB).level_ratio) == "high"


def test_on_a_shared_disk_only_our_files_count_against_the_limit() -> None:
    shared = filled(300, own_mount=False, limit_bytes=100 * MB, documents_bytes=96 * MB)

    assert shared.refusal_ratio == pytest.approx(0.96)
    assert filled(400, own_mount=False, files_bytes=MB).refusal_ratio == 0.0


def test_a_shared_disk_without_room_is_full() -> None:
    full = a_usage(own_mount=False, available_bytes=1000, limit_bytes=500 * MB)

    assert full.refusal_ratio == 1.0


def test_a_file_system_that_reports_no_size_is_not_full() -> None:
    assert a_usage(capacity_bytes=0, available_bytes=0).usage_ratio == 0.0


# levels


@pytest.mark.parametrize("level", list(UsageLevel))
def test_every_level_begins_at_its_threshold(level: UsageLevel) -> None:
    assert level_of(LEVELS[level]) is level
    assert level is UsageLevel.OK or level_of(LEVELS[level] - 0.001) is not level


@given(levels, ratios)
def test_a_level_rises_at_once_and_falls_two_points_below_its_threshold(
    previous: UsageLevel, ratio: float
) -> None:
    level = next_level(previous, ratio)

    assert LEVELS[level] >= LEVELS[level_of(ratio)]
    assert LEVELS[level] <= max(LEVELS[previous], LEVELS[level_of(ratio)])
    assert LEVELS[level] <= max(ratio + 0.0201, 0)
    assert next_level(level, ratio) is level


@pytest.mark.parametrize(
    ("previous", "ratio", "level"),
    [
        (UsageLevel.OK, 0.79, UsageLevel.HALF),
        (UsageLevel.OK, 0.80, UsageLevel.WARNING),
        (UsageLevel.WARNING, 0.79, UsageLevel.WARNING),
        (UsageLevel.WARNING, 0.777, UsageLevel.HALF),
        (UsageLevel.CRITICAL, 0.94, UsageLevel.CRITICAL),
        (UsageLevel.CRITICAL, 0.895, UsageLevel.HIGH),
        (UsageLevel.CRITICAL, 0.1, UsageLevel.OK),
        (UsageLevel.HALF, 0.99, UsageLevel.CRITICAL),
    ],
)
def test_levels_do_not_flap(previous: UsageLevel, ratio: float, level: UsageLevel) -> None:
    assert next_level(previous, ratio) is level


# room


@pytest.mark.parametrize(
    ("used_mb", "growth_mb", "room"),
    [
        (100, 1, "free"),
        (449, 0.5, "free"),
        (449, 1, "shed"),
        (460, 1, "shed"),
        (474, 1, "refuse"),
        (490, 0.001, "refuse"),
        (490, 0, "free"),
        (490, -5, "free"),
        (10, 600, "refuse"),
    ],
)
def test_growing_writes_shed_from_90_percent_and_are_refused_from_95(
    used_mb: float, growth_mb: float, room: Room
) -> None:
    assert room_for(int(growth_mb * MB), filled(used_mb)) == room
    limited = a_usage(used_bytes=int(used_mb * MB), available_bytes=1 << 40, limit_bytes=500 * MB)
    assert room_for(int(growth_mb * MB), limited) == room


@pytest.mark.parametrize(("freed_mb", "room"), [(0, "refuse"), (30, "shed"), (51, "free")])
def test_what_is_freed_makes_room_for_a_growing_write(freed_mb: int, room: Room) -> None:
    assert room_for(10 * MB, filled(490), freed_bytes=freed_mb * MB) == room


def test_a_write_that_would_fill_a_shared_disk_is_refused() -> None:
    shared = a_usage(own_mount=False, available_bytes=3 * MB, limit_bytes=500 * MB)

    assert room_for(MB, shared) == "free"
    assert room_for(3 * MB, shared) == "refuse"


@given(usages, st.integers(-(10**9), 0))
def test_a_write_that_does_not_grow_is_never_refused(usage: Usage, growth_bytes: int) -> None:
    assert room_for(growth_bytes, usage) == "free"


@given(usages, st.integers(1, 10**9), st.integers(0, 10**9))
def test_more_growth_never_finds_more_room(usage: Usage, growth_bytes: int, more: int) -> None:
    order = get_args(Room)

    assert order.index(room_for(growth_bytes + more, usage)) >= order.index(
        room_for(growth_bytes, usage)
    )


def test_the_reserve_is_one_percent_and_at_least_one_mebibyte() -> None:
    assert reserve_bytes(500 * MB) == 5 * MB
    assert reserve_bytes(500 * MB, 2.5) == 12_500_000
    assert reserve_bytes(10 * MB) == 1 << 20
    assert reserve_bytes(0) == 1 << 20
