"""Try cases: copy a prepared volume, do an operation on it with one fault, judge the result.

A worker process prepares, forks and judges, so that the forked process has one thread.
"""

import asyncio
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import pytest

from seline.operations.export_folders import ExportFolders
from seline.operations.own_exports import read_back
from seline.outbound.destinations.folder import Folder
from tests.faults.calls.builds import AS_IT_IS, BUILDS
from tests.faults.calls.doing import CaseResult, fail, kill
from tests.faults.calls.failing import KILLS, Fault, Made, refusals
from tests.faults.forms import FIRST, FORMS
from tests.faults.inspections import Inspection, inspection_of
from tests.faults.powercut.promises import unhurried
from tests.faults.powercut.trying import Workers, kind_of
from tests.proof.figures import note
from tests.proof.judge import SOUND_QUARANTINED, Expected, Outcome, Values, expect, judge
from tests.proof.operations import EVERY, A, prepare

CHUNK: Final = 10
SAMPLE: Final = 4
ALSO_BUILT: Final = ("save", "delete", "transaction", "recovery", "change of a large document")
"""The operations that are tried on other file systems too."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An operation with its volume, what it changes, and the calls that it makes.

    It has the names of the operation, the build and the form, so that it can be sent to a worker.
    """

    name: str
    build: str
    form: str
    volume: Path
    before: Values
    after: Values
    calls: Sequence[Made] = ()

    def expected(self) -> Expected:
        """Return the expectation for the judge."""
        return Expected(operation=EVERY[self.name], before=self.before, after=self.after)

    def failures(self) -> list["Case"]:
        """Return every way in which a call of the operation may fail."""
        every = ((at, how) for at, made in enumerate(self.calls, 1) for how in refusals(made))
        return [
            Case(self, Fault(at=at, how=how, again=number % 2 == 1))
            for number, (at, how) in enumerate(every)
        ]

    def kills(self) -> list["Case"]:
        """Return every moment between two calls at which the process may be killed."""
        moments = range(1, len(self.calls) + 1)
        return [Case(self, Fault(at=at, how=how)) for at in moments for how in KILLS]


class Case(NamedTuple):
    """An operation with the fault that it meets."""

    operation: Prepared
    fault: Fault


class Flagged(NamedTuple):
    """A case in which guarantees were broken."""

    case: str
    broken: Sequence[str]


class Tried(NamedTuple):
    """How many faults were met, and what they broke."""

    count: int
    flagged: Sequence[Flagged]


def prepared(
    name: str, scratch: Path, place: Path, form: str = FIRST, build: str = AS_IT_IS
) -> Prepared:
    """Prepare an operation's volume; record what the operation does, and its calls.

    The volume is made in the same form, by the right build. The cases are tried in `place`.
    """
    for directory in (scratch, place):
        directory.mkdir(parents=True, exist_ok=True)
    with unhurried():
        with built(form, AS_IT_IS):
            expected = expect(EVERY[name], scratch / "expected")
            prepare(EVERY[name], scratch / "volume")
        volume = copied(scratch / "volume", place / "volume")
        with built(form, build):
            counted = fail(expected, copied(volume, place / "counted"), None)
    assert counted.outcome == "acknowledged", counted
    return Prepared(
        name=name,
        build=build,
        form=form,
        volume=volume,
        before=expected.before,
        after=expected.after,
        calls=[Made(*made) for made in counted.calls],
    )


def prepared_by(
    way: str, scratch: Path, place: Path, workers: Workers, form: str = FIRST
) -> list[Prepared]:
    """Prepare the operations of `ALSO_BUILT` in a worker, for another file system."""
    return [
        workers.pool.submit(prepared, name, scratch / name, place / name, form, way).result()
        for name in ALSO_BUILT
    ]


def attempt(cases: Sequence[Case]) -> Tried:
    """Try each case on a fresh copy; a fault that no call met counts for nothing."""
    with unhurried():
        return gathered([_one(operation, fault) for operation, fault in cases])


def attempt_some(
    name: str, scratch: Path, place: Path, cases: Callable[[Prepared], list[Case]], form: str
) -> Tried:
    """Prepare an operation and try the same few cases each time."""
    every = cases(prepared(name, scratch, place, form))
    return attempt(random.Random(name).sample(every, SAMPLE))


def attempt_all(
    workers: Workers,
    work: Callable[[Sequence[T]], Tried],
    cases: Sequence[T],
    *,
    until_s: float,
    chunk: int = CHUNK,
) -> Tried:
    """Try cases until the time is over, shuffled, so that no kind is left out."""
    shuffled = random.Random(len(cases)).sample(cases, len(cases))
    waiting = [
        workers.pool.submit(work, shuffled[start : start + chunk])
        for start in range(0, len(shuffled), chunk)
    ]
    done: list[Tried] = []
    for future in as_completed(waiting):
        if not future.cancelled():
            done.append(future.result())
        if time.monotonic() > until_s:
            for late in waiting:
                late.cancel()
    return together(done)


def together(parts: Sequence[Tried]) -> Tried:
    """Add up the results."""
    return Tried(
        sum(part.count for part in parts), [case for part in parts for case in part.flagged]
    )


def gathered(tried: Sequence[Flagged | None]) -> Tried:
    """Count the faults that were met, and keep those that broke a guarantee."""
    met = [case for case in tried if case is not None]
    return Tried(len(met), [case for case in met if case.broken])


def noted(suite: str, what: str, tried: Tried, place: Path, **more: object) -> None:
    """Record the figures of what was tried."""
    where = kind_of(place)
    note(suite, what, tried=tried.count, failures=len(tried.flagged), where=where, **more)


def broken_promises(directory: Path, expected: Expected, outcome: Outcome) -> list[str]:
    """Judge what is left; a volume that cannot be opened or used is broken too."""
    name = expected.operation.name
    look = LOOKS.get(name, inspection_of(name))
    try:
        broken = [*judge(directory, expected, outcome), *look(directory, expected, outcome)]
        return [promise for promise in broken if promise not in ALLOWED.get(name, ())]
    except Exception as error:
        return [f"V7: {type(error).__name__}: {error}"]


def _broken_exports(directory: Path, _expected: Expected, outcome: Outcome) -> list[str]:
    """Check that every export with a manifest is whole, and that an acknowledged one exists."""
    target = ExportFolders(Folder("beside", f"{directory}-exports"))

    async def whole() -> int:
        exports = await target.complete()
        for export in exports:
            await read_back(target, export)
        return len(exports)

    lost = asyncio.run(whole()) == 0 and outcome == "acknowledged"
    return ["V3: an export was acknowledged, and there is none"] if lost else []


def _nothing_more(*_: object) -> list[str]:
    return []


LOOKS: Final[Mapping[str, Inspection]] = {
    "export to a folder": _broken_exports,
    "adoption of a hand edit": _nothing_more,
}
"""Inspections beside the judge. Seline does not know the content before an edit that was made while
it was closed, so it cannot keep it.
"""
ALLOWED: Final[Mapping[str, Collection[str]]] = dict.fromkeys(
    ("adoption of a hand edit", "adoption of an emptied document"),
    (f"V4: {A}  is edited", SOUND_QUARANTINED),
)
"""An edit may be adopted later, and its file may be in quarantine."""


def copied(volume: Path, to: Path) -> Path:
    """Copy a volume with attributes, times and names that share an inode."""
    subprocess.run(["cp", "-a", os.fspath(volume), os.fspath(to)], check=True)
    return to


@contextmanager
def built(form: str, build: str) -> Generator[None]:
    """Use a form of the commit, and another build, until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        FORMS[form](patch)
        BUILDS[build](patch)
        yield


def _one(operation: Prepared, fault: Fault) -> Flagged | None:
    expected, volume = operation.expected(), operation.volume
    with (
        built(operation.form, operation.build),
        tempfile.TemporaryDirectory(prefix="case-", dir=volume.parent) as place,
    ):
        directory = copied(volume, Path(place) / "volume")
        result = (kill if fault.how in KILLS else fail)(expected, directory, fault)
        if not result.fired and not result.defects:
            return None
        broken = [*result.defects, *broken_promises(directory, expected, result.outcome)]
        return Flagged(_in_words(expected, fault, result), broken)


def _in_words(expected: Expected, fault: Fault, result: CaseResult) -> str:
    ended = f"{result.outcome} {result.error}".strip()
    return f"{expected.operation.name}: {fault} ({result.fired}), {ended}"
