"""Try states with Seline: a few in this process, or all there is time for with two workers."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seline.blocking import Seline
from seline.domain.integrity import ATTRIBUTE
from seline.storage.volume.mounts import mount_of
from tests.faults.powercut.promises import Flagged, all_flagged, flagged, portable
from tests.faults.powercut.states import Cut
from tests.proof.judge import Expected, _values
from tests.proof.operations import DONE, Operation, as_it_is, opened
from tests.proof.operations import prepare as prepare_operation

WORKERS: Final = 2
CHUNK: Final = 25
FREE_BYTES_MIN: Final = 64 << 20
MEMORY: Final = "/dev/shm"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One change of several in one session; `certain` as an operation's."""

    act: Callable[[Seline, Path], object]
    certain: bool = False


def in_steps(name: str, *steps: Step, prepare: Callable[[Path], None] | None = None) -> Operation:
    """Return an operation of several changes, each acknowledged by itself."""

    def act(seline: Seline, directory: Path) -> None:
        for step in steps[:-1]:
            step.act(seline, directory)
            os.write(1, DONE.encode())
        steps[-1].act(seline, directory)

    return Operation(name=name, act=act, prepare=prepare or as_it_is)


def expect_steps(operation: Operation, steps: Sequence[Step], scratch: Path) -> list[Expected]:
    """Do the steps undisturbed and say what each does."""
    expected: list[Expected] = []
    prepare_operation(operation, scratch)
    with opened(scratch) as seline:
        before = after = _values(seline)
        for step in steps:
            before, after = after, _values_after(step, seline, scratch)
            changes = frozenset(name for name in before if before[name] != after[name])
            what = Operation(
                name=operation.name, act=operation.act, changes=changes, certain=step.certain
            )
            expected.append(Expected(operation=what, before=before, after=after))
    return expected


def _values_after(step: Step, seline: Seline, directory: Path) -> dict[str, object]:
    step.act(seline, directory)
    return _values(seline)  # type: ignore[return-value]


def sample(cuts: Sequence[Cut], count: int) -> list[Cut]:
    """Return the same few states each time: half of them after an acknowledgement, if they are."""
    chance = random.Random(count)
    done = [cut for cut in cuts if cut.acknowledged]
    rest = [cut for cut in cuts if not cut.acknowledged]
    first = chance.sample(done, min(len(done), count // 2))
    return first + chance.sample(rest, min(len(rest), count - len(first)))


def try_some(cuts: Sequence[Cut], steps: Sequence[Expected], place: Path) -> list[Flagged]:
    """Open these states in this process; return those in which a promise is broken."""
    return [one for one in flagged(cuts, steps, place) if one is not None]


def try_all(
    cuts: Sequence[Cut], steps: Sequence[Expected], place: Path, *, until_s: float
) -> tuple[int, list[Flagged]]:
    """Open states by two workers until the time is over; return how many, and what was broken.

    They come shuffled, so that those for which there was no time are none in particular.
    """
    shuffled = random.Random(len(cuts)).sample(cuts, len(cuts))
    chunks = [shuffled[start : start + CHUNK] for start in range(0, len(cuts), CHUNK)]
    sent = [portable(step) for step in steps]
    context = multiprocessing.get_context("spawn")
    found: list[Flagged] = []
    tried = 0
    with ProcessPoolExecutor(WORKERS, mp_context=context) as workers:
        waiting = {workers.submit(all_flagged, chunk, sent, place): chunk for chunk in chunks}
        for done in as_completed(waiting):
            if done.cancelled():
                continue
            found += done.result()
            tried += len(waiting[done])
            if time.monotonic() > until_s:
                workers.shutdown(wait=False, cancel_futures=True)
    return tried, found


@contextmanager
def fast_place(otherwise: Path) -> Generator[Path]:
    """Give a directory in memory, if it keeps attributes and has room; else `otherwise`."""
    if not _is_good(MEMORY):
        yield otherwise
        return
    place = tempfile.mkdtemp(prefix="seline-cuts-", dir=MEMORY)
    try:
        yield Path(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _is_good(directory: str) -> bool:
    try:
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            os.setxattr(file.fileno(), ATTRIBUTE, b"tried")
        status = os.statvfs(directory)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize > FREE_BYTES_MIN


def kind_of(place: Path) -> str:
    """Return the kind of file system that a place lies on."""
    mount = mount_of(str(place))
    return mount.kind if mount is not None else "unknown"
