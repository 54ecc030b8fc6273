"""The mirror: each destination gets every content once, and a head that names them.

A run copies what changed since the head before and removes nothing. Its order makes it safe: the
contents, then the manifest, then the head. A copy that lost over half of its documents or bytes is
stored in doubt: a restore does not take it by itself, and nothing is removed until it is accepted.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from seline.clock import instant_text, parse_instant
from seline.domain import mirror
from seline.domain.document import BOT, Revision
from seline.domain.manifest import PackedDocument
from seline.domain.mirror import Head, MirrorManifest, StoredObject, parse_head_name
from seline.domain.plural import counted
from seline.errors import ExportFailed
from seline.manager.managed_store import ManagedStore
from seline.manager.transfer import snapshot_of
from seline.operations.changed_names import ChangedNames, Waiting
from seline.operations.mirror_contents import Copying
from seline.operations.mirror_store import MirrorStore, in_thread
from seline.ports.destinations import ObjectForbidden, ObjectStore
from seline.ports.sealing import Sealer
from seline.ports.store import Snapshot

CHAIN_AGE_MAX: Final = timedelta(days=1)
CHAIN_OBJECTS_MIN: Final = 1000
"""A chain of heads ends when they name more contents than its base, and more than this."""
_log = logging.getLogger("seline.mirror")


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
        self._entries: dict[str, tuple[int | None, bytes]] = {}
        """Of each document the bytes of its content, None without one, and its entry's digest."""
        self._chain: list[Head] = []
        self._sequence = 0
        """The highest number that a head there has."""
        self.accepted: Head | None = None
        """The newest head that is not in doubt."""
        self.lacking: tuple[str, ...] = ()
        """The documents that could not be read for the newest head."""

    @property
    def has_changes(self) -> bool:
        """Whether a run would write a head."""
        return not self._chain or bool(self._changed.seen())

    @property
    def newest(self) -> Head | None:
        """The head that this process wrote last."""
        return self._chain[-1] if self._chain else None

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

    async def run(self, *, sequence: int, accept: bool = False) -> Head | None:
        """Copy what changed and return the new head, None if nothing changed.

        `watch` was called. `sequence` is the highest number of a head that is known of. `accept`:
        what is lost is meant to be. Raises ExportFailed, StorageError.
        """
        if not self.has_changes:
            return None
        at = MirrorStore(self.destination, self._sealer, await self._volume_id())
        if not self._chain:
            await self._look(at)
        if accept:
            self.accepted = None
        before, seen_at = self._changed.seen(), self._store.clock.now()
        is_base = self._needs_base() or bool(self._changed.purged())
        recorded = await self._recorded() if is_base else {}
        async with snapshot_of(self._store) as snapshot:
            seen = self._changed.seen()
            names = [*snapshot.names, *await self._deleted(snapshot)] if is_base else list(seen)
            for name in seen:
                recorded.pop(name, None)
            sequence = max(sequence, self._sequence) + 1
            head = await self._copy(at, snapshot, names, recorded, is_base, sequence)
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

    def forget(self) -> None:
        """Look again at what the destination has before the next run, which writes a base."""
        self._chain, self._named, self._stored = [], set(), {}

    def lost(self, keys: Iterable[str]) -> None:
        """Store these objects again with the next run, which writes a base."""
        self._lost |= set(keys)
        self.forget()

    def removed(self, key: str) -> None:
        """Note that an object is no longer at the destination."""
        self._stored.pop(key, None)

    # parts

    async def _look(self, at: MirrorStore) -> None:
        """Learn what the destination has. With credentials that only write, it has nothing."""
        try:
            chain = await at.newest_chain()
            accepted = await at.newest_chain(accepted=True) if chain and chain[-1].doubt else chain
            for _, sequence in filter(None, map(parse_head_name, await at.heads())):
                self._sequence = max(self._sequence, sequence)
        except ObjectForbidden as error:
            _log.warning(
                "%s: it cannot be read, so this start copies everything again: %s",
                self.destination.name,
                error.message,
            )
            return
        self.accepted = accepted[-1] if accepted else None
        sealed = bool(self._sealer.suffix)
        self._stored = {
            entry.key: entry
            for head in chain
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

    async def _copy(
        self,
        at: MirrorStore,
        snapshot: Snapshot,
        names: list[str],
        recorded: Mapping[str, tuple[Revision, int]],
        is_base: bool,
        sequence: int,
    ) -> Head | None:
        name_key = await self._name_key() if self._sealer.suffix else ""
        copying = Copying(self._store, snapshot, at, self._stored, name_key, recorded)
        self._copying = copying
        try:
            documents, removed = await copying.documents([*filter(None, names)])
        finally:
            self._copying = None
        before = {} if is_base else self._entries
        found = await in_thread(lambda: {document.name: _entry(document) for document in documents})
        changed = [
            document for document in documents if before.get(document.name) != found[document.name]
        ]
        left = [name for name in removed if name in before]
        if not (is_base or changed or left or "" in names):
            return None
        still_lacking = set() if is_base else set(self.lacking) - set(names)
        self.lacking = tuple(sorted(still_lacking | set(copying.lacking)))
        manifest = MirrorManifest(
            name_key=name_key,
            documents=tuple(changed),
            removed=tuple(left),
            pins=self._store.pins.pins(),
        )
        entries = {name: entry for name, entry in before.items() if name not in left} | found
        head = await self._finish(at, snapshot, manifest, entries, is_base, sequence)
        self._entries = entries
        return head

    async def _finish(
        self,
        at: MirrorStore,
        snapshot: Snapshot,
        manifest: MirrorManifest,
        entries: Mapping[str, tuple[int | None, bytes]],
        is_base: bool,
        sequence: int,
    ) -> Head:
        """Store the manifest, then the head."""
        sizes = [size for size, _ in entries.values() if size is not None]
        documents, size_bytes = len(sizes), sum(sizes)
        new = await in_thread(partial(_keys, manifest, frozenset() if is_base else self._named))
        name = mirror.head_name(snapshot.taken_at, sequence)
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
            doubt=mirror.doubt_about(documents, size_bytes, self.accepted),
            manifest=stored,
            objects=tuple(self._stored[key] for key in new),
        )
        await at.put_head(head)
        self._lost -= set(new)
        self._sequence = sequence
        self._chain = [head] if is_base else [*self._chain, head]
        self._named = set(new) if is_base else self._named | set(new)
        if not head.doubt:
            self.accepted = head
        return head


def damaged(message: str) -> ExportFailed:
    """Return the error for a copy that something else has damaged."""
    return ExportFailed(
        message,
        hint="Look for what removes or alters objects there, then run `seline jobs run drill`.",
    )


def _keys(manifest: MirrorManifest, named: AbstractSet[str]) -> list[str]:
    """Return the keys of the contents of a manifest that are not named yet."""
    digests = mirror.contents_of_documents(manifest.documents)
    return sorted({mirror.content_key(digest, manifest.name_key) for digest in digests} - named)


def _entry(document: PackedDocument) -> tuple[int | None, bytes]:
    """Return what is remembered of a document: its bytes, and a digest of its entry."""
    listed = (document.sha256, *((backup.name, backup.sha256) for backup in document.backups))
    size_bytes = document.size_bytes if document.sha256 else None
    return size_bytes, hashlib.blake2b(repr(listed).encode(), digest_size=16).digest()
