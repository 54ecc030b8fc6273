"""Model a disk that keeps as little as POSIX allows, and what a power cut can leave on it.

Every name in a directory, and every file's inode, has the versions since its last sync. After a cut
each shows one of them, independent of the others:

- `fsync` of a file makes its bytes, size, attributes and mtime durable, but not its name;
- `fsync` of a directory makes the names in it durable, and nothing else; `syncfs` everything;
- a rename or an exchange changes each of its names on its own, with one exception: a file that had
  a durable name, and that no unlink removed, always has one;
- size, attributes and mtime are one inode, so they persist in the order in which they were set,
  or are lost together; the bytes behind a size may be missing (zeros, or the bytes before), in
  whole, or in one half of what was written;
- a repeated `fsync` never writes what a failed one did not: the file is as durable as before, and
  so are names that were not durable then, until they change.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol, TypeAlias

from seline.domain.shared_ends import shared_ends

Inode: TypeAlias = int
ROOT: Final[Inode] = 0


class Place(NamedTuple):
    """A name in a directory."""

    directory: Inode
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A file at one moment.

    Beyond `data` up to `size_bytes` there are zeros; an `mtime_ns` of None is any.
    """

    data: bytes = b""
    size_bytes: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()
    mtime_ns: int | None = None

    def written(self, offset: int, data: bytes) -> "Version":
        """Return the file after a write."""
        before = self.data.ljust(offset, b"\0")
        whole = before[:offset] + data + before[offset + len(data) :]
        size_bytes = max(self.size_bytes, len(whole))
        return replace(self, data=whole, size_bytes=size_bytes, mtime_ns=None)

    def sized(self, size_bytes: int) -> "Version":
        """Return the file after it was truncated or extended."""
        return replace(self, data=self.data[:size_bytes], size_bytes=size_bytes, mtime_ns=None)

    def with_attribute(self, name: str, value: bytes | None) -> "Version":
        """Return the file with an attribute, or without it (None)."""
        rest = {key: kept for key, kept in self.attributes if key != name}
        if value is not None:
            rest[name] = value
        return replace(self, attributes=tuple(sorted(rest.items())))


@dataclass(frozen=True, slots=True)
class Tree:
    """The content of a disk: directories, and the files by path; equal numbers are one inode.

    Two trees are equal if no program can distinguish them.
    """

    directories: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    versions: tuple[Version, ...]

    def paths(self) -> dict[str, Version]:
        """Return each file by its path."""
        return {path: self.versions[number] for path, number in self.files}


@dataclass(frozen=True, slots=True)
class Shown:
    """Which version every name and every file shows after a cut."""

    names: Mapping[Place, Inode | None]
    files: Mapping[Inode, Version]

    def but(
        self,
        names: Mapping[Place, Inode | None] | None = None,
        files: Mapping[Inode, Version] | None = None,
    ) -> "Shown":
        """Return the same with other versions of some."""
        return Shown({**self.names, **(names or {})}, {**self.files, **(files or {})})


class Change(Protocol):
    """One change that a process made on a disk."""

    def on(self, disk: "Disk") -> None:
        """Make the change on the model."""
        ...


@dataclass(slots=True)
class Disk:
    """Names and files with their versions: the first one is durable, the last one current."""

    names: dict[Place, list[Inode | None]] = field(default_factory=dict[Place, "list[int | None]"])
    files: dict[Inode, list[Version]] = field(default_factory=dict[Inode, "list[Version]"])
    directories: set[Inode] = field(default_factory=lambda: {ROOT})
    acknowledged: int = 0
    _taken: dict[tuple[Place, Inode], list[Inode | None]] = field(
        default_factory=dict[tuple[Place, Inode], "list[int | None]"]
    )
    _failed: set[Inode] = field(default_factory=set[Inode])
    _stuck: set[Place] = field(default_factory=set[Place])

    def copy(self) -> "Disk":
        """Return a copy without acknowledgements."""
        return Disk(
            names={place: list(versions) for place, versions in self.names.items()},
            files={inode: list(versions) for inode, versions in self.files.items()},
            directories=set(self.directories),
            _taken={taken: list(after) for taken, after in self._taken.items()},
            _failed=set(self._failed),
            _stuck=set(self._stuck),
        )

    # what a power cut may leave

    def durable(self) -> Shown:
        """Nothing that was not synced has reached the disk."""
        return Shown(
            {place: versions[0] for place, versions in self.names.items()},
            {inode: versions[0] for inode, versions in self.files.items()},
        )

    def current(self) -> Shown:
        """Everything has reached the disk."""
        return Shown(
            {place: versions[-1] for place, versions in self.names.items()},
            {inode: versions[-1] for inode, versions in self.files.items()},
        )

    def loose_names(self) -> dict[Place, list[Inode | None]]:
        """Return the names that may show more than one version, each with all of them."""
        return {
            place: list(dict.fromkeys(versions))
            for place, versions in self.names.items()
            if len(set(versions)) > 1
        }

    def loose_files(self) -> dict[Inode, list[Version]]:
        """Return the files that may be found in more than one version, each with all of them."""
        return {
            inode: list(dict.fromkeys([*versions, *_half_written(versions)]))
            for inode, versions in self.files.items()
            if len(versions) > 1
        }

    def bare_files(self) -> dict[Inode, Version]:
        """Return the files whose bytes may be there without the attributes that were set last.

        No disk that keeps attributes in the inode shows them so; another one might.
        """
        return {
            inode: replace(versions[-1], attributes=versions[0].attributes)
            for inode, versions in self.files.items()
            if versions[-1].attributes != versions[0].attributes
        }

    def allows(self, shown: Shown) -> bool:
        """Whether every file that had a durable name, and was not unlinked, still has one.

        It was unlinked if its place shows a later version.
        """
        there = set(shown.names.values())
        taken = {
            inode for (place, inode), after in self._taken.items() if shown.names[place] in after
        }
        return all(
            versions[0] is None or versions[0] in there or versions[0] in taken
            for versions in self.names.values()
        )

    def tree(self, shown: Shown) -> Tree:
        """Return the tree that is found after a cut."""
        inside: dict[Inode, list[tuple[str, Inode]]] = {}
        for (directory, name), inode in shown.names.items():
            if inode is not None:
                inside.setdefault(directory, []).append((name, inode))
        found = dict(sorted(self._walk(ROOT, "", inside)))
        files = [(path, inode) for path, inode in found.items() if inode not in self.directories]
        numbers = {inode: number for number, inode in enumerate(dict.fromkeys(i for _, i in files))}
        return Tree(
            tuple(path for path, inode in found.items() if inode in self.directories),
            tuple((path, numbers[inode]) for path, inode in files),
            tuple(shown.files[inode] for inode in numbers),
        )

    def _walk(
        self, directory: Inode, path: str, inside: Mapping[Inode, Iterable[tuple[str, Inode]]]
    ) -> Iterator[tuple[str, Inode]]:
        for name, inode in inside.get(directory, ()):
            below = f"{path}{name}"
            yield below, inode
            if inode in self.directories:
                yield from self._walk(inode, f"{below}/", inside)

    # what changes do

    def at(self, place: Place) -> Inode | None:
        """Return the inode of a name now."""
        return self.names.get(place, [None])[-1]

    def put(self, place: Place, inode: Inode | None) -> None:
        """Give a name to an inode, or to none."""
        self.names.setdefault(place, [None]).append(inode)
        self._stuck.discard(place)
        for (taken, _), after in self._taken.items():
            if taken == place:
                after.append(inode)

    def take(self, place: Place) -> None:
        """Remove a name for good; a file is gone once it has no other name."""
        inode = self.at(place)
        others = (there[-1] for other, there in self.names.items() if other != place)
        if inode is not None and inode not in others:
            self._taken.setdefault((place, inode), [])

    def alter(self, inode: Inode, version: Version) -> None:
        """Add a file's newest version."""
        self.files.setdefault(inode, [Version()]).append(version)

    def settle(self, inode: Inode) -> None:
        """Make a file, or the names in a directory, durable, unless a sync of it has failed."""
        if inode in self._failed:
            return
        if inode in self.files:
            del self.files[inode][:-1]
        for place in self._inside(inode) - self._stuck:
            del self.names[place][:-1]
            for taken in [taken for taken in self._taken if taken[0] == place]:
                del self._taken[taken]

    def fail(self, inode: Inode) -> None:
        """Remember that a sync failed: repeating it writes nothing more."""
        if inode in self.files:
            self._failed.add(inode)
        self._stuck |= {place for place in self._inside(inode) if len(self.names[place]) > 1}

    def _inside(self, directory: Inode) -> set[Place]:
        return {place for place in self.names if place.directory == directory}


def _half_written(versions: Sequence[Version]) -> Iterator[Version]:
    """Yield what a new size may show whose bytes did not all arrive.

    No file is shorter than the shortest of its versions.
    """
    before, after = versions[0], versions[-1]
    if before.data == after.data:
        return
    old = before.data.ljust(len(after.data), b"\0")[: len(after.data)]
    middle = sum(_changed(old, after.data)) // 2
    yield replace(after, data=old)
    yield replace(after, data=after.data[:middle] + old[middle:])
    yield replace(after, data=old[:middle] + after.data[middle:])
    size_bytes = max(middle, min(version.size_bytes for version in versions))
    if size_bytes < after.size_bytes:
        yield replace(after, data=after.data[:size_bytes], size_bytes=size_bytes)


def _changed(old: bytes, new: bytes) -> tuple[int, int]:
    """Return where bytes begin and end to differ, of two texts of the same length."""
    prefix, suffix = shared_ends(old, new)
    return prefix, len(new) - suffix


@dataclass(frozen=True, slots=True)
class Made:
    """A new file, or directory, got its first name."""

    place: Place
    inode: Inode
    directory: bool = False

    def on(self, disk: Disk) -> None:
        if self.directory:
            disk.directories.add(self.inode)
        else:
            disk.files[self.inode] = [Version()]
        disk.put(self.place, self.inode)


@dataclass(frozen=True, slots=True)
class Wrote:
    """Bytes were written into a file."""

    inode: Inode
    offset: int
    data: bytes

    def on(self, disk: Disk) -> None:
        disk.alter(self.inode, disk.files[self.inode][-1].written(self.offset, self.data))


@dataclass(frozen=True, slots=True)
class Sized:
    """A file was truncated or extended."""

    inode: Inode
    size_bytes: int

    def on(self, disk: Disk) -> None:
        disk.alter(self.inode, disk.files[self.inode][-1].sized(self.size_bytes))


@dataclass(frozen=True, slots=True)
class Attributed:
    """An attribute was set, or removed (None)."""

    inode: Inode
    name: str
    value: bytes | None

    def on(self, disk: Disk) -> None:
        disk.alter(self.inode, disk.files[self.inode][-1].with_attribute(self.name, self.value))


@dataclass(frozen=True, slots=True)
class Timed:
    """A file's mtime was set."""

    inode: Inode
    mtime_ns: int

    def on(self, disk: Disk) -> None:
        disk.alter(self.inode, replace(disk.files[self.inode][-1], mtime_ns=self.mtime_ns))


@dataclass(frozen=True, slots=True)
class Linked:
    """A file got one more name."""

    place: Place
    inode: Inode

    def on(self, disk: Disk) -> None:
        disk.put(self.place, self.inode)


@dataclass(frozen=True, slots=True)
class Renamed:
    """A name was moved, replacing the new one."""

    source: Place
    target: Place

    def on(self, disk: Disk) -> None:
        inode = disk.at(self.source)
        if inode == disk.at(self.target):
            return  # POSIX: two names of one file stay as they are
        disk.take(self.target)
        disk.put(self.target, inode)
        disk.put(self.source, None)


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Two names were swapped."""

    source: Place
    target: Place

    def on(self, disk: Disk) -> None:
        inode, other = disk.at(self.source), disk.at(self.target)
        disk.put(self.target, inode)
        disk.put(self.source, other)


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A name was removed, a file's or an empty directory's."""

    place: Place

    def on(self, disk: Disk) -> None:
        disk.take(self.place)
        disk.put(self.place, None)


@dataclass(frozen=True, slots=True)
class Synced:
    """A file or directory was synced; `failed`: the disk returned an error."""

    inode: Inode
    failed: bool = False

    def on(self, disk: Disk) -> None:
        if self.failed:
            disk.fail(self.inode)
        else:
            disk.settle(self.inode)


@dataclass(frozen=True, slots=True)
class SyncedAll:
    """The whole file system was synced."""

    def on(self, disk: Disk) -> None:
        for inode in [*disk.directories, *disk.files]:
            disk.settle(inode)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One more change was acknowledged."""

    def on(self, disk: Disk) -> None:
        disk.acknowledged += 1
