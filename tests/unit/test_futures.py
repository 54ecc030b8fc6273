"""Work for a future is done once, whether a pool or its caller does it."""

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from seline import open_seline
from seline.ports.futures import run_once
from tests.faults.injection import refuse_threads


def test_work_that_a_thread_has_begun_is_not_done_again() -> None:
    def work() -> int:
        begun.append(threading.get_ident())
        may_go_on.wait(10)
        return 7

    begun, may_go_on, future = list[int](), threading.Event(), Future[int]()
    run = run_once(work, future)
    thread = threading.Thread(target=run)
    thread.start()
    while not begun:
        pass
    run()
    assert not future.done()
    may_go_on.set()
    thread.join()
    run()

    assert future.result() == 7
    assert len(begun) == 1


def test_work_whose_future_is_cancelled_is_not_done() -> None:
    future = Future[None]()
    future.cancel()

    run_once(lambda: pytest.fail("it was done"), future)()

    assert future.cancelled()


async def test_a_read_that_finds_no_thread_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece of an export would be read a second time, and be missing in it."""
    refuse_threads(monkeypatch, "seline-reader", after=1)
    pieces, may_go_on = iter("abc"), threading.Event()
    async with open_seline(tmp_path) as seline:
        busy = asyncio.create_task(seline.store.reading(lambda: may_go_on.wait(10)))
        await asyncio.sleep(0)
        assert await seline.store.reading(lambda: next(pieces)) == "a"
        may_go_on.set()
        await busy

    assert [*pieces] == ["b", "c"]
