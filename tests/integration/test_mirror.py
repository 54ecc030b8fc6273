"""Test the mirror: what a run copies, what its heads name, what a sweep removes."""

import json
import shutil
from pathlib import Path

import pytest

from seline.domain import mirror
from seline.domain.volume_file import VolumeFile
from seline.errors import ExportDamaged, ExportFailed
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.mirror_store import MirrorStore
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import ObjectForbidden, Target
from seline.ports.sealing import UNSEALED
from tests.mirrored_bot import HOUR_S, Bot, Counted, flip, folder, heads, objects


async def test_a_run_copies_what_changed_and_nothing_else(bot: Bot, place: Path) -> None:
    for number in range(20):
        await bot.data.save_json(f"{number}.json", {"n": number})
    assert "20 documents" in await bot.mirrored()
    first = objects(place)
    assert len(first) == 20
    assert heads(place)[0].before == ""
    assert await bot.mirrored() == "", "nothing changed"

    await bot.data.save_json("7.json", {"n": "changed"})
    bucket = bot.bucket
    assert isinstance(bucket, Counted)
    bucket.puts.clear()
    bucket.others.clear()
    assert "20 documents" in await bot.mirrored()
    assert [key.split("/")[2] for key, _ in bucket.puts] == ["objects", "manifests", "heads"]
    assert bucket.others == []
    assert len(objects(place) - first) == 1
    newest, before = heads(place)
    assert newest.before == before.name
    assert [entry.key for entry in newest.objects] == [
        name.split(".")[0] for name in objects(place) - first
    ]


async def test_the_earlier_content_is_there_already_when_it_becomes_a_backup(
    bot: Bot, place: Path
) -> None:
    for number in range(3):
        await bot.data.save_json("a.json", {"n": number})
        await bot.mirrored()
        bot.clock.advance(2)
    assert len(objects(place)) == 3, "each content once, as a document or as a backup"


async def test_a_new_process_continues_the_mirror_with_a_base(tmp_path: Path, place: Path) -> None:
    first = Bot(tmp_path, Counted(place))
    await first.data.save_json("a.json", {"n": 1})
    await first.mirrored()
    await first.operations.mirrors.close()
    await first.store.close()
    bucket = Counted(place)
    second = Bot(tmp_path, bucket)
    assert "1 document" in await second.mirrored()
    assert not [key for key, _ in bucket.puts if "/objects/" in key], "it is there already"
    assert [head.before for head in heads(place)] == ["", ""]
    assert heads(place)[0].sequence > heads(place)[1].sequence
    await second.store.close()


async def test_a_purged_document_is_in_no_new_head(bot: Bot, place: Path) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.data.save_json("b.json", {"secret": 2})
    await bot.mirrored()
    await bot.data.delete("b.json", purge=True)
    await bot.mirrored()
    newest = heads(place)[0]
    assert (newest.before, newest.documents, len(newest.objects)) == ("", 1, 1)


async def test_a_loss_of_half_the_documents_is_in_doubt_until_it_is_accepted(
    bot: Bot, place: Path
) -> None:
    await bot.lose_most()
    with pytest.raises(ExportFailed, match=r"1 of 4 documents.*destinations accept bucket"):
        await bot.mirrored()
    with pytest.raises(ExportFailed, match=r"1 of 4 documents"):
        await bot.mirrored()
    assert [bool(head.doubt) for head in heads(place)] == [True, False]
    bot.clock.advance(400 * 24 * HOUR_S)
    with pytest.raises(ExportFailed, match="no such copy is removed"):
        await bot.mirrored()
    await bot.operations.mirrors.accept("bucket")
    assert not heads(place)[0].doubt
    assert await bot.mirrored() == ""


async def test_another_volume_in_the_same_place_displaces_nothing(
    bot: Bot, place: Path, tmp_path: Path
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    other = Bot(tmp_path / "other", Counted(place))
    await other.data.save_json("b.json", {"n": 2})
    with pytest.raises(ExportFailed, match="the copy of another volume"):
        await other.mirrored()
    claim = json.loads((place / mirror.CLAIM).read_text())
    assert claim["volume"] == await bot.operations.exports.volume_id()
    await other.operations.mirrors.accept("bucket")
    claim = json.loads((place / mirror.CLAIM).read_text())
    assert claim["volume"] == await other.operations.exports.volume_id()
    await other.store.close()


async def test_a_twin_is_noticed_within_minutes_by_one_request_of_an_idle_process(
    bot: Bot, place: Path, tmp_path: Path
) -> None:
    for number in range(4):
        await bot.data.save_json(f"{number}.json", {"n": number})
    await bot.mirrored()
    twin = Bot(tmp_path / "twin", Counted(place))
    volume = await bot.operations.exports.volume_id()
    await twin.store.volume_file.update(lambda _: VolumeFile(id=volume, life="twin"))
    for number in range(4):
        await twin.data.save_json(f"{number}.json", {"n": f"twin {number}"})
    await twin.mirrored()
    await twin.data.save_json("9.json", {"n": 9})
    bucket = bot.bucket
    assert isinstance(bucket, Counted)
    bucket.puts.clear()
    bucket.others.clear()
    assert await bot.mirrored() == ""
    assert bucket.others == [], "a run with nothing to do asks for nothing"
    bot.clock.advance(5 * 60)
    with pytest.raises(ExportFailed, match=r"mirrors this volume: .*/twin/data on"):
        await bot.mirrored()
    assert bucket.others[0] == mirror.CLAIM
    twin.clock.advance(5 * 60)
    with pytest.raises(ExportFailed, match=r"mirrors this volume: .*/data on"):
        await twin.mirrored()
    assert len(heads(place)) == 4, "each has copied what it had, and nothing is removed"

    await bot.operations.mirrors.accept("bucket")
    twin.clock.advance(5 * 60)
    with pytest.raises(ExportFailed, match="mirrors this volume"):
        await twin.mirrored()
    bot.clock.advance(5 * 60)
    with pytest.raises(ExportFailed, match="mirrors this volume"):
        await bot.mirrored()
    await twin.operations.mirrors.close()
    await twin.store.close()
    await bot.operations.mirrors.accept("bucket")
    for _ in range(3):
        bot.clock.advance(5 * 60)
        await bot.mirrored()


async def test_a_clone_of_the_disk_that_mirrors_too_is_noticed_by_both(
    bot: Bot, place: Path, tmp_path: Path
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    shutil.copytree(tmp_path / "data", tmp_path / "clone" / "data")
    clone = Bot(tmp_path / "clone", Counted(place))
    await clone.data.save_json("a.json", {"n": "clone"})
    await clone.mirrored()
    bot.clock.advance(5 * 60)

    with pytest.raises(ExportFailed, match=r"mirrors this volume: .*/clone/data on"):
        await bot.mirrored()
    clone.clock.advance(5 * 60)
    with pytest.raises(ExportFailed, match=r"mirrors this volume: .*/data on"):
        await clone.mirrored()

    await clone.operations.mirrors.close()
    await clone.store.close()
    await bot.operations.mirrors.accept("bucket")
    for _ in range(3):
        bot.clock.advance(5 * 60)
        await bot.mirrored()


async def test_a_volume_that_was_moved_to_another_place_is_no_rival(
    bot: Bot, place: Path, tmp_path: Path
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    await bot.operations.mirrors.close()
    await bot.store.close()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").rename(tmp_path / "elsewhere" / "data")
    moved = Bot(tmp_path / "elsewhere", Counted(place))
    for turn in range(4):
        await moved.data.save_json("a.json", {"n": turn})
        moved.clock.advance(5 * 60)
        assert "1 document" in await moved.mirrored()
    await moved.store.close()


@pytest.mark.prove
async def test_a_sweep_keeps_what_the_policy_names_and_removes_unnamed_contents(
    bot: Bot, place: Path
) -> None:
    for number in range(60):
        await bot.data.save_json("a.json", {"n": number})
        await bot.mirrored()
        bot.clock.advance(15 * HOUR_S)
    await bot.mirrored()
    kept = heads(place)
    assert len(kept) < 32
    named = {entry.key for head in kept for entry in head.objects}
    assert {name.split(".")[0] for name in objects(place)} >= named
    assert len(objects(place)) < 60
    manifests = {path.name.split(".")[0] for path in (folder(place) / "manifests").iterdir()}
    assert manifests == {head.name for head in kept}


async def test_nothing_is_removed_after_a_failed_listing(bot: Bot, place: Path) -> None:
    for number in range(3):
        await bot.data.save_json("a.json", {"n": number})
        await bot.mirrored()
    before = objects(place)

    async def fails(_folder: str) -> None:
        raise ExportFailed("the listing failed")

    bot.clock.advance(400 * 24 * HOUR_S)
    bot.bucket.list = fails  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="listing failed"):
        await bot.mirrored()
    assert (objects(place), len(heads(place))) == (before, 3)


async def test_credentials_that_only_write_are_enough(tmp_path: Path, place: Path) -> None:
    class WriteOnly(Folder):
        async def get(self, key: str, *, bytes_max: int = 0) -> bytes:
            raise ObjectForbidden("the credentials do not allow it")

        async def list(self, folder: str):  # type: ignore[no-untyped-def]
            raise ObjectForbidden("the credentials do not allow it")

    place.mkdir()
    bot = Bot(tmp_path, WriteOnly("bucket", str(place)))
    await bot.data.save_json("a.json", {"n": 1})
    assert "1 document" in await bot.mirrored()
    await bot.data.save_json("a.json", {"n": 2})
    assert "1 document" in await bot.mirrored()
    assert len(heads(place)) == 2
    await bot.store.close()


@pytest.mark.parametrize("file", ["objects", "manifests", "heads"])
async def test_a_run_that_fails_leaves_the_last_head_and_the_next_one_completes_it(
    bot: Bot, place: Path, file: str
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    bucket, real = bot.bucket, bot.bucket.put

    async def fails(key: str, data: bytes, *, replace: bool = True) -> None:
        if f"/{file}/" in key:
            raise ExportFailed("the server died")
        await real(key, data, replace=replace)

    await bot.data.save_json("a.json", {"n": 2})
    bucket.put = fails  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="the server died"):
        await bot.mirrored()
    assert len(heads(place)) == 1
    bucket.put = real  # type: ignore[method-assign]
    assert "1 document" in await bot.mirrored()
    assert len(heads(place)) == 2
    [shown] = [head for head in heads(place) if head.before]
    assert shown.objects


async def test_a_copy_has_every_document_backup_and_pin_of_its_instant(
    bot: Bot, place: Path
) -> None:
    for number in range(3):
        await bot.data.save_json("a.json", {"n": number})
        bot.clock.advance(2)
    await bot.data.save_json("gone.json", {"kept": True})
    await bot.data.delete("gone.json")
    await bot.mirrored()
    await bot.data.save_json("b.json", {"n": "later"})
    await bot.data.pin("a.json", (await bot.data.backups("a.json"))[0].name)
    await bot.mirrored()
    copies = Copies(bot.bucket, UNSEALED)
    later, first = await copies.listed()
    assert (first.documents, later.documents, later.kind) == (1, 2, "mirror")
    for info, names in (
        (first, ["a.json", "gone.json"]),
        (later, ["a.json", "b.json", "gone.json"]),
    ):
        copy = await copies.find(at=info.taken_at)
        assert [document.name for document in copy.documents] == names
        document = copy.documents[0]
        assert json.loads(await copy.fetch(document.sha256)) == {"n": 2}
        assert [json.loads(await copy.fetch(b.sha256)) for b in document.backups] == [
            {"n": 1}, {"n": 0},
        ]  # fmt: skip
        assert copy.documents[-1].sha256 == ""
    assert [pin.document for pin in (await copies.find()).pins] == ["a.json"]


@pytest.mark.parametrize("file", ["objects", "manifests", "heads"])
async def test_a_copy_that_was_altered_is_not_taken(bot: Bot, place: Path, file: str) -> None:
    for number in range(2):
        await bot.data.save_json("a.json", {"n": number})
        await bot.mirrored()
        bot.clock.advance(2)
    newest = heads(place)[0]
    key = newest.objects[0].key if file == "objects" else newest.name
    [path] = (folder(place) / file).glob(f"{key}*")
    flip(path)
    copy = await Copies(bot.bucket, UNSEALED).find()
    if file == "objects":
        with pytest.raises(ExportDamaged, match=r"another content|cannot be unpacked"):
            await copy.fetch(copy.documents[0].sha256)
    else:
        assert copy.sequence == newest.sequence - 1


async def test_a_loss_is_in_doubt_also_if_every_head_before_it_is_gone(
    bot: Bot, place: Path
) -> None:
    """What the volume itself recorded of the sizes is compared."""
    for number in range(10):
        await bot.data.save_json(f"{number}.json", {"n": number})
    await bot.mirrored()
    for head in (folder(place) / "heads").iterdir():
        head.unlink()
    for number in range(8):
        await bot.data.delete(f"{number}.json")
    target = Target(bot.bucket, 3, same_disk=True, mode="mirror")
    later = Operations(bot.store, [target], version="test")  # as in a new process
    with pytest.raises(ExportFailed, match="it has 2 of 10 documents"):
        await later.mirrors.run()
    await later.mirrors.close()


async def test_a_loss_that_is_spread_over_several_copies_is_in_doubt(bot: Bot, place: Path) -> None:
    for number in range(40):
        await bot.data.save_json(f"{number}.json", {"n": number})
    await bot.mirrored()
    for part in (range(15), range(15, 20)):
        for number in part:
            await bot.data.delete(f"{number}.json")
        bot.clock.advance(11 * HOUR_S)
        await bot.mirrored()
    await bot.data.delete("20.json")
    with pytest.raises(ExportFailed, match="19 of 40 documents"):
        await bot.mirrored()
    await bot.operations.mirrors.accept("bucket")
    for number in range(21, 26):
        await bot.data.delete(f"{number}.json")
    await bot.mirrored()
    assert [bool(head.doubt) for head in heads(place)][:2] == [False, False]


@pytest.mark.prove
async def test_a_loss_over_many_days_is_a_change(bot: Bot, place: Path) -> None:
    for number in range(20):
        await bot.data.save_json(f"{number}.json", {"n": number})
    for number in range(19):
        await bot.mirrored()
        await bot.data.delete(f"{number}.json")
        bot.clock.advance(25 * HOUR_S)
    newest, *_ = heads(place)
    assert (newest.documents, newest.doubt) == (2, "")


async def test_the_next_process_notices_a_loss_also_where_it_can_only_write(
    tmp_path: Path, place: Path
) -> None:
    class WriteOnly(Folder):
        async def get(self, key: str, *, bytes_max: int = 0) -> bytes:
            raise ObjectForbidden("the credentials do not allow it")

        async def list(self, folder: str):  # type: ignore[no-untyped-def]
            raise ObjectForbidden("the credentials do not allow it")

    place.mkdir()
    for lost in (0, 15):
        bot = Bot(tmp_path, WriteOnly("bucket", str(place)))
        for number in range(20 if not lost else 0):
            await bot.data.save_json(f"{number}.json", {"n": number})
        for number in range(lost):
            await bot.data.delete(f"{number}.json")
        if lost:
            with pytest.raises(ExportFailed, match="5 of 20 documents"):
                await bot.mirrored()
        else:
            await bot.mirrored()
        await bot.operations.mirrors.close()
        await bot.store.close()
    copy = await Copies(Folder("bucket", str(place)), UNSEALED).find()
    assert len(copy.documents) == 20


@pytest.mark.prove
async def test_a_service_that_stays_in_doubt_keeps_the_newest_doubted_and_every_sound_head(
    bot: Bot, place: Path
) -> None:
    for number in range(10):
        await bot.data.save_json(f"{number}.json", {"n": number})
        await bot.mirrored()
    for number in range(8):
        await bot.data.delete(f"{number}.json")
    stored = objects(place)
    for number in range(100):
        await bot.data.save_json("9.json", {"later": number})
        bot.clock.advance(600)
        with pytest.raises(ExportFailed, match="in doubt"):
            await bot.mirrored()
    doubts = [bool(head.doubt) for head in heads(place)]
    assert doubts.count(False) == 10
    assert doubts.count(True) <= mirror.CHAIN_HEADS_MAX + 10
    assert objects(place) > stored, "no content is removed"

    counted = Counted(place)
    at = MirrorStore(counted, UNSEALED, heads(place)[0].volume)
    names = await at.heads()
    counted.others.clear()
    chain = await at.newest_chain(names, accepted=True)
    assert (chain[-1].documents, chain[-1].doubt) == (10, "")
    assert len(counted.others) == len(set(counted.others)), "each head is read once"
