"""Test that copies of a volume go to a server and come back, through the whole product."""

from pathlib import Path

import pytest

from seline import open_seline
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.export_folders import ExportFolders
from seline.operations.restore import restore_copy
from seline.ports.destinations import Target
from seline.ports.sealing import UNSEALED
from tests.destinations.kinds import KINDS, kinds

SERVERS = [kind for kind in kinds() if kind.values[0] in {"webdav", "sftp", "nginx", "sshd"}]


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_volume_is_exported_mirrored_and_restored(kind: str, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    async with KINDS[kind].opened(tmp_path / "server") as store:
        async with open_seline(tmp_path / "data") as seline:
            operations = Operations(seline.store, [Target(store, 7, mode="both")], version="test")
            for number in range(20):
                await seline.data.save_json(f"{number}.json", {"n": number})
            assert "read back" in await operations.exports.run()
            assert "nothing changed" in await operations.exports.run()
            await operations.mirrors.run()
            await seline.data.save_json("7.json", {"n": "changed"})
            await operations.mirrors.run()
        assert len(await ExportFolders(store).complete()) == 1

        copy = await Copies(store, UNSEALED).find()
        async with open_seline(tmp_path / "another") as other:
            await restore_copy(other.store, copy)
            assert len(await other.data.documents()) == 20
            assert await other.data.load_json("7.json") == {"n": "changed"}
        await operations.mirrors.close()
