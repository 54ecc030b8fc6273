"""Wait for a store's future, with an event loop or without one.

The manager is written once, as coroutines whose every wait goes through `wait_for`. Inside a loop
that awaits; without a loop it simply blocks, so `run_without_loop` can drive the same coroutine to
its end in one step. No asyncio object outlives the loop that made it, and a cancelled caller takes
nothing back: the future runs to its end.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections import deque
from collections.abc import Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from seline.errors import NestedEdit

T = TypeVar("T")

_in_turn: contextvars.ContextVar[bool] = contextvars.ContextVar("seline_in_turn", default=False)


async def wait_for(future: Future[T], *, timeout_s: float | None = None) -> T:
    """Return the future's result. Raises TimeoutError after `timeout_s`, leaving the future be.

    Raises NestedEdit where waiting would have a turn wait for itself.
    """
    if future.done():
        return future.result()
    refuse_in_turn()
    loop = _running_loop()
    if loop is None:
        return future.result(timeout_s)
    waiter = loop.create_future()
    mailbox = _mailbox_of(loop)
    future.add_done_callback(lambda _: mailbox.deliver(waiter))
    if timeout_s is None:
        await waiter
        return future.result()
    try:
        async with asyncio.timeout(timeout_s):
            await waiter
    except TimeoutError:
        if not future.done():  # else only this loop stood still
            raise
    return future.result()


def in_loop() -> bool:
    """Whether an event loop runs in this thread."""
    return _running_loop() is not None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@contextmanager
def turn() -> Generator[None]:
    """Run a caller's function in the store's turn: nothing else is carried out meanwhile."""
    token = _in_turn.set(True)
    try:
        yield
    finally:
        _in_turn.reset(token)


def in_turn() -> bool:
    """Whether the caller runs in the store's turn."""
    return _in_turn.get()


def refuse_in_turn() -> None:
    """Raise NestedEdit inside the store's turn: what is asked for has to wait for its end."""
    if in_turn():
        raise NestedEdit(
            "A function that runs in the store's turn asked for something that waits for its end.",
            hint="Read before `update_json` what its function needs, or use `edit` or "
            "`transaction`.",
        )


def run_without_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose waits all go through `wait_for`, in a thread without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    raise AssertionError("a coroutine of the manager waited outside of `wait_for`")


class _Mailbox:
    """Wakes the waiters of one loop, a whole batch with one call into the loop.

    Only what will deliver to it, or is delivered, holds it: whatever a loop that was closed has
    left unheard goes with the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._called = False
        self._lock = threading.Lock()

    def deliver(self, waiter: asyncio.Future[None]) -> None:
        """Wake a waiter from any thread; a loop that is closed needs nothing any more."""
        self._waiters.append(waiter)
        together = _together.mailboxes
        if together is None:
            self.wake()
        else:
            together.add(self)

    def wake(self) -> None:
        """Have the loop look into the mailbox, with one call however many wait."""
        with self._lock:
            if self._called:
                return
            self._called = True
        try:
            self._loop.call_soon_threadsafe(self._empty)
        except RuntimeError:
            self._waiters.clear()

    def _empty(self) -> None:
        with self._lock:
            self._called = False
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)


class _Together(threading.local):
    mailboxes: set[_Mailbox] | None = None


_together = _Together()


@contextmanager
def together() -> Generator[None]:
    """Wake each loop once for all the futures that this thread settles inside the block.

    Waking a loop hands it the interpreter; once for every answer of a batch, writer and loop would
    spend their time handing it to and fro.
    """
    mailboxes: set[_Mailbox] = set()
    _together.mailboxes = mailboxes
    try:
        yield
    finally:
        _together.mailboxes = None
        for mailbox in mailboxes:
            mailbox.wake()


_mailboxes: weakref.WeakValueDictionary[int, _Mailbox] = weakref.WeakValueDictionary()


def _mailbox_of(loop: asyncio.AbstractEventLoop) -> _Mailbox:
    mailbox = _mailboxes.get(id(loop))  # it holds its loop, so the number is that loop's alone
    if mailbox is None:
        mailbox = _mailboxes[id(loop)] = _Mailbox(loop)
    return mailbox
