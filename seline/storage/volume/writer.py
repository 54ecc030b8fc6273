"""The writer: one thread and one queue for all changes of a volume.

V6  Changes take effect in the order in which they are submitted.
V7  An atom runs to its end if its caller is cancelled. If the thread dies, every waiting caller
    gets an error at once.

It is a daemon thread, not an executor: executors refuse work at interpreter exit, which is when
bots save.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from seline.errors import OutcomeUnknown, StoreClosed, VolumeBusy, VolumeFailed
from seline.ports.futures import Promise
from seline.ports.store import Atom, Outcome

QUEUED_ATOMS_MAX: Final = 4096
QUEUED_BYTES_MAX: Final = 64 << 20
IDLE_AFTER_S: Final = 0.05
"""The pause before idle work, so that the answered callers run first."""

_log = logging.getLogger("seline.storage")


@dataclass(slots=True)
class Pending:
    """A queued atom and its caller's future."""

    atom: Atom
    size_bytes: int
    looks: int = 0
    future: Promise[tuple[Outcome, ...]] = field(default_factory=Promise)
    queued_at_s: float = field(default_factory=time.monotonic)


Task: TypeAlias = tuple[Generator[None, None, Any], Future[Any]]
"""Work whose steps run between batches, and its caller's future."""


class Writer:
    """Runs batches and tasks on its own thread, one after another."""

    def __init__(
        self, process: Callable[[Sequence[Pending]], None], *, idle: Callable[[], float | None]
    ) -> None:
        """Start the thread.

        `process` answers every future of a batch. `idle` runs while the queue is empty, and returns
        the seconds to its next run, None for none.
        """
        self._process = process
        self._idle = idle
        self._queue: deque[Pending | Task] = deque()
        self._queued_bytes = 0
        self._wake = threading.Condition()
        """Not a SimpleQueue: that of Python 3.11 may wait without an end in spite of a timeout."""
        self._closing = False
        self._dead: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="seline-writer", daemon=True)
        self._thread.start()

    def submit(self, atom: Atom) -> Future[tuple[Outcome, ...]]:
        """Queue an atom. Raises VolumeBusy if the queue is full, StoreClosed after `close`."""
        size_bytes = sum([change.size_hint for change in atom])
        pending = Pending(atom, size_bytes)
        with self._wake:
            self._check_open()
            if (
                len(self._queue) >= QUEUED_ATOMS_MAX
                or (self._queued_bytes and self._queued_bytes + size_bytes > QUEUED_BYTES_MAX)
            ):  # fmt: skip
                raise VolumeBusy(
                    f"{len(self._queue)} changes ({self._queued_bytes >> 20} MiB) are waiting for "
                    "the disk; this one was not taken."
                )
            self._queued_bytes += size_bytes
            self._queue.append(pending)
            self._wake.notify()
        return pending.future

    def between(self, work: Callable[[], Any]) -> Future[Any]:
        """Queue work to run between two batches."""
        return self.in_steps(_one_step(work))

    def in_steps(self, steps: Generator[None, None, Any]) -> Future[Any]:
        """Queue work that ends a step with each `yield`; the queue runs before the next step."""
        future = Promise[Any]()
        with self._wake:
            self._check_open()
            self._queue.append((steps, future))
            self._wake.notify()
        return future

    def run_between(self, work: Callable[[], Any]) -> None:
        """Run work between two batches and wait for it; on the writer's thread, run it at once."""
        if threading.current_thread() is self._thread:
            work()
        else:
            self.between(work).result()

    def close(self) -> None:
        """Carry out what is queued, then end the thread. Idempotent; not for the thread itself."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    @property
    def is_dead(self) -> bool:
        """Whether an error ended the thread."""
        return self._dead is not None

    @property
    def queued(self) -> int:
        """The number of queued changes and tasks."""
        return len(self._queue)

    def _check_open(self) -> None:
        if self._dead is not None:
            raise VolumeFailed("The writer has ended; nothing can be written any more.") from (
                self._dead
            )
        if self._closing:
            raise StoreClosed

    def _run(self) -> None:
        batch: list[Pending] = []
        try:
            while True:
                work = self._take()
                if work is None:
                    return
                if isinstance(work, tuple):
                    if not _run_step(*work):
                        self._queue.append(work)
                else:
                    batch = work
                    self._process(work)
                work, batch = None, []  # free their memory while the queue is empty
        except BaseException as error:  # noqa: BLE001  # the callers get an error
            self._die(error, batch)

    def _take(self) -> Task | list[Pending] | None:
        """Return a task, the atoms before the next task, or None at the end; `idle` in pauses."""
        with self._wake:
            wait_s: float | None = IDLE_AFTER_S
            while not self._queue:
                if self._closing:
                    return None
                if not self._wake.wait(wait_s) and not self._queue:
                    wait_s = self._idle_without_lock()
            batch: list[Pending] = []
            while self._queue and isinstance(first := self._queue[0], Pending):
                self._queue.popleft()
                self._queued_bytes -= first.size_bytes
                batch.append(first)
            if batch:
                return batch
            task = self._queue.popleft()
            assert isinstance(task, tuple)
            return task

    def _idle_without_lock(self) -> float | None:
        self._wake.release()
        try:
            return self._idle()
        finally:
            self._wake.acquire()

    def _die(self, error: BaseException, batch: list[Pending]) -> None:
        _log.critical("the writer ended; no change is taken any more", exc_info=error)
        with self._wake:
            self._dead = error
            waiting = [*batch, *self._queue]
            self._queue.clear()
        refusal = OutcomeUnknown(
            f"The writer ended unexpectedly ({type(error).__name__}).",
            hint="Restart the process, read the document again, and report this.",
        )
        for item in waiting:
            future = item[1] if isinstance(item, tuple) else item.future
            if not future.done():
                future.set_exception(refusal)


def _one_step(work: Callable[[], Any]) -> Generator[None, None, Any]:
    yield from ()  # which makes it a generator
    return work()


def _run_step(steps: Generator[None, None, Any], future: Future[Any]) -> bool:
    """Run the next step; return whether it was the last one, which answers the caller."""
    try:
        next(steps)
    except StopIteration as end:
        future.set_result(end.value)
    except BaseException as error:  # noqa: BLE001  # raised to its caller; the next task runs
        future.set_exception(error)
    else:
        return False
    return True
