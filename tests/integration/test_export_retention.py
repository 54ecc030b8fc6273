"""Test how long an export stays whose manifest cannot be read."""

import shutil
from pathlib import Path

import pytest

from seline.domain.export_summary import SUMMARY_NAME
from seline.domain.manifest import MANIFEST_NAME
from seline.errors import ExportFailed
from seline.operations.copies import Copies
from seline.ports.sealing import UNSEALED
from tests.integration.test_export_doubt import DAY_S, KEEP, export, exporting
from tests.integration.test_exports import entries


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    return tmp_path / "nas"


async def test_a_damaged_export_goes_once_enough_newer_ones_are_whole(
    tmp_path: Path, nas: Path
) -> None:
    bot = exporting(tmp_path)
    await export(bot, a=1)
    [damaged] = entries(nas)
    (nas / damaged / MANIFEST_NAME).write_text("{")

    for number in range(KEEP):
        assert damaged in entries(nas)
        await export(bot, a=10 + number)

    assert len(entries(nas)) == KEEP
    assert damaged not in entries(nas)
    await bot.store.close()


async def test_a_damaged_export_stays_while_the_newest_is_in_doubt(
    tmp_path: Path, nas: Path
) -> None:
    bot = exporting(tmp_path)
    for number in range(KEEP):
        await export(bot, a=number, b=number, c=number)
    (nas / entries(nas)[0] / MANIFEST_NAME).write_text("{")
    for name in "ab":
        await bot.data.delete(f"{name}.json")

    for number in range(KEEP + 1):
        with pytest.raises(ExportFailed, match="in doubt"):
            await export(bot, c=10 + number)

    assert len(entries(nas)) == 2 * KEEP
    await bot.store.close()


async def test_an_export_of_a_newer_seline_is_never_removed(tmp_path: Path, nas: Path) -> None:
    bot = exporting(tmp_path)
    await export(bot, a=1)
    [newer] = entries(nas)
    (nas / newer / MANIFEST_NAME).write_text('{"format": 2}')

    for number in range(KEEP + 1):
        await export(bot, a=10 + number)

    assert newer in entries(nas)
    assert len(entries(nas)) == KEEP + 1
    await bot.store.close()


async def test_the_exports_of_a_volume_that_was_rolled_back_are_the_last_ones(
    tmp_path: Path, nas: Path
) -> None:
    bot = exporting(tmp_path)
    await export(bot, a=1)
    await bot.store.close()
    shutil.copytree(tmp_path / "bot", tmp_path / "older")
    bot = exporting(tmp_path)
    bot.clock.advance(DAY_S)
    for number in range(KEEP + 1):
        await export(bot, a=10 + number)
    await bot.store.close()

    older = exporting(tmp_path, "older")
    older.clock.advance(10 * DAY_S)
    for number in range(KEEP):
        await export(older, a=100 + number)

    exports = sorted(entries(nas))
    assert (await Copies(older.bucket, UNSEALED).find()).name == exports[-1]
    assert len(exports) == KEEP
    await older.store.close()


async def test_exports_whose_summary_cannot_be_read_stay_until_enough_newer_ones_are_sound(
    tmp_path: Path, nas: Path
) -> None:
    """They may be sound: a newer Seline may have written the summary, or a server answered it."""
    bot = exporting(tmp_path)
    for number in range(KEEP):
        await export(bot, a=number)
    unread = entries(nas)
    for name in unread:
        (nas / name / SUMMARY_NAME).write_text("<html>")

    for number in range(KEEP):
        assert set(unread) <= set(entries(nas))
        await export(bot, a=10 + number)

    assert len(entries(nas)) == KEEP
    assert not set(unread) & set(entries(nas))
    await bot.store.close()
