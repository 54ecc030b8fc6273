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
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Final

import msgspec

from seline.clock import instant_text
from seline.domain.document import BOT, is_document_name
from seline.domain.manifest import Manifest, export_name, parse_export_name
from seline.domain.mirror import Proof
from seline.domain.plural import shortened
from seline.domain.readable_export import deleted_backups_text, from_backups_text
from seline.domain.volume_file import VolumeFile
from seline.errors import ExportDamaged, ExportFailed, SelineError
from seline.manager.backups import every_backup
from seline.manager.managed_store import ManagedStore
from seline.manager.transfer import snapshot_of
from seline.operations.destinations import Destinations, keep
from seline.operations.drill import SERVICE, drilled_text
from seline.operations.export_drill import ExportDrill
from seline.operations.export_folders import ExportFolders
from seline.operations.export_making import ExportMaking
from seline.operations.mirror_store import in_thread
from seline.operations.outcomes import joined
from seline.operations.own_exports import OwnExports, gives_back, read_back
from seline.operations.purges import Purges
from seline.operations.scratch import Scratch
from seline.ports.destinations import ObjectForbidden, ObjectMissing, ObjectStore, Target
from seline.ports.sealing import UNSEALED, Sealer
from seline.ports.store import DocumentStore
from seline.spool import Spool

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
        try:
            own = await self._own(destination)
            whole = await own.whole()
            if not whole:
                return f"{name}: it has no export yet"
            await self._learn_proof(own.folders, whole)
            drill = ExportDrill(own.folders, whole[0], self.sealer)
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
        own = await self._own(destination)
        target = own.folders
        await own.remove_leftovers()
        whole = await own.whole()
        await self._learn_proof(target, whole)
        newest = await own.read_back(whole[0]) if whole else None
        if newest is not None and await self._is_current(newest, target, await self._revisions()):
            return f"{target.name}: nothing changed since {newest.name}", ()
        written, size_bytes = await self._write(target)
        await self.destinations.enter(destination, job="export")  # it is still the same one
        older = [name for name in whole if name != written.name][max(keep, 1) - 1 :]
        await self._note_encrypted(destination, written)
        needed = await own.needed(whole, written.unrecoverable)
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

    async def _own(self, destination: ObjectStore) -> OwnExports:
        folders, volume = ExportFolders(destination), await self.volume_id()
        return OwnExports(folders, volume, self._store, self.sealer)

    async def volume_id(self) -> str:
        """Return this volume's id, which is made now if it has none."""
        new_id = self._store.new_id
        volume: VolumeFile = await keep(self._volume, lambda known: known.identified(new_id))
        return volume.id

    async def known_volume_id(self) -> str:
        """Return this volume's id, empty if none was made yet. Writes nothing."""
        known = self._volume
        return (known.value if known.loaded else await known.load()).id

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
            making = ExportMaking(self._store, snapshot, self._version, volume, sealer)
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
                if not await gives_back(target, export, file, data):
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

    async def _revisions(self) -> dict[str, str]:
        store = await self._store.open()
        documents = await self._store.listing(lambda: store.documents(BOT))
        return {info.name: info.revision or "" for info in documents}


def _damaged(error: ExportDamaged) -> ExportFailed:
    return ExportFailed(
        f"The newest export is damaged: {error.message}",
        hint="Run `seline jobs run export`, which writes another, then `seline jobs run drill`.",
    )
