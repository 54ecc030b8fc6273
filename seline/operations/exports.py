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
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Final, NamedTuple

import msgspec

from seline.clock import instant_text, parse_instant
from seline.domain import mirror
from seline.domain.document import BOT, is_document_name
from seline.domain.doubt import DaySize
from seline.domain.export_summary import SUMMARY_NAME, ExportSummary, judged, with_summary
from seline.domain.manifest import MANIFEST_NAME, Manifest, export_name, parse_export_name
from seline.domain.mirror import Proof
from seline.domain.plural import shortened
from seline.domain.purged import Oldest
from seline.domain.readable_export import deleted_backups_text, from_backups_text
from seline.domain.volume_file import VolumeFile
from seline.errors import ExportDamaged, ExportFailed, SelineError
from seline.manager.backups import every_backup
from seline.manager.managed_store import ManagedStore
from seline.manager.transfer import snapshot_of
from seline.operations.destinations import Destinations, keep
from seline.operations.drill import SERVICE, all_in_doubt_text, drilled_text
from seline.operations.export_drill import ExportDrill
from seline.operations.export_folders import ExportFolders
from seline.operations.export_making import ExportMaking
from seline.operations.mirror_store import in_thread
from seline.operations.outcomes import joined
from seline.operations.own_exports import (
    OwnExport,
    OwnExports,
    OwnListing,
    dropped,
    gives_back,
    read_back,
    replaced,
)
from seline.operations.purges import Purges
from seline.operations.scratch import Scratch
from seline.ports.destinations import ObjectForbidden, ObjectMissing, ObjectStore, Target
from seline.ports.sealing import UNSEALED, Sealer
from seline.ports.store import DocumentStore
from seline.spool import Spool

SAME_DISK: Final = "it is on the disk of the data directory, and is lost with it"
_log = logging.getLogger("seline.exports")


class _Written(NamedTuple):
    """An export that was written: its manifest names the documents, also if it is encrypted."""

    manifest: Manifest
    summary: ExportSummary
    size_bytes: int

    @property
    def line(self) -> str:
        lacking, taken = self.manifest.unrecoverable, self.manifest.from_backups
        remarks = [f"it lacks {', '.join(lacking)}"] if lacking else []
        remarks += [from_backups_text(taken)] if taken else []
        return "; ".join([f"{self.manifest.name}, {self.size_bytes:,} bytes, read back", *remarks])


class ExportDone(NamedTuple):
    """What a run did at a destination; `lacking` and `doubt` are of the newest export there.

    `has_sound`: an older one there is not in doubt.
    """

    line: str
    lacking: Sequence[str] = ()
    doubt: str = ""
    has_sound: bool = False


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
        self.purges = Purges(store, self.destinations)
        self._volume = store.volume_file
        self._turns = defaultdict[str, asyncio.Lock](asyncio.Lock)
        """One export or drill at a time at each destination, by its name."""

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

    async def accept(self, name: str) -> None:
        """Write an export at a destination now, which is not in doubt, and go on with retention.

        Raises DestinationNotFound, ExportFailed.
        """
        await self._run_one(self.destinations.target(name), accept=True)

    async def _run_one(self, target: Target, *, accept: bool = False) -> str:
        """Write one export, and record how that ended. One in doubt is written, and fails."""
        destination = target.destination
        async with self._turns[destination.name], self.destinations.using(destination.name):
            try:
                done = await self.export_to(target, accept=accept)
            except BaseException as error:  # a cancelled export failed, too
                await self.destinations.failed(destination, error)
                raise
            await self.destinations.exported(destination, done.lacking)
            if done.doubt:
                failure = _in_doubt(destination.name, done)
                await self.destinations.failed(destination, failure)
                raise failure
            await self.destinations.export_works(destination)
        record = self.destinations.record(destination.name)
        is_exposed = record.on_data_disk and not target.same_disk
        return f"{done.line}; {SAME_DISK}" if is_exposed else done.line

    async def drill(self, target: Target, scratch: Scratch | None) -> str:
        """Read the newest export that is not in doubt back, record the proof, and return a line.

        It is restored in `scratch` space, if there is one. Raises ExportFailed.
        """
        name = target.destination.name
        async with self._turns[name], self.destinations.using(name):  # no export is removed then
            return await self._drill(target, scratch)

    async def _drill(self, target: Target, scratch: Scratch | None) -> str:
        destination, name = target.destination, target.destination.name
        try:
            own = await self._own(destination)
            listing = await own.listed()
            whole, others = listing.whole, [*listing.damaged, *listing.left_out]
            if others and not whole:
                raise _damaged(f"No export there is whole: {shortened(others)}.")
            newest = next((export.name for export in whole if not export.doubt), None)
            if newest is None:
                return all_in_doubt_text(name) if whole else f"{name}: it has no export yet"
            await self._learn_proof(own, whole)
            drill = ExportDrill(own.folders, newest, self.sealer)
            not_restored = await drill.run(scratch)
            proof = self._proof(newest, drill)
            if proof.decrypted:
                await own.folders.put_proof(proof)
        except ExportDamaged as error:
            failure = _damaged(f"The newest export is damaged: {error.message}")
            await self.destinations.drill_failed(destination, failure)
            raise failure from error
        except ObjectForbidden:
            return f"{name}: the key here only writes; `seline drill {name}` reads with another one"
        except Exception as error:
            await self.destinations.drill_failed(destination, error)
            raise
        await self.destinations.drilled(destination, proof, not_restored)
        return drilled_text(name, proof, not_restored)

    def _proof(self, export: str, drill: ExportDrill) -> Proof:
        """Return the proof of an export that the service has read back."""
        return Proof(
            head=export,
            at=instant_text(self._store.clock.now()),
            by=SERVICE,
            decrypted=drill.is_decrypted,
            objects=drill.objects,
        )

    async def _learn_proof(self, own: OwnExports, exports: Sequence[OwnExport]) -> None:
        """Record the newest proof, which a person's machine has made."""
        for export in exports:
            with suppress(ObjectMissing, ExportDamaged):
                proof = await own.folders.proof(export.name)
                await self.destinations.proven(own.folders.store, proof)
                return

    async def export_to(self, target: Target, *, accept: bool = False) -> ExportDone:
        """Write one verified export unless nothing changed, then remove older ones.

        `accept`: what is lost is meant to be.
        """
        destination, name = target.destination, target.destination.name
        await self.destinations.enter(destination, job="export")
        own = await self._own(destination)
        younger = await own.remove_leftovers()
        listing = await own.listed()
        listing.left_out.extend(younger)
        there = listing.whole
        has_sound = any(not export.doubt for export in there)
        await self._learn_proof(own, there)
        newest = await own.read_back(there[0].name) if there else None
        if newest is not None and await self._is_current(newest, name, await self._revisions()):
            doubt = there[0].doubt
            if not (accept and doubt):
                line = f"{name}: nothing changed since {newest.name}"
                return ExportDone(line, doubt=doubt, has_sound=has_sound)
        sizes: tuple[DaySize, ...] = ()
        if not accept:
            sizes = self.destinations.record(name).export_sizes or await own.sizes(there)
            sizes = sizes or self.destinations.sizes
        else:  # first, so that a crash after the export does not put the next one in doubt
            await self.destinations.compared(destination, export_sizes=())
        known_last = max(self.destinations.sequence, self._volume.value.exports)
        after = await own.last_number(there, known_last)
        written = await self._write(own.folders, sizes, after)
        await self.destinations.enter(destination, job="export")  # it is still the same one
        await self._note_written(destination, written, sizes)
        await self._remove_older(own, listing, written, target.keep)
        lacking = written.manifest.unrecoverable
        return ExportDone(f"{name}: {written.line}", lacking, written.summary.doubt, has_sound)

    async def _remove_older(
        self, own: OwnExports, there: OwnListing, written: _Written, keep: int
    ) -> None:
        """Remove of what was there before what is more than `keep`.

        What has a document that the store has lost stays, and what is damaged, which may have it.
        """
        exports = [OwnExport.of(written.manifest, written.summary), *there.whole]
        lacking = written.manifest.unrecoverable
        needed = await own.needed(there.whole, lacking)
        removed = {export.name for export in dropped(exports, keep)} - needed
        kept = [export for export in exports if export.name not in removed]
        removed |= set() if lacking else {*replaced(there.damaged, kept, keep)}
        for name in sorted(removed):
            await own.folders.remove(name)
        others = (*there.damaged, *there.left_out)  # each may have what was purged
        left = {*others, *(export.name for export in exports)} - removed
        oldest = Oldest(
            number=min(export.sequence for export in kept),
            at=min(filter(None, map(parse_export_name, left))),
        )
        await self.purges.ended(own.folders.name, mirror=False, oldest=oldest)

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
        after: int = 0,
        made: Callable[[Manifest], object] = lambda _manifest: None,
    ) -> AsyncGenerator[tuple[str, str, Spool]]:
        """Yield (export, file, bytes) as an export is made, the manifest last.

        `sealer` encrypts the files. Its number is higher than `after`. `made` is called with the
        manifest that names the documents.
        """
        new_id = self._store.new_id
        at_least = max(self.destinations.sequence, after)
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

    async def _write(self, target: ExportFolders, sizes: Sequence[DaySize], after: int) -> _Written:
        """Write an export with a number higher than `after`, and read it back.

        `sizes` is what it is compared with.
        """
        size_bytes, export, there = 0, "", await target.complete()
        made: list[Manifest] = []
        summary = ExportSummary()
        async with aclosing(self.files(self.sealer, after=after, made=made.append)) as files:
            async for export, file, spool in files:
                if export in there:
                    raise ExportFailed(
                        f"{target.name} holds {export} already.",
                        hint="Repeat it a second later: an export is named after its second.",
                    )
                if file == MANIFEST_NAME:
                    summary = judged(made[0], sizes)
                    if summary.doubt or self.sealer.suffix:
                        await _put(target, export, SUMMARY_NAME, mirror.encode(summary))
                data = await self._store.reading(partial(spool.read, 0, spool.size_bytes))
                await _put(target, export, file, data)
                size_bytes += len(data)
        try:
            await read_back(target, export)
        except SelineError:
            await target.remove(export)
            raise
        return _Written(made[0], summary, size_bytes)

    async def _is_current(
        self, newest: Manifest, destination: str, revisions: dict[str, str]
    ) -> bool:
        """Whether the newest export there has these documents, and is encrypted as the next one.

        Its list may be unreadable here, so its revisions are compared with what was recorded.
        """
        if newest.encrypted != bool(self.sealer.suffix):
            return False
        if not newest.encrypted:
            return newest.holds(revisions)
        record = self.destinations.record(destination)
        return (record.encrypted, record.revisions) == (newest.name, await self._digest(revisions))

    async def _note_written(
        self, destination: ObjectStore, written: _Written, sizes: tuple[DaySize, ...]
    ) -> None:
        """Record what the next export is compared with: sizes, and what an encrypted one has."""
        manifest, encrypted, revisions = written.manifest, "", ""
        sizes = with_summary(sizes, parse_instant(manifest.taken_at), written.summary)
        if self.sealer.suffix:
            encrypted = manifest.name
            revisions = await self._digest(manifest.revisions)
        await self.destinations.compared(
            destination, export_sizes=sizes, encrypted=encrypted, revisions=revisions
        )

    async def _digest(self, revisions: dict[str, str]) -> str:
        """Return one digest of all documents, their revisions, and whose keys open the export."""
        sealed_for = await in_thread(lambda: self.sealer.sealed_for)
        listed = [sealed_for, sorted(revisions.items())]
        return hashlib.sha256(msgspec.json.encode(listed)).hexdigest()

    async def _revisions(self) -> dict[str, str]:
        store = await self._store.open()
        documents = await self._store.listing(lambda: store.documents(BOT))
        return {info.name: info.revision or "" for info in documents}


async def _put(target: ExportFolders, export: str, file: str, data: bytes) -> None:
    """Store a file of an export and compare it; remove the export if it is another one."""
    await target.put(export, file, data)
    if not await gives_back(target, export, file, data):
        await target.remove(export)
        raise ExportFailed(f"{target.name} does not give {file} back as written.")


def _in_doubt(destination: str, done: ExportDone) -> ExportFailed:
    doubt = done.doubt
    message = (
        f"The newest export is in doubt: {doubt}. No export from before the loss is here, so a "
        "restore takes none by itself."
    )
    if done.has_sound:
        message = (
            f"The newest export is in doubt: {doubt}. A restore takes the last one from before the "
            "loss, and no such export is removed."
        )
    return ExportFailed(
        message,
        hint=f"If that is meant, run `seline destinations accept {destination}`. If not, `seline "
        "restore NAME` brings a deleted document back.",
    )


def _damaged(message: str) -> ExportFailed:
    return ExportFailed(
        message,
        hint="Run `seline jobs run export`, which writes another, then `seline jobs run drill`.",
    )
