"""One export while it is made: packs of the documents of a snapshot, then the manifest.

Each pack is given out once it is full, so memory holds one pack at most.
"""

import math
from collections.abc import AsyncGenerator
from functools import partial

from seline.clock import instant_text
from seline.domain.document import BOT, Content, DocumentKey
from seline.domain.manifest import (
    FORMAT,
    MANIFEST_NAME,
    PACK_BYTES_MAX,
    FileEntry,
    Manifest,
    PackedDocument,
    encode_manifest,
    entry_of,
    pack_name,
)
from seline.domain.volume_file import VolumeFile
from seline.errors import BackupNotFound, DocumentError, DocumentNotFound
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import backup_content
from seline.operations.packs import BACKUPS, DOCUMENTS, make_pack, sealed_files, without_names
from seline.ports.sealing import Sealer
from seline.ports.store import Snapshot
from seline.spool import Spool, spooled


class ExportMaking:
    """The files of one export."""

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
        except DocumentNotFound:
            return  # it was purged
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
