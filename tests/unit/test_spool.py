"""A closed spool uses its descriptor no more: another file may have it by then."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from seline.http import files
from seline.spool import Spool
from tests.faults.injection import refuse_threads


@contextmanager
def its_descriptor_taken(spool: Spool, path: Path) -> Iterator[None]:
    """Close a spool and give its descriptor to another file, which must stay as it is."""
    assert spool.descriptor is not None
    spool.close()
    path.write_bytes(b"another file's")
    with path.open("r+b") as file:
        os.dup2(file.fileno(), spool.descriptor)
        try:
            yield
            assert os.lseek(spool.descriptor, 0, os.SEEK_CUR) == 0
        finally:
            os.close(spool.descriptor)
    assert path.read_bytes() == b"another file's"


@pytest.mark.parametrize(
    "call",
    [
        lambda spool: spool.append(b"mine"),
        lambda spool: spool.read(0, 4),
        lambda spool: spool.opened(),
        lambda spool: spool.spill(),
    ],
    ids=["append", "read", "opened", "spill"],
)
def test_a_call_after_the_close_is_refused(tmp_path: Path, call: Callable[[Spool], object]) -> None:
    spool = Spool(0)
    spool.append(b"a part")

    with its_descriptor_taken(spool, tmp_path / "other"), pytest.raises(ValueError, match="closed"):
        call(spool)


def test_a_close_waits_for_the_append_in_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: memoryview, offset: int) -> int:
        spool.close()
        return real(descriptor, data[:1], offset)

    spool, real = Spool(0), os.pwrite
    monkeypatch.setattr(os, "pwrite", write)

    spool.append(b"mine")

    assert spool.descriptor is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(spool.descriptor)


@contextmanager
def late_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], object]]:
    """Yield what makes the loop's only thread busy, so that a call is refused and runs at the end.

    No other thread can be started then, and the pool keeps the call in its queue.
    """

    def occupy() -> None:
        with contextlib.suppress(RuntimeError):  # it ended a call, and does not wait yet
            threads.submit(may_go_on.wait, 10)

    threads, may_go_on = ThreadPoolExecutor(2, thread_name_prefix="transfer"), threading.Event()
    refuse_threads(monkeypatch, "transfer", after=1)
    asyncio.get_running_loop().set_default_executor(threads)
    try:
        yield occupy
    finally:
        may_go_on.set()
        threads.shutdown()


async def test_an_upload_that_found_no_thread_writes_into_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pieces(*_: object) -> AsyncGenerator[bytes]:
        yield b"mine"

    spool, request = Spool(0), make_mocked_request("POST", "/")
    spool.append(b"a part")
    monkeypatch.setattr(files, "body_pieces", pieces)
    monkeypatch.setattr(files, "Spool", lambda: spool)
    with contextlib.ExitStack() as taken, late_threads(monkeypatch) as occupy:
        occupy()
        with pytest.raises(RuntimeError, match="can't start"):
            async with files.spooled_body(request, 4):
                pass
        taken.enter_context(its_descriptor_taken(spool, tmp_path / "other"))


async def test_a_download_that_found_no_thread_reads_from_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would move the position at which that file is read or written next."""
    spool = Spool(0)
    spool.append(bytes(2 * files.PIECE_BYTES))
    with contextlib.ExitStack() as taken, late_threads(monkeypatch) as occupy:
        pieces = files.spool_pieces(spool)
        await anext(pieces)
        occupy()
        with pytest.raises(RuntimeError, match="can't start"):
            await anext(pieces)
        taken.enter_context(its_descriptor_taken(spool, tmp_path / "other"))
