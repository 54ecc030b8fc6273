"""Seline opened on what a power cut left, and every promise that is broken there.

The shared judge looks at what is served; here is added what only the files can tell: that what was
replaced, set aside, pinned or purged is where it must be (V2, V4, V11).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from seline.domain.document import Content, Json
from seline.domain.json_text import encode
from seline.storage.volume import probe
from tests.faults.powercut.disk_model import Tree
from tests.faults.powercut.states import Cut, write
from tests.proof.judge import Expected, Outcome, judge
from tests.proof.operations import A, Operation

SET_ASIDE: Final = "V4: something sound was put into quarantine"
"""Where a disk loses an attribute and keeps the bytes, a leftover cannot be told from a hand edit:
it is set aside for a person to look at, and that is all that may happen."""


class Flagged(NamedTuple):
    """A state with the promises that are broken in it."""

    cut: str
    broken: Sequence[str]


def flagged(
    cuts: Iterable[Cut], steps: Sequence[Expected], directory: Path
) -> Generator[Flagged | None]:
    """Open each state with Seline and yield what it broke, None where nothing is broken.

    `steps` are the changes that were recorded, in order, each to be acknowledged by itself.
    """
    with unhurried():
        for number, cut in enumerate(cuts):
            place = directory / str(number)
            write(cut.tree, place)
            broken = _broken(cut, steps, place)
            shutil.rmtree(place)
            yield Flagged(str(cut), broken) if broken else None


def all_flagged(cuts: Sequence[Cut], steps: Sequence[Expected], directory: Path) -> list[Flagged]:
    """Do `flagged` in a process of its own."""
    place = directory / str(os.getpid())
    return [one for one in flagged(cuts, steps, place) if one is not None]


def _broken(cut: Cut, steps: Sequence[Expected], directory: Path) -> list[str]:
    done = cut.acknowledged >= len(steps)
    expected = steps[-1] if done else steps[cut.acknowledged]
    broken = broken_promises(directory, expected, "acknowledged" if done else "unknown")
    return [one for one in broken if not (cut.bare and one == SET_ASIDE)]


def broken_promises(directory: Path, expected: Expected, outcome: Outcome) -> list[str]:
    """Judge what a cut left; a volume that cannot be opened or used is a broken promise too."""
    look = ALSO.get(expected.operation.name, _lost_backups)
    try:
        broken = judge(directory, expected, outcome)
        return broken + look(directory, expected, outcome)
    except Exception as error:
        return [f"V7: {type(error).__name__}: {error}"]


@contextmanager
def unhurried() -> Generator[None]:
    """Do without syncs, strict mode, talk and mounts, which cost time and show nothing here.

    What shares a mount with others is counted by its own files, so that a busy one is as good.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        patch.setattr(os, "posix_fadvise", lambda *_: None)
        patch.setattr(probe, "mount_of", lambda _path: None)
        patch.setenv("SELINE_STRICT", "")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def portable(expected: Expected) -> Expected:
    """Return what is expected in a form that can be sent to another process."""
    operation = expected.operation
    return replace(
        expected,
        operation=Operation(
            name=operation.name, act=_nothing, changes=operation.changes, certain=operation.certain
        ),
    )


def _nothing(*_: object) -> None:
    raise AssertionError("only the judge's part was sent")


def holds_a_record(tree: Tree) -> bool:
    """Whether a transaction has passed its commit point in this state."""
    return any(path == ".seline/journal" for path, _ in tree.files)


# what the judge cannot see. It has saved every document once more by now: what was current then
# is the newest backup, and a change that was not made has its content before among the backups.


def _lost_backups(directory: Path, expected: Expected, _outcome: Outcome) -> list[str]:
    """V2: what was replaced is among the backups, in every state."""
    return [
        f"V2: the content of {name} before the change is not among its backups"
        for name in sorted(expected.operation.changes)
        if expected.before[name] is not None
        and expected.before[name] not in _backups(directory, name)
    ]


def _lost_pins(directory: Path, expected: Expected, outcome: Outcome) -> list[str]:
    """V11: once the blank save is there, the content before it is pinned."""
    broken = _lost_backups(directory, expected, outcome)
    if expected.after[A] not in _backups(directory, A):
        return broken
    try:
        pins = json.loads((directory / ".seline" / "pins.json").read_text(encoding="utf-8"))["pins"]
    except FileNotFoundError:
        pins = []
    revision = Content.of(encode(expected.before[A])).revision
    if not any(pin["revision"] == revision for pin in pins):
        broken.append("V11: what the blank save removed is not pinned")
    return broken


def _lost_quarantine(directory: Path, _expected: Expected, _outcome: Outcome) -> list[str]:
    """V4: a broken content that was recovered lies in quarantine, whenever that was."""
    kept = [path.read_bytes() for path in (directory / "quarantine").iterdir()]
    return [] if any(b"xyx" in data for data in kept) else ["V4: the broken bytes are not kept"]


def _purged(directory: Path, _expected: Expected, outcome: Outcome) -> list[str]:
    """V3: once a purge was acknowledged, no backup comes back."""
    left = _backups(directory, A)
    return ["V3: a purged backup is there again"] if outcome == "acknowledged" and left else []


def _none(*_: object) -> list[str]:
    return []


ALSO: Final[Mapping[str, Callable[[Path, Expected, Outcome], list[str]]]] = {
    "blank save": _lost_pins,
    "recovery": _lost_quarantine,
    "purge": _purged,
    "save without a backup": _none,
}


def _backups(directory: Path, name: str) -> list[Json]:
    found = (directory / "backups").glob(f"{name.removesuffix('.json')}_[0-9]*.json")
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]
