"""Kill -9 at random moments under load: no acknowledged write is lost (V1, V2, V3, V5, V6).

Sixteen writers, transactions, reads, exports and rotation are running when the process is killed.
The history check compares their outcomes with the documents afterwards: no write is lost, no read
is stale, no transaction is partial, no update is lost. No stray file may be left.

The default is 20 kills in each form; `make prove` makes 700 in each form.
"""

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
from tests.acceptance.saver import EVERYTHING, KEEP_NEWEST, KEPT, read_notebook, states_in
from tests.faults.forms import FIRST, labelled
from tests.proof.figures import note
from tests.proof.history import Read, State, Stopped, Write, check
from tests.proof.judge import stray

FORKSERVER = get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.acceptance.saver"])
KILLS_AT_ONCE = 4
LIFE_MAX_S = 0.08
SEED = 20250106


@dataclass(frozen=True)
class Victim:
    """A process that saves, its notebook, and the connection on which it sends `ready`."""

    process: BaseProcess
    notebook: Path
    ready: Connection


class Volume:
    """A directory whose processes are killed, and the known states of its documents."""

    def __init__(self, folder: Path, form: str) -> None:
        self._folder = folder
        self._form = form
        self._data_dir = folder / "data"
        self._documents: Mapping[str, State] = {}
        self._lives = 0
        self.writes = 0

    def start(self, wrong: str = "") -> Victim:
        """Start the next process, with the wrong store `wrong` if named."""
        self._folder.mkdir(exist_ok=True)
        self._lives += 1
        notebook = self._folder / f"life{self._lives}"
        receives, sends = Pipe(duplex=False)
        process = FORKSERVER.Process(
            target=saver.run,
            args=(str(self._data_dir), self._lives, str(notebook), sends, self._form, wrong),
        )
        process.start()
        sends.close()
        return Victim(process, notebook, receives)

    def judge(self, victim: Victim) -> list[str]:
        """Open the volume after the kill and return the broken guarantees."""
        events = read_notebook(victim.notebook)
        victim.notebook.unlink()
        writes = [event for event in events if isinstance(event, Write)]
        self.writes += len(writes)
        broken = [f"V7: {write} was refused" for write in writes if write.outcome == "refused"]
        stopped = Stopped(at=time.monotonic())
        read, defects = self._read_all()
        broken += [*defects, *check([*events, stopped, read], start=self._documents)]
        self._documents = read.found
        return broken

    def _read_all(self) -> tuple[Read, list[str]]:
        """Read all documents, and check backups, quarantine and stray files."""
        with open_seline(self._data_dir, **KEPT) as seline:
            began = time.monotonic()
            files = seline.data.export_all_data()["files"]
            found = states_in(files, EVERYTHING)
            read = Read(found=found, began=began, ended=time.monotonic())
            broken = [f"V4: {finding}" for finding in seline.verify().findings]
            broken += [f"V4: {item} is in quarantine" for item in seline.quarantine()]
            seline.prune()  # the kill may have prevented a rotation
            for document in EVERYTHING:
                backups = [b for b in seline.all_backups() if b.document == document]
                if sum(not backup.pinned for backup in backups) > KEEP_NEWEST:
                    broken.append(f"V2: {document} has more backups than are kept")
        broken += [f"V7: {name} is stray" for name in stray(self._data_dir)]
        return read, broken


def kill_after(victim: Victim, after_s: float) -> None:
    """Wait until the process saves, then kill it after `after_s`."""
    assert victim.ready.recv() == "ready"
    time.sleep(after_s)
    victim.process.kill()
    victim.process.join()
    victim.ready.close()
    assert victim.process.exitcode == -signal.SIGKILL, "it ended before the kill"


@dataclass(frozen=True)
class Killed:
    """How many processes were killed, how many writes they made, and what was broken."""

    kills: int
    writes: int
    broken: list[str]


def kill_repeatedly(
    tmp_path: Path, kills: int, *, limit_s: float, form: str = FIRST, wrong: str = ""
) -> Killed:
    """Kill processes on several volumes at once, in rounds, until a guarantee is broken."""
    volumes = [Volume(tmp_path / f"volume{number}", form) for number in range(KILLS_AT_ONCE)]
    chance = random.Random(SEED)
    ends_at = time.monotonic() + limit_s
    killed = 0
    broken: list[str] = []
    while killed < kills and not broken and time.monotonic() < ends_at:
        victims = [volume.start(wrong) for volume in volumes]
        for victim in victims:
            kill_after(victim, chance.uniform(0.0, LIFE_MAX_S))
        for volume, victim in zip(volumes, victims, strict=True):
            broken += volume.judge(victim)
        killed += len(victims)
    return Killed(killed, sum(volume.writes for volume in volumes), broken)


@pytest.mark.timeout(280)
def test_twenty_kills_lose_no_acknowledged_write(form: str, tmp_path: Path) -> None:
    result = kill_repeatedly(tmp_path, 20, limit_s=240, form=form)

    assert result.broken == []
    assert result.kills == 20
    assert result.writes > 20, "too few writes were running when the processes were killed"


FLAGGED_AS = {
    "answers before the commit": "a write was lost, or a read was stale",
    "writes no record": "only a part of|a write was lost, or a read was stale",
    "locks nothing": "both made from",
}


@pytest.mark.prove
@pytest.mark.timeout(280)
@pytest.mark.parametrize("wrong", saver.WRONG)
def test_a_wrong_store_is_flagged(wrong: str, tmp_path: Path) -> None:
    result = kill_repeatedly(tmp_path, 1000, limit_s=180, wrong=wrong)

    assert re.search(FLAGGED_AS[wrong], "\n".join(result.broken)), result


@pytest.mark.prove(share=20)
@pytest.mark.timeout(3000)
def test_hundreds_of_kills_lose_no_acknowledged_write(
    form: str, tmp_path: Path, share_s: float
) -> None:
    result = kill_repeatedly(tmp_path, 700, limit_s=min(share_s, 30 * 60), form=form)

    mount = mount_of(str(tmp_path))
    note(
        "kill -9",
        labelled("sixteen writers, transactions and rotation, at random moments", form),
        tried=result.kills,
        failures=len(result.broken),
        where=mount.kind if mount else "unknown",
        writes=result.writes,
    )
    assert result.broken == []
    assert result.kills > 0
