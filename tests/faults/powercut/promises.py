"""Open what a power cut left with Seline, and report every broken guarantee.

`BySteps` adds to the shared judge what only the files show (`tests.faults.inspections`).
`Keeping` judges scenarios that are no plain operation: what may be served after each
acknowledgement, and which bytes must still be on the volume.
"""

import logging
import os
import shutil
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import pytest

from seline.domain.document import BOT
from seline.storage.volume import capabilities, files
from seline.storage.volume.journal.codec import (
    BLOCK_BYTES,
    FIRST_BATCH_AT,
    Header,
    batches,
    decode_header,
)
from seline.storage.volume.journal.journal import JOURNAL_NAMES
from tests.faults.forms import FORMS
from tests.faults.inspections import inspection_of
from tests.faults.powercut.disk_model import Tree
from tests.faults.powercut.states import Cut, write
from tests.proof.judge import (
    SOUND_QUARANTINED,
    Expected,
    Outcome,
    Values,
    check_next_saves,
    judge,
    read_values,
)
from tests.proof.operations import Operation, opened

RECORD: Final = ".seline/journal"
JOURNALS: Final = [f".seline/{name}" for name in JOURNAL_NAMES]
PROMISED: Final = 1_000
"""The number of acknowledgements of a state in which every change is promised."""
Judge: TypeAlias = Callable[[Cut, Path], list[str]]
"""Opens one state, written to a directory, with Seline, and returns what is broken."""


class State(NamedTuple):
    """What a cut left, and its judge."""

    cut: Cut
    judge: Judge


class Flagged(NamedTuple):
    """A state with the guarantees that are broken in it."""

    cut: str
    broken: Sequence[str]


def flagged(states: Iterable[State], directory: Path) -> Generator[Flagged | None]:
    """Open each state and yield what is broken in it, None if nothing is."""
    with unhurried():
        for number, state in enumerate(states):
            place = directory / str(number)
            write(state.cut.tree, place)
            broken = _broken(state, place)
            shutil.rmtree(place)
            yield Flagged(str(state.cut), broken) if broken else None


def all_flagged(states: Sequence[State], directory: Path, form: str) -> list[Flagged]:
    """Do `flagged` in another process, with a store of this form."""
    place = directory / str(os.getpid())
    with pytest.MonkeyPatch.context() as patch:
        FORMS[form](patch)
        return [one for one in flagged(states, place) if one is not None]


def _broken(state: State, directory: Path) -> list[str]:
    """Judge what a cut left; a volume that cannot be opened or used is broken too."""
    try:
        return state.judge(state.cut, directory)
    except Exception as error:
        return [f"V7: {type(error).__name__}: {error}"]


@dataclass(frozen=True, slots=True)
class BySteps:
    """Judges changes of one session, in order, each acknowledged by itself."""

    steps: Sequence[Expected]

    @classmethod
    def of(cls, *steps: Expected) -> "BySteps":
        """Return the judge in a form that can be sent to another process."""
        return cls(tuple(map(_portable, steps)))

    def __call__(self, cut: Cut, directory: Path) -> list[str]:
        done = cut.acknowledged >= len(self.steps)
        expected = self.steps[-1] if done else self.steps[cut.acknowledged]
        outcome: Outcome = "acknowledged" if done else "unknown"
        broken = judge(directory, expected, outcome)
        broken += inspection_of(expected.operation.name)(directory, expected, outcome)
        return [one for one in broken if not (cut.bare and one == SOUND_QUARANTINED)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Judges by what may be served and what must be kept, on the volume `inside` a state.

    `served[n]` may be served once n changes were acknowledged. The bytes in `kept` are on the
    volume from that many acknowledgements on, those in `replaced` once the last values are served.
    Once all is acknowledged, no copy of the bytes in `erased` is left, and at most one of those in
    `once`.
    """

    served: Sequence[Sequence[Values]]
    kept: Mapping[bytes, int] = field(default_factory=dict[bytes, int])
    replaced: Sequence[bytes] = ()
    erased: Sequence[bytes] = ()
    once: Sequence[bytes] = ()
    inside: str = "."
    has_format: bool = False

    def __call__(self, cut: Cut, directory: Path) -> list[str]:
        volume, done = directory / self.inside, min(cut.acknowledged, len(self.served) - 1)
        broken = self._format(volume) if self.has_format and done else []
        broken += self._in_journal(volume) if done == len(self.served) - 1 else []
        with opened(volume) as seline:
            found = read_values(seline)
            if found not in self.served[done]:
                broken.append(f"V1, V3, V5: {done} acknowledged, and there is {found}"[:400])
            broken += check_next_saves(seline, found)
        there = _files(volume)
        due = [data for data, since in self.kept.items() if done >= since]
        due += self.replaced if found == self.served[-1][-1] else ()
        broken += [f"V2, V4: {data[:60]!r} is lost" for data in due if data not in there]
        if done == len(self.served) - 1:
            broken += [f"V8: {data[:60]!r} is left" for data in self.erased if data in there]
            broken += [f"V4: {data[:60]!r} twice" for data in self.once if there.count(data) > 1]
        return broken

    def _in_journal(self, volume: Path) -> list[str]:
        """Report what was erased and is left in the journal, which the next start removes."""
        left = b"".join(path.read_bytes() for path in (volume / ".seline").glob("journal-*"))
        return [f"V8: {data[:60]!r} is left in the journal" for data in self.erased if data in left]

    def _format(self, volume: Path) -> list[str]:
        """Report a volume whose format cannot be read."""
        path = volume / ".seline" / "format"
        found = path.read_bytes() if path.exists() else b""
        return [] if found.strip(b"\0\n").isdigit() else ["the volume's format is not known"]


@dataclass(frozen=True, slots=True)
class AfterKill:
    """Judges a cut in a start after a kill.

    Until the start is done `judge` decides; then the values that were `seen` must be served, and
    the `backups` kept. `acknowledged` is the number of changes before the kill.
    """

    judge: Judge
    acknowledged: int
    seen: Values
    backups: Collection[bytes]

    def __call__(self, cut: Cut, directory: Path) -> list[str]:
        if cut.acknowledged:
            kept = dict.fromkeys(self.backups, 0)
            return Keeping(served=[(self.seen,)], kept=kept)(cut, directory)
        return self.judge(replace(cut, acknowledged=self.acknowledged), directory)


def _files(volume: Path) -> list[bytes]:
    """Return the bytes of the documents, the backups and the quarantine."""
    places = (volume, volume / "backups", volume / "quarantine")
    return [path.read_bytes() for place in places for path in place.iterdir() if path.is_file()]


@contextmanager
def unhurried() -> Generator[None]:
    """Turn off syncs, strict mode, logs, mounts and settings, which cost time here.

    A volume on a shared mount is measured by its own files, so that other tests do not fill it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        patch.setattr(files, "_syncfs", lambda _descriptor: 0)
        patch.setattr(os, "posix_fadvise", lambda *_: None)
        patch.setattr(capabilities, "mount_of", lambda _path: None)
        patch.setenv("SELINE_STRICT", "")
        patch.setenv("SELINE_CONFIG", os.devnull)
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _portable(expected: Expected) -> Expected:
    """Return the expectation without the parts that cannot be sent to another process."""
    operation = expected.operation
    return replace(
        expected,
        operation=Operation(
            name=operation.name, act=_nothing, changes=operation.changes, certain=operation.certain
        ),
    )


def _nothing(*_: object) -> None:
    raise AssertionError("only the judge's part was sent")


def has_committed(tree: Tree) -> bool:
    """Whether a change of a document has passed its commit point, by a record or in a journal."""
    found = tree.paths()
    journals = [found[path].data for path in JOURNALS if path in found]
    return RECORD in found or any(map(_has_batch, journals))


def _has_batch(data: bytes) -> bool:
    """Whether a journal's file has a whole batch, not of an earlier use, with a document in it."""
    slots = (data[:BLOCK_BYTES], data[BLOCK_BYTES:FIRST_BATCH_AT])
    header = max(filter(None, map(decode_header, slots)), default=Header(0, 0, is_clean=True))
    after_epoch = header.epoch if header.is_clean else header.epoch - 1
    read = batches(data, after_epoch=after_epoch)
    return any(change.key.space == BOT for one in read for change in one.batch.changes)
