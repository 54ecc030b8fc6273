"""Test imports over HTTP: of any size, all of it or nothing, and no file is left open."""

import asyncio
import errno
import gc
import json
import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from seline import open_seline, spool
from seline.domain.document import Content
from seline.errors import NestedEdit, StorageError
from seline.manager.blocks import Locked
from seline.operations import operations
from seline.server import Serving
from seline.settings import Storage
from seline.storage.volume import directory, files
from tests.command_line import line_at
from tests.faults.injection import failing_call
from tests.http_client import ADMIN, Client

MIB = 1 << 20


@pytest.fixture
def small_spools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every spool use its temporary file from the first byte on."""
    initialize = spool.Spool.__init__
    monkeypatch.setattr(spool.Spool, "__init__", lambda self, _=0: initialize(self, 0))


def an_export(count: int = 3, **more: Any) -> dict[str, Any]:
    return {"files": {**{f"d{number}.json": {"n": number} for number in range(count)}, **more}}


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def no_more_open_files_than(count: int) -> None:
    async with asyncio.timeout(5):
        while open_files() > count:
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("small_spools")
async def test_an_import_through_temporary_files_stores_the_documents(client: Client) -> None:
    status, report, _ = await client.call("POST", "/import", an_export(200))

    assert (status, len(report["created"])) == (200, 200)
    assert (await client.call("GET", "/documents/d199.json"))[1] == {"n": 199}
    assert (await client.call("POST", "/verify"))[1]["findings"] == []


@pytest.mark.usefixtures("small_spools")
@pytest.mark.parametrize(
    ("last", "code"),
    [
        (b', "z.json": 1e}}', "invalid_request"),
        (b', "z.json": 1e400}}', "import_refused"),
        (b', "no name": 1}}', "import_refused"),
        (b', "z.json": "' + b"x" * (33 * MIB) + b'"}}', "import_refused"),
        (b"", "invalid_request"),
    ],
    ids=["a flaw", "a large number", "a wrong name", "a large document", "cut off"],
)
async def test_an_import_with_a_wrong_last_document_changes_nothing(
    client: Client, last: bytes, code: str
) -> None:
    body = json.dumps(an_export(50)).encode()[:-2] + last

    _, refused, _ = await client.call("POST", "/import", body)

    assert refused["code"] == code
    assert (await client.call("GET", "/documents"))[1]["documents"] == []


@pytest.mark.prove
@pytest.mark.usefixtures("small_spools")
async def test_no_file_stays_open_after_imports(client: Client) -> None:
    await client.call("POST", "/import", an_export())
    before = open_files()
    for body in (an_export(), an_export(wrong=1), {"files": 3}):
        await client.call("POST", "/import", body)

    await no_more_open_files_than(before)


@pytest.mark.prove
@pytest.mark.usefixtures("small_spools")
async def test_an_upload_that_is_broken_off_leaves_no_file_open(server: Serving) -> None:
    host, _, port = server.address.removeprefix("http://").partition(":")
    before = open_files()
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/v1/data-admin/import HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: 1000000\r\n"
        b"Authorization: Bearer " + ADMIN.encode() + b'\r\n\r\n{"files": {' + b" " * 100_000
    )
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await writer.wait_closed()

    await no_more_open_files_than(before)


@pytest.mark.usefixtures("small_spools")
async def test_a_full_temporary_directory_refuses_a_large_import(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)

    status, refused, _ = await client.call("POST", "/import", an_export())

    assert (status, refused["code"]) == (507, "volume_full")
    assert "TMPDIR" in refused["hint"]


@pytest.mark.parametrize(
    ("body", "detail", "line", "column"),
    [
        (b'{"files":{"a.json":"caf\xe9"}}', "not UTF-8 at byte 23", 1, 24),
        ('{"files":{}}'.encode("utf-16-le"), "UTF-16LE, not UTF-8", 1, 1),
        (
            b'{"files":{"a.json":{"b":[1,"\\ud800"]}}}',
            "$.files['a.json']: a text with a",
            None,
            None,
        ),
        (b'{"files":{"a.json":1,\n"a.json":2}}', 'duplicate key "a.json"', 2, 1),
        (b" \n ", "only white space", None, None),
    ],
)
async def test_a_refused_import_names_document_and_place(
    client: Client, body: bytes, detail: str, line: int | None, column: int | None
) -> None:
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    path = f"{client.base}/import"
    async with client.session.post(path, data=body, headers=headers) as response:
        refused = await response.json()

    assert response.status == 422
    assert detail in refused["detail"]
    assert (refused.get("line"), refused.get("column")) == (line, column)


async def test_a_small_import_needs_no_temporary_file(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", None)

    assert (await client.call("POST", "/import", an_export()))[0] == 200


@pytest.mark.prove
def test_the_memory_of_an_import_does_not_depend_on_its_size(tmp_path: Path) -> None:
    line = line_at(tmp_path, SELINE_ADMIN_TOKEN=ADMIN)
    export = a_large_export(tmp_path / "export.json", "x")
    changed = a_large_export(tmp_path / "changed.json", "y")
    out = tmp_path / "out"
    with out.open("wb") as stdout:
        server = line.start("serve", "--host", "127.0.0.1", "--port", "0", stdout=stdout)
    try:
        address = f"{ready_address(out)}/api/v1/data-admin/import"
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # measure the peak from here on
        before = peak_bytes(server.pid)
        assert len(uploaded(export, address)["created"]) == 240
        assert peak_bytes(server.pid) - before < 24 * MIB
        assert len(uploaded(changed, f"{address}?dry_run=true")["changed"]) == 240
        assert len(uploaded(changed, address)["changed"]) == 240
        assert peak_bytes(server.pid) - before < 64 * MIB
    finally:
        server.terminate()
        server.wait(10)


def a_large_export(path: Path, letter: str) -> Path:
    with path.open("w") as file:
        for number in range(240):
            items = [f"{number} {index} " + letter * 80 for index in range(5_000)]
            file.write("," if number else '{"files": {')
            file.write(f'\n"d{number}.json": {json.dumps(items)}')
        file.write("}}")
    assert path.stat().st_size > 100 * MIB
    return path


def uploaded(export: Path, address: str) -> dict[str, Any]:
    answer = subprocess.run(
        ["curl", "-sS", "-X", "POST", "-T", export, "-H", f"Authorization: Bearer {ADMIN}",
         "-H", "Content-Type: application/json", address],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(answer.stdout)
    return report


def ready_address(out: Path) -> str:
    import time

    for _ in range(200):
        found = re.search(r"ready on (http://[0-9.:]+)", out.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError("the server was not ready in time")


def peak_bytes(pid: int) -> int:
    """Return the largest resident size of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) << 10  # type: ignore[index]


async def test_other_tasks_run_while_an_import_locks_its_documents(tmp_path: Path) -> None:
    """Each lock is free, so nothing else lets go of the event loop."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with open_seline(tmp_path) as seline:
        other = asyncio.ensure_future(others())
        with Locked(seline.store) as locked:
            await asyncio.sleep(0)
            before = turns
            await locked.lock(f"d{number}.json" for number in range(5_000))
            assert turns - before >= 40
            with pytest.raises(NestedEdit):
                await seline.data.save_json("d4999.json", {})
        other.cancel()


async def test_imports_are_parsed_one_at_a_time_and_no_read_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[spool.Spool] = []
    may_end = threading.Event()

    def parse(upload: spool.Spool, _limits: Storage) -> dict[str, Content]:
        begun.append(upload)
        may_end.wait(5)
        return {}

    monkeypatch.setattr(operations, "contents_of_upload", parse)
    async with open_seline(tmp_path) as seline:
        uploads = [seline.import_spool(spool.Spool(), replace=False) for _ in range(4)]
        imports = [asyncio.ensure_future(upload) for upload in uploads]
        try:
            async with asyncio.timeout(1):
                while not begun:
                    await asyncio.sleep(0)
                assert await seline.store.reading(lambda: len(begun)) == 1
        finally:
            may_end.set()
        await asyncio.gather(*imports)

    assert len(begun) == 4


@pytest.mark.usefixtures("small_spools")
async def test_an_import_that_cannot_be_read_back_is_a_typed_error(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pread", failing_call(errno.EIO))

    status, refused, _ = await client.call("POST", "/import", an_export())

    assert (status, refused["code"]) == (500, "storage_error")
    assert "temporary files refuses this transfer: Input/output error" in refused["detail"]


async def test_an_export_and_an_opening_that_cannot_look_at_a_file_raise_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_seline(tmp_path) as seline:
        await seline.data.save_json("a.json", {})
        monkeypatch.setattr(files, "status", failing_call(errno.EIO))
        with pytest.raises(StorageError, match=r"Reading a\.json: EIO"):
            await seline.data.export_all_data()
        monkeypatch.undo()
    monkeypatch.setattr(directory, "_device_and_inode", failing_call(errno.EIO))
    with pytest.raises(StorageError, match="EIO"):
        await open_seline(tmp_path)
