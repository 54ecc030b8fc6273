"""Damage by a failing disk, as data: kinds of damage, files to damage, and the expected result.

A failing disk changes bytes and keeps all times. `fill_volume`, `crash_in_transaction` and
`kill_before_publishing` make the volumes. `SavedVolume` knows what was saved, and `Damage` how far
each damaged file can be trusted. From these two alone `SavedVolume.expected_bytes` computes what a
reader must get. Of a journal, any acknowledged content may be what is left.
"""

import asyncio
import os
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from seline import open_seline
from seline.access.tokens import Tokens
from seline.alerts.log import AlertLog
from seline.blocking import Seline
from seline.blocking import open_seline as open_blocking
from seline.domain.alerts.lifecycle import AlertType, Raised
from seline.domain.backup import parse_backup_name
from seline.domain.checksum import ATTRIBUTE
from seline.domain.document import Json
from seline.domain.job import JobRecord, Run, RunOutcome
from seline.library import Seline as AwaitedSeline
from seline.storage.volume.commit.exchange_form import ExchangeCommitter
from seline.storage.volume.commit.record import decode_record
from seline.storage.volume.journal.codec import FIRST_BATCH_AT, ReadBatch, batches
from seline.storage.volume.journal.journal import JOURNAL_NAMES
from tests.faults.forms import by_a_journal_with_files_later, synced_in_its_files

BLOCK_BYTES: Final = 512
PAGE_BYTES: Final = 4096
METADATA: Final = "metadata.json"
STATE: Final = ".seline/"
TOKENS, PINS, JOBS, ALERTS = (
    f"{STATE}{name}.json" for name in ("tokens", "pins", "jobs", "alerts")
)
RECORD: Final = f"{STATE}journal"
JOURNAL: Final = tuple(f"{STATE}{name}" for name in JOURNAL_NAMES)
DELETED: Final = "gone.json"

Rng: TypeAlias = random.Random
ByteDamage: TypeAlias = Callable[[bytes, Rng], bytes]


def _flip_bit(data: bytes, rng: Rng) -> bytes:
    return _flip_bits(data, rng, 1)


def _flip_bits(data: bytes, rng: Rng, count: int = 8) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _zero_block(data: bytes, rng: Rng, size_bytes: int) -> bytes:
    start = rng.randrange(0, len(data), size_bytes)
    end = min(start + size_bytes, len(data))
    return data[:start] + bytes(end - start) + data[end:]


def _exchange_sectors(data: bytes, rng: Rng) -> bytes:
    """Exchange two sectors, or the halves of a file of one sector."""
    size = min(BLOCK_BYTES, len(data) // 2)
    first, second = sorted(rng.sample(range(len(data) // size), 2))
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    blocks[first], blocks[second] = blocks[second], blocks[first]
    return b"".join(blocks)


BYTE_DAMAGES: Final[Mapping[str, ByteDamage]] = {
    "a flipped bit": _flip_bit,
    "eight flipped bits": _flip_bits,
    "truncated": lambda data, rng: data[: rng.randrange(1, len(data))],
    "truncated to nothing": lambda _data, _chance: b"",
    "a zeroed sector": lambda data, rng: _zero_block(data, rng, BLOCK_BYTES),
    "a zeroed page": lambda data, rng: _zero_block(data, rng, PAGE_BYTES),
    "zeroed to the end": lambda data, rng: (
        data[: (start := rng.randrange(len(data)))] + bytes(len(data) - start)
    ),
    "NULs after the end": lambda data, rng: data + bytes(rng.randrange(1, PAGE_BYTES)),
    "garbage after the end": lambda data, rng: data + rng.randbytes(rng.randrange(1, BLOCK_BYTES)),
    "a space after the end": lambda data, _chance: data + b" ",
    "another file's sector": lambda data, rng: (
        data[: (start := rng.randrange(0, len(data), BLOCK_BYTES))]
        + rng.randbytes(len(data[start : start + BLOCK_BYTES]))
        + data[start + BLOCK_BYTES :]
    ),
    "two sectors exchanged": _exchange_sectors,
}


class Trust(Enum):
    """How far a damaged file can be trusted."""

    NONE = "none"
    """Its bytes are not what was saved, or cannot be verified."""
    AS_FOREIGN = "as foreign"
    """Its bytes are intact, but it looks like a file that was copied in by hand."""
    FULL = "full"
    """Its digest still verifies its bytes."""
    NEWER_FORMAT = "newer format"
    """It claims to be written by a newer Seline, so it is refused and not changed."""


@dataclass(frozen=True, kw_only=True)
class AttributeField:
    """A part of the attribute: its position, and the trust in a file in which it is damaged."""

    at: range
    document: Trust
    backup: Trust


ATTRIBUTE_FIELDS: Final[Mapping[str, AttributeField]] = {
    "the attribute's digest": AttributeField(
        at=range(1, 33), document=Trust.NONE, backup=Trust.NONE
    ),
    "the attribute's mtime": AttributeField(
        at=range(33, 41), document=Trust.FULL, backup=Trust.FULL
    ),
    "the attribute's size": AttributeField(
        at=range(41, 45), document=Trust.FULL, backup=Trust.FULL
    ),
    "the attribute's name": AttributeField(
        at=range(45, 61), document=Trust.AS_FOREIGN, backup=Trust.NONE
    ),
    "the attribute's format": AttributeField(
        at=range(1), document=Trust.NEWER_FORMAT, backup=Trust.NONE
    ),
}
LOST_ATTRIBUTE: Final = "the attribute is lost"
SWAPPED: Final = "swapped with another document's"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """The damage to one file, which now holds `data`."""

    path: str
    kind: str
    trust: Trust
    data: bytes

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}"


def rot(directory: Path, path: str, kind: str, rng: Rng) -> Damage:
    """Apply one kind of damage to one file, and keep its times as a failing disk does."""
    file = directory / path
    before = file.stat()
    if kind in BYTE_DAMAGES:
        trust = Trust.NONE
        file.write_bytes(_change_until_different(file.read_bytes(), BYTE_DAMAGES[kind], rng))
    elif kind == LOST_ATTRIBUTE:
        trust = Trust.AS_FOREIGN
        os.removexattr(file, ATTRIBUTE)
    else:
        trust = _rot_attribute(file, ATTRIBUTE_FIELDS[kind], rng, backup="backups/" in path)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return Damage(path=path, kind=kind, trust=trust, data=file.read_bytes())


def _change_until_different(data: bytes, change: ByteDamage, rng: Rng) -> bytes:
    while (changed := change(data, rng)) == data:
        pass
    return changed


def _rot_attribute(file: Path, field: AttributeField, rng: Rng, *, backup: bool) -> Trust:
    attribute = bytearray(os.getxattr(file, ATTRIBUTE))
    attribute[rng.choice(field.at)] ^= 1 << rng.randrange(8)
    os.setxattr(file, ATTRIBUTE, bytes(attribute))
    if attribute[0] == 0:  # not the format of any Seline
        return Trust.AS_FOREIGN
    return field.backup if backup else field.document


def swap(directory: Path, first: str, second: str) -> list[Damage]:
    """Exchange two files, with their attributes."""
    third = directory / "third"
    (directory / first).rename(third)
    (directory / second).rename(directory / first)
    third.rename(directory / second)
    return [
        Damage(path=path, kind=SWAPPED, trust=Trust.NONE, data=(directory / path).read_bytes())
        for path in (first, second)
    ]


# the volume as it was saved, and the expected result


@dataclass(frozen=True, kw_only=True)
class SavedVolume:
    """A closed volume as Seline left it: the bytes of each file by its relative path.

    Seline's own state files, such as `.seline/tokens.json`, are documents too.
    """

    directory: Path
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, directory: Path) -> "SavedVolume":
        """Read a closed volume."""
        files = {
            str(path.relative_to(directory)): path.read_bytes()
            for path in directory.rglob("*.json")
            if path.is_file()
        }
        return cls(directory=directory, files=files)

    def copy(self, to: Path) -> None:
        """Copy the volume with attributes, times and hard links."""
        subprocess.run(["cp", "--archive", str(self.directory), str(to)], check=True)

    def documents(self, *, inside: str = "") -> list[str]:
        """Return the paths of the documents in the directory `inside`, sorted."""
        paths = (path for path in self.files if path.rpartition("/")[0] == inside.rstrip("/"))
        return sorted(path for path in paths if Path(path).name not in (METADATA, "server.json"))

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

    def expected_bytes(
        self, document: str, damages: Mapping[str, Damage], *, cached: bool
    ) -> bytes | None:
        """Return the bytes that must be served, or None if no saved content can be recovered.

        `cached`: the process read the document before the damage. Not for a document that
        `is_refused`.
        """
        if _trust(document, damages) in (Trust.FULL, Trust.AS_FOREIGN) or cached:
            return self.files[document]
        for trust in (Trust.FULL, Trust.AS_FOREIGN):
            for backup in self.backups_of(document):
                if _trust(backup, damages) is trust:
                    return self.files[backup]
        return None


def _trust(path: str, damages: Mapping[str, Damage]) -> Trust:
    return damages[path].trust if path in damages else Trust.FULL


def is_refused(document: str, damages: Mapping[str, Damage]) -> bool:
    """Return whether the document is refused because it claims a newer format."""
    return _trust(document, damages) is Trust.NEWER_FORMAT


def is_lost(document: str, damages: Mapping[str, Damage]) -> bool:
    """Return whether the document's own bytes can no longer be trusted."""
    return _trust(document, damages) is Trust.NONE


# faults drawn at random from a seed


def draw_faults(
    directory: Path, volume: SavedVolume, documents: Sequence[str], rng: Rng
) -> dict[str, Damage]:
    """Damage one to three files of one document, or exchange two backups."""
    document = rng.choice(documents)
    backups = volume.backups_of(document)
    others = [other for other in documents if other != document and volume.backups_of(other)]
    if backups and others and rng.random() < 0.1:
        foreign = rng.choice(volume.backups_of(rng.choice(others)))
        swapped = swap(directory, rng.choice(backups), foreign)
        damages = [*swapped, *_draw_document_damage(directory, document, swapped, rng)]
    else:
        damages = [
            rot(directory, path, _draw_kind(rng), rng)
            for path in _draw_files(document, backups, rng)
        ]
    return {damage.path: damage for damage in damages}


def _draw_document_damage(
    directory: Path, document: str, damages: Sequence[Damage], rng: Rng
) -> Iterator[Damage]:
    if document not in {damage.path for damage in damages} and rng.random() < 0.5:
        yield rot(directory, document, _draw_kind(rng), rng)


def _draw_files(document: str, backups: Sequence[str], rng: Rng) -> list[str]:
    """Return the document, or one backup, or the document and its newest backups."""
    draw = rng.random()
    if not backups or draw < 0.5:
        return [document]
    if draw < 0.7:
        return [rng.choice(backups)]
    return [document, *backups[: rng.randint(1, min(2, len(backups)))]]


def _draw_kind(rng: Rng) -> str:
    if rng.random() < 0.8:
        return rng.choice(list(BYTE_DAMAGES))
    return rng.choice([LOST_ATTRIBUTE, *ATTRIBUTE_FIELDS])


# a volume with every kind of file


@dataclass(frozen=True, kw_only=True)
class FilledVolume:
    """A volume with every kind of file, all values ever saved of each document, and the tokens."""

    volume: SavedVolume
    saved_values: Mapping[str, Sequence[Json]]
    secrets: Sequence[str]


def fill_volume(directory: Path, rng: random.Random) -> FilledVolume:
    """Save documents of several sizes and types with backups, and every state file of Seline."""
    saved_values: dict[str, list[Json]] = {}
    with open_small(directory) as seline:
        for name, count in _versions(rng).items():
            for number in range(count):
                value = _value(name, number, rng)
                saved_values.setdefault(name, []).append(value)
                seline.data.save_json(name, value, shrink=True)
        seline.data.save_json("blank.json", {"n": 0, "text": "words " * 300})
        seline.data.save_json("blank.json", {"n": 0})
        rot(directory, "user.json", "a flipped bit", rng)
        seline.data.load_json("user.json")
        seline.data.delete(DELETED)
        seline.data.pin("profile.json", seline.data.backups("profile.json")[-1].name)
    saved_values["blank.json"] = [{"n": 0, "text": "words " * 300}, {"n": 0}]
    secrets = asyncio.run(_fill_state(directory))
    return FilledVolume(
        volume=SavedVolume.of(directory), saved_values=saved_values, secrets=secrets
    )


def _versions(rng: random.Random) -> dict[str, int]:
    return {
        "profile.json": rng.randint(4, 8),
        "lessons_learned.json": rng.randint(2, 5),
        "list.json": 3,
        "text.json": rng.randint(2, 4),
        "number.json": 4,
        "user.json": 2,
        "once.json": 1,
        DELETED: 3,
    }


def _value(name: str, number: int, rng: random.Random) -> Json:
    words = " ".join(rng.choice(("aé", "béta", "日本", "x", "null", "🦀")) for _ in range(40))
    match name:
        case "lessons_learned.json":
            lessons = [{"problem": f"{number}-{lesson}", "solution": words} for lesson in range(25)]
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
    """Create tokens (one revoked), job runs, alerts and the record of deleted documents."""
    async with open_seline(directory, lock_wait_s=0, storage__reserve_percent=0.001) as seline:
        tokens = Tokens(seline.store, admin_token=None)
        created = [await tokens.create(label=str(number)) for number in range(3)]
        await tokens.revoke(created[0][0].id)
        created.append(await tokens.create(scope="read"))
        for number in range(3):
            jobs = seline.store.state("jobs.json", dict[str, JobRecord], dict)
            await jobs.save(_job_record(seline, number))
            await seline.usage.measure()
        alerts = AlertLog(seline.store, ())
        await alerts.load()
        for subject in ("profile.json", "list.json"):
            await alerts.take([Raised(type=AlertType.RECOVERY, subject=subject)])
        await alerts.close()
        await seline.prune()
        return [secret for _, secret in created]


def _job_record(seline: AwaitedSeline, number: int) -> dict[str, JobRecord]:
    now = seline.store.clock.now()
    run = Run(id=str(number), job="usage", started_at=now, ended_at=now, outcome=RunOutcome.OK)
    return {"usage": JobRecord().with_run(run)}


def open_small(directory: Path, **settings: Any) -> Seline:
    """Open a volume with a small reserve, so that copying the volume stays fast."""
    defaults = {"lock_wait_s": 0, "storage__settle_s": 0.0, "storage__reserve_percent": 0.001}
    return open_blocking(directory, **defaults, **settings)  # type: ignore[arg-type]


# volumes after a crash in a transaction


@dataclass(frozen=True, kw_only=True)
class CrashedVolume:
    """A volume with the record of a transaction; `staged` maps its documents to staged files."""

    volume: SavedVolume
    staged: Mapping[str, str]
    before: Mapping[str, bytes | None]
    after: Mapping[str, bytes]

    @property
    def published(self) -> frozenset[str]:
        return frozenset(
            name for name, data in self.after.items() if self.volume.files.get(name) == data
        )


CHANGED: Final = ("list.json", "new.json", "number.json", "profile.json")


def crash_in_transaction(filled: FilledVolume, workspace: Path) -> list[CrashedVolume]:
    """Copy a volume at three moments of a transaction, as a crash would leave it."""
    directory = workspace / "crashing"
    filled.volume.copy(directory)
    copies: list[SavedVolume] = []

    def copy_volume(*_: object, **__: object) -> None:
        SavedVolume.of(directory).copy(copied := workspace / f"crashed {len(copies)}")
        copies.append(SavedVolume.of(copied))

    published: list[object] = []

    def copy_at_half(*_: object, **__: object) -> None:
        published.append(None)
        if len(published) == len(CHANGED) // 2:
            copy_volume()

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        synced_in_its_files(patch)  # only this form writes a record
        seline = stack.enter_context(open_small(directory))
        _call_before(patch, "_publish", copy_volume)
        _call_before(patch, "_sync_documents", copy_volume)
        _call_after(patch, "_publish_one", copy_at_half)
        with seline.data.transaction(*CHANGED) as change:
            for name in CHANGED:
                change[name] = {"in": "the transaction", "name": name}
    after = SavedVolume.of(directory).files
    return [
        CrashedVolume(
            volume=copied,
            staged=_staged(copied.directory),
            before={name: filled.volume.files.get(name) for name in CHANGED},
            after={name: after[name] for name in CHANGED},
        )
        for copied in copies
    ]


def _call_before(patch: pytest.MonkeyPatch, method: str, callback: Callable[..., None]) -> None:
    def patched(*args: Any, **more: Any) -> object:
        callback()
        return real(*args, **more)

    real = getattr(ExchangeCommitter, method)
    patch.setattr(ExchangeCommitter, method, patched)


def _call_after(patch: pytest.MonkeyPatch, method: str, callback: Callable[..., None]) -> None:
    def patched(*args: Any, **more: Any) -> object:
        result = real(*args, **more)
        callback()
        return result

    real = getattr(ExchangeCommitter, method)
    patch.setattr(ExchangeCommitter, method, patched)


def _staged(directory: Path) -> dict[str, str]:
    entries = decode_record((directory / RECORD).read_bytes())
    return {entry.name: f"{STATE}staging/{entry.staged}" for entry in entries}


# volumes after a kill, with contents that only the journal has


JOURNALED: Final = ("list.json", "new.json", "number.json", "profile.json", "text.json")


@dataclass(frozen=True, kw_only=True)
class JournaledVolume:
    """A volume that was killed before its last changes were published.

    `versions` are the values of each changed document that were acknowledged, oldest first, None
    without a document. `batches` are those of the journal that the files do not have, in order.
    """

    directory: Path
    versions: Mapping[str, Sequence[Json]]
    batches: Sequence[tuple[str, ReadBatch]]
    journal: Mapping[str, bytes]

    def copy(self, to: Path) -> None:
        """Copy the volume."""
        SavedVolume(directory=self.directory, files={}).copy(to)

    @property
    def active(self) -> str:
        """The journal file that has them."""
        return self.batches[-1][0]

    def used_bytes(self, path: str) -> int:
        """Return the size of the part of a journal file that was written."""
        read = batches(self.journal[path], after_epoch=0)
        return max((batch.end for batch in read), default=FIRST_BATCH_AT)

    def looks_interrupted(self, directory: Path) -> bool:
        """Whether only the last batches are damaged: as if a power cut had interrupted a write."""
        damaged = {path: (directory / path).read_bytes() for path in self.journal}
        whole = list[bool]()
        for path, read in self.batches:
            batch = self.journal[path][read.start : read.end].rstrip(b"\0")  # its blocks are filled
            whole.append(damaged[path][read.start :].startswith(batch))
        return not all(whole) and whole == sorted(whole, reverse=True)


def kill_before_publishing(filled: FilledVolume, workspace: Path) -> JournaledVolume:
    """Change documents by a journal, and copy the volume while no file has the changes."""
    rng = random.Random(str(sorted(filled.saved_values.items())))
    directory, killed = workspace / "changing", workspace / "killed"
    filled.volume.copy(directory)
    with pytest.MonkeyPatch.context() as patch:
        by_a_journal_with_files_later(patch)
        with open_small(directory) as seline:
            versions = {name: [seline.data.load_json(name, default=None)] for name in JOURNALED}
            for number in range(rng.randint(6, 24)):
                _change_some(seline, versions, number, rng)
            SavedVolume.of(directory).copy(killed)
    journal = {path: (killed / path).read_bytes() for path in JOURNAL}
    return JournaledVolume(
        directory=killed, versions=versions, batches=_unpublished(journal), journal=journal
    )


def _change_some(
    seline: Seline, versions: Mapping[str, list[Json]], number: int, rng: random.Random
) -> None:
    """Change one to three documents at once; sometimes, delete one."""
    names = rng.sample(JOURNALED, rng.choice((1, 1, 1, 2, 3)))
    deleted = [name for name in names if versions[name][-1] is not None and rng.random() < 0.1]
    with seline.data.transaction(*names) as change:
        for name in names:
            if name in deleted:
                del change[name]
                versions[name].append(None)
            else:
                value = {"n": number, "name": name, "text": "words " * rng.choice((1, 20, 90))}
                change[name] = value
                versions[name].append(value)


def _unpublished(journal: Mapping[str, bytes]) -> list[tuple[str, ReadBatch]]:
    found = [
        (path, read) for path, data in journal.items() for read in batches(data, after_epoch=0)
    ]
    latest = max(read.epoch for _, read in found)
    return [(path, read) for path, read in found if read.epoch == latest]


def rot_journal(directory: Path, volume: JournaledVolume, path: str, rng: Rng) -> Damage:
    """Damage the part of a journal file that was written; this may change the file's size."""
    used_bytes, before = volume.used_bytes(path), volume.journal[path]
    used = data = before[:used_bytes]
    kind = ""
    while data == used:  # zeros may not change
        kind = rng.choice(list(BYTE_DAMAGES))
        data = BYTE_DAMAGES[kind](used, rng)
    if len(data) == used_bytes:
        data += before[used_bytes:]
    (directory / path).write_bytes(data)
    return Damage(path=path, kind=kind, trust=Trust.NONE, data=data)
