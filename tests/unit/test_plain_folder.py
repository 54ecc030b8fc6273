"""A copy as plain files is whole or does not exist, also if its writing is interrupted."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from seline.clock import Clock
from seline.domain.copy import Copy
from seline.domain.document import Content, Revision
from seline.domain.manifest import PackedDocument
from seline.folders.plain import write_plain
from tests.faults.injection import refuse_threads

CONTENT = Content.of(b'{"n": 1}')
DOCUMENT = PackedDocument(
    name="a.json", sha256=CONTENT.revision, size_bytes=CONTENT.size_bytes, backups=()
)


async def write(folder: Path) -> None:
    async def fetch(_: Revision) -> bytes:
        return CONTENT.data

    copy = Copy(
        name="a copy", taken_at=Clock().now(), volume="", documents=(DOCUMENT,), fetch=fetch
    )
    await write_plain(copy, [DOCUMENT], str(folder), lambda _: None)


async def test_a_writer_that_is_cancelled_waits_until_the_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync() -> None:
        begun.set()
        may_go_on.wait(10)

    begun, may_go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(os, "sync", sync)
    writing = asyncio.create_task(write(tmp_path / "new"))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(2):
        writing.cancel()
        await asyncio.wait([writing], timeout=0.02)
    staged = [path for path in tmp_path.iterdir() if (path / "a.json").exists()]
    may_go_on.set()
    await asyncio.wait([writing])

    assert len(staged) == 1
    assert writing.cancelled()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new" / "a.json").read_bytes() == CONTENT.data


async def test_a_folder_is_written_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_threads(monkeypatch, "")

    await write(tmp_path / "new")

    assert (tmp_path / "new" / "a.json").read_bytes() == CONTENT.data
