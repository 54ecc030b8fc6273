"""Small stores that are wrong on purpose, recorded, cut and judged as Seline is.

They are: the predecessor's algorithm; the same with the file synced; writes in place; a rename
without a sync of its directory. One small store does all of it right; it and Seline must lose
nothing by the same judge.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seline.domain.document import Json
from seline.domain.json_codec import encode
from tests.faults.powercut.promises import State, unhurried
from tests.faults.powercut.recorder import recording
from tests.faults.powercut.states import EVERY, Cut, Cutting, cuts
from tests.proof.operations import DONE, A, opened, value

SAVES: Final = range(10, 17)
KEPT: Final = 5
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A store of one document in one directory. `load` raises for a broken document."""

    save: Callable[[Path, Json], None]
    load: Callable[[Path], Json]


def seven_saves(name: str, place: Path, cutting: Cutting = EVERY) -> list[State]:
    """Return the states that cuts leave of seven saves, each acknowledged."""
    store, volume = STORES[name], place / name
    (volume / "backups").mkdir(parents=True)
    with unhurried():
        store.save(volume, value(A, SAVES[0] - 1))
        with recording(volume) as made:
            for number in SAVES:
                store.save(volume, value(A, number))
                os.write(1, DONE.encode())
    judge = Served(name)
    return [State(cut, judge) for cut in cuts(made, cutting)]


@dataclass(frozen=True, slots=True)
class Served:
    """Judges a store by what it serves: the last acknowledged save, or the one in progress."""

    store: str

    def __call__(self, cut: Cut, directory: Path) -> list[str]:
        try:
            found = STORES[self.store].load(directory)
        except (OSError, ValueError) as error:
            return [f"V1: nothing but broken bytes is left: {error}"]
        last = SAVES[0] - 1 + cut.acknowledged
        if found in (value(A, last), value(A, last + 1)):
            return []
        if isinstance(found, dict) and found.keys() == value(A, 0).keys():
            return [f"V3: {last} was acknowledged, and {found['n']} is served"]
        return [f"V1, V4: {str(found)[:60]} is served"]


# the parts that they are made of


def _write(path: Path, value: Json, flags: int, *, synced: bool) -> None:
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, encode(value))
        if synced:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(volume: Path, value: Json, *, file: bool, directory: bool) -> None:
    """Write a temporary file and rename it over the document, with the given syncs."""
    staged = volume / f"{A}.tmp"
    _write(staged, value, NEW, synced=file)
    os.rename(staged, volume / A)
    if directory:
        descriptor = os.open(volume, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _read(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _load(volume: Path) -> Json:
    """Return the document, `{}` if there is none."""
    return _read(volume / A) if (volume / A).exists() else {}


def _older(*, file: bool) -> Store:
    """A copy to backups/ and its rotation, a temporary file, a flush, a rename."""

    def save(volume: Path, value: Json) -> None:
        if (volume / A).exists():
            _copy_to_backups(volume)
        _replace(volume, value, file=file, directory=False)

    return Store(save=save, load=_load_or_recover)


def _copy_to_backups(volume: Path) -> None:
    newest = next(_backups(volume), None)
    number = 1 if newest is None else int(newest.stem.rpartition("_")[2]) + 1
    _write(volume / "backups" / f"a_{number:06}.json", _load(volume), NEW, synced=False)
    for old in list(_backups(volume))[KEPT:]:
        os.unlink(old)


def _backups(volume: Path) -> Iterator[Path]:
    """Yield the backups, the newest first."""
    yield from sorted((volume / "backups").iterdir(), reverse=True)


def _load_or_recover(volume: Path) -> Json:
    """Return the document, or its newest backup that parses if it is broken."""
    try:
        return _load(volume)
    except ValueError:
        for backup in _backups(volume):
            try:
                return _read(backup)
            except ValueError:
                continue
        raise


def _seline_saves(volume: Path, value: Json) -> None:
    with opened(volume / "data") as seline:
        seline.data.save_json(A, value)


def _seline_loads(volume: Path) -> Json:
    with opened(volume / "data") as seline:
        return seline.data.load_json(A)


WRONG: Final[Mapping[str, Store]] = {
    "the way of an older data_manager.py": _older(file=False),
    "the way of an older data_manager.py, the file synced": _older(file=True),
    "writes in place": Store(
        save=lambda volume, value: _write(
            volume / A, value, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, synced=True
        ),
        load=_load,
    ),
    "no sync of the directory": Store(
        save=lambda volume, value: _replace(volume, value, file=True, directory=False), load=_load
    ),
}
RIGHT: Final[Mapping[str, Store]] = {
    "a small store that syncs the file and the directory": Store(
        save=lambda volume, value: _replace(volume, value, file=True, directory=True), load=_load
    ),
    "Seline": Store(save=_seline_saves, load=_seline_loads),
}
STORES: Final[Mapping[str, Store]] = {**WRONG, **RIGHT}
