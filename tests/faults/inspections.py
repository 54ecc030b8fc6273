"""What the shared judge cannot see, only the files: where the old bytes are (V2, V4, V11).

The judge has saved every document once more by now: what was current then is the newest backup,
and a change that was not made has its content before among the backups.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from seline.domain.document import Content, Json
from seline.domain.json_codec import encode
from tests.proof.judge import Expected, Outcome
from tests.proof.operations import A

Look: TypeAlias = Callable[[Path, Expected, Outcome], list[str]]
"""Looks at a volume after an operation, and returns what is broken there."""
SET_ASIDE: Final = "V4: something sound was put into quarantine"
"""Where a disk loses an attribute and keeps the bytes, a leftover cannot be told from a hand edit:
it is set aside for a person to look at, and that is all that may happen."""


def look_after(operation: str) -> Look:
    """Return how to look at what an operation left: by its own row, else for its backups."""
    return ALSO.get(operation, lost_backups)


def lost_backups(directory: Path, expected: Expected, _outcome: Outcome) -> list[str]:
    """V2: what was replaced is among the backups, in every state."""
    return [
        f"V2: the content of {name} before the change is not among its backups"
        for name in sorted(expected.operation.changes)
        if expected.before[name] is not None
        and expected.before[name] not in _backups(directory, name)
    ]


def _lost_pins(directory: Path, expected: Expected, outcome: Outcome) -> list[str]:
    """V11: once the blank save is there, the content before it is pinned."""
    broken = lost_backups(directory, expected, outcome)
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


ALSO: Final[Mapping[str, Look]] = {
    "blank save": _lost_pins,
    "recovery": _lost_quarantine,
    "purge": _purged,
    "save without a backup": _none,
}


def _backups(directory: Path, name: str) -> list[Json]:
    found = (directory / "backups").glob(f"{name.removesuffix('.json')}_[0-9]*.json")
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]
