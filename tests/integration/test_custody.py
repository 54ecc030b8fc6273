"""The operator's verbs on a real volume: integrity by slices, rotation, usage and its trend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from seline import open_seline
from seline.clock import SystemClock
from seline.domain.usage import UsageLevel
from seline.library import Seline
from seline.operations.custody import Custody
from tests.faults.test_damage import flip

NAME = "user_profile.json"
MIB = 1 << 20


class Hours(SystemClock):
    """A clock that tests move."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def now(self) -> datetime:
        return self.at


@pytest.fixture
async def seline(tmp_path: Path) -> AsyncIterator[Seline]:
    async with open_seline(tmp_path, storage__volume_limit_mb=10) as opened:
        yield opened


async def test_a_flip_is_found_past_the_cache_by_the_next_full_pass(
    seline: Seline, tmp_path: Path
) -> None:
    custody = Custody(seline.data, clock=SystemClock())
    for number in (1, 2):
        await seline.data.save_json(NAME, {"n": number})
    await custody.check_integrity()
    flip(tmp_path / NAME, 50)
    report = await custody.check_integrity(full=True)
    assert [found.outcome for found in report.findings] == ["recovered"]
    assert await seline.data.load_json(NAME) == {"n": 2}


async def test_between_full_passes_only_what_changed_is_read(seline: Seline) -> None:
    clock = Hours()
    custody = Custody(seline.data, clock=clock)
    await seline.data.save_json("old.json", {"n": 1})
    clock.at += timedelta(hours=1)
    assert (await custody.check_integrity()).documents == 1, "the first pass looks at everything"
    clock.at += timedelta(minutes=1)
    assert (await custody.check_integrity()).documents == 0
    clock.at = datetime.now(UTC) + timedelta(hours=25)
    assert (await custody.check_integrity()).documents == 1, "once a day everything"


async def test_a_pass_leaves_the_loop_and_the_writer_free(seline: Seline) -> None:
    custody = Custody(seline.data, clock=SystemClock())
    await asyncio.gather(
        *(seline.data.save_json(f"d{number}.json", {"n": number}) for number in range(300))
    )
    checking = asyncio.ensure_future(custody.check_integrity(full=True))
    saves = 0
    while not checking.done():
        await seline.data.save_json(NAME, {"n": saves})
        saves += 1
    assert saves > 3
    assert (await checking).documents >= 300


async def test_a_broken_newest_backup_is_marked_and_costs_no_sound_one_its_place(
    seline: Seline, tmp_path: Path
) -> None:
    custody = Custody(seline.data, clock=SystemClock())
    for number in range(6):
        await seline.data.save_json(NAME, {"n": number})
    newest = (await seline.data.backups(NAME))[0]
    flip(tmp_path / "backups" / newest.name, 50)
    report = await custody.check_integrity(full=True)
    assert [(found.backup, found.outcome) for found in report.findings] == [(newest.name, "marked")]
    await custody.rotate()
    left = [backup.verdict for backup in await seline.data.backups(NAME)]
    assert left.count("sound") == 4


async def test_usage_rises_and_falls_by_levels_and_survives_a_restart(tmp_path: Path) -> None:
    async with open_seline(tmp_path, storage__volume_limit_mb=10) as seline:
        custody = Custody(seline.data, clock=SystemClock())
        assert (await custody.measure()).level is UsageLevel.OK
        await seline.data.save_json("big.json", "x" * (82 * MIB // 10))
        assert (await custody.measure()).level is UsageLevel.WARNING
    async with open_seline(tmp_path, storage__volume_limit_mb=10) as seline:
        await seline.data.save_json("big.json", "x" * (79 * MIB // 10), backup=False, shrink=True)
        custody = Custody(seline.data, clock=SystemClock())
        assert (await custody.measure()).level is UsageLevel.WARNING, "two points of hysteresis"
        await seline.data.save_json("big.json", "x" * (70 * MIB // 10), backup=False, shrink=True)
        assert (await custody.measure()).level is UsageLevel.HALF


async def test_growth_is_foreseen_and_health_says_so(seline: Seline) -> None:
    clock = Hours()
    custody = Custody(seline.data, clock=clock)
    for hour in range(30):
        await seline.data.save_json(f"d{hour}.json", "x" * (100 << 10))
        clock.at += timedelta(hours=1)
        report = await custody.measure()
    assert report.forecast is not None
    assert 1 < report.forecast.days < 4
    health = await seline.data.health()
    assert health["days_until_full"] == round(report.forecast.days, 1)
    [usage] = [check for check in health["checks"] if check["name"] == "usage"]  # type: ignore[union-attr,index,call-overload]
    assert "full in about" in usage["detail"]  # type: ignore[index,call-overload,operator]
