"""The exports at a destination: a folder each, complete once its manifest is there."""

from functools import partial
from typing import Final

from seline.domain import mirror
from seline.domain.export_summary import SUMMARY_NAME, ExportSummary, decode_summary, summary_of
from seline.domain.manifest import (
    MANIFEST_NAME,
    Manifest,
    decode_manifest,
    is_volume_id,
    parse_export_name,
)
from seline.domain.mirror import SMALL_BYTES_MAX, Proof
from seline.errors import ExportFailed
from seline.operations.mirror_store import in_thread
from seline.operations.packs import LIST_BYTES_MAX
from seline.ports.destinations import ObjectMissing, ObjectStore, ObjectTooLarge

PROOF_NAME: Final = "proof.json"
MARKER_NAME: Final = "seline-destination"


class ExportFolders:
    """The exports and the marker at one destination. Every call raises ExportFailed."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    @property
    def name(self) -> str:
        """The destination's name."""
        return self.store.name

    async def marker(self) -> str:
        """Return the marker, empty if there is none."""
        return await self._read_marker() or ""

    async def mark(self, marker: str) -> str:
        """Make the destination, put a marker there unless it has one, and return its marker."""
        await self.store.make()
        there = await self._read_marker()
        if not there:
            is_blank = there is not None
            await self.store.put(MARKER_NAME, f"{marker}\n".encode(), replace=is_blank)
        return await self.marker()

    async def complete(self) -> list[str]:
        """Return the names of the exports with a manifest, newest first."""
        return [name for name, is_complete in await self._all() if is_complete]

    async def leftovers(self) -> list[str]:
        """Return the names of those without one: interrupted, or still being written."""
        return [name for name, is_complete in await self._all() if not is_complete]

    async def put(self, export: str, file: str, data: bytes) -> None:
        """Store one file of an export."""
        await self.store.put(f"{export}/{file}", data)

    async def manifest(self, export: str) -> Manifest:
        """Return the manifest of an export. Raises ExportDamaged, ObjectMissing."""
        data = await self.get(export, MANIFEST_NAME, LIST_BYTES_MAX)
        return await in_thread(partial(decode_manifest, data))

    async def get(self, export: str, file: str, bytes_max: int) -> bytes:
        """Return one file of an export. Raises ObjectMissing, ObjectTooLarge."""
        return await self.store.get(f"{export}/{file}", bytes_max=bytes_max)

    async def summary(self, manifest: Manifest) -> ExportSummary:
        """Return the summary of an export; without one, what its manifest shows."""
        try:
            data = await self.get(manifest.name, SUMMARY_NAME, SMALL_BYTES_MAX)
        except ObjectMissing:
            return summary_of(manifest)
        except ObjectTooLarge:
            data = b""
        return decode_summary(data, manifest)

    async def proof(self, export: str) -> Proof:
        """Return the proof that an export was restored. Raises ObjectMissing, ExportDamaged."""
        data = await self.get(export, PROOF_NAME, SMALL_BYTES_MAX)
        return mirror.decode_proof(data, export)

    async def put_proof(self, proof: Proof) -> None:
        """Store beside an export that it was restored, and what it gave was right."""
        await self.put(proof.head, PROOF_NAME, mirror.encode(proof))

    async def remove(self, export: str) -> None:
        """Remove an export, its manifest first. Does nothing if it does not exist."""
        listed = await self.store.list(export)
        files = [entry.name for entry in listed if entry.size_bytes is not None]
        for file in sorted(files, key=lambda file: file != MANIFEST_NAME):
            await self.store.remove(f"{export}/{file}")
        await self.store.remove(export)

    async def _read_marker(self) -> str | None:
        """Return the marker's text, empty if it is blank, None without one."""
        try:
            data = await self.store.get(MARKER_NAME, bytes_max=SMALL_BYTES_MAX)
        except ObjectMissing:
            return None
        marker = data.decode("ascii", "replace").strip()
        if marker and not is_volume_id(marker):
            raise ExportFailed(
                f"{self.store.where} has `{MARKER_NAME}` with another content than Seline stores "
                "there.",
                hint="If a login page or another service answers there, end that. If the file was "
                f"edited, delete it there, then run `seline destinations use {self.name}`.",
            )
        return marker

    async def _all(self) -> list[tuple[str, bool]]:
        """Return each export's name, newest first, and whether it has a manifest."""
        listed = await self.store.list("")
        names = [
            entry.name
            for entry in listed
            if entry.size_bytes is None and parse_export_name(entry.name)
        ]
        return [(name, await self._has_manifest(name)) for name in sorted(names, reverse=True)]

    async def _has_manifest(self, export: str) -> bool:
        listed = await self.store.list(export)
        return any(entry.name == MANIFEST_NAME and entry.size_bytes is not None for entry in listed)
