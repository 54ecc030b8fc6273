"""Encode and decode the checksum that each document and backup carries.

It is one extended attribute, `user.seline`, of 61 bytes: format, SHA-256 of the bytes, mtime in ns
as Seline set it, size, and a hash of the document's name. Seline sets it before it syncs the file,
so one rename makes bytes and checksum current together.
"""

import hashlib
import struct
from functools import lru_cache
from typing import Final, NamedTuple

from seline.domain.document import Content, DocumentKey
from seline.errors import UnsupportedFormat

ATTRIBUTE: Final = "user.seline"
ATTRIBUTE_FORMAT: Final = 1
ATTRIBUTE_BYTES_MAX: Final = 64
_LAYOUT = struct.Struct(">B32sqI16s")


class Checksum(NamedTuple):
    """The fields of the attribute."""

    digest: bytes
    mtime_ns: int
    size_bytes: int
    name_hash: bytes

    @property
    def revision(self) -> str:
        return self.digest.hex()


@lru_cache(maxsize=16_384)
def name_hash(key: DocumentKey) -> bytes:
    """Return the 16 bytes that tie a checksum to its document."""
    address = key.name if not key.space else f"{key.space}/{key.name}"
    return hashlib.sha256(address.encode()).digest()[:16]


def checksum_of(key: DocumentKey, content: Content, mtime_ns: int) -> Checksum:
    """Return the checksum to record for `content` of the document `key`."""
    return Checksum(bytes.fromhex(content.revision), mtime_ns, content.size_bytes, name_hash(key))


def encode_checksum(checksum: Checksum) -> bytes:
    """Return the attribute's 61 bytes."""
    return _LAYOUT.pack(ATTRIBUTE_FORMAT, *checksum)


def decode_checksum(attribute: bytes | None) -> Checksum | None:
    """Return the checksum, None if Seline did not write the attribute.

    Raises UnsupportedFormat if a newer Seline wrote the file: it must not be changed then.
    """
    if not attribute:
        return None
    if attribute[0] > ATTRIBUTE_FORMAT and len(attribute) <= ATTRIBUTE_BYTES_MAX:
        raise UnsupportedFormat(f"its checksum has format {attribute[0]}, of a newer Seline")
    if len(attribute) != _LAYOUT.size or attribute[0] != ATTRIBUTE_FORMAT:
        return None
    return Checksum(*_LAYOUT.unpack(attribute)[1:])
