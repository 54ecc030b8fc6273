"""The mirror's objects at one destination: stored, listed and read back, each checked by digest."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from seline.domain import mirror
from seline.domain.document import Revision
from seline.domain.manifest import PackedDocument, is_volume_id
from seline.domain.mirror import (
    SMALL_BYTES_MAX,
    Claim,
    Head,
    K,
    MirrorManifest,
    ObjectKey,
    Proof,
    StoredObject,
)
from seline.errors import ExportDamaged, ExportFailed
from seline.operations.packs import (
    LIST_BYTES_MAX,
    packed,
    stored_bytes_max,
    unpacked,
    unpacked_digest,
)
from seline.ports.destinations import ObjectMissing, ObjectStore
from seline.ports.sealing import Sealer

OBJECTS_RATIO_MAX: Final = 4
"""A list of digests is stored in over a third of its size, because digests hardly compress."""
NUMBER_STEP_MAX: Final = 10**9
"""A volume that was rolled back is not as many copies behind."""
T = TypeVar("T")


def _new_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="seline-sealing")


_threads: Final = [_new_threads()]
"""They compress, encrypt and hash; no call waits for a disk or a network."""
if hasattr(os, "register_at_fork"):  # the child has none of the threads
    os.register_at_fork(after_in_child=lambda: _threads.__setitem__(0, _new_threads()))


class Contents(NamedTuple):
    """The documents of a copy, the keys of its contents by digest, and the manifest of its head."""

    documents: dict[str, PackedDocument]
    keys: dict[Revision, str]
    manifest: MirrorManifest

    @property
    def name_key(self) -> str:
        """What makes the keys of the contents, empty without encryption."""
        return self.manifest.name_key


class MirrorStore:
    """The mirror of one volume at one destination.

    Every call raises ExportFailed; what it reads back may raise ExportDamaged and KeyMissing.
    """

    def __init__(self, destination: ObjectStore, sealer: Sealer, volume: str) -> None:
        self.destination = destination
        self.volume = volume
        self._sealer = sealer
        self._folder = mirror.folder_of(volume)

    # storing

    async def sealed(self, contents: Mapping[str, bytes]) -> list[tuple[StoredObject, bytes]]:
        """Return contents, given by key, compressed and sealed: how each is stored."""
        return await in_thread(lambda: [self._sealed(key, contents[key]) for key in contents])

    async def put_object(self, entry: StoredObject, stored: bytes) -> None:
        """Store what `sealed` returned."""
        sealed = bool(self._sealer.suffix)
        await self.destination.put(self.object_path(entry.key, sealed=sealed), stored)

    async def put_manifest(self, head: str, manifest: MirrorManifest) -> StoredObject:
        """Store the manifest of a head."""
        data = await in_thread(partial(mirror.encode, manifest))
        entry, stored = await in_thread(partial(self._sealed, head, data))
        await self.destination.put(
            self._manifest_path(head, sealed=bool(self._sealer.suffix)), stored
        )
        return entry

    async def put_head(self, head: Head) -> None:
        """Store a head; with that, its copy exists. Many objects are stored before it."""
        if len(head.objects) > mirror.INLINE_OBJECTS_MAX:
            listed, stored = await in_thread(partial(_packed_objects, head))
            await self.destination.put(self._objects_path(head.name), stored)
            head = replace(head, objects=(), listed=listed)
        data = await in_thread(partial(mirror.encode, head))
        await self.destination.put(self._path("heads", head.name), data)

    async def put_proof(self, proof: Proof) -> None:
        """Store that a head was restored, and what it gave was right."""
        await self.destination.put(self._path("proofs", proof.head), mirror.encode(proof))

    async def put_key_file(self) -> None:
        """Store what opens the copies with the passphrase, unless it is there.

        Another passphrase has another file: older copies still need theirs.
        """
        key_file = await in_thread(self._sealer.key_file)
        if key_file:
            sealed_for = await in_thread(lambda: self._sealer.sealed_for)
            path = f"{mirror.ROOT}/seline-key-{sealed_for[:8]}.age"
            await self.destination.put(path, key_file, replace=False)

    # listing

    async def heads(self) -> list[str]:
        """Return the names of the heads, the last one first."""
        return mirror.newest_first(await self._names("heads"))

    def numbered(self, head: str) -> tuple[int, str]:
        """Return the number of a listed head, and its path."""
        found = mirror.parse_head_name(head)
        assert found is not None
        return found[1], self._path("heads", head)

    async def proofs(self) -> list[str]:
        """Return the names of the heads that a drill has proven, the last one first."""
        return mirror.newest_first(await self._names("proofs"))

    async def stored_names(self, kind: str) -> list[str]:
        """Return the file names in `objects`, `manifests`, `heads` or `proofs`."""
        listed = await self.destination.list(f"{self._folder}/{kind}")
        return [entry.name for entry in listed if entry.size_bytes is not None]

    async def remove(self, kind: str, name: str) -> None:
        """Remove one file of these."""
        await self.destination.remove(f"{self._folder}/{kind}/{name}")

    # reading

    async def whole_head(self, head: Head) -> Head:
        """Return a head with its objects, also if they are in a separate file."""
        objects = await self._objects_of(head, StoredObject)
        return head if objects is None else replace(head, objects=tuple(objects))

    async def keys_of(self, head: Head) -> list[str]:
        """Return the keys of the objects of a head, which need less memory."""
        objects = await self._objects_of(head, ObjectKey)
        return [entry.key for entry in (head.objects if objects is None else objects)]

    async def head(self, name: str) -> Head:
        """Return a head, without the objects that are in a separate file."""
        data = await self.destination.get(
            self._path("heads", name), bytes_max=mirror.HEAD_BYTES_MAX
        )
        head = await in_thread(partial(mirror.decode_head, data, name))
        if head.volume != self.volume:
            raise ExportDamaged(f"{name} is a head of the volume {head.volume}.")
        return head

    async def proof(self, head: str) -> Proof:
        """Return the proof of a head. Raises ObjectMissing without one."""
        data = await self.destination.get(
            self._path("proofs", head), bytes_max=mirror.SMALL_BYTES_MAX
        )
        return mirror.decode_proof(data, head)

    async def chain(self, name: str) -> list[Head]:
        """Return a head and those that it changes, the base first, each with its objects."""
        return await self._chain_of(await self.head(name))

    async def _chain_of(self, newest: Head) -> list[Head]:
        chain, name = [await self.whole_head(newest)], newest.name
        while chain[-1].before:
            before = chain[-1].before
            if len(chain) > mirror.CHAIN_HEADS_MAX or any(head.name == before for head in chain):
                raise ExportDamaged(f"The heads before {name} lead to no base.")
            try:
                chain.append(await self.whole_head(await self.head(before)))
            except ObjectMissing as error:
                raise ExportDamaged(f"{name} needs the head {before}, which is lost.") from error
        return chain[::-1]

    async def newest_chain(
        self,
        names: Sequence[str],
        *,
        accepted: bool = False,
        on_damage: Callable[[ExportDamaged], object] = lambda _error: None,
    ) -> list[Head]:
        """Return the chain of the first of these heads that has one, empty if none has.

        `accepted`: and that is not in doubt. `on_damage` is called for each one before that is
        damaged; one that was removed since it was listed is left out. A failure of the destination
        is raised.
        """
        for name in names:
            try:
                head = await self.head(name)
                if not (accepted and head.doubt):
                    return await self._chain_of(head)
            except ObjectMissing:
                continue
            except ExportDamaged as error:
                on_damage(error)
        return []

    async def manifest(self, head: Head) -> MirrorManifest:
        """Return the manifest of one head, decrypted."""
        path = self._manifest_path(head.name, sealed=head.encrypted)
        stored = await self._checked(path, head.manifest)

        def decoded() -> MirrorManifest:
            packed = self._opened(stored, sealed=head.encrypted)
            data = unpacked(packed, path, bytes_max=LIST_BYTES_MAX)
            return mirror.decode_as(MirrorManifest, data, f"the manifest of {head.name}")

        return await in_thread(decoded)

    async def content(
        self, entry: StoredObject, *, sealed: bool, bytes_max: int, as_stored: bool = False
    ) -> bytes:
        """Return the content of an object, decrypted; the caller compares its digest.

        Raises ExportDamaged, also for a content of more than `bytes_max`.
        The stored bytes are compared only for `as_stored`: a content that was encrypted again has
        other ones.
        """
        path = self.object_path(entry.key, sealed=sealed)
        stored_max = stored_bytes_max(bytes_max)
        reading = self._checked(path, entry, stored_max) if as_stored else None
        stored = await (reading or self._stored(path, stored_max))

        def content() -> bytes:
            return unpacked(self._opened(stored, sealed=sealed), path, bytes_max=bytes_max)

        return await in_thread(content)

    async def contents(self, chain: Sequence[Head]) -> Contents:
        """Return what the copy of a head has; `chain` is the head with those that it changes.

        Raises ExportDamaged also for a content that no head has.
        """
        manifests = [await self.manifest(head) for head in chain]
        documents = mirror.merged(manifests)
        keys = await in_thread(partial(mirror.keys_of, documents, manifests[-1]))
        lost = set(keys.values()) - {entry.key for head in chain for entry in head.objects}
        if lost:
            raise ExportDamaged(f"{chain[-1].name} names {len(lost)} contents that no head has.")
        return Contents(documents, keys, manifests[-1])

    async def check_manifest(self, head: Head) -> None:
        """Compare the manifest of a head as it is stored. Raises ExportDamaged."""
        await self._checked(self._manifest_path(head.name, sealed=head.encrypted), head.manifest)

    async def check(
        self, entry: StoredObject, *, sealed: bool, name_key: str | None, bytes_max: int
    ) -> None:
        """Compare an object as it is stored; with the key of the names its content, too.

        Raises ExportDamaged, also for a content of more than `bytes_max`.
        """
        path = self.object_path(entry.key, sealed=sealed)
        stored = await self._checked(path, entry, stored_bytes_max(bytes_max))
        if name_key is None:
            return

        def key() -> str:
            opened = self._opened(stored, sealed=sealed)
            digest = unpacked_digest(opened, path, bytes_max=bytes_max)
            return mirror.content_key(digest, name_key)

        if await in_thread(key) != entry.key:
            raise ExportDamaged(f"{self.destination.name} has another content at {path}.")

    def object_path(self, key: str, *, sealed: bool) -> str:
        """Return the key of an object at the destination."""
        return f"{self._folder}/objects/{key}.json.zst{'.age' if sealed else ''}"

    # parts

    def _manifest_path(self, head: str, *, sealed: bool) -> str:
        return f"{self._folder}/manifests/{head}.json.zst{'.age' if sealed else ''}"

    async def _objects_of(self, head: Head, type: type[K]) -> list[K] | None:
        """Return what a head has in its separate file, None without one."""
        if head.listed is None:
            return None
        path = self._objects_path(head.name)
        stored = await self._checked(path, head.listed)

        def decoded() -> list[K]:
            bytes_max = min(LIST_BYTES_MAX, len(stored) * OBJECTS_RATIO_MAX + SMALL_BYTES_MAX)
            listed = unpacked(stored, path, bytes_max=bytes_max)
            return mirror.decode_objects(listed, head.name, type)

        return await in_thread(decoded)

    def _objects_path(self, head: str) -> str:
        return f"{self._folder}/manifests/{head}.objects.json.zst"

    def _path(self, kind: str, name: str) -> str:
        return f"{self._folder}/{kind}/{name}.json"

    async def _names(self, kind: str) -> list[str]:
        return [name.removesuffix(".json") for name in await self.stored_names(kind)]

    def _sealed(self, key: str, data: bytes) -> tuple[StoredObject, bytes]:
        stored = self._sealer.seal(packed(data))
        return StoredObject(key=key, size_bytes=len(stored), sha256=_digest(stored)), stored

    async def _stored(self, path: str, bytes_max: int) -> bytes:
        try:
            return await self.destination.get(path, bytes_max=bytes_max)
        except ObjectMissing as error:
            raise ExportDamaged(f"{self.destination.name} has lost {path}.") from error

    async def _checked(
        self, path: str, entry: StoredObject, bytes_max: int = LIST_BYTES_MAX
    ) -> bytes:
        stored = await self._stored(path, min(entry.size_bytes, bytes_max))
        if len(stored) != entry.size_bytes or await in_thread(partial(_digest, stored)) != (
            entry.sha256
        ):
            raise ExportDamaged(f"{self.destination.name} has other bytes at {path}.")
        return stored

    def _opened(self, stored: bytes, *, sealed: bool) -> bytes:
        return self._sealer.open(stored) if sealed else stored


def check_number(number: int, known: int, path: str) -> None:
    """Raise ExportFailed for a number that no copy can have yet.

    `known` is the highest that the volume knows. Later copies have higher ones, of which none would
    be left.
    """
    if number - known > NUMBER_STEP_MAX:
        raise ExportFailed(
            f"It has a copy with the number {number}, which this volume has not reached. Nothing "
            "was copied.",
            hint=f"Another program has stored it: remove `{path}` there.",
        )


async def read_claim(destination: ObjectStore) -> Claim | None:
    """Return whose copy a destination keeps, None if it does not say.

    Raises ExportFailed, and ExportDamaged for what is no claim.
    """
    try:
        data = await destination.get(mirror.CLAIM, bytes_max=mirror.SMALL_BYTES_MAX)
    except ObjectMissing:
        return None
    hint = (
        f"If a login page or another service answers at {destination.where}, end that. Else delete "
        f"`{mirror.CLAIM}` there: the next run of the job `mirror` stores it again."
    )
    try:
        claim = mirror.decode_as(Claim, data, mirror.CLAIM)
    except ExportDamaged as error:
        raise ExportDamaged(error.message, hint=hint) from error
    if not is_volume_id(claim.volume):
        raise ExportDamaged(f"{mirror.CLAIM} at {destination.name} names no volume.", hint=hint)
    return claim


async def mirrored_volumes(destination: ObjectStore) -> set[str]:
    """Return the ids of the volumes that a destination has mirrors of. Raises ExportFailed."""
    listed = await destination.list(mirror.ROOT)
    folders = (entry.name for entry in listed if entry.size_bytes is None)
    return {name for name in folders if is_volume_id(name)}


async def put_claim(destination: ObjectStore, claim: Claim, *, replace: bool) -> None:
    """Store whose copy a destination keeps; without `replace`, unless it keeps one already."""
    await destination.put(mirror.CLAIM, mirror.encode(claim), replace=replace)


def _packed_objects(head: Head) -> tuple[StoredObject, bytes]:
    """Return the objects of a head as they are stored, readable without a key."""
    stored = packed(msgspec.json.encode(head.objects))
    return StoredObject(key=head.name, size_bytes=len(stored), sha256=_digest(stored)), stored


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def in_thread(work: Callable[[], T]) -> T:
    """Run work that needs the processor, and waits for nothing, on a thread of its own."""
    return await asyncio.get_running_loop().run_in_executor(_threads[0], work)
