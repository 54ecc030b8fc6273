"""Test the mirror against what may go wrong beside it: purges, losses, jumps, two runs at once."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from seline.domain import mirror
from seline.errors import ExportFailed
from seline.operations.copies import Copies
from seline.outbound.destinations.folder import Folder
from seline.outbound.sealing import AgeSealer
from seline.ports.destinations import Listed, ObjectForbidden, Target
from seline.ports.sealing import UNSEALED
from tests.mirrored_bot import HOUR_S, Bot, Counted, folder, heads


async def restored(place: Path) -> dict[str, object]:
    """Return what a restore brings, each content compared."""
    copy = await Copies(Folder("bucket", str(place)), UNSEALED).find()
    return {
        document.name: json.loads(await copy.fetch(document.sha256))
        for document in copy.documents
        if document.sha256
    }


def named(place: Path) -> set[str]:
    """Return the keys that the newest head and those before it name."""
    chain = {head.name: head for head in heads(place)}
    head, found = heads(place)[0], set[str]()
    while True:
        found |= {entry.key for entry in head.objects}
        if not head.before:
            return found
        head = chain[head.before]


# purges


async def test_a_purge_of_a_deleted_document_reaches_the_next_head(bot: Bot, place: Path) -> None:
    """Its content is in its backups only."""
    await bot.data.save_json("a.json", {"n": 1})
    await bot.data.save_json("b.json", {"secret": 2})
    await bot.mirrored()
    await bot.data.delete("b.json")
    await bot.mirrored()
    assert len(named(place)) == 2
    await bot.data.delete("b.json", purge=True)
    await bot.mirrored()
    assert len(named(place)) == 1


async def test_a_purge_reaches_the_next_head_although_the_name_is_in_use_again(
    bot: Bot, place: Path
) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.data.save_json("b.json", {"secret": 2})
    await bot.mirrored()
    await bot.data.delete("b.json", purge=True)
    await bot.data.save_json("b.json", {"new": 3})
    await bot.mirrored()
    assert len(named(place)) == 2
    assert await restored(place) == {"a.json": {"n": 1}, "b.json": {"new": 3}}


async def test_a_purge_keeps_the_content_that_another_document_has(bot: Bot, place: Path) -> None:
    for name in ("a.json", "b.json"):
        await bot.data.save_json(name, {"same": 1})
    await bot.mirrored()
    await bot.data.delete("b.json", purge=True)
    await bot.mirrored()
    assert len(named(place)) == 1
    assert await restored(place) == {"a.json": {"same": 1}}


async def test_a_purge_during_a_run_reaches_the_next_head(bot: Bot, place: Path) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.data.save_json("b.json", {"secret": 2})
    real = bot.bucket.put

    async def purging(key: str, data: bytes, *, replace: bool = True) -> None:
        if "/manifests/" in key:
            bot.bucket.put = real  # type: ignore[method-assign]
            await bot.data.delete("b.json", purge=True)
        await real(key, data, replace=replace)

    bot.bucket.put = purging  # type: ignore[method-assign]
    await bot.mirrored()
    await bot.mirrored()
    assert (len(named(place)), heads(place)[0].documents) == (1, 1)


async def test_a_purge_before_the_first_run_of_a_process_is_in_no_new_head(
    tmp_path: Path, place: Path
) -> None:
    first = Bot(tmp_path, Counted(place))
    for name in ("a.json", "b.json"):
        await first.data.save_json(name, {"of": name})
    await first.mirrored()
    await first.operations.mirrors.close()
    await first.store.close()
    second = Bot(tmp_path, Counted(place))
    await second.data.delete("b.json", purge=True)
    await second.mirrored()
    assert len(named(place)) == 1
    await second.store.close()


# what is never mirrored, or said wrongly


@pytest.mark.prove
async def test_what_a_copy_lacks_is_said_until_it_has_it(tmp_path: Path, place: Path) -> None:
    first = Bot(tmp_path, Counted(place))
    await first.data.save_json("a.json", {"n": 1})
    await first.store.close()
    (tmp_path / "data" / "a.json").write_text("{broken")
    bot = Bot(tmp_path, Counted(place))
    record = bot.operations.exports.destinations.record
    for number in range(2):
        await bot.data.save_json("b.json", {"n": number})
        await bot.mirrored()
        assert record("bucket").mirror_lacking == ("a.json",)
    await bot.data.reset("a.json")
    await bot.data.save_json("a.json", {"n": 2})
    await bot.mirrored()
    assert record("bucket").mirror_lacking == ()
    await bot.operations.mirrors.close()
    await bot.store.close()


async def test_a_failure_is_over_once_a_run_that_stores_nothing_succeeds(bot: Bot) -> None:
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    real = bot.bucket.list

    async def fails(_folder: str) -> None:
        raise ExportFailed("the listing failed")

    bot.bucket.list = fails  # type: ignore[method-assign]
    bot.clock.advance(HOUR_S)
    with pytest.raises(ExportFailed, match="listing failed"):
        await bot.mirrored()
    bot.bucket.list = real  # type: ignore[method-assign]
    await bot.mirrored()
    assert bot.operations.exports.destinations.record("bucket").mirror_failure == ""


@pytest.mark.parametrize("hangs_at", ["/heads", "/objects"])
async def test_a_run_that_is_stopped_leaves_the_choice_that_a_doubt_waits_for(
    bot: Bot, hangs_at: str
) -> None:
    """It is stopped after it has stored a head in doubt, or while it stores the next one."""
    await bot.lose_most()
    real_put, real_list, reached = bot.bucket.put, bot.bucket.list, asyncio.Event()

    async def hang(path: str) -> None:
        if path.endswith(hangs_at):
            reached.set()
            await asyncio.Event().wait()

    async def listing(path: str) -> Sequence[Listed]:
        await hang(path)
        return await real_list(path)

    async def put(key: str, data: bytes, *, replace: bool = True) -> None:
        await hang(key.rpartition("/")[0])
        await real_put(key, data, replace=replace)

    if hangs_at == "/heads":
        bot.clock.advance(HOUR_S)
        bot.bucket.list = listing  # type: ignore[method-assign]
    else:
        with pytest.raises(ExportFailed, match="in doubt"):
            await bot.mirrored()
        await bot.data.save_json("4.json", {"n": 4})
        bot.bucket.put = put  # type: ignore[method-assign]
    run = asyncio.create_task(bot.mirrored())
    await reached.wait()
    await bot.operations.mirrors.close()
    await asyncio.gather(run, return_exceptions=True)

    record = bot.operations.exports.destinations.record("bucket")
    assert "destinations accept bucket" in record.mirror_cure
    assert "in doubt" in record.mirror_failure


async def test_backups_that_a_restore_adds_are_copied(
    bot: Bot, tmp_path: Path, place: Path
) -> None:
    """The document itself does not change."""
    for number in range(3):
        await bot.data.save_json("a.json", {"n": number})
        bot.clock.advance(2)
    await bot.mirrored()
    copy = await Copies(Folder("bucket", str(place)), UNSEALED).find()
    other_place = tmp_path / "other-bucket"
    other = Bot(tmp_path / "other", Counted(other_place))
    await other.data.save_json("a.json", {"n": 2})
    await other.mirrored()
    report = await other.operations.restore(copy)
    assert report.backups == 2
    await other.mirrored()
    assert len(named(other_place)) == 3
    await other.operations.mirrors.close()
    await other.store.close()


# losses at the destination


@pytest.mark.prove
async def test_a_content_that_a_failed_sweep_removed_is_stored_again(bot: Bot, place: Path) -> None:
    for number in range(6):
        await bot.data.save_json(f"{number}.json", {"n": number})
    await bot.data.save_json("rest.json", {"text": "x" * 99_000})
    await bot.mirrored()
    for number in range(6):
        await bot.data.delete(f"{number}.json", purge=True)
        await bot.data.save_json(f"{number}.json", {"later": number})
    real, removed = bot.bucket.remove, list[str]()

    async def fails(key: str) -> None:
        if "/objects/" in key:
            if removed:
                raise ExportFailed("the server died")
            removed.append(key)
        await real(key)

    bot.bucket.remove = fails  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="the server died"):
        for number in range(99):
            bot.clock.advance(30 * HOUR_S)
            await bot.data.save_json("rest.json", {"text": "x" * 99_000, "n": number})
            await bot.mirrored()
    bot.bucket.remove = real  # type: ignore[method-assign]
    for number in range(6):
        await bot.data.save_json(f"{number}.json", {"n": number})
    await bot.mirrored()
    assert len(await restored(place)) == 7


async def test_an_object_that_vanished_is_stored_again(bot: Bot, place: Path) -> None:
    for number in range(3):
        await bot.data.save_json(f"{number}.json", {"n": number})
    await bot.mirrored()
    for path in (folder(place) / "objects").iterdir():
        path.unlink()
    bot.clock.advance(HOUR_S)
    with pytest.raises(ExportFailed, match=r"has lost 3 objects.*Look for what removes"):
        await bot.mirrored()
    await bot.mirrored()
    assert len(await restored(place)) == 3


async def test_a_chain_that_a_roll_back_cut_ends_with_a_base(bot: Bot, place: Path) -> None:
    for number in range(3):
        await bot.data.save_json("a.json", {"n": number})
        await bot.mirrored()
    for file in (folder(place) / "heads").iterdir():
        file.unlink()
    bot.clock.advance(HOUR_S)
    with pytest.raises(ExportFailed, match="has lost 3 objects"):
        await bot.mirrored()
    await bot.data.save_json("a.json", {"later": 1})
    await bot.mirrored()
    assert await restored(place) == {"a.json": {"later": 1}}


# clock, sequence


async def test_a_head_after_a_clock_that_was_ahead_is_the_newest(bot: Bot, place: Path) -> None:
    bot.clock.advance(24 * HOUR_S * 365)
    await bot.data.save_json("a.json", {"n": "ahead"})
    await bot.mirrored()
    bot.clock.advance(-24 * HOUR_S * 365)
    await bot.data.save_json("a.json", {"n": "now"})
    await bot.mirrored()
    assert await restored(place) == {"a.json": {"n": "now"}}


async def test_a_head_whose_answer_was_lost_is_older_than_the_next(bot: Bot, place: Path) -> None:
    """Also if the clock is set back: two heads with one number would be in the order of time."""
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    real = bot.bucket.put

    async def answer_lost(key: str, data: bytes, *, replace: bool = True) -> None:
        await real(key, data, replace=replace)
        if "/heads/" in key:
            raise ExportFailed("no answer")

    await bot.data.save_json("a.json", {"n": 2})
    bot.bucket.put = answer_lost  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="no answer"):
        await bot.mirrored()
    bot.bucket.put = real  # type: ignore[method-assign]
    await bot.data.save_json("a.json", {"n": 3})
    bot.clock.set_back(60)
    await bot.mirrored()
    assert await restored(place) == {"a.json": {"n": 3}}


async def test_a_lost_record_does_not_begin_the_sequence_again(tmp_path: Path, place: Path) -> None:
    first = Bot(tmp_path, Counted(place))
    for number in range(3):
        await first.data.save_json("a.json", {"n": number})
        await first.mirrored()
    await first.operations.mirrors.close()
    await first.store.close()
    [record] = Path(tmp_path / "data").rglob("exports.json")
    record.unlink()
    second = Bot(tmp_path, Counted(place))
    second.clock.advance(60)
    await second.data.save_json("a.json", {"n": "last"})
    await second.mirrored()
    assert max(heads(place), key=lambda head: head.sequence).sequence == 4
    await second.store.close()


# keys


@pytest.mark.prove
async def test_each_passphrase_has_a_key_file(tmp_path: Path, place: Path) -> None:
    """Copies from before and after a change can be read with the program age alone."""
    for passphrase in ("correct horse", "battery staple", "battery staple"):
        bot = Bot(tmp_path, Counted(place), sealer=AgeSealer(passphrase=passphrase))
        await bot.data.save_json("a.json", {"n": 1})
        await bot.mirrored()
        await bot.operations.mirrors.close()
        await bot.store.close()
    assert len(list((place / mirror.ROOT).glob("seline-key-*.age"))) == 2


# two at once


@pytest.mark.prove
async def test_a_folder_that_is_looked_for_in_each_run_gets_the_key_file_once(
    tmp_path: Path, place: Path
) -> None:
    """What makes it takes 0.2 s of processor."""
    made = 0

    class Counting(AgeSealer):
        def key_file(self) -> bytes:
            nonlocal made
            made += 1
            return super().key_file()

    bucket = Counted(place)
    target = Target(bucket, 3, same_disk=True, mode="mirror", may_be_unmounted=True)
    bot = Bot(tmp_path, bucket, target=target, sealer=Counting(passphrase="sixteen characters"))
    for number in range(3):
        await bot.data.save_json("a.json", {"n": number})
        await bot.mirrored()
    assert made == 1
    bot.clock.advance(HOUR_S)
    await bot.mirrored()
    assert made == 2, "with each sweep, because it may be gone"
    await bot.store.close()


async def test_accepting_waits_for_no_other_run(bot: Bot, place: Path) -> None:
    """A run of the job begins while an accepted copy is being written."""
    await bot.lose_most()
    with pytest.raises(ExportFailed, match="in doubt"):
        await bot.mirrored()
    real, job = bot.bucket.put, list[asyncio.Task[str]]()

    async def slow(key: str, data: bytes, *, replace: bool = True) -> None:
        if "/manifests/" in key and not job:
            job.append(asyncio.create_task(bot.mirrored()))
            await asyncio.sleep(0.2)
        await real(key, data, replace=replace)

    bot.bucket.put = slow  # type: ignore[method-assign]
    await bot.operations.mirrors.accept("bucket")
    await job[0]
    newest = max(heads(place), key=lambda head: head.sequence)
    assert not newest.doubt
    sequences = [head.sequence for head in heads(place)]
    assert len(set(sequences)) == len(sequences)


# credentials that only write


async def test_credentials_that_only_write_store_the_key_file_and_the_claim(
    tmp_path: Path, place: Path
) -> None:
    class WriteOnly(Folder):
        async def get(self, key: str, *, bytes_max: int = 0) -> bytes:
            raise ObjectForbidden("the credentials do not allow it")

        async def list(self, folder: str):  # type: ignore[no-untyped-def]
            raise ObjectForbidden("the credentials do not allow it")

    place.mkdir()
    sealer = AgeSealer(passphrase="correct horse")
    bot = Bot(tmp_path, WriteOnly("bucket", str(place)), sealer=sealer)
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    files = {path.name for path in (place / mirror.ROOT).iterdir() if path.is_file()}
    assert len(files) == 2
    await bot.store.close()


def test_work_on_threads_goes_on_after_a_fork() -> None:
    code = """
import asyncio, os
from seline.operations.mirror_store import in_thread
async def work(): await asyncio.gather(*(in_thread(lambda: 1) for _ in range(3)))
asyncio.run(work())
if (child := os.fork()) == 0:
    asyncio.run(asyncio.wait_for(work(), 5))
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0


async def test_a_first_copy_that_fails_several_times_stores_each_content_once(
    bot: Bot, place: Path
) -> None:
    for number in range(20):
        await bot.data.save_json(f"{number}.json", {"n": number})
    bucket, put, get = bot.bucket, bot.bucket.put, bot.bucket.get
    assert isinstance(bucket, Counted)

    async def no_manifest(key: str, data: bytes, *, replace: bool = True) -> None:
        if "/manifests/" in key:
            raise ExportFailed("the server died")
        await put(key, data, replace=replace)

    async def no_answer(_key: str, *, bytes_max: int) -> bytes:
        raise ExportFailed("the connection was lost")

    bucket.put = no_manifest  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="died"):
        await bot.mirrored()
    bucket.get = no_answer  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="lost"):
        await bot.mirrored()
    bucket.put, bucket.get = put, get  # type: ignore[method-assign]
    await bot.mirrored()
    stored = [key for key, _ in bucket.puts if "/objects/" in key]
    assert len(stored) == len(set(stored)) == 20
    assert len(await restored(place)) == 20
