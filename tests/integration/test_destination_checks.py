"""Test what health shows of a destination that takes both kinds of copies, and of late copies."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seline.alerts.process import AlertProcess
from seline.alerts.signals import copy_signals
from seline.domain.alerts.lifecycle import AlertType
from seline.errors import ExportFailed
from seline.operations import Operations
from seline.operations.destinations import ExportsFile
from seline.operations.mirror_contents import BATCH_FILES_MAX
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Target
from tests.mirrored_bot import HOUR_S, Bot, folder

DAY_S = 24 * HOUR_S


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    """Yield a bot whose destination takes the mirror and exports."""
    bucket = Folder("bucket", str(tmp_path / "bucket"))
    target = Target(bucket, 3, same_disk=True, mode="both")
    made = Bot(tmp_path, bucket, target=target)
    await made.data.save_json("a.json", {"n": 1})
    await made.mirrored()
    await made.operations.exports.run()
    yield made
    await made.operations.mirrors.close()
    await made.store.close()


async def check(bot: Bot) -> dict[str, Any]:
    health: dict[str, Any] = await bot.operations.health()
    [found] = [check for check in health["checks"] if check["name"] == "exports"]
    return found


async def test_health_shows_both_kinds_of_copies(bot: Bot) -> None:
    found = await check(bot)
    assert found["status"] == "ok"
    for text in ("the newest copy is of", "the newest export was read back on", "not proven"):
        assert text in found["detail"]


async def test_a_destination_whose_copies_are_not_known_is_not_called_empty(
    bot: Bot, tmp_path: Path
) -> None:
    """So it is after a restart of a service that has just been restored."""
    await bot.operations.mirrors.close()
    await bot.store.close()
    (tmp_path / "data" / ".seline" / "exports.json").unlink()
    target = Target(Folder("bucket", str(tmp_path / "bucket")), 3, same_disk=True, mode="both")
    later = Bot(tmp_path, target.destination, target=target)
    found = await check(later)
    assert found["status"] == "info"
    assert "no copy is known before the first run" in found["detail"]
    assert found["fix"] == "Run `seline jobs run mirror`."
    await later.mirrored()
    assert "the newest copy is of" in (await check(later))["detail"]
    await later.operations.mirrors.close()
    await later.store.close()


async def test_a_mirror_that_succeeds_leaves_the_failure_of_an_export(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise ExportFailed("no room for a pack", hint="Make room.")

    await bot.data.save_json("a.json", {"n": 2})
    with monkeypatch.context() as patch:
        patch.setattr(bot.operations.exports, "export_to", fails)
        with pytest.raises(ExportFailed):
            await bot.operations.exports.run()
    assert "1 document" in await bot.mirrored()
    found = await check(bot)
    assert (found["status"], "no room for a pack" in found["detail"]) == ("warning", True)
    assert found["fix"] == "Make room."
    bot.clock.advance(2)
    await bot.operations.exports.run()
    assert (await check(bot))["status"] == "ok"


async def test_an_export_that_succeeds_leaves_the_failure_of_the_mirror(
    bot: Bot, tmp_path: Path
) -> None:
    shutil.rmtree(folder(tmp_path / "bucket"))
    (tmp_path / "bucket" / "seline-mirror" / "volume.json").unlink()
    (tmp_path / "bucket" / "seline-mirror").rmdir()
    (tmp_path / "bucket" / "seline-mirror").write_text("in its place")
    await bot.data.save_json("a.json", {"n": 2})
    with pytest.raises(ExportFailed):
        await bot.mirrored()
    bot.clock.advance(2)
    await bot.operations.exports.run()
    found = await check(bot)
    assert (found["status"], "the mirror failed on" in found["detail"]) == ("warning", True)


async def test_a_late_export_is_shown_beside_a_mirror_that_is_not(bot: Bot) -> None:
    bot.clock.advance(9 * DAY_S)
    await bot.data.save_json("a.json", {"n": 2})
    await bot.mirrored()
    found = await check(bot)
    assert (found["status"], "no whole export was seen for 8 days" in found["detail"]) == (
        "warning",
        True,
    )


async def test_what_another_mode_left_behind_is_not_shown(bot: Bot, tmp_path: Path) -> None:
    await bot.operations.exports.destinations.failed(bot.bucket, ExportFailed("no export"))
    target = Target(bot.bucket, 3, same_disk=True, mode="mirror")
    bot.operations = Operations(bot.store, [target])
    assert (await check(bot))["status"] == "ok"
    [(_, record)] = bot.operations.exports.destinations.records()
    assert record.failure == ""


def test_the_record_of_an_earlier_version_is_read() -> None:
    earlier = (
        b'{"destinations": {"nas": {"whole_at": "2025-01-06T03:00:04Z", "lacking": ["a.json"]}}}'
    )
    record = msgspec.json.decode(earlier, type=ExportsFile).destinations["nas"]
    assert (record.lacking, record.mirror_lacking) == (("a.json",), ())


# changes that wait


MINUTE_S = 60.0


async def test_changes_that_are_not_copied_are_shown_and_late_after_15_minutes(bot: Bot) -> None:
    bot.clock.advance(DAY_S)
    await bot.data.save_json("a.json", {"n": 2})
    since = f"changes since {bot.clock.now():%H:%M:%S} UTC are not copied yet"
    found = await check(bot)
    assert (found["status"], since in found["detail"]) == ("ok", True)
    for number in range(16):
        bot.clock.advance(MINUTE_S)
        await bot.data.save_json("a.json", {"n": number})
    alerts = Watched(bot)
    found = await check(bot)
    assert (found["status"], since in found["detail"]) == ("warning", True)
    [(state, summary, _)] = await alerts.about()
    assert (state, since in summary) == ("open", True)
    await bot.mirrored()
    found = await check(bot)
    assert (found["status"], "not copied" in found["detail"]) == ("ok", False)
    assert [state for state, *_ in await alerts.about()] == ["resolved"]
    await alerts.process.close()


async def test_a_change_during_a_run_waits_since_the_run_began(bot: Bot) -> None:
    real = bot.bucket.put
    bot.clock.advance(DAY_S)

    async def changing(key: str, data: bytes, *, replace: bool = True) -> None:
        if "/heads/" in key:
            bot.clock.advance(MINUTE_S)
            await bot.data.save_json("a.json", {"n": 3})
        await real(key, data, replace=replace)

    await bot.data.save_json("a.json", {"n": 2})
    began_at = bot.clock.now()
    bot.bucket.put = changing  # type: ignore[method-assign]
    await bot.mirrored()
    bot.bucket.put = real  # type: ignore[method-assign]
    since = bot.operations.mirrors.waiting("bucket").since
    assert since is not None
    assert began_at < since < bot.clock.now()


async def test_changes_that_a_process_left_wait_since_they_were_made(
    bot: Bot, tmp_path: Path
) -> None:
    bot.clock.advance(DAY_S)
    await bot.data.save_json("a.json", {"n": 2})
    changed_at = next(iter(await bot.data.documents())).updated_at
    bot.operations = Operations(bot.store, bot.operations.exports.destinations.targets)
    hangs = asyncio.Event()
    assert bot.operations.mirrors.waiting("bucket").since is None

    async def hanging(*_: object, **__: object) -> None:
        await hangs.wait()

    bot.bucket.put = hanging  # type: ignore[method-assign,assignment]
    run = asyncio.create_task(bot.mirrored())
    await until(lambda: bot.operations.mirrors.waiting("bucket").since is not None)
    assert bot.operations.mirrors.waiting("bucket").since == changed_at
    run.cancel()


async def test_nothing_waits_where_an_earlier_process_copied_everything(
    bot: Bot, tmp_path: Path
) -> None:
    os.utime(tmp_path / "data" / "a.json", (1, 1))  # else the file has the time of the machine
    bot.clock.advance(DAY_S)
    bot.operations = Operations(bot.store, bot.operations.exports.destinations.targets)
    [name] = [target.destination.name for target in bot.operations.exports.destinations.targets]
    real, seen = bot.bucket.put, list[object]()

    async def looking(key: str, data: bytes, *, replace: bool = True) -> None:
        seen.append(bot.operations.mirrors.waiting(name).since)
        await real(key, data, replace=replace)

    bot.bucket.put = looking  # type: ignore[method-assign]
    await bot.mirrored()
    assert seen
    assert set(seen) == {None}


async def test_the_first_copy_shows_how_far_it_is_and_is_late_if_it_hangs(tmp_path: Path) -> None:
    bot = Bot(tmp_path, Folder("bucket", str(tmp_path / "bucket")))
    for number in range(3 * BATCH_FILES_MAX):
        await bot.data.save_json(f"{number}.json", {"n": number})
    bot.clock.advance(DAY_S)
    real, hangs, put = bot.bucket.put, asyncio.Event(), list[str]()

    async def hanging(key: str, data: bytes, *, replace: bool = True) -> None:
        put.append(key)
        if len(put) > BATCH_FILES_MAX + 2:
            await hangs.wait()
        await real(key, data, replace=replace)

    bot.bucket.put = hanging  # type: ignore[method-assign]
    run = asyncio.create_task(bot.mirrored())
    await until(lambda: bot.operations.mirrors.waiting("bucket").copied >= BATCH_FILES_MAX)
    found = await check(bot)
    assert found["status"] == "info"
    assert "the first copy has 32 of 96 documents so far" in found["detail"]
    bot.clock.advance(16 * MINUTE_S)
    assert (await check(bot))["status"] == "warning"
    hangs.set()
    await run
    assert (await check(bot))["status"] == "ok"
    await bot.operations.mirrors.close()
    await bot.store.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.01)


# alerts


class Watched:
    """The alerts of a bot, evaluated when the test asks."""

    def __init__(self, bot: Bot) -> None:
        self.process = AlertProcess(bot.operations, [], unavailable=lambda: None)

    async def about(self) -> list[tuple[str, str, str]]:
        """Return the state, the summary and the next step of each alert about copies."""
        await self.process.evaluate()
        return [
            (alert.state, alert.summary, alert.fix)
            for alert in self.process.log.listing()
            if alert.type is AlertType.COPY_AT_RISK
        ]


async def test_a_copy_that_is_not_proven_for_a_month_is_one_alert_until_it_is(bot: Bot) -> None:
    alerts = Watched(bot)
    assert await alerts.about() == []
    for _ in range(31):
        bot.clock.advance(DAY_S)
        await bot.operations.exports.run()
        found = await alerts.about()
    [(state, summary, fix)] = found
    assert (state, fix) == ("open", "Run `seline jobs run drill`.")
    assert "`bucket`" in summary
    assert "no copy was proven for 30 days" in summary
    await bot.operations.drill()
    assert [state for state, *_ in await alerts.about()] == ["resolved"]
    await alerts.process.close()


async def test_what_made_a_job_fail_is_not_a_second_alert(bot: Bot) -> None:
    alerts = Watched(bot)
    await bot.operations.exports.destinations.failed(bot.bucket, ExportFailed("no room"))
    assert (await check(bot))["status"] == "warning"
    assert await alerts.about() == []
    await alerts.process.close()


async def test_an_alert_about_copies_lasts_while_a_job_fails_there(bot: Bot) -> None:
    """The failure hides what was wrong, and the copies are not in order again."""
    alerts, bucket = Watched(bot), bot.bucket
    bot.clock.advance(31 * DAY_S)
    await bot.operations.exports.run()
    assert [state for state, *_ in await alerts.about()] == ["open"]
    await bot.operations.exports.destinations.drill_failed(bucket, ExportFailed("no room"))
    assert [state for state, *_ in await alerts.about()] == ["open"]
    await bot.operations.drill()
    assert [state for state, *_ in await alerts.about()] == ["resolved"]
    await alerts.process.close()


async def test_the_alert_of_a_destination_that_is_removed_ends(bot: Bot) -> None:
    alerts = Watched(bot)
    bot.clock.advance(9 * DAY_S)
    assert [state for state, *_ in await alerts.about()] == ["open"]
    checks = copy_signals([], alerts.process.log.listing())
    await alerts.process.log.take(checks)
    [alert] = alerts.process.log.listing()
    assert (alert.type, alert.state) == (AlertType.COPY_AT_RISK, "resolved")
    await alerts.process.close()
