"""Saves without end from sixteen writers and notes what it was told; it is there to be killed.

Every value names the write that made it, and checks itself: a mixture or a flipped bit is like
nothing that was ever written. Savers share documents two by two, editors share one, movers change
two documents and make or delete a third in one transaction; readers look on, and a pruner rotates
beside them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec
from msgspec.structs import replace as struct_replace

from seline import DataManager, open_seline
from seline.domain.document import ABSENT, Content, DocumentKey
from seline.errors import OutcomeUnknown, SelineError
from seline.manager import ManagedStore, blocks
from seline.manager.locks import DocumentLock, DocumentLocks, _Line
from seline.ports.store import Outcome
from seline.storage.planner import Plan
from seline.storage.volume.commit.base import Committed
from seline.storage.volume.commit.exchange_form import ExchangeCommitter
from seline.storage.volume.commit.staging import Published, Staged, Staging
from tests.proof.history import Event, Read, State, Write
from tests.proof.history import Outcome as Told

SAVED: Final = tuple(f"d{number}.json" for number in range(4))
COUNTED: Final = "counted.json"
MOVED: Final = ("left.json", "right.json", "spare.json")
EVERYTHING: Final = (*SAVED, COUNTED, *MOVED)
SAVERS, EDITORS, MOVERS = 8, 4, 4
WRITERS: Final = SAVERS + EDITORS + MOVERS
KEEP_NEWEST: Final = 2


# values that name their write


def value_of(state: str, size: int = 0) -> dict[str, Any]:
    """Return the value that a write of this state leaves."""
    return {"by": f"{state}~{crc32(state.encode()):08x}", "filler": _letter(state) * size}


def state_of(value: Any) -> State:
    """Return which write a value names, None for none; a word of alarm if it checks out wrong."""
    if value is ABSENT:
        return None
    match value:
        case {"by": str(by), "filler": str(filler), **more} if not more:
            state, _, _ = by.partition("~")
            if value == value_of(state, len(filler)):
                return state
    return f"what nobody ever wrote ({value!r:.80})"


def _letter(state: str) -> str:
    return chr(ord("a") + crc32(state.encode()) % 26)


# notes that outlive a kill


class Notebook:
    """Notes what was asked, told and read: each a line, by one system call; no kill loses one."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._count = 0

    @contextmanager
    def asking(self) -> Iterator[GlobalOptions]:
        """Note one write, once `writes` says which, and what became of it.

        A typed error is noted as a refusal and goes no further.
        """
        asked = GlobalOptions(self, time.monotonic())
        try:
            yield asked
        except OutcomeUnknown:
            return
        except SelineError as error:
            asked.told("refused", error.code)
        else:
            asked.told("acknowledged")

    def begin(self, began: float, changes: Mapping[str, State], bases: Mapping[str, State]) -> int:
        self._count += 1
        self.line("asked", self._count, began, changes, bases)
        return self._count

    def end(self, number: int, outcome: Told, code: str) -> None:
        self.line("told", number, time.monotonic(), outcome, code)

    def read(self, began: float, found: Mapping[str, State]) -> None:
        """Note a read that has just ended."""
        self.line("read", began, time.monotonic(), found)

    def line(self, *parts: object) -> None:
        os.write(self._descriptor, msgspec.json.encode(parts) + b"\n")


@dataclass(slots=True)
class GlobalOptions:
    """A write that a block is about."""

    notes: Notebook
    began: float
    number: int = 0

    def writes(
        self, changes: Mapping[str, State], bases: Mapping[str, State] | None = None
    ) -> None:
        """Note what is about to be written, and what it was made from."""
        self.number = self.notes.begin(self.began, changes, bases or {})

    def told(self, outcome: Told, code: str = "") -> None:
        if self.number:
            self.notes.end(self.number, outcome, code)


def noted(path: Path) -> list[Event]:
    """Return the history that a notebook holds; a write without answer stays unknown."""
    asked: dict[int, Write] = {}
    reads: list[Event] = []
    for line in noted_lines(path):
        match line:
            case ["asked", number, began, changes, bases]:
                asked[number] = Write(changes=changes, bases=bases, began=began)
            case ["told", number, ended, outcome, _]:
                asked[number] = replace(asked[number], ended=ended, outcome=outcome)
            case ["read", began, ended, found]:
                reads.append(Read(found=found, began=began, ended=ended))
    return [*asked.values(), *reads]


def noted_lines(path: Path) -> list[list[Any]]:
    """Return the lines of a notebook; the kill may have come in the middle of the last one."""
    return [msgspec.json.decode(line) for line in path.read_bytes().split(b"\n")[:-1]]


# writers and readers


class Writer:
    """Writes, each time under a name of its own, and notes it."""

    def __init__(self, data: DataManager, notes: Notebook, name: str) -> None:
        self.data = data
        self.notes = notes
        self._name = name
        self._count = 0

    def next(self) -> str:
        """Return the name of the next write."""
        self._count += 1
        return f"{self._name}.{self._count}"

    async def save(self, document: str, size: int) -> None:
        state = self.next()
        with self.notes.asking() as asked:
            asked.writes({document: state})
            await self.data.save_json(document, value_of(state, size))

    async def edit(self, document: str) -> None:
        state = self.next()
        with self.notes.asking() as asked:
            async with self.data.edit(document) as value:
                asked.writes({document: state}, {document: state_of_held(value)})
                value |= value_of(state)

    async def move(self) -> None:
        """Change two documents, and make or delete a third, in one transaction."""
        state = self.next()
        left, right, spare = MOVED
        with self.notes.asking() as asked:
            async with self.data.transaction(*MOVED) as change:
                bases = {name: state_of_held(change[name]) for name in MOVED}
                change[left] = change[right] = value_of(state, 50)
                if bases[spare] is None:
                    change[spare] = value_of(state)
                else:
                    del change[spare]
                spared = state if bases[spare] is None else None
                asked.writes({left: state, right: state, spare: spared}, bases)


def state_of_held(value: Any) -> State:
    """Return the state of a document that a block holds: it gives `{}` for none."""
    return None if value == {} else state_of(value)


async def look_at(data: DataManager, notes: Notebook, document: str) -> None:
    """Read one document and note what was found."""
    began = time.monotonic()
    found = await data.load_json(document, default=ABSENT)
    notes.read(began, {document: state_of(found)})


async def look_at_everything(data: DataManager, notes: Notebook, names: Sequence[str]) -> None:
    """Export and note what was found."""
    began = time.monotonic()
    files = (await data.export_all_data())["files"]
    notes.read(began, states_in(files, names))


def states_in(files: Any, names: Sequence[str]) -> dict[str, State]:
    """Return the state of each document in an export."""
    return {name: state_of(files.get(name, ABSENT)) for name in names}


# the process


def run(data_dir: str, life: int, notebook: str, told: Connection, wrong: str = "") -> None:
    """Open the volume, of a wrong store if so asked; say `ready`, and save until killed."""
    if wrong:
        WRONG[wrong]()
    asyncio.run(_run(data_dir, life, Notebook(Path(notebook)), told))


async def _run(data_dir: str, life: int, notes: Notebook, told: Connection) -> None:
    async with open_seline(data_dir, lock_wait_s=10, backups__keep_newest=KEEP_NEWEST) as seline:
        told.send("ready")
        data = seline.data
        writers = [Writer(data, notes, f"{life}.{number}") for number in range(WRITERS)]
        await asyncio.gather(
            *(
                _save(one, SAVED[number % len(SAVED)])
                for number, one in enumerate(writers[:SAVERS])
            ),
            *(_again(lambda one=one: one.edit(COUNTED)) for one in writers[SAVERS:-MOVERS]),
            *(_again(one.move) for one in writers[-MOVERS:]),
            *(_again(lambda name=name: look_at(data, notes, name), 0.01) for name in EVERYTHING),
            _again(lambda: look_at_everything(data, notes, EVERYTHING), 0.01),
            _again(data.prune, 0.005),
        )


async def _save(writer: Writer, document: str) -> None:
    for number in count():
        await writer.save(document, number * 1237 % 3000)


async def _again(once: Callable[[], Awaitable[object]], pause_s: float = 0.0) -> None:
    while True:
        await once()
        await asyncio.sleep(pause_s)


# stores that are wrong on purpose: whoever judges lives must flag each of them


def _answers_early() -> None:
    """Answer a save while it is still on its way to the disk."""

    async def save(self: ManagedStore, key: DocumentKey, content: Content, **_: Any) -> Outcome:
        change = self.save_change(key, content, backup=True, if_match=None, shrink=True)
        self.submit((change,))
        await asyncio.sleep(0.001)
        return Outcome(content=content, changed=True)

    ManagedStore.save = save  # type: ignore[assignment,method-assign]


def _records_nothing() -> None:
    """Publish the documents of a transaction one after another, with no record of them all."""
    commit, publish = ExchangeCommitter.commit, Staging.publish

    def commit_without_record(self: ExchangeCommitter, plan: Plan, *, now: datetime) -> Committed:
        return commit(self, struct_replace(plan, atomic=False), now=now)

    def publish_slowly(self: Staging, staged: Staged) -> Published:
        time.sleep(0.003)  # a disk that takes its time, so that fewer kills are needed
        return publish(self, staged)

    ExchangeCommitter.commit = commit_without_record  # type: ignore[method-assign]
    Staging.publish = publish_slowly  # type: ignore[method-assign]


def _holds_nothing() -> None:
    """Let everybody edit a document at once, and the last one win."""
    read = blocks._Block._read

    async def read_without_revision(self: Any, *held: Any) -> Any:
        value = await read(self, *held)
        self._bases.clear()
        return value

    blocks._Block._read = read_without_revision  # type: ignore[method-assign]
    DocumentLocks._grant = lambda self, name, _line: DocumentLock(name, 0.0, "", "", _Line())  # type: ignore[method-assign]


WRONG: Final[Mapping[str, Callable[[], None]]] = {
    "answers early": _answers_early,
    "records nothing": _records_nothing,
    "holds nothing": _holds_nothing,
}
