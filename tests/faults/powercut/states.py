"""Build every state that a power cut may leave after each call of a recording.

Per cut: nothing unsynced, all of it, each change alone, all but each one, each directory alone;
every combination of names if there are few, else some drawn at random; and each unsynced file lost,
zero-filled, torn, or without its attributes. Equal states are tried once, with the strictest judge.
"""

import itertools
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final, TypeAlias

from tests.faults.powercut.disk_model import Disk, Inode, Place, Shown, Tree, Version
from tests.faults.powercut.recorder import Recording

DRAWN: Final = 16
Names: TypeAlias = Mapping[Place, Sequence[Inode | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How many states to build.

    Per cut, every combination of names up to `combinations_max`, else a few. `moments`, `share` and
    `starts` are the shares of the cuts, of the states per cut, and of the kills that are followed
    by a start; they are drawn with a fixed seed.
    """

    combinations_max: int = 64
    moments: float = 1.0
    share: float = 1.0
    starts: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One state, and how many changes were acknowledged before the cut.

    `bare`: only a disk that keeps attributes apart from their inode leaves it so.
    """

    tree: Tree
    after: str
    shows: str
    acknowledged: int
    bare: bool = False

    def __str__(self) -> str:
        return f"cut after {self.after} ({self.acknowledged} acknowledged): {self.shows}"


EVERY: Final = Cutting()


def cuts(recording: Recording, cutting: Cutting = EVERY) -> list[Cut]:
    """Return every distinct state of a recording, in the order of the cuts."""
    found: dict[Tree, Cut] = {}
    chance = random.Random(len(recording.calls))
    for after, disk in recording.disks():
        if chance.random() >= cutting.moments:
            continue
        for shows, shown, bare in _marked(disk, chance, cutting.combinations_max):
            if chance.random() >= cutting.share or not disk.allows(shown):
                continue
            tree = disk.tree(shown)
            same = found.get(tree)
            if same is None or (not bare and (same.bare or disk.acknowledged > same.acknowledged)):
                found[tree] = Cut(
                    tree=tree, after=after, shows=shows, acknowledged=disk.acknowledged, bare=bare
                )
    return list(found.values())


def _marked(
    disk: Disk, chance: random.Random, combinations_max: int
) -> Iterator[tuple[str, Shown, bool]]:
    durable, current = disk.durable(), disk.current()
    yield "nothing unsynced", durable, False
    yield "everything", current, False
    names, files = disk.loose_names(), disk.loose_files()
    shown = itertools.chain(
        _names_apart(names, durable, current),
        _names_combined(_combinations(names, chance, combinations_max), durable, current),
        _files_apart(files, names, durable, current),
    )
    yield from ((shows, one, False) for shows, one in shown)
    bare = {inode: (version,) for inode, version in disk.bare_files().items()}
    yield from ((shows, one, True) for shows, one in _files_apart(bare, names, durable, current))


def _names_apart(names: Names, durable: Shown, current: Shown) -> Iterator[tuple[str, Shown]]:
    """Yield each name alone, all but each name, each directory alone, and all but each."""
    bytes_only = durable.but(files=current.files)
    for place, versions in names.items():
        for inode in versions:
            yield f"{place.name} alone", durable.but(names={place: inode})
            yield f"{place.name} alone, with all bytes", bytes_only.but(names={place: inode})
            yield f"all but {place.name}", current.but(names={place: inode})
    for directory in {place.directory: None for place in names}:
        inside = [place for place in names if place.directory == directory]
        old = {place: durable.names[place] for place in inside}
        new = {place: current.names[place] for place in inside}
        yield "all but one directory", current.but(names=old)
        yield "one directory alone", durable.but(names=new)
        yield "one directory and all bytes", bytes_only.but(names=new)


def _names_combined(
    combinations: Iterable[Mapping[Place, Inode | None]], durable: Shown, current: Shown
) -> Iterator[tuple[str, Shown]]:
    """Yield every combination of names, or some drawn at random if there are too many."""
    for combination in combinations:
        yield "some names, all bytes", current.but(names=combination)
        yield "some names, no bytes", durable.but(names=combination)


def _combinations(
    names: Names, chance: random.Random, combinations_max: int
) -> Iterable[Mapping[Place, Inode | None]]:
    if prod(map(len, names.values())) <= combinations_max:
        every = itertools.product(*names.values())
    else:
        every = (tuple(map(chance.choice, names.values())) for _ in range(DRAWN))  # type: ignore[assignment]
    return (dict(zip(names, combination, strict=True)) for combination in every)


def _files_apart(
    files: Mapping[Inode, Sequence[Version]], names: Names, durable: Shown, current: Shown
) -> Iterator[tuple[str, Shown]]:
    """Yield each unsynced file in every version, alone and together with all others."""
    for inode, versions in files.items():
        for number, version in enumerate(versions):
            shows = f"inode {inode} in version {number} of {len(versions)}"
            yield shows, current.but(files={inode: version})
            yield f"{shows} alone", durable.but(files={inode: version})
            for place in [place for place in names if inode in names[place]]:
                alone = durable.but(names={place: inode}, files={inode: version})
                yield f"{shows}, {place.name} alone", alone
    for number in range(max(map(len, files.values()), default=0)):
        each = {inode: versions[number % len(versions)] for inode, versions in files.items()}
        yield f"every file in version {number}", current.but(files=each)


def write(tree: Tree, directory: Path) -> None:
    """Write a state into a new directory: hard links, attributes and mtimes as they were."""
    directory.mkdir(parents=True)
    for path in tree.directories:
        (directory / path).mkdir(mode=0o700)
    first: dict[int, Path] = {}
    for path, number in tree.files:
        if number in first:
            os.link(first[number], directory / path)
        else:
            first[number] = directory / path
            _write_file(directory / path, tree.versions[number])


def _write_file(path: Path, version: Version) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, version.data)
        os.ftruncate(descriptor, version.size_bytes)
        for name, value in version.attributes:
            os.setxattr(descriptor, name, value)
        if version.mtime_ns is not None:
            os.utime(descriptor, ns=(version.mtime_ns, version.mtime_ns))
    finally:
        os.close(descriptor)
