"""Test the report of the copies that may still hold a purged document."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from seline.domain.purged import HeldCopy, held_until
from seline.domain.retention import RetentionPolicy
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Target
from tests.command_line import line_at
from tests.mirrored_bot import HOUR_S, Bot, Counted, heads, objects

YEAR_S = 365 * 24 * HOUR_S


@pytest.fixture
async def bot(tmp_path: Path, place: Path) -> AsyncIterator[Bot]:
    periods = {"exports__keep_daily": 2, "exports__keep_weekly": 0, "exports__keep_monthly": 0}
    made = Bot(tmp_path, Counted(place), **periods)
    yield made
    await made.operations.mirrors.close()
    await made.store.close()


async def said(bot: Bot) -> str:
    """Return what health says of the copies."""
    health = await bot.operations.health()
    checks = health["checks"]
    assert isinstance(checks, list)
    [found] = [check for check in checks if isinstance(check, dict) and check["name"] == "exports"]
    return str(found["detail"])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("ahead_s", [0.0, YEAR_S])
async def test_health_names_a_purged_document_until_no_copy_of_the_mirror_has_it(
    bot: Bot, place: Path, ahead_s: float
) -> None:
    """The clock of the first copy may have been a year ahead."""
    bot.clock.advance(ahead_s)
    await bot.data.save_json("a.json", {"n": 1})
    await bot.data.save_json("b.json", {"secret": 2})
    await bot.mirrored()
    bot.clock.set_back(ahead_s)
    before, held_by = objects(place), heads(place)[0].name
    preview = await bot.data.delete("b.json", purge=True, dry_run=True)
    assert "b.json" not in await said(bot), "a preview notes nothing"
    purged = await bot.data.delete("b.json", purge=True)
    [held] = purged.copies
    assert preview.copies == purged.copies
    assert held.until == datetime(2025, 1, 8, 2, tzinfo=UTC)
    assert "b.json, which was purged, may be in copies at bucket, until 2025-01-08" in await said(
        bot
    )
    await bot.mirrored()
    [newest] = {head.name for head in heads(place)} - {held_by}
    [erased] = before - _named_by(place, newest)
    steps = 0
    while erased in objects(place):
        assert "b.json" in await said(bot)
        bot.clock.advance(5 * HOUR_S)
        await bot.data.save_json("a.json", {"n": steps})
        await bot.mirrored()
        steps += 1
    assert ahead_s or bot.clock.now() < held.until + timedelta(hours=12)
    for step in range(3):
        bot.clock.advance(5 * HOUR_S)
        await bot.data.save_json("a.json", {"later": step})
        await bot.mirrored()
    assert "b.json" not in await said(bot)


class HookedFolder(Counted):
    """A folder that calls `hook` once, when an object has been stored."""

    hook: Callable[[], Awaitable[object]] | None = None

    async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        await super().put(key, data, replace=replace)
        if "/objects/" in key and self.hook is not None:
            hook, self.hook = self.hook, None
            await hook()


async def test_a_document_purged_while_the_mirror_runs_is_in_no_new_head(
    tmp_path: Path, place: Path
) -> None:
    bucket = HookedFolder(place)
    bot = Bot(tmp_path, bucket)
    await bot.data.save_json("a.json", {"n": 1})
    await bot.data.save_json("b.json", {"secret": 2})
    bucket.hook = lambda: bot.data.delete("b.json", purge=True)

    assert "for 1 document" in await bot.mirrored()
    [head] = heads(place)
    assert head.documents == 1
    assert len(_named_by(place, head.name)) == 1
    await bot.operations.mirrors.close()
    await bot.store.close()


async def test_a_run_of_the_mirror_ends_under_a_stream_of_purges(
    tmp_path: Path, place: Path
) -> None:
    """The head leaves out what was purged since; the next run, which is a base, has the rest."""
    bucket = HookedFolder(place)
    bot = Bot(tmp_path, bucket)
    await bot.data.save_json("a.json", {"n": 1})
    await bot.data.save_json("0.json", {"secret": 0})
    purged: list[str] = []

    async def purge() -> None:
        purged.append(f"{len(purged)}.json")
        await bot.data.save_json(f"{len(purged)}.json", {"secret": len(purged)})
        await bot.data.delete(purged[-1], purge=True)
        bucket.hook = purge if len(purged) < 20 else None

    bucket.hook = purge
    assert "for 1 document" in await bot.mirrored()
    assert len(purged) < 4
    bucket.hook = None
    assert "for 2 documents" in await bot.mirrored()
    newest, first = heads(place)
    assert (newest.before, first.documents) == ("", 1)
    await bot.operations.mirrors.close()
    await bot.store.close()


def _named_by(place: Path, name: str) -> set[str]:
    [head] = [head for head in heads(place) if head.name == name]
    return {f"{entry.key}.json.zst" for entry in head.objects}


@pytest.mark.parametrize("ahead_s", [0.0, YEAR_S])
async def test_exports_hold_a_purged_document_until_so_many_newer_ones_are_made(
    tmp_path: Path, ahead_s: float
) -> None:
    """The clock of the first export may have been a year ahead."""
    nas = Folder("nas", str(tmp_path / "nas"))
    bot = Bot(tmp_path, nas, target=Target(nas, 2, same_disk=True))
    exports = bot.operations.exports
    for name in ("a.json", "b.json"):
        await bot.data.save_json(name, {"of": name})
    bot.clock.advance(ahead_s)
    await exports.run()
    bot.clock.set_back(ahead_s)
    copy = await bot.operations.copies("nas").find()
    purged = await bot.data.delete("b.json", purge=True)
    assert await exports.purges.undone(copy, ["a.json", "b.json"]) == ["b.json"]
    held = HeldCopy(destination="nas", kind="export", until=None, newer_exports=2)
    assert purged.copies == (held,)
    for number in range(2):
        assert "b.json, which was purged, may be in exports at nas" in await said(bot)
        bot.clock.advance(24 * HOUR_S)
        await bot.data.save_json("a.json", {"n": number})
        await exports.run()
    assert "b.json" not in await said(bot)
    await bot.store.close()


@pytest.mark.parametrize("is_complete", [True, False])
async def test_an_export_that_is_not_listed_may_hold_what_was_purged(
    tmp_path: Path, is_complete: bool
) -> None:
    """It is of a newer Seline, or was interrupted: its packs are there."""
    nas = Folder("nas", str(tmp_path / "nas"))
    bot = Bot(tmp_path, nas, target=Target(nas, 2, same_disk=True))
    for name in ("a.json", "b.json"):
        await bot.data.save_json(name, {"of": name})
    await bot.operations.exports.run()
    [manifest] = (tmp_path / "nas").glob("*/manifest.json")
    if is_complete:
        manifest.write_text('{"format": 2}')
    else:
        manifest.unlink()
    await bot.data.delete("b.json", purge=True)

    for number in range(3):
        bot.clock.advance(HOUR_S)
        await bot.data.save_json("a.json", {"n": number})
        await bot.operations.exports.run()

    assert "b.json, which was purged, may be in exports at nas" in await said(bot)
    await bot.store.close()


def test_the_command_says_until_when_a_copy_may_hold_what_it_erases(tmp_path: Path) -> None:
    table = {"name": "bucket", "url": f"file://{tmp_path / 'b'}", "mode": "both", "same_disk": True}
    line = line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps([table]))
    line("save", "a.json", stdin="[1]")
    preview = line("delete", "a.json", "--purge", "--dry-run")
    erased = line("delete", "a.json", "--purge", "--yes")
    for done in (preview, erased):
        text = done.out + done.err
        assert "It may still be in copies at bucket, until 2" in text
        assert "in exports at bucket, until 7 newer ones are made" in text


@pytest.mark.parametrize(
    ("policy", "until"),
    [
        (RetentionPolicy(keep_hourly=24), datetime(2025, 1, 9, 16, 30, tzinfo=UTC)),
        (RetentionPolicy(keep_daily=7), datetime(2025, 1, 15, 2, tzinfo=UTC)),
        (RetentionPolicy(keep_weekly=4), datetime(2025, 2, 3, 2, tzinfo=UTC)),
        (RetentionPolicy(keep_monthly=12), datetime(2026, 1, 1, 2, tzinfo=UTC)),
    ],
)
def test_the_last_rule_for_periods_sets_the_bound(policy: RetentionPolicy, until: datetime) -> None:
    assert held_until(datetime(2025, 1, 8, 14, 30, tzinfo=UTC), policy) == until
