"""Kill -9 at random moments under load: nothing acknowledged is lost (V1, V2, V3, V5, V6).

Sixteen writers, transactions, reads, exports and rotation are under way when the kill comes. What
they were told, and what is found after, is judged by the history checker: no write lost, no read
that goes back, no half of a transaction, no update lost; and no stray file.

At least 200 kills; `make prove` does 1,000.
"""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from seline.blocking import open_seline
from seline.storage.volume.mounts import mount_of
from tests.acceptance import saver
from tests.acceptance.saver import EVERYTHING, KEEP_NEWEST, noted, states_in
from tests.proof.figures import note
from tests.proof.history import Read, State, Stopped, Write, check
from tests.proof.judge import stray

FORKSERVER = get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.acceptance.saver"])
KILLS_AT_ONCE = 4
LIVES_MAX_S = 0.08
SEED = 20250106


@dataclass(frozen=True)
class Victim:
    """A process that saves, where it notes what it was told, and its word that it is ready."""

    process: BaseProcess
    notebook: Path
    told: Connection


class Volume:
    """A directory whose savers are killed again and again, and what is known of its documents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data_dir = folder / "data"
        self._documents: Mapping[str, State] = {}
        self._lives = 0
        self.writes = 0

    def start(self, wrong: str = "") -> Victim:
        """Begin the next life, of a wrong store if so asked."""
        self._folder.mkdir(exist_ok=True)
        self._lives += 1
        notebook = self._folder / f"life{self._lives}"
        told, tells = Pipe(duplex=False)
        process = FORKSERVER.Process(
            target=saver.run,
            args=(str(self._data_dir), self._lives, str(notebook), tells, wrong),
        )
        process.start()
        tells.close()
        return Victim(process, notebook, told)

    def judge(self, victim: Victim) -> list[str]:
        """Open what the kill left, and return every promise that it broke."""
        events = noted(victim.notebook)
        victim.notebook.unlink()
        self.writes += sum(isinstance(one, Write) for one in events)
        refused = [one for one in events if isinstance(one, Write) and one.outcome == "refused"]
        broken = [f"V7: {one} was refused" for one in refused]
        stopped = Stopped(at=time.monotonic())
        read, what_lies_there = self._look()
        broken += [*what_lies_there, *check([*events, stopped, read], start=self._documents)]
        self._documents = read.found
        return broken

    def _look(self) -> tuple[Read, list[str]]:
        """Read everything, and say what else lies there that should not."""
        with open_seline(self._data_dir, backups__keep_newest=KEEP_NEWEST) as seline:
            began = time.monotonic()
            files = seline.data.export_all_data()["files"]
            found = states_in(files, EVERYTHING)
            read = Read(found=found, began=began, ended=time.monotonic())
            broken = [f"V4: {one}" for one in seline.data.verify().findings]
            broken += [f"V4: {one} lies in quarantine" for one in seline.data.quarantine()]
            seline.data.prune()  # the kill may have come before a rotation
            for document in EVERYTHING:
                kept = [one for one in seline.data.all_backups() if one.document == document]
                if sum(not one.pinned for one in kept) > KEEP_NEWEST:
                    broken.append(f"V2: {document} has more backups than are kept")
        broken += [f"V7: {name} is stray" for name in stray(self._data_dir)]
        return read, broken


def kill_in_the_middle(victim: Victim, after_s: float) -> None:
    """Let it save for a while, and kill it."""
    assert victim.told.recv() == "ready"
    time.sleep(after_s)
    victim.process.kill()
    victim.process.join()
    victim.told.close()
    assert victim.process.exitcode == -signal.SIGKILL, "it ended by itself"


@dataclass(frozen=True)
class Killed:
    """How many were killed, how many writes they had asked for, and what was broken."""

    kills: int
    writes: int
    broken: list[str]


def kill_again_and_again(tmp_path: Path, kills: int, *, limit_s: float, wrong: str = "") -> Killed:
    """Kill savers on several volumes side by side, round after round, until a promise is broken."""
    volumes = [Volume(tmp_path / f"volume{number}") for number in range(KILLS_AT_ONCE)]
    chance = random.Random(SEED)
    ends_at = time.monotonic() + limit_s
    killed = 0
    broken: list[str] = []
    while killed < kills and not broken and time.monotonic() < ends_at:
        victims = [volume.start(wrong) for volume in volumes]
        for victim in victims:
            kill_in_the_middle(victim, chance.uniform(0.0, LIVES_MAX_S))
        for volume, victim in zip(volumes, victims, strict=True):
            broken += volume.judge(victim)
        killed += len(victims)
    return Killed(killed, sum(volume.writes for volume in volumes), broken)


@pytest.mark.timeout(280)
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    done = kill_again_and_again(tmp_path, 200, limit_s=240)

    assert done.broken == []
    assert done.kills == 200
    assert done.writes > 200, "hardly anything was under way when the kills came"


FLAGGED_AS = {
    "answers early": "a write was lost, or a read was stale",
    "records nothing": "only a part of|a write was lost, or a read was stale",
    "holds nothing": "both made from",
}


@pytest.mark.parametrize("wrong", saver.WRONG)
def test_a_wrong_store_is_flagged(wrong: str, tmp_path: Path) -> None:
    done = kill_again_and_again(tmp_path, 200, limit_s=60, wrong=wrong)

    assert re.search(FLAGGED_AS[wrong], "\n".join(done.broken)), done


@pytest.mark.prove(share=20)
@pytest.mark.timeout(3000)
def test_a_thousand_kills_lose_nothing(tmp_path: Path, share_s: float) -> None:
    done = kill_again_and_again(tmp_path, 1000, limit_s=min(share_s, 48 * 60))

    mount = mount_of(str(tmp_path))
    note(
        "kill -9",
        "sixteen writers, transactions and rotation, at random moments",
        tried=done.kills,
        failures=len(done.broken),
        where=mount.kind if mount else "unknown",
        writes=done.writes,
    )
    assert done.broken == []
    assert done.kills > 0
