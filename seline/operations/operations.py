"""The operator's verbs: HTTP handlers, the command line, the jobs and `Seline` call these."""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from seline.domain.alerts.lifecycle import Alert
from seline.domain.backup import Backup
from seline.domain.copy import Copy, CopyInfo
from seline.domain.document import BOT, Content, DocumentInfo, bot_document
from seline.domain.readable_export import ImportReport, only_named
from seline.domain.report import Pruned, VerifyReport
from seline.domain.usage import Usage
from seline.errors import VolumeBusy
from seline.manager.backups import every_backup
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import backup_content
from seline.manager.transfer import import_contents
from seline.operations.by_hand import restore_by_hand
from seline.operations.checks import Facts
from seline.operations.copies import Copies
from seline.operations.destination_checks import DestinationCheck, check_destination, check_unusable
from seline.operations.difference import CURRENT, Comparison, compare_contents
from seline.operations.exports import Exporter
from seline.operations.health import HealthBody, health_body
from seline.operations.imports import contents_of_upload, copy_of_upload, foreign_export
from seline.operations.mirrors import Mirrors
from seline.operations.outcomes import joined
from seline.operations.prune import Pruner
from seline.operations.restore import may_be_filled, restore_copy
from seline.operations.scratch import OpenVolume, Scratch
from seline.operations.usage import Headroom, StorageInfo, UsageMonitor, storage_info
from seline.operations.verify import Verifier
from seline.ports.alerts import SinkStatus
from seline.ports.destinations import Target
from seline.ports.medium import QuarantineItem
from seline.ports.sealing import UNSEALED, Sealer
from seline.ports.store import DocumentStore
from seline.spool import Spool

HEALTH_S: Final = 3.0
"""How long the disk may take; then health answers from memory."""


class Operations:
    """The verbs over one store, and what each found last."""

    def __init__(
        self,
        store: ManagedStore,
        targets: Sequence[Target] = (),
        *,
        version: str = "",
        sealer: Sealer = UNSEALED,
        open_volume: OpenVolume | None = None,
    ) -> None:
        """Work over a store that may not be open yet.

        `version` is written into copies; `sealer` encrypts what goes to `targets`. `open_volume`
        opens the volume onto which a drill restores; without it a drill restores nothing.
        """
        self.store = store
        self.verifier = Verifier(store)
        self._pruner = Pruner(store)
        self.usage = UsageMonitor(store, self._pruner)
        self.exports = Exporter(store, targets, version=version, sealer=sealer)
        self._sealer = sealer
        self._open_volume = open_volume
        self.mirrors = Mirrors(store, self.exports, sealer, version=version)
        self.sinks: Callable[[], Sequence[SinkStatus]] = tuple
        """The sinks of alerts; a process that sends alerts sets it."""
        self.listed_alerts: Callable[[], Sequence[Alert]] = tuple
        """The alerts, the open ones first; a process that sends alerts sets it."""
        self.restored: Copy | None = None
        """The copy that the start of this process has restored onto an empty volume."""
        self.is_held = True
        """Whether the process holds the store for more than one command."""
        self._measured: tuple[Usage, int, Headroom] | None = None

    def copies(
        self, destination: str, sealer: Sealer | None = None, *, unencrypted: bool = False
    ) -> Copies:
        """Return what a destination keeps; `sealer` decrypts it. Raises DestinationNotFound.

        `unencrypted`: open a copy that is not encrypted, although encryption is set.
        """
        found = self.exports.destinations.named(destination)
        takes_plain = unencrypted or not self._sealer.suffix
        return Copies(found, sealer or self._sealer, takes_plain=takes_plain)

    async def listed_copies(self, destination: str) -> Sequence[CopyInfo]:
        """Return the copies at a destination, the newest first. Raises DestinationNotFound."""
        async with self.exports.destinations.using(destination):
            return await self.copies(destination).listed()

    async def restore_from(
        self,
        destination: str,
        sealer: Sealer | None = None,
        *,
        at: datetime | None = None,
        volume: str = "",
        only: Collection[str] = (),
        dry_run: bool = False,
        foreign: bool = False,
        unencrypted: bool = False,
    ) -> tuple[Copy, ImportReport]:
        """Put the documents of a copy at a destination back, as `restore` does.

        Another volume's copy is refused unless `foreign` or `dry_run`; `unencrypted` is that of
        `copies`. Raises DestinationNotFound, CopyNotFound, ImportRefused, ExportDamaged with a copy
        that is whole, and what `restore` raises.
        """
        copies = self.copies(destination, sealer, unencrypted=unencrypted)
        names = [target.destination.name for target in self.exports.destinations.targets]
        others = [
            self.copies(name, sealer, unencrypted=unencrypted)
            for name in names
            if name != destination
        ]

        async def restore(copy: Copy) -> ImportReport:
            await self._check_foreign(copy.volume, allowed=foreign or dry_run)
            if only or dry_run or not await self._is_empty():
                return await self.restore(copy, only=only, dry_run=dry_run)
            with self.store.becoming(copy):
                return await self.restore(copy)

        async with self.exports.destinations.using(*names):
            return await restore_by_hand(copies, others, restore, at=at, volume=volume, only=only)

    async def restore(
        self, copy: Copy, *, only: Collection[str] = (), dry_run: bool = False
    ) -> ImportReport:
        """Put the documents of a copy back, all or none (V5); `dry_run` only decides.

        Raises as `restore_copy` does.
        """
        report = await restore_copy(self.store, copy, only=only, dry_run=dry_run)
        self._note_backups(copy, report)
        return report

    async def accept(self, destination: str) -> None:
        """Copy now, and make that the copy which a restore takes from a destination.

        Raises DestinationNotFound, ExportFailed.
        """
        target = self.exports.destinations.target(destination)
        if target.takes_mirror:
            await self.mirrors.accept(destination)
        if target.takes_exports:
            await self.exports.accept(destination)

    async def drill(self) -> str:
        """Read the newest copy at each destination back; return what was found in a line.

        It is restored in scratch space, where there is room and it can be decrypted. What is
        damaged in a mirror is copied again. Raises ExportFailed naming what failed.
        """
        opening = self._open_volume
        scratch = None if opening is None else Scratch(self.store, opening)
        targets = self.exports.destinations.targets
        names = [target.destination.name for target in targets]
        drills = (self._drill_at(target, scratch) for target in targets)
        outcomes = await asyncio.gather(*drills, return_exceptions=True)
        done = joined(zip(names, outcomes, strict=True))
        return done or "no destination is configured (`exports.destinations`)"

    async def _drill_at(self, target: Target, scratch: Scratch | None) -> str:
        """Drill the mirror where there is one: a restore takes its newest copy."""
        if target.takes_mirror:
            return await self.mirrors.drill(target.destination.name, scratch)
        return await self.exports.drill(target, scratch)

    def destination_checks(self) -> list[DestinationCheck]:
        """Return what is known of each destination; none of them is touched."""
        now, unusable = self.store.clock.now(), self.store.settings.unusable_bucket
        checks = [
            check_destination(
                target,
                record,
                self.mirrors.waiting(target.destination.name),
                now,
                gave=self._given_by(target.destination.name),
            )
            for target, record in self.exports.destinations.records()
        ]
        return checks if unusable is None else [*checks, check_unusable(unusable)]

    def _given_by(self, destination: str) -> datetime | None:
        copy = self.restored
        return copy.taken_at if copy is not None and copy.destination == destination else None

    async def load(self) -> None:
        """Read what an earlier process found. Raises VolumeBusy, StoreClosed."""
        store = await self.store.open()
        await self.store.reading(lambda: self._read(store))

    async def health(self) -> HealthBody:
        """Return the body of `GET /health`, from memory if the disk does not answer in time."""
        store = await self.store.open()
        try:
            return await self.store.reading(lambda: self._measured_health(store), limit_s=HEALTH_S)
        except VolumeBusy:
            last = self._measured or (self.store.metadata.usage, 0, Headroom())
            return self._health(store, *last, ask_disk=False)

    async def storage_info(self) -> StorageInfo:
        """Return the body of `GET /storage-info`."""
        return await storage_info(self.store)

    async def verify(self, *, full: bool | None = True) -> VerifyReport:
        """Check every document and backup by checksum; recover, adopt, and report.

        `full=False` checks what changed since the pass before, `None` does so except once a day.
        """
        return await self.verifier.run(full=full)

    async def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        """Discard the backups that the retention policy drops; `dry_run` only lists them."""
        return await self._pruner.run(dry_run=dry_run)

    async def deleted_documents(self) -> list[DocumentInfo]:
        """List the deleted documents that have backups, by name; `restore` brings each back."""
        store = await self.store.open()
        return list(await self.store.listing(lambda: store.documents(BOT, deleted=True)))

    async def all_backups(self) -> list[Backup]:
        """List every document's backups, newest first, unjudged, each with its reason."""
        store = await self.store.open()
        return await self.store.listing(lambda: every_backup(store, self.store.pins))

    async def raw(self, name: str) -> bytes:
        """Return a document's bytes as they are on the volume, sound or not."""
        key = bot_document(name)
        store = await self.store.open()
        return await self.store.reading(lambda: store.medium.raw(key))

    async def backup_content(self, name: str, backup: str) -> Content:
        """Return a backup's bytes. Raises BackupNotFound, also for one that is not sound."""
        key = bot_document(name)
        return await backup_content(self.store, key, backup)

    async def diff(self, name: str, before: str = "", after: str = CURRENT) -> Comparison:
        """Return what makes the content `after` of the content `before`.

        Each is `current`, a backup's name, `quarantine:ITEM`, `copy:DESTINATION` or
        `copy:DESTINATION@WHICH`; an empty `before` is the newest sound backup that differs. Raises
        as `compare_contents` does.
        """
        return await compare_contents(self.store, self.copies, name, before, after)

    async def quarantine(self) -> list[QuarantineItem]:
        """List the quarantined files, newest first."""
        store = await self.store.open()
        return list(await self.store.reading(store.medium.quarantine))

    async def read_quarantine(self, item: str) -> bytes:
        """Return a quarantined file's bytes. Raises DocumentNotFound."""
        store = await self.store.open()
        return await self.store.reading(lambda: store.medium.read_quarantine(item))

    async def import_spool(
        self,
        upload: Spool,
        *,
        replace: bool,
        dry_run: bool = False,
        only: Collection[str] = (),
        volume: str = "",
        foreign: bool = False,
    ) -> tuple[ImportReport, bool]:
        """Import an uploaded export, all of it or nothing (V5); `dry_run` only decides.

        `only` chooses documents. `volume` is the id of the volume that made the export, empty if
        it is not known; another one's is refused unless `foreign` or `dry_run`. Return the report,
        and whether it is another one's. Raises as `contents_of_upload` and `import_contents` do.
        """
        is_foreign = await self._check_foreign(volume, allowed=foreign or dry_run)
        read = partial(contents_of_upload, upload, self.store.limits)
        held = await self.store.reading(read, limit_s=math.inf)
        contents = only_named(held, only, replace=replace)
        report = await import_contents(self.store, contents, replace=replace, dry_run=dry_run)
        return report, is_foreign

    async def import_folder(
        self,
        upload: Spool,
        *,
        replace: bool,
        dry_run: bool = False,
        only: Collection[str] = (),
        skip: Collection[str] = (),
        backups: bool = True,
        foreign: bool = False,
    ) -> tuple[ImportReport, bool]:
        """Import the uploaded .tar of an export folder, with its backups, as `import_spool` does.

        `skip` names documents to leave out. Raises as `copy_of_upload` and `restore_copy` do.
        """
        copy = await copy_of_upload(upload)
        is_foreign = await self._check_foreign(copy.volume, allowed=foreign or dry_run)
        report = await restore_copy(
            self.store,
            copy,
            only=only,
            skip=skip,
            backups=backups,
            replace_all=replace,
            dry_run=dry_run,
        )
        self._note_backups(copy, report)
        return report, is_foreign

    def _note_backups(self, copy: Copy, report: ImportReport) -> None:
        """Have the mirrors copy the backups that a restore added."""
        if report.backups and not report.dry_run:
            self.mirrors.backups_added([document.name for document in copy.documents])

    async def _check_foreign(self, volume: str, *, allowed: bool) -> bool:
        """Return whether an export is of another volume. Raises ImportRefused unless `allowed`."""
        is_foreign = await self.is_foreign(volume)
        if is_foreign and not allowed:
            raise foreign_export(volume)
        return is_foreign

    async def is_foreign(self, volume: str) -> bool:
        """Whether a copy is of another volume; an empty one takes any for its own."""
        is_same = not volume or volume == await self.exports.known_volume_id()
        return not is_same and not await self._is_empty()

    async def _is_empty(self) -> bool:
        store = await self.store.open()
        return await self.store.listing(lambda: may_be_filled(store))

    def _measured_health(self, store: DocumentStore) -> HealthBody:
        self._read(store)
        usage, backup_count = store.medium.usage(), store.medium.backup_count(BOT)
        self._measured = measured = usage, backup_count, self.usage.room(store, usage)
        return self._health(store, *measured, ask_disk=True)

    def _health(
        self,
        store: DocumentStore,
        usage: Usage,
        backup_count: int,
        room: Headroom,
        *,
        ask_disk: bool,
    ) -> HealthBody:
        return health_body(
            Facts(
                managed=self.store,
                store=store,
                usage=usage,
                backup_count=backup_count,
                room=room,
                verifier=self.verifier,
                monitor=self.usage,
                exports=self.exports,
                destinations=self.destination_checks(),
                sinks=self.sinks(),
                is_held=self.is_held,
                ask_disk=ask_disk,
                now=self.store.clock.now(),
            )
        )

    def _read(self, store: DocumentStore) -> None:
        self.verifier.read(store)
        self.exports.read(store)
