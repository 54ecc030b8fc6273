"""Which volume this is: the id that is made before the first document, and kept."""

import json
from pathlib import Path

import pytest

from seline import open_seline
from seline.domain.manifest import is_volume_id
from seline.errors import DocumentNotFound

FILE = ".seline/volume.json"


def _id(directory: Path) -> str:
    path = directory / FILE
    return json.loads(path.read_bytes())["id"] if path.exists() else ""


@pytest.mark.usefixtures("files_at_once")
async def test_the_first_write_of_a_document_makes_the_id(tmp_path: Path) -> None:
    async with open_seline(tmp_path, lock_wait_s=0) as seline:
        assert not _id(tmp_path)

        await seline.data.save_json("a.json", {"n": 1})

        first = _id(tmp_path)
        assert is_volume_id(first)
        await seline.data.save_json("b.json", {"n": 1})
        assert await seline.exports.volume_id() == first
    async with open_seline(tmp_path, lock_wait_s=0) as seline:
        await seline.data.save_json("a.json", {"n": 2})
        assert _id(tmp_path) == first == await seline.exports.known_volume_id()


async def test_a_transaction_and_an_import_make_the_id_too(tmp_path: Path) -> None:
    async with (
        open_seline(tmp_path / "a", lock_wait_s=0) as seline,
        seline.data.transaction("a.json") as change,
    ):
        change["a.json"] = 1
    async with open_seline(tmp_path / "b", lock_wait_s=0) as seline:
        await seline.data.import_data({"files": {"a.json": 1}})

    assert is_volume_id(_id(tmp_path / "a"))
    assert is_volume_id(_id(tmp_path / "b"))


async def test_an_older_folder_that_is_only_read_gets_no_id(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"n": 1}', encoding="utf-8")

    async with open_seline(tmp_path, lock_wait_s=0) as seline:
        assert await seline.data.load_json("a.json") == {"n": 1}
        assert len(await seline.data.documents()) == 1
        await seline.data.import_data({"files": {"a.json": 2}}, dry_run=True)
        with pytest.raises(DocumentNotFound):
            await seline.data.delete("b.json", dry_run=True)

    assert not _id(tmp_path)
