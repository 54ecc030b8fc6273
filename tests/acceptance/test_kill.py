"""Kill -9 in the middle of saves: every acknowledged one is there, and no stray file (V1, V3, V5).

At least 200 kills; `make prove` does 1,000.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from pickle import UnpicklingError

import pytest

from seline.blocking import open_seline
from seline.storage.volume.mounts import mount_of
from tests.acceptance import saver
from tests.proof.figures import note

FORKSERVER = get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.acceptance.saver"])
STRIDE = 1_000_000
KILLS_AT_ONCE = 4


@dataclass(frozen=True)
class Victim:
    """A process that saves, and what it says."""

    process: BaseProcess
    told: Connection


def start(data_dir: Path, number: int) -> Victim:
    told, tells = Pipe(duplex=False)
    process = FORKSERVER.Process(target=saver.run, args=(str(data_dir), number * STRIDE, tells))
    process.start()
    tells.close()
    return Victim(process, told)


def kill_in_the_middle(victim: Victim, after_s: float) -> dict[str, int]:
    """Let it save for a while, kill it, and return what it had acknowledged."""
    assert victim.told.recv() == ("ready", 0)
    time.sleep(after_s)
    victim.process.kill()
    acknowledged: dict[str, int] = {}
    with contextlib.suppress(EOFError, UnpicklingError):
        while True:
            document, number = victim.told.recv()
            acknowledged[document] = number
    victim.process.join()
    victim.told.close()
    return acknowledged


def check(data_dir: Path, acknowledged: dict[str, int]) -> None:
    """Open what the kill left: nothing acknowledged is lost, nothing is torn, nothing is stray."""
    with open_seline(data_dir) as seline:
        files = seline.data.export_all_data()["files"]
        assert isinstance(files, dict)
        for document, number in acknowledged.items():
            found = files[document]
            assert isinstance(found, dict), document
            assert found["n"] >= number, document
        assert files.get("left.json") == files.get("right.json")
        report = seline.data.verify()
        assert report.findings == ()
        assert seline.data.quarantine() == []
        seline.data.prune()  # a kill may have come before a rotation
        for document in files:
            counted = [b for b in seline.data.backups(document) if not b.pinned]
            assert len(counted) <= 5
    assert stray(data_dir) == []


def stray(data_dir: Path) -> list[str]:
    seline = data_dir / ".seline"
    left = [str(path) for part in ("staging", "exports") for path in (seline / part).iterdir()]
    left += [str(path) for path in seline.glob("journal*")]
    known = {".seline", "backups", "quarantine", "metadata.json"}
    left += [
        path.name
        for path in data_dir.iterdir()
        if path.name not in known and not path.name.endswith(".json")
    ]
    return left


def rounds(kills: int, seed: int) -> Iterator[float]:
    chance = random.Random(seed)
    for _ in range(kills):
        yield chance.uniform(0.0, 0.08)


def kill_again_and_again(tmp_path: Path, kills: int, *, minutes: float = 60.0) -> int:
    """Kill savers on several directories side by side, round after round; return how many."""
    directories = [tmp_path / f"volume{number}" for number in range(KILLS_AT_ONCE)]
    known: dict[Path, dict[str, int]] = {directory: {} for directory in directories}
    delays = rounds(kills, seed=20250106)
    ends_at = time.monotonic() + minutes * 60
    for number in range(kills // KILLS_AT_ONCE):
        if time.monotonic() > ends_at:
            return number * KILLS_AT_ONCE
        victims = [(directory, start(directory, number)) for directory in directories]
        for directory, victim in victims:
            known[directory].update(kill_in_the_middle(victim, next(delays)))
        for directory in directories:
            check(directory, known[directory])
    return kills


@pytest.mark.timeout(280)
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path, 200) == 200


@pytest.mark.prove(share=20)
@pytest.mark.timeout(3000)
def test_a_thousand_kills_lose_nothing(tmp_path: Path, share_s: float) -> None:
    kills = kill_again_and_again(tmp_path, 1000, minutes=min(share_s / 60, 48))
    mount = mount_of(str(tmp_path))
    note(
        "kill -9",
        "savers and a transaction, at random moments",
        tried=kills,
        failures=0,
        where=mount.kind if mount else "unknown",
    )
    assert kills > 0
