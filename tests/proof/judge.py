"""Check a volume after a fault against V1 to V9.

`expect` finds out what an operation does by running it without a fault. `judge` opens the volume
after a fault and returns every broken guarantee as a sentence. The negative controls run `judge` on
stores that are wrong on purpose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from seline.blocking import Seline
from seline.domain.document import ABSENT, Json
from tests.proof import history
from tests.proof.operations import NEW, STILL, A, B, C, Operation, act, opened, prepare, value

NAMES = (A, B, C, NEW, STILL)
Values: TypeAlias = Mapping[str, Json]
Outcome: TypeAlias = history.Outcome
SOUND_QUARANTINED: Final = "V4: sound bytes were moved to quarantine"
"""Allowed where a disk keeps bytes and loses their attribute: a leftover then looks like a hand
edit, which Seline moves to quarantine."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The documents' values before an operation and after it."""

    operation: Operation
    before: Values
    after: Values

    def allows(self, found: Values, outcome: Outcome) -> bool:
        """Whether these values are correct after a fault."""
        if self.operation.certain or outcome == "acknowledged":
            return found == self.after
        if outcome == "refused":
            return found == self.before
        return found in (self.before, self.after)


def expect(operation: Operation, scratch: Path) -> Expected:
    """Run an operation without a fault and return what it does."""
    prepare(operation, scratch)
    existing = frozenset[str]() if operation.first else frozenset(NAMES) - {NEW}
    before = {name: value(name, 2) if name in existing else None for name in NAMES}
    before |= operation.saved
    act(operation, scratch)
    with opened(scratch) as seline:
        after = read_values(seline)
    changed = {name for name in NAMES if before[name] != after[name]}
    assert changed == operation.changes, f"{operation.name} changes {sorted(changed)}"
    return Expected(operation=operation, before=before, after=after)


def judge(directory: Path, expected: Expected, outcome: Outcome) -> list[str]:
    """Open a volume after a fault and return the broken guarantees."""
    broken: list[str] = []
    with opened(directory) as seline:
        found = read_values(seline)
        if not expected.allows(found, outcome):
            broken.append(f"V1, V3, V5: {outcome}, but the values are {_short(found, expected)}")
        broken += _verified(seline, expected)
        broken += _backed_up(seline, expected, found)
        broken += check_next_saves(seline, found)
    broken += [f"stray file: {name}" for name in stray(directory)]
    return broken


def stray(directory: Path) -> list[str]:
    """Return the files in a closed volume that should not be there."""
    inner = directory / ".seline"
    left = [str(path) for part in ("staging", "exports") for path in (inner / part).iterdir()]
    left += [str(path) for name in ("journal", "*.new", ".*") for path in inner.glob(name)]
    known = {".seline", "backups", "quarantine", "metadata.json", "lost+found"}
    return left + [
        path.name
        for path in directory.iterdir()
        if path.name not in known and path.suffix != ".json"
    ]


def read_values(seline: Seline) -> dict[str, Json]:
    """Return every document's value, None for an absent one."""
    values: dict[str, Json] = {}
    for name in NAMES:
        loaded = seline.data.load_json(name, default=ABSENT)
        values[name] = None if loaded is ABSENT else loaded
    return values


def _verified(seline: Seline, expected: Expected) -> list[str]:
    findings = seline.verify().findings
    broken = [f"V4: {item.document} {item.backup or ''} is {item.verdict}" for item in findings]
    if seline.quarantine() and expected.operation.name != "recovery":
        broken.append(SOUND_QUARANTINED)
    return broken


def _backed_up(seline: Seline, expected: Expected, found: Values) -> list[str]:
    """Check that every document has a backup, except a purged one (V2, V8)."""
    purged = expected.operation.name == "purge" and found[A] is None
    kept = {backup.document for backup in seline.all_backups()}
    return [
        f"V8: {name} has no backup left"
        for name, value in expected.before.items()
        if value is not None and name not in kept and not (purged and name == A)
    ]


def check_next_saves(seline: Seline, found: Values) -> list[str]:
    """Check that the next save of every document works and backs up the old content (V2)."""
    broken = []
    for name in NAMES:
        seline.data.save_json(name, value(name, "next"))
        if seline.data.load_json(name) != value(name, "next"):
            broken.append(f"V3: {name} does not have the value that was saved last")
        if found[name] is not None:
            [newest, *_] = seline.data.backups(name)
            if seline.data.read_backup(name, newest.name) != found[name]:
                broken.append(f"V2: the newest backup of {name} is not the replaced content")
    return broken


def _short(found: Values, expected: Expected) -> str:
    def describe(name: str) -> str:
        matches = [
            word
            for word, values in (("before", expected.before), ("after", expected.after))
            if found[name] == values[name]
        ]
        return f"{name} {' and '.join(matches) or repr(found[name])[:60]}"

    return ", ".join(describe(name) for name in NAMES)
