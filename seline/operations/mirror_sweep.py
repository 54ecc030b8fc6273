"""Removes old heads of a mirror, and the objects that no head names any longer.

Nothing is removed after a failed listing. The newest head, the newest one that is not in doubt, the
newest proven one and the newest one that was proven with the key stay, with every head that they
change. So does the newest head that has a
document which the newest one lacks. While the newest head is in doubt, only older heads that are in
doubt are removed.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from msgspec.structs import replace

from seline.clock import parse_instant
from seline.domain.backup import Backup, Stamp
from seline.domain.mirror import DAY, Head, newest_first, parse_head_name
from seline.domain.purged import Oldest
from seline.domain.retention import RetentionPolicy, plan_ordered
from seline.domain.verdict import Verdict
from seline.errors import ExportDamaged, ExportFailed
from seline.operations.mirror_store import MirrorStore, in_thread
from seline.ports.destinations import ObjectMissing

DOUBTED_MAX: Final = 3
"""While the newest head is in doubt, so many in doubt are kept, and those that they change."""


OLD_ENOUGH: Final = timedelta(days=8)
"""Within so long there was a drill."""
_HOUR: Final = len("20250106T14")
_DATE: Final = len("20250106")


class Swept(NamedTuple):
    """What a sweep removed: how many heads, and how many objects.

    What no head since the `oldest` names is no longer there; None if that is not known. `damaged`
    are the heads that cannot be read; each may name any object, so none is removed.
    """

    heads: int = 0
    objects: int = 0
    oldest: Oldest | None = None
    damaged: tuple[str, ...] = ()


class Sweep:
    """The sweeps of one mirror; an object is removed if two of them found that no head names it."""

    def __init__(self) -> None:
        self._known = KnownHeads()
        self._damaged: set[str] = set()
        """The heads that the sweep before could not read."""
        self._unnamed: set[str] = set()
        self._with_key: set[str] = set()
        """The heads that are known to be proven with the key."""
        self._oldest: Oldest | None = None
        """The oldest of the heads that the sweep before kept."""

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
        damaged = await self._known.read(at, names)
        heads = self._known.heads
        proven = [name for name in await at.proofs() if name in heads]
        kept = kept_heads(heads, [*proven[:1], *await self._proven_with_key(at, proven)], policy)
        files = await at.stored_names("objects")
        check(names, [_key_of(file) for file in files])
        given_up = self._damaged & set(damaged)
        if not is_replaced(heads, proven, given_up):
            given_up = set()
        self._damaged = set(damaged) - given_up
        dropped = newest_first({*(heads.keys() - kept), *given_up})  # before those that they change
        for name in dropped:
            await at.remove("heads", f"{name}.json")
            await at.remove("proofs", f"{name}.json")
        self._known.forget(dropped)
        if self._damaged or is_in_doubt(heads):
            return Swept(len(dropped), damaged=tuple(sorted(self._damaged)))
        await self._remove_manifests(at, kept, dropped)
        unnamed = await in_thread(partial(self._known.unnamed, files))
        removed = await self._remove_objects(at, unnamed, removing)
        before = self._oldest
        self._oldest = _oldest_of(heads.values()) if heads else None
        return Swept(len(dropped), removed, before)

    async def _proven_with_key(self, at: MirrorStore, proven: Sequence[str]) -> list[str]:
        """Return the newest of these heads that was proven with the key; empty without one."""
        for name in proven:
            if name not in self._with_key:
                with suppress(ExportDamaged, ObjectMissing):
                    self._with_key |= {name} if (await at.proof(name)).decrypted else set()
            if name in self._with_key:
                return [name]
        return []

    async def _remove_manifests(
        self, at: MirrorStore, kept: set[str], dropped: Collection[str]
    ) -> None:
        """Remove the manifests of no head; raise ExportFailed if one has a head after all."""
        for file in await at.stored_names("manifests"):
            head = file.split(".")[0]
            if head not in kept and newest_first((head, *kept))[0] in kept:
                if head not in dropped:
                    await _check_absent(at, head)
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


def _oldest_of(heads: Collection[Head]) -> Oldest:
    return Oldest(
        number=min(head.sequence for head in heads),
        at=min(parse_instant(head.taken_at) for head in heads),
    )


async def _check_absent(at: MirrorStore, head: str) -> None:
    """Raise ExportFailed for a head that is there, and was not listed."""
    try:
        with suppress(ExportDamaged):
            await at.head(head)
    except ObjectMissing:
        return
    raise ExportFailed(
        f"It has the head {head} and does not list it. Nothing more is removed.",
        hint="Its listings are not whole: update the server, or use another destination.",
    )


def kept_heads(
    heads: Mapping[str, Head], proven: Collection[str], policy: RetentionPolicy
) -> set[str]:
    """Return the names of the heads that stay, those in `proven` too, with those they change.

    The numbers are their order, under any clock; an instant gives a head its hour and day only.
    Once the last head is not in doubt, those in doubt stay only if they are proven.
    """
    ordered = newest_first(heads)
    if is_in_doubt(heads):
        doubted = [name for name in ordered if heads[name].doubt][:DOUBTED_MAX]
        return _with_chains(heads, [*doubted, *sound_heads(heads)])
    always = set(proven)
    lacking = heads[ordered[0]].lacking if ordered else ()
    having = (sound_heads(heads, having=name) for name in lacking)
    for group in (ordered, sound_heads(heads), *having):
        always |= set(islice(group, 1))
    sound = {name: heads[name] for name in sound_heads(heads)}
    candidates = _candidates(sound, always | set(islice(sound, policy.keep_newest)))
    plan = plan_ordered([_as_backup(heads[name], name in always) for name in candidates], policy)
    return _with_chains(heads, [*always, *(backup.name for backup in plan.keep)])


def is_replaced(
    heads: Mapping[str, Head], proven: Collection[str], damaged: Collection[str]
) -> bool:
    """Whether a base that is newer than these damaged heads, and not in doubt, makes up for them.

    It was proven, or has outlived a drill: a damaged head is of no use, but what it names may be.
    """
    newest = next(iter(newest_first(damaged)), "")
    sound = [name for name in sound_heads(heads) if newest_first((name, newest))[0] == name]
    bases = [heads[name] for name in sound if not heads[name].before]
    if not bases:
        return False
    age = parse_instant(heads[sound[0]].taken_at) - parse_instant(bases[-1].taken_at)
    return any(name in proven for name in sound) or age >= OLD_ENOUGH


def _candidates(heads: Mapping[str, Head], always: Collection[str]) -> list[str]:
    """Return the heads that a rule may choose: bases, where an hour or a day has one.

    A head that changes others keeps them, too, up to a whole chain for one instant.
    """
    ordered = newest_first(heads)
    bases = [name for name in ordered if not heads[name].before]
    hours, days = {name[:_HOUR] for name in bases}, {name[:_DATE] for name in bases}
    last_day = parse_instant(heads[ordered[0]].taken_at) - DAY if ordered else None

    def may_be_chosen(name: str) -> bool:
        is_recent = last_day is not None and parse_instant(heads[name].taken_at) > last_day
        has_base = name[:_HOUR] in hours if is_recent else name[:_DATE] in days
        return not (heads[name].before and has_base)

    return [name for name in ordered if name in always or may_be_chosen(name)]


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


class KnownHeads:
    """The heads of a mirror, each read once, because it never changes.

    They are kept without their objects. Which objects a head names is a number with a bit for each,
    so that many heads with the same many objects need little memory.
    """

    def __init__(self) -> None:
        self.heads: dict[str, Head] = {}
        self._named: dict[str, int] = {}
        self._bits: dict[str, int] = {}
        """The number of each object's bit, by its key."""
        self._free: list[int] = []

    async def read(self, at: MirrorStore, names: Sequence[str]) -> list[str]:
        """Read the heads that are not known yet; return those that are damaged."""
        self.forget(self.heads.keys() - set(names))
        damaged: list[str] = []
        for name in names:
            if name not in self.heads:
                try:
                    await self._read(at, name)
                except ExportDamaged:
                    damaged.append(name)
                except ObjectMissing:
                    continue  # it was removed since it was listed
        return damaged

    def forget(self, names: Iterable[str]) -> None:
        """Forget heads that are no longer there."""
        for name in list(names):
            self.heads.pop(name, None)
            self._named.pop(name, None)

    def unnamed(self, files: Sequence[str]) -> set[str]:
        """Return the files of the objects that no head names. Blocks."""
        named = 0
        for bits in self._named.values():
            named |= bits
        is_named = named.to_bytes((len(self._bits) + len(self._free)) // 8 + 1, "little")
        for key, bit in list(self._bits.items()):
            if not is_named[bit >> 3] >> (bit & 7) & 1:
                del self._bits[key]
                self._free.append(bit)
        return {file for file in files if _key_of(file) not in self._bits}

    async def _read(self, at: MirrorStore, name: str) -> None:
        head = await at.head(name)
        keys = await at.keys_of(head)
        self._named[name] = await in_thread(partial(self._bits_of, keys))
        self.heads[name] = replace(head, objects=())

    def _bits_of(self, keys: Sequence[str]) -> int:
        named = bytearray((len(self._bits) + len(self._free) + len(keys)) // 8 + 1)
        for key in keys:
            bit = self._bits.get(key)
            if bit is None:
                bit = self._free.pop() if self._free else len(self._bits)
                self._bits[key] = bit
            named[bit >> 3] |= 1 << (bit & 7)
        return int.from_bytes(named, "little")
