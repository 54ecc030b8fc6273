"""Test exports that lost over half of the documents: they displace nothing until accepted."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from seline.domain.export_summary import SUMMARY_NAME
from seline.domain.manifest import MANIFEST_NAME
from seline.errors import CopyNotFound, ExportFailed
from seline.folders.export import find_export
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.returning import Returned, come_back
from seline.outbound.destinations.folder import Folder
from seline.outbound.sealing import AgeSealer, new_key
from seline.ports.destinations import Mode, Target
from seline.ports.sealing import UNSEALED, Sealer
from tests.integration.test_exports import entries
from tests.mirrored_bot import Bot
from tests.stores import managed, open_store

DAY_S = 86400.0
KEY = new_key()
WITH_KEY = AgeSealer(identities=[KEY.identity])
KEEP = 2
DOUBT = (
    r"nas: The newest export is in doubt: it has 1 of 4 documents\. A restore takes the last one "
    r"from before the loss, and no such export is removed\..*accept nas"
)


def exporting(place: Path, data: str = "bot", sealer: Sealer = UNSEALED) -> Bot:
    """Return a volume whose exports go to `nas`."""
    nas = Folder("nas", str(place / "nas"))
    return Bot(place / data, nas, target=Target(nas, KEEP, same_disk=True), sealer=sealer)


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    bot = exporting(tmp_path)
    yield bot
    await bot.store.close()


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    return tmp_path / "nas"


async def export(bot: Bot, **changed: Any) -> str:
    """Save what changed, and export on the next day."""
    for name, value in changed.items():
        await bot.data.save_json(f"{name}.json", value)
    bot.clock.advance(DAY_S)
    return await bot.operations.exports.run()


async def emptied(bot: Bot, nights: int = 1) -> None:
    """Export four documents on two days, delete three, and export that in doubt each night."""
    for day in range(KEEP):
        await export(bot, a=day, b=day, c=day, d=day)
    for name in "abc":
        await bot.data.delete(f"{name}.json")
    for night in range(nights):
        with pytest.raises(ExportFailed, match=DOUBT):
            await export(bot, d=f"night {night}")


async def doubts(bot: Bot, sealer: Sealer = UNSEALED) -> list[tuple[int | None, bool]]:
    """Return the number of documents of each export, and whether it is in doubt."""
    listed = await Copies(bot.bucket, sealer).listed()
    return [(info.documents, bool(info.doubt)) for info in listed]


async def come_back_to(place: Path, nas: Path, sealer: Sealer = UNSEALED) -> Returned:
    """Restore what a start takes from `nas` onto an empty volume at `place`."""
    empty = managed(open_store(place / "data"), storage__data_dir=str(place / "data"))
    target = Target(Folder("nas", str(nas)), KEEP)
    try:
        return await come_back(empty, [target], sealer, restore_from="auto", damaged={})
    finally:
        await empty.close()


@pytest.mark.prove
async def test_each_export_after_a_loss_is_made_in_doubt_and_displaces_nothing(bot: Bot) -> None:
    await emptied(bot, nights=4)

    assert await doubts(bot) == [(1, True), (1, True), (4, False), (4, False)]
    with pytest.raises(ExportFailed, match=DOUBT):
        await export(bot)
    assert "it has 1 of 4 documents" in bot.operations.destination_checks()[0].detail
    assert len((await Copies(bot.bucket, UNSEALED).find()).documents) == 4


async def test_a_start_on_an_empty_volume_takes_the_export_before_the_loss(
    bot: Bot, nas: Path, tmp_path: Path
) -> None:
    await emptied(bot)

    found = await come_back_to(tmp_path / "new", nas)

    assert found.copy is not None
    assert len(found.copy.documents) == 4


async def test_retention_goes_on_once_the_loss_is_accepted(bot: Bot, tmp_path: Path) -> None:
    await emptied(bot, nights=2)
    bot.clock.advance(1)

    await bot.operations.accept("nas")

    assert await doubts(bot) == [(1, False), (4, False)]
    assert bot.operations.destination_checks()[0].problems == ()
    assert "nothing changed" in await export(bot)
    assert len((await Copies(bot.bucket, UNSEALED).find()).documents) == 1
    await export(bot, d="later")
    assert await doubts(bot) == [(1, False), (1, False)]


class Dying(Folder):
    """A folder after whose next object with this in its path the process ends."""

    last: str | None = None

    async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        await super().put(key, data, replace=replace)
        if self.last and self.last in key:
            self.last = None
            raise asyncio.CancelledError


@pytest.mark.parametrize(("mode", "last"), [("export", MANIFEST_NAME), ("mirror", "/heads/")])
async def test_an_accepted_loss_stays_accepted_if_the_process_ends_after_the_copy(
    tmp_path: Path, mode: Mode, last: str
) -> None:
    nas = Dying("nas", str(tmp_path / "nas"))
    target = Target(nas, KEEP, same_disk=True, mode=mode)
    bot = Bot(tmp_path, nas, target=target)

    async def copy() -> str:
        bot.clock.advance(1)
        by = bot.operations
        return await (by.exports if mode == "export" else by.mirrors).run()

    for name in "abcd":
        await bot.data.save_json(f"{name}.json", 1)
    await copy()
    for name in "abc":
        await bot.data.delete(f"{name}.json")
    with pytest.raises(ExportFailed, match="in doubt"):
        await copy()
    bot.clock.advance(1)
    nas.last = last
    with pytest.raises(asyncio.CancelledError):
        await bot.operations.accept("nas")

    bot.operations = Operations(bot.store, [target], version="test")
    await bot.data.save_json("d.json", 2)

    assert "nas: " in await copy()
    await bot.store.close()


async def test_exports_in_doubt_go_once_the_documents_are_back(bot: Bot) -> None:
    """They are counted by no rule, so that they displace none from before the loss."""
    await emptied(bot, nights=3)

    await export(bot, a=1, b=1)

    assert await doubts(bot) == [(3, False), (4, False)]


async def test_a_loss_of_most_bytes_is_in_doubt(bot: Bot) -> None:
    await export(bot, a="x" * 40_000)

    with pytest.raises(ExportFailed, match=r"it has 5 of 40,003 bytes"):
        await export(bot, a="xx")


async def test_the_first_export_has_nothing_to_be_compared_with(bot: Bot, nas: Path) -> None:
    assert "read back" in await export(bot, a=1)
    [name] = entries(nas)
    assert SUMMARY_NAME not in entries(nas / name)


@pytest.mark.parametrize("sealer", [UNSEALED, AgeSealer([KEY.recipient])], ids=["plain", "sealed"])
async def test_a_restored_volume_compares_with_the_exports_that_are_there(
    tmp_path: Path, sealer: Sealer
) -> None:
    """It has no record of them; what a key would show is beside the manifest."""
    bot = exporting(tmp_path, sealer=sealer)
    await emptied(bot)
    await bot.store.close()
    found = await come_back_to(
        tmp_path / "new", tmp_path / "nas", WITH_KEY if sealer.suffix else UNSEALED
    )
    assert found.copy is not None
    assert len(found.copy.documents) == 4

    again = exporting(tmp_path, "new", sealer=sealer)
    again.clock.instant = bot.clock.instant
    for name in "abc":
        await again.data.delete(f"{name}.json")
    with pytest.raises(ExportFailed, match=DOUBT):
        await export(again, d="again")

    assert await doubts(again) == [(1, True), (1, True), (4, False), (4, False)]
    await again.store.close()


async def test_an_export_that_is_stopped_leaves_the_choice_that_a_doubt_waits_for(bot: Bot) -> None:
    await emptied(bot)
    reached = asyncio.Event()

    async def hanging(_key: str, _data: bytes, *, replace: bool = True) -> None:
        reached.set()
        await asyncio.Event().wait()

    bot.bucket.put = hanging  # type: ignore[method-assign]
    run = asyncio.create_task(export(bot, d="stopped"))
    await reached.wait()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)

    record = bot.operations.exports.destinations.record("nas")
    assert "destinations accept nas" in record.cure


async def test_another_volume_in_the_folder_is_neither_compared_nor_stopped(
    bot: Bot, tmp_path: Path
) -> None:
    await emptied(bot)
    other = exporting(tmp_path, "other")
    other.clock.instant = bot.clock.instant

    for number in range(KEEP + 1):
        assert "read back" in await export(other, e=number)

    volume = await other.operations.exports.volume_id()
    of_other = await Copies(bot.bucket, UNSEALED).usable(volume=volume)
    assert len(of_other) == KEEP
    copies, own = Copies(bot.bucket, UNSEALED), await bot.operations.exports.volume_id()
    assert not any(info.doubt for info in await copies.listed(volume))
    found = [(info.documents, bool(info.doubt)) for info in await copies.listed(own)]
    assert sorted(found) == [(1, True), (4, False), (4, False)]
    await other.store.close()


@pytest.mark.parametrize("mode", ["export", "mirror"])
async def test_the_first_copy_at_a_destination_that_is_added_after_a_loss_is_in_doubt(
    bot: Bot, tmp_path: Path, mode: Mode
) -> None:
    """It has nothing to be compared with there, so what other destinations had counts."""
    await emptied(bot)
    added = Target(Folder("added", str(tmp_path / "added")), KEEP, same_disk=True, mode=mode)
    targets = [*bot.operations.exports.destinations.targets, added]
    bot.operations = operations = Operations(bot.store, targets, version="test")

    with pytest.raises(ExportFailed, match=r"added: The newest .* in doubt: it has 1") as failed:
        await (operations.mirrors if mode == "mirror" else operations.exports).run()
    assert ".;" not in failed.value.message
    of_added = failed.value.message.partition("added: ")[2]
    assert re.search("No export from before the loss is here|if one is here", of_added)

    with pytest.raises(CopyNotFound, match="Every copy at added is in doubt") as refused:
        await Copies(added.destination, UNSEALED).find()
    assert "seline exports restore added --at 2025-01-" in refused.value.hint
    assert "added: every copy there is in doubt, so none was read" in await operations.drill()
    empty = managed(open_store(tmp_path / "new"), storage__data_dir=str(tmp_path / "new"))
    found = await come_back(empty, targets[::-1], UNSEALED, restore_from="auto", damaged={})
    await empty.close()
    assert found.copy is not None
    assert len(found.copy.documents) == 4
    bot.clock.advance(1)
    await operations.accept("added")
    assert (await Copies(added.destination, UNSEALED).find()).destination == "added"


async def test_a_destination_is_not_compared_with_copies_of_days_long_before(
    bot: Bot, tmp_path: Path
) -> None:
    """Else one that is no longer used would put the first copy of each new one in doubt."""
    await emptied(bot)
    bot.clock.advance(3 * DAY_S)
    other, added = (
        Target(Folder(name, str(tmp_path / name)), KEEP, same_disk=True) for name in ("b", "c")
    )
    await Operations(bot.store, [other], version="test").accept("b")
    bot.clock.advance(1)

    assert "read back" in await Operations(bot.store, [added], version="test").exports.run()


async def test_an_older_seline_reads_an_export_in_doubt(bot: Bot, nas: Path) -> None:
    """It refuses a manifest with a field that it does not know, so the doubt is in another file."""
    await emptied(bot)

    sound, doubted = (
        json.loads((nas / name / MANIFEST_NAME).read_text()) for name in entries(nas)[1:]
    )

    assert sound.keys() == doubted.keys()
    assert json.loads((nas / entries(nas)[-1] / SUMMARY_NAME).read_text())["doubt"]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 2}', b'{"doubt": 1}', b" " * (1 << 17)])
async def test_an_export_whose_summary_cannot_be_read_is_in_doubt(
    bot: Bot, nas: Path, damage: bytes
) -> None:
    await emptied(bot)
    (nas / entries(nas)[-1] / SUMMARY_NAME).write_bytes(damage)

    assert await doubts(bot) == [(1, True), (4, False), (4, False)]


async def test_an_import_of_the_folder_takes_the_export_before_the_loss(
    bot: Bot, nas: Path
) -> None:
    await emptied(bot)

    assert find_export(str(nas)) == str(nas / entries(nas)[1])


async def test_the_drill_restores_what_a_restore_takes(bot: Bot, nas: Path) -> None:
    """The export in doubt, which is damaged, is not read."""
    await emptied(bot)
    [pack] = (nas / entries(nas)[-1]).glob("pack-*")
    pack.unlink()

    assert "restored, and compared" in await bot.operations.drill()


async def test_a_volume_does_not_begin_empty_where_every_copy_is_in_doubt(
    bot: Bot, nas: Path, tmp_path: Path
) -> None:
    await emptied(bot)
    for name in entries(nas)[:KEEP]:
        (nas / name / MANIFEST_NAME).unlink()

    with pytest.raises(ExportFailed, match=r"nas cannot be taken: Every copy .* 1 of 4 documents"):
        await come_back_to(tmp_path / "new", nas)
    with pytest.raises(CopyNotFound, match="--at 2025-01-"):
        await Copies(bot.bucket, UNSEALED).find()


async def test_a_start_takes_no_copy_of_another_volume_because_the_first_destination_has_none(
    bot: Bot, nas: Path, tmp_path: Path
) -> None:
    """The volume is that of the first destination, also if every copy there is in doubt."""
    await emptied(bot)
    for name in entries(nas)[:KEEP]:
        (nas / name / MANIFEST_NAME).unlink()
    there = Folder("there", str(tmp_path / "there"))
    target = Target(there, KEEP, same_disk=True)
    other = Bot(tmp_path / "other", there, target=target)
    await export(other, x=1)
    await other.store.close()
    empty = managed(open_store(tmp_path / "new"), storage__data_dir=str(tmp_path / "new"))
    targets = [Target(Folder(n, str(tmp_path / n)), KEEP) for n in ("nas", "there")]

    with pytest.raises(ExportFailed, match="nas cannot be taken"):
        await come_back(empty, targets, UNSEALED, restore_from="auto", damaged={})
    await empty.close()


async def test_an_export_of_another_volume_by_a_newer_seline_stops_no_restore(
    bot: Bot, nas: Path
) -> None:
    await emptied(bot)
    [volume] = {info.volume for info in await Copies(bot.bucket, UNSEALED).listed()}
    newer = nas / entries(nas)[-1].replace(volume, "ffffffff")
    newer.mkdir()
    (newer / MANIFEST_NAME).write_text('{"format": 99}')

    assert len((await Copies(bot.bucket, UNSEALED).find(volume=volume)).documents) == 4


async def test_an_old_failure_of_a_mirror_is_not_shown_while_the_destination_is_used(
    bot: Bot,
) -> None:
    """It takes exports alone now."""
    destinations = bot.operations.exports.destinations
    await destinations.mirror_failed(bot.bucket, ExportFailed("no"))

    async with destinations.using("nas"):
        [check] = bot.operations.destination_checks()

    assert "no" not in check.problems
    assert check.problems == bot.operations.destination_checks()[0].problems
