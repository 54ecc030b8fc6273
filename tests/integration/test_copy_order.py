"""Test which copy a restore takes where a destination has a mirror and exports."""

import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from seline.domain.copy import EXPORT, MIRROR
from seline.domain.manifest import MANIFEST_NAME, decode_manifest, encode_manifest
from seline.errors import ExportFailed
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.returning import come_back
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Mode, Target
from seline.ports.sealing import UNSEALED
from tests.mirrored_bot import Bot, folder
from tests.stores import managed, open_store

YEAR_S = 365 * 86400.0


def target(place: Path, name: str, mode: Mode) -> Target:
    (place / name).mkdir(exist_ok=True)
    return Target(Folder(name, str(place / name)), 3, same_disk=True, mode=mode)


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    both = target(tmp_path, "bucket", "both")
    bot = Bot(tmp_path, both.destination, target=both)
    yield bot
    await bot.store.close()


async def emptied(bot: Bot) -> None:
    """Mirror a volume, delete most of its documents, and mirror that in doubt.

    An export from before it grew is what the next one is compared with.
    """
    await bot.data.save_json("0.json", {"n": "first"})
    await bot.operations.exports.run()
    for number in range(8):
        await bot.data.save_json(f"{number}.json", {"n": number})
    await bot.mirrored()
    for number in range(7):
        await bot.data.delete(f"{number}.json")
    with pytest.raises(ExportFailed, match="in doubt"):
        await bot.mirrored()
    bot.clock.advance(60)


async def restored(place: Path, targets: Sequence[Target]) -> tuple[str, int]:
    """Restore onto an empty volume; return the destination and the number of documents."""
    store = open_store(place / "new")
    empty = managed(store, storage__data_dir=str(place / "new"))
    found = await come_back(empty, targets, UNSEALED, restore_from="auto", damaged={})
    await empty.close()
    assert found.copy is not None
    return found.copy.destination, sum(bool(listed.sha256) for listed in found.copy.documents)


async def test_an_export_made_while_the_mirror_is_in_doubt_is_not_taken(bot: Bot) -> None:
    await emptied(bot)
    await bot.operations.exports.run()

    copies = Copies(bot.bucket, UNSEALED)
    newest, *_ = await copies.listed()

    assert (newest.kind, newest.documents) == (EXPORT, 1)
    assert newest.doubt == "the mirror was in doubt then"
    assert len((await copies.find()).documents) == 8


async def test_it_is_not_taken_if_the_clock_was_set_back_before_it(bot: Bot) -> None:
    """Its instant is before the doubt, and its number is not."""
    await emptied(bot)
    bot.clock.set_back(YEAR_S)
    await bot.operations.exports.run()

    assert len((await Copies(bot.bucket, UNSEALED).find()).documents) == 8


async def test_a_head_that_cannot_be_read_is_the_newest_though_the_clock_was_set_back(
    bot: Bot, tmp_path: Path
) -> None:
    await bot.data.save_json("a.json", {"n": 0})
    await bot.mirrored()
    bot.clock.set_back(YEAR_S)
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    newest, _ = sorted((folder(tmp_path / "bucket") / "heads").iterdir())
    newest.write_bytes(b"{")

    found = await Copies(bot.bucket, UNSEALED).find()

    assert [text.startswith("the copy of 2024-") for text in found.passed_over] == [True]


async def test_a_document_that_a_damaged_copy_of_the_same_second_lacks_is_restored(
    bot: Bot, tmp_path: Path
) -> None:
    """It was saved between the two, not purged."""
    targets = [target(tmp_path, "a", "mirror"), target(tmp_path, "b", "mirror")]
    for each in targets:
        await bot.data.save_json(f"{each.destination.name}.json", {"n": 0})
        await Operations(bot.store, [each], version="test").mirrors.run()
    for content in (folder(tmp_path / "a") / "objects").iterdir():
        content.write_bytes(b"{")

    assert await restored(tmp_path, targets) == ("b", 2)


async def test_it_is_taken_once_the_copy_is_accepted(bot: Bot) -> None:
    await emptied(bot)
    await bot.operations.exports.run()

    await bot.operations.mirrors.accept("bucket")

    listed = await Copies(bot.bucket, UNSEALED).listed()
    assert [info.doubt for info in listed if info.kind == EXPORT] == ["", ""]


async def test_a_start_does_not_take_such_an_export_of_another_destination(tmp_path: Path) -> None:
    targets = [target(tmp_path, "nas", "export"), target(tmp_path, "bucket", "mirror")]
    bot = Bot(tmp_path, targets[1].destination, target=targets[1])
    bot.operations = Operations(bot.store, targets, version="test")
    await emptied(bot)
    await bot.operations.exports.run()
    await bot.store.close()

    assert await restored(tmp_path, targets) == ("bucket", 8)


async def test_a_copy_of_a_clock_that_was_ahead_is_not_the_newest(bot: Bot, tmp_path: Path) -> None:
    await bot.data.save_json("a.json", {"n": 0})
    await bot.mirrored()
    bot.clock.advance(YEAR_S)
    await bot.data.save_json("a.json", {"n": 1})
    await bot.operations.exports.run()
    bot.clock.set_back(YEAR_S)
    await bot.data.save_json("b.json", {"n": 2})
    await bot.mirrored()

    found = await Copies(bot.bucket, UNSEALED).usable()

    assert [info.kind for info in found] == [MIRROR, EXPORT, MIRROR]
    assert await restored(tmp_path, bot.operations.exports.destinations.targets) == ("bucket", 2)


async def test_the_first_export_of_a_volume_that_was_rolled_back_is_after_the_heads_there(
    bot: Bot, tmp_path: Path
) -> None:
    await bot.data.save_json("a.json", {"n": 0})
    await bot.mirrored()
    await bot.store.close()
    shutil.copytree(tmp_path / "data", tmp_path / "older" / "data")
    both = bot.operations.exports.destinations.targets[0]
    ahead = Bot(tmp_path, both.destination, target=both)
    for number in range(3):
        ahead.clock.advance(60)
        await ahead.data.save_json("a.json", {"n": number})
        await ahead.mirrored()
    await ahead.store.close()

    older = Bot(tmp_path / "older", both.destination, target=both)
    older.clock.advance(YEAR_S)
    await older.operations.exports.run()

    [newest, *_] = await Copies(both.destination, UNSEALED).usable()
    assert newest.kind == EXPORT
    await older.store.close()


@pytest.mark.parametrize("number", [10**18 - 1, 10**17])
async def test_an_export_with_a_number_out_of_reach_stops_exports_until_it_is_removed(
    bot: Bot, tmp_path: Path, number: int
) -> None:
    await bot.data.save_json("a.json", {"n": 0})
    await bot.operations.exports.run()
    [manifest] = (tmp_path / "bucket").glob(f"*/{MANIFEST_NAME}")
    forged = decode_manifest(manifest.read_bytes())
    manifest.write_bytes(encode_manifest(msgspec.structs.replace(forged, sequence=number)))
    for second in range(2):
        bot.clock.advance(60)
        await bot.data.save_json("a.json", {"later": second})
        with pytest.raises(ExportFailed, match=f"has not reached.*remove `{forged.name}`"):
            await bot.operations.exports.run()

    shutil.rmtree(manifest.parent)

    assert "read back" in await bot.operations.exports.run()
    assert "1 document" in await bot.mirrored()


async def test_an_export_after_the_last_mirror_is_the_newest(bot: Bot) -> None:
    for number in range(3):
        await bot.data.save_json("a.json", {"n": number})
        await bot.mirrored()
    bot.clock.advance(timedelta(days=1).total_seconds())
    await bot.data.save_json("a.json", {"n": 3})
    await bot.operations.exports.run()

    assert [info.kind for info in await Copies(bot.bucket, UNSEALED).usable()][:2] == [
        EXPORT,
        MIRROR,
    ]
