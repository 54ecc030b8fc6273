"""The scenarios of the power-cut suite: operations, sequences of them, failures and edits.

A scenario prepares a volume, has a `Judge` of what may be found on it, and does something that is
recorded. Its `way` is what the disk, or a person beside the store, does at the same time.
"""

import errno
import fcntl
import functools
import itertools
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import pytest

from seline.blocking import Seline
from seline.clock import Clock
from seline.domain.checksum import checksum_of, encode_checksum
from seline.domain.document import BOT, Content, DocumentKey, Json
from seline.domain.json_codec import decode, encode
from seline.errors import OutcomeUnknown, RestoreUnfinished, SelineError
from seline.library import restore_volume
from seline.manager.changes import save as saved
from seline.ports.store import Atom, Change
from seline.settings import load_settings
from seline.storage.volume import files, lock
from seline.storage.volume import open as opening
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit import sync, sync_threads
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.journal import checkpoint as checkpoints
from seline.storage.volume.journal.codec import batches
from tests.copied import original
from tests.faults.forms import (
    AT_ONCE,
    BY_A_JOURNAL,
    FILES_LATER,
    FIRST,
    FORMS,
    by_a_journal_with_files_later,
    chosen,
    synced_in_its_files,
)
from tests.faults.injection import left_by_a_kill, store_of
from tests.faults.powercut.disk_model import Tree
from tests.faults.powercut.promises import (
    PROMISED,
    AfterKill,
    BySteps,
    Judge,
    Keeping,
    State,
    has_committed,
    unhurried,
)
from tests.faults.powercut.recorder import Recording, recording, tree_of
from tests.faults.powercut.states import EVERY, Cut, Cutting, cuts, write
from tests.proof.judge import NAMES, Expected, Values, expect, read_values
from tests.proof.operations import (
    DONE,
    NEW,
    OPERATIONS,
    STILL,
    A,
    B,
    C,
    Operation,
    change_large,
    change_two_parts,
    documents,
    large,
    opened,
    prepare,
    value,
)
from tests.proof.operations import act as act_and_acknowledge

Way: TypeAlias = Callable[[pytest.MonkeyPatch], None]
EDIT: Final[Json] = {"by": "hand"}
TORN: Final = b'{"by": "ha'
LARGE_EDIT: Final = encode(EDIT) + b" " * 60_000
"""For which a small journal has no room."""
JOURNAL_FILE: Final = r"/journal-\w$"
LEFT: Final = "00000001"
"""The name in staging/ of the first displaced file."""


def as_usual(_patch: pytest.MonkeyPatch) -> None:
    """Change nothing."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is done to a volume, and the judge of what is left.

    `killed`: the process is killed after each call that this matches, and the start after it is
    cut. `cut_again`: the number of first cuts that are followed by a start that is cut. `forms` are
    the forms of the commit in which things happen in this order.
    """

    name: str
    prepare: Callable[[Path], Judge]
    act: Callable[[Path], None]
    way: Way = as_usual
    killed: str = ""
    cut_again: int = 0
    long: bool = False
    forms: Sequence[str] = tuple(FORMS)

    @property
    def is_drawn(self) -> bool:
        """Whether it has too many states to open: a kill at every call, or many calls."""
        return self.long or self.killed == "."


def states_of(
    name: str, place: Path, plant: Way = as_usual, cutting: Cutting = EVERY
) -> list[State]:
    """Return the states that cuts leave of a scenario, with the build that `plant` makes."""
    scenario = SCENARIOS[name]
    tree, judge = _prepared(scenario.prepare)
    with unhurried(), pytest.MonkeyPatch.context() as patch:
        plant(patch)
        scenario.way(patch)
        with _laid_out(tree, place) as volume, recording(volume) as made:
            scenario.act(volume)
        if scenario.killed:
            return list(_after_kills(made, scenario.killed, judge, place, cutting))
        if scenario.cut_again:
            count = max(1, round(scenario.cut_again * cutting.starts))
            first = cuts(made, replace(cutting, share=max(cutting.share, 0.1)))
            return list(_cut_again(first, judge, count, place, cutting))
        return [State(cut, judge) for cut in cuts(made, cutting)]


@contextmanager
def _laid_out(tree: Tree, place: Path) -> Generator[Path]:
    """Yield a directory with the content of a tree."""
    volume = place / "volume"
    write(tree, volume)
    try:
        yield volume
    finally:
        shutil.rmtree(volume)


def _after_kills(
    made: Recording, where: str, judge: Judge, place: Path, cutting: Cutting
) -> Iterator[State]:
    """Yield the states after a cut in the start after a kill; a value read there must stay."""
    moments = [at for at, call in enumerate(made.calls, 1) if re.match(where, str(call))]
    chance = random.Random(len(made.calls))
    chosen = chance.sample(moments, max(1, round(len(moments) * cutting.starts)))
    for at, (after, killed) in enumerate(made.disks()):
        if at not in chosen:
            continue
        left = killed.copy()
        with (
            _laid_out(left.tree(left.current()), place) as volume,
            recording(volume, left) as starting,
            opened(volume) as seline,
        ):
            seen = read_values(seline)
            backups = [path.read_bytes() for path in (volume / "backups").iterdir()]
            _acknowledge()
        whole = AfterKill(judge, killed.acknowledged, seen, backups)
        for cut in cuts(starting, cutting):
            yield State(replace(cut, after=f"kill after {after}; {cut.after}"), whole)


def _cut_again(
    states: Sequence[Cut], judge: Judge, count: int, place: Path, cutting: Cutting
) -> Iterator[State]:
    """Yield the states after a cut in the start after a cut; what had committed stays."""
    for first in _past_and_before_the_commit_point(states, count):
        with _laid_out(first.tree, place) as volume, recording(volume) as starting, opened(volume):
            pass
        done = PROMISED if has_committed(first.tree) else first.acknowledged
        for cut in cuts(starting, cutting):
            after = f"{first}; {cut.after}"
            again = replace(cut, after=after, acknowledged=done, bare=first.bare)
            yield State(again, judge)


def _past_and_before_the_commit_point(states: Sequence[Cut], count: int) -> list[Cut]:
    """Return some states, half of them, if there are so many, past the commit point."""
    chance = random.Random(count)
    past = [cut for cut in states if has_committed(cut.tree)]
    rest = [cut for cut in states if not has_committed(cut.tree)]
    return [cut for some in (past, rest) for cut in chance.sample(some, min(len(some), count))]


@functools.cache
def _prepared(prepare: Callable[[Path], Judge]) -> tuple[Tree, Judge]:
    """Return the volume that a scenario starts with, and its judge; made once per process.

    It is made by the first form; the scenario's own form follows.
    """
    with (
        tempfile.TemporaryDirectory(prefix="seline-scenario-") as scratch,
        unhurried(),
        pytest.MonkeyPatch.context() as patch,
    ):
        synced_in_its_files(patch)
        volume = Path(scratch) / "volume"
        judge = prepare(volume)
        return tree_of(volume), judge


# one operation, or several in one session


@functools.cache
def _ready_for(operation: str) -> Callable[[Path], Judge]:
    """Return the function that makes an operation's volume, the same for every way."""

    def ready(volume: Path) -> Judge:
        expected = expect(OPERATIONS[operation], volume.with_name("expected"))
        prepare(OPERATIONS[operation], volume)
        return BySteps.of(expected)

    return ready


def _of_operation(operation: Operation, way: Way = as_usual, also: str = "") -> Scenario:
    return Scenario(
        name=f"{operation.name}, {also}" if also else operation.name,
        prepare=_ready_for(operation.name),
        act=functools.partial(act_and_acknowledge, operation),
        way=way,
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One change of a session; `certain` as an operation's."""

    act: Callable[[Seline, Path], object]
    certain: bool = False


def _of_steps(
    name: str, *steps: Step, before: Callable[[Path], None] = lambda _volume: None
) -> Scenario:
    def ready(volume: Path) -> Judge:
        judge = BySteps.of(*_expected(name, steps, before, volume.with_name("expected")))
        documents(volume)
        before(volume)
        return judge

    def act(volume: Path) -> None:
        with opened(volume) as seline:
            for step in steps:
                step.act(seline, volume)
                _acknowledge()

    return Scenario(name=name, prepare=ready, act=act)


def _expected(
    name: str, steps: Sequence[Step], before: Callable[[Path], None], scratch: Path
) -> Iterator[Expected]:
    """Do the steps without a fault and yield the effect of each."""
    documents(scratch)
    before(scratch)
    with opened(scratch) as seline:
        old = read_values(seline)
        for step in steps:
            step.act(seline, scratch)
            new = read_values(seline)
            operation = Operation(
                name=name,
                act=lambda *_: None,
                changes=frozenset(name for name in old if old[name] != new[name]),
                certain=step.certain,
            )
            yield Expected(operation=operation, before=old, after=new)
            old = new


def _acknowledge() -> None:
    """Acknowledge one change."""
    os.write(1, DONE.encode())


def _save(number: Json, name: str = A) -> Step:
    return Step(act=lambda seline, _: seline.data.save_json(name, value(name, number)))


def transaction(seline: Seline, _volume: Path) -> None:
    with seline.data.transaction(A, B, C) as change:
        for name in (A, B, C):
            change[name] = value(name, "new")


def _delete_and_change(seline: Seline, _volume: Path) -> None:
    with seline.data.transaction(A, B) as change:
        del change[A]
        change[B] = value(B, "new")


def _save_during_an_export(seline: Seline, _volume: Path) -> None:
    with seline.data.exported():
        seline.data.save_json(A, value(A, "new"))


SEQUENCES: Final = (
    _of_steps("seven saves", *map(_save, range(10, 17))),
    _of_steps("transaction, then a save", Step(act=transaction), _save("newer")),
    _of_steps(
        "transaction that deletes, then the same save again", Step(act=_delete_and_change), _save(2)
    ),
    _of_steps(
        "start after a crash, then a save",
        Step(act=lambda _seline, _volume: None, certain=True),
        _save("newer"),
        before=OPERATIONS["start after a crash"].prepare,
    ),
    _of_steps(
        "delete, then a save", Step(act=lambda seline, _: seline.data.delete(A)), _save("newer")
    ),
    _of_steps("save during an export", Step(act=_save_during_an_export)),
    _of_steps(
        "changes of a large document",
        Step(act=lambda seline, _: seline.data.save_json(A, large(0))),
        *(Step(act=change_large) for _ in range(3)),
        Step(act=lambda seline, _: seline.data.update_field(A, "n", 1)),
        Step(act=change_two_parts),
        Step(act=lambda seline, _: seline.data.append_item(A, "/items", {"at": 61, "text": "z"})),
        Step(act=lambda seline, _: seline.data.update_field(A, "n", "a longer text")),
    ),
)
"""Changes of one session, each acknowledged: an earlier one must not replace a later one."""


# how the commit works on other file systems


def _refused(*_: object) -> NoReturn:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _no_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "link", _refused)


def _no_exchange(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "exchange", _refused)


def _neither(patch: pytest.MonkeyPatch) -> None:
    _no_links(patch)
    _no_exchange(patch)


def _link_refused(patch: pytest.MonkeyPatch) -> None:
    """Links work for the probe, and are refused for the document."""

    def link(source: int, name: str, target: int, new_name: str) -> None:
        if name == A:
            _refused()
        real(source, name, target, new_name)

    real = files.link
    patch.setattr(files, "link", link)


def as_a_whole(patch: pytest.MonkeyPatch) -> None:
    """Have the file system synced as a whole, by a commit and by a checkpoint."""

    def written(self: sync.Syncer, descriptors: Sequence[int]) -> bool:
        self.capabilities = replace(self.capabilities, syncs_whole=True)
        return real(self, descriptors)

    def checkpoint(volume: VolumeDirectory, capabilities: Capabilities, *args: Any) -> None:
        real_checkpoint(volume, replace(capabilities, syncs_whole=True), *args)

    real, real_checkpoint = sync.Syncer.sync_written, checkpoints.sync_published
    patch.setattr(sync, "SYNCFS_FILES_MIN", 1)
    patch.setattr(sync.Syncer, "sync_written", written)
    patch.setattr(checkpoints, "sync_published", checkpoint)


class _ShuttingDown:
    """A thread pool that takes no work, as every pool does while the interpreter shuts down."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, *_: object) -> Future[None]:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def shutdown(self, **_: object) -> None:
        pass


class _NoThread:
    """A thread that does not start, as each one while the interpreter shuts down."""

    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def _shutting_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sync_threads, "ThreadPoolExecutor", _ShuttingDown)
    patch.setattr(checkpoints, "Thread", _NoThread)


WAYS: Final = (
    *(
        _of_operation(OPERATIONS[name], way, also)
        for also, way in {
            "links refused": _no_links,
            "no exchange of names": _no_exchange,
            "neither links nor exchange": _neither,
            "synced as a whole": as_a_whole,
        }.items()
        for name in ("save", "delete", "transaction", "recovery")
    ),
    _of_operation(OPERATIONS["recovery"], _link_refused, "its link refused"),
    _of_operation(OPERATIONS["transaction"], _shutting_down, "while the interpreter shuts down"),
)


# a disk that fails a sync once; the next sync of the same file proves nothing


@dataclass(slots=True)
class _FailsOnce:
    """A disk that fails one sync of what `where` matches, once `armed`; the next one succeeds."""

    where: str
    armed: bool = False

    def way(self, patch: pytest.MonkeyPatch) -> None:
        """Replace the disk's syncs."""
        self.armed = False
        patch.setattr(os, "fsync", self._sync)
        patch.setattr(os, "fdatasync", self._sync)

    def _sync(self, descriptor: int) -> None:
        if self.armed and re.search(self.where, os.readlink(f"/proc/self/fd/{descriptor}")):
            self.armed = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def _try(change: Callable[[], object]) -> bool:
    """Make a change, and acknowledge it if it succeeds."""
    try:
        change()
    except SelineError:
        return False
    _acknowledge()
    return True


def _sync_documents(seline: Seline) -> None:
    """Have the store sync the documents, by saves that change nothing, before the disk fails."""
    for name in (A, B, C):
        seline.data.save_json(name, value(name, 2))


def _of_failing_sync(
    what: str, where: str, operation: str = "save", forms: Sequence[str] = tuple(FORMS)
) -> Scenario:
    """A change whose sync fails, tried again once. `forms` are those that sync there."""
    failing = _FailsOnce(where)

    def act(volume: Path) -> None:
        with opened(volume) as seline:
            change = functools.partial(OPERATIONS[operation].act, seline, volume)
            _sync_documents(seline)
            failing.armed = True
            _try(change) or _try(change)
        assert not failing.armed, "no sync failed"

    usual = _of_operation(OPERATIONS[operation], failing.way)
    return replace(usual, name=f"{operation}, {what} fails to sync", act=act, forms=forms)


def _rot_newest_backup(volume: Path) -> None:
    """Change one byte of a backup durably and keep the mtime, as a failing disk does."""
    path = max((volume / "backups").glob("a_*.json"))
    backups = os.open(path.parent, os.O_RDONLY)
    raw = files.read_whole(backups, path.name, size_max=1 << 20)
    rotten = raw.data.replace(b"xxx", b"xyx", 1)
    descriptor = files.stage(backups, "rot.tmp", rotten, raw.attribute, raw.identity.mtime_ns)
    os.fsync(descriptor)
    os.close(descriptor)
    files.rename(backups, "rot.tmp", backups, path.name)
    os.fsync(backups)
    os.close(backups)


class _Forward(Clock):
    """A clock that can be set ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


def _of_reopening(
    name: str,
    where: str,
    change: Callable[[Seline, Path], object],
    during: Callable[[Path], None] = lambda _volume: None,
) -> Scenario:
    """A change with an unknown outcome, and a save of another document that reopens the store.

    By a journal it is the sync of the journal that fails.
    """
    failing = _FailsOnce(rf"{where}|{JOURNAL_FILE}")

    def ready(volume: Path) -> Judge:
        documents(volume)
        before = _before(volume)
        with opened(shutil.copytree(volume, volume.with_name("expected"))) as seline:
            change(seline, volume)
            made = read_values(seline)
        older = {**before, A: value(A, 1)}  # where the newest backup has rotted
        both = {**made, STILL: value(STILL, "new")}
        return Keeping(served=[(before, older, made, both), (both,)])

    def act(volume: Path) -> None:
        clock = _Forward()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(opening, "Clock", lambda: clock)
            with opened(volume) as seline:
                _sync_documents(seline)
                failing.armed = True
                with pytest.raises(OutcomeUnknown):
                    change(seline, volume)
                during(volume)
                clock.ahead_s = 60.0
                assert _try(lambda: seline.data.save_json(STILL, value(STILL, "new")))

    return Scenario(name=name, prepare=ready, act=act, way=failing.way)


FAILING: Final = (
    _of_failing_sync("the staged file", r"staging/\w", forms=[FIRST]),
    _of_failing_sync("backups/", "volume/backups$"),
    _of_failing_sync("the journal's file", JOURNAL_FILE, forms=BY_A_JOURNAL),
    _of_failing_sync("the journal's file", JOURNAL_FILE, "transaction", BY_A_JOURNAL),
    _of_failing_sync("the documents' directory", "volume$"),
    _of_failing_sync("a staged file", r"staging/\w", "transaction", [FIRST]),
    _of_failing_sync("the record", "journal", "transaction", [FIRST]),
    _of_failing_sync("the directory of the record", "seline$", "transaction"),
    _of_reopening(
        "save, the documents' directory fails to sync, then the reopening",
        "volume$",
        OPERATIONS["save"].act,
    ),
    _of_reopening(
        "delete, the documents' directory fails to sync, then the reopening",
        "volume$",
        OPERATIONS["delete"].act,
    ),
    _of_reopening(
        "delete, the documents' directory fails to sync, then rot and the reopening",
        "volume$",
        OPERATIONS["delete"].act,
        during=_rot_newest_backup,
    ),
    _of_reopening(
        "transaction that deletes, the documents' directory fails to sync, then the reopening",
        "volume$",
        _delete_and_change,
    ),
    _of_reopening(
        "transaction that deletes, the directory of the record fails to sync, then the reopening",
        "seline$",
        _delete_and_change,
    ),
    _of_reopening(
        "transaction, the documents' directory fails to sync, then the reopening",
        "volume$",
        transaction,
    ),
    _of_reopening(
        "transaction, the journal's file, if there is one, fails to sync, then the reopening",
        "seline$",
        transaction,
    ),
    _of_reopening(
        "transaction, the directory of the record fails to sync, then the reopening",
        "seline$",
        transaction,
    ),
)


# the first start, and a directory that is removed while the store runs


def _nothing_there(volume: Path) -> Judge:
    volume.mkdir()
    nothing: Values = dict.fromkeys(NAMES)
    new = {**nothing, NEW: value(NEW, "new")}
    return Keeping(served=[(nothing, new), (new,)], inside="data", has_format=True)


def _first_save(volume: Path) -> None:
    with opened(volume / "data") as seline:
        seline.data.save_json(NEW, value(NEW, "new"))
        _acknowledge()


def _files_of_an_older_bot(volume: Path) -> Judge:
    volume.mkdir()
    before: Values = {**dict.fromkeys(NAMES), **{name: value(name, 2) for name in (A, B, C)}}
    for name in (A, B, C):
        (volume / name).write_bytes(encode(before[name]))
    after = {**before, **{name: value(name, "new") for name in (A, B, C)}}
    return Keeping(
        served=[(before, after), (after,)],
        kept={encode(before[name]): 0 for name in (A, B, C)},
        has_format=True,
    )


def _first_transaction(volume: Path) -> None:
    with opened(volume) as seline:
        transaction(seline, volume)
        _acknowledge()


def _no_lock_on_directories(patch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(descriptor, operation)

    real = fcntl.flock
    patch.setattr(lock.fcntl, "flock", flock)


def _saved_before(volume: Path) -> Judge:
    documents(volume)
    before = _before(volume)
    after = {**before, A: value(A, "new")}
    return Keeping(served=[(before, after), (after,)], kept={encode(before[A]): 0})


def _save_without_backups(volume: Path) -> None:
    with opened(volume) as seline:
        shutil.rmtree(volume / "backups")
        seline.data.save_json(A, value(A, "new"))
        _acknowledge()


STARTS: Final = (
    Scenario(name="first start, and a save", prepare=_nothing_there, act=_first_save),
    Scenario(
        name="first start over an older bot's files, and a transaction",
        prepare=_files_of_an_older_bot,
        act=_first_transaction,
    ),
    Scenario(
        name="first start where directories cannot be locked, and a transaction",
        prepare=_files_of_an_older_bot,
        act=_first_transaction,
        way=_no_lock_on_directories,
    ),
    Scenario(
        name="backups/ removed by hand, then a save",
        prepare=_saved_before,
        act=_save_without_backups,
    ),
)


# a copy restored onto an empty volume


@dataclass(frozen=True, slots=True)
class Restored:
    """Judges a restore: the volume is served whole, or empty, or not before it is completed."""

    def __call__(self, cut: Cut, directory: Path) -> list[str]:
        try:
            with opened(directory) as seline:
                is_empty = not (seline.data.documents() or seline.all_backups())
        except RestoreUnfinished:
            is_empty = True
        if is_empty and cut.acknowledged:
            return ["V3: an acknowledged restore is not there"]
        if is_empty:
            _restore(directory)
        return [f"V5: {flaw}" for flaw in COPIED.flaws_of(directory)]


COPIED: Final = original(1)


def _to_be_restored(volume: Path) -> Judge:
    volume.mkdir(parents=True)
    return Restored()


def _restore(volume: Path) -> None:
    settings = load_settings(environ=chosen(), arguments={"storage.data_dir": str(volume)})
    restore_volume(settings, COPIED.copy(), lock_wait_s=0)


def _restore_and_acknowledge(volume: Path) -> None:
    _restore(volume)
    _acknowledge()


RESTORE: Final = Scenario(
    name="restore of a copy onto an empty volume",
    prepare=_to_be_restored,
    act=_restore_and_acknowledge,
    long=True,
)


# hand edits beside the store, or between a crash and the next start


def _edit(volume: Path, data: bytes) -> None:
    """Put an edit in place durably, as a careful editor does; acknowledge it."""
    _put(volume, A, data)
    _acknowledge()


def _put(volume: Path, name: str, data: bytes) -> None:
    """Put a file in place durably."""
    staged = os.path.join(volume, "edit.tmp")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(staged, os.path.join(volume, name))
    top = os.open(volume, os.O_RDONLY)
    os.fsync(top)
    os.close(top)


def _edited_at(call: str, data: bytes, then: Way = as_usual) -> Way:
    """Edit the document just before the store's call of that name on it."""

    def way(patch: pytest.MonkeyPatch) -> None:
        def edited(source: int, name: str, target: int, new_name: str) -> None:
            if A in (name, new_name) and left:
                left.pop()
                documents = source if name == A else target
                _edit(Path(os.readlink(f"/proc/self/fd/{documents}")), data)
                then(patch)
            real(source, name, target, new_name)

        left = [True]
        real = getattr(files, call)
        patch.setattr(files, call, edited)

    return way


def _full_for_one_file(patch: pytest.MonkeyPatch) -> None:
    def stage(*args: object) -> int:
        if left:
            left.pop()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)  # type: ignore[arg-type]

    left = [True]
    real = files.stage
    patch.setattr(files, "stage", stage)


def _to_be_edited(edit: bytes, saves: int = 1) -> Callable[[Path], Judge]:
    """Judge saves beside an edit: neither the edit nor the content that it replaces is lost."""

    def ready(volume: Path) -> Judge:
        documents(volume)
        before = _before(volume)
        edited = {**before, A: EDIT}
        new = [{**before, A: value(A, number)} for number in range(10, 10 + saves)]
        # a torn edit is answered by the newest backup, which is older until the link is made
        older = {**before, A: value(A, 1)}
        between = (edited, new[0]) if edit != TORN else (before, older, new[0])
        steps = list(itertools.pairwise(new))
        return Keeping(
            served=[(before, *between), between, *steps, (new[-1],)],
            kept={edit: 1},
            replaced=[encode(before[A])],
        )

    return ready


def _to_be_edited_in_a_transaction(volume: Path) -> Judge:
    documents(volume)
    before = _before(volume)
    edited = {**before, A: EDIT}
    after = {**before, **{name: value(name, "new") for name in (A, B, C)}}
    also_after = {**after, A: EDIT}  # the transaction was durable before the edit
    return Keeping(
        served=[(before, edited, also_after, after), (edited, also_after, after), (after,)],
        kept={encode(EDIT): 1},
        replaced=[encode(before[A])],
    )


def _to_be_edited_in_a_recovery(volume: Path) -> Judge:
    documents(volume)
    before = _before(volume)
    OPERATIONS["recovery"].prepare(volume)
    recovered, edited = {**before, A: value(A, 1)}, {**before, A: EDIT}
    return Keeping(served=[(recovered, edited), (edited,), (edited,)], kept={encode(EDIT): 1})


def _load(volume: Path) -> None:
    with opened(volume) as seline:
        seline.data.load_json(A)
        _acknowledge()


def _saves(count: int) -> Callable[[Path], None]:
    def act(volume: Path) -> None:
        with opened(volume) as seline:
            for number in range(10, 10 + count):
                seline.data.save_json(A, value(A, number))
                _acknowledge()

    return act


def crash(volume: Path, change: Callable[[Seline, Path], None], *, exchanges: int = 0) -> None:
    """Leave the volume as a kill does after a transaction's commit point and some exchanges."""
    with recording(volume) as made, opened(volume, storage__journal_bytes=0) as seline:
        change(seline, volume)
    to_come = ["renameat .seline/journal", *(["renameat2"] * exchanges or ["fsync .seline"])]
    for after, there in made.disks():
        if after.startswith(to_come[0]):
            to_come.pop(0)
        if not to_come:
            shutil.rmtree(volume)
            write(there.tree(there.current()), volume)
            return
    raise AssertionError("the change has no such moment")


def _edited_after(
    edit: bytes, change: Callable[[Seline, Path], None] = transaction, *, exchanges: int = 0
) -> Callable[[Path], Judge]:
    """Prepare a crash in a transaction and a hand edit; the start must lose neither."""

    def ready(volume: Path) -> Judge:
        documents(volume)
        with opened(shutil.copytree(volume, volume.with_name("expected"))) as seline:
            change(seline, volume)
            after = read_values(seline)
        crash(volume, change, exchanges=exchanges)
        (volume / A).unlink()
        (volume / A).write_bytes(edit)
        if after[A] is None:
            after = {**after, A: EDIT}
        elif exchanges:  # the edit replaced what was published
            after = {**after, A: value(A, 2)}
        return Keeping(served=[(after,), (after,)], kept={edit: 0})

    return ready


def _left_in_staging(volume: Path) -> Judge:
    """Prepare a displaced edit that a crash left in staging/."""
    documents(volume)
    before = _before(volume)
    (volume / ".seline" / "staging" / LEFT).write_bytes(encode(EDIT))
    after = {**before, **{name: value(name, "new") for name in (A, B, C)}}
    return Keeping(served=[(before, after), (after,)], kept={encode(EDIT): 0})


def _broken_record(volume: Path) -> Judge:
    documents(volume)
    before = _before(volume)
    OPERATIONS["start after a crash"].prepare(volume)
    journal = volume / ".seline" / "journal"
    journal.write_bytes(rotten := journal.read_bytes().replace(b'"a.json"', b'"q.json"'))
    return Keeping(served=[(before,), (before,)], kept={rotten: 0}, once=[rotten])


def _copied_in(volume: Path, *, saved_as_it_is: bool) -> Judge:
    documents(volume)
    before = _before(volume)
    theirs, new = {**before, A: value(A, "theirs")}, {**before, A: value(A, "new")}
    older = {**before, A: value(A, 1)}  # a torn copy is recovered from it
    return Keeping(
        served=[(before, older, theirs, new), *[(theirs, new)] * saved_as_it_is, (new,)],
        replaced=[encode(theirs[A])],
    )


def _copy_in(volume: Path, *, saved_as_it_is: bool) -> None:
    """Copy a document in with its checksum, as `cp -a` and `mv` do; then save it."""
    content, mtime_ns = Content.of(encode(value(A, "theirs"))), time.time_ns()
    attribute = encode_checksum(checksum_of(DocumentKey(BOT, A), content, mtime_ns))
    with opened(volume) as seline:
        top = os.open(volume, os.O_RDONLY)
        os.close(files.stage(top, "copy.tmp", content.data, attribute, mtime_ns))
        files.rename(top, "copy.tmp", top, A)
        os.close(top)
        for number in ("theirs", "new") if saved_as_it_is else ("new",):
            seline.data.save_json(A, value(A, number))
            _acknowledge()


def _start(volume: Path) -> None:
    with opened(volume):
        _acknowledge()


def _recovered(volume: Path) -> Judge:
    documents(volume)
    OPERATIONS["recovery"].prepare(volume)
    broken = (volume / A).read_bytes()
    with opened(volume) as seline:
        seline.data.load_json(A)
    before = _before(volume)
    erased = [broken, *(encode(value(A, number)) for number in range(3))]
    after = {**before, A: None}
    return Keeping(served=[(before, after), (after,)], erased=erased)


def _purge(volume: Path) -> None:
    with opened(volume) as seline:
        seline.data.delete(A, purge=True)
        _acknowledge()


def _to_be_purged(volume: Path) -> Judge:
    documents(volume)
    before = _before(volume)
    saved = [{**before, A: value(A, number)} for number in (10, 11)]
    after = {**before, A: None}
    steps = list(itertools.pairwise([before, *saved, after]))
    erased = [encode(value(A, number)) for number in (0, 1, 2, 10, 11)]
    return Keeping(served=[*steps, (after,)], erased=erased)


def _two_saves_and_a_purge(volume: Path) -> None:
    with opened(volume) as seline:
        for number in (10, 11):
            seline.data.save_json(A, value(A, number))
            _acknowledge()
        seline.data.delete(A, purge=True)
        _acknowledge()


def _with_a_new_file(volume: Path) -> Judge:
    documents(volume)
    before = _before(volume)
    theirs, new = {**before, NEW: EDIT}, {**before, NEW: value(NEW, "new")}
    return Keeping(served=[(before, theirs, new), (new,)])


def _first_save_over_a_removed_file(volume: Path) -> None:
    """Another program makes a file that Seline never reads, and removes it without a sync."""
    with opened(volume) as seline:
        _put(volume, NEW, encode(EDIT))
        (volume / NEW).unlink()
        seline.data.save_json(NEW, value(NEW, "new"))
        _acknowledge()


def _kill_after(volume: Path, saves: Sequence[tuple[str, int]]) -> None:
    """Leave a volume as a kill does after saves that only the journal has."""
    killed = volume.with_name("killed")
    with pytest.MonkeyPatch.context() as patch:
        by_a_journal_with_files_later(patch)
        with opened(volume) as seline:
            for name, number in saves:
                seline.data.save_json(name, value(name, number))
            left_by_a_kill(volume, killed)
    shutil.rmtree(volume)
    killed.rename(volume)


def _edited_after_a_kill(volume: Path) -> Judge:
    """Prepare a kill after a save, and a hand edit; the start must lose neither."""
    documents(volume)
    before = _before(volume)
    _kill_after(volume, [(A, 10)])
    (volume / A).unlink()
    (volume / A).write_bytes(encode(EDIT))
    after = {**before, A: EDIT}
    kept = (encode(EDIT), encode(value(A, 10)))
    return Keeping(served=[(after,), (after,)], kept=dict.fromkeys(kept, 0))


def _rotten_journal(volume: Path) -> Judge:
    """Prepare a kill after some saves, and rot of one of them: that one is lost."""
    documents(volume)
    before = _before(volume)
    _kill_after(volume, [(A, 10), (B, 11), (A, 12), (A, 13)])
    path = volume / ".seline" / "journal-a"
    data = bytearray(path.read_bytes())
    data[next(itertools.islice(batches(bytes(data), after_epoch=0), 1, None)).start + 100] ^= 1
    path.write_bytes(data)
    after = {**before, A: value(A, 13)}
    return Keeping(served=[(after,), (after,)], kept={bytes(data): 0}, once=[bytes(data)])


def _before(volume: Path) -> Values:
    with opened(volume) as seline:
        return read_values(seline)


BESIDE: Final = (
    Scenario(
        name="the same saved and a save, over a copy by hand",
        prepare=functools.partial(_copied_in, saved_as_it_is=True),
        act=functools.partial(_copy_in, saved_as_it_is=True),
    ),
    Scenario(
        name="save, over a copy by hand",
        prepare=functools.partial(_copied_in, saved_as_it_is=False),
        act=functools.partial(_copy_in, saved_as_it_is=False),
    ),
    Scenario(
        name="save, edited by hand before the link",
        forms=AT_ONCE,
        prepare=_to_be_edited(encode(EDIT)),
        act=_saves(1),
        way=_edited_at("link", encode(EDIT)),
    ),
    Scenario(
        name="save, edited by hand before the exchange",
        forms=AT_ONCE,
        prepare=_to_be_edited(encode(EDIT)),
        act=_saves(1),
        way=_edited_at("exchange", encode(EDIT)),
    ),
    Scenario(
        name="save, edited by hand before the exchange, torn",
        forms=AT_ONCE,
        prepare=_to_be_edited(TORN),
        act=_saves(1),
        way=_edited_at("exchange", TORN),
    ),
    Scenario(
        name="two saves, edited by hand before the first exchange, with no room for the edit",
        forms=AT_ONCE,
        prepare=_to_be_edited(encode(EDIT), saves=2),
        act=_saves(2),
        way=_edited_at("exchange", encode(EDIT), _full_for_one_file),
    ),
    Scenario(
        name="transaction, edited by hand before the exchange",
        forms=AT_ONCE,
        prepare=_to_be_edited_in_a_transaction,
        act=_first_transaction,
        way=_edited_at("exchange", encode(EDIT)),
    ),
    Scenario(
        name="recovery, edited by hand before the link",
        prepare=_to_be_edited_in_a_recovery,
        act=_load,
        way=_edited_at("link", encode(EDIT)),
    ),
    Scenario(
        name="start after a crash and an edit by hand",
        prepare=_edited_after(encode(EDIT)),
        act=_start,
    ),
    Scenario(
        name="start after a crash and an edit by hand, torn",
        prepare=_edited_after(TORN),
        act=_start,
    ),
    Scenario(
        name="start after a crash past the exchange, and an edit by hand, torn",
        prepare=_edited_after(TORN, exchanges=1),
        act=_start,
    ),
    Scenario(
        name="start after a crash of a removal, and an edit by hand",
        prepare=_edited_after(encode(EDIT), _delete_and_change),
        act=_start,
    ),
    Scenario(
        name="start after a kill and an edit by hand", prepare=_edited_after_a_kill, act=_start
    ),
    Scenario(
        name="start with an edit left in staging/, and a transaction",
        prepare=_left_in_staging,
        act=_first_transaction,
    ),
    Scenario(name="start with a rotten record", prepare=_broken_record, act=_start),
    Scenario(name="start with a rotten journal", prepare=_rotten_journal, act=_start),
    Scenario(name="purge of a recovered document", prepare=_recovered, act=_purge),
    Scenario(name="two saves and a purge", prepare=_to_be_purged, act=_two_saves_and_a_purge),
    Scenario(
        name="first save, over a file that came and went",
        prepare=_with_a_new_file,
        act=_first_save_over_a_removed_file,
    ),
)

# hand edits while the journal has a document that is not in its file yet


def _to_be_edited_later(edit: bytes, changed: Sequence[str] = (A,)) -> Callable[[Path], Judge]:
    """Judge a change, an edit after it and then its publication: neither content is lost."""

    def ready(volume: Path) -> Judge:
        documents(volume)
        before = _before(volume)
        new = {**before, **{name: value(name, "new") for name in changed}}
        either = [new] if edit == TORN else [new, {**new, A: EDIT}]
        return Keeping(
            served=[(before, new), either, either, (new,)], kept={edit: 2, encode(new[A]): 1}
        )

    return ready


def _change_and_publish(
    change: Callable[[Seline, Path], object], between: Callable[[Path], None]
) -> Callable[[Path], None]:
    """Change, do something after the acknowledgement, publish."""

    def act(volume: Path) -> None:
        with opened(volume) as seline:
            change(seline, volume)
            _acknowledge()
            between(volume)
            seline.data.documents()
            _acknowledge()

    return act


LATE: Final = tuple(
    Scenario(
        name=f"{operation}, then edited by hand {when}{torn}",
        prepare=_to_be_edited_later(edit, (A,) if operation == "save" else (A, B, C)),
        act=_change_and_publish(
            OPERATIONS[operation].act,
            functools.partial(_edit, data=edit) if way is as_usual else lambda _volume: None,
        ),
        way=way,
        forms=(FILES_LATER,),
    )
    for torn, edit in (("", encode(EDIT)), (", torn", TORN), (", a large one", LARGE_EDIT))
    for operation in ("save", "transaction")
    for when, way in (
        ("before its file is written", as_usual),
        ("before the link", _edited_at("link", edit)),
        ("before the exchange", _edited_at("exchange", edit)),
    )
)
"""An edit at each moment between the acknowledgement and the publication."""


# documents of another space than the bot's

SPACE: Final = "alice"
IN_SPACE: Final = (
    (None, value(A, 2)),
    (value(A, "first"), value(A, 2)),
    (value(A, "second"), value(A, "new")),
)
"""The document of the space and the bot's, before and after each of two changes."""


@dataclass(frozen=True, slots=True)
class InSpaces:
    """Judges a first save in a space, then a transaction over it and the bot's space."""

    def __call__(self, cut: Cut, directory: Path) -> list[str]:
        done = min(cut.acknowledged, len(IN_SPACE) - 1)
        with opened(directory) as seline:
            found = (_load_from_space(seline), seline.data.load_json(A))
            broken = [] if found in IN_SPACE[done : done + 2] else [f"V1, V3, V5: {found}"[:400]]
            kept = [value(A, "first")] if found == IN_SPACE[-1] else []
            broken += ["V2: no backup in the space"] * (_backups_in_space(seline) != kept)
            _save_in_spaces(seline, {SPACE: "works"})
            works = _load_from_space(seline) == value(A, "works")
        return broken + ["V7: no change in the space works"] * (not works)


def _save_in_spaces(seline: Seline, numbers: Mapping[str, Json]) -> None:
    """Save the document A of some spaces in one atom."""
    changes = (
        Change(DocumentKey(space, A), saved(Content.of(encode(value(A, number)))))
        for space, number in numbers.items()
    )
    store_of(seline).submit(Atom(tuple(changes))).result(20)


def _load_from_space(seline: Seline) -> Json:
    content = store_of(seline).look(DocumentKey(SPACE, A))[0].content
    return None if content is None else decode(content.data)


def _backups_in_space(seline: Seline) -> list[Json]:
    store, key = store_of(seline), DocumentKey(SPACE, A)
    contents = [store.read_backup(key, backup.name).content for backup in store.backups(key)]
    return [None if content is None else decode(content.data) for content in contents]


def _with_documents(volume: Path) -> Judge:
    documents(volume)
    return InSpaces()


def _save_in_two_spaces(volume: Path) -> None:
    with opened(volume) as seline:
        for numbers in ({SPACE: "first"}, {SPACE: "second", BOT: "new"}):
            _save_in_spaces(seline, numbers)
            _acknowledge()


SPACES: Final = Scenario(
    name="first save in a space, then a transaction over two spaces",
    prepare=_with_documents,
    act=_save_in_two_spaces,
)

ENDS: Final = (
    replace(SPACES, name=f"{SPACES.name}, killed, then a start", killed="mkdirat|rename"),
    *(
        replace(
            _of_operation(OPERATIONS[name]), name=f"{name}, killed{at}, then a start", killed=where
        )
        for name, at, where in (
            ("save", "", "."),
            ("transaction", "", "."),
            ("recovery", "", "."),
            ("save", " after the exchange", "renameat2 a.json"),
            ("transaction", " before its record is durable", "(renameat|pwrite64) .seline/journal"),
        )
    ),
    replace(
        _of_steps("two saves", _save(1), _save(2)),
        name="two saves, killed after an exchange, then a start",
        killed="renameat2 a.json",
    ),
    *(
        replace(
            _of_operation(OPERATIONS[name]), name=f"{name}, and the start after it", cut_again=8
        )
        for name in ("blank save", "transaction", "import", "recovery", "start after a crash")
    ),
)
"""A cut, or a kill, followed by a start that is cut."""

SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        *map(_of_operation, OPERATIONS.values()),
        *SEQUENCES,
        *WAYS,
        *FAILING,
        *STARTS,
        *BESIDE,
        *LATE,
        SPACES,
        RESTORE,
        *ENDS,
    )
}
