"""Rot, as data: what a bad disk does to a file, to which files, and what must come of it.

A bad disk changes bytes and touches no time. `fill` and `crash` make what rots. `Volume` knows what
was saved; `Damage` says what may still be believed of each broken file; `Volume.left_of` tells from
these two alone, without asking Seline, what a reader must get.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from seline import open_seline
from seline.access.tokens import Tokens
from seline.alerts.log import Alerts
from seline.blocking import Seline
from seline.blocking import open_seline as open_blocking
from seline.domain.alerts.lifecycle import AlertType
from seline.domain.backup import parse_backup_name
from seline.domain.document import Json
from seline.domain.integrity import ATTRIBUTE
from seline.domain.job import JobRecord, Run, RunOutcome, write_records
from seline.library import Seline as AwaitedSeline
from seline.manager.state import remember
from seline.operations.custody import Custody
from seline.storage.volume.commit.exchange_form import Committer
from seline.storage.volume.commit.record import decode_record

BLOCK_BYTES: Final = 512
PAGE_BYTES: Final = 4096
METADATA: Final = "metadata.json"
STATE: Final = ".seline/"
TOKENS, PINS, JOBS, ALERTS = (
    f"{STATE}{name}.json" for name in ("tokens", "pins", "jobs", "alerts")
)
RECORD: Final = f"{STATE}journal"
GONE: Final = "gone.json"

Chance: TypeAlias = random.Random
Bytes: TypeAlias = Callable[[bytes, Chance], bytes]


def _flip(data: bytes, chance: Chance) -> bytes:
    return _flips(data, chance, 1)


def _flips(data: bytes, chance: Chance, count: int = 8) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _zeroed(data: bytes, chance: Chance, size_bytes: int) -> bytes:
    start = chance.randrange(0, len(data), size_bytes)
    end = min(start + size_bytes, len(data))
    return data[:start] + bytes(end - start) + data[end:]


def _exchanged(data: bytes, chance: Chance) -> bytes:
    """Two sectors in each other's place; in a file of one, its halves."""
    size = min(BLOCK_BYTES, len(data) // 2)
    first, second = sorted(chance.sample(range(len(data) // size), 2))
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    blocks[first], blocks[second] = blocks[second], blocks[first]
    return b"".join(blocks)


BYTES: Final[Mapping[str, Bytes]] = {
    "a flipped bit": _flip,
    "eight flipped bits": _flips,
    "truncated": lambda data, chance: data[: chance.randrange(1, len(data))],
    "truncated to nothing": lambda _data, _chance: b"",
    "a zeroed sector": lambda data, chance: _zeroed(data, chance, BLOCK_BYTES),
    "a zeroed page": lambda data, chance: _zeroed(data, chance, PAGE_BYTES),
    "zeroed to the end": lambda data, chance: (
        data[: (start := chance.randrange(len(data)))] + bytes(len(data) - start)
    ),
    "NULs behind the end": lambda data, chance: data + bytes(chance.randrange(1, PAGE_BYTES)),
    "garbage behind the end": lambda data, chance: (
        data + chance.randbytes(chance.randrange(1, BLOCK_BYTES))
    ),
    "a space behind the end": lambda data, _chance: data + b" ",
    "another file's sector": lambda data, chance: (
        data[: (start := chance.randrange(0, len(data), BLOCK_BYTES))]
        + chance.randbytes(len(data[start : start + BLOCK_BYTES]))
        + data[start + BLOCK_BYTES :]
    ),
    "two sectors exchanged": _exchanged,
}


class Belief(Enum):
    """What may still be believed of a broken file."""

    NOTHING = "nothing"
    """Its bytes are not, or cannot be shown to be, what was saved."""
    AS_A_STRANGER = "as a stranger"
    """Its bytes are whole, but nothing says that Seline wrote them: as a file copied in by hand."""
    EVERYTHING = "everything"
    """Its digest still proves its bytes."""
    NOT_OURS_TO_SAY = "not ours to say"
    """It says that a newer Seline wrote it: it is refused, and left for that one."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A part of the attribute: where it lies, and what is believed of a file in which it rots."""

    at: range
    document: Belief
    backup: Belief


ATTRIBUTES: Final[Mapping[str, Field]] = {
    "the attribute's digest": Field(
        at=range(1, 33), document=Belief.NOTHING, backup=Belief.NOTHING
    ),
    "the attribute's mtime": Field(
        at=range(33, 41), document=Belief.EVERYTHING, backup=Belief.EVERYTHING
    ),
    "the attribute's size": Field(
        at=range(41, 45), document=Belief.EVERYTHING, backup=Belief.EVERYTHING
    ),
    "the attribute's name": Field(
        at=range(45, 61), document=Belief.AS_A_STRANGER, backup=Belief.NOTHING
    ),
    "the attribute's format": Field(
        at=range(1), document=Belief.NOT_OURS_TO_SAY, backup=Belief.NOTHING
    ),
}
LOST_ATTRIBUTE: Final = "the attribute is lost"
SWAPPED: Final = "swapped with another document's"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What was done to one file, which now holds `data`."""

    path: str
    kind: str
    belief: Belief
    data: bytes

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}"


def rot(directory: Path, path: str, kind: str, chance: Chance) -> Damage:
    """Do one kind of damage to one file, keeping its times as a bad disk does."""
    file = directory / path
    before = file.stat()
    if kind in BYTES:
        belief = Belief.NOTHING
        file.write_bytes(_changed(file.read_bytes(), BYTES[kind], chance))
    elif kind == LOST_ATTRIBUTE:
        belief = Belief.AS_A_STRANGER
        os.removexattr(file, ATTRIBUTE)
    else:
        belief = _rot_attribute(file, ATTRIBUTES[kind], chance, backup="backups/" in path)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return Damage(path=path, kind=kind, belief=belief, data=file.read_bytes())


def _changed(data: bytes, change: Bytes, chance: Chance) -> bytes:
    while (changed := change(data, chance)) == data:
        pass
    return changed


def _rot_attribute(file: Path, field: Field, chance: Chance, *, backup: bool) -> Belief:
    attribute = bytearray(os.getxattr(file, ATTRIBUTE))
    attribute[chance.choice(field.at)] ^= 1 << chance.randrange(8)
    os.setxattr(file, ATTRIBUTE, bytes(attribute))
    if attribute[0] == 0:  # no format of any Seline's
        return Belief.AS_A_STRANGER
    return field.backup if backup else field.document


def swap(directory: Path, one: str, other: str) -> list[Damage]:
    """Put two files in each other's place, attributes and all."""
    third = directory / "third"
    (directory / one).rename(third)
    (directory / other).rename(directory / one)
    third.rename(directory / other)
    return [
        Damage(
            path=path,
            kind=SWAPPED,
            belief=Belief.NOTHING,
            data=(directory / path).read_bytes(),
        )
        for path in (one, other)
    ]


# what is there, and what must be left of it


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A closed volume as Seline left it: the bytes of each file by its path.

    Paths are relative; `.seline/tokens.json` is a document like any other, of owner `seline`.
    """

    directory: Path
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, directory: Path) -> Volume:
        """Read a closed volume."""
        files = {
            str(path.relative_to(directory)): path.read_bytes()
            for path in directory.rglob("*.json")
            if path.is_file()
        }
        return cls(directory=directory, files=files)

    def copy(self, to: Path) -> None:
        """Copy the volume with attributes, times and links."""
        subprocess.run(["cp", "--archive", str(self.directory), str(to)], check=True)

    def documents(self, *, inside: str = "") -> list[str]:
        """Return the documents' paths; `.seline/` holds Seline's own."""
        known = (path for path in self.files if path.rpartition("/")[0] == inside.rstrip("/"))
        return sorted(path for path in known if Path(path).name not in (METADATA, "server.json"))

    def backups_of(self, document: str) -> list[str]:
        """Return the paths of a document's backups, newest first."""
        inside, _, name = document.rpartition("/")
        backup_index = f"{inside}/backups/" if inside else "backups/"
        stamps = {
            path: parsed[1]
            for path in self.files
            if path.startswith(backup_index)
            and (parsed := parse_backup_name(path.removeprefix(backup_index)))
            and parsed[0] == name
        }
        return sorted(stamps, key=lambda path: stamps[path], reverse=True)

    def left_of(
        self, document: str, damages: Mapping[str, Damage], *, remembered: bool
    ) -> bytes | None:
        """Return the bytes that must be served, None where nothing that was saved is left.

        `remembered`: a running process has read the document before. Not to be asked of what is
        refused for a newer Seline.
        """
        if _belief(document, damages) in (Belief.EVERYTHING, Belief.AS_A_STRANGER) or remembered:
            return self.files[document]
        for belief in (Belief.EVERYTHING, Belief.AS_A_STRANGER):
            for backup in self.backups_of(document):
                if _belief(backup, damages) is belief:
                    return self.files[backup]
        return None


def _belief(path: str, damages: Mapping[str, Damage]) -> Belief:
    return damages[path].belief if path in damages else Belief.EVERYTHING


def refused(document: str, damages: Mapping[str, Damage]) -> bool:
    """Whether a document must be left for a newer Seline."""
    return _belief(document, damages) is Belief.NOT_OURS_TO_SAY


def lost(document: str, damages: Mapping[str, Damage]) -> bool:
    """Whether a document's own bytes cannot be believed."""
    return _belief(document, damages) is Belief.NOTHING


# rounds of faults, drawn by a seed


def some_faults(
    directory: Path, volume: Volume, documents: Sequence[str], chance: Chance
) -> dict[str, Damage]:
    """Break one to three files that belong to one document, or swap two backups."""
    document = chance.choice(documents)
    backups = volume.backups_of(document)
    others = [one for one in documents if one != document and volume.backups_of(one)]
    if backups and others and chance.random() < 0.1:
        foreign = chance.choice(volume.backups_of(chance.choice(others)))
        swapped = swap(directory, chance.choice(backups), foreign)
        done = [*swapped, *_one_more(directory, document, swapped, chance)]
    else:
        done = [
            rot(directory, path, _some_kind(chance), chance)
            for path in _some_files(document, backups, chance)
        ]
    return {damage.path: damage for damage in done}


def _one_more(
    directory: Path, document: str, done: Sequence[Damage], chance: Chance
) -> Iterator[Damage]:
    if document not in {damage.path for damage in done} and chance.random() < 0.5:
        yield rot(directory, document, _some_kind(chance), chance)


def _some_files(document: str, backups: Sequence[str], chance: Chance) -> list[str]:
    """Return the document, or one backup, or both it and its newest ones."""
    draw = chance.random()
    if not backups or draw < 0.5:
        return [document]
    if draw < 0.7:
        return [chance.choice(backups)]
    return [document, *backups[: chance.randint(1, min(2, len(backups)))]]


def _some_kind(chance: Chance) -> str:
    if chance.random() < 0.8:
        return chance.choice(list(BYTES))
    return chance.choice([LOST_ATTRIBUTE, *ATTRIBUTES])


# a volume with everything in it


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A volume with everything in it, every value that each document ever had, and the secrets."""

    volume: Volume
    ever: Mapping[str, Sequence[Json]]
    secrets: Sequence[str]


def fill(directory: Path, chance: random.Random) -> Filled:
    """Make documents of several sizes and kinds with backups, and every state of Seline's own."""
    ever: dict[str, list[Json]] = {}
    with opened(directory) as seline:
        for name, count in _versions(chance).items():
            for number in range(count):
                value = _value(name, number, chance)
                ever.setdefault(name, []).append(value)
                seline.data.save_json(name, value, shrink=True)
        seline.data.save_json("blank.json", {"n": 0, "text": "words " * 300})
        seline.data.save_json("blank.json", {"n": 0})
        rot(directory, "user.json", "a flipped bit", chance)
        seline.data.load_json("user.json")
        seline.data.delete(GONE)
        seline.data.pin("profile.json", seline.data.backups("profile.json")[-1].name)
    ever["blank.json"] = [{"n": 0, "text": "words " * 300}, {"n": 0}]
    secrets = asyncio.run(_fill_state(directory))
    return Filled(volume=Volume.of(directory), ever=ever, secrets=secrets)


def _versions(chance: random.Random) -> dict[str, int]:
    return {
        "profile.json": chance.randint(4, 8),
        "lessons_learned.json": chance.randint(2, 5),
        "list.json": 3,
        "text.json": chance.randint(2, 4),
        "number.json": 4,
        "user.json": 2,
        "once.json": 1,
        GONE: 3,
    }


def _value(name: str, number: int, chance: random.Random) -> Json:
    words = " ".join(chance.choice(("aé", "béta", "日本", "x", "null", "🦀")) for _ in range(40))
    match name:
        case "lessons_learned.json":
            lessons = [{"problem": f"{number}-{one}", "solution": words} for one in range(25)]
            return {"lessons": lessons, "total_lessons": 25}  # type: ignore[dict-item]
        case "list.json":
            return [number, [words], None, {"deep": [[[number]]]}]
        case "text.json":
            return f"{number} {words}" * 60
        case "number.json":
            return 1_000_000 + number
        case _:
            return {"name": name, "n": number, "text": words, "ok": bool(number % 2)}


async def _fill_state(directory: Path) -> list[str]:
    """Make tokens (one of them taken back), a run, an alert and what is known of the deleted."""
    async with open_seline(directory, lock_wait_s=0, storage__reserve_percent=0.001) as seline:
        tokens = Tokens(seline.data, admin_token=None, clock=seline.data.clock)
        made = [await tokens.create(label=str(number)) for number in range(3)]
        await tokens.revoke(made[0].token.id)
        made.append(await tokens.create(scope="read"))
        for number in range(3):
            await remember(seline.data, "jobs.json", _a_record(seline, number))
            await Custody(seline.data, clock=seline.data.clock).measure()
        alerts = Alerts(seline.data, ())
        await alerts.load()
        for subject in ("profile.json", "list.json"):
            await alerts.raise_alert(AlertType.RECOVERY, subject)
        await alerts.close()
        await seline.data.prune()
        return [one.secret for one in made]


def _a_record(seline: AwaitedSeline, number: int) -> Json:
    now = seline.data.clock.now()
    run = Run(id=str(number), job="usage", started_at=now, ended_at=now, outcome=RunOutcome.OK)
    return write_records({"usage": JobRecord().with_run(run)})


def opened(directory: Path, **settings: Any) -> Seline:
    """Open a volume with a small reserve, which is copied too."""
    usual = {"lock_wait_s": 0, "storage__settle_s": 0.0, "storage__reserve_percent": 0.001}
    return open_blocking(directory, **usual, **settings)  # type: ignore[arg-type]


# what a crash in a transaction leaves


@dataclass(frozen=True, kw_only=True)
class Crashed:
    """A volume with the record of a transaction in place; `published` are in place already."""

    volume: Volume
    staged: Mapping[str, str]
    before: Mapping[str, bytes | None]
    after: Mapping[str, bytes]

    @property
    def published(self) -> frozenset[str]:
        return frozenset(
            name for name, data in self.after.items() if self.volume.files.get(name) == data
        )


CHANGED: Final = ("list.json", "new.json", "number.json", "profile.json")


def crash(filled: Filled, place: Path) -> list[Crashed]:
    """Copy the volume at three moments of a transaction, as a crash would leave it there."""
    directory = place / "crashing"
    filled.volume.copy(directory)
    copies: list[Volume] = []

    def keep(*_: object, **__: object) -> None:
        Volume.of(directory).copy(copied := place / f"crashed {len(copies)}")
        copies.append(Volume.of(copied))

    renamed: list[object] = []

    def keep_in_the_middle(*_: object, **__: object) -> None:
        renamed.append(None)
        if len(renamed) == len(CHANGED) // 2:
            keep()

    with pytest.MonkeyPatch.context() as patch, opened(directory) as seline:
        _call_first(patch, "_publish", keep)
        _call_first(patch, "_sync_documents", keep)
        _call_after(patch, "_publish_with_reserve", keep_in_the_middle)
        with seline.data.transaction(*CHANGED) as change:
            for name in CHANGED:
                change[name] = {"in": "the transaction", "name": name}
    after = Volume.of(directory).files
    return [
        Crashed(
            volume=copied,
            staged=_staged(copied.directory),
            before={name: filled.volume.files.get(name) for name in CHANGED},
            after={name: after[name] for name in CHANGED},
        )
        for copied in copies
    ]


def _call_first(patch: pytest.MonkeyPatch, method: str, also: Callable[..., None]) -> None:
    def both(*args: Any, **more: Any) -> None:
        also()
        real(*args, **more)

    real = getattr(Committer, method)
    patch.setattr(Committer, method, both)


def _call_after(patch: pytest.MonkeyPatch, method: str, also: Callable[..., None]) -> None:
    def both(*args: Any, **more: Any) -> None:
        real(*args, **more)
        also()

    real = getattr(Committer, method)
    patch.setattr(Committer, method, both)


def _staged(directory: Path) -> dict[str, str]:
    record = decode_record((directory / RECORD).read_bytes())
    return {entry.name: f"{STATE}staging/{entry.staged}" for entry in record.entries}
