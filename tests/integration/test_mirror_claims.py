"""Test whose copy a destination keeps: the claim, and what counts where it is lost or hollow."""

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from seline import open_seline
from seline.domain import mirror
from seline.errors import ExportFailed
from seline.operations.copies import Copies
from seline.outbound.destinations.folder import Folder
from seline.outbound.sealing import AgeSealer
from seline.ports.destinations import ObjectForbidden
from seline.ports.sealing import UNSEALED, Sealer
from seline.settings import load_settings
from tests.faults.forms import chosen
from tests.mirrored_bot import HOUR_S, Bot, Counted

Begin = Callable[..., Awaitable[Bot]]


@pytest.fixture
async def begin(tmp_path: Path, place: Path) -> AsyncIterator[Begin]:
    """Return what begins a bot on a volume of its own with two documents."""
    begun: list[Bot] = []

    async def new(name: str, bucket: Folder | None = None, sealer: Sealer = UNSEALED) -> Bot:
        (tmp_path / name).mkdir()
        bot = Bot(tmp_path / name, bucket or Counted(place), sealer=sealer)
        begun.append(bot)
        for number in range(2):
            await bot.data.save_json(f"{number}.json", {"of": name})
        return bot

    yield new
    for bot in begun:
        await bot.operations.mirrors.close()
        await bot.store.close()


def claimed_by(place: Path) -> str:
    return str(json.loads((place / mirror.CLAIM).read_text())["volume"])


async def start_on_an_empty_volume(tmp_path: Path, place: Path) -> list[str]:
    """Return the documents that the start brings back."""
    shutil.rmtree(tmp_path / "empty", ignore_errors=True)
    table = {"name": "bucket", "url": f"file://{place}", "mode": "mirror", "same_disk": True}
    arguments = {
        "storage.data_dir": str(tmp_path / "empty"),
        "exports.destinations": [table],
        "alerts.sinks": [{"kind": "log"}],
    }
    async with open_seline(settings=load_settings(environ=chosen(), arguments=arguments)) as seline:
        return [info.name for info in await seline.data.documents()]


@pytest.mark.parametrize("file", ["objects", "manifests", "heads"])
async def test_an_accepted_copy_that_fails_leaves_the_claim(
    begin: Begin, tmp_path: Path, place: Path, file: str
) -> None:
    first = await begin("first")
    await first.mirrored()
    second = await begin("second")
    real = second.bucket.put

    async def fails(key: str, data: bytes, *, replace: bool = True) -> None:
        if f"/{file}/" in key:
            raise ExportFailed("the server died")
        await real(key, data, replace=replace)

    second.bucket.put = fails  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="the server died"):
        await second.operations.mirrors.accept("bucket")
    assert claimed_by(place) == await first.operations.exports.volume_id()
    assert await start_on_an_empty_volume(tmp_path, place) == ["0.json", "1.json"]
    second.bucket.put = real  # type: ignore[method-assign]
    await second.operations.mirrors.accept("bucket")
    assert claimed_by(place) == await second.operations.exports.volume_id()


async def test_a_first_copy_is_recorded_though_its_claim_fails(begin: Begin) -> None:
    """Health would else say that nothing is copied, until the next change."""
    bot = await begin("bot")
    real = bot.bucket.put

    async def fails(key: str, data: bytes, *, replace: bool = True) -> None:
        if key == mirror.CLAIM:
            raise ExportFailed("the server died")
        await real(key, data, replace=replace)

    bot.bucket.put = fails  # type: ignore[method-assign]
    with pytest.raises(ExportFailed, match="the server died"):
        await bot.mirrored()
    bot.bucket.put = real  # type: ignore[method-assign]
    bot.clock.advance(HOUR_S)
    await bot.mirrored()
    [check] = bot.operations.destination_checks()
    assert (check.has_copy, check.problems) == (True, ())


async def test_a_claim_without_a_whole_head_stops_an_empty_start(
    begin: Begin, tmp_path: Path, place: Path
) -> None:
    first, second = await begin("first"), await begin("second")
    await first.mirrored()
    with pytest.raises(ExportFailed, match="another volume"):
        await second.mirrored()
    volume = await first.operations.exports.volume_id()
    shutil.rmtree(place / mirror.folder_of(volume))
    with pytest.raises(ExportFailed, match=r"keeps the copy of the volume \w+, and has no whole"):
        await start_on_an_empty_volume(tmp_path, place)
    other = await second.operations.exports.volume_id()
    assert (await Copies(second.bucket, UNSEALED).find(volume=other)).volume == other


async def test_two_volumes_without_a_claim_stop_an_empty_start(
    begin: Begin, tmp_path: Path, place: Path
) -> None:
    first, second = await begin("first"), await begin("second")
    await first.mirrored()
    with pytest.raises(ExportFailed, match="another volume"):
        await second.mirrored()
    volume = await first.operations.exports.volume_id()
    listed = await Copies(second.bucket, UNSEALED).listed()
    assert [info.volume for info in listed if not info.doubt] == [volume]
    assert {info.doubt for info in listed} == {"", f"a restore takes those of the volume {volume}"}
    (place / mirror.CLAIM).unlink()
    listed = await Copies(second.bucket, UNSEALED).listed()
    assert all("a restore needs `--volume`" in info.doubt for info in listed)
    with pytest.raises(ExportFailed, match=r"the copies of 2 volumes") as refused:
        await start_on_an_empty_volume(tmp_path, place)
    assert "--volume" in refused.value.hint
    second.clock.advance(HOUR_S)
    with pytest.raises(ExportFailed, match="another volume"):
        await second.mirrored()
    assert not (place / mirror.CLAIM).exists(), "the volume that displaced nothing claims nothing"


async def test_a_claim_that_was_lost_is_stored_again(begin: Begin, place: Path) -> None:
    first, second = await begin("first"), await begin("second")
    await first.mirrored()
    with pytest.raises(ExportFailed, match="another volume"):
        await second.mirrored()
    (place / mirror.CLAIM).unlink()
    first.clock.advance(HOUR_S)
    await first.mirrored()
    assert claimed_by(place) == await first.operations.exports.volume_id()


async def test_a_key_that_only_writes_stores_a_claim_where_no_key_file_can_be_stored(
    begin: Begin, place: Path
) -> None:
    class Refusing(Folder):
        async def get(self, key: str, *, bytes_max: int = 0) -> bytes:
            raise ObjectForbidden("the credentials do not allow it")

        async def list(self, folder: str):  # type: ignore[no-untyped-def]
            raise ObjectForbidden("the credentials do not allow it")

        async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
            if "seline-key" in key:
                raise ObjectForbidden("the credentials do not allow it")
            await super().put(key, data, replace=replace)

    place.mkdir()
    sealer = AgeSealer(passphrase="correct horse")
    bot = await begin("first", Refusing("bucket", str(place)), sealer)
    await bot.mirrored()
    assert claimed_by(place) == await bot.operations.exports.volume_id()
