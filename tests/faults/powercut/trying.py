"""Open states with Seline: a few in this process, or as many as time allows in two workers."""

import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from seline.domain.checksum import ATTRIBUTE
from seline.storage.volume.mounts import mount_of
from tests.faults.powercut.promises import Flagged, State, all_flagged, flagged

WORKERS: Final = 2
CHUNK: Final = 25
FREE_BYTES_MIN: Final = 64 << 20
MEMORY: Final = "/dev/shm"


def sample(states: Sequence[State], count: int) -> list[State]:
    """Return a fixed sample of states, half of them after an acknowledgement if there are such."""
    chance = random.Random(count)
    done = [state for state in states if state.cut.acknowledged]
    rest = [state for state in states if not state.cut.acknowledged]
    first = chance.sample(done, min(len(done), count // 2))
    return first + chance.sample(rest, min(len(rest), count - len(first)))


def today() -> int:
    """Return the number of the day, which decides what is opened of too many states."""
    return int(os.environ.get("SELINE_PROVE_DAY") or datetime.now(UTC).toordinal())


def try_some(states: Iterable[State], place: Path) -> list[Flagged]:
    """Open these states in this process; return those in which a guarantee is broken."""
    return [one for one in flagged(states, place) if one is not None]


@dataclass(slots=True)
class Workers:
    """Two processes that open states."""

    pool: ProcessPoolExecutor

    def try_all(
        self, states: Sequence[State], place: Path, *, form: str, until_s: float
    ) -> tuple[int, list[Flagged]]:
        """Open states in a form until the time is over; return how many, and what was broken.

        They are shuffled, differently each day, so that the ones left out are a random sample.
        """
        day = today()
        print(f"SELINE_PROVE_DAY={day} draws the states as in this run")
        shuffled = random.Random(day).sample(states, len(states))
        chunks = [shuffled[start : start + CHUNK] for start in range(0, len(states), CHUNK)]
        waiting = {
            self.pool.submit(all_flagged, chunk, place, form): len(chunk) for chunk in chunks
        }
        found: list[Flagged] = []
        tried = 0
        for done in as_completed(waiting):
            if done.cancelled():
                continue
            found += done.result()
            tried += waiting[done]
            if time.monotonic() > until_s:
                for late in waiting:
                    late.cancel()
        return tried, found


@contextmanager
def workers() -> Generator[Workers]:
    """Yield the two processes.

    A process starts when the first test needs it; a form that this test has set is not passed on.
    """
    context, variables = multiprocessing.get_context("spawn"), dict(os.environ)
    with ProcessPoolExecutor(
        WORKERS, mp_context=context, initializer=_use_environment, initargs=(variables,)
    ) as pool:
        yield Workers(pool)


def _use_environment(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


@contextmanager
def fast_place(otherwise: Path) -> Generator[Path]:
    """Yield a directory in memory if it keeps attributes and has room, else `otherwise`."""
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
