"""The mirror: each destination gets every content once, and a head that names them.

A run copies what changed since the head before and removes nothing. Its order makes it safe: the
contents, then the manifest, then the head. A copy that lost over half of what those of the last two
days had is stored in doubt: a restore does not take it by itself, and no other copy is removed
until it is accepted.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from seline.clock import instant_text, parse_instant
from seline.domain import mirror
from seline.domain.document import BOT, Revision
from seline.domain.doubt import DaySize, doubt_about, with_copy
from seline.domain.manifest import PackedDocument
from seline.domain.mirror import Head, MirrorManifest, StoredObject
from seline.domain.plural import counted
from seline.errors import ExportFailed
from seline.manager.managed_store import ManagedStore
from seline.manager.transfer import snapshot_of
from seline.operations.changed_names import ChangedNames, Waiting
from seline.operations.mirror_contents import Copying
from seline.operations.mirror_store import MirrorStore, check_number, in_thread
from seline.operations.mirror_unread import OlderContent, Unread, older_contents, with_older
from seline.ports.destinations import ObjectForbidden, ObjectStore
from seline.ports.sealing import Sealer
from seline.ports.store import Snapshot

CHAIN_AGE_MAX: Final = timedelta(days=1)
CHAIN_OBJECTS_MIN: Final = 1000
"""A chain of heads ends when they name more contents than its base, and more than this."""
_log = logging.getLogger("seline.mirror")


class _Mirrored(NamedTuple):
    """What is remembered of a document: its content, and a digest of its entry in a manifest."""

    content: OlderContent
    digest: bytes


class _Gathered(NamedTuple):
    """The documents that were read for a head."""

    documents: Mapping[str, PackedDocument]
    entries: dict[str, _Mirrored]
    removed: Sequence[str]
    unread: Unread
    name_key: str
    has_pins: bool

    def without(self, purged: AbstractSet[str]) -> "_Gathered":
        """Return the same without the documents that were purged since they were read."""
        nothing = frozenset[str]()
        return self._replace(
            documents={name: self.documents[name] for name in self.documents.keys() - purged},
            entries={name: self.entries[name] for name in self.entries.keys() - purged},
            removed=[*self.removed, *purged],
            unread=self.unread.after(
                purged, lacking=nothing, older=nothing, name_key=self.name_key
            ),
        )


class Mirror:
    """One destination's mirror of one store."""

    def __init__(
        self,
        store: ManagedStore,
        destination: ObjectStore,
        sealer: Sealer,
        *,
        version: str,
        name_key: Callable[[], Awaitable[str]],
        volume_id: Callable[[], Awaitable[str]],
    ) -> None:
        """Mirror `store`; `name_key` and `volume_id` return what the volume keeps."""
        self.destination = destination
        self._store = store
        self._sealer = sealer
        self._version = version
        self._name_key = name_key
        self._volume_id = volume_id
        self._changed = ChangedNames(store.clock.now)
        self._is_watching = False
        self._copying: Copying | None = None
        self._stored: dict[str, StoredObject] = {}
        """Each object that is at the destination, by key."""
        self._lost: set[str] = set()
        """The keys of the objects that a drill found damaged."""
        self._named: set[str] = set()
        """The keys that the heads of this chain name."""
        self._entries: dict[str, _Mirrored] = {}
        self._there: list[list[Head]] = []
        """The chains that were there when this process looked: the newest, the last accepted."""
        self._chain: list[Head] = []
        self._sequence = 0
        """The highest number that a head there has."""
        self.largest: tuple[DaySize, ...] = ()
        """The sizes that a copy is compared with to find a loss."""
        self._unread = Unread()

    @property
    def has_changes(self) -> bool:
        """Whether a run would write a head."""
        return not self._chain or bool(self._changed.seen())

    @property
    def newest(self) -> Head | None:
        """The head that this process wrote last."""
        return self._chain[-1] if self._chain else None

    @property
    def lacking(self) -> tuple[str, ...]:
        """The documents that could not be read for the newest head, and are not in it."""
        return tuple(sorted(self._unread.lacking))

    @property
    def older(self) -> tuple[str, ...]:
        """The documents that could not be read, of which the newest head has an older content."""
        return tuple(sorted(self._unread.older))

    @property
    def waiting(self) -> Waiting:
        """What is not copied yet, and how far the run in progress is."""
        if self._copying is None:
            return Waiting(self._changed.since)
        return Waiting(self._changed.since, self._copying.copied, self._copying.of_all)

    async def watch(self, mirrored_at: datetime | None) -> None:
        """Note changes from now on.

        Of what an earlier process left after its copy of `mirrored_at` the last change is known.
        """
        if self._is_watching:
            return
        store = await self._store.open()
        store.watch(self._changed.note)
        self._is_watching = True
        documents = await self._store.listing(lambda: store.documents(BOT))
        changed_at = max((info.updated_at for info in documents), default=None)
        if changed_at and mirrored_at and changed_at.replace(microsecond=0) > mirrored_at:
            self._changed.left(changed_at)

    async def run(
        self,
        *,
        sequence: int,
        largest: Sequence[DaySize] = (),
        elsewhere: Sequence[DaySize] = (),
        accept: bool = False,
    ) -> Head | None:
        """Copy what changed and return the new head, None if nothing changed.

        `watch` was called. `sequence` is the highest number of a head that is known of, `largest`
        what an earlier process compared copies with, `elsewhere` what other destinations had.
        `accept`: what is lost is meant to be. Raises ExportFailed, StorageError.
        """
        if not self.has_changes:
            return None
        at = MirrorStore(self.destination, self._sealer, await self._volume_id())
        self.largest = self.largest or tuple(largest)
        if not self._chain:
            await self._look(at, sequence)
        self.largest = self.largest or tuple(elsewhere)
        if accept:
            self.largest, self._unread = (), Unread()
        before, seen_at = self._changed.seen(), self._store.clock.now()
        purged = self._changed.purged()
        is_base = self._needs_base() or bool(purged)
        recorded = await self._recorded() if is_base else {}
        async with snapshot_of(self._store) as snapshot:
            seen = self._changed.seen()
            names = [*snapshot.names, *await self._deleted(snapshot)] if is_base else list(seen)
            for name in seen:
                recorded.pop(name, None)
            number = max(sequence, self._sequence) + 1
            name_key = await self._name_key() if self._sealer.suffix else ""
            copying = Copying(self._store, snapshot, at, self._stored, name_key, recorded)
            read = await self._read(at, copying, names, {*seen, *names}, purged.keys())
            since = {name for name, _ in self._changed.purged().items() - purged.items()}
            read = read.without(since)  # the next run writes a base
            head = await self._head(at, snapshot, read, is_base, number)
        self._changed.done(before, seen_at)
        return head

    def check(self, heads: Collection[str], objects: Collection[str], *, newest: bool) -> None:
        """Raise ExportFailed if a listing lacks what the newest copy needs; store it with the next.

        Without `newest` the newest head is left out: a listing may be late.
        """
        chain = self._chain if newest else self._chain[:-1]
        lost = {entry.key for head in chain for entry in head.objects} - set(objects)
        lost_heads = [head for head in chain if head.name not in heads]
        if lost or lost_heads:
            self.lost(lost)
            raise damaged(
                f"It has lost {counted(len(lost) + len(lost_heads), 'object')} of the newest copy. "
                "What is missing is stored again with the next run; nothing is removed."
            )

    def backups_added(self, names: Iterable[str]) -> None:
        """Note the documents to which a restore added backups; the store notes no such change."""
        self._changed.add(names)

    def begin_again(self) -> None:
        """Look again at the heads of the destination before the next run, which writes a base."""
        self._chain, self._named = [], set()

    def forget(self) -> None:
        """Do so, and store again what the heads there do not name."""
        self.begin_again()
        self._stored = {}

    def lost(self, keys: Iterable[str]) -> None:
        """Store these objects again with the next run, which writes a base."""
        self._lost |= set(keys)
        self.forget()

    def removed(self, key: str) -> None:
        """Note that an object is no longer at the destination."""
        self._stored.pop(key, None)

    # parts

    async def _look(self, at: MirrorStore, known: int) -> None:
        """Learn what the destination has. With credentials that only write, it has nothing.

        `known` is the highest number of a copy that the volume knows.
        """
        try:
            names = await at.heads()
            chain = accepted = await at.newest_chain(names)
            if chain and chain[-1].doubt:
                accepted = await at.newest_chain(names, accepted=True)
        except ObjectForbidden as error:
            _log.warning(
                "%s: it cannot be read, so this start copies everything again: %s",
                self.destination.name,
                error.message,
            )
            return
        for sequence, path in map(at.numbered, names[:1]):
            check_number(sequence, known, path)
            self._sequence = sequence
        if accepted and not self.largest:
            self.largest = _with_head((), accepted[-1])
        self._unread = Unread.of(chain[-1]) if chain else Unread()
        self._there = [chain, accepted] if accepted is not chain else [chain]
        sealed = bool(self._sealer.suffix)
        self._stored |= {
            entry.key: entry
            for heads in self._there
            for head in heads
            if head.encrypted is sealed
            for entry in head.objects
            if entry.key not in self._lost
        }

    def _needs_base(self) -> bool:
        if not self._chain or len(self._chain) >= mirror.CHAIN_HEADS_MAX:
            return True
        base, *later = self._chain
        age = self._store.clock.now() - parse_instant(base.taken_at)
        named = sum(len(head.objects) for head in later)
        return abs(age) > CHAIN_AGE_MAX or named > max(len(base.objects), CHAIN_OBJECTS_MIN)

    async def _recorded(self) -> dict[str, tuple[Revision, int]]:
        """Return the digest and size of each document that need not be read for them."""
        store = await self._store.open()
        documents = await self._store.listing(lambda: store.documents(BOT))
        return {info.name: (info.revision, info.size_bytes) for info in documents if info.revision}

    async def _deleted(self, snapshot: Snapshot) -> list[str]:
        """Return the names of the documents of which only backups are left."""
        store = await self._store.open()
        found = await self._store.listing(lambda: store.documents(BOT, deleted=True))
        return [info.name for info in found if info.name not in snapshot.names]

    async def _read(
        self,
        at: MirrorStore,
        copying: Copying,
        names: Sequence[str],
        seen: AbstractSet[str],
        purged: AbstractSet[str],
    ) -> _Gathered:
        """Store the contents of these documents; `purged` ones have no older content."""
        self._copying, name_key = copying, copying.name_key
        try:
            documents, removed = await copying.documents(filter(None, names))
        finally:
            self._copying = None
        older = await self._older(at, {*copying.lacking} - purged, name_key)
        documents = with_older(documents, older)
        return _Gathered(
            entries=await in_thread(lambda: {found.name: _entry(found) for found in documents}),
            documents={document.name: document for document in documents},
            removed=[name for name in removed if name not in older],
            unread=self._unread.after(
                seen,
                lacking={*copying.lacking} - older.keys(),
                older=older.keys(),
                name_key=name_key,
            ),
            name_key=name_key,
            has_pins="" in names,
        )

    async def _older(
        self, at: MirrorStore, names: AbstractSet[str], name_key: str
    ) -> dict[str, OlderContent]:
        """Return the contents that older heads have of documents, if they are stored."""
        if self._entries:
            found = {name: entry.content for name, entry in self._entries.items() if name in names}
        else:
            found = await older_contents(at, self._there, names)
        return {
            name: content
            for name, content in found.items()
            if mirror.content_key(content.digest, name_key) in self._stored
        }

    async def _head(
        self, at: MirrorStore, snapshot: Snapshot, read: _Gathered, is_base: bool, sequence: int
    ) -> Head | None:
        """Store a head of what was read, if anything changed."""
        before = {} if is_base else self._entries
        changed = [name for name, entry in read.entries.items() if before.get(name) != entry]
        left = [name for name in read.removed if name in before]
        is_same = not (changed or left or read.has_pins) and read.unread == self._unread
        if is_same and not is_base:
            return None
        manifest = MirrorManifest(
            name_key=read.name_key,
            documents=tuple(read.documents[name] for name in changed),
            removed=tuple(left),
            pins=self._store.pins.pins(),
            lacking=tuple(sorted(read.unread.lacking)),
            older=tuple(sorted(read.unread.older)),
        )
        entries = {name: entry for name, entry in before.items() if name not in left} | read.entries
        lacking = read.unread.listed(read.name_key)
        head = await self._finish(at, snapshot, manifest, lacking, entries, is_base, sequence)
        self._entries, self._unread = entries, read.unread
        return head

    async def _finish(
        self,
        at: MirrorStore,
        snapshot: Snapshot,
        manifest: MirrorManifest,
        lacking: tuple[str, ...],
        entries: Mapping[str, _Mirrored],
        is_base: bool,
        sequence: int,
    ) -> Head:
        """Store the manifest, then the head."""
        sizes = [entry.content.size_bytes for entry in entries.values() if entry.content.digest]
        documents, size_bytes = len(sizes), sum(sizes)
        new = await in_thread(partial(_keys, manifest, frozenset() if is_base else self._named))
        name = mirror.head_name(snapshot.taken_at, sequence)
        self._sequence = sequence  # used up also if the answer is lost: the head may be there
        stored = await at.put_manifest(name, manifest)
        head = Head(
            volume=at.volume,
            sequence=sequence,
            taken_at=instant_text(snapshot.taken_at),
            seline_version=self._version,
            place=(await self._store.open()).medium.place,
            encrypted=bool(self._sealer.suffix),
            before="" if is_base else self._chain[-1].name,
            documents=documents,
            size_bytes=size_bytes,
            doubt=doubt_about(documents, size_bytes, self.largest),
            lacking=lacking,
            manifest=stored,
            objects=tuple(self._stored[key] for key in new),
        )
        await at.put_head(head)
        self._lost -= set(new)
        self._chain = [head] if is_base else [*self._chain, head]
        self._named = set(new) if is_base else self._named | set(new)
        if not head.doubt:
            self.largest = _with_head(self.largest, head)
        return head


def damaged(message: str) -> ExportFailed:
    """Return the error for a copy that something else has damaged."""
    return ExportFailed(
        message,
        hint="Look for what removes or alters objects there, then run `seline jobs run drill`.",
    )


def _with_head(largest: Sequence[DaySize], head: Head) -> tuple[DaySize, ...]:
    return with_copy(largest, parse_instant(head.taken_at), head.documents, head.size_bytes)


def _keys(manifest: MirrorManifest, named: AbstractSet[str]) -> list[str]:
    """Return the keys of the contents of a manifest that are not named yet."""
    digests = mirror.contents_of_documents(manifest.documents)
    return sorted({mirror.content_key(digest, manifest.name_key) for digest in digests} - named)


def _entry(document: PackedDocument) -> _Mirrored:
    listed = (document.sha256, *((backup.name, backup.sha256) for backup in document.backups))
    digest = hashlib.blake2b(repr(listed).encode(), digest_size=16).digest()
    return _Mirrored(OlderContent(document.sha256, document.size_bytes), digest)
