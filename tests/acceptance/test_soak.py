"""A soak test: all operations at once, for minutes, with faults, compared with a model (V1 to V9).

A process like a bot's (`soaking`) works on a small volume. It is killed now and then, bits are
flipped in its files, and the volume is filled by another program and freed again. The history check
compares the outcomes of its writes and the results of its reads, process after process:

- every acknowledged write is present or was replaced; transactions and imports are complete;
- a flipped byte is never served; a corrupted file is found, moved to quarantine and recovered, and
  a document gets an older content only if no process had it in memory when its file was corrupted;
- on a full volume reads work, growing writes are refused and nothing else is, and writes work again
  when there is room;
- the use of memory, descriptors, threads and disk does not grow, neither within a long process nor
  from process to process.

It runs by a journal, and in the first form. SELINE_SOAK_MINUTES sets the time of both (default: ten
minutes). The test prints one line for each. The tests below it reproduce what it has found.
"""

import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from seline import blocking, open_seline
from seline.bit_flip import flip_in_place, with_flip
from seline.domain.backup import parse_backup_name
from seline.domain.document import ABSENT
from seline.library import Seline
from seline.storage.volume.mounts import mount_of
from tests.acceptance.saver import UNKNOWN, read_lines, read_notebook, state_of, states_in
from tests.acceptance.soaking import ADMIN, API, EVERYTHING, KEEP_NEWEST
from tests.faults.forms import FILES_LATER, FIRST, JOURNAL_BYTES, SMALL_JOURNAL, labelled
from tests.faults.small_filesystem import SmallFilesystem, small_filesystem
from tests.proof.figures import note
from tests.proof.history import Corrupted, Event, Read, State, Stopped, Write, check
from tests.proof.judge import stray

SIZE_MB: Final = 64
STARTS_WITHIN_S: Final = 60.0
STOPS_WITHIN_S: Final = 30.0
STEP_S: Final = 0.25
FLIPS, FILLS, KILLS, JUDGED = 0.1, 0.02, 0.8, 0.7
"""The probabilities: per step of a flip and a full volume; per end of a kill and a full check."""
SHORT_LIFE_S: Final = (0.5, 9.0)
LONG_LIFE_SHARE: Final = 0.5
FULL_S: Final = (0.5, 4.0)
FOREIGN: Final = "foreign.bin"
REFUSED_AFTER_S: Final = 2.0
"""How long after the volume was freed an earlier write may still be refused."""
WRITES_AGAIN_WITHIN_S: Final = 10.0
EXPECTED_REFUSALS: Final = frozenset({"document_not_found", "backup_not_found"})
"""Refusals of a delete or restore that follows another delete."""
WARM_SHARE: Final = 0.2
"""The share of a process's life that is left out of its trends: caches and pools are filling."""
SAME_AGE_S: Final = 3.0
MINUTES: Final = float(os.environ.get("SELINE_SOAK_MINUTES") or 10)
SEED: Final = 20250106
FORMS: Final = {
    FILES_LATER: (SMALL_JOURNAL, "by a journal"),
    FIRST: ({JOURNAL_BYTES: "0"}, "each change is synced in its files"),
}
"""Each form with the variables that choose it, and what health calls it."""


@pytest.mark.prove(share=15)
@pytest.mark.timeout(MINUTES * 60 + 300)
@pytest.mark.parametrize("form", FORMS)
def test_a_soak_breaks_no_guarantee_and_does_not_grow(
    form: str, tmp_path: Path, share_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, named = FORMS[form]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with place(tmp_path) as (volume, where):
        done = Soak(tmp_path, volume)
        done.run(min(share_s, MINUTES * 60 / len(FORMS)))
    took_s = time.monotonic() - began

    long = done.lives[-1].gauges
    within = trends(long[int(len(long) * WARM_SHARE) :], third_min=20)
    between = trends(at_the_same_age(done.lives), third_min=4)
    failures = done.broken + [f"{trend} grows" for trend in (*within, *between) if trend.grows]
    counted = done.counted
    note(
        "soak",
        labelled(f"{took_s / 60:.1f} minutes of everything at once", form),
        tried=sum(counted[fault] for fault in ("kills", "flips", "full volumes")),
        failures=len(failures),
        where=where,
        seed=SEED,
        **counted,
        **{trend.what: trend.span for trend in within},
    )
    assert f"changes are taken ({named})" in done.forms
    assert failures == []


@contextmanager
def place(folder: Path) -> Iterator[tuple["Volume", str]]:
    """Yield a small volume and its file system; a directory if mounting is not allowed."""
    with ExitStack() as stack:
        try:
            small = stack.enter_context(small_filesystem(folder / "small", size_mb=SIZE_MB))
        except pytest.skip.Exception as reason:
            print(f"The volume is never full in this test: {reason}")
            mount = mount_of(str(folder))
            given = Volume(folder / "data", None), f"{mount.kind if mount else '?'} (never full)"
        else:
            given = Volume(small.path, small), small.kind
        yield given


# the volume, with a corrupting disk and another program


class Volume:
    """A data directory in which bits are flipped, and which another program fills."""

    def __init__(self, path: Path, filesystem: SmallFilesystem | None) -> None:
        self.path = path
        self._filesystem = filesystem
        self._flipped: set[tuple[int, int]] = set()
        self.full: list[tuple[float, float]] = []
        """The start and the end of each interval in which it is full."""

    # full

    @property
    def can_be_full(self) -> bool:
        return self._filesystem is not None

    @property
    def is_full(self) -> bool:
        return (self.path / FOREIGN).exists()

    def fill(self, for_s: float, *, leave_bytes: int) -> None:
        """Fill the volume with a foreign file, except for `leave_bytes`."""
        assert self._filesystem is not None
        now = time.monotonic()
        self.full.append((now, now + for_s))
        self._filesystem.fill(FOREIGN, leave_bytes=leave_bytes)

    def free(self) -> None:
        """Remove the foreign file, if there is one."""
        if self.is_full:
            (self.path / FOREIGN).unlink()
            self.full[-1] = (self.full[-1][0], time.monotonic())

    # corrupted

    def flip(self, path: Path, chance: random.Random) -> None:
        """Flip one bit and keep the mtime."""
        data = path.read_bytes()
        offset, bit = chance.randrange(len(data)), chance.randrange(8)
        flip_in_place(str(path), data, with_flip(data, offset, bit))
        self._flipped.add(_identity(path))

    def was_flipped(self, path: Path) -> bool:
        return _identity(path) in self._flipped

    def documents(self) -> list[Path]:
        return [path for name in EVERYTHING if (path := self.path / name).exists()]

    def broken(self) -> list[str]:
        """Return the documents whose files are broken."""
        return [path.name for path in self.documents() if not is_sound(path)]

    def backups(self, document: str) -> list[Path]:
        parsed = ((path, parse_backup_name(path.name)) for path in self.path.glob("backups/*"))
        return [path for path, name in parsed if name is not None and name[0] == document]

    def sound_backups(self, document: str) -> list[Path]:
        return [path for path in self.backups(document) if is_sound(path)]

    def used_mb(self) -> float:
        """Return the size of everything that must not grow: without quarantine and foreign file."""
        return sum(_blocks(folder, names) for folder, _, names in os.walk(self.path)) / 2**20


def is_sound(path: Path) -> bool:
    """Whether a file has a value that was written, complete; checked without Seline."""
    try:
        state = state_of(json.loads(path.read_bytes()))
    except ValueError:
        return False
    return state is not None and not state.startswith(UNKNOWN)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _blocks(folder: str, names: Sequence[str]) -> int:
    if os.path.basename(folder) == "quarantine":
        return 0
    size_bytes = 0
    for name in set(names) - {FOREIGN, "reserve"}:
        with suppress(FileNotFoundError):
            size_bytes += os.stat(os.path.join(folder, name)).st_blocks * 512
    return size_bytes


# one life


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """The resource use of a process and its volume at one moment."""

    age_s: float
    memory_mb: float
    descriptors: int
    threads: int
    disk_mb: float


@dataclass(slots=True)
class Life:
    """One process, from its start to its end."""

    process: subprocess.Popen[str]
    notebook: Path
    errors: Path
    address: str
    ready_at: float
    gauges: list[Gauge] = field(default_factory=list)

    @classmethod
    def start(cls, number: int, volume: Volume, folder: Path) -> "Life":
        """Start a process on a volume and wait until it is ready."""
        notebook, errors = folder / f"notes{number}", folder / f"errors{number}"
        command = [sys.executable, "-m", "tests.acceptance.soaking", str(volume.path)]
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, str(number), str(notebook), str(folder / "exports")],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], STARTS_WITHIN_S)
        word, _, address = (process.stdout.readline() if readable else "").partition(" ")
        if word != "ready":
            process.kill()
            process.wait()
            raise AssertionError(f"it was never ready: {errors.read_text()[-2000:]}")
        return cls(process, notebook, errors, address.strip(), time.monotonic())

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Pause the process in the block, so that several calls corrupt a file at one instant."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            while self.lives and not self._is_stopped():
                time.sleep(0.0005)
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _is_stopped(self) -> bool:
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        return all(") T " in task.read_text() for task in tasks)

    def is_ready(self) -> bool:
        """Whether its readiness probe succeeds."""
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def form(self) -> str:
        """Return how it takes changes, as its health says.

        On a full volume that is why it takes none, or the first form, as a journal has no room.
        """
        authorization = {"Authorization": f"Bearer {ADMIN}"}
        health = urllib.request.Request(f"{self.address}{API}/health", headers=authorization)
        with urllib.request.urlopen(health, timeout=10) as answer:
            checks = json.load(answer)["checks"]
        return next(str(check["detail"]) for check in checks if check["name"] == "writing")

    def gauge(self, disk_mb: float) -> None:
        """Record its resource use."""
        proc = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        self.gauges.append(
            Gauge(
                age_s=time.monotonic() - self.ready_at,
                memory_mb=int(status["VmRSS"].split()[0]) / 1024,
                descriptors=len(os.listdir(proc / "fd")),
                threads=int(status["Threads"]),
                disk_mb=disk_mb,
            )
        )

    def end(self, number: signal.Signals) -> Iterator[str]:
        """End the process with a signal, and yield what was wrong with its end."""
        ended_before = not self.lives
        self.process.send_signal(number)
        code = self.process.wait(STOPS_WITHIN_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        errors = self.errors.read_text()[-2000:]
        if ended_before or code != (-signal.SIGKILL if number == signal.SIGKILL else 0):
            yield f"it ended with {code} ({number.name}): {errors}"
        elif "Traceback" in errors:
            yield f"it printed a traceback: {errors}"


# the model


class Model:
    """The known states of the documents, and the history since the last check."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._current: Mapping[str, State] = {}
        self._older: dict[str, set[State]] = {name: set() for name in EVERYTHING}
        self._events: list[Event] = []
        self._notebooks: list[Path] = []
        self._had_backup: set[str] = set()
        self.counted: Counter[str] = Counter()

    def collect(self, notebook: Path) -> Iterator[str]:
        """Add a process's notebook to the history; yield the defects that it shows by itself."""
        lines = read_lines(notebook)
        self._notebooks.append(notebook)
        self._events += [*read_notebook(notebook), Stopped(at=time.monotonic())]
        self.note_corrupted()
        outcomes = [line for line in lines if line[0] == "outcome"]
        self.counted["exports"] += sum(line[0] == "exported" for line in lines)
        self.counted["integrity passes"] += sum(line[0] == "verified" for line in lines)
        self.counted["refusals"] += sum(outcome[3] == "refused" for outcome in outcomes)
        yield from (line[1] for line in lines if line[0] == "wrong")
        yield from self._unexpected_refusals(outcomes)
        yield from self._blocked(lines)

    def note_corrupted(self) -> None:
        """Record which files are corrupted, while no process uses them."""
        now = time.monotonic()
        self._events += [Corrupted(document=name, at=now) for name in self._volume.broken()]

    def _unexpected_refusals(self, outcomes: Sequence[Sequence[Any]]) -> Iterator[str]:
        """Yield refusals for lack of room while there was room, and refusals without a cause."""
        for _, _, at, outcome, code in outcomes:
            if outcome != "refused" or code in EXPECTED_REFUSALS:
                continue
            full = any(start <= at <= end + REFUSED_AFTER_S for start, end in self._volume.full)
            if code != "volume_full" or not full:
                yield f"V9: a write was refused without a cause: {code}"

    def _blocked(self, lines: Sequence[Sequence[Any]]) -> Iterator[str]:
        """Yield the full intervals without a read in them, or without a write soon after them."""
        reads = [line[2] for line in lines if line[0] == "read"]
        done = [line[2] for line in lines if line[0] == "outcome" and line[3] == "acknowledged"]
        first, last = min(reads, default=0.0), max(reads, default=0.0)
        for start, end in self._volume.full:
            if first < start and start + 1 < end < last and not _any_between(reads, start, end):
                yield "V9: nothing was read while the volume was full"
            again = end + WRITES_AGAIN_WITHIN_S
            if first < end and again < last and not _any_between(done, end, again):
                yield "V9: nothing was written after there was room again"

    def judge(self) -> Iterator[str]:
        """Open the volume, check it and the history, and yield the broken guarantees."""
        with blocking.open_seline(
            self._volume.path,
            lock_wait_s=5,
            backups__keep_newest=KEEP_NEWEST,
            backups__keep_daily=0,
        ) as seline:
            self._export(seline)
            for name in EVERYTHING:
                self._load(seline, name)
            yield from self._verify(seline)
            found = self._export(seline)
            yield from self._check_backups(seline)
        yield from check(self._events, start=self._current, older=self._older)
        yield from (f"V7: {name} is stray" for name in stray(self._volume.path))
        self.counted["writes"] += sum(isinstance(event, Write) for event in self._events)
        self.counted["reads"] += sum(isinstance(event, Read) for event in self._events)
        self._current = found

    def forget_history(self) -> None:
        """Start a new history from the current states, after a check without open writes."""
        for event in self._events:
            if isinstance(event, Write) and event.outcome != "refused":
                for name, state in event.changes.items():
                    self._older[name].add(state)
        for notebook in self._notebooks:
            notebook.unlink()
        self._events.clear()
        self._notebooks.clear()
        self._volume.full.clear()

    def _export(self, seline: blocking.Seline) -> Mapping[str, State]:
        began = time.monotonic()
        found = states_in(seline.data.export_all_data()["files"], EVERYTHING)
        self._events.append(Read(found=found, began=began, ended=time.monotonic()))
        return found

    def _load(self, seline: blocking.Seline, name: str) -> None:
        began = time.monotonic()
        found = {name: state_of(seline.data.load_json(name, default=ABSENT))}
        self._events.append(Read(found=found, began=began, ended=time.monotonic()))

    def _verify(self, seline: blocking.Seline) -> Iterator[str]:
        """Check that verify finds only what was flipped, and that all documents are sound."""
        for finding in seline.verify().findings:
            backup = self._volume.path / "backups" / (finding.backup or "")
            if finding.backup is None:
                yield f"V4: {finding}, but the document had been read"
            elif backup.exists() and not self._volume.was_flipped(backup):
                yield f"V4: {finding}, but the backup was not corrupted"
        for item in self._volume.path.glob("quarantine/*"):
            if is_sound(item):
                yield f"V4: {item.name} is in quarantine and is sound"
        yield from (f"V4: {name} was not repaired" for name in self._volume.broken())

    def _check_backups(self, seline: blocking.Seline) -> Iterator[str]:
        """Check that every document has a sound backup, but not too many backups (V2, V8)."""
        seline.prune()
        kept = Counter(b.document for b in seline.all_backups() if not b.pinned)
        for name in EVERYTHING:
            sound = len(self._volume.sound_backups(name))
            if name in self._had_backup and not sound:
                yield f"V8: {name} has no sound backup left"
            if sound:
                self._had_backup.add(name)
            if kept[name] > KEEP_NEWEST + len(self._volume.backups(name)) - sound:
                yield f"V2: {name} keeps {kept[name]} backups"


def _any_between(instants: Sequence[float], start: float, end: float) -> bool:
    return any(start < at < end for at in instants)


# the soak


class Soak:
    """Runs processes one after another, with faults during and between them."""

    def __init__(self, folder: Path, volume: Volume) -> None:
        self._folder = folder
        self._volume = volume
        self._model = Model(volume)
        self._chance = random.Random(SEED)
        self.counted = self._model.counted
        self.lives: list[Life] = []
        self.forms: set[str] = set()
        self.broken: list[str] = []

    def run(self, for_s: float) -> None:
        """Run until the time is over or a guarantee is broken; the last process runs long."""
        ends_at = time.monotonic() + for_s
        long_from = ends_at - for_s * LONG_LIFE_SHARE
        while not self.broken and time.monotonic() < long_from:
            self._run_process(
                self._chance.uniform(*SHORT_LIFE_S), judged=self._chance.random() < JUDGED
            )
        if not self.broken:
            self._run_process(ends_at - time.monotonic(), judged=True)

    def _run_process(self, for_s: float, *, judged: bool) -> None:
        life = Life.start(len(self.lives) + 1, self._volume, self._folder)
        self.lives.append(life)
        kill = self._chance.random() < KILLS
        try:
            self.forms.add(life.form())
            self._run_load(life, for_s)
        finally:
            self.broken += life.end(signal.SIGKILL if kill else signal.SIGTERM)
        self.counted["kills" if kill else "stops"] += 1
        self.broken += self._model.collect(life.notebook)
        if judged or self.broken:
            self._volume.free()
            self.broken += self._model.judge()
        if judged and not self.broken:
            self._model.forget_history()
            self._flip_while_stopped()

    def _run_load(self, life: Life, for_s: float) -> None:
        while time.monotonic() < life.ready_at + for_s and life.lives:
            time.sleep(STEP_S)
            self._fill_or_free()
            if self._chance.random() < FLIPS:
                with life.stopped():
                    self._flip_document(self._chance.choice(EVERYTHING))
            if life.lives:
                life.gauge(self._volume.used_mb())
                if not life.is_ready():
                    self.broken.append("V9: it is not ready")
                    return

    def _fill_or_free(self) -> None:
        if self._volume.is_full:
            if time.monotonic() > self._volume.full[-1][1]:
                self._volume.free()
        elif self._volume.can_be_full and self._chance.random() < FILLS:
            leave_bytes = self._chance.choice([0, 0, 8_192, 300_000])
            self._volume.fill(self._chance.uniform(*FULL_S), leave_bytes=leave_bytes)
            self.counted["full volumes"] += 1

    def _flip_while_stopped(self) -> None:
        """Flip bits while no process runs, but never in the last sound copy of a document."""
        for name in self._chance.sample(EVERYTHING, 2):
            sound = self._volume.sound_backups(name)
            if len(sound) > 1:
                self._flip(self._chance.choice(sound))
            self._flip_document(name)
        self._model.note_corrupted()

    def _flip_document(self, name: str) -> None:
        """Flip a bit if there is a backup: a kill takes away what memory has."""
        if self._volume.sound_backups(name) and (self._volume.path / name).exists():
            self._flip(self._volume.path / name)

    def _flip(self, path: Path) -> None:
        self._volume.flip(path, self._chance)
        self.counted["flips"] += 1


# growth of resource use


MEASURES: Final = {
    "memory_mb": ("memory", "MiB", 8.0),
    "descriptors": ("descriptors", "", 8.0),
    "threads": ("threads", "", 4.0),
    "disk_mb": ("disk", "MiB", 4.0),
}
"""Each measure with its name, its unit and how much it may grow: an arena of the allocator; open
connections and files; threads of pools that start late; a few of the largest documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A measure in the first and the last third, and how much it may grow."""

    what: str
    unit: str
    first: float
    last: float
    allowed: float

    @property
    def grows(self) -> bool:
        return self.last > self.first + self.allowed

    @property
    def span(self) -> str:
        return f"{self.first:.0f} to {self.last:.0f} {self.unit}".strip()

    def __str__(self) -> str:
        return f"{self.what}: {self.span}"


def trends(gauges: Sequence[Gauge], *, third_min: int) -> list[Trend]:
    """Compare the medians of the first and the last third.

    Returns nothing if a third has fewer than `third_min` gauges: that is too short a time.
    """
    third = len(gauges) // 3
    if third < third_min:
        return []
    return [
        Trend(
            what=what,
            unit=unit,
            first=statistics.median(getattr(gauge, name) for gauge in gauges[:third]),
            last=statistics.median(getattr(gauge, name) for gauge in gauges[-third:]),
            allowed=allowed,
        )
        for name, (what, unit, allowed) in MEASURES.items()
    ]


def at_the_same_age(lives: Sequence[Life]) -> list[Gauge]:
    """Return one gauge of each process that ran long enough."""
    old = ([gauge for gauge in life.gauges if gauge.age_s >= SAME_AGE_S] for life in lives)
    return [gauges[0] for gauges in old if gauges]


# tests of what it has found


NAME: Final = "profile.json"


async def test_an_export_has_one_instant_though_a_file_is_corrupted_and_replaced(
    tmp_path: Path,
) -> None:
    async with open_seline(tmp_path) as seline:
        await _move(seline, 0)
        async with seline.data.exported() as snapshot:
            Volume(tmp_path, None).flip(tmp_path / "b.json", random.Random(SEED))
            await _move(seline, 1)
            found = [json.loads(b"".join(snapshot.open(name))) for name in snapshot.names]

    assert found == [_moved(0), _moved(0)]


async def _move(seline: Seline, number: int) -> None:
    async with seline.data.transaction("a.json", "b.json") as change:
        change["a.json"] = change["b.json"] = _moved(number)


def _moved(number: int) -> dict[str, Any]:
    return {"n": number, "filler": "x" * 200}


def test_backups_can_be_listed_during_their_rotation(tmp_path: Path) -> None:
    with blocking.open_seline(tmp_path, backups__keep_newest=1) as seline:
        for number in range(2):
            seline.data.save_json(NAME, {"n": number})
        stop = threading.Event()
        saving = threading.Thread(target=_save_until, args=(seline, stop))
        saving.start()
        try:
            listed = [seline.data.backups(NAME) for _ in range(300)]
        finally:
            stop.set()
            saving.join()

    assert all(item.verdict == "sound" for backups in listed for item in backups)
    assert any(listed)


def _save_until(seline: blocking.Seline, stop: threading.Event) -> None:
    number = 2
    while not stop.is_set():
        number += 1
        seline.data.save_json(NAME, {"n": number})
