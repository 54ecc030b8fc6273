"""Wait for a store's future, with or without an event loop.

The manager's coroutines wait only through `wait_for`. In an event loop it awaits. Without one it
blocks, so `run_without_loop` runs the same coroutine in one step. No asyncio object outlives its
loop. Cancelling a caller does not cancel the future.

While the store carries out a change, it may call a function of the caller (`update_json`). That is
the store's turn: the function must not wait for the store, which waits for the function.
"""

import asyncio
import contextvars
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from seline.errors import NestedEdit

T = TypeVar("T")

_in_turn: contextvars.ContextVar[bool] = contextvars.ContextVar("seline_in_turn", default=False)


class Promise(Future[T]):
    """A future that cannot be cancelled: the work is done whether or not a caller waits."""

    def cancel(self) -> bool:
        """Do nothing, and return False."""
        return False


def run_once(work: Callable[[], T], future: Future[T]) -> Callable[[], None]:
    """Return what runs work for a future, unless it is cancelled, or another call has begun it.

    A pool that cannot start a thread keeps the work in its queue and raises: the caller may then
    call this, too.
    """
    return partial(_run_unclaimed, threading.Lock(), work, future)


def _run_unclaimed(claim: threading.Lock, work: Callable[[], T], future: Future[T]) -> None:
    if not claim.acquire(blocking=False) or not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001  # raised to the caller that waits
        future.set_exception(error)
        del work, future  # else this frame, which the error refers to, keeps the error


async def wait_for(future: Future[T], *, timeout_s: float | None = None) -> T:
    """Return the future's result. Raises TimeoutError after `timeout_s`; the future continues.

    Raises NestedEdit in the store's turn, where waiting would deadlock.
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
        if not future.done():  # else the result was in time, and only this loop was late
            raise
    return future.result()


async def pause(seconds: float) -> None:
    """Wait, with an event loop or without one."""
    if in_loop():
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)  # noqa: ASYNC251  # there is no loop in this thread


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
    """Mark the block as the store's turn, in which a caller's function runs."""
    token = _in_turn.set(True)
    try:
        yield
    finally:
        _in_turn.reset(token)


def in_turn() -> bool:
    """Whether this code runs in the store's turn."""
    return _in_turn.get()


def refuse_in_turn() -> None:
    """Raise NestedEdit in the store's turn."""
    if _in_turn.get():
        raise NestedEdit(
            "The function given to `update_json` called the store, which waits for its end.",
            hint="Read before `update_json` what its function needs, or use `edit` or "
            "`transaction`.",
        )


def run_without_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits only through `wait_for`, in a thread without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    raise AssertionError("a coroutine of the manager waited without `wait_for`")


class _Mailbox:
    """Wakes the waiters of one loop, with one call into the loop for a whole batch.

    Only callbacks of futures refer to it, so it is freed with them after its loop was closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._scheduled = False
        self._lock = threading.Lock()

    def deliver(self, waiter: asyncio.Future[None]) -> None:
        """Wake a waiter, from any thread. Does nothing if the loop is closed."""
        self._waiters.append(waiter)
        batch = _batch.get()
        if batch is None:
            self.wake()
        else:
            batch.add(self)

    def wake(self) -> None:
        """Schedule the wake-up of all waiters in the loop, unless it is already scheduled."""
        with self._lock:
            if self._scheduled:
                return
            self._scheduled = True
        try:
            self._loop.call_soon_threadsafe(self._empty)
        except RuntimeError:
            self._waiters.clear()

    def _empty(self) -> None:
        with self._lock:
            self._scheduled = False
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)


_batch: contextvars.ContextVar[set[_Mailbox] | None] = contextvars.ContextVar(
    "seline_batch", default=None
)
"""The mailboxes to wake at the end of a block of `one_wakeup`."""


class one_wakeup:  # noqa: N801  # used as `with one_wakeup():`
    """Wake each loop once for all the futures that this thread completes inside the block.

    Each wake-up passes the interpreter lock to the loop. With one per future, the writer and the
    loop would spend their time passing it back and forth. A class, because each save passes it,
    and a generator costs more.
    """

    __slots__ = ("_to_wake", "_token")

    def __enter__(self) -> None:
        """Begin the block."""
        self._to_wake: set[_Mailbox] = set()
        self._token = _batch.set(self._to_wake)

    def __exit__(self, *_: object) -> None:
        """Wake the loops."""
        _batch.reset(self._token)
        for mailbox in self._to_wake:
            mailbox.wake()


_mailboxes: weakref.WeakValueDictionary[int, _Mailbox] = weakref.WeakValueDictionary()


def _mailbox_of(loop: asyncio.AbstractEventLoop) -> _Mailbox:
    mailbox = _mailboxes.get(id(loop))  # a mailbox keeps its loop alive, so the id is unique
    if mailbox is None:
        mailbox = _mailboxes[id(loop)] = _Mailbox(loop)
    return mailbox
