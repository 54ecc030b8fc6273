"""Exports: one instant's documents and backups as packs, verified at the destination, N kept.

Order, which is the whole point: packs, each read back and compared; the manifest last; then older
exports go, never the only whole one. What did not change is not exported again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from seline.clock import instant_text
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
from seline.errors import BackupNotFound, DocumentError, ExportFailed, SelineError
from seline.manager import DataManager
from seline.ports.exports import ExportTarget
from seline.ports.store import Snapshot
from seline.services.packing import BACKUPS, DOCUMENTS, Packer, check_pack

_log = logging.getLogger("seline.exports")
_NOTHING_TO_DO = "no destination is configured (`exports.destinations`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A target, and how many exports it keeps."""

    target: ExportTarget
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
        destinations: Sequence[Destination] = (),
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
            except SelineError as error:
                _log.error("export to %s failed: %s", one.target.name, error.message)
                failed.append(f"{one.target.name}: {error.message}")
        if failed:
            raise ExportFailed("; ".join([*failed, *done]))
        return "; ".join(done)

    async def export_to(self, target: ExportTarget, *, keep: int) -> Exported:
        """Write one verified export, unless nothing changed; keep the newest `keep`."""
        for leftover in await target.leftovers():
            _log.warning("%s: removing %s, which a crash left", target.name, leftover)
            await target.remove(leftover)
        whole = await target.exports()
        newest = await self._newest(target, whole)
        if newest is not None and newest.holds(await self._revisions()):
            self._note(newest)
            return Exported(
                destination=target.name, export=newest.name, written=False, size_bytes=0
            )
        exported = await self._write(target, whole)
        for older in [name for name in whole if name != exported.export][max(keep, 1) - 1 :]:
            await target.remove(older)
        return exported

    async def files(self) -> AsyncGenerator[tuple[str, str, bytes]]:
        """Yield (export, file, bytes) as an export is made, the manifest last."""
        async with self._data.exported() as snapshot:
            export = export_name(snapshot.taken_at)
            making = _Making(snapshot, Packer(snapshot.taken_at))
            for name in snapshot.names:
                for pack, data in await self._document(making, name):
                    yield export, pack.name, data
            for pack, data in await self._data.reading(lambda: list(making.packer.finish())):
                yield export, pack.name, data
        yield export, MANIFEST_NAME, encode_manifest(self._manifest(making))

    async def _write(self, target: ExportTarget, whole: Sequence[str]) -> Exported:
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
        self._note(manifest)
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
        backups = await self._backups(name)
        making.documents.append(
            PackedDocument(
                name=name,
                sha256=content.revision,
                size_bytes=content.size_bytes,
                backups=tuple(
                    Packed(name=backup, sha256=kept.revision, size_bytes=kept.size_bytes)
                    for backup, kept in backups
                ),
            )
        )

        def add() -> Iterator[tuple[Pack, bytes]]:
            yield from making.packer.add(f"{DOCUMENTS}{name}", content.data)
            for backup, kept in backups:
                yield from making.packer.add(f"{BACKUPS}{backup}", kept.data)

        return await self._data.reading(lambda: list(add()))

    async def _backups(self, name: str) -> list[tuple[str, Content]]:
        """Return a document's sound backups; what is rotated away meanwhile is left out."""
        found = []
        for backup in await self._data.backups(name):
            try:
                content = await self._data.read_backup_content(name, backup.name)
            except BackupNotFound:
                continue
            found.append((backup.name, content))
        return found

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

    async def _newest(self, target: ExportTarget, whole: Sequence[str]) -> Manifest | None:
        if not whole:
            return None
        try:
            return decode_manifest(await target.get(whole[0], MANIFEST_NAME))
        except SelineError as error:
            _log.warning("%s: %s is not sound: %s", target.name, whole[0], error.message)
            return None

    async def _revisions(self) -> dict[str, str]:
        return {info.name: info.revision or "" for info in await self._data.documents()}

    def _note(self, manifest: Manifest) -> None:
        self._data.last_export_at = parse_export_name(manifest.name)


async def read_back(target: ExportTarget, export: str) -> Manifest:
    """Check every pack of an export at its destination. Raises ExportDamaged, ExportFailed."""
    manifest = decode_manifest(await target.get(export, MANIFEST_NAME))
    for pack in manifest.packs:
        check_pack(pack, await target.get(export, pack.name))
    return manifest


def _in_words(exported: Exported) -> str:
    if not exported.written:
        return f"{exported.destination}: nothing changed since {exported.export}"
    lacks = f"; it lacks {', '.join(exported.lacks)}" if exported.lacks else ""
    size = f"{exported.size_bytes:,} bytes"
    return f"{exported.destination}: {exported.export}, {size}, read back{lacks}"
