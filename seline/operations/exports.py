"""Exports: the documents and backups of one instant as packs, at each destination.

The order is what makes an export safe: each pack is written, read back and compared; the manifest
is written last; the whole is read back; then older exports are removed, never the only whole one.
If nothing changed since the newest export, none is written. Several volumes may share a
destination: each sees, counts and removes only its own exports. The destinations of one run are
written at the same time, so one that does not answer delays no other.
"""

import asyncio
import hashlib
import logging
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from functools import partial
from typing import Final

import msgspec

from seline.clock import instant_text
from seline.domain.document import BOT, Content, DocumentKey, is_document_name
from seline.domain.manifest import (
    FORMAT,
    LIST_NAME,
    MANIFEST_NAME,
    PACK_BYTES_MAX,
    FileEntry,
    Manifest,
    PackedDocument,
    encode_manifest,
    entry_of,
    export_name,
    pack_name,
    parse_export_name,
    volume_of_export,
)
from seline.domain.mirror import Proof
from seline.domain.plural import shortened
from seline.domain.readable_export import deleted_backups_text, from_backups_text
from seline.domain.volume_file import VolumeFile
from seline.errors import BackupNotFound, DocumentError, ExportDamaged, ExportFailed, SelineError
from seline.manager.backups import every_backup
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import backup_content
from seline.manager.transfer import snapshot_of
from seline.operations.destinations import Destinations, keep
from seline.operations.drill import SERVICE, drilled_text
from seline.operations.export_drill import ExportDrill
from seline.operations.export_folders import ExportFolders
from seline.operations.mirror_store import in_thread
from seline.operations.outcomes import joined
from seline.operations.packs import (
    BACKUPS,
    DOCUMENTS,
    LIST_BYTES_MAX,
    check_pack,
    make_pack,
    sealed_files,
    with_names,
    without_names,
)
from seline.operations.purges import Purges
from seline.operations.scratch import Scratch
from seline.ports.destinations import (
    ObjectForbidden,
    ObjectMissing,
    ObjectStore,
    ObjectTooLarge,
    Target,
)
from seline.ports.sealing import UNSEALED, Sealer
from seline.ports.store import DocumentStore, Snapshot
from seline.spool import Spool, spooled

LEFT_BEHIND_AFTER: Final = timedelta(days=1)
SAME_DISK: Final = "it is on the disk of the data directory, and is lost with it"
_log = logging.getLogger("seline.exports")


class Exporter:
    """Writes the exports of one store."""

    def __init__(
        self,
        store: ManagedStore,
        targets: Sequence[Target] = (),
        *,
        version: str,
        sealer: Sealer = UNSEALED,
    ) -> None:
        """Export to `targets`; `version` is written into each manifest, `sealer` encrypts."""
        self._store = store
        self.sealer = sealer
        self._version = version
        self.destinations = Destinations(store, targets)
        self.purges = Purges(store, targets)
        self._volume = store.volume_file

    def read(self, store: DocumentStore) -> None:
        """Read what an earlier process recorded, unless it is known. Blocks."""
        self.destinations.read(store)
        self.purges.read(store)
        self._volume.read_once(store)

    async def run(self) -> str:
        """Write one export to each destination that lacks it; return what was done in a line.

        A destination that fails does not stop the others; then raises ExportFailed naming each.
        """
        targets = [target for target in self.destinations.targets if target.takes_exports]
        if not targets:
            mirrored = bool(self.destinations.targets)
            what = "every destination is mirrored" if mirrored else "there is no destination"
            return f"{what}, so no export was made (`exports.destinations`)"
        outcomes = await asyncio.gather(*map(self._run_one, targets), return_exceptions=True)
        names = [target.destination.name for target in targets]
        done = joined(zip(names, outcomes, strict=True))
        return "; ".join([done, *await self._not_kept()])

    async def _not_kept(self) -> list[str]:
        """Return clauses about what the data directory holds that no export has."""
        store = await self._store.open()
        found = await self._store.listing(store.medium.left_out)
        names = [item.name for item in found if not is_document_name(item.name)]  # else it is in it
        backups = await self._store.listing(lambda: every_backup(store, self._store.pins))
        deleted = deleted_backups_text(
            (backup.document for backup in backups), await self._revisions()
        )
        clauses = [f"not in it, as Seline does not keep it: {shortened(names)}"] if names else []
        return [*clauses, f"not in it: {deleted}"] if deleted else clauses

    async def _run_one(self, target: Target) -> str:
        """Write one export, and record how that ended."""
        destination = target.destination
        try:
            line, lacking = await self.export_to(destination, keep=target.keep)
        except BaseException as error:
            await self.destinations.failed(destination, error)
            raise
        finally:
            await target.release()
        await self.destinations.succeeded(destination, lacking)
        record = self.destinations.record(destination.name)
        return line if target.same_disk or not record.on_data_disk else f"{line}; {SAME_DISK}"

    async def drill(self, target: Target, scratch: Scratch | None) -> str:
        """Read the newest whole export back, record the proof, and return a line.

        It is restored in `scratch` space, if there is one. Raises ExportFailed.
        """
        destination, name = target.destination, target.destination.name
        folders = ExportFolders(destination)
        try:
            whole = await _own_exports(folders, await self.volume_id())
            if not whole:
                return f"{name}: it has no export yet"
            await self._learn_proof(folders, whole)
            drill = ExportDrill(folders, whole[0], self.sealer)
            not_restored = await drill.run(scratch)
        except ExportDamaged as error:
            failure = _damaged(error)
            await self.destinations.drill_failed(destination, failure)
            raise failure from error
        except ObjectForbidden:
            return f"{name}: the key here only writes; `seline drill {name}` reads with another one"
        except Exception as error:
            await self.destinations.drill_failed(destination, error)
            raise
        finally:
            await target.release()
        proof = Proof(
            head=whole[0],
            at=instant_text(self._store.clock.now()),
            by=SERVICE,
            decrypted=drill.is_decrypted,
            objects=drill.objects,
        )
        await self.destinations.drilled(destination, proof, not_restored)
        return drilled_text(name, proof, not_restored)

    async def _learn_proof(self, folders: ExportFolders, exports: Sequence[str]) -> None:
        """Record the newest proof, which a person's machine has made."""
        for export in exports:
            with suppress(ObjectMissing, ExportDamaged):
                await self.destinations.proven(folders.store, await folders.proof(export))
                return

    async def export_to(self, destination: ObjectStore, *, keep: int) -> tuple[str, Sequence[str]]:
        """Write one verified export, unless nothing changed; keep this volume's newest `keep`.

        Return what was done in a line, and the documents that the newest export there lacks.
        """
        await self.destinations.enter(destination, job="export")
        target = ExportFolders(destination)
        volume = await self.volume_id()
        await self._sweep(target, volume)
        whole = await _own_exports(target, volume)
        await self._learn_proof(target, whole)
        newest = await self._newest(target, whole)
        if newest is not None and await self._is_current(newest, target, await self._revisions()):
            return f"{target.name}: nothing changed since {newest.name}", ()
        written, size_bytes = await self._write(target)
        await self.destinations.enter(destination, job="export")  # it is still the same one
        older = [name for name in whole if name != written.name][max(keep, 1) - 1 :]
        await self._note_encrypted(destination, written)
        needed = await self._needed(target, whole, written.unrecoverable)
        for name in older:
            if name not in needed:
                await target.remove(name)
        left = [written.name, *whole[: max(keep, 1) - 1], *needed]
        oldest = min(filter(None, map(parse_export_name, left)))
        await self.purges.ended(target.name, mirror=False, oldest=oldest)
        lacking = written.unrecoverable
        remarks = [f"it lacks {', '.join(lacking)}"] if lacking else []
        if written.from_backups:
            remarks.append(from_backups_text(written.from_backups))
        done = f"{target.name}: {written.name}, {size_bytes:,} bytes, read back"
        return "; ".join([done, *remarks]), lacking

    async def volume_id(self) -> str:
        """Return this volume's id, which is made now if it has none."""
        new_id = self._store.new_id
        volume: VolumeFile = await keep(self._volume, lambda known: known.identified(new_id))
        return volume.id

    async def known_volume_id(self) -> str:
        """Return this volume's id, empty if none was made yet. Writes nothing."""
        known = self._volume
        return (known.value if known.loaded else await known.load()).id

    async def _sweep(self, target: ExportFolders, volume: str) -> None:
        """Remove exports without a manifest once they are old: a younger one may be in progress."""
        for leftover in await target.leftovers():
            started_at = parse_export_name(leftover)
            if started_at is None or volume_of_export(leftover) != volume:
                continue
            if self._store.clock.now() - started_at > LEFT_BEHIND_AFTER:
                _log.warning("%s: removing %s, which a crash left", target.name, leftover)
                await target.remove(leftover)

    async def files(
        self,
        sealer: Sealer = UNSEALED,
        *,
        made: Callable[[Manifest], object] = lambda _manifest: None,
    ) -> AsyncGenerator[tuple[str, str, Spool]]:
        """Yield (export, file, bytes) as an export is made, the manifest last.

        `sealer` encrypts the files. `made` is called with the manifest that names the documents.
        """
        new_id = self._store.new_id
        at_least = self.destinations.sequence
        number = partial(VolumeFile.numbered, new_id=new_id, at_least=at_least)
        volume: VolumeFile = await keep(self._volume, number)
        async with snapshot_of(self._store) as snapshot:
            export = export_name(snapshot.taken_at, volume.id)
            making = _Making(self._store, snapshot, self._version, volume, sealer)
            async for file, data in making.packs():
                yield export, file, data
        manifest = making.manifest((await self._store.open()).medium.place)
        made(manifest)
        for file, data in await making.last_files(manifest):
            yield export, file, data

    async def _write(self, target: ExportFolders) -> tuple[Manifest, int]:
        """Write an export and read it back; return its manifest and its size in bytes.

        The manifest names the documents, also if the one that is stored does not.
        """
        size_bytes, export, there = 0, "", await target.complete()
        made: list[Manifest] = []
        async with aclosing(self.files(self.sealer, made=made.append)) as files:
            async for export, file, spool in files:
                if export in there:
                    raise ExportFailed(f"{target.name} holds {export} already.")
                data = await self._store.reading(partial(spool.read, 0, spool.size_bytes))
                await target.put(export, file, data)
                if not await _gives_back(target, export, file, data):
                    await target.remove(export)
                    raise ExportFailed(f"{target.name} does not give {file} back as written.")
                size_bytes += len(data)
        try:
            await read_back(target, export)
        except SelineError:
            await target.remove(export)
            raise
        return made[0], size_bytes

    async def _is_current(
        self, newest: Manifest, target: ExportFolders, revisions: dict[str, str]
    ) -> bool:
        """Whether the newest export there has these documents, and is encrypted as the next one.

        Its list may be unreadable here, so its revisions are compared with what was recorded.
        """
        if newest.encrypted != bool(self.sealer.suffix):
            return False
        if not newest.encrypted:
            return newest.holds(revisions)
        record = self.destinations.record(target.name)
        return (record.encrypted, record.revisions) == (newest.name, await self._digest(revisions))

    async def _note_encrypted(self, destination: ObjectStore, written: Manifest) -> None:
        """Record which documents the encrypted export has that was just written."""
        if self.sealer.suffix:
            revisions = await self._digest(written.revisions)
            await self.destinations.wrote_encrypted(destination, written.name, revisions)

    async def _digest(self, revisions: dict[str, str]) -> str:
        """Return one digest of all documents, their revisions, and whose keys open the export."""
        sealed_for = await in_thread(lambda: self.sealer.sealed_for)
        listed = [sealed_for, sorted(revisions.items())]
        return hashlib.sha256(msgspec.json.encode(listed)).hexdigest()

    async def _newest(self, target: ExportFolders, whole: Sequence[str]) -> Manifest | None:
        """Return the newest export there, if all of it is still as it was written."""
        if not whole:
            return None
        try:
            return await read_back(target, whole[0])
        except SelineError as error:
            _log.warning("%s: %s is not sound: %s", target.name, whole[0], error.message)
            return None

    async def _needed(
        self, target: ExportFolders, exports: Sequence[str], lacking: Sequence[str]
    ) -> set[str]:
        """Return, of exports given newest first, those that hold what the store itself has lost.

        For each such document the newest; one whose documents cannot be listed is kept, too.
        """
        needed: set[str] = set()
        for name in lacking:
            for export in exports:
                try:
                    manifest = await self._with_names(target, export)
                except SelineError:
                    needed.add(export)
                    continue
                if any(document.name == name for document in manifest.documents):
                    needed.add(export)
                    break
        return needed

    async def _with_names(self, target: ExportFolders, export: str) -> Manifest:
        """Return an export's manifest with its documents. Raises KeyMissing if it cannot."""
        manifest = await target.manifest(export)
        if not manifest.encrypted:
            return manifest
        sealed = await target.get(export, LIST_NAME, LIST_BYTES_MAX)
        opening = partial(with_names, manifest, sealed, self.sealer)
        return await self._store.reading(opening, limit_s=math.inf)

    async def _revisions(self) -> dict[str, str]:
        store = await self._store.open()
        documents = await self._store.listing(lambda: store.documents(BOT))
        return {info.name: info.revision or "" for info in documents}


class _Making:
    """One export while its packs are made: each is handed out once it is full."""

    def __init__(
        self,
        store: ManagedStore,
        snapshot: Snapshot,
        version: str,
        volume: VolumeFile,
        sealer: Sealer,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._snapshot = snapshot
        self._version = version
        self._volume = volume
        self._packs: list[FileEntry] = []
        self._documents: list[PackedDocument] = []
        self._unrecoverable: list[str] = []

    async def packs(self) -> AsyncGenerator[tuple[str, Spool]]:
        """Yield each pack with its name as soon as it is full."""
        members: list[tuple[str, bytes]] = []
        size_bytes = 0
        for name in self._snapshot.names:
            async for member, content in self._members(name):
                if members and size_bytes + content.size_bytes > PACK_BYTES_MAX:
                    pack = await self._pack(members)
                    members, size_bytes = [], 0  # they are released while the pack is stored
                    yield pack
                members.append((member, content.data))
                size_bytes += content.size_bytes
        if members:
            yield await self._pack(members)

    def manifest(self, place: str) -> Manifest:
        """Return the manifest of the packs."""
        return Manifest(
            format=FORMAT,
            taken_at=instant_text(self._snapshot.taken_at),
            seline_version=self._version,
            encrypted=False,
            packs=tuple(self._packs),
            documents=tuple(self._documents),
            unrecoverable=tuple(self._unrecoverable),
            volume=self._volume.id,
            place=place,
            sequence=self._volume.exports,
        )

    async def last_files(self, manifest: Manifest) -> list[tuple[str, Spool]]:
        """Return the files after the packs; the last is the manifest, as it is stored."""
        make = partial(_last_files, manifest, self._sealer)
        return await self._store.reading(make, limit_s=math.inf)

    async def _members(self, name: str) -> AsyncGenerator[tuple[str, Content]]:
        """Yield a document and its sound backups under their names in a pack."""
        store, key = await self._store.open(), DocumentKey(BOT, name)
        try:
            content = await self._store.reading(lambda: self._snapshot.read(name))
        except DocumentError:
            self._unrecoverable.append(name)
            return
        yield f"{DOCUMENTS}{name}", content
        backups: list[FileEntry] = []
        for backup in await self._store.listing(lambda: store.backups(key)):
            try:
                kept = await backup_content(self._store, key, backup.name)
            except BackupNotFound:
                continue  # it was rotated in the meantime, or is broken, which is reported
            yield f"{BACKUPS}{backup.name}", kept
            backups.append(entry_of(backup.name, kept))
        self._documents.append(
            PackedDocument(
                name=name,
                sha256=content.revision,
                size_bytes=content.size_bytes,
                backups=tuple(backups),
                from_backup=self._snapshot.broken.get(name, ""),
            )
        )

    async def _pack(self, members: list[tuple[str, bytes]]) -> tuple[str, Spool]:
        """Pack on a reader thread, without a limit of time: it does not read the volume."""
        name = pack_name(len(self._packs) + 1)
        make = partial(make_pack, name, members, self._snapshot.taken_at, self._sealer)
        pack, data = await self._store.reading(make, limit_s=math.inf)
        self._packs.append(pack)
        return pack.name, data


def _last_files(manifest: Manifest, sealer: Sealer) -> list[tuple[str, Spool]]:
    files = sealed_files(manifest, sealer) if sealer.suffix else {}
    stored = without_names(manifest, files) if files else manifest
    files[MANIFEST_NAME] = encode_manifest(stored)
    return [(name, spooled(data)) for name, data in files.items()]


async def _own_exports(target: ExportFolders, volume: str) -> list[str]:
    """Return a volume's whole exports, the one written last first.

    One whose manifest cannot be read is left out, so it is not removed either.
    """
    own: list[tuple[int, str]] = []
    for name in await target.complete():
        if volume_of_export(name) != volume:
            continue
        try:
            manifest = await target.manifest(name)
        except SelineError as error:
            _log.warning("%s: %s is not sound: %s", target.name, name, error.message)
        else:
            own.append((manifest.sequence, name))
    return [name for _, name in sorted(own, reverse=True)]


def _damaged(error: ExportDamaged) -> ExportFailed:
    return ExportFailed(
        f"The newest export is damaged: {error.message}",
        hint="Run `seline jobs run export`, which writes another, then `seline jobs run drill`.",
    )


async def _gives_back(target: ExportFolders, export: str, file: str, data: bytes) -> bool:
    with suppress(ObjectTooLarge):
        return await target.get(export, file, len(data)) == data
    return False


async def read_back(target: ExportFolders, export: str) -> Manifest:
    """Check every file of an export at its destination. Raises ExportDamaged, ExportFailed."""
    manifest = await target.manifest(export)
    await check_packs(target, manifest)
    return manifest


async def check_packs(target: ExportFolders, manifest: Manifest) -> None:
    """Check that a destination holds the files as they were made. Raises as `read_back`."""
    for file in manifest.stored:
        check_pack(file, await target.get(manifest.name, file.name, file.size_bytes))
