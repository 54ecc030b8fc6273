"""Who holds a document while a block is open; everyone else queues behind, in order.

V6  `edit` and `transaction` hold; plain changes pass in their order of arrival and hold nothing.
    A hold ends when its commit has ended (never in the caller's `finally`), or is lost after
    `limit_s`; a waiter gives up after `wait_s` with DocumentBusy naming since when.

A change that has to wait is started by whoever lets it in, in the order of the line, so that a
latecomer can never overtake it between being let in and being submitted.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from seline.clock import Clock, instant_text
from seline.errors import DocumentBusy, NestedEdit, RevisionMismatch
from seline.ports.futures import refuse_in_turn, wait_for

LONG_HOLD_S: Final = 5.0
TRANSACTION: Final = "\0transaction"
_log = logging.getLogger("seline.manager")
T = TypeVar("T")

_held: contextvars.ContextVar[tuple[DocumentLock, ...]] = contextvars.ContextVar(
    "seline_held", default=()
)


@dataclass(slots=True, eq=False)
class DocumentLock:
    """One block's hold on one document."""

    name: str
    since_s: float
    since: str
    place: str
    line: _Line
    active: bool = True


@dataclass(slots=True, eq=False)
class _Waiter:
    start: Callable[[], Future[Any]] | None
    granted: Future[Any] = field(default_factory=Future[Any])


@dataclass(slots=True, eq=False)
class _Line:
    holder: DocumentLock | None = None
    waiting: deque[_Waiter] = field(default_factory=deque[_Waiter])


class DocumentLocks:
    """The lines before the documents of one manager. Any thread."""

    def __init__(self, clock: Clock, *, wait_s: float, limit_s: float) -> None:
        self._clock = clock
        self._wait_s = wait_s
        self._limit_s = limit_s
        self._lines: dict[str, _Line] = {}
        self._lock = threading.RLock()

    async def through(self, name: str, start: Callable[[], Future[T]]) -> Future[T]:
        """Start a change in its turn and return its future, behind whoever holds the document.

        Raises NestedEdit where this task holds it itself, DocumentBusy after `wait_s`.
        """
        self._refuse_nested(name)
        with self._lock:
            line = self._lines.get(name)
            if line is None:
                return start()
            waiter = _Waiter(start)
            line.waiting.append(waiter)
        future: Future[T] = await self._wait(name, line, waiter)
        return future

    async def hold(self, name: str) -> DocumentLock:
        """Hold a document in its turn. Raises NestedEdit, DocumentBusy."""
        self._refuse_nested(name)
        place = _calling_place()
        with self._lock:
            line = self._lines.setdefault(name, _Line())
            waiter = _Waiter(None)
            line.waiting.append(waiter)
            if line.holder is None:
                self._go_on(name, line)
        hold: DocumentLock = await self._wait(name, line, waiter)
        hold.place = place
        _held.set((*(held for held in _held.get() if held.active), hold))
        return hold

    def release(self, hold: DocumentLock) -> None:
        """End a hold and let the line go on; idempotent, and nothing to a hold that was lost."""
        with self._lock:
            if not hold.active:
                return
            hold.active = False
            held_s = self._clock.monotonic() - hold.since_s
            if hold.line.holder is hold:
                hold.line.holder = None
                self._go_on(hold.name, hold.line)
        if held_s > LONG_HOLD_S and hold.name != TRANSACTION:
            _log.warning("%s was held for %.1f s by the block at %s", hold.name, held_s, hold.place)

    def commit(self, locks: Sequence[DocumentLock], start: Callable[[], Future[T]]) -> Future[T]:
        """Start the commit that ends these holds. Raises RevisionMismatch where one was lost.

        Who was let in after a lost hold commits next, on the revision that it has read.
        """
        with self._lock:
            for hold in locks:
                if not hold.active:
                    raise _lost(hold)
            future = start()
        for hold in locks:
            future.add_done_callback(partial(self._ended, hold))
        return future

    def _ended(self, hold: DocumentLock, _future: Future[Any]) -> None:
        self.release(hold)

    def _refuse_nested(self, name: str) -> None:
        refuse_in_turn()
        for hold in _held.get():
            if hold.active and hold.name == name and self._lines.get(name) is hold.line:
                what = "a transaction" if name == TRANSACTION else name
                raise NestedEdit(
                    f"This task holds {what} already, since the block at {hold.place}; "
                    "changing it here would wait for itself."
                )

    async def _wait(self, name: str, line: _Line, waiter: _Waiter) -> Any:
        deadline = self._clock.monotonic() + self._wait_s
        while True:
            with self._lock:
                left_s = deadline - self._clock.monotonic()
                holder = line.holder
                expires_s = left_s
                if holder is not None:
                    expires_s = holder.since_s + self._limit_s - self._clock.monotonic()
                if expires_s <= 0 and holder is not None and not waiter.granted.done():
                    self._lose(holder)
                elif left_s <= 0 and not waiter.granted.done():
                    line.waiting.remove(waiter)
                    raise self._busy(name, holder)
            try:
                return await wait_for(waiter.granted, timeout_s=max(min(left_s, expires_s), 0.0))
            except TimeoutError:
                continue
            except BaseException:
                self._leave(line, waiter)
                raise

    def _lose(self, hold: DocumentLock) -> None:
        """Take a hold away that has lasted too long: its commit will be refused as stale."""
        _log.warning("%s was held for too long by the block at %s", hold.name, hold.place)
        self.release(hold)

    def _leave(self, line: _Line, waiter: _Waiter) -> None:
        """Take a cancelled waiter out of the line, or give back what it was granted unseen."""
        with self._lock:
            if waiter in line.waiting:
                if waiter.start is None:
                    line.waiting.remove(waiter)
                # a change stays in the line: what was queued is carried to its end (V7)
                return
        if waiter.start is None and waiter.granted.done() and not waiter.granted.exception():
            self.release(waiter.granted.result())

    def _busy(self, name: str, holder: DocumentLock | None) -> DocumentBusy:
        if holder is None:
            return DocumentBusy(f"{name} is waited for by too many.")
        what = "A transaction" if name == TRANSACTION else f"An edit of {name}"
        return DocumentBusy(
            f"{what} at {holder.place} has been open since {holder.since}; nothing was written.",
            since=holder.since,
        )

    def _go_on(self, name: str, line: _Line) -> None:
        """Let in every waiting change up to the next block, and that block."""
        while line.waiting and line.holder is None:
            waiter = line.waiting.popleft()
            if waiter.start is None:
                waiter.granted.set_result(self._grant(name, line))
            else:
                _start(waiter)
        if line.holder is None and not line.waiting:
            self._lines.pop(name, None)

    def _grant(self, name: str, line: _Line) -> DocumentLock:
        hold = DocumentLock(
            name, self._clock.monotonic(), instant_text(self._clock.now()), "another task", line
        )
        line.holder = hold
        return hold


def _lost(hold: DocumentLock) -> RevisionMismatch:
    what = "This transaction" if hold.name == TRANSACTION else f"This edit of {hold.name}"
    return RevisionMismatch(
        f"{what} was open for too long and lost its turn to another; nothing was written.",
        hint="Read again and try again; keep `edit` and `transaction` blocks short.",
        document="" if hold.name == TRANSACTION else hold.name,
    )


def _start(waiter: _Waiter) -> None:
    assert waiter.start is not None
    try:
        waiter.granted.set_result(waiter.start())
    except Exception as error:  # noqa: BLE001  # it is the waiting caller's, whatever it is
        waiter.granted.set_exception(error)


def _calling_place() -> str:
    """Return the file and line of the block outside of Seline that is being entered."""
    frame = sys._getframe(1)  # noqa: SLF001  # the documented way to a caller's line
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("seline."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"
