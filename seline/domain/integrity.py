"""Sound or not: the checksum attribute, the verdicts, and what each verdict asks for.

A document and each of its backups carry one extended attribute, `user.seline`, of 61 bytes:
format, SHA-256 of the bytes, mtime in ns as Seline set it, size, and a hash of the document's name.
It is set before the file is synced, so checksum and bytes become current in one rename (SPEC §3).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from seline.domain.document import Content, DocumentKey
from seline.domain.json_codec import why_not_json

ATTRIBUTE: Final = "user.seline"
ATTRIBUTE_FORMAT: Final = 1
ATTRIBUTE_BYTES_MAX: Final = 64
_LAYOUT = struct.Struct(">B32sqI16s")


class Verdict(StrEnum):
    """What one look at a file found (SPEC §3, in this order)."""

    UNREADABLE = "unreadable"
    MISSING = "missing"
    SOUND = "sound"
    UNSETTLED = "unsettled"
    TORN = "torn"
    EDITED = "edited"
    ALTERED = "altered"


class Remedy(StrEnum):
    """What a verdict asks for."""

    SERVE = "serve"
    DEFAULT = "default"
    ADOPT = "adopt"
    LAST_KNOWN = "last known"
    RECOVER = "recover"
    REFUSE = "refuse"


REMEDY_FOR: Final[Mapping[Verdict, Remedy]] = {
    Verdict.SOUND: Remedy.SERVE,
    Verdict.MISSING: Remedy.DEFAULT,
    Verdict.EDITED: Remedy.ADOPT,
    Verdict.UNSETTLED: Remedy.LAST_KNOWN,
    Verdict.TORN: Remedy.RECOVER,
    Verdict.ALTERED: Remedy.RECOVER,
    Verdict.UNREADABLE: Remedy.REFUSE,
}


class Checksum(NamedTuple):
    """What the attribute records of a file."""

    digest: bytes
    mtime_ns: int
    size_bytes: int
    name_hash: bytes

    @property
    def revision(self) -> str:
        return self.digest.hex()


class NewerFormat(ValueError):
    """The attribute was written by a newer Seline, or says so: its file is left for that one."""


class Judged(msgspec.Struct, frozen=True):
    """A verdict with its ground: the content as read, and why it is not sound.

    `content` holds the bytes whenever they could be read, sound or not; `recorded` is the
    attribute, None where there is none; `wait_for` whether the file has come to rest.
    """

    verdict: Verdict
    content: Content | None = None
    recorded: Checksum | None = None
    reason: str = ""
    settled: bool = True

    @property
    def usable(self) -> bool:
        """Whether the content may be served as the document's."""
        return self.verdict in (Verdict.SOUND, Verdict.EDITED)


@lru_cache(maxsize=16_384)
def name_hash(key: DocumentKey) -> bytes:
    """Return the 16 bytes that tie a checksum to its document: of the bot's `name` itself."""
    address = key.name if not key.owner else f"{key.owner}/{key.name}"
    return hashlib.sha256(address.encode()).digest()[:16]


def of_another(key: DocumentKey, judged: Judged) -> bool:
    """Whether the file was written for another document."""
    return judged.recorded is not None and judged.recorded.name_hash != name_hash(key)


def checksum_of(key: DocumentKey, content: Content, mtime_ns: int) -> Checksum:
    """Return the checksum to record for `content` of the document `key`."""
    return Checksum(bytes.fromhex(content.revision), mtime_ns, content.size_bytes, name_hash(key))


def encode_checksum(checksum: Checksum) -> bytes:
    """Return the attribute's 61 bytes."""
    return _LAYOUT.pack(ATTRIBUTE_FORMAT, *checksum)


def decode_checksum(attribute: bytes) -> Checksum | None:
    """Return the checksum, None if these are not an attribute of ours. Raises NewerFormat."""
    if attribute and attribute[0] > ATTRIBUTE_FORMAT and len(attribute) <= ATTRIBUTE_BYTES_MAX:
        raise NewerFormat(f"its checksum has format {attribute[0]}, of a newer Seline")
    if len(attribute) != _LAYOUT.size or attribute[0] != ATTRIBUTE_FORMAT:
        return None
    return Checksum(*_LAYOUT.unpack(attribute)[1:])


def judge(
    key: DocumentKey,
    content: Content,
    recorded: Checksum | None,
    *,
    mtime_ns: int,
    settled: bool,
    checksums: bool = True,
) -> Judged:
    """Return the verdict on bytes that were read whole from one regular file.

    `recorded` is the file's attribute, `mtime_ns` its mtime, `wait_for` whether it has been
    unchanged for `settle_s`; `checksums=False` where the volume keeps no attributes.

    A file that shrank with its mtime as we left it may be one that an editor truncates at this
    very moment: ext4 and tmpfs show the new size before the new mtime. It is given time too.
    """
    ours = recorded is not None and recorded.name_hash == name_hash(key)
    if ours and recorded is not None and recorded.revision == content.revision:
        return Judged(Verdict.SOUND, content, recorded)
    as_left = recorded is not None and recorded.mtime_ns == mtime_ns
    shrank = recorded is not None and content.size_bytes < recorded.size_bytes
    at_rest = settled or (as_left and not shrank)
    why = why_not_json(content.data)
    if why is not None:
        verdict = Verdict.TORN if at_rest else Verdict.UNSETTLED
        return Judged(verdict, content, recorded, why, settled)
    if not checksums:
        return Judged(Verdict.SOUND, content, recorded, "syntax only: no checksums here")
    if recorded is not None and ours and as_left:
        why = "its bytes changed, and no one saved them"
        verdict = Verdict.ALTERED if at_rest else Verdict.UNSETTLED
        return Judged(verdict, content, recorded, why, settled)
    return Judged(Verdict.EDITED, content, recorded, _why_edited(recorded, ours=ours), settled)


def _why_edited(recorded: Checksum | None, *, ours: bool) -> str:
    if recorded is None:
        return "it was not written by Seline"
    return "it was edited by hand" if ours else "it was written for another document"
