"""The S3 destination against OpenStack Swift, which checks signatures, and against moto."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seline import __version__, open_seline
from seline.errors import ExportFailed, SelineError
from seline.operations import Operations
from seline.operations.copies import Copies
from seline.operations.export_folders import ExportFolders
from seline.operations.exports import Exporter
from seline.operations.own_exports import read_back
from seline.outbound.destinations import bucket as bucket_module
from seline.outbound.destinations.s3 import S3
from seline.ports.destinations import Listed, ObjectMissing, Target
from seline.ports.sealing import UNSEALED
from tests.acceptance.s3_services import moto, swift

pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]
KEYS = {"access_key_id": "test:tester", "secret_access_key": "testing"}
GUEST = {"access_key_id": "test:guest", "secret_access_key": "guesting"}


@pytest.fixture(scope="module")
def swift_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swift")


@pytest.fixture(scope="module")
def swift_url(swift_folder: Path) -> Iterator[str]:
    with swift(swift_folder) as (url, _):
        yield url


@pytest.fixture(scope="module", params=["swift", "moto"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "swift":
        yield request.getfixturevalue("swift_url")
    else:
        with moto() as (address, _):
            yield address


def store_at(url: str, address: str = "s3://copies/pre/fix", **options: Any) -> S3:
    return S3("bucket", address, endpoint=url, **{**KEYS, "timeout_s": 60, **options})


async def test_a_service_keeps_objects_as_the_port_promises(url: str) -> None:
    store = store_at(url, "s3://copies/port")
    assert list(await store.list("")) == []
    for key in ("top", "a/b", "a/c/d", "ab/e"):
        await store.put(key, key.encode())
    await store.put("a/b", b"replaced")
    await store.put("a/b", b"not this", replace=False)

    assert set(await store.list("")) == {Listed("a", None), Listed("ab", None), Listed("top", 3)}
    assert set(await store.list("a")) == {Listed("b", 8), Listed("c", None)}
    assert list(await store.list("none")) == []
    assert await store.get("a/b") == b"replaced"
    await store.remove("a/b")
    await store.remove("a/b")
    with pytest.raises(ObjectMissing):
        await store.get("a/b")


async def test_one_of_many_who_make_an_object_at_once_makes_it(url: str) -> None:
    store = store_at(url, "s3://copies/race")
    contents = [f"{number}".encode() for number in range(8)]
    await asyncio.gather(*(store.put("a", content, replace=False) for content in contents))
    first = await store.get("a")
    await asyncio.gather(*(store.put("a", content, replace=False) for content in contents))
    assert await store.get("a") == first


async def test_large_objects_and_many_objects_are_whole(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(url, "s3://copies/large")
    data = os.urandom(1 << 20) * 20
    await store.put("single", data)
    monkeypatch.setattr(bucket_module, "SINGLE_BYTES_MAX", 8 << 20)
    monkeypatch.setattr(bucket_module, "_PART_BYTES", 8 << 20)
    await store.put("parts", data)
    assert await store.get("single") == await store.get("parts") == data

    for start in range(0, 1020, 20):
        keys = [f"many/{number:04}" for number in range(start, start + 20)]
        await asyncio.gather(*(store.put(key, b"1") for key in keys))
    assert len(await store.list("many")) == 1020


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("s3://copies", {"secret_access_key": "wrong"}, "secret is not that of the access key"),
        ("s3://copies", {"access_key_id": "test:nobody"}, "not that of the access key"),
        ("s3://another", {}, "no such bucket"),
        ("s3://copies", GUEST, "no right to do this"),
    ],
)
async def test_a_service_that_refuses_is_explained(
    swift_url: str, address: str, options: dict[str, str], said: str
) -> None:
    store = store_at(swift_url, address, **options)
    for call in (store.list("a"), store.put("a", b"1"), store.get("a"), store.remove("a")):
        with pytest.raises(ExportFailed, match=said) as failed:
            await call
        assert not isinstance(failed.value, ObjectMissing)
        text = f"{failed.value.message}{failed.value.hint}"
        assert not any(secret in text for secret in (*KEYS.values(), *GUEST.values()))


async def test_a_full_bucket_is_named_and_holds_what_it_held(swift_url: str) -> None:
    store = store_at(swift_url, "s3://full")
    await store.put("a", b"1" * 900)
    with pytest.raises(ExportFailed, match="larger than the service accepts"):
        await store.put("a", b"2" * 1100)
    assert await store.get("a") == b"1" * 900


async def test_a_clock_that_differs_is_named(tmp_path: Path) -> None:
    with swift(tmp_path, clock_offset_s=3600) as (url, _):
        with pytest.raises(ExportFailed, match="the clock of this machine differs") as failed:
            await store_at(url).put("a", b"1")
        assert "clock" in failed.value.hint


async def test_a_service_killed_during_an_upload_has_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_RETRIES", 1)
    data = os.urandom(1 << 20) * 30
    whole = 0
    for number, delay_s in enumerate((0.0, 0.05, 0.15, 0.4)):
        with swift(tmp_path) as (url, process):
            store = store_at(url)
            await store.put("before", b"1")
            upload = asyncio.create_task(store.put(f"new-{number}", data))
            await asyncio.sleep(delay_s)
            process.kill()
            [outcome] = await asyncio.gather(upload, return_exceptions=True)
            assert outcome is None or isinstance(outcome, ExportFailed)
        with swift(tmp_path) as (url, _):
            store = store_at(url)
            assert await store.get("before") == b"1"
            try:
                assert await store.get(f"new-{number}") == data
                whole += 1
            except ObjectMissing:
                assert outcome is not None, "an upload that was confirmed is there"
    assert whole < 4, "some upload was broken off"


async def test_an_export_in_a_bucket_is_whole_until_an_object_is_altered(
    tmp_path: Path, swift_url: str, swift_folder: Path
) -> None:
    store = store_at(swift_url, "s3://copies/exports")
    async with open_seline(tmp_path / "data") as seline:
        await seline.data.save_json("a.json", {"n": list(range(1000))})
        exporter = Exporter(seline.store, [Target(store, 7)], version=__version__)
        assert "read back" in await exporter.run()
        folders = ExportFolders(store)
        [export] = await folders.complete()
        assert [document.name for document in (await read_back(folders, export)).documents] == [
            "a.json"
        ]

        alter_pack(swift_folder, await folders.get(export, "pack-0001.tar.zst", 1 << 20))
        with pytest.raises(SelineError) as failed:
            await read_back(folders, export)
        assert "pack-0001" in failed.value.message


async def test_the_mirror_brings_a_change_to_a_bucket_and_back(
    tmp_path: Path, swift_url: str
) -> None:
    store = store_at(swift_url, "s3://copies/mirror")
    async with open_seline(tmp_path / "data") as seline:
        operations = Operations(seline.store, [Target(store, 7, mode="mirror")], version="test")
        for number in (1, 2):
            await seline.data.save_json("a.json", {"n": number})
            await operations.mirrors.run()
        await operations.mirrors.close()

    copy = await Copies(store, UNSEALED).find()
    [document] = copy.documents
    assert document.name == "a.json"
    assert json.loads(await copy.fetch(document.sha256)) == {"n": 2}


def test_a_process_ends_in_order_after_a_request_that_failed(tmp_path: Path) -> None:
    with moto() as (url, _):
        bucket = {"name": "bucket", "url": "s3://missing/bot", "endpoint": url, **KEYS}
        variables = {
            "SELINE_STORAGE__DATA_DIR": str(tmp_path),
            "SELINE_EXPORTS__DESTINATIONS": json.dumps([bucket]),
        }
        fetch = [sys.executable, "-m", "seline", "exports", "fetch", "bucket", str(tmp_path / "x")]
        for _ in range(30):
            ended = subprocess.run(
                fetch, env=os.environ | variables, capture_output=True, text=True, check=False
            )
            assert (ended.returncode, "no such bucket" in ended.stderr) == (1, True), ended.stderr


def alter_pack(folder: Path, content: bytes) -> None:
    """Flip one bit of an object on the disk of the service."""
    for path in (folder / "devices").rglob("*.data"):
        if path.read_bytes() == content:
            with path.open("r+b") as file:
                file.seek(len(content) // 2)
                byte = file.read(1)[0]
                file.seek(len(content) // 2)
                file.write(bytes([byte ^ 1]))
            return
    raise AssertionError("the object is not on the disk")
