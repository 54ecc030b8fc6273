"""The drill of exports: restore the newest whole one in scratch space, and compare everything.

Each file is compared as it is stored. Where the key is there, the export is restored; without room
for that its packs are opened, and each content compared with its digest. What a drill with the key
has proven is beside the export, in `proof.json`.
"""

from functools import partial
from typing import Final

from seline.domain.document import Content
from seline.domain.manifest import LIST_NAME, MANIFEST_NAME, Manifest, decode_manifest
from seline.domain.mirror import contents_of_documents
from seline.errors import ExportDamaged, KeyMissing
from seline.operations.copies import copy_of_export
from seline.operations.export_folders import ExportFolders
from seline.operations.mirror_store import in_thread
from seline.operations.packs import (
    LIST_BYTES_MAX,
    check_pack,
    members_of,
    pack_bytes_max,
    with_names,
)
from seline.operations.scratch import Scratch
from seline.ports.destinations import ObjectMissing
from seline.ports.sealing import UNSEALED, Sealer

STORED_TIMES: Final = 2
"""The contents of an export are kept in a temporary file while they are restored."""


class ExportDrill:
    """Reads one export back, each file once."""

    def __init__(self, folders: ExportFolders, export: str, sealer: Sealer) -> None:
        self._folders = folders
        self._export = export
        self._sealer = sealer
        self._manifest_data = b""
        self._seen: set[str] = set()
        self.manifest: Manifest
        """What is in the export; with `run`."""
        self.is_decrypted = False
        self.objects = 0
        """How many contents were compared; without the key, how many files."""

    async def run(self, scratch: Scratch | None) -> str:
        """Compare everything; return why nothing was restored, empty if it was.

        Raises ExportDamaged, ExportFailed.
        """
        self._manifest_data = await self._folders.get(self._export, MANIFEST_NAME, LIST_BYTES_MAX)
        self.manifest = decode_manifest(self._manifest_data)
        try:
            why = await self._opened(scratch)
            self.is_decrypted = True
        except KeyMissing:
            why, self.objects = "", len(self.manifest.stored)
        for file in self.manifest.stored:
            if file.name not in self._seen:
                await self._get(file.name, file.size_bytes)
        return why

    @property
    def _opening(self) -> Sealer:
        """What decrypts the export. Raises KeyMissing."""
        if not self.manifest.encrypted:
            return UNSEALED
        if not (self._sealer.suffix and self._sealer.can_open):
            raise KeyMissing
        return self._sealer

    async def _opened(self, scratch: Scratch | None) -> str:
        """Restore the export, or else compare its contents; return why it was not restored."""
        manifest, sealer = self.manifest, self._opening
        if manifest.encrypted:
            data = await self._get(LIST_NAME, LIST_BYTES_MAX)
            manifest = await in_thread(partial(with_names, manifest, data, sealer))
        self.objects = len(contents_of_documents(manifest.documents))
        why = "no scratch space"
        if scratch is not None:
            why = await scratch.obstacle(manifest.documents, times=STORED_TIMES)
        if scratch is not None and not why:
            copy = await copy_of_export(self._export, self._get, lambda _: sealer)
            why = await scratch.try_restore(copy)
        if why:
            await self._compare(manifest)
        return why

    async def _compare(self, manifest: Manifest) -> None:
        """Open each pack, and look whether every content of the list is in one."""
        left = contents_of_documents(manifest.documents)
        for pack in manifest.packs:
            data = await self._get(pack.name, pack.size_bytes)
            left -= await in_thread(
                partial(self._contents, pack.name, data, pack_bytes_max(manifest))
            )
        if left:
            raise ExportDamaged(f"{self._export} lacks {len(left)} contents that it lists.")

    def _contents(self, pack: str, data: bytes, bytes_max: int) -> set[str]:
        [entry] = [entry for entry in self.manifest.packs if entry.name == pack]
        members = members_of(entry, data, self._opening, bytes_max=bytes_max)
        return {Content.of(member).revision for _, member in members}

    async def _get(self, file: str, bytes_max: int) -> bytes:
        """Return a file of the export, compared with the manifest."""
        if file == MANIFEST_NAME:
            return self._manifest_data
        try:
            data = await self._folders.get(self._export, file, bytes_max)
        except ObjectMissing as error:
            raise ExportDamaged(f"{self._folders.name} has lost {self._export}/{file}.") from error
        for entry in self.manifest.stored:
            if entry.name == file:
                await in_thread(partial(check_pack, entry, data))
        self._seen.add(file)
        return data
