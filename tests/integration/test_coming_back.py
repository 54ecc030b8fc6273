"""Test that a volume which was lost comes back by itself at the next start."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from seline import open_seline
from seline.domain.incident import IncidentKind
from seline.errors import ExportFailed
from seline.server.serving import Serving, serving
from seline.settings import Settings, load_settings


def settings(tmp_path: Path, **more: Any) -> Settings:
    bucket = {
        "name": "bucket",
        "url": f"file://{tmp_path}/bucket",
        "mode": "mirror",
        "same_disk": True,
    }
    arguments = {
        "storage.data_dir": str(tmp_path / "data"),
        "exports.destinations": [bucket],
        "alerts.sinks": [{"kind": "log"}],
        **more,
    }
    return load_settings(environ={}, arguments=arguments)


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
        assert seline.restored is None, "only an empty volume"


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
    from seline.outbound.destinations.folder import Folder

    real, calls = Folder.get, 0

    async def dies(self: Folder, key: str) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 25:
            raise ExportFailed("the server died")
        return await real(self, key)

    monkeypatch.setattr("seline.operations.restore.BATCH_FILES_MAX", 4)
    monkeypatch.setattr(Folder, "get", dies)
    with pytest.raises(ExportFailed, match="died"):
        await open_seline(settings=settings(tmp_path))
    monkeypatch.setattr(Folder, "get", real)
    async with open_seline(settings=settings(tmp_path)) as seline:
        assert len(await seline.data.documents()) == 29
