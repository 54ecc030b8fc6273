"""Test the drill of exports: what it restores and finds, and how a person's proof is learned."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

from seline import operations
from seline.domain.mirror import Proof
from seline.errors import ExportDamaged, ExportFailed
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.export_folders import PROOF_NAME, ExportFolders
from seline.outbound.destinations.folder import Folder
from seline.outbound.sealing import AgeSealer, new_key
from seline.ports.destinations import OBJECT_BYTES_MAX, Target
from seline.ports.sealing import UNSEALED, Sealer
from tests.integration.test_drill import DAY_S, check, flip
from tests.mirrored_bot import Bot, Counted
from tests.stores import scratch_volume


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    bucket = Counted(tmp_path / "bucket")
    made = Bot(tmp_path, bucket, target=Target(bucket, 3, same_disk=True))
    for number in range(3):
        await made.data.save_json("a.json", {"n": number})
    yield made
    await made.store.close()


def sealed(bot: Bot, sealer: Sealer) -> None:
    """Have the bot encrypt from now on."""
    target = Target(bot.bucket, 3, same_disk=True)
    bot.operations = Operations(
        bot.store, [target], version="test", sealer=sealer, open_volume=scratch_volume
    )


def folders(bot: Bot) -> ExportFolders:
    return ExportFolders(bot.bucket)


async def test_the_newest_export_is_restored_with_each_file_fetched_once(
    bot: Bot, scratch: Path
) -> None:
    await bot.operations.exports.run()
    assert "not proven restorable yet" in (await check(bot))["detail"]
    bucket = bot.bucket
    assert isinstance(bucket, Counted)
    bucket.others.clear()

    assert "3 contents restored, and compared" in await bot.operations.drill()

    packs = [key for key in bucket.others if "pack-" in key]
    assert len(packs) == len(set(packs)) == 1
    found = await check(bot)
    assert (found["status"], "last proven restorable" in found["detail"]) == ("ok", True)
    [listed] = await Copies(bot.bucket, UNSEALED).listed()
    assert (listed.proven_at, listed.proven_by) == (bot.clock.now(), "service")
    assert not any(scratch.iterdir())


async def test_without_room_the_contents_of_an_export_are_compared(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed(bot, AgeSealer(passphrase="correct horse battery"))
    await bot.operations.exports.run()
    monkeypatch.setattr(operations.scratch, "MARGIN_BYTES", 1 << 60)
    assert "3 contents decrypted and compared without a restore" in await bot.operations.drill()
    assert (await check(bot))["status"] == "ok"


async def test_without_the_key_a_person_must_prove_it_and_the_proof_is_learned(bot: Bot) -> None:
    key = new_key()
    sealed(bot, AgeSealer([key.recipient]))
    await bot.operations.exports.run()
    assert "compared as stored, without a key" in await bot.operations.drill()
    found = await check(bot)
    assert (found["status"], "only a person can prove it" in found["detail"]) == ("warning", True)
    assert [info.proven_at for info in await Copies(bot.bucket, UNSEALED).listed()] == [None]

    [export] = await folders(bot).complete()
    proof = Proof(
        head=export, at="2025-01-06T20:00:00Z", by="person at box", decrypted=True, objects=1
    )
    await folders(bot).put_proof(proof)
    await bot.operations.exports.run()
    assert "by person at box" in (await check(bot))["detail"]
    await bot.operations.drill()
    assert "by person at box" in (await check(bot))["detail"]
    [listed] = await Copies(bot.bucket, UNSEALED).listed()
    assert listed.proven_by == "person at box"


async def fails_until_another_is_written(bot: Bot, *, match: str) -> None:
    """Check that the drill fails, that health shows it, and that the next export ends it."""
    with pytest.raises(ExportFailed, match=match):
        await bot.operations.drill()
    found = await check(bot)
    assert (found["status"], "the drill failed" in found["detail"]) == ("warning", True)
    bot.clock.advance(2)
    await bot.operations.exports.run()
    await bot.operations.drill()
    assert (await check(bot))["status"] == "ok"


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_damaged_export_fails_the_drill_until_another_is_written(
    bot: Bot, tmp_path: Path, encrypted: bool
) -> None:
    if encrypted:
        sealed(bot, AgeSealer(passphrase="correct horse battery"))
    await bot.operations.exports.run()
    [pack] = (tmp_path / "bucket").rglob("pack-*")
    flip(pack)
    await fails_until_another_is_written(bot, match="The newest export is damaged")


async def test_a_drill_fails_with_the_names_if_every_export_is_damaged(
    bot: Bot, tmp_path: Path
) -> None:
    for number in range(2):
        bot.clock.advance(DAY_S)
        await bot.data.save_json("a.json", {"day": number})
        await bot.operations.exports.run()
    names = await folders(bot).complete()
    for manifest in (tmp_path / "bucket").glob("*/manifest.json"):
        manifest.write_bytes(b"{")
    await fails_until_another_is_written(bot, match=f"No export there is whole: {', '.join(names)}")


async def test_a_proof_goes_with_its_export_and_is_no_export(bot: Bot, tmp_path: Path) -> None:
    for number in range(5):
        bot.clock.advance(DAY_S)
        await bot.data.save_json("a.json", {"day": number})
        await bot.operations.exports.run()
        newest, *_ = await folders(bot).complete()
        proof = Proof(
            head=newest, at="2025-01-06T20:00:00Z", by="person", decrypted=True, objects=1
        )
        await folders(bot).put_proof(proof)
    assert len(await folders(bot).complete()) == 3
    assert len(list((tmp_path / "bucket").glob(f"*/{PROOF_NAME}"))) == 3
    assert await folders(bot).leftovers() == []


@pytest.mark.parametrize("changed", [None, {"at": "yesterday"}, {"head": "another"}])
async def test_a_proof_that_is_no_proof_is_passed_over(
    bot: Bot, changed: dict[str, str] | None
) -> None:
    await bot.operations.exports.run()
    [export] = await folders(bot).complete()
    proof = {"head": export, "at": "2025-01-06T20:00:00Z", "by": "x", "decrypted": True}
    forged = b"{" if changed is None else json.dumps({**proof, "objects": 1, **changed}).encode()
    await bot.bucket.put(f"{export}/{PROOF_NAME}", forged)
    assert "nothing changed" in await bot.operations.exports.run()
    with pytest.raises(ExportDamaged):
        await folders(bot).proof(export)
    assert (await Copies(bot.bucket, UNSEALED).find()).name == export
    assert bot.operations.exports.destinations.record("bucket").proven_at is None


async def test_a_destination_without_an_export_is_not_proven(bot: Bot) -> None:
    assert "it has no export yet" in await bot.operations.drill()
    assert (await check(bot))["status"] == "info"


class Overtaken(Counted):
    """A folder at which an export is run, if one can be, before a pack is read."""

    exporting: Callable[[], Coroutine[None, None, str]] | None = None
    export: asyncio.Task[str] | None = None

    async def get(self, key: str, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
        if "pack-" in key and self.exporting is not None and self.export is None:
            self.export = asyncio.create_task(self.exporting())
            await asyncio.wait([self.export], timeout=2)
        return await super().get(key, bytes_max=bytes_max)


@pytest.mark.prove
async def test_no_export_is_removed_while_it_is_drilled(tmp_path: Path) -> None:
    """A run that keeps one export waits for the drill of the one before."""
    bucket = Overtaken(tmp_path / "bucket")
    bot = Bot(tmp_path, bucket, target=Target(bucket, 1, same_disk=True))
    await bot.data.save_json("a.json", {"n": 0})
    await bot.operations.exports.run()
    bot.clock.advance(1)
    await bot.data.save_json("a.json", {"n": 1})
    bucket.exporting = bot.operations.exports.run

    assert "restored, and compared" in await bot.operations.drill()

    assert bucket.export is not None
    assert "read back" in await bucket.export
    await bot.store.close()


async def test_two_destinations_are_restored_one_after_the_other(
    bot: Bot, tmp_path: Path, scratch: Path
) -> None:
    second = Folder("second", str(tmp_path / "second"))
    targets = [Target(bot.bucket, 3, same_disk=True), Target(second, 3, same_disk=True)]
    bot.operations = Operations(bot.store, targets, open_volume=scratch_volume)
    await bot.operations.exports.run()
    most, drill = 0, asyncio.create_task(bot.operations.drill())
    while not drill.done():
        most = max(most, len(list(scratch.iterdir())))
        await asyncio.sleep(0.001)
    assert (await drill).count("restored, and compared") == 2
    assert most == 1
