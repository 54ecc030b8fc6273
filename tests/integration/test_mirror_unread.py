"""Test what a copy has of a document that cannot be read, and that everything says so."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from seline.domain.copy import Copy
from seline.errors import ExportFailed
from seline.operations.copies import Copies
from seline.outbound.destinations.folder import Folder
from seline.outbound.sealing import AgeSealer, new_key
from seline.ports.sealing import UNSEALED, Sealer
from tests.mirrored_bot import HOUR_S, Bot, Counted, folder, heads


@pytest.fixture
async def begin(tmp_path: Path, place: Path) -> AsyncIterator[Callable[..., Bot]]:
    """Return what begins a process on the volume; they are ended with the test."""
    begun: list[Bot] = []

    def new(name: str = "a", sealer: Sealer = UNSEALED) -> Bot:
        (tmp_path / name).mkdir(exist_ok=True)
        begun.append(Bot(tmp_path / name, Counted(place), sealer=sealer))
        return begun[-1]

    yield new
    for bot in begun:
        await ended(bot)


async def ended(bot: Bot) -> None:
    await bot.operations.mirrors.close()
    await bot.store.close()


async def saved(bot: Bot, count: int = 4) -> None:
    for number in range(count):
        await bot.data.save_json(f"{number}.json", {"n": number})
    await bot.mirrored()


def make_unreadable(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a" / "data" / name
    path.unlink()
    path.mkdir()


async def newest(place: Path, sealer: Sealer = UNSEALED) -> Copy:
    return await Copies(Folder("bucket", str(place)), sealer).find()


async def content(copy: Copy, name: str) -> bytes:
    [document] = [document for document in copy.documents if document.name == name]
    return await copy.fetch(document.sha256)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_the_content_of_an_older_head_is_carried_forward(
    begin: Callable[..., Bot], tmp_path: Path, place: Path, is_restarted: bool, is_encrypted: bool
) -> None:
    sealer = AgeSealer(passphrase="correct horse") if is_encrypted else UNSEALED
    bot = begin(sealer=sealer)
    await saved(bot)
    if is_restarted:
        await ended(bot)
    make_unreadable(tmp_path, "2.json")
    if is_restarted:
        bot = begin(sealer=sealer)
    else:
        await bot.operations.verify()
        bot.operations.mirrors.backups_added(["2.json"])
    await bot.data.save_json("0.json", {"n": 77})
    await bot.mirrored()

    copy = await newest(place, sealer)
    assert (len(copy.documents), copy.lacking, copy.older) == (4, (), ("2.json",))
    assert await content(copy, "2.json") == b'{\n  "n": 2\n}\n'
    assert (heads(place)[0].documents, heads(place)[0].lacking) == (4, ())
    assert "older content of 2.json" in await exports_detail(bot)

    (tmp_path / "a" / "data" / "2.json").rmdir()
    await bot.data.save_json("2.json", {"n": "new"})
    await bot.mirrored()
    assert (await newest(place, sealer)).older == ()


async def exports_detail(bot: Bot) -> str:
    health = await bot.operations.health()
    checks = health["checks"]
    assert isinstance(checks, list)
    [found] = [check for check in checks if isinstance(check, dict) and check["name"] == "exports"]
    return str(found["detail"])


@pytest.mark.usefixtures("files_at_once")
async def test_a_purged_content_is_not_carried_forward(
    begin: Callable[..., Bot], tmp_path: Path, place: Path
) -> None:
    bot = begin()
    await saved(bot)
    await bot.data.delete("2.json", purge=True)
    await bot.data.save_json("2.json", {"n": "again"})
    make_unreadable(tmp_path, "2.json")
    await bot.mirrored()
    copy = await newest(place)
    assert (copy.lacking, copy.older, len(copy.documents)) == (("2.json",), (), 3)


@pytest.mark.prove
async def test_a_head_names_what_it_lacks_until_it_is_accepted_or_there_again(
    begin: Callable[..., Bot], tmp_path: Path, place: Path
) -> None:
    """Also the heads of the volume onto which it is restored, which knows of no loss."""
    lock = new_key()
    bot = begin(sealer=AgeSealer([lock.recipient]))
    await saved(bot)
    having = heads(place)[0].name
    await ended(bot)
    make_unreadable(tmp_path, "2.json")
    bot = begin(sealer=AgeSealer([lock.recipient]))  # without the key nothing is carried forward
    bot.clock.advance(HOUR_S)
    await bot.data.save_json("0.json", {"n": 77})
    await bot.mirrored()
    opening = AgeSealer([lock.recipient], identities=[lock.identity])
    copy = await newest(place, opening)
    assert (copy.lacking, copy.older) == (("2.json",), ())
    [key] = heads(place)[0].lacking
    assert "2.json" not in key, "an encrypted head shows no names"
    [info, *_] = await Copies(Folder("bucket", str(place)), UNSEALED).listed()
    assert info.lacking == (key,)
    assert "it lacks 1 document" in await bot.operations.drill()

    await ended(bot)
    (tmp_path / "a" / "data" / "2.json").rmdir()  # as on a restored volume
    bot = begin(sealer=AgeSealer([lock.recipient]))
    for number in range(30):
        bot.clock.advance(36 * HOUR_S * 24)
        await bot.data.save_json("0.json", {"n": number})
        await bot.mirrored()
    assert having in {head.name for head in heads(place)}, "it alone has the document"
    assert heads(place)[0].lacking == (key,)

    await bot.operations.mirrors.accept("bucket")
    assert heads(place)[0].lacking == ()
    for number in range(3):
        bot.clock.advance(36 * HOUR_S * 24)
        await bot.data.save_json("0.json", {"later": number})
        await bot.mirrored()
    assert having not in {head.name for head in heads(place)}


async def test_an_older_content_that_cannot_be_looked_for_fails_the_run(
    begin: Callable[..., Bot], tmp_path: Path, place: Path
) -> None:
    """A head without it would count as whole, so the run is tried again."""
    bot = begin()
    await saved(bot)
    await ended(bot)
    make_unreadable(tmp_path, "2.json")
    bot = begin()
    real = bot.bucket.get

    async def fails(key: str, *, bytes_max: int) -> bytes:
        if "/manifests/" in key:
            raise ExportFailed("the server is down")
        return await real(key, bytes_max=bytes_max)

    bot.bucket.get = fails  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="the server is down"):
        await bot.mirrored()
    assert len(heads(place)) == 1
    bot.bucket.get = real  # type: ignore[method-assign]
    await bot.mirrored()
    assert (await newest(place)).older == ("2.json",)


async def test_a_damaged_older_head_is_passed_over(
    begin: Callable[..., Bot], tmp_path: Path, place: Path
) -> None:
    bot = begin()
    await saved(bot)
    await ended(bot)
    make_unreadable(tmp_path, "2.json")
    [manifest] = (folder(place) / "manifests").iterdir()
    manifest.write_bytes(b"rot")
    bot = begin()
    await bot.mirrored()
    assert heads(place)[0].lacking == ("2.json",)
    assert "the last mirror lacks 2.json" in await exports_detail(bot)
