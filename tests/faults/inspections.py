"""Inspections: what only the files show of the replaced content (V2, V3, V4, V11).

They run after the shared judge, which has saved every document once more: the newest backup holds
the content that was current, and the content before a change that was not made is a backup too.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from seline.domain.document import Content, Json
from seline.domain.json_codec import encode
from tests.proof.judge import Expected, Outcome
from tests.proof.operations import ADDED, A, value

Inspection: TypeAlias = Callable[[Path, Expected, Outcome], list[str]]
"""Inspect a volume after an operation; return what is broken."""


def inspection_of(operation: str) -> Inspection:
    """Return the inspection of what an operation left; by default, that of its backups."""
    return INSPECTIONS.get(operation, _missing_backups)


def _missing_backups(directory: Path, expected: Expected, _outcome: Outcome) -> list[str]:
    """Return which replaced contents are not among the backups (V2)."""
    return [
        f"V2: the content of {name} before the change is not among its backups"
        for name in sorted(expected.operation.changes)
        if expected.before[name] is not None
        and expected.before[name] not in _backups(directory, name)
    ]


def _missing_pins(directory: Path, expected: Expected, outcome: Outcome) -> list[str]:
    """Return also whether the content before a blank save is not pinned (V11)."""
    broken = _missing_backups(directory, expected, outcome)
    if expected.after[A] not in _backups(directory, A):
        return broken
    if not _is_pinned(directory, expected.before[A]):
        broken.append("V11: what the blank save removed is not pinned")
    return broken


def _missing_pin_of_the_newest_backup(
    directory: Path, _expected: Expected, _outcome: Outcome
) -> list[str]:
    """Return an error if the last content known of an emptied document is not pinned (V11)."""
    pinned = _is_pinned(directory, value(A, 1))
    return [] if pinned else ["V11: what the hand edit removed is not pinned"]


def _is_pinned(directory: Path, content: Json) -> bool:
    try:
        pins = json.loads((directory / ".seline" / "pins.json").read_text(encoding="utf-8"))["pins"]
    except FileNotFoundError:
        return False
    return any(pin["revision"] == Content.of(encode(content)).revision for pin in pins)


def _missing_quarantine(directory: Path, _expected: Expected, _outcome: Outcome) -> list[str]:
    """Return an error if the broken bytes are not in quarantine (V4)."""
    kept = [path.read_bytes() for path in (directory / "quarantine").iterdir()]
    return [] if any(b"xyx" in data for data in kept) else ["V4: the broken bytes are not kept"]


def _remaining_backups(directory: Path, _expected: Expected, outcome: Outcome) -> list[str]:
    """Return an error if a backup is left after an acknowledged purge (V3)."""
    remaining = _backups(directory, A)
    return ["V3: a purged backup is there again"] if outcome == "acknowledged" and remaining else []


def _missing_added(directory: Path, _expected: Expected, outcome: Outcome) -> list[str]:
    """Return an error if backups that were added are not there, or one not whole (V1, V3)."""
    kept = _backups(directory, A)
    missing = [number for number in ADDED if value(A, number) not in kept]
    return ["V3: an added backup is lost"] if missing and outcome == "acknowledged" else []


def _nothing(*_: object) -> list[str]:
    return []


INSPECTIONS: Final[Mapping[str, Inspection]] = {
    "blank save": _missing_pins,
    "adoption of an emptied document": _missing_pin_of_the_newest_backup,
    "recovery": _missing_quarantine,
    "purge": _remaining_backups,
    "adding backups": _missing_added,
    "save without a backup": _nothing,
}


def _backups(directory: Path, name: str) -> list[Json]:
    paths = (directory / "backups").glob(f"{name.removesuffix('.json')}_[0-9]*.json")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
