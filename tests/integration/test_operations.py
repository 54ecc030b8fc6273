"""Test the operator's verbs on a real volume: integrity checks, rotation, usage and forecast."""

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


class SettableClock(SystemClock):
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.instant = datetime.now(UTC)

    def now(self) -> datetime:
        return self.instant


@pytest.fixture
async def seline(tmp_path: Path) -> AsyncIterator[Seline]:
    async with open_seline(tmp_path, storage__volume_limit_mb=10) as opened:
        yield opened


async def test_a_full_check_bypasses_the_cache_and_recovers_a_flipped_bit(
    seline: Seline, tmp_path: Path
) -> None:
    custody = Custody(seline.data, clock=SystemClock())
    for number in (1, 2):
        await seline.data.save_json(NAME, {"n": number})
    await custody.check_integrity()
    flip(tmp_path / NAME, 50)
    report = await custody.check_integrity(full=True)
    assert [finding.outcome for finding in report.findings] == ["recovered"]
    assert await seline.data.load_json(NAME) == {"n": 2}


async def test_checks_between_full_checks_read_only_changed_documents(seline: Seline) -> None:
    clock = SettableClock()
    custody = Custody(seline.data, clock=clock)
    await seline.data.save_json("old.json", {"n": 1})
    clock.instant += timedelta(hours=1)
    assert (await custody.check_integrity()).documents == 1, "the first check reads everything"
    clock.instant += timedelta(minutes=1)
    assert (await custody.check_integrity()).documents == 0
    clock.instant = datetime.now(UTC) + timedelta(hours=25)
    assert (await custody.check_integrity()).documents == 1, "one check a day reads everything"


async def test_a_check_blocks_neither_the_event_loop_nor_the_writer(seline: Seline) -> None:
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


async def test_a_broken_backup_is_marked_and_displaces_no_sound_one(
    seline: Seline, tmp_path: Path
) -> None:
    custody = Custody(seline.data, clock=SystemClock())
    for number in range(6):
        await seline.data.save_json(NAME, {"n": number})
    newest = (await seline.data.backups(NAME))[0]
    flip(tmp_path / "backups" / newest.name, 50)
    report = await custody.check_integrity(full=True)
    assert [(finding.backup, finding.outcome) for finding in report.findings] == [
        (newest.name, "marked")
    ]
    await custody.rotate()
    verdicts = [backup.verdict for backup in await seline.data.backups(NAME)]
    assert verdicts.count("sound") == 4


async def test_usage_levels_have_hysteresis_and_survive_a_restart(tmp_path: Path) -> None:
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


async def test_growth_is_forecast_and_reported_in_health(seline: Seline) -> None:
    clock = SettableClock()
    custody = Custody(seline.data, clock=clock)
    for hour in range(30):
        await seline.data.save_json(f"d{hour}.json", "x" * (100 << 10))
        clock.instant += timedelta(hours=1)
        report = await custody.measure()
    assert report.forecast is not None
    assert 1 < report.forecast.days < 4
    health = await seline.data.health()
    assert health["days_until_full"] == round(report.forecast.days, 1)
    [usage] = [check for check in health["checks"] if check["name"] == "usage"]  # type: ignore[union-attr,index,call-overload]
    assert "full in about" in usage["detail"]  # type: ignore[index,call-overload,operator]
