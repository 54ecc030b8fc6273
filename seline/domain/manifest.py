"""The format of an export folder: packs, and the manifest that is written last.

A folder without a manifest is not an export. A folder is named after the instant of its export and
its volume. The manifest has the SHA-256 of every pack, document and backup.

In an encrypted export the packs are age files, and so is the list of the documents, because the
manifest can be read without a key. `seline-key.age` has the key, if a passphrase opens it.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from seline.clock import instant_text, parse_instant
from seline.domain.document import Content, is_document_name
from seline.domain.json_codec import NotJson, decode
from seline.errors import ExportDamaged, UnsupportedFormat

FORMAT: Final = 1
PACK_BYTES_MAX: Final = 16 << 20
MANIFEST_NAME: Final = "manifest.json"
LIST_NAME: Final = "documents.json.zst.age"
KEY_NAME: Final = "seline-key.age"
_EXPORT: Final = re.compile(r"seline-(\d{8}T\d{6}Z)(?:-([0-9a-f]{8}))?\Z", re.ASCII)
_VOLUME: Final = re.compile(r"(?:[0-9a-f]{8})?\Z", re.ASCII)
_PACK: Final = re.compile(r"pack-\d{4,}\.tar\.zst(?:\.age)?\Z", re.ASCII)
_INSTANT: Final = "%Y%m%dT%H%M%SZ"

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
"""A number or size that a copy names; another one is damage."""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file: a compressed pack as it is stored, or a backup in the packs."""

    name: str
    size_bytes: Count
    sha256: str


def entry_of(name: str, content: Content) -> FileEntry:
    """Return a backup as a manifest lists it."""
    return FileEntry(name=name, size_bytes=content.size_bytes, sha256=content.revision)


class PackedDocument(FileEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One document in the packs, with its backups, newest first.

    `from_backup`: its file was broken, and the export has the content of this backup instead.
    """

    backups: tuple[FileEntry, ...] = ()
    from_backup: str = ""


class DocumentList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The documents in the packs. `unrecoverable` names broken ones, which are not in them."""

    documents: tuple[PackedDocument, ...]
    unrecoverable: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole export. `unrecoverable` names broken documents, which are not in it.

    If it is `encrypted`, `files` are the encrypted list of its documents and, for a passphrase, the
    key; the lists here are empty until `with_documents`.

    `volume` is the id of the volume that made it, `place` that volume's data directory. `sequence`
    counts a volume's exports: a later one has a larger number, under any clock.
    """

    format: int
    taken_at: str
    seline_version: str
    encrypted: bool
    packs: tuple[FileEntry, ...]
    documents: tuple[PackedDocument, ...] = ()
    unrecoverable: tuple[str, ...] = ()
    files: tuple[FileEntry, ...] = ()
    volume: str = ""
    place: str = ""
    sequence: Count = 0

    @property
    def name(self) -> str:
        """The folder's name."""
        return export_name(parse_instant(self.taken_at), self.volume)

    @property
    def stored(self) -> tuple[FileEntry, ...]:
        """All files of the folder, except the manifest itself."""
        return (*self.packs, *self.files)

    @property
    def from_backups(self) -> dict[str, str]:
        """The documents that were broken, each with the backup that the export has instead."""
        return {item.name: item.from_backup for item in self.documents if item.from_backup}

    @property
    def revisions(self) -> dict[str, str]:
        """The revision of each document by its name."""
        return {document.name: document.sha256 for document in self.documents}

    def holds(self, revisions: dict[str, str]) -> bool:
        """Whether the export has exactly these documents, with these revisions by name."""
        return self.revisions == revisions


def export_name(taken_at: datetime, volume: str) -> str:
    """Return `seline-20250106T143022Z-1a2b3c4d`; without the last part if `volume` is empty."""
    return f"seline-{taken_at.astimezone(UTC).strftime(_INSTANT)}" + (volume and f"-{volume}")


def is_volume_id(volume: str) -> bool:
    """Whether this can be the id of a volume."""
    return bool(volume and _VOLUME.match(volume))


def volume_of_export(name: str) -> str:
    """Return the id of the volume in a folder's name, empty if there is none."""
    match = _EXPORT.match(name)
    return (match and match[2]) or ""


def parse_export_name(name: str) -> datetime | None:
    """Return the instant in a folder's name, None if it is not the name of an export."""
    match = _EXPORT.match(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], _INSTANT).replace(tzinfo=UTC)
    except ValueError:
        return None


def pack_name(number: int) -> str:
    """Return `pack-0001.tar.zst` for 1."""
    return f"pack-{number:04d}.tar.zst"


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's bytes: readable JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def encode_list(manifest: Manifest) -> bytes:
    """Return the list of a manifest's documents as JSON."""
    listed = DocumentList(documents=manifest.documents, unrecoverable=manifest.unrecoverable)
    return msgspec.json.encode(listed)


def with_documents(manifest: Manifest, data: bytes) -> Manifest:
    """Return a manifest with the documents of its decrypted list. Raises ExportDamaged."""
    try:
        listed = msgspec.convert(decode(data), DocumentList)
    except (NotJson, msgspec.ValidationError) as error:
        raise ExportDamaged(f"{LIST_NAME} is not whole: {error}.") from error
    whole = replace(manifest, documents=listed.documents, unrecoverable=listed.unrecoverable)
    _check(whole)
    return whole


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest. Raises ExportDamaged, or UnsupportedFormat if a newer Seline wrote it."""
    try:
        value = decode(data)
        form = value.get("format") if isinstance(value, dict) else None
        if isinstance(form, int) and form > FORMAT:
            raise UnsupportedFormat(
                f"This export has format {form}; this Seline knows {FORMAT}. Nothing was changed."
            )
        manifest = msgspec.convert(value, Manifest)
    except (NotJson, msgspec.ValidationError) as error:
        raise ExportDamaged(f"{MANIFEST_NAME} is not whole: {error}.") from error
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """Raise ExportDamaged for an invalid instant, or a name that could lead out of the folder."""
    try:
        instant_text(parse_instant(manifest.taken_at))
    except ValueError as error:
        raise ExportDamaged(f"{MANIFEST_NAME} names no instant: {error}.") from error
    wrong = [pack.name for pack in manifest.packs if not _PACK.match(pack.name)]
    wrong += [file.name for file in manifest.files if file.name not in (LIST_NAME, KEY_NAME)]
    wrong += [item.name for item in manifest.documents if not is_document_name(item.name)]
    wrong += [] if _VOLUME.match(manifest.volume) else [manifest.volume]
    if wrong:
        raise ExportDamaged(f"{MANIFEST_NAME} names what no export holds: {wrong[0]!r}.")
