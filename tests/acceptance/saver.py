"""A process that saves with sixteen writers and records every outcome, until a test kills it.

Every value names its write and has a checksum, so that a mixture or a flipped bit equals no written
value. Every two savers share a document, all editors share one, and movers change two documents
and create or delete a third in one transaction. Readers and a pruner run at the same time.
"""

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
import pytest
from msgspec.structs import replace as struct_replace

from seline import DataManager, open_seline
from seline.domain.document import ABSENT, Content, DocumentKey
from seline.errors import OutcomeUnknown, SelineError
from seline.manager import ManagedStore
from seline.manager.blocks import Locked
from seline.manager.locks import DocumentLock, DocumentLocks, _Queue
from seline.ports.store import Outcome
from seline.storage.planner import Plan
from seline.storage.volume.commit.base import Committed
from seline.storage.volume.commit.exchange_form import ExchangeCommitter
from seline.storage.volume.commit.staging import Published, Staged, Staging
from tests.faults.forms import FORMS
from tests.proof.history import Event, Read, State, Write
from tests.proof.history import Outcome as WriteOutcome

SAVED: Final = tuple(f"d{number}.json" for number in range(4))
COUNTED: Final = "counted.json"
MOVED: Final = ("left.json", "right.json", "spare.json")
EVERYTHING: Final = (*SAVED, COUNTED, *MOVED)
SAVERS, EDITORS, MOVERS = 8, 4, 4
WRITERS: Final = SAVERS + EDITORS + MOVERS
UNKNOWN: Final = "a value that was never written"
KEEP_NEWEST: Final = 2
KEPT: Final = {"backups__keep_newest": KEEP_NEWEST, "backups__keep_daily": 0}


# values that name their write


def value_of(state: str, size: int = 0) -> dict[str, Any]:
    """Return the value that a write of this state stores."""
    return {"by": f"{state}~{crc32(state.encode()):08x}", "filler": _letter(state) * size}


def state_of(value: Any) -> State:
    """Return the write that a value names, None if absent; UNKNOWN and the value if not valid."""
    if value is ABSENT:
        return None
    match value:
        case {"by": str(by), "filler": str(filler), **more} if not more:
            state, _, _ = by.partition("~")
            if value == value_of(state, len(filler)):
                return state
    return f"{UNKNOWN} ({value!r:.80})"


def _letter(state: str) -> str:
    return chr(ord("a") + crc32(state.encode()) % 26)


# notes that survive a kill


class Notebook:
    """Records writes, outcomes and reads: each a line in one system call, so no kill loses one."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._count = 0

    @contextmanager
    def note_write(self) -> Iterator["NotedWrite"]:
        """Record the write of the block, after it called `begin`, and its outcome.

        A typed error is recorded as a refusal and suppressed.
        """
        write = NotedWrite(self, time.monotonic())
        try:
            yield write
        except OutcomeUnknown:
            return
        except SelineError as error:
            write.end("refused", error.code)
        else:
            write.end("acknowledged")

    def begin(self, began: float, changes: Mapping[str, State], bases: Mapping[str, State]) -> int:
        self._count += 1
        self.line("write", self._count, began, changes, bases)
        return self._count

    def end(self, number: int, outcome: WriteOutcome, code: str) -> None:
        self.line("outcome", number, time.monotonic(), outcome, code)

    def read(self, began: float, found: Mapping[str, State]) -> None:
        """Record a read that has just ended."""
        self.line("read", began, time.monotonic(), found)

    def line(self, *parts: object) -> None:
        os.write(self._descriptor, msgspec.json.encode(parts) + b"\n")


@dataclass(slots=True)
class NotedWrite:
    """The write that a block makes."""

    notes: Notebook
    began: float
    number: int = 0

    def begin(self, changes: Mapping[str, State], bases: Mapping[str, State] | None = None) -> None:
        """Record the states that will be written, and those they were made from."""
        self.number = self.notes.begin(self.began, changes, bases or {})

    def end(self, outcome: WriteOutcome, code: str = "") -> None:
        if self.number:
            self.notes.end(self.number, outcome, code)


def read_notebook(path: Path) -> list[Event]:
    """Return the history in a notebook. A write without an answer has the outcome unknown."""
    writes: dict[int, Write] = {}
    reads: list[Event] = []
    for line in read_lines(path):
        match line:
            case ["write", number, began, changes, bases]:
                writes[number] = Write(changes=changes, bases=bases, began=began)
            case ["outcome", number, ended, outcome, _]:
                writes[number] = replace(writes[number], ended=ended, outcome=outcome)
            case ["read", began, ended, found]:
                reads.append(Read(found=found, began=began, ended=ended))
    return [*writes.values(), *reads]


def read_lines(path: Path) -> list[list[Any]]:
    """Return the complete lines of a notebook; a kill may have cut off the last one."""
    return [msgspec.json.decode(line) for line in path.read_bytes().split(b"\n")[:-1]]


# writers and readers


class Writer:
    """Writes with a unique name each time, and records it."""

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
        with self.notes.note_write() as write:
            write.begin({document: state})
            await self.data.save_json(document, value_of(state, size))

    async def edit(self, document: str) -> None:
        state = self.next()
        with self.notes.note_write() as write:
            async with self.data.edit(document) as value:
                write.begin({document: state}, {document: state_in_block(value)})
                value |= value_of(state)

    async def move(self) -> None:
        """Change two documents and create or delete a third, in one transaction."""
        state = self.next()
        left, right, spare = MOVED
        with self.notes.note_write() as write:
            async with self.data.transaction(*MOVED) as change:
                bases = {name: state_in_block(change[name]) for name in MOVED}
                change[left] = change[right] = value_of(state, 50)
                if bases[spare] is None:
                    change[spare] = value_of(state)
                else:
                    del change[spare]
                spare_state = state if bases[spare] is None else None
                write.begin({left: state, right: state, spare: spare_state}, bases)


def state_in_block(value: Any) -> State:
    """Return the state of a document in a block, which has `{}` for an absent one."""
    return None if value == {} else state_of(value)


async def note_read(data: DataManager, notes: Notebook, document: str) -> None:
    """Read one document and record the result."""
    began = time.monotonic()
    found = await data.load_json(document, default=ABSENT)
    notes.read(began, {document: state_of(found)})


async def note_export(data: DataManager, notes: Notebook, names: Sequence[str]) -> None:
    """Export all documents and record the result."""
    began = time.monotonic()
    files = (await data.export_all_data())["files"]
    notes.read(began, states_in(files, names))


def states_in(files: Any, names: Sequence[str]) -> dict[str, State]:
    """Return the state of each document in an export."""
    return {name: state_of(files.get(name, ABSENT)) for name in names}


# the process


def run(
    data_dir: str, life: int, notebook: str, ready: Connection, form: str, wrong: str = ""
) -> None:
    """Open the volume, with the wrong store `wrong` if named; send `ready`; save until killed."""
    FORMS[form](pytest.MonkeyPatch())
    if wrong:
        WRONG[wrong]()
    asyncio.run(_run(data_dir, life, Notebook(Path(notebook)), ready))


async def _run(data_dir: str, life: int, notes: Notebook, ready: Connection) -> None:
    async with open_seline(data_dir, lock_wait_s=10, **KEPT) as seline:
        ready.send("ready")
        data = seline.data
        writers = [Writer(data, notes, f"{life}.{number}") for number in range(WRITERS)]
        await asyncio.gather(
            *(
                _save(writer, SAVED[number % len(SAVED)])
                for number, writer in enumerate(writers[:SAVERS])
            ),
            *(_repeat(lambda w=writer: w.edit(COUNTED)) for writer in writers[SAVERS:-MOVERS]),
            *(_repeat(writer.move) for writer in writers[-MOVERS:]),
            *(_repeat(lambda name=name: note_read(data, notes, name), 0.01) for name in EVERYTHING),
            _repeat(lambda: note_export(data, notes, EVERYTHING), 0.01),
            _repeat(seline.prune, 0.005),
        )


async def _save(writer: Writer, document: str) -> None:
    for number in count():
        await writer.save(document, number * 1237 % 3000)


async def _repeat(operation: Callable[[], Awaitable[object]], pause_s: float = 0.0) -> None:
    while True:
        await operation()
        await asyncio.sleep(pause_s)


# stores that are wrong on purpose; the checks must flag each of them


def _answers_before_the_commit() -> None:
    """Answer a save before it is on the disk."""

    async def save(self: ManagedStore, key: DocumentKey, content: Content, **_: Any) -> Outcome:
        change = self.save_change(key, content, backup=True, if_match=None, shrink=True)
        self.submit((change,))
        await asyncio.sleep(0.001)
        return Outcome(content=content, changed=True)

    ManagedStore.save = save  # type: ignore[assignment,method-assign]


def _writes_no_record() -> None:
    """Publish the documents of a transaction one by one, without a record of the transaction."""
    commit, publish = ExchangeCommitter.commit, Staging.publish
    of_a_transaction = False

    def commit_without_record(self: ExchangeCommitter, plan: Plan, *, now: datetime) -> Committed:
        nonlocal of_a_transaction
        of_a_transaction = plan.atomic
        return commit(self, struct_replace(plan, atomic=False), now=now)

    def publish_slowly(self: Staging, staged: Staged) -> Published:
        time.sleep(0.02 if of_a_transaction else 0)  # like a slow disk: most kills tear one
        return publish(self, staged)

    ExchangeCommitter.commit = commit_without_record  # type: ignore[method-assign]
    Staging.publish = publish_slowly  # type: ignore[method-assign]


def _locks_nothing() -> None:
    """Let several callers edit a document at the same time."""
    read = Locked.read

    async def read_without_revision(self: Any, *held: Any) -> Any:
        value = await read(self, *held)
        self._bases.clear()
        return value

    Locked.read = read_without_revision  # type: ignore[method-assign]
    DocumentLocks._grant = lambda self, name, _queue: DocumentLock(name, 0.0, "", "", _Queue())  # type: ignore[method-assign]


WRONG: Final[Mapping[str, Callable[[], None]]] = {
    "answers before the commit": _answers_before_the_commit,
    "writes no record": _writes_no_record,
    "locks nothing": _locks_nothing,
}
