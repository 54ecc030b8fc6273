"""A restore onto an empty volume that is killed with kill -9, at any of its file-changing calls.

After it the volume is as empty as before, or whole, or refuses to be served until a restore is
completed. The next restore completes it, also from a later copy; no start serves a part.
"""

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from seline.blocking import open_seline
from seline.errors import RestoreUnfinished
from seline.library import load, restore_volume
from seline.operations import restore
from seline.settings import Settings
from seline.storage.volume import capabilities
from tests.copied import Original, original
from tests.faults.calls.failing import KILLED_AFTER, KILLED_BEFORE, Calls, Fault
from tests.faults.powercut.trying import fast_place, kind_of
from tests.proof.figures import note
from tests.proof.judge import stray

ORIGINAL: Final = original(4)
LATER: Final = original(3, salt="later")
HANGS_AFTER_S: Final = 60
BATCH_FILES: Final = 2
LIMIT_S: Final = 300.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Yield a fast directory for the volumes."""
    with fast_place(tmp_path / "volumes") as fast:
        yield fast


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the copy, and measure the volume by its own files: others share its disk."""
    monkeypatch.setattr(capabilities, "mount_of", lambda _path: None)
    monkeypatch.setattr(restore, "BATCH_FILES_MAX", BATCH_FILES)


def test_a_restore_killed_at_a_few_moments_is_completed(place: Path) -> None:
    calls = _calls_of_a_restore(place / "counted")
    moments = [Fault(at=calls * part // 8, how=KILLED_AFTER) for part in (3, 4, 6)]

    states = _kill_and_check(place, moments)

    assert calls > 100
    assert "unfinished" in states


@pytest.mark.prove
@pytest.mark.timeout(1500)
def test_a_restore_killed_at_every_call_is_completed(place: Path, deadline_s: float) -> None:
    calls = _calls_of_a_restore(place / "counted")
    every = [
        Fault(at=at, how=how) for at in range(1, calls + 1) for how in (KILLED_BEFORE, KILLED_AFTER)
    ]

    states = _kill_and_check(place, random.Random(6).sample(every, len(every)), deadline_s)

    note(
        "kill -9", "at every call of a restore", tried=len(states), failures=0,
        where=kind_of(place), possible=len(every),
    )  # fmt: skip
    assert {"empty", "unfinished", "whole"} <= set(states)


def _kill_and_check(
    place: Path, moments: Sequence[Fault], until_s: float = float("inf")
) -> list[str]:
    states: list[str] = []
    for number, fault in enumerate(moments):
        if time.monotonic() > until_s:
            break
        volume = place / str(number)
        assert _restored(volume, ORIGINAL, fault) == -signal.SIGKILL
        state = _state(volume)
        states.append(state)
        whole = LATER if number % 2 else ORIGINAL
        if state != "whole":
            restore_volume(
                load(arguments={"storage.data_dir": str(volume)}), whole.copy(), lock_wait_s=0
            )
        else:
            whole = ORIGINAL
        assert whole.flaws_of(volume) == [], f"{fault}: {state}"
        with open_seline(volume, lock_wait_s=0) as seline:
            seline.data.save_json("doc_0.json", {"n": "next"})
        assert stray(volume) == [], f"{fault}: {state}"
    return states


def _settings(volume: Path) -> Settings:
    return load(arguments={"storage.data_dir": str(volume)})


def _state(volume: Path) -> str:
    """Return what a start finds after the kill. Serving a part fails here."""
    try:
        with open_seline(volume, lock_wait_s=0) as seline:
            is_empty = not seline.data.documents() and not seline.all_backups()
    except RestoreUnfinished:
        return "unfinished"
    if is_empty:
        return "empty"
    assert ORIGINAL.flaws_of(volume) == []
    return "whole"


def _calls_of_a_restore(volume: Path) -> int:
    """Return how many file-changing calls a restore makes."""
    read, write = os.pipe()
    assert _restored(volume, ORIGINAL, None, pipe=write) == 0
    os.close(write)
    with os.fdopen(read) as pipe:
        return int(pipe.read())


def _restored(volume: Path, what: Original, fault: Fault | None, pipe: int = -1) -> int:
    """Restore in a child process; return its exit code, or the signal that ended it, negated."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(HANGS_AFTER_S)
            volume.mkdir(parents=True, exist_ok=True)
            calls = Calls(fault)
            calls.wrap()
            restore_volume(_settings(volume), what.copy(), lock_wait_s=0)
            if pipe >= 0:
                os.write(pipe, str(len(calls.made)).encode())
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
