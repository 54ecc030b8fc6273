"""Exports: one instant's documents and backups as packs, verified at the destination, N kept.

Order, which is the whole point: packs, each read back and compared; the manifest last; then older
exports go, never the only whole one. What did not change is not exported again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from seline.clock import instant_text, parse_instant
from seline.domain.document import Content
from seline.domain.manifest import (
    FORMAT,
    MANIFEST_NAME,
    Manifest,
    Pack,
    Packed,
    PackedDocument,
    decode_manifest,
    encode_manifest,
    export_name,
    parse_export_name,
)
from seline.domain.report import Check, Status
from seline.errors import BackupNotFound, DocumentError, ExportFailed, SelineError
from seline.manager import DataManager
from seline.manager.state import remember, remembered
from seline.operations.packs import BACKUPS, DOCUMENTS, Packer, check_pack
from seline.ports.destinations import Destination
from seline.ports.store import Snapshot

STATE: Final = "exports.json"
LEFT_BEHIND_AFTER: Final = timedelta(days=1)
LATE_AFTER: Final = timedelta(days=8)
"""Longer than the rarest schedule, a week."""
_log = logging.getLogger("seline.exports")
_NOTHING_TO_DO = "no destination is configured (`exports.destinations`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredDestination:
    """A target, and how many exports it keeps."""

    target: Destination
    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of one destination: `export` is the newest one there."""

    destination: str
    export: str
    written: bool
    size_bytes: int
    lacks: tuple[str, ...] = ()


@dataclass(slots=True)
class _Making:
    """An export while its packs are made."""

    snapshot: Snapshot
    packer: Packer
    documents: list[PackedDocument] = field(default_factory=list[PackedDocument])
    unrecoverable: list[str] = field(default_factory=list[str])


class Exporting:
    """Writes exports of one store."""

    def __init__(
        self,
        data: DataManager,
        destinations: Sequence[ConfiguredDestination] = (),
        *,
        version: str,
    ) -> None:
        self._data = data
        self._destinations = destinations
        self._version = version

    async def run(self) -> str:
        """Write one export to each destination that lacks it; return what was done in a line.

        A destination that fails does not stop the others; then raises ExportFailed naming each.
        """
        if not self._destinations:
            return _NOTHING_TO_DO
        done: list[str] = []
        failed: list[str] = []
        for one in self._destinations:
            try:
                done.append(_in_words(await self.export_to(one.target, keep=one.keep)))
                await self._note()
            except SelineError as error:
                _log.error("export to %s failed: %s", one.target.name, error.message)
                failed.append(f"{one.target.name}: {error.message}")
        if failed:
            raise ExportFailed("; ".join([*failed, *done]))
        return "; ".join(done)

    async def remember(self) -> None:
        """Take over when an earlier process last found a whole export at a destination."""
        state = await remembered(self._data, STATE, {})
        kept = state.get("verified_at") if isinstance(state, dict) else None
        self._data.last_export_at = parse_instant(kept) if isinstance(kept, str) else None

    async def _note(self) -> None:
        """A destination holds everything as it is now, read back."""
        now = self._data.clock.now()
        self._data.last_export_at = now
        await remember(self._data, STATE, {"verified_at": instant_text(now)})

    def check(self) -> Check:
        """Say how exports stand, for health."""
        if not self._destinations:
            return Check(
                name="exports",
                status=Status.INFO,
                detail="off: nothing is kept beyond this volume",
                fix="Name a folder on another disk in `exports.destinations`.",
            )
        at = self._data.last_export_at
        if at is None:
            return Check(
                name="exports",
                status=Status.INFO,
                detail="none was written yet",
                fix="Run `seline jobs run export`.",
            )
        late = self._data.clock.now() - at > LATE_AFTER
        return Check(
            name="exports",
            status=Status.WARNING if late else Status.OK,
            detail=f"the last whole one was seen on {at:%Y-%m-%d %H:%M} UTC",
            fix="Look at `seline jobs`." if late else "",
        )

    async def export_to(self, target: Destination, *, keep: int) -> Exported:
        """Write one verified export, unless nothing changed; keep the newest `keep`."""
        await self._sweep(target)
        whole = await target.exports()
        newest = await self._newest(target, whole)
        if newest is not None and newest.holds(await self._revisions()):
            return Exported(
                destination=target.name, export=newest.name, written=False, size_bytes=0
            )
        exported = await self._write(target, whole)
        older = [name for name in whole if name != exported.export][max(keep, 1) - 1 :]
        needed = await _needed(target, whole, exported.lacks)
        for name in older:
            if name not in needed:
                await target.remove(name)
        return exported

    async def _sweep(self, target: Destination) -> None:
        """Remove what crashes left, once it is old: a younger one may be under way elsewhere."""
        for leftover in await target.leftovers():
            begun_at = parse_export_name(leftover)
            if begun_at is not None and self._data.clock.now() - begun_at > LEFT_BEHIND_AFTER:
                _log.warning("%s: removing %s, which a crash left", target.name, leftover)
                await target.remove(leftover)

    async def files(self) -> AsyncGenerator[tuple[str, str, bytes]]:
        """Yield (export, file, bytes) as an export is made, the manifest last."""
        async with self._data.exported() as snapshot:
            export = export_name(snapshot.taken_at)
            making = _Making(snapshot, Packer(snapshot.taken_at))
            for name in snapshot.names:
                for pack, data in await self._document(making, name):
                    yield export, pack.name, data
            for pack, data in await self._packing(making.packer.finish):
                yield export, pack.name, data
        yield export, MANIFEST_NAME, encode_manifest(self._manifest(making))

    async def _write(self, target: Destination, whole: Sequence[str]) -> Exported:
        size_bytes, export, last = 0, "", b""
        async with aclosing(self.files()) as files:
            async for export, file, data in files:
                if export in whole:
                    raise ExportFailed(f"{target.name} holds {export} already.")
                await target.put(export, file, data)
                if await target.get(export, file) != data:
                    await target.remove(export)
                    raise ExportFailed(f"{target.name} does not give {file} back as written.")
                size_bytes, last = size_bytes + len(data), data
        manifest = decode_manifest(last)
        return Exported(
            destination=target.name,
            export=export,
            written=True,
            size_bytes=size_bytes,
            lacks=manifest.unrecoverable,
        )

    async def _document(self, making: _Making, name: str) -> list[tuple[Pack, bytes]]:
        """Add a document and its backups; return the packs that became full."""
        try:
            content = await self._data.reading(
                lambda: Content.of(b"".join(making.snapshot.open(name)))
            )
        except DocumentError:
            making.unrecoverable.append(name)
            return []
        full = await self._add(making, f"{DOCUMENTS}{name}", content)
        backups: list[Packed] = []
        async for backup, kept in self._backups(name):
            full += await self._add(making, f"{BACKUPS}{backup}", kept)
            backups.append(Packed(name=backup, sha256=kept.revision, size_bytes=kept.size_bytes))
        making.documents.append(
            PackedDocument(
                name=name,
                sha256=content.revision,
                size_bytes=content.size_bytes,
                backups=tuple(backups),
            )
        )
        return full

    async def _add(
        self, making: _Making, member: str, content: Content
    ) -> list[tuple[Pack, bytes]]:
        return await self._packing(partial(making.packer.add, member, content.data))

    async def _packing(
        self, pack: Callable[[], Iterable[tuple[Pack, bytes]]]
    ) -> list[tuple[Pack, bytes]]:
        """Pack on a thread; it asks no disk, so no time is too long."""
        return await self._data.reading(lambda: list(pack()), limit_s=math.inf)

    async def _backups(self, name: str) -> AsyncGenerator[tuple[str, Content]]:
        """Yield a document's sound backups; what is rotated away meanwhile is left out."""
        for backup in await self._data.backups(name):
            try:
                content = await self._data.read_backup_content(name, backup.name)
            except BackupNotFound:
                continue
            yield backup.name, content

    def _manifest(self, making: _Making) -> Manifest:
        return Manifest(
            format=FORMAT,
            taken_at=instant_text(making.snapshot.taken_at),
            seline_version=self._version,
            encrypted=False,
            packs=tuple(making.packer.packs),
            documents=tuple(making.documents),
            unrecoverable=tuple(making.unrecoverable),
        )

    async def _newest(self, target: Destination, whole: Sequence[str]) -> Manifest | None:
        """Return the newest export there, if all of it is still as it was written."""
        if not whole:
            return None
        try:
            return await read_back(target, whole[0])
        except SelineError as error:
            _log.warning("%s: %s is not sound: %s", target.name, whole[0], error.message)
            return None

    async def _revisions(self) -> dict[str, str]:
        return {info.name: info.revision or "" for info in await self._data.documents()}


async def _needed(target: Destination, exports: Sequence[str], lacking: Sequence[str]) -> set[str]:
    """Return, of exports given newest first, those that hold what the store itself has lost.

    For each such document the newest; one whose manifest cannot be read is kept, too.
    """
    needed: set[str] = set()
    for name in lacking:
        for export in exports:
            try:
                manifest = decode_manifest(await target.get(export, MANIFEST_NAME))
            except SelineError:
                needed.add(export)
                continue
            if any(document.name == name for document in manifest.documents):
                needed.add(export)
                break
    return needed


async def read_back(target: Destination, export: str) -> Manifest:
    """Check every pack of an export at its destination. Raises ExportDamaged, ExportFailed."""
    manifest = decode_manifest(await target.get(export, MANIFEST_NAME))
    await check_packs(target, manifest)
    return manifest


async def check_packs(target: Destination, manifest: Manifest) -> None:
    """Check that a destination holds the packs as they were made. Raises as `read_back`."""
    for pack in manifest.packs:
        check_pack(pack, await target.get(manifest.name, pack.name))


def _in_words(exported: Exported) -> str:
    if not exported.written:
        return f"{exported.destination}: nothing changed since {exported.export}"
    lacks = f"; it lacks {', '.join(exported.lacks)}" if exported.lacks else ""
    size = f"{exported.size_bytes:,} bytes"
    return f"{exported.destination}: {exported.export}, {size}, read back{lacks}"
