"""Copies of volumes for the tests of restores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from seline.blocking import open_seline
from seline.domain.copy import Copy
from seline.domain.document import Content, Json, Revision
from seline.domain.json_codec import encode
from seline.domain.manifest import FileEntry, PackedDocument
from seline.domain.pins import Pin
from seline.errors import ExportDamaged

VOLUME = "1a2b3c4d"
TAKEN_AT = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Original:
    """What a copy holds: the documents (None: deleted), and their backups by name."""

    documents: Mapping[str, Json]
    backups: Mapping[str, Mapping[str, Json]]
    pins: tuple[Pin, ...] = ()

    def copy(self, *, lost: Sequence[Revision] = (), volume: str = VOLUME) -> Copy:
        """Return the copy; the contents in `lost` are damaged."""
        contents: dict[Revision, bytes] = {}

        def entry(name: str, value: Json) -> FileEntry:
            content = Content.of(encode(value))
            contents[content.revision] = content.data
            return FileEntry(name=name, sha256=content.revision, size_bytes=content.size_bytes)

        async def fetch(digest: Revision) -> bytes:
            if digest in lost or digest not in contents:
                raise ExportDamaged(f"There is no content {digest}.")
            return contents[digest]

        packed: list[PackedDocument] = []
        for name, value in self.documents.items():
            backups = tuple(entry(*item) for item in self.backups.get(name, {}).items())
            file = FileEntry(name=name, sha256="", size_bytes=0)
            file = file if value is None else entry(name, value)
            packed.append(
                PackedDocument(
                    name=name, sha256=file.sha256, size_bytes=file.size_bytes, backups=backups
                )
            )
        return Copy(
            name="head-1",
            taken_at=TAKEN_AT,
            volume=volume,
            sequence=7,
            documents=tuple(packed),
            pins=self.pins,
            fetch=fetch,
        )

    def flaws_of(self, directory: Path) -> list[str]:
        """Open a volume and return how it differs from what the copy holds."""
        with open_seline(directory, lock_wait_s=0) as seline:
            names = {info.name for info in seline.data.documents()}
            found = {name: seline.data.load_json(name) for name in names}
            kept = {
                document: {
                    backup.name: seline.data.read_backup(document, backup.name)
                    for backup in seline.data.backups(document)
                }
                for document in self.documents
            }
        wanted = {name: value for name, value in self.documents.items() if value is not None}
        differ = {name for name in {*wanted, *found} if found.get(name) != wanted.get(name)}
        flaws = [f"{name} differs" for name in sorted(differ)]
        flaws += [
            f"{backup} is missing"
            for document, backups in self.backups.items()
            for backup, value in backups.items()
            if kept[document].get(backup) != value
        ]
        return flaws


def original(count: int = 6, *, filler: int = 300, salt: str = "") -> Original:
    """Return `count` documents with two backups each, and a deleted one that has one."""
    names = [f"doc_{number}.json" for number in range(count)]
    documents: dict[str, Json] = {
        name: {"name": name, "n": 3, "salt": salt, "filler": "x" * filler} for name in names
    }
    backups: dict[str, dict[str, Json]] = {
        name: {
            f"{name[:-5]}_20240101_00000{number}.json": {"name": name, "n": number}
            for number in (1, 2)
        }
        for name in names
    }
    documents["gone.json"] = None
    backups["gone.json"] = {"gone_20240101_000000.json": {"gone": 1}}
    pinned = Content.of(encode(backups[names[0]][f"{names[0][:-5]}_20240101_000001.json"]))
    pin = Pin(document=names[0], revision=pinned.revision, because="by hand", pinned_at=TAKEN_AT)
    return Original(documents, backups, (pin,))
