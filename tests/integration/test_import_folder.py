"""An export folder as a .tar: what `GET /export?form=folder` answers, `POST /import` takes."""

import io
import tarfile
from pathlib import Path

import msgspec
import pytest

from seline.domain.manifest import MANIFEST_NAME, decode_manifest, encode_manifest
from seline.http.operator import TAR
from seline.server import serving
from tests.http_client import NAME, Client, settings_for

OTHER = "list.json"


@pytest.fixture
async def tar(client: Client) -> bytes:
    """Return the folder of a store with two documents, of which one has a backup."""
    for number in (1, 2):
        await client.call("PUT", f"/documents/{NAME}", {"n": number})
    await client.call("PUT", f"/documents/{OTHER}", [1])
    status, body, _ = await client.call("GET", "/export?form=folder")
    assert status == 200
    assert isinstance(body, bytes)
    return body


async def _backups(client: Client) -> list[str]:
    _, body, _ = await client.call("GET", f"/documents/{NAME}/backups")
    return [backup["name"] for backup in body["backups"]]


async def test_an_exported_folder_is_imported_with_its_backups(client: Client, tar: bytes) -> None:
    kept = await _backups(client)
    for name in (NAME, OTHER):
        await client.call("DELETE", f"/documents/{name}?purge=true")

    status, tried, _ = await client.call("POST", "/import?dry_run=true", tar, Content_Type=TAR)
    _, done, _ = await client.call("POST", "/import", tar, Content_Type=TAR)

    assert (status, tried["created"], tried["backups"]) == (200, [OTHER, NAME], 1)
    assert {**tried, "dry_run": False, "undo": done["undo"]} == done
    assert (await client.call("GET", f"/documents/{NAME}"))[1] == {"n": 2}
    assert await _backups(client) == kept
    _, again, _ = await client.call("POST", "/import", tar, Content_Type=TAR)
    assert (again["unchanged"], again["backups"]) == ([OTHER, NAME], 0)


async def test_documents_and_backups_are_chosen(client: Client, tar: bytes) -> None:
    for name in (NAME, OTHER):
        await client.call("DELETE", f"/documents/{name}?purge=true")

    _, skipped, _ = await client.call(
        "POST", f"/import?dry_run=true&skip={OTHER}", tar, Content_Type=TAR
    )
    _, chosen, _ = await client.call(
        "POST", f"/import?only={NAME}&backups=false", tar, Content_Type=TAR
    )

    assert (skipped["created"], skipped["backups"]) == ([NAME], 1)
    assert (chosen["created"], chosen["backups"]) == ([NAME], 0)
    assert await _backups(client) == []


async def test_the_mode_replace_deletes_other_documents(client: Client, tar: bytes) -> None:
    await client.call("PUT", "/documents/new.json", 1)

    _, done, _ = await client.call("POST", "/import?mode=replace", tar, Content_Type=TAR)

    assert done["deleted"] == ["new.json"]


async def test_the_folder_of_another_volume_is_imported_only_on_request(
    tar: bytes, client: Client, tmp_path: Path
) -> None:
    async with serving(settings_for(tmp_path / "other")) as server:
        await server.acquired()
        other = Client(client.session, server.address)
        await other.call("PUT", "/documents/own.json", 1)
        status, refused, _ = await other.call("POST", "/import", tar, Content_Type=TAR)
        _, done, _ = await other.call("POST", "/import?foreign=true", tar, Content_Type=TAR)

    assert (status, refused["code"]) == (422, "import_refused")
    assert (done["created"], done["backups"], done["foreign"]) == ([OTHER, NAME], 1, True)


def _altered(tar: bytes, *, flip: bool = False, without: str = "", sealed: bool = False) -> bytes:
    source, target = io.BytesIO(tar), io.BytesIO()
    with tarfile.open(fileobj=source) as old, tarfile.open(fileobj=target, mode="w") as new:
        for member in old:
            if member.name.endswith(without or "\0"):
                continue
            file = old.extractfile(member)
            assert file is not None
            data = file.read()
            if flip and "pack" in member.name:
                data = data[:-1] + bytes([data[-1] ^ 1])
            if sealed and member.name.endswith(MANIFEST_NAME):
                manifest = decode_manifest(data)
                data = encode_manifest(msgspec.structs.replace(manifest, encrypted=True))
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target.getvalue()


async def test_what_is_no_whole_export_changes_nothing(client: Client, tar: bytes) -> None:
    for name in (NAME, OTHER):
        await client.call("DELETE", f"/documents/{name}?purge=true")
    bodies = {
        "export_damaged: has the right size": _altered(tar, flip=True),
        "export_damaged: has no manifest.json": _altered(tar, without=MANIFEST_NAME),
        "export_damaged: has no pack-0001": _altered(tar, without="pack-0001.tar.zst"),
        "export_damaged: is not the .tar": b"no tar" * 200,
        "export_damaged: is not the .tar of an export": tar[: len(tar) // 2 - 700],
        "key_missing: encrypted": _altered(tar, sealed=True),
    }

    for expected, body in bodies.items():
        code, _, text = expected.partition(": ")
        status, refused, _ = await client.call("POST", "/import", body, Content_Type=TAR)
        assert (status, refused["code"]) == (422, code), expected
        assert text in refused["detail"] or len(body) < len(tar), (expected, refused["detail"])
    assert (await client.call("GET", "/documents"))[1]["documents"] == []
