"""Test that a volume which was lost comes back by itself at the next start."""

import asyncio
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seline import library, open_seline
from seline.domain.document import Content
from seline.domain.incident import IncidentKind
from seline.errors import ExportFailed, RestoreUnfinished, StorageError
from seline.operations.mirror_store import MirrorStore
from seline.outbound.destinations.folder import Folder
from seline.ports.sealing import UNSEALED
from seline.server.serving import Serving, serving
from seline.settings import Settings, load_settings
from tests.faults.forms import chosen
from tests.mirrored_bot import flip


def settings(tmp_path: Path, **more: Any) -> Settings:
    arguments = {
        "storage.data_dir": str(tmp_path / "data"),
        "exports.destinations": [at(tmp_path, "bucket")],
        "alerts.sinks": [{"kind": "log"}],
        **more,
    }
    return load_settings(environ=chosen(), arguments=arguments)


def at(place: Path, name: str, mode: str = "mirror") -> dict[str, Any]:
    return {"name": name, "url": f"file://{place}/{name}", "mode": mode, "same_disk": True}


async def mirrored(server: Serving) -> None:
    run = server._worker.run_now("mirror")
    while not any(ended.id == run.id and ended.outcome for ended in server._worker.runs("mirror")):
        await asyncio.sleep(0.01)


@pytest.fixture
async def lost(tmp_path: Path) -> dict[str, Any]:
    """Return what a volume held that was mirrored, and then deleted."""
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        for number in range(30):
            await server.data.save_json(f"{number}.json", {"n": number})
        await server.data.save_json("7.json", {"n": "newer"})
        await server.data.delete("8.json")
        backup = (await server.data.backups("7.json"))[0].name
        await server.data.pin("7.json", backup, "kept")
        await mirrored(server)
        volume = await server.operations.exports.volume_id()
    shutil.rmtree(tmp_path / "data")
    return {"backup": backup, "volume": volume}


async def test_an_empty_volume_comes_back_before_the_bot_begins(
    tmp_path: Path, lost: dict[str, Any]
) -> None:
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        assert len(await server.data.documents()) == 29
        assert await server.data.load_json("7.json") == {"n": "newer"}
        [backup] = await server.data.backups("7.json")
        assert (backup.name, backup.pinned, backup.because) == (
            lost["backup"],
            True,
            "pinned: kept",
        )
        await server.data.restore("8.json")
        assert await server.data.load_json("8.json") == {"n": 8}
        assert await server.operations.exports.volume_id() == lost["volume"]
        [incident] = [
            incident
            for incident in server.operations.store.incidents()
            if incident.kind is IncidentKind.VOLUME_RESTORED
        ]
        assert "Restored 29 documents as of" in incident.summary
        while not server.alerts.log.listing():
            await asyncio.sleep(0.05)
        assert "Restored 29 documents" in server.alerts.log.listing()[0].summary
        await mirrored(server)
        assert server._worker.runs("mirror")[0].outcome == "ok"
    async with open_seline(settings=settings(tmp_path)) as seline:
        assert seline.returned is None, "only an empty volume"


async def test_a_restore_is_logged_with_counts(
    tmp_path: Path, lost: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="seline.restore")
    async with open_seline(settings=settings(tmp_path)):
        pass
    assert "UTC at bucket: 29 documents and 2 backups" in caplog.text
    assert "ImportReport" not in caplog.text


async def test_health_knows_the_copy_that_a_start_has_restored(
    tmp_path: Path, lost: dict[str, Any]
) -> None:
    async with open_seline(settings=settings(tmp_path)) as seline:
        [check] = [
            check for check in (await seline.health())["checks"] if check["name"] == "exports"
        ]
        assert "bucket: this start restored its copy of " in check["detail"]
        assert "Run `seline jobs run mirror`" not in check["fix"]
        await seline.mirrors.run()
        [check] = [
            check for check in (await seline.health())["checks"] if check["name"] == "exports"
        ]
        assert "bucket: the newest copy is of " in check["detail"]


async def test_the_copy_of_an_empty_volume_is_no_loss_to_report(tmp_path: Path) -> None:
    for _ in range(2):
        async with serving(settings(tmp_path), http=False) as server:
            await server.acquired()
            assert server.operations.store.incidents() == []
            await mirrored(server)
            assert server._worker.runs("mirror")[0].outcome == "ok", "it is the same volume"
        shutil.rmtree(tmp_path / "data")


async def test_a_volume_that_holds_anything_is_left_alone(
    tmp_path: Path, lost: dict[str, Any]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.json").write_text("{}")
    async with open_seline(settings=settings(tmp_path)) as seline:
        assert [info.name for info in await seline.data.documents()] == ["mine.json"]


async def test_an_accidental_start_on_an_empty_volume_displaces_nothing(
    tmp_path: Path, lost: dict[str, Any]
) -> None:
    empty = settings(tmp_path, **{"exports.restore_from": "off"})
    async with serving(empty, http=False) as server:
        await server.acquired()
        await server.data.save_json("new.json", {"n": 1})
        await mirrored(server)
        run = server._worker.runs("mirror")[0]
        assert (run.outcome, "the copy of another volume" in run.detail) == ("failed", True)
    claim = json.loads((tmp_path / "bucket" / "seline-mirror" / "volume.json").read_text())
    assert claim["volume"] == lost["volume"]
    shutil.rmtree(tmp_path / "data")
    async with open_seline(settings=settings(tmp_path)) as seline:
        assert len(await seline.data.documents()) == 29


async def test_a_start_that_is_interrupted_completes_the_restore(
    tmp_path: Path, lost: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Folder.get, 0

    async def dies(self: Folder, key: str, *, bytes_max: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 25:
            raise ExportFailed("the server died")
        return await real(self, key, bytes_max=bytes_max)

    monkeypatch.setattr("seline.operations.restore.BATCH_FILES_MAX", 4)
    monkeypatch.setattr(Folder, "get", dies)
    with pytest.raises(ExportFailed, match="died"):
        await open_seline(settings=settings(tmp_path))
    monkeypatch.setattr(Folder, "get", real)
    async with open_seline(settings=settings(tmp_path)) as seline:
        assert len(await seline.data.documents()) == 29


async def as_restored(server: Serving) -> tuple[object, ...]:
    """Return the documents, the backups and the pins."""
    documents = {info.name: info.revision for info in await server.data.documents()}
    backups = {(backup.name, backup.pinned) for backup in await server.operations.all_backups()}
    return documents, backups, server.operations.store.pins.pins()


@pytest.fixture
async def two_copies(tmp_path: Path) -> tuple[object, ...]:
    """Mirror a volume twice, with a pin and a document more; return what the older copy holds."""
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        for number in range(12):
            await server.data.save_json(f"{number}.json", {"n": number})
        await server.data.save_json("3.json", {"n": "again"})
        await mirrored(server)
        older = await as_restored(server)
        await asyncio.sleep(1.1)  # the next copy has another instant
        for name in ("3", "7", "new"):
            await server.data.save_json(f"{name}.json", {"n": f"newer {name}"})
        await server.data.delete("8.json")
        await server.data.pin("7.json", (await server.data.backups("7.json"))[0].name)
        await mirrored(server)
    shutil.rmtree(tmp_path / "data")
    return older


def damage_newest(tmp_path: Path) -> Path:
    """Damage the last object of the newest head; return its file."""
    root = tmp_path / "bucket" / "seline-mirror"
    head = json.loads(max(root.glob("*/heads/*")).read_bytes())
    digest = hashlib.sha256(b'{"n":"newer new"}').hexdigest()
    keys = {entry["key"] for entry in head["objects"]}
    [path] = root.glob(f"*/objects/{digest if digest in keys else max(keys)}*")
    flip(path)
    return path


def restored_from(server: Serving) -> str:
    [incident] = [
        incident
        for incident in server.operations.store.incidents()
        if incident.kind is IncidentKind.VOLUME_RESTORED
    ]
    return incident.summary


async def test_an_older_copy_is_taken_when_the_newest_is_damaged(
    tmp_path: Path, two_copies: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.operations.restore.BATCH_FILES_MAX", 2)
    damage_newest(tmp_path)
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        assert await as_restored(server) == two_copies
        summary = restored_from(server)
        assert "Restored 12 documents" in summary
        assert "Not taken: the copy of" in summary
        assert "at bucket is not whole: " in summary
        while not server.alerts.log.listing():
            await asyncio.sleep(0.05)
        assert "is not whole: " in server.alerts.log.listing()[0].summary
        await mirrored(server)
        assert server._worker.runs("mirror")[0].outcome == "ok"


@pytest.mark.prove
async def test_an_alert_names_the_newest_copy_when_its_head_cannot_be_read(
    tmp_path: Path, two_copies: tuple[object, ...]
) -> None:
    newest = max((tmp_path / "bucket" / "seline-mirror").glob("*/heads/*"))
    newest.write_bytes(newest.read_bytes()[:-20])
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        assert await as_restored(server) == two_copies
        assert f"UTC at bucket is not whole: {newest.stem} is not whole" in restored_from(server)


async def test_a_start_does_not_begin_empty_if_the_only_head_cannot_be_read(
    tmp_path: Path, lost: dict[str, Any]
) -> None:
    root = tmp_path / "bucket" / "seline-mirror"
    (root / "volume.json").unlink()  # as before the first claim
    [head] = root.glob("*/heads/*")
    head.write_bytes(b"{")
    with pytest.raises(ExportFailed, match="copy at bucket cannot be taken"):
        await open_seline(settings=settings(tmp_path))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("damaged", ["objects", "heads"])
async def test_a_purged_document_does_not_come_back_unsaid_with_an_older_copy(
    tmp_path: Path, damaged: str
) -> None:
    """The newest copy lists its documents unless its head is damaged, too."""
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        for name in ("kept.json", "deleted.json", "purged.json"):
            await server.data.save_json(name, {"n": name})
        await mirrored(server)
        await asyncio.sleep(1.1)  # the next copy has another instant
        await server.data.delete("purged.json", purge=True)
        await server.data.delete("deleted.json")
        await server.data.save_json("new.json", {"n": "newer new"})
        await mirrored(server)
    shutil.rmtree(tmp_path / "data")
    older, newest = sorted((tmp_path / "bucket" / "seline-mirror").glob("*/heads/*"))
    listed = (json.loads(head.read_bytes())["objects"] for head in (older, newest))
    before, after = ({entry["key"] for entry in entries} for entries in listed)
    [new] = after - before
    [content] = (tmp_path / "bucket" / "seline-mirror").glob(f"*/objects/{new}*")
    (newest if damaged == "heads" else content).write_bytes(b"{")

    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        there = {info.name for info in await server.data.documents()}
        assert there - {"purged.json"} == {"kept.json", "deleted.json"}
        assert ("purged.json" in there) is (damaged == "heads")
        assert ("purged.json, which the copy of" in restored_from(server)) is (damaged == "objects")
        while not server.alerts.log.listing():
            await asyncio.sleep(0.05)
        assert "purged after it is back" in server.alerts.log.listing()[0].summary


async def put_head(tmp_path: Path, content: bytes) -> None:
    """Store a copy like the newest one, in which a document has this content."""
    [volume] = (tmp_path / "bucket" / "seline-mirror").glob("*/")
    store = MirrorStore(Folder("bucket", str(tmp_path / "bucket")), UNSEALED, volume.name)
    newest = (await store.chain((await store.heads())[0]))[-1]
    manifest = await store.manifest(newest)
    digest = Content.of(content).revision
    [(entry, stored)] = await store.sealed({digest: content})
    await store.put_object(entry, stored)
    forged = msgspec.structs.replace(
        manifest.documents[0], sha256=digest, size_bytes=len(content), backups=()
    )
    head = msgspec.structs.replace(newest, sequence=newest.sequence + 1, objects=(entry,))
    changed = msgspec.structs.replace(manifest, documents=(forged,))
    head = msgspec.structs.replace(head, manifest=await store.put_manifest(head.name, changed))
    await store.put_head(msgspec.structs.replace(head, before=newest.name))


@pytest.mark.prove
async def test_an_older_copy_is_taken_when_the_newest_has_what_is_no_document(
    tmp_path: Path, two_copies: tuple[object, ...]
) -> None:
    await put_head(tmp_path, b"no JSON")
    async with open_seline(settings=settings(tmp_path)) as seline:
        assert await seline.data.load_json("7.json") == {"n": "newer 7"}
        assert seline.returned is not None
        [passed_over] = seline.returned.passed_over
        assert "is not whole: " in passed_over
        assert "of the copy is no JSON: " in passed_over


@pytest.mark.one_in(3)
@pytest.mark.parametrize("limit", ["documents_max", "document_bytes_max", "depth_max"])
async def test_a_start_waits_for_a_limit_that_the_copy_needs(
    tmp_path: Path, two_copies: tuple[object, ...], limit: str
) -> None:
    """An older copy that needs less is no answer."""
    low = {"documents_max": 5, "document_bytes_max": 1024, "depth_max": 8}
    levels = 9 if limit == "depth_max" else 600
    await put_head(tmp_path, b"[" * levels + b"]" * levels)
    with pytest.raises(ExportFailed, match="copy at bucket cannot be taken: ") as refused:
        await open_seline(settings=settings(tmp_path, **{f"storage.{limit}": low[limit]}))
    assert "To begin empty, set `exports.restore_from = off`." in refused.value.hint
    off = settings(tmp_path, **{"exports.restore_from": "off"})
    async with open_seline(settings=off) as seline:
        assert not await seline.data.documents()


async def test_a_copy_of_another_destination_is_taken_when_the_first_has_none_that_is_whole(
    tmp_path: Path,
) -> None:
    bucket, nas = at(tmp_path, "bucket"), at(tmp_path, "nas")
    for destination in (nas, bucket):  # the copy at the bucket is not older
        only = settings(tmp_path, **{"exports.destinations": [destination]})
        async with serving(only, http=False) as server:
            await server.acquired()
            await server.data.save_json("a.json", {"n": 1})
            await mirrored(server)
    shutil.rmtree(tmp_path / "data")
    flawed = damage_newest(tmp_path)
    both = settings(tmp_path, **{"exports.destinations": [bucket, nas]})
    async with serving(both, http=False) as server:
        await server.acquired()
        assert await server.data.load_json("a.json") == {"n": 1}
        assert "Restored 1 document as of" in restored_from(server)
        assert "from nas" in restored_from(server)
        assert flawed.name.split(".")[0][:8] in restored_from(server)


@pytest.mark.prove
async def test_the_newest_copy_is_taken_though_the_first_destination_has_one(
    tmp_path: Path,
) -> None:
    places = [at(tmp_path, "bucket"), at(tmp_path, "nas")]
    for number in (1, 2):  # the first destination has no part in the second
        used = settings(tmp_path, **{"exports.destinations": places[number - 1 :]})
        async with serving(used, http=False) as server:
            await server.acquired()
            await server.data.save_json("a.json", {"n": number})
            await mirrored(server)
        await asyncio.sleep(1.1)
    shutil.rmtree(tmp_path / "data")

    async with serving(
        settings(tmp_path, **{"exports.destinations": places}), http=False
    ) as server:
        await server.acquired()
        assert await server.data.load_json("a.json") == {"n": 2}
        assert "from nas" in restored_from(server)


@pytest.mark.prove
async def test_a_start_fails_if_no_copy_is_whole_and_leaves_the_volume_empty(
    tmp_path: Path, lost: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.operations.restore.BATCH_FILES_MAX", 2)
    flawed = damage_newest(tmp_path)
    for _ in range(2):
        with pytest.raises(ExportFailed, match=r"copy at bucket cannot be taken: .*bucket"):
            await open_seline(settings=settings(tmp_path))
    off = settings(tmp_path, **{"exports.restore_from": "off"})
    async with open_seline(settings=off) as seline:
        assert not await seline.data.documents()
        assert not await seline.all_backups()
    assert flawed.exists()


@pytest.mark.prove
async def test_a_part_of_a_copy_whose_destination_is_gone_says_how_to_begin(
    tmp_path: Path, lost: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`exports.restore_from = off` alone would be refused: a part is not served as a whole."""
    monkeypatch.setattr("seline.operations.restore.BATCH_FILES_MAX", 2)
    (tmp_path / "bucket" / "seline-mirror" / "volume.json").rename(tmp_path / "claim")
    real, calls = Folder.get, 0

    async def dies(self: Folder, key: str, *, bytes_max: int) -> bytes:
        nonlocal calls
        calls += "/objects/" in key
        if calls > 20:
            raise StorageError("killed")
        return await real(self, key, bytes_max=bytes_max)

    monkeypatch.setattr(Folder, "get", dies)
    with pytest.raises(StorageError):
        await open_seline(settings=settings(tmp_path))
    monkeypatch.setattr(Folder, "get", real)
    (tmp_path / "bucket" / "seline-mirror" / "volume.json").write_text("no claim")

    with pytest.raises(ExportFailed, match="has a part of a copy") as refused:
        await open_seline(settings=settings(tmp_path))
    off = settings(tmp_path, **{"exports.restore_from": "off"})
    with pytest.raises(RestoreUnfinished) as unfinished:
        await open_seline(settings=off)

    for error in (refused.value, unfinished.value):
        assert "move everything in the data directory away" in error.hint
    (tmp_path / "data").rename(tmp_path / "away")
    async with open_seline(settings=off) as seline:
        assert not await seline.data.documents()


@pytest.mark.parametrize("limits", [{}, {"storage.depth_max": 8}])
async def test_a_server_that_waits_fetches_a_copy_that_cannot_be_taken_once(
    tmp_path: Path, lost: dict[str, Any], monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    real, fetched = Folder.get, 0

    async def counted(self: Folder, key: str, *, bytes_max: int) -> bytes:
        nonlocal fetched
        fetched += "/objects/" in key
        return await real(self, key, bytes_max=bytes_max)

    if limits:
        await put_head(tmp_path, b"[" * 9 + b"]" * 9)
    else:
        damage_newest(tmp_path)
    monkeypatch.setattr(Folder, "get", counted)
    come_back = library.copies_of(settings(tmp_path, **limits))
    counts: list[int] = []
    for _ in range(3):
        opened = library.start(
            settings(tmp_path, **limits), lock_wait_s=0, serves_commands=False, come_back=come_back
        )
        with pytest.raises(ExportFailed, match="copy at bucket cannot be taken"):
            await opened.data.documents()
        await opened.close()
        counts.append(fetched)
    assert counts[0] == counts[2] > 0


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mode", ["mirror", "export"])
@pytest.mark.parametrize("when", ["listing", "fetching"])
async def test_while_a_destination_fails_only_a_mirror_elsewhere_is_taken(
    tmp_path: Path, mode: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [at(tmp_path, "bucket"), at(tmp_path, "nas", mode)]
    both = settings(tmp_path, **{"exports.destinations": places})
    async with serving(both, http=False) as server:
        await server.acquired()
        await server.data.save_json("a.json", {"n": 1})
        await server.operations.exports.run()  # before the mirror, which is newer then
        await mirrored(server)
    shutil.rmtree(tmp_path / "data")
    fail_at(monkeypatch, "bucket", "/objects/" if when == "fetching" else "")
    if mode == "mirror":
        async with serving(both, http=False) as server:
            await server.acquired()
            assert await server.data.load_json("a.json") == {"n": 1}
            assert "Not taken: bucket failed: the server is down" in restored_from(server)
        return
    with pytest.raises(ExportFailed, match="the server is down") as refused:
        await open_seline(settings=both)
    assert "To take the copy of" in refused.value.hint
    assert "`exports.restore_from = nas`" in refused.value.hint
    chosen = settings(tmp_path, **{"exports.destinations": places, "exports.restore_from": "nas"})
    async with open_seline(settings=chosen) as seline:
        assert await seline.data.load_json("a.json") == {"n": 1}


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, within: str) -> None:
    real = Folder.get

    async def fails(self: Folder, key: str, *, bytes_max: int) -> bytes:
        if self.name == name and within in key:
            raise ExportFailed("the server is down")
        return await real(self, key, bytes_max=bytes_max)

    monkeypatch.setattr(Folder, "get", fails)


@pytest.mark.prove
async def test_a_twin_that_restored_the_same_copy_is_noticed_by_both(
    tmp_path: Path, two_copies: tuple[object, ...]
) -> None:
    async with serving(settings(tmp_path), http=False) as bot:
        await bot.acquired()
        await bot.data.save_json("bot.json", {"n": 1})
        await mirrored(bot)
        assert last_run(bot) == ("ok", False), "restored once: it goes on without a person"
        twin_settings = settings(tmp_path, **{"storage.data_dir": str(tmp_path / "twin")})
        async with serving(twin_settings, http=False) as twin:
            await twin.acquired()
            await twin.data.save_json("twin.json", {"n": 1})
            await mirrored(twin)
            assert last_run(twin) == ("ok", False), "it cannot know that the other one lives"
            before = set((tmp_path / "bucket").rglob("heads/*"))
            for turn, server in enumerate((bot, twin, bot, twin)):
                await server.data.save_json("both.json", {"n": turn})
                await mirrored(server)
                assert last_run(server) == ("failed", True)
            assert set((tmp_path / "bucket").rglob("heads/*")) > before, "nothing is removed"
        await bot.operations.mirrors.accept("bucket")
        await mirrored(bot)
        assert last_run(bot) == ("ok", False)


def last_run(server: Serving) -> tuple[str | None, bool]:
    run = server._worker.runs("mirror")[0]
    return run.outcome, "Another process mirrors this volume: " in run.detail


async def test_what_could_not_be_read_for_the_copy_is_named(tmp_path: Path) -> None:
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        await server.data.save_json("a.json", {"n": 1})
    (tmp_path / "data" / "lost.json").mkdir()
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        await mirrored(server)
    shutil.rmtree(tmp_path / "data")
    async with serving(settings(tmp_path), http=False) as server:
        await server.acquired()
        summary = restored_from(server)
        assert "Restored 1 document as of" in summary
        assert "Documents could not be read for that copy: it lacks lost.json." in summary
