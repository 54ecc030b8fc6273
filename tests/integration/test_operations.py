"""Test the operator's verbs on a real volume: integrity checks, rotation, usage and forecast."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from seline import open_seline
from seline.clock import Clock
from seline.domain.incident import Incident, IncidentKind
from seline.domain.retention import NOT_OURS
from seline.domain.usage import UsageLevel
from seline.errors import DocumentUnrecoverable
from seline.library import Seline
from seline.manager import DataManager
from seline.operations import Operations
from seline.operations.prune import Pruner
from seline.ports.store import DocumentStore
from seline_workers import table
from tests.clocks import FakeClock
from tests.faults.test_damage import flip
from tests.stores import open_managed

NAME = "user_profile.json"
MIB = 1 << 20


class SettableClock(Clock):
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
    for number in (1, 2):
        await seline.data.save_json(NAME, {"n": number})
    await seline.verify(full=None)
    flip(tmp_path / NAME, 50)
    report = await seline.verify()
    assert [finding.outcome for finding in report.findings] == ["recovered"]
    assert await seline.data.load_json(NAME) == {"n": 2}


async def test_many_incidents_of_one_kind_hide_none_of_another_and_no_loss(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        for number in (1, 2):
            await seline.data.save_json(NAME, {"n": number})
    flip(tmp_path / NAME, 50)
    async with open_seline(tmp_path) as seline:
        store: Any = await seline.store.open()
        events = store.medium.batches.events
        seline.store.note(IncidentKind.UNRECOVERABLE, "lost.json", "lost.json is broken")
        events.foreign_metadata()
        for number in range(300):
            name, now = f"d{number}.json", seline.store.clock.now()
            seline.store.note(IncidentKind.BLANK_SAVE, name, f"Most of {name} was removed")
            events.report(
                Incident(kind=IncidentKind.RECOVERED, document=name, at=now, summary="recovered")
            )
        kinds = {incident.kind for incident in seline.store.incidents()}
        report = await seline.verify()

    assert {IncidentKind.UNRECOVERABLE, IncidentKind.FOREIGN_METADATA} <= kinds
    assert [bool(finding.lost) for finding in report.findings] == [True]


async def test_a_check_by_hand_does_not_shorten_the_next_check_of_the_job(
    seline: Seline, tmp_path: Path
) -> None:
    for number in (1, 2):
        await seline.data.save_json(NAME, {"n": number})
    await seline.verify()
    flip(tmp_path / NAME, 50)

    report = await seline.verify(full=None)

    assert [finding.document for finding in report.findings] == [NAME]


async def test_checks_between_full_checks_read_only_changed_documents(tmp_path: Path) -> None:
    clock = SettableClock()
    store = open_managed(tmp_path, clock)
    operations, data = Operations(store), DataManager(store)
    await data.save_json("old.json", {"n": 1})
    clock.instant += timedelta(hours=1)
    assert (await operations.verify(full=None)).documents == 1, "the first check reads everything"
    clock.instant += timedelta(minutes=1)
    assert (await operations.verify(full=None)).documents == 0
    clock.instant += timedelta(hours=25)
    assert (await operations.verify(full=None)).documents == 1, "one check a day reads everything"
    await store.close()


async def test_dated_copies_of_the_owner_are_never_rotated_and_are_shown(
    seline: Seline, tmp_path: Path
) -> None:
    copies = [tmp_path / "backups" / f"e_202601{day:02d}_000000.json" for day in range(1, 21)]
    for day, copy in enumerate(copies):
        copy.write_text(f'{{"day":{day}}}')
    (tmp_path / "e.json").write_text('{"day":21}')
    for number in range(8):
        await seline.data.update_field("e.json", "n", number)
    assert await seline.prune() == []
    assert [copy.name for copy in copies if not copy.exists()] == []
    listed = await seline.data.backups("e.json")
    assert sum(backup.because == NOT_OURS for backup in listed) == len(copies)
    assert len(listed) == len(copies) + 5
    [check] = [c for c in (await seline.health())["checks"] if c["name"] == "foreign_backups"]
    assert check["status"] == "info"
    assert check["detail"].startswith("20 files in backups/")
    for copy in copies:  # the cure that the check names
        copy.unlink()
    assert "foreign_backups" not in {c["name"] for c in (await seline.health())["checks"]}


@pytest.mark.prove
async def test_a_check_blocks_neither_the_event_loop_nor_the_writer(seline: Seline) -> None:
    await asyncio.gather(
        *(seline.data.save_json(f"d{number}.json", {"n": number}) for number in range(300))
    )
    checking = asyncio.ensure_future(seline.verify())
    saves = 0
    while not checking.done():
        await seline.data.save_json(NAME, {"n": saves})
        saves += 1
    assert saves > 3
    assert (await checking).documents >= 300


async def test_a_broken_backup_is_marked_and_displaces_no_sound_one(
    seline: Seline, tmp_path: Path
) -> None:
    for number in range(6):
        await seline.data.save_json(NAME, {"n": number})
    newest = (await seline.data.backups(NAME))[0]
    flip(tmp_path / "backups" / newest.name, 50)
    report = await seline.verify()
    assert [(finding.backup, finding.outcome) for finding in report.findings] == [
        (newest.name, "marked")
    ]
    await seline.prune()
    verdicts = [backup.verdict for backup in await seline.data.backups(NAME)]
    assert verdicts.count("sound") == 4


@pytest.mark.prove
async def test_usage_levels_have_hysteresis_and_survive_a_restart(tmp_path: Path) -> None:
    low = (UsageLevel.OK, UsageLevel.HALF)  # the disk's own share counts, too
    async with open_seline(tmp_path, storage__volume_limit_mb=10) as seline:
        assert (await seline.usage.measure()).level in low
        for number in range(82):
            await seline.data.save_json(f"d{number}.json", "x" * (MIB // 10))
        assert (await seline.usage.measure()).level is UsageLevel.WARNING
    async with open_seline(tmp_path, storage__volume_limit_mb=10) as seline:
        for number in range(4):
            await seline.data.delete(f"d{number}.json", purge=True)
        report = await seline.usage.measure()
        assert report.level is UsageLevel.WARNING, "two points of hysteresis"
        for number in range(4, 14):
            await seline.data.delete(f"d{number}.json", purge=True)
        assert (await seline.usage.measure()).level in low


async def test_a_file_over_the_size_limit_is_no_measure_of_the_next_save(tmp_path: Path) -> None:
    with (tmp_path / "sparse.json").open("wb") as file:
        file.truncate(1 << 40)
    async with open_seline(tmp_path) as seline:
        health = await seline.health()

    assert check_in(health, "writing")["status"] == "ok"


async def test_a_store_over_its_limit_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "bot.log").write_bytes(b"x" * (2 * MIB))
    async with open_seline(tmp_path, storage__volume_limit_mb=1) as seline:
        health = await seline.health()

    assert "`storage.volume_limit_mb`" in check_in(health, "usage")["fix"]


async def test_what_prune_frees_is_planned_again_only_after_a_change_or_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 20,000 backups planning takes most of a second, and a monitor asks often."""
    planned: list[int] = []
    prunable_bytes = Pruner.prunable_bytes

    def counting(pruner: Pruner, store: DocumentStore) -> int:
        planned.append(prunable_bytes(pruner, store))
        return planned[-1]

    async def plans() -> int:
        before = len(planned)
        for _ in range(3):
            await operations.health()
        return len(planned) - before

    monkeypatch.setattr(Pruner, "prunable_bytes", counting)
    clock = FakeClock()
    store = open_managed(tmp_path, cast("Clock", clock), storage__volume_limit_mb=1)
    operations, data = Operations(store), DataManager(store)
    for number in range(2):
        await data.save_json(NAME, [number, "x" * (430 << 10)])
    [backup] = await data.backups(NAME)

    assert await plans() == 1
    await data.pin(NAME, backup.name)
    assert await plans() == 1
    for number in range(2):
        await data.save_json("other.json", {"n": number})
    assert await plans() == 1
    clock.advance(61)
    assert await plans() == 1
    assert await plans() == 0
    await store.close()


async def test_growth_is_forecast_and_reported_in_health(tmp_path: Path) -> None:
    clock = SettableClock()
    store = open_managed(tmp_path, clock, storage__volume_limit_mb=10)
    operations, data = Operations(store), DataManager(store)
    for hour in range(30):
        await data.save_json(f"d{hour}.json", "x" * (100 << 10))
        clock.instant += timedelta(hours=1)
        report = await operations.usage.measure()
    assert report.forecast is not None
    assert 1 < report.forecast.days < 4
    health = await operations.health()
    assert health["days_until_full"] == round(report.forecast.days, 1)
    assert "full in about" in check_in(health, "usage")["detail"]
    await store.close()


def check_in(health: dict[str, Any], name: str) -> dict[str, str]:
    """Return the check of this name."""
    return next(check for check in health["checks"] if check["name"] == name)


async def verify_on_request(operations: Operations) -> None:
    await operations.verify()


async def verify_as_the_job(operations: Operations) -> None:
    await table.integrity(operations)


@pytest.mark.parametrize("verify", [verify_on_request, verify_as_the_job])
async def test_a_verify_is_remembered_across_a_restart(
    tmp_path: Path, verify: Callable[[Operations], Awaitable[None]]
) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, {"n": 1})
        assert (await seline.health())["last_integrity_check"] is None
        await verify(seline)
        before = await seline.health()

    async with open_seline(tmp_path) as seline:
        after = await seline.health()

    assert after["last_integrity_check"] == before["last_integrity_check"] is not None
    day = str(after["last_integrity_check"])[:10]
    assert check_in(after, "integrity") == {
        "name": "integrity",
        "status": "ok",
        "detail": check_in(after, "integrity")["detail"],
        "fix": "",
    }
    assert day in check_in(after, "integrity")["detail"]


async def test_a_document_that_cannot_be_served_is_known_after_a_restart(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, {"n": 1})
    flip(tmp_path / NAME, 50)
    async with open_seline(tmp_path) as seline:
        await seline.verify()

    async with open_seline(tmp_path) as seline:
        health = await seline.health()
        [listed] = await seline.data.documents()

    assert NAME in check_in(health, "documents")["detail"]
    assert health["status"] == "critical"
    assert listed.verdict == "torn"


async def test_health_shows_a_broken_document_while_it_is_broken(tmp_path: Path) -> None:
    names = [f"{number}.json" for number in range(5)]
    for name in names:
        (tmp_path / name).write_text("{")
        os.utime(tmp_path / name, (1, 1))
    async with open_seline(tmp_path) as seline:
        for name in names:
            with pytest.raises(DocumentUnrecoverable):
                await seline.data.load_json(name)
        lines = check_in(await seline.health(), "documents")["fix"].splitlines()
        assert [line.split(": ")[0] for line in lines[:-1]] == names[:3]
        assert all(". Next: Correct " in line for line in lines[:-1])
        assert lines[-1] == "and 2 more: `seline verify` lists each."

        for name in names:
            (tmp_path / name).write_text("{}")
            assert await seline.data.load_json(name) == {}
        after = await seline.health()
    assert check_in(after, "documents")["status"] == "ok"
    assert "unrecoverable" not in {check["name"] for check in after["checks"]}


async def test_health_shows_a_state_document_of_the_same_name(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        state = tmp_path / ".seline" / "old.json"
        state.write_bytes(b"\0")
        os.utime(state, (1, 1))
        seline.store.note(IncidentKind.UNRECOVERABLE, state.name, "old.json is broken")
        assert "old.json" in check_in(await seline.health(), "unrecoverable")["detail"]
        state.unlink()
        assert "unrecoverable" not in {c["name"] for c in (await seline.health())["checks"]}
