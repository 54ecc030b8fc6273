"""The locks of documents: a block holds one, every other change of the document queues behind it.

V6  `edit` and `transaction` lock; plain changes take effect in order of arrival and lock nothing. A
    lock is released by the end of its commit (never by the caller's `finally`), or is lost after
    `limit_s`. A waiter gives up after `wait_s` with DocumentBusy, which names since when.

A change that waits is started by the thread that releases the lock, in the order of the queue: so
no later change gets between its release and its submission.
"""

import contextvars
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from seline.clock import Clock, instant_text
from seline.errors import DocumentBusy, NestedEdit, RevisionMismatch
from seline.ports.futures import refuse_in_turn, wait_for

LONG_HOLD_S: Final = 5.0
TRANSACTION: Final = "\0transaction"
_log = logging.getLogger("seline.manager")
T = TypeVar("T")

_held: contextvars.ContextVar[tuple["DocumentLock", ...]] = contextvars.ContextVar(
    "seline_held", default=()
)


@dataclass(slots=True, eq=False)
class DocumentLock:
    """One block's lock of one document."""

    name: str
    since_s: float
    since: str
    place: str
    queue: "_Queue"
    active: bool = True
    ended_by: Future[Any] | None = None

    @property
    def is_in_block(self) -> bool:
        """Whether the block goes on. A thread sees its commit end before the lock is released."""
        return self.active and (self.ended_by is None or not self.ended_by.done())


_Waiter: TypeAlias = tuple[Callable[[], Any], Future[Any]]
"""What starts a change, or grants a block its lock, and the future that has its result."""


@dataclass(slots=True, eq=False)
class _Queue:
    holder: DocumentLock | None = None
    waiting: deque[_Waiter] = field(default_factory=deque[_Waiter])


class DocumentLocks:
    """The locks and queues of one manager's documents. Any thread."""

    def __init__(self, clock: Clock, *, wait_s: float, limit_s: float) -> None:
        self._clock = clock
        self._wait_s = wait_s
        self._limit_s = limit_s
        self._queues: dict[str, _Queue] = {}
        self._lock = threading.RLock()

    async def through(self, name: str, start: Callable[[], Future[T]]) -> Future[T]:
        """Start a change in its turn, behind the lock of the document, and return its future.

        Raises NestedEdit where this task holds it itself, DocumentBusy after `wait_s`.
        """
        self._refuse_nested(name)
        with self._lock:
            queue = self._queues.get(name)
            if queue is None:
                return start()
            waiter: _Waiter = (start, Future())
            queue.waiting.append(waiter)
        # if the caller is cancelled, the change stays in the queue and runs to its end (V7)
        future: Future[T] = await self._wait(name, queue, waiter)
        return future

    async def lock(self, name: str) -> DocumentLock:
        """Lock a document in its turn; then call `hold`. Raises NestedEdit, DocumentBusy."""
        self._refuse_nested(name)
        place = _calling_place()
        with self._lock:
            queue = self._queues.setdefault(name, _Queue())
            waiter: _Waiter = (partial(self._grant, name, queue), Future())
            queue.waiting.append(waiter)
            if queue.holder is None:
                self._start_next(name, queue)
        try:
            lock: DocumentLock = await self._wait(name, queue, waiter)
        except BaseException:
            self._leave(queue, waiter)
            raise
        lock.place = place
        return lock

    def hold(self, locks: Sequence[DocumentLock]) -> None:
        """Make these locks those of this task, which then refuses to wait for itself."""
        _held.set((*(held for held in _held.get() if held.active), *locks))

    def release(self, lock: DocumentLock) -> None:
        """Release a lock and start what waits; idempotent, also for a lock that was lost."""
        with self._lock:
            if not lock.active:
                return
            lock.active = False
            held_s = self._clock.monotonic() - lock.since_s
            if lock.queue.holder is lock:
                lock.queue.holder = None
                self._start_next(lock.name, lock.queue)
        if held_s > LONG_HOLD_S and lock.name != TRANSACTION:
            _log.warning("%s was held for %.1f s by the block at %s", lock.name, held_s, lock.place)

    def commit(self, locks: Sequence[DocumentLock], start: Callable[[], Future[T]]) -> Future[T]:
        """Start the commit that releases these locks. Raises RevisionMismatch if one was lost.

        A block that got a lost lock commits next, with the revision that it has read.
        """
        with self._lock:
            for lock in locks:
                if not lock.active:
                    raise _lost(lock)
            future = start()
            for lock in locks:
                lock.ended_by = future

        def ended(_: Future[T]) -> None:
            for lock in locks:
                self.release(lock)

        future.add_done_callback(ended)
        return future

    def _refuse_nested(self, name: str) -> None:
        refuse_in_turn()
        held = _held.get()
        if not held:
            return
        active = tuple(lock for lock in held if lock.is_in_block)
        if len(active) < len(held):  # else an import would look at each lock of the one before
            _held.set(active)
        for lock in active:
            if lock.name == name and self._queues.get(name) is lock.queue:
                what = "a transaction" if name == TRANSACTION else name
                raise NestedEdit(
                    f"This task holds {what} already, since the block at {lock.place}; "
                    "changing it here would wait for itself."
                )

    async def _wait(self, name: str, queue: _Queue, waiter: _Waiter) -> Any:
        _, granted = waiter
        deadline = self._clock.monotonic() + self._wait_s
        while True:
            with self._lock:
                left_s = deadline - self._clock.monotonic()
                holder = queue.holder
                expires_s = left_s
                if holder is not None:
                    expires_s = holder.since_s + self._limit_s - self._clock.monotonic()
                if expires_s <= 0 and holder is not None and not granted.done():
                    self._lose(holder)
                elif left_s <= 0 and not granted.done():
                    queue.waiting.remove(waiter)
                    raise self._busy(name, holder)
            try:
                return await wait_for(granted, timeout_s=max(min(left_s, expires_s), 0.0))
            except TimeoutError:
                continue

    def _lose(self, lock: DocumentLock) -> None:
        """Take away a lock that was held too long: its commit is refused as stale."""
        _log.warning("%s was held for too long by the block at %s", lock.name, lock.place)
        self.release(lock)

    def _leave(self, queue: _Queue, waiter: _Waiter) -> None:
        """Remove a block that waits no more from the queue, or release the lock it was granted."""
        with self._lock:
            if waiter in queue.waiting:
                queue.waiting.remove(waiter)
        _, granted = waiter
        if granted.done() and not granted.exception():
            self.release(granted.result())

    def _busy(self, name: str, holder: DocumentLock | None) -> DocumentBusy:
        if holder is None:
            return DocumentBusy(f"{name} has too many waiting changes.")
        what = "A transaction" if name == TRANSACTION else f"An edit of {name}"
        return DocumentBusy(
            f"{what} at {holder.place} has been open since {holder.since}; nothing was written.",
            since=holder.since,
        )

    def _start_next(self, name: str, queue: _Queue) -> None:
        """Start every waiting change up to the next block, and grant that block its lock."""
        while queue.waiting and queue.holder is None:
            start, granted = queue.waiting.popleft()
            try:
                granted.set_result(start())
            except Exception as error:  # noqa: BLE001  # raised to the waiting caller
                granted.set_exception(error)
        if queue.holder is None and not queue.waiting:
            self._queues.pop(name, None)

    def _grant(self, name: str, queue: _Queue) -> DocumentLock:
        lock = DocumentLock(
            name, self._clock.monotonic(), instant_text(self._clock.now()), "another task", queue
        )
        queue.holder = lock
        return lock


def _lost(lock: DocumentLock) -> RevisionMismatch:
    what = "This transaction" if lock.name == TRANSACTION else f"This edit of {lock.name}"
    return RevisionMismatch(
        f"{what} was open for too long and lost its lock to another; nothing was written.",
        hint="Read again and try again; keep `edit` and `transaction` blocks short.",
        document="" if lock.name == TRANSACTION else lock.name,
    )


def _calling_place() -> str:
    """Return the file and line of the block outside of Seline that is being entered."""
    frame = sys._getframe(1)  # noqa: SLF001  # the documented way to a caller's line
    inside = ("seline.", "contextlib")
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(inside):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"
