"""Test the snapshot of an export: later saves are not in it, and no file stays open."""

import asyncio
import os
from pathlib import Path

import pytest

from seline import open_seline
from seline.manager.transfer import export_of
from seline.storage.volume.snapshots import WHOLE_BYTES_MAX, VolumeSnapshot

NAME = "a.json"


async def test_an_export_excludes_a_save_made_while_its_snapshot_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, {"of": "the instant"})
        loop = asyncio.get_running_loop()

        def places_then_save(self: VolumeSnapshot, name: str) -> list[int]:
            places = real(self, name)
            monkeypatch.setattr(VolumeSnapshot, "_places", real)
            saving = seline.data.save_json(NAME, {"of": "later"})
            asyncio.run_coroutine_threadsafe(saving, loop).result(10)
            return places

        real = VolumeSnapshot._places
        monkeypatch.setattr(VolumeSnapshot, "_places", places_then_save)

        async with seline.data.exported() as snapshot:
            exported = await asyncio.to_thread(lambda: b"".join(snapshot.open(NAME)))

        assert b"the instant" in exported
        assert await seline.data.load_json(NAME) == {"of": "later"}


async def test_a_purge_leaves_no_bytes_on_the_volume_while_an_export_runs(tmp_path: Path) -> None:
    """Also if the document was replaced before, and is linked for the export."""

    def there() -> list[Path]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return [path for path in files if b"secret" in path.read_bytes()]

    async with open_seline(tmp_path) as seline:
        for name in (NAME, "b.json"):
            await seline.data.save_json(name, {"secret": name})
        await seline.data.save_json("c.json", {})
        async with seline.data.exported() as snapshot:
            await seline.data.save_json("b.json", {"secret": "newer"})
            assert len(there()) >= 3
            for name in (NAME, "b.json"):
                await seline.data.delete(name, purge=True)
            assert there() == []
            export = await export_of(snapshot, seline.store)
        assert (list(export["files"]), "unrecoverable" in export) == (["c.json"], False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_large_document_that_is_not_read_leaves_no_file_open(tmp_path: Path) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json(NAME, "x" * (2 * WHOLE_BYTES_MAX))
        async with seline.data.exported() as snapshot:
            before = len(os.listdir("/proc/self/fd"))

            for _ in range(20):
                snapshot.open(NAME)

            assert len(os.listdir("/proc/self/fd")) == before
