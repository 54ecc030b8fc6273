"""Packs: documents and backups as zstd-compressed tar files, made and read piece by piece.

`for pack in pack-*.tar.zst; do tar --zstd --extract --file "$pack"; done` reads them by hand.
A pack holds at most 16 MiB before compression, or one document that is larger alone.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

from seline.domain.manifest import FileEntry, Manifest
from seline.errors import ExportDamaged
from seline.spool import Spool, spooled

if TYPE_CHECKING:
    from backports.zstd import compress, decompress
elif sys.version_info >= (3, 14):
    from compression.zstd import compress, decompress
else:
    from backports.zstd import compress, decompress

LEVEL: Final = 10
"""Of a size known beforehand: for one that is not, zstd takes 20 MiB however small the pack."""
DOCUMENTS: Final = "documents/"
BACKUPS: Final = "backups/"


def make_pack(
    name: str, members: Iterable[tuple[str, bytes]], taken_at: datetime
) -> tuple[FileEntry, Spool]:
    """Return a pack of these files, as the manifest lists it, and its bytes. Blocks."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(data), 0o600
            info.mtime = int(taken_at.timestamp())
            tar.addfile(info, io.BytesIO(data))
    packed = compress(target.getbuffer(), LEVEL)
    digest = hashlib.sha256(packed).hexdigest()
    return FileEntry(name=name, size_bytes=len(packed), sha256=digest), spooled(packed)


def check_pack(pack: FileEntry, data: bytes) -> None:
    """Raise ExportDamaged unless these are the pack's bytes."""
    if len(data) != pack.size_bytes:
        difference = f"it has {len(data)} bytes of {pack.size_bytes}"
    elif hashlib.sha256(data).hexdigest() != pack.sha256:
        difference = "it has the right size and other bytes"
    else:
        return
    raise ExportDamaged(f"{pack.name} is not what its manifest says: {difference}.", pack=pack.name)


def members_of(pack: FileEntry, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a pack, checked as a whole first. Raises ExportDamaged."""
    check_pack(pack, data)
    try:
        with tarfile.open(fileobj=io.BytesIO(decompress(data)), mode="r:") as tar:
            for info in tar:
                content = tar.extractfile(info)
                if content is not None:
                    yield info.name, content.read()
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ExportDamaged(f"{pack.name} cannot be unpacked: {error}.", pack=pack.name) from error


def check_documents(manifest: Manifest, documents: dict[str, bytes]) -> None:
    """Raise ExportDamaged unless these are the manifest's documents, byte for byte."""
    for listed in manifest.documents:
        data = documents.get(listed.name)
        if data is None:
            raise ExportDamaged(f"{listed.name} is in no pack.", document=listed.name)
        if hashlib.sha256(data).hexdigest() != listed.sha256:
            raise ExportDamaged(
                f"{listed.name} is not what its manifest says.", document=listed.name
            )
