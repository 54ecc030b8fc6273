"""Cancel a caller at one of its waits, and check what it leaves behind.

A caller waits wherever its coroutine yields to the event loop. `cancel_at_wait` runs a coroutine in
a task, counts these waits, and cancels the task at a given one: while the result is pending, or
when it arrives and the caller can no longer take it.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, TypeAlias

from seline.errors import BackupNotFound, DocumentNotFound, RevisionMismatch
from seline.library import Seline

RELEASED_WITHIN_S: Final = 10.0
"""Seconds in which a background thread must end; it needs far less."""


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """How a caller is cancelled: how many times in a row, when, and by which function."""

    times: int = 1
    at_answer: bool = False
    cancel: Callable[[asyncio.Task[Any]], None] = _cancel


ONCE, TWICE, AT_ANSWER = Cancellation(), Cancellation(times=2), Cancellation(at_answer=True)
USUAL: Final = (ONCE, TWICE, AT_ANSWER)
CANCELLATIONS: Final = {
    "once": ONCE,
    "twice": TWICE,
    "without end": Cancellation(times=10_000),
    "at the answer": AT_ANSWER,
    "at the answer, twice": Cancellation(times=2, at_answer=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerResult:
    """How a caller ended: how many waits it had, whether the given one was reached, its error."""

    waits: int
    reached: bool
    cancelled: bool
    error: BaseException | None


async def cancel_at_wait(
    coroutine: Coroutine[Any, Any, object], at: int, cancellation: Cancellation
) -> CallerResult:
    """Run a coroutine in a task that is cancelled at its `at`-th wait."""
    caller = CancelledCaller(coroutine, at, cancellation)
    task = asyncio.create_task(caller.run())
    await asyncio.wait({task})
    cancelled = task.cancelled()
    error = None if cancelled else task.exception()
    return CallerResult(
        waits=caller.waits, reached=caller.waits >= at, cancelled=cancelled, error=error
    )


async def cancel_at_every_wait(run_once: Callable[[int], Awaitable[CallerResult]]) -> int:
    """Cancel at the first wait, then at the second and so on; return how many waits there are.

    `run_once(at)` runs the coroutine once and checks what is left. A run that was not cancelled is
    repeated before it counts as the end: a result may arrive before the caller waits for it.
    """
    for at in count(1):
        if not (await run_once(at)).reached and not (await run_once(at)).reached:
            return at - 1
    raise AssertionError


class CancelledCaller:
    """Awaits a coroutine for a task, and cancels that task at the chosen waits."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, object], at: int, cancellation: Cancellation
    ) -> None:
        self._coroutine = coroutine
        self._cancelled_at = range(at, at + cancellation.times)
        self._cancellation = cancellation
        self.waits = 0

    async def run(self) -> object:
        return await self

    def __await__(self) -> Generator[Any, Any, object]:
        thrown: BaseException | None = None
        while True:
            try:
                awaited = self._resume(thrown)
            except StopIteration as stop:
                return stop.value
            finally:
                thrown = None  # its traceback holds this frame, and so the caller's objects
            self.waits += 1
            if self.waits in self._cancelled_at:
                self._cancel_task(awaited)
            try:
                yield awaited
            except BaseException as error:
                thrown = error

    def _resume(self, thrown: BaseException | None) -> asyncio.Future[Any] | None:
        return self._coroutine.send(None) if thrown is None else self._coroutine.throw(thrown)

    def _cancel_task(self, awaited: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._cancellation.at_answer and awaited is not None:
            awaited.add_done_callback(lambda _: self._cancellation.cancel(task))  # before it wakes
        else:
            self._cancellation.cancel(task)


@dataclass(frozen=True, slots=True)
class Resources:
    """The tasks and descriptors of this process, and its threads unless pools may grow."""

    held: Counter[str]
    threads: bool

    @classmethod
    def now(cls, *, threads: bool = True) -> "Resources":
        """Return what this process holds now."""
        return cls(_held(threads=threads), threads)

    def added(self) -> list[str]:
        """Return what this process holds now and did not hold before."""
        return sorted((_held(threads=self.threads) - self.held).elements())

    async def wait_until_released(self) -> None:
        """Wait until nothing more is held than before; raise AssertionError naming the rest."""
        for wait_s in self._polls():
            await asyncio.sleep(wait_s)

    def wait_until_released_blocking(self) -> None:
        """Do the same without an event loop."""
        for wait_s in self._polls():
            time.sleep(wait_s)

    def _polls(self) -> Iterator[float]:
        deadline_s = time.monotonic() + RELEASED_WITHIN_S
        while added := self.added():
            assert time.monotonic() < deadline_s, f"still held: {added}"
            gc.collect()  # the threads of a pool end when the pool is collected
            yield 0.002


def _held(*, threads: bool) -> Counter[str]:
    return Counter([*_tasks(), *_descriptors(), *(_threads() if threads else ())])


def _tasks() -> Iterator[str]:
    with contextlib.suppress(RuntimeError):  # without a running loop there are no tasks
        current = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not current:
                yield f"task {task.get_name()}: {task.get_coro()}"


def _threads() -> Iterator[str]:
    """Yield the threads, without those of the process's one pool for sealing."""
    for thread in threading.enumerate():
        if not thread.name.startswith("seline-sealing"):
            yield f"thread {thread.name}"


def _descriptors() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of this listing is closed by now
            yield f"descriptor of {os.readlink(f'/proc/self/fd/{number}')}"


class _ErrorLog(logging.Handler):
    """Collects the errors that event loops and the program log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def no_errors_logged() -> Iterator[None]:
    """Raise AssertionError if the block logs an error, as asyncio does for lost exceptions."""
    errors = _ErrorLog()
    root = logging.getLogger()
    root.addHandler(errors)
    gc.freeze()  # so that `collect` skips every older object
    try:
        yield
        gc.collect()
    finally:
        gc.unfreeze()
        root.removeHandler(errors)
    assert not errors.messages, errors.messages


# many callers that are cancelled at random

LOGS: Final = ("log0.json", "log1.json", "log2.json")
UNRELATED: Final = "noise.json"
Action: TypeAlias = Callable[["Workload", int], Coroutine[Any, Any, tuple[str, ...]]]


@dataclass
class Workload:
    """Callers that add entries to documents, some of them cancelled, and their results.

    An entry is `acknowledged` if its caller got a result, and must be there. It is `possible` if
    its caller was cancelled, and may be there. An entry that was refused must not be there.
    """

    seline: Seline
    rng: random.Random
    acknowledged: dict[int, tuple[str, ...]] = field(default_factory=dict)
    possible: set[int] = field(default_factory=set)
    in_transactions: set[int] = field(default_factory=set)
    cancelled: int = 0
    broken: list[str] = field(default_factory=list)

    async def run(self, *, callers: int, count: int) -> None:
        """Run `callers` callers side by side, each with `count` actions."""
        for name in LOGS:
            await self.seline.data.save_json(name, {"log": []})
        await asyncio.gather(*(self._call(number, count) for number in range(callers)))

    async def _call(self, caller: int, count: int) -> None:
        for number in range(count):
            entry = caller * 1_000_000 + number
            action = self.rng.choice(ACTIONS)
            await self._act(action, entry)

    async def _act(self, action: Action, entry: int) -> None:
        task = asyncio.create_task(action(self, entry))
        for _ in range(self.rng.choice((0, 1, 1, 2, 3))):
            await asyncio.wait({task}, timeout=self.rng.expovariate(1000))
            self.cancelled += not task.done()
            task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            self.possible.add(entry)
        elif (error := task.exception()) is None:
            self.acknowledged[entry] = task.result()
        elif not isinstance(error, (RevisionMismatch, DocumentNotFound, BackupNotFound)):
            self.broken.append(f"{action.__name__}: {error!r}")

    async def check(self) -> list[str]:
        """Return what is broken, after every action has ended."""
        logs = {name: (await self.seline.data.load_json(name))["log"] for name in LOGS}
        broken = [*self.broken]
        broken += [
            f"{entry} was acknowledged and is not in {name}"
            for entry, names in self.acknowledged.items()
            for name in names
            if entry not in logs[name]
        ]
        for name, log in logs.items():
            known = self.possible | {
                entry for entry, names in self.acknowledged.items() if name in names
            }
            broken += [f"{entry} is in {name} but was refused" for entry in set(log) - known]
            broken += [f"{entry} is in {name} twice" for entry, n in Counter(log).items() if n > 1]
            broken += _out_of_order(name, log)
        return broken + self.partial_transactions(logs)

    def partial_transactions(self, logs: Mapping[str, list[int]]) -> list[str]:
        """Return the entries of transactions that are in only one document."""
        return [
            f"{entry} of a transaction is not in all or none of its documents"
            for entry in self.in_transactions
            if sum(entry in log for log in logs.values()) not in (0, 2)
        ]


def _out_of_order(name: str, log: list[int]) -> list[str]:
    """Return the entries of a caller that are not in the order of its actions (V6)."""
    last: dict[int, int] = {}
    broken = []
    for entry in log:
        caller = entry // 1_000_000
        if entry < last.get(caller, 0):
            broken.append(f"in {name} {entry} is after {last[caller]}")
        last[caller] = entry
    return broken


async def _edit(workload: Workload, entry: int) -> tuple[str, ...]:
    name = workload.rng.choice(LOGS)
    async with workload.seline.data.edit(name) as content:
        await asyncio.sleep(0)
        content["log"].append(entry)
    return (name,)


async def _update(workload: Workload, entry: int) -> tuple[str, ...]:
    name = workload.rng.choice(LOGS)
    await workload.seline.data.update_json(name, lambda value: {"log": [*value["log"], entry]})
    return (name,)


async def _save_if_match(workload: Workload, entry: int) -> tuple[str, ...]:
    name = workload.rng.choice(LOGS)
    document = await workload.seline.data.read(name)
    await workload.seline.data.save_json(
        name, {"log": [*document.value["log"], entry]}, if_match=document.revision
    )
    return (name,)


async def _transact(workload: Workload, entry: int) -> tuple[str, ...]:
    names = tuple(workload.rng.sample(LOGS, 2))
    workload.in_transactions.add(entry)
    async with workload.seline.data.transaction(*names) as change:
        for name in names:
            await asyncio.sleep(0)
            change[name]["log"].append(entry)
    return names


async def _read(workload: Workload, _entry: int) -> tuple[str, ...]:
    """Read a document and check that it has every entry that was acknowledged before."""
    name = workload.rng.choice(LOGS)
    known = {entry for entry, names in workload.acknowledged.items() if name in names}
    if lost := known - set((await workload.seline.data.load_json(name))["log"]):
        workload.broken.append(f"a read of {name} lacks {sorted(lost)}")
    return ()


async def _export(workload: Workload, _entry: int) -> tuple[str, ...]:
    """Export and check that each transaction is whole or absent in the export."""
    files = (await workload.seline.data.export_all_data())["files"]
    workload.broken += workload.partial_transactions({name: files[name]["log"] for name in LOGS})
    return ()


async def _change_unrelated(workload: Workload, entry: int) -> tuple[str, ...]:
    """Save, restore, import or delete a document without entries, or prune or verify."""
    data = workload.seline.data
    operations = (
        lambda: data.save_json(UNRELATED, {"n": entry}),
        lambda: data.restore(UNRELATED),
        lambda: data.import_data({"files": {UNRELATED: {"n": entry}, "more.json": entry}}),
        lambda: data.delete(UNRELATED),
        workload.seline.prune,
        workload.seline.verify,
    )
    await workload.rng.choice(operations)()
    return ()


ACTIONS: Final[tuple[Action, ...]] = (
    _edit, _edit, _update, _save_if_match, _transact, _read, _export, _change_unrelated,
)  # fmt: skip
