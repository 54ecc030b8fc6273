"""Judge what a fault left: V1 to V9 as far as one volume shows them, in plain sentences.

`expect` learns what an operation does by doing it undisturbed; `judge` opens what a fault left and
returns every broken promise, none where all is well. The judge itself is tried on stores that are
wrong on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from seline.blocking import Seline
from seline.domain.document import ABSENT, Json
from tests.proof.operations import NEW, STILL, A, B, C, Operation, act, opened, prepare, value

NAMES = (A, B, C, NEW, STILL)
Values: TypeAlias = Mapping[str, Json]
Outcome: TypeAlias = Literal["acknowledged", "refused", "unknown"]
"""What the caller was told: done; a typed error that says nothing was changed; nothing, or that
the outcome is not known."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the documents held before an operation, and what they hold after it."""

    operation: Operation
    before: Values
    after: Values

    def allows(self, found: Values, outcome: Outcome) -> bool:
        """Whether these values may be served after a fault."""
        if self.operation.certain or outcome == "acknowledged":
            return found == self.after
        if outcome == "refused":
            return found == self.before
        return found in (self.before, self.after)


def expect(operation: Operation, scratch: Path) -> Expected:
    """Do an operation undisturbed, and say what it does."""
    prepare(operation, scratch)
    there = frozenset[str]() if operation.first else frozenset(NAMES) - {NEW}
    before = {name: value(name, 2) if name in there else None for name in NAMES}
    act(operation, scratch)
    with opened(scratch) as seline:
        after = _values(seline)
    changed = {name for name in NAMES if before[name] != after[name]}
    assert changed == operation.changes, f"{operation.name} changes {sorted(changed)}"
    return Expected(operation=operation, before=before, after=after)


def judge(directory: Path, expected: Expected, outcome: Outcome) -> list[str]:
    """Open what a fault left and return the promises that are broken."""
    broken: list[str] = []
    with opened(directory) as seline:
        found = _values(seline)
        if not expected.allows(found, outcome):
            broken.append(f"V1, V3, V5: {outcome}, and there is {_shortly(found, expected)}")
        broken += _verified(seline, expected)
        broken += _backed_up(seline, expected, found)
        broken += _works(seline, found)
    broken += [f"stray: {name}" for name in stray(directory)]
    return broken


def stray(directory: Path) -> list[str]:
    """Return what lies in a closed volume and has no business there."""
    inner = directory / ".seline"
    left = [str(path) for part in ("staging", "exports") for path in (inner / part).iterdir()]
    left += [str(path) for name in ("journal*", "*.new", ".*") for path in inner.glob(name)]
    known = {".seline", "backups", "quarantine", "metadata.json", "lost+found"}
    return left + [
        path.name
        for path in directory.iterdir()
        if path.name not in known and path.suffix != ".json"
    ]


def _values(seline: Seline) -> dict[str, Json]:
    values: dict[str, Json] = {}
    for name in NAMES:
        loaded = seline.data.load_json(name, default=ABSENT)
        values[name] = None if loaded is ABSENT else loaded
    return values


def _verified(seline: Seline, expected: Expected) -> list[str]:
    findings = seline.data.verify().findings
    broken = [f"V4: {one.document} {one.backup or ''} is {one.verdict}" for one in findings]
    if seline.data.quarantine() and expected.operation.name != "recovery":
        broken.append("V4: something sound was put into quarantine")
    return broken


def _backed_up(seline: Seline, expected: Expected, found: Values) -> list[str]:
    """Every document keeps a backup, unless the purge was done (V2, V8)."""
    purged = expected.operation.name == "purge" and found[A] is None
    kept = {backup.document for backup in seline.data.all_backups()}
    return [
        f"V8: {name} has no backup left"
        for name, value in expected.before.items()
        if value is not None and name not in kept and not (purged and name == A)
    ]


def _works(seline: Seline, found: Values) -> list[str]:
    """The next change of every document works, and keeps what it replaces (V2)."""
    broken = []
    for name in NAMES:
        seline.data.save_json(name, value(name, "next"))
        if seline.data.load_json(name) != value(name, "next"):
            broken.append(f"V3: {name} does not hold what was saved last")
        if found[name] is not None:
            [newest, *_] = seline.data.backups(name)
            if seline.data.read_backup(name, newest.name) != found[name]:
                broken.append(f"V2: the newest backup of {name} is not what it replaced")
    return broken


def _shortly(found: Values, expected: Expected) -> str:
    def kind(name: str) -> str:
        which = [
            word
            for word, values in (("before", expected.before), ("after", expected.after))
            if found[name] == values[name]
        ]
        return f"{name} {' and '.join(which) or repr(found[name])[:60]}"

    return ", ".join(kind(name) for name in NAMES)
