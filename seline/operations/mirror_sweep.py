"""Removes old heads of a mirror, and the objects that no head names any longer.

Nothing is removed after a failed listing. The newest head, the newest one that is not in doubt and
the newest proven one stay, with every head that they change. So does the newest head that has a
document which the newest one lacks. While the newest head is in doubt, only older heads that are in
doubt are removed.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from msgspec.structs import replace

from seline.clock import parse_instant
from seline.domain.backup import Backup, Stamp
from seline.domain.mirror import Head, StoredObject, newest_first, parse_head_name
from seline.domain.retention import RetentionPolicy, plan_retention
from seline.domain.verdict import Verdict
from seline.errors import ExportDamaged
from seline.operations.mirror_store import MirrorStore, in_thread

DOUBTED_MAX: Final = 3
"""While the newest head is in doubt, so many in doubt are kept, and those that they change."""


class Swept(NamedTuple):
    """What a sweep removed: how many heads, and how many objects.

    What no head since `oldest` names is no longer there; None if that is not known.
    """

    heads: int = 0
    objects: int = 0
    oldest: datetime | None = None


class Sweep:
    """The sweeps of one mirror; an object is removed if two of them found that no head names it."""

    def __init__(self) -> None:
        self._unnamed: set[str] = set()
        self._oldest: datetime | None = None
        """The instant of the oldest head that the sweep before kept."""

    async def run(
        self,
        at: MirrorStore,
        policy: RetentionPolicy,
        check: Callable[[Collection[str], Collection[str]], None],
        removing: Callable[[str], None],
    ) -> Swept:
        """Remove what the policy drops.

        `check` gets the names of the heads and the keys of the objects; nothing is removed if it
        raises. `removing` is called with the key of each object before. Raises ExportFailed.
        """
        names = await at.heads()
        heads = await _readable(at, names)
        proven = set(await at.proofs())
        kept = kept_heads(heads, proven, policy)
        dropped = [name for name in names if name in heads and name not in kept]
        files = await at.stored_names("objects")
        check(names, [_key_of(file) for file in files])
        for name in dropped:
            await at.remove("heads", f"{name}.json")
            await at.remove("proofs", f"{name}.json")
        if len(heads) < len(names) or is_in_doubt(heads):
            return Swept(len(dropped))  # a damaged head may name any object
        await self._remove_manifests(at, kept)
        unnamed = _unnamed(at, files, [heads[name] for name in kept])
        removed = await self._remove_objects(at, unnamed, removing)
        before = self._oldest
        self._oldest = min(parse_instant(heads[name].taken_at) for name in kept) if kept else None
        return Swept(len(dropped), removed, before)

    async def _remove_manifests(self, at: MirrorStore, kept: set[str]) -> None:
        for file in await at.stored_names("manifests"):
            head = file.split(".")[0]
            if head not in kept and newest_first((head, *kept))[0] in kept:
                await at.remove("manifests", file)

    async def _remove_objects(
        self, at: MirrorStore, unnamed: set[str], removing: Callable[[str], None]
    ) -> int:
        gone = sorted(unnamed & self._unnamed)
        for file in gone:
            removing(_key_of(file))
            await at.remove("objects", file)
        self._unnamed = unnamed - set(gone)
        return len(gone)


def kept_heads(heads: Mapping[str, Head], proven: set[str], policy: RetentionPolicy) -> set[str]:
    """Return the names of the heads that stay, with those that they change."""
    ordered = newest_first(heads)
    if is_in_doubt(heads):
        doubted = [name for name in ordered if heads[name].doubt][:DOUBTED_MAX]
        return _with_chains(heads, [*doubted, *sound_heads(heads)])
    always = set[str]()
    lacking = heads[ordered[0]].lacking if ordered else ()
    having = (sound_heads(heads, having=name) for name in lacking)
    for group in (ordered, filter(proven.__contains__, ordered), sound_heads(heads), *having):
        always |= set(islice(group, 1))
    plan = plan_retention([_as_backup(heads[name], name in always) for name in ordered], policy)
    return _with_chains(heads, [backup.name for backup in plan.keep])


def is_in_doubt(heads: Mapping[str, Head]) -> bool:
    """Whether the last head is in doubt."""
    return any(heads[name].doubt for name in newest_first(heads)[:1])


def _with_chains(heads: Mapping[str, Head], names: Iterable[str]) -> set[str]:
    """Return the names of heads and of those that they change."""
    kept: set[str] = set()
    for first in names:
        name = first
        while name in heads and name not in kept:
            kept.add(name)
            name = heads[name].before
    return kept


def sound_heads(heads: Mapping[str, Head], *, having: str = "") -> Iterator[str]:
    """Yield the names of the heads that are not in doubt, the last one first.

    `having`: and do not lack this document, given as `Head.lacking` has it.
    """
    sound = (name for name in newest_first(heads) if not heads[name].doubt)
    return (name for name in sound if having not in heads[name].lacking)


def _unnamed(at: MirrorStore, files: Sequence[str], kept: Sequence[Head]) -> set[str]:
    """Return the files of the objects that no kept head names."""
    named = {
        at.object_path(entry.key, sealed=head.encrypted).rpartition("/")[2]
        for head in kept
        for entry in head.objects
    }
    return set(files) - named


def _key_of(file: str) -> str:
    return file.split(".", maxsplit=1)[0]


def _as_backup(head: Head, pinned: bool) -> Backup:
    """Return a head as retention sees it: a dated copy, sound, pinned if it must stay."""
    found = parse_head_name(head.name)
    assert found is not None
    return Backup(
        name=head.name,
        document="",
        stamp=Stamp(*found),
        size_bytes=head.size_bytes,
        revision=None,
        verdict=str(Verdict.SOUND),
        pinned=pinned,
    )


async def _readable(at: MirrorStore, names: Sequence[str]) -> dict[str, Head]:
    heads: dict[str, Head] = {}
    known: dict[StoredObject, StoredObject] = {}
    for name in names:
        try:
            head = await at.head(name)
        except ExportDamaged:
            continue
        heads[name] = await in_thread(partial(_sharing, head, known))
    return heads


def _sharing(head: Head, known: dict[StoredObject, StoredObject]) -> Head:
    """Return a head that shares the objects that other heads name, so that each is held once."""
    return replace(head, objects=tuple(known.setdefault(entry, entry) for entry in head.objects))
