"""Cancel a caller where it waits, and look for what it left behind.

A caller waits wherever its coroutine gives the event loop something to wait for. `struck` drives a
coroutine in a task of its own, counts these moments, and cancels the task in the one asked for:
while the answer is out, or as it arrives, when it is too late for the caller to take it.
"""

from __future__ import annotations

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
from seline.manager import DataManager

GONE_WITHIN_S: Final = 10.0
"""How long a thread that carries something to its end may take; far more than it needs."""


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a caller is cancelled: how often in a row, whether as the answer arrives, and by what."""

    times: int = 1
    late: bool = False
    by: Callable[[asyncio.Task[Any]], None] = _cancel


ONCE, TWICE, LATE = Way(), Way(times=2), Way(late=True)
USUAL: Final = (ONCE, TWICE, LATE)
WAYS: Final = {
    "once": ONCE,
    "twice": TWICE,
    "without end": Way(times=10_000),
    "late": LATE,
    "late, twice": Way(times=2, late=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a caller ended: how often it waited, whether it was struck, and what it raised."""

    waits: int
    struck: bool
    cancelled: bool
    error: BaseException | None


async def struck(coroutine: Coroutine[Any, Any, object], at: int, way: Way) -> Ended:
    """Run a coroutine in a task of its own, cancelled where it waits for the `at`-th time."""
    caller = Caller(coroutine, at, way)
    task = asyncio.create_task(caller.run())
    await asyncio.wait({task})
    cancelled = task.cancelled()
    error = None if cancelled else task.exception()
    return Ended(waits=caller.waits, struck=caller.waits >= at, cancelled=cancelled, error=error)


async def everywhere(one: Callable[[int], Awaitable[Ended]]) -> int:
    """Strike at the first wait, the second, … until it ends unharmed; return how many there were.

    `one(at)` does one round and judges it. A wait may have been answered before it began, so a
    round that got through is tried again before it counts as the end.
    """
    for at in count(1):
        if not (await one(at)).struck and not (await one(at)).struck:
            return at - 1
    raise AssertionError


class Caller:
    """Awaits a coroutine on behalf of a task, and has that task cancelled."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], at: int, way: Way) -> None:
        self._coroutine = coroutine
        self._struck_at = range(at, at + way.times)
        self._way = way
        self.waits = 0

    async def run(self) -> object:
        return await self

    def __await__(self) -> Generator[Any, Any, object]:
        thrown: BaseException | None = None
        while True:
            try:
                awaited = self._go_on(thrown)
            except StopIteration as stop:
                return stop.value
            finally:
                thrown = None  # it knows this frame, and would keep what the caller had
            self.waits += 1
            if self.waits in self._struck_at:
                self._strike(awaited)
            try:
                yield awaited
            except BaseException as error:
                thrown = error

    def _go_on(self, thrown: BaseException | None) -> asyncio.Future[Any] | None:
        return self._coroutine.send(None) if thrown is None else self._coroutine.throw(thrown)

    def _strike(self, awaited: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._way.late and awaited is not None:
            awaited.add_done_callback(lambda _: self._way.by(task))  # before the task hears of it
        else:
            self._way.by(task)


@dataclass(frozen=True, slots=True)
class Traces:
    """What a process holds: tasks and descriptors, and the threads, unless pools may grow."""

    held: Counter[str]
    threads: bool

    @classmethod
    def now(cls, *, threads: bool = True) -> Traces:
        """Look at this process."""
        return cls(_held(threads=threads), threads)

    def more(self) -> list[str]:
        """Return what is held now and was not then."""
        return sorted((_held(threads=self.threads) - self.held).elements())

    async def gone(self) -> None:
        """Wait until nothing more is held than then; raise AssertionError naming what stays."""
        for wait_s in self._waits():
            await asyncio.sleep(wait_s)

    def gone_without_loop(self) -> None:
        """Wait as `gone` does."""
        for wait_s in self._waits():
            time.sleep(wait_s)

    def _waits(self) -> Iterator[float]:
        until = time.monotonic() + GONE_WITHIN_S
        while left := self.more():
            assert time.monotonic() < until, f"left behind: {left}"
            gc.collect()  # a pool's threads end with the pool
            yield 0.002


def _held(*, threads: bool) -> Counter[str]:
    return Counter([*_tasks(), *_descriptors(), *(_threads() if threads else ())])


def _tasks() -> Iterator[str]:
    with contextlib.suppress(RuntimeError):  # no loop, no tasks
        ours = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not ours:
                yield f"task {task.get_name()}: {task.get_coro()}"


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        yield f"thread {thread.name}"


def _descriptors() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the listing itself
            yield f"descriptor of {os.readlink(f'/proc/self/fd/{number}')}"


class _Complaints(logging.Handler):
    """Collects what event loops and the log say of things that nobody heard or ended."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Raise AssertionError if something was destroyed pending, never heard, or logged as error."""
    complaints = _Complaints()
    root = logging.getLogger()
    root.addHandler(complaints)
    gc.freeze()  # what was there before is not looked through each time
    try:
        yield
        gc.collect()
    finally:
        gc.unfreeze()
        root.removeHandler(complaints)
    assert not complaints.said, complaints.said


# many callers, cancelled at any moment

LOGS: Final = ("log0.json", "log1.json", "log2.json")
NOISE: Final = "noise.json"
Act: TypeAlias = Callable[["Load", int], Coroutine[Any, Any, tuple[str, ...]]]


@dataclass
class Load:
    """Callers who add entries to documents, each cancelled now and then, and what they were told.

    An entry is `sure` to be there once its caller was answered, `never` where it was refused; one
    whose caller was cancelled may be there or not.
    """

    data: DataManager
    random: random.Random
    sure: dict[int, tuple[str, ...]] = field(default_factory=dict)
    maybe: set[int] = field(default_factory=set)
    together: set[int] = field(default_factory=set)
    cancelled: int = 0
    broken: list[str] = field(default_factory=list)

    async def run(self, *, callers: int, each: int) -> None:
        """Let callers do so many things each, side by side."""
        for name in LOGS:
            await self.data.save_json(name, {"log": []})
        await asyncio.gather(*(self._call(number, each) for number in range(callers)))

    async def _call(self, caller: int, each: int) -> None:
        for number in range(each):
            entry = caller * 1_000_000 + number
            act = self.random.choice(ACTS)
            await self._act(act, entry)

    async def _act(self, act: Act, entry: int) -> None:
        task = asyncio.create_task(act(self, entry))
        for _ in range(self.random.choice((0, 1, 1, 2, 3))):
            await asyncio.wait({task}, timeout=self.random.expovariate(1000))
            self.cancelled += not task.done()
            task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            self.maybe.add(entry)
        elif (error := task.exception()) is None:
            self.sure[entry] = task.result()
        elif not isinstance(error, (RevisionMismatch, DocumentNotFound, BackupNotFound)):
            self.broken.append(f"{act.__name__}: {error!r}")

    async def judge(self) -> list[str]:
        """Return what is not as it must be, once everything has ended."""
        logs = {name: (await self.data.load_json(name))["log"] for name in LOGS}
        broken = [*self.broken]
        broken += [
            f"{entry} was acknowledged and is not in {name}"
            for entry, names in self.sure.items()
            for name in names
            if entry not in logs[name]
        ]
        for name, log in logs.items():
            known = self.maybe | {entry for entry, names in self.sure.items() if name in names}
            broken += [f"{entry} is in {name}, and was refused" for entry in set(log) - known]
            broken += [f"{entry} is in {name} twice" for entry, n in Counter(log).items() if n > 1]
            broken += _out_of_order(name, log)
        return broken + self.halves(logs)

    def halves(self, logs: Mapping[str, list[int]]) -> list[str]:
        """Return the entries of transactions that are in one document alone."""
        return [
            f"{entry} of a transaction is not in all or none of its documents"
            for entry in self.together
            if sum(entry in log for log in logs.values()) not in (0, 2)
        ]


def _out_of_order(name: str, log: list[int]) -> list[str]:
    """Each caller begins one thing after another, so its entries stand in order (V6)."""
    last: dict[int, int] = {}
    broken = []
    for entry in log:
        caller = entry // 1_000_000
        if entry < last.get(caller, 0):
            broken.append(f"in {name} {entry} stands after {last[caller]}")
        last[caller] = entry
    return broken


async def _edits(load: Load, entry: int) -> tuple[str, ...]:
    name = load.random.choice(LOGS)
    async with load.data.edit(name) as held:
        await asyncio.sleep(0)
        held["log"].append(entry)
    return (name,)


async def _updates(load: Load, entry: int) -> tuple[str, ...]:
    name = load.random.choice(LOGS)
    await load.data.update_json(name, lambda value: {"log": [*value["log"], entry]})
    return (name,)


async def _saves_if_it_matches(load: Load, entry: int) -> tuple[str, ...]:
    name = load.random.choice(LOGS)
    found = await load.data.read(name)
    await load.data.save_json(name, {"log": [*found.value["log"], entry]}, if_match=found.revision)
    return (name,)


async def _transacts(load: Load, entry: int) -> tuple[str, ...]:
    names = tuple(load.random.sample(LOGS, 2))
    load.together.add(entry)
    async with load.data.transaction(*names) as change:
        for name in names:
            await asyncio.sleep(0)
            change[name]["log"].append(entry)
    return names


async def _reads(load: Load, _entry: int) -> tuple[str, ...]:
    """Read: what was acknowledged before is there."""
    name = load.random.choice(LOGS)
    known = {entry for entry, names in load.sure.items() if name in names}
    if lost := known - set((await load.data.load_json(name))["log"]):
        load.broken.append(f"a read of {name} lacks {sorted(lost)}")
    return ()


async def _exports(load: Load, _entry: int) -> tuple[str, ...]:
    """Export: of one instant, so no transaction is in it by half."""
    files = (await load.data.export_all_data())["files"]
    load.broken += load.halves({name: files[name]["log"] for name in LOGS})
    return ()


async def _makes_noise(load: Load, entry: int) -> tuple[str, ...]:
    """Save, restore, import and delete a document of nobody's."""
    data = load.data
    ways = (
        lambda: data.save_json(NOISE, {"n": entry}),
        lambda: data.restore(NOISE),
        lambda: data.import_data({"files": {NOISE: {"n": entry}, "more.json": entry}}),
        lambda: data.delete(NOISE),
        data.prune,
        data.verify,
    )
    await load.random.choice(ways)()
    return ()


ACTS: Final[tuple[Act, ...]] = (
    _edits, _edits, _updates, _saves_if_it_matches, _transacts, _reads, _exports, _makes_noise,
)  # fmt: skip
