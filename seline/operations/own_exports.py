"""The exports of one volume at a destination: listed, read back, removed.

Several volumes may share a destination: each sees, counts and removes only its own exports.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from seline.clock import parse_instant
from seline.domain.doubt import DaySize
from seline.domain.export_summary import UNREADABLE, ExportSummary, summary_of, with_summary
from seline.domain.manifest import LIST_NAME, Manifest, parse_export_name, volume_of_export
from seline.errors import ExportDamaged, SelineError
from seline.manager.managed_store import ManagedStore
from seline.operations.export_folders import ExportFolders
from seline.operations.mirror_store import MirrorStore, check_number
from seline.operations.packs import LIST_BYTES_MAX, check_pack, with_names
from seline.ports.destinations import ObjectTooLarge
from seline.ports.sealing import Sealer

LEFT_BEHIND_AFTER: Final = timedelta(days=1)
_log = logging.getLogger("seline.exports")


class OwnExport(NamedTuple):
    """A whole export; a later one has a larger `sequence`."""

    sequence: int
    name: str
    taken_at: datetime
    summary: ExportSummary

    @classmethod
    def of(cls, manifest: Manifest, summary: ExportSummary) -> "OwnExport":
        return cls(manifest.sequence, manifest.name, parse_instant(manifest.taken_at), summary)

    @property
    def doubt(self) -> str:
        return self.summary.doubt


class OwnListing(NamedTuple):
    """The whole exports, the one written last first, and the names of the others.

    The manifest of a damaged one is not what a Seline wrote, so its number is not known. One that
    is left out cannot be read now, is of a newer Seline, or is not complete.
    """

    whole: list[OwnExport]
    damaged: list[str]
    left_out: list[str]


class OwnExports:
    """The exports of `volume` at a destination. Every call raises ExportFailed."""

    def __init__(
        self, folders: ExportFolders, volume: str, store: ManagedStore, sealer: Sealer
    ) -> None:
        self.folders = folders
        self._volume = volume
        self._store = store
        self._sealer = sealer

    async def listed(self) -> OwnListing:
        """Return the exports that have a manifest."""
        own = OwnListing([], [], [])
        for name in await self.folders.complete():
            if volume_of_export(name) != self._volume:
                continue
            try:
                manifest = await self.folders.manifest(name)
            except SelineError as error:
                _log.warning("%s: %s is not sound: %s", self.folders.name, name, error.message)
                others = own.damaged if isinstance(error, ExportDamaged) else own.left_out
                others.append(name)
            else:
                summary = await self.folders.summary(manifest)
                own.whole.append(OwnExport.of(manifest, summary))
        own.whole.sort(key=lambda export: (export.sequence, export.name), reverse=True)
        return own

    async def sizes(self, exports: Iterable[OwnExport]) -> tuple[DaySize, ...]:
        """Return the sizes of the newest export that is not in doubt, empty if they are not known.

        The exports are given newest first.
        """
        newest = next((export for export in exports if not export.doubt), None)
        if newest is None:
            return ()
        summary = newest.summary
        if summary.documents is None:
            with suppress(SelineError):
                summary = summary_of(await self._with_names(newest.name))
        return with_summary((), newest.taken_at, summary)

    async def last_number(self, exports: Sequence[OwnExport], known: int) -> int:
        """Return the highest number that a copy here has, also a head of the mirror.

        It is higher than `known`, that of the volume, after a rollback or a restore.
        """
        at = MirrorStore(self.folders.store, self._sealer, self._volume)
        numbered = [(export.sequence, export.name) for export in exports[:1]]
        numbered += map(at.numbered, (await at.heads())[:1])
        last, path = max(numbered, default=(0, ""))
        check_number(last, known, path)
        return last

    async def remove_leftovers(self) -> list[str]:
        """Remove exports without a manifest once they are old; return the younger ones.

        One of these may be in progress.
        """
        younger: list[str] = []
        for leftover in await self.folders.leftovers():
            started_at = parse_export_name(leftover)
            if started_at is None or volume_of_export(leftover) != self._volume:
                continue
            if self._store.clock.now() - started_at > LEFT_BEHIND_AFTER:
                _log.warning("%s: removing %s, which a crash left", self.folders.name, leftover)
                await self.folders.remove(leftover)
            else:
                younger.append(leftover)
        return younger

    async def read_back(self, export: str) -> Manifest | None:
        """Return the manifest of an export if all of it is still as it was written, else None."""
        try:
            return await read_back(self.folders, export)
        except SelineError as error:
            _log.warning("%s: %s is not sound: %s", self.folders.name, export, error.message)
            return None

    async def needed(self, exports: Sequence[OwnExport], lacking: Sequence[str]) -> set[str]:
        """Return, of exports given newest first, those that hold what the store itself has lost.

        For each such document the newest; one whose documents cannot be listed is kept, too.
        """
        needed: set[str] = set()
        names = [export.name for export in exports]
        for name in lacking:
            for export in names:
                try:
                    manifest = await self._with_names(export)
                except SelineError:
                    needed.add(export)
                    continue
                if any(document.name == name for document in manifest.documents):
                    needed.add(export)
                    break
        return needed

    async def _with_names(self, export: str) -> Manifest:
        """Return an export's manifest with its documents. Raises KeyMissing if it cannot."""
        manifest = await self.folders.manifest(export)
        if not manifest.encrypted:
            return manifest
        sealed = await self.folders.get(export, LIST_NAME, LIST_BYTES_MAX)
        opening = partial(with_names, manifest, sealed, self._sealer)
        return await self._store.reading(opening, limit_s=math.inf)


def dropped(exports: Sequence[OwnExport], keep: int) -> list[OwnExport]:
    """Return the exports, given newest first, that are more than `keep`.

    One in doubt displaces none that is not: while the newest is in doubt, those in doubt are
    counted alone, and afterwards they are dropped. One whose summary cannot be read may be sound,
    so it is dropped only once it is older than `keep` sound ones.
    """
    keep = max(keep, 1)
    lost = [export for export in exports if export.doubt not in ("", UNREADABLE)]
    if exports and exports[0].doubt:
        return lost[keep:]
    sound = [export for export in exports if not export.doubt]
    oldest = sound[keep - 1].sequence if len(sound) >= keep else 0
    unread = [export for export in exports if export.doubt == UNREADABLE]
    return sound[keep:] + lost + [export for export in unread if export.sequence < oldest]


def replaced(damaged: Sequence[str], exports: Sequence[OwnExport], keep: int) -> list[str]:
    """Return the damaged exports that are older than `keep` whole ones.

    `exports` are those that stay, newest first. One in doubt makes up for none. The instants
    decide, because the number of a damaged one is not known.
    """
    if not exports or exports[0].doubt:
        return []
    sound = sorted((export.name for export in exports if not export.doubt), reverse=True)
    last = sound[: max(keep, 1)]
    return [name for name in damaged if len(last) == max(keep, 1) and name < last[-1]]


async def gives_back(target: ExportFolders, export: str, file: str, data: bytes) -> bool:
    """Whether a destination returns a file as it was stored."""
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
