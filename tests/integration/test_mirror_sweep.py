"""Test what a sweep of the mirror costs, keeps, and does about a head that cannot be read."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from seline.clock import instant_text
from seline.domain import mirror
from seline.domain.mirror import Head, StoredObject
from seline.domain.retention import RetentionPolicy
from seline.errors import ExportDamaged, ExportFailed
from seline.operations.copies import Copies
from seline.operations.mirror_store import MirrorStore
from seline.operations.mirror_sweep import kept_heads
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Listed
from seline.ports.sealing import UNSEALED
from tests.mirrored_bot import HOUR_S, Bot, Counted, flip, folder, heads, objects


async def again(bot: Bot, number: int, after_s: float) -> str:
    """Save after so long, and mirror."""
    bot.clock.advance(after_s)
    await bot.data.save_json("a.json", {"n": number})
    return await bot.mirrored()


def reads(bot: Bot) -> list[str]:
    bucket = bot.bucket
    assert isinstance(bucket, Counted)
    return bucket.others


async def test_a_sweep_reads_a_head_once(bot: Bot, place: Path) -> None:
    for number in range(20):
        await again(bot, number, 60)
    reads(bot).clear()
    await again(bot, 20, HOUR_S)
    first = {key for key in reads(bot) if "/heads/" in key}
    assert len(first) >= 19
    reads(bot).clear()
    await again(bot, 21, HOUR_S)
    second = [key for key in reads(bot) if "/heads/" in key]
    assert len(second) <= 2
    assert not first & set(second)


@pytest.mark.prove
async def test_frequent_changes_keep_few_heads_each_hour(
    bot: Bot, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the whole chain of each hour's last head."""
    monkeypatch.setattr(mirror, "CHAIN_HEADS_MAX", 8)
    for number in range(240):
        await again(bot, number, 360)
    kept = heads(place)
    assert len(kept) < 24 + 3 * 8 + 10, "an hour has ten heads"
    hours = {head.taken_at[:13] for head in kept}
    assert len(hours) >= 23
    for head in kept:
        copy = await Copies(bot.bucket, UNSEALED).find(at=mirror.parse_instant(head.taken_at))
        assert await copy.fetch(copy.documents[0].sha256)


async def test_a_sweep_that_ends_early_leaves_no_head_without_those_it_changes(
    bot: Bot, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "CHAIN_HEADS_MAX", 4)
    for number in range(16):
        await again(bot, number, 20)
    real, left = bot.bucket.remove, 0

    async def dies(key: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ExportFailed("the server died")
        await real(key)

    bot.bucket.remove = dies  # type: ignore[method-assign]
    for allowed in range(1, 8):
        left = allowed
        bot.clock.advance(3 * HOUR_S)
        with suppress(ExportFailed):
            await bot.mirrored()
        there = {head.name for head in heads(place)}
        assert [head.name for head in heads(place) if head.before not in {"", *there}] == []
    assert len(heads(place)) < 16


@pytest.mark.prove
async def test_many_objects_have_a_file_beside_the_head(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "INLINE_OBJECTS_MAX", 10)
    first = Bot(tmp_path, Counted(place))
    for number in range(20):
        await first.data.save_json(f"{number}.json", {"n": number})
    await first.mirrored()
    [head] = heads(place)
    assert (head.objects, head.documents) == ((), 20)
    assert head.listed is not None
    await first.operations.mirrors.close()
    await first.store.close()

    bucket = Counted(place)
    second = Bot(tmp_path, bucket)
    await second.mirrored()
    assert not [key for key, _ in bucket.puts if "/objects/" in key], "they are there already"
    assert "20 contents" in await second.operations.drill()
    copies = Copies(Folder("bucket", str(place)), UNSEALED)
    copy = await copies.find()
    assert len([await copy.fetch(document.sha256) for document in copy.documents]) == 20
    for number in range(3):
        await second.data.save_json("0.json", {"later": number})
        second.clock.advance(400 * 24 * HOUR_S)
        await second.mirrored()
    assert len(objects(place)) >= 20, "what a listed file names is not removed"
    manifests = {path.name.split(".")[0] for path in (folder(place) / "manifests").iterdir()}
    assert manifests == {head.name for head in heads(place)}

    for path in (folder(place) / "manifests").glob("*.objects.*"):
        flip(path)
    with pytest.raises(ExportDamaged, match="other bytes"):
        await copies.find()
    await second.operations.mirrors.close()
    await second.store.close()


async def test_a_listing_reads_no_file_of_objects(
    bot: Bot, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "INLINE_OBJECTS_MAX", 0)
    for number in range(3):
        await again(bot, number, 2)
    reads(bot).clear()
    assert len(await Copies(bot.bucket, UNSEALED).listed()) == 3
    assert not [key for key in reads(bot) if "/manifests/" in key]


@pytest.mark.parametrize("is_proven", [True, False])
async def test_a_head_that_cannot_be_read_is_named_and_goes_once_a_newer_copy_is_proven(
    tmp_path: Path, place: Path, is_proven: bool
) -> None:
    bot = Bot(tmp_path, Counted(place))
    await again(bot, 0, 1)
    await bot.operations.mirrors.close()
    await bot.store.close()
    [rotten] = (folder(place) / "heads").iterdir()
    rotten.write_bytes(b"rot")

    bot = Bot(tmp_path, Counted(place))
    with pytest.raises(ExportFailed, match=rf"1 head that cannot be read, {rotten.stem}"):
        await again(bot, 1, 1)
    with pytest.raises(ExportFailed, match="cannot be read"):
        await again(bot, 2, 60)
    detail = bot.operations.exports.destinations.record("bucket").mirror_failure
    assert rotten.stem in detail
    before = objects(place)
    if is_proven:
        await bot.operations.drill()
        await again(bot, 3, HOUR_S)
    else:
        with pytest.raises(ExportFailed, match="cannot be read"):
            await again(bot, 3, HOUR_S)
        assert rotten.exists()
        assert objects(place) > before, "it may name any object"
        await again(bot, 4, 9 * 24 * HOUR_S)
    assert not rotten.exists()
    at = MirrorStore(bot.bucket, UNSEALED, heads(place)[0].volume)
    assert await at.newest_chain(await at.heads())
    await bot.operations.mirrors.close()
    await bot.store.close()


@pytest.mark.follows("operations/mirror_sweep:_check_absent")
async def test_a_listing_that_lacks_older_heads_removes_nothing(
    bot: Bot, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        await bot.data.save_json("a.json", {"n": number})
        bot.clock.advance(24 * HOUR_S)
        await bot.mirrored()
    before = {path for path in folder(place).rglob("*") if path.is_file()}
    real = Folder.list

    async def short(self: Folder, name: str) -> Sequence[Listed]:
        found = sorted(await real(self, name))
        return found[-1:] if name.endswith("/heads") else found

    with monkeypatch.context() as broken:
        broken.setattr(Folder, "list", short)
        for _ in range(3):
            bot.clock.advance(HOUR_S)
            with pytest.raises(ExportFailed, match="does not list it"):
                await bot.mirrored()

    assert {path for path in folder(place).rglob("*") if path.is_file()} == before
    bot.clock.advance(HOUR_S)
    await bot.mirrored()


START = datetime(2025, 1, 6, 14, 30, tzinfo=UTC)
EVERY_RULE = RetentionPolicy(keep_newest=3, keep_hourly=4, keep_daily=3)


def base(sequence: int, taken_at: datetime) -> Head:
    """Return a head that changes no other one."""
    return Head(
        volume="1a2b3c4d",
        sequence=sequence,
        taken_at=instant_text(taken_at),
        seline_version="test",
        encrypted=False,
        documents=1,
        size_bytes=1,
        manifest=StoredObject(key="", size_bytes=0, sha256=""),
        objects=(),
    )


def kept_numbers(instants: Sequence[datetime], doubted: Collection[int] = ()) -> list[int]:
    """Return the numbers of the kept ones of so many heads, made in this order."""
    made = [
        replace(base(number, at), doubt="it lost most" if number in doubted else "")
        for number, at in enumerate(instants, start=1)
    ]
    kept = kept_heads({head.name: head for head in made}, (), EVERY_RULE)
    return [head.sequence for head in made if head.name in kept]


def hourly(since: datetime, count: int) -> list[datetime]:
    return [since + timedelta(hours=number) for number in range(count)]


def test_heads_of_a_clock_that_was_ahead_displace_no_later_head() -> None:
    """The last one, the three and the four hours before it, and of three days the last one."""
    ahead = hourly(START + timedelta(days=365), 100)

    assert kept_numbers([*ahead, *hourly(START, 5)]) == [82, *range(100, 106)]


def test_heads_of_a_clock_that_was_behind_displace_few_earlier_heads() -> None:
    """A head of 1970 takes the place of one hour, and of one day until later days follow."""
    start = datetime(1970, 1, 1, tzinfo=UTC)

    assert kept_numbers([*hourly(START, 60), start]) == [34, *range(57, 62)]
    later = hourly(START + timedelta(hours=60), 40)
    assert kept_numbers([*hourly(START, 60), start, *later]) == [61, 83, *range(97, 102)]


def test_a_head_in_doubt_takes_the_place_of_no_sound_one_of_its_day() -> None:
    """At 10 h sound, until 23 h in doubt, and sound again on the next day."""
    day = [START.replace(hour=hour) for hour in (10, *range(11, 24))]
    next_day = [START + timedelta(days=1)]

    kept = kept_numbers([*day, *next_day], doubted=range(2, 15))

    assert kept == [1, 15]
