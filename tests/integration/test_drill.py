"""Test the drill in the service: what it reads back, what it finds, and what it leaves."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from seline.domain import mirror
from seline.domain.mirror import Proof
from seline.errors import ExportFailed
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.outbound.destinations.folder import Folder
from seline.outbound.sealing import AgeSealer, new_key
from seline.ports.destinations import ObjectForbidden, Target
from seline.ports.sealing import UNSEALED, Sealer
from tests.integration.test_mirror import HOUR_S, Bot, Counted, folder, heads, objects

DAY_S = 24 * HOUR_S


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
async def bot(tmp_path: Path, place: Path) -> AsyncIterator[Bot]:
    made = Bot(tmp_path, Counted(place))
    for number in range(3):
        await made.data.save_json("a.json", {"n": number})
        await made.data.save_json(f"{number}.json", {"n": number})
        await made.mirrored()
        made.clock.advance(2)
    yield made
    await made.operations.mirrors.close()
    await made.store.close()


def sealed(bot: Bot, sealer: Sealer) -> None:
    """Have the bot encrypt from now on."""
    target = Target(bot.bucket, 3, same_disk=True, mode="mirror")
    bot.operations = Operations(bot.store, [target], version="test", sealer=sealer)


async def check(bot: Bot) -> dict[str, Any]:
    health: dict[str, Any] = await bot.operations.health()
    [found] = [check for check in health["checks"] if check["name"] == "exports"]
    return found


def proofs(place: Path) -> list[Proof]:
    files = sorted((folder(place) / "proofs").iterdir())
    return [mirror.decode_as(Proof, path.read_bytes(), path.name) for path in files]


async def test_a_whole_copy_is_proven_with_every_content_compared(bot: Bot, place: Path) -> None:
    assert "not proven restorable yet" in (await check(bot))["detail"]
    bucket = bot.bucket
    assert isinstance(bucket, Counted)
    bucket.others.clear()

    assert "decrypted and compared" in await bot.operations.mirrors.drill()

    assert {key.rpartition("/")[2] for key in bucket.others if "/objects/" in key} == objects(place)
    [proof] = proofs(place)
    assert (proof.head, proof.by, proof.decrypted) == (heads(place)[0].name, "service", True)
    found = await check(bot)
    assert (found["status"], "last proven restorable" in found["detail"]) == ("ok", True)
    newest, *_ = await Copies(bucket, UNSEALED).listed()
    assert (newest.name, newest.proven_by) == (proof.head, "service")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("is_encrypted", [False, True])
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
        await bot.operations.mirrors.drill()

    found = await check(bot)
    assert (found["status"], "the drill failed" in found["detail"]) == ("warning", True)
    assert "compared" in await bot.operations.mirrors.drill()
    assert (await check(bot))["status"] == "ok"


@pytest.mark.parametrize("lost", ["the newest head", "every head", "everything"])
async def test_heads_that_are_lost_are_written_again(bot: Bot, place: Path, lost: str) -> None:
    if lost == "everything":
        shutil.rmtree(place / mirror.ROOT)
    else:
        for head in heads(place)[: 1 if lost == "the newest head" else None]:
            (folder(place) / "heads" / f"{head.name}.json").unlink()
    with pytest.raises(ExportFailed, match="lost the newest head"):
        await bot.operations.mirrors.drill()
    assert "compared" in await bot.operations.mirrors.drill()
    copy = await Copies(bot.bucket, UNSEALED).find()
    for document in copy.documents:
        for file in (document, *document.backups):
            assert await copy.fetch(file.sha256)


async def test_without_the_key_the_bytes_are_compared_and_a_person_must_prove_it(
    bot: Bot, place: Path
) -> None:
    sealed(bot, AgeSealer([new_key().recipient]))
    await bot.mirrored()

    assert "without a key" in await bot.operations.mirrors.drill()

    found = await check(bot)
    assert (found["status"], "only a person can prove it" in found["detail"]) == ("warning", True)
    [proof] = proofs(place)
    assert not proof.decrypted
    assert (await Copies(bot.bucket, UNSEALED).listed())[0].proven_at is None
    flip(min((folder(place) / "objects").glob("*.age")))
    with pytest.raises(ExportFailed, match="other bytes"):
        await bot.operations.mirrors.drill()


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
    bot.clock.advance(2 * HOUR_S)
    await bot.mirrored()
    assert "by person at box" in (await check(bot))["detail"]
    await bot.operations.mirrors.drill()
    assert [proof.by for proof in proofs(place)] == ["person at box"]
    assert (await check(bot))["status"] == "ok"


async def test_health_warns_where_nothing_was_proven_for_a_month(bot: Bot) -> None:
    bot.clock.advance(29 * DAY_S)
    assert (await check(bot))["status"] == "ok"
    bot.clock.advance(2 * DAY_S)
    found = await check(bot)
    assert (found["status"], "for 30 days" in found["detail"]) == ("warning", True)
    await bot.operations.mirrors.drill()
    assert (await check(bot))["status"] == "ok"


async def test_a_key_that_only_writes_leaves_the_drill_to_a_person(
    tmp_path: Path, place: Path
) -> None:
    class WriteOnly(Folder):
        async def get(self, key: str) -> bytes:
            raise ObjectForbidden("the credentials do not allow it")

        async def list(self, folder: str):  # type: ignore[no-untyped-def]
            raise ObjectForbidden("the credentials do not allow it")

    place.mkdir()
    bot = Bot(tmp_path, WriteOnly("bucket", str(place)))
    await bot.data.save_json("a.json", {"n": 1})
    await bot.mirrored()
    assert "`seline drill bucket`" in await bot.operations.mirrors.drill()
    await bot.store.close()


async def test_a_destination_that_does_not_answer_fails_the_drill(bot: Bot) -> None:
    async def fails(_key: str) -> bytes:
        raise ExportFailed("the server is gone", hint="Start it.")

    real = bot.bucket.get
    bot.bucket.get = fails  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="the server is gone"):
        await bot.operations.mirrors.drill()
    bot.bucket.get = real  # type: ignore[method-assign]
    assert (await check(bot))["fix"] == "Start it."
    assert "compared" in await bot.operations.mirrors.drill()


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
