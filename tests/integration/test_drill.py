"""Test the drill in the service: what it reads back, what it finds, and what it leaves."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from seline import operations
from seline.domain import mirror
from seline.domain.mirror import Proof
from seline.errors import ExportFailed
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.mirror_store import MirrorStore
from seline.operations.scratch import PREFIX, scratch_folder
from seline.outbound.destinations.folder import Folder
from seline.outbound.sealing import AgeSealer, new_key
from seline.ports.destinations import ObjectForbidden, Target
from seline.ports.sealing import UNSEALED, Sealer
from tests.faults.small_filesystem import small_filesystem
from tests.mirrored_bot import HOUR_S, Bot, Counted, flip, folder, heads, objects
from tests.stores import scratch_volume

DAY_S = 24 * HOUR_S


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
async def bot(tmp_path: Path, place: Path) -> AsyncIterator[Bot]:
    made = Bot(tmp_path, Counted(place))
    for number in range(3):
        await made.data.save_json("a.json", {"n": number})
        await made.data.save_json(f"{number}.json", {"of": number})
        await made.mirrored()
        made.clock.advance(2)
    yield made
    await made.operations.mirrors.close()
    await made.store.close()


def sealed(bot: Bot, sealer: Sealer) -> None:
    """Have the bot encrypt from now on."""
    target = Target(bot.bucket, 3, same_disk=True, mode="mirror")
    bot.operations = Operations(
        bot.store, [target], version="test", sealer=sealer, open_volume=scratch_volume
    )


async def check(bot: Bot) -> dict[str, Any]:
    health: dict[str, Any] = await bot.operations.health()
    [found] = [check for check in health["checks"] if check["name"] == "exports"]
    return found


def proofs(place: Path) -> list[Proof]:
    files = sorted((folder(place) / "proofs").iterdir())
    return [mirror.decode_as(Proof, path.read_bytes(), path.name) for path in files]


async def test_a_whole_copy_is_restored_with_every_content_compared(
    bot: Bot, place: Path, scratch: Path
) -> None:
    assert "not proven restorable yet" in (await check(bot))["detail"]
    bucket = bot.bucket
    assert isinstance(bucket, Counted)
    bucket.others.clear()

    assert "6 contents restored, and compared" in await bot.operations.drill()

    fetched = [key.rpartition("/")[2] for key in bucket.others if "/objects/" in key]
    assert sorted(fetched) == sorted(objects(place)), "each once"
    assert not any(scratch.iterdir())
    [proof] = proofs(place)
    assert (proof.head, proof.by, proof.decrypted) == (heads(place)[0].name, "service", True)
    found = await check(bot)
    assert (found["status"], "last proven restorable" in found["detail"]) == ("ok", True)
    newest, *_ = await Copies(bucket, UNSEALED).listed()
    assert (newest.name, newest.proven_by) == (proof.head, "service")


async def test_without_room_the_contents_are_compared_and_health_says_so(
    bot: Bot, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(operations.scratch, "MARGIN_BYTES", 1 << 60)
        why = f"compared without a restore: no room in {scratch}"
        assert why in await bot.operations.drill()
    found = await check(bot)
    assert (found["status"], why in found["detail"]) == ("ok", True)
    await bot.operations.drill()
    assert "without a restore" not in (await check(bot))["detail"]


async def test_a_content_that_no_document_has_any_more_is_compared_as_well(
    bot: Bot, place: Path
) -> None:
    for number in range(2):
        bot.clock.advance(2)
        await bot.data.save_json("b.json", {"only": number}, backup=False)
        await bot.mirrored()
    last = heads(place)[1].objects[0].key
    copy = await Copies(bot.bucket, UNSEALED).find()
    assert last not in mirror.contents_of_documents(copy.documents)
    [path] = (folder(place) / "objects").glob(f"{last}.json*")
    flip(path)
    with pytest.raises(ExportFailed, match="was made again"):
        await bot.operations.drill()


async def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(
    bot: Bot, scratch: Path
) -> None:
    (scratch / f"{PREFIX}left").mkdir()
    (scratch / f"{PREFIX}left" / "data").write_text("{}")
    (scratch / "of-another-program").mkdir()
    with scratch_folder() as used:
        await bot.operations.drill()
        left = {path.name for path in scratch.iterdir()}
        assert left == {"of-another-program", Path(used).name}
    assert [path.name for path in scratch.iterdir()] == ["of-another-program"]


async def test_nothing_is_restored_onto_the_volume_itself(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_filesystem(tmp_path / "data"):
        bot = Bot(tmp_path, Counted(place))
        await bot.data.save_json("a.json", {"n": 1})
        await bot.mirrored()
        folder = tmp_path / "data" / "tmp"
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        assert f"without a restore: {folder} is on the volume" in await bot.operations.drill()
        await bot.store.close()


async def test_a_drill_that_is_cancelled_leaves_nothing(bot: Bot, scratch: Path) -> None:
    real, hangs = bot.bucket.get, asyncio.Event()

    async def hanging(key: str, *, bytes_max: int) -> bytes:
        if "/objects/" in key:
            hangs.set()
            await asyncio.Event().wait()
        return await real(key, bytes_max=bytes_max)

    bot.bucket.get = hanging  # type: ignore[method-assign]
    drill = asyncio.create_task(bot.operations.drill())
    await asyncio.wait_for(hangs.wait(), 20)
    assert [path.name.startswith(PREFIX) for path in scratch.iterdir()] == [True]
    drill.cancel()
    await asyncio.wait([drill])
    assert drill.cancelled()
    assert not any(scratch.iterdir())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.one_in(3)
@pytest.mark.parametrize("is_encrypted", [pytest.param(False, marks=pytest.mark.prove), True])
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("objects", flip),
        ("objects", truncate),
        ("objects", Path.unlink),
        ("manifests", flip),
        ("manifests", Path.unlink),
        ("heads", truncate),
    ],
)
async def test_what_is_damaged_is_found_and_copied_again(
    bot: Bot, place: Path, kind: str, damage: Callable[[Path], object], is_encrypted: bool
) -> None:
    if is_encrypted:
        sealed(bot, AgeSealer(passphrase="correct horse battery"))
        await bot.mirrored()
    newest = heads(place)[0]
    key = newest.objects[0].key if kind == "objects" else newest.name
    [path] = (folder(place) / kind).glob(f"{key}.json*")
    damage(path)

    with pytest.raises(ExportFailed, match="was made again"):
        await bot.operations.drill()

    found = await check(bot)
    assert (found["status"], "the drill failed" in found["detail"]) == ("warning", True)
    assert "compared" in await bot.operations.drill()
    assert (await check(bot))["status"] == "ok"


@pytest.mark.parametrize("lost", ["the newest head", "every head", "everything"])
async def test_heads_that_are_lost_are_written_again(bot: Bot, place: Path, lost: str) -> None:
    if lost == "everything":
        shutil.rmtree(place / mirror.ROOT)
    else:
        for head in heads(place)[: 1 if lost == "the newest head" else None]:
            (folder(place) / "heads" / f"{head.name}.json").unlink()
    with pytest.raises(ExportFailed, match="lost the newest head"):
        await bot.operations.drill()
    assert "compared" in await bot.operations.drill()
    copy = await Copies(bot.bucket, UNSEALED).find()
    for document in copy.documents:
        for file in (document, *document.backups):
            assert await copy.fetch(file.sha256)


async def test_without_the_key_the_bytes_are_compared_and_a_person_must_prove_it(
    bot: Bot, place: Path
) -> None:
    sealed(bot, AgeSealer([new_key().recipient]))
    await bot.mirrored()

    assert "without a key" in await bot.operations.drill()

    found = await check(bot)
    assert (found["status"], "only a person can prove it" in found["detail"]) == ("warning", True)
    [proof] = proofs(place)
    assert not proof.decrypted
    assert (await Copies(bot.bucket, UNSEALED).listed())[0].proven_at is None
    flip(min((folder(place) / "objects").glob("*.age")))
    with pytest.raises(ExportFailed, match="other bytes"):
        await bot.operations.drill()


async def test_the_proof_of_a_person_is_learned_and_stays(bot: Bot, place: Path) -> None:
    sealed(bot, AgeSealer([new_key().recipient]))
    await bot.mirrored()
    volume = heads(place)[0]
    by_person = Proof(
        head=volume.name, at="2025-01-06T20:00:00Z", by="person at box", decrypted=True, objects=1
    )
    path = folder(place) / "proofs" / f"{volume.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(mirror.encode(by_person))
    await bot.operations.drill()
    assert [proof.by for proof in proofs(place)] == ["person at box"]
    bot.clock.advance(2)
    await bot.data.save_json("a.json", {"n": 4})
    await bot.mirrored()
    await bot.operations.drill()  # without the key, of a newer copy
    bot.clock.advance(300)
    await bot.mirrored()
    assert "by person at box" in (await check(bot))["detail"]


@pytest.mark.prove
async def test_a_sweep_keeps_the_copy_that_was_proven_with_the_key(bot: Bot, place: Path) -> None:
    """The service without the key goes on to prove that newer ones are as they were stored."""
    sealed(bot, AgeSealer([new_key().recipient]))
    await bot.mirrored()
    by_person = heads(place)[0].name
    at = MirrorStore(bot.bucket, UNSEALED, folder(place).name)
    proof = Proof(head=by_person, at="2025-01-06T20:00:00Z", by="person", decrypted=True, objects=1)
    await at.put_proof(proof)
    for number in range(26):
        bot.clock.advance(400 * DAY_S)
        await bot.data.save_json("a.json", {"n": number})
        await bot.mirrored()
        if number == 24:
            await bot.operations.drill()
    assert by_person in {head.name for head in heads(place)}
    assert {head.name for head in heads(place)} >= {proof.head for proof in proofs(place)}


async def test_a_sweep_waits_for_the_drill_so_that_what_is_proven_is_there(
    bot: Bot, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "CHAIN_HEADS_MAX", 3)
    real, begun, goes_on = bot.bucket.get, asyncio.Event(), asyncio.Event()

    async def waits(key: str, *, bytes_max: int) -> bytes:
        if "/objects/" in key:
            begun.set()
            await goes_on.wait()
        return await real(key, bytes_max=bytes_max)

    bot.bucket.get = waits  # type: ignore[method-assign]
    drill = asyncio.create_task(bot.operations.drill())
    await begun.wait()
    for number in range(6):
        bot.clock.advance(60 if number < 5 else HOUR_S)
        await bot.data.save_json("a.json", {"later": number})
        await bot.mirrored()
    goes_on.set()
    await drill
    [proof] = proofs(place)
    assert proof.head in {head.name for head in heads(place)}
    bot.clock.advance(HOUR_S)
    assert "removed" in await bot.mirrored()
    assert proof.head in {head.name for head in heads(place)}


async def test_health_warns_where_nothing_was_proven_for_a_month(bot: Bot) -> None:
    bot.clock.advance(29 * DAY_S)
    assert (await check(bot))["status"] == "ok"
    bot.clock.advance(2 * DAY_S)
    found = await check(bot)
    assert (found["status"], "for 30 days" in found["detail"]) == ("warning", True)
    await bot.operations.drill()
    assert (await check(bot))["status"] == "ok"


async def test_a_key_that_only_writes_leaves_the_drill_to_a_person(
    tmp_path: Path, place: Path
) -> None:
    class WriteOnly(Folder):
        async def get(self, key: str, *, bytes_max: int = 0) -> bytes:
            raise ObjectForbidden("the credentials do not allow it")

        async def list(self, folder: str):  # type: ignore[no-untyped-def]
            raise ObjectForbidden("the credentials do not allow it")

    place.mkdir()
    bot = Bot(tmp_path, WriteOnly("bucket", str(place)))
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    assert "`seline drill bucket`" in await bot.operations.drill()
    await bot.store.close()


async def test_a_destination_that_does_not_answer_fails_the_drill(bot: Bot) -> None:
    async def fails(_key: str, *, bytes_max: int) -> bytes:
        raise ExportFailed("the server is gone", hint="Start it.")

    real = bot.bucket.get
    bot.bucket.get = fails  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="the server is gone"):
        await bot.operations.drill()
    bot.bucket.get = real  # type: ignore[method-assign]
    assert (await check(bot))["fix"] == "Start it."
    assert "compared" in await bot.operations.drill()


async def test_a_new_key_has_everything_copied_for_it_and_leaves_older_copies_readable(
    bot: Bot, place: Path
) -> None:
    first, second = new_key(), new_key()
    sealed(bot, AgeSealer([first.recipient]))
    await bot.mirrored()
    bot.clock.advance(2)
    sealed(bot, AgeSealer([second.recipient]))
    await bot.mirrored()
    newer, older, *_ = await Copies(bot.bucket, UNSEALED).listed()
    for info, key in ((newer, second), (older, first)):
        copy = await Copies(bot.bucket, AgeSealer(identities=[key.identity])).open(info)
        for document in copy.documents:
            for file in (document, *document.backups):
                assert await copy.fetch(file.sha256)


async def test_a_content_that_was_encrypted_again_is_restored_from_an_older_copy(
    bot: Bot, place: Path
) -> None:
    key = new_key()
    sealer = AgeSealer([key.recipient], identities=[key.identity])
    sealed(bot, sealer)
    await bot.mirrored()
    [info, *_] = await Copies(bot.bucket, sealer).listed()
    for path in (folder(place) / "objects").glob("*.age"):
        path.write_bytes(sealer.seal(sealer.open(path.read_bytes())))
    copy = await Copies(bot.bucket, sealer).open(info)
    assert [await copy.fetch(document.sha256) for document in copy.documents]
