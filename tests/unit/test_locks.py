"""The locks of documents, where a thread is faster than the one that releases them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from seline.clock import Clock
from seline.manager.locks import DocumentLocks


class _Unannounced(Future[Any]):
    """A future whose callbacks run when the test calls them, after its result is there."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: list[Callable[[Any], object]] = []

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        self.callbacks.append(fn)


async def test_a_change_right_after_a_block_is_not_taken_for_one_inside_it() -> None:
    """A thread that waits for the commit wakes before the callback that releases the lock."""
    locks = DocumentLocks(Clock(), wait_s=5, limit_s=30)
    lock = await locks.lock("a.json")
    locks.hold([lock])
    commit = _Unannounced()
    locks.commit([lock], lambda: commit)
    commit.set_result(())
    started = Future[str]()
    started.set_result("saved")

    change = asyncio.ensure_future(locks.through("a.json", lambda: started))
    await asyncio.sleep(0)
    for callback in commit.callbacks:
        callback(commit)

    assert (await change).result() == "saved"
