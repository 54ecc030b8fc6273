"""Packs: documents and backups as zstd-compressed tar files, made and read piece by piece.

`for pack in pack-*.tar.zst; do tar --zstd --extract --file "$pack"; done` reads them by hand. With
encryption each is an age file: `age -d -i key.txt "$pack" | tar --zstd --extract` reads it.
A pack holds at most 16 MiB before compression, or one document that is larger alone.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import IO, TYPE_CHECKING, Final, cast

from msgspec.structs import replace

from seline.domain.manifest import (
    KEY_NAME,
    LIST_NAME,
    PACK_BYTES_MAX,
    FileEntry,
    Manifest,
    encode_list,
    with_documents,
)
from seline.errors import ExportDamaged
from seline.ports.sealing import UNSEALED, Sealer
from seline.spool import Spool, spooled

if TYPE_CHECKING:
    from backports.zstd import ZstdCompressor, ZstdDecompressor, ZstdError, compress
elif sys.version_info >= (3, 14):
    from compression.zstd import ZstdCompressor, ZstdDecompressor, ZstdError, compress
else:
    from backports.zstd import ZstdCompressor, ZstdDecompressor, ZstdError, compress

LEVEL: Final = 10
"""Of a size known beforehand: for one that is not, zstd takes 20 MiB however small the pack."""
CONTENT_LEVEL: Final = 3
"""Of one document: a third of the time of level 10, for JSON of 80 KB, and as small."""
LIST_BYTES_MAX: Final = 256 << 20
"""Of a list of documents or objects, unpacked."""
_PIECE_BYTES: Final = 1 << 20
_MEMBER_BYTES: Final = 4 << 10
"""What a tar adds to a file, at most."""
_SEAL_BYTES_MAX: Final = 64 << 10
"""What encryption for many recipients adds to a file, at most."""
DOCUMENTS: Final = "documents/"
BACKUPS: Final = "backups/"


def make_pack(
    name: str, members: Iterable[tuple[str, bytes]], taken_at: datetime, sealer: Sealer = UNSEALED
) -> tuple[FileEntry, Spool]:
    """Return a pack of these files, as the manifest lists it, and its bytes. Blocks."""
    pack = sealer.seal(_compressed_tar(list(members), taken_at))
    return file_entry(f"{name}{sealer.suffix}", pack), spooled(pack)


def _compressed_tar(files: Sequence[tuple[str, bytes]], taken_at: datetime) -> bytes:
    """Return a compressed tar, which is never in memory without compression."""
    counting = _Counting()
    _write_tar(counting, files, taken_at)
    compressing = _Compressing(counting.size_bytes)
    _write_tar(compressing, files, taken_at)
    return compressing.finished()


def _write_tar(target: _Counting, files: Sequence[tuple[str, bytes]], taken_at: datetime) -> None:
    with tarfile.TarFile(
        fileobj=cast("IO[bytes]", target),
        mode="w",
        format=tarfile.PAX_FORMAT,
        copybufsize=_PIECE_BYTES,
    ) as tar:
        for member, data in files:
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(data), 0o600
            info.mtime = int(taken_at.timestamp())
            tar.addfile(info, io.BytesIO(data))


class _Counting:
    """A file that only counts what is written, for the size that the compressor needs."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def write(self, piece: bytes) -> int:
        self.size_bytes += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self.size_bytes


class _Compressing(_Counting):
    """A file that is compressed as it is written."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self._compressor = ZstdCompressor(LEVEL)
        self._compressor.set_pledged_input_size(size_bytes)
        self._compressed = io.BytesIO()

    def write(self, piece: bytes) -> int:
        self._compressed.write(self._compressor.compress(piece))
        return super().write(piece)

    def finished(self) -> bytes:
        """Return the compressed bytes; nothing is written any more."""
        self._compressed.write(self._compressor.flush())
        return self._compressed.getvalue()


def file_entry(name: str, data: bytes) -> FileEntry:
    """Return a file as the manifest lists it."""
    return FileEntry(name=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def sealed_files(manifest: Manifest, sealer: Sealer) -> dict[str, bytes]:
    """Return the files of an encrypted export beside its packs, by name. Blocks."""
    files = {LIST_NAME: sealer.seal(packed(encode_list(manifest)))}
    key = sealer.key_file()
    return files | {KEY_NAME: key} if key else files


def without_names(manifest: Manifest, files: dict[str, bytes]) -> Manifest:
    """Return the manifest of an encrypted export with these files: it names no document."""
    entries = tuple(file_entry(name, data) for name, data in files.items())
    return replace(manifest, encrypted=True, documents=(), unrecoverable=(), files=entries)


def with_names(manifest: Manifest, sealed: bytes, sealer: Sealer) -> Manifest:
    """Return the manifest with the documents of its encrypted list. Blocks.

    Raises ExportDamaged, KeyMissing.
    """
    listed = next((file for file in manifest.files if file.name == LIST_NAME), None)
    if listed is None:
        raise ExportDamaged(f"The export is encrypted, and its manifest names no {LIST_NAME}.")
    return with_documents(manifest, _unpacked(listed, sealed, sealer, LIST_BYTES_MAX))


def _unpacked(file: FileEntry, data: bytes, sealer: Sealer, bytes_max: int) -> bytes:
    """Check a file, decrypt and decompress it. Raises ExportDamaged, KeyMissing."""
    check_pack(file, data)
    return unpacked(sealer.open(data), file.name, bytes_max=bytes_max)


def packed(data: bytes) -> bytes:
    """Return a content compressed: what `zstd -d` reads. Blocks."""
    return compress(data, CONTENT_LEVEL)


def unpacked(data: bytes, name: str, *, bytes_max: int) -> bytes:
    """Return the content of a compressed file. Blocks.

    Raises ExportDamaged, which has `name`, also for a content that is longer: a few bytes can be
    unpacked to any number.
    """
    return b"".join(_pieces(data, name, bytes_max))


def unpacked_digest(data: bytes, name: str, *, bytes_max: int) -> str:
    """Return the SHA-256 of the content of a compressed file, of which memory holds a piece.

    Raises as `unpacked` does.
    """
    digest = hashlib.sha256()
    for piece in _pieces(data, name, bytes_max):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(data: bytes, name: str, bytes_max: int) -> Iterator[bytes]:
    decompressor = ZstdDecompressor()
    left_bytes = bytes_max
    try:
        while True:
            piece = decompressor.decompress(data, _PIECE_BYTES)
            left_bytes -= len(piece)
            if left_bytes < 0:
                raise ExportDamaged(
                    f"{name} has more than the {bytes_max:,} bytes that it may have."
                )
            yield piece
            if decompressor.eof and not decompressor.unused_data:
                return
            if decompressor.eof:
                data, decompressor = decompressor.unused_data, ZstdDecompressor()
            elif decompressor.needs_input:
                raise ExportDamaged(f"{name} cannot be unpacked: it is cut off.")
            else:
                data = b""
    except ZstdError as error:
        raise ExportDamaged(f"{name} cannot be unpacked: {error}.") from error


def pack_bytes_max(manifest: Manifest) -> int:
    """Return how many bytes a pack of an export has at most, unpacked."""
    sizes = [
        file.size_bytes for document in manifest.documents for file in (document, *document.backups)
    ]
    return max([PACK_BYTES_MAX, *sizes]) + _MEMBER_BYTES * (len(sizes) + 1)


def stored_bytes_max(bytes_max: int) -> int:
    """Return how many bytes a content of at most `bytes_max` has, compressed and encrypted."""
    return bytes_max + bytes_max // 64 + _SEAL_BYTES_MAX


def check_pack(pack: FileEntry, data: bytes) -> None:
    """Raise ExportDamaged unless these are the pack's bytes."""
    if len(data) != pack.size_bytes:
        difference = f"it has {len(data)} bytes of {pack.size_bytes}"
    elif hashlib.sha256(data).hexdigest() != pack.sha256:
        difference = "it has the right size and other bytes"
    else:
        return
    raise ExportDamaged(f"{pack.name} is not what its manifest says: {difference}.", pack=pack.name)


def members_of(
    pack: FileEntry, data: bytes, sealer: Sealer = UNSEALED, *, bytes_max: int = LIST_BYTES_MAX
) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a pack, checked as a whole first. Raises ExportDamaged, KeyMissing.

    `bytes_max` is what `pack_bytes_max` returns.
    """
    content = _unpacked(pack, data, sealer, bytes_max)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for info in tar:
                member = member_bytes(tar, info)
                if member is None:
                    raise ExportDamaged(f"{pack.name} has {info.name!r}, which is no file.")
                yield info.name, member
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ExportDamaged(f"{pack.name} cannot be unpacked: {error}.", pack=pack.name) from error


def member_bytes(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes | None:
    """Return the bytes of a file in a tar, None for anything else.

    A link could lead to itself, and a sparse file could have any size.
    """
    file = tar.extractfile(info) if info.isreg() and not info.issparse() else None
    return None if file is None else file.read()


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
