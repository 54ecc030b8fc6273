"""The format of a mirror: objects by content, and heads that name them.

    seline-mirror/volume.json                       whose copy it is
    seline-mirror/<volume>/objects/<key>.json.zst   a content, each stored once
    seline-mirror/<volume>/manifests/<head>.json.zst  the documents, backups and pins of a head
    seline-mirror/<volume>/manifests/<head>.objects.json.zst  the objects of a head that has many
    seline-mirror/<volume>/heads/<head>.json        written last: without it there is no copy
    seline-mirror/<volume>/proofs/<head>.json       a restore of this head was tried, and worked

With encryption objects and manifests end in `.age`. A head is whole by itself (a base), or a change
of the head before it. A content's key is its SHA-256; with encryption it is an HMAC of that, so
that a key does not show which content it is.
"""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from seline.clock import instant_text, parse_instant
from seline.domain.document import Revision
from seline.domain.manifest import Count, PackedDocument, is_volume_id
from seline.domain.pins import Pin
from seline.errors import ExportDamaged, UnsupportedFormat

FORMAT: Final = 1
ROOT: Final = "seline-mirror"
CLAIM: Final = f"{ROOT}/volume.json"
DAY: Final = timedelta(days=1)
INLINE_OBJECTS_MAX: Final = 1000
"""A head that names more objects has them in a separate file."""
CHAIN_HEADS_MAX: Final = 64
"""After so many heads a base is written."""
SMALL_BYTES_MAX: Final = 64 << 10
"""Of a claim, a proof and a marker."""
HEAD_BYTES_MAX: Final = 16 << 20
TEXT_MAX: Final = 1000
"""Characters of a text that a copy shows, such as `doubt`."""
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_HEAD: Final = re.compile(r"(\d{8}T\d{6}Z)-(\d{8,18})\Z", re.ASCII)
_KEY: Final = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_INSTANT: Final = "%Y%m%dT%H%M%SZ"
T = TypeVar("T")
K = TypeVar("K", bound="ObjectKey")


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value in a file of the mirror."""


class _Format(msgspec.Struct):
    """The number of a value's form; a value without one has the first."""

    format: int = FORMAT


class Claim(_Strict, frozen=True, kw_only=True):
    """The value of `volume.json`: the volume whose heads a restore takes.

    `life` and `place` are of the process that claimed it last. `rival` is the place of another
    process with the same volume that found the claim, empty if there was none.
    """

    volume: str
    place: str = ""
    life: str = ""
    rival: str = ""


class ObjectKey(msgspec.Struct, frozen=True, kw_only=True):
    """An object by the key of its content."""

    key: str


class StoredObject(ObjectKey, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An object as stored, with the SHA-256 of the stored bytes."""

    size_bytes: Count
    sha256: str


class Head(_Strict, frozen=True, kw_only=True):
    """A copy of a volume at one instant; readable without a key.

    `before` is the head that it changes, empty for a base. `documents` and `size_bytes` count the
    documents of the whole copy. `doubt`: why a restore does not take it by itself. `objects` are
    those that the heads before it do not name; if there are many, they are in a separate file,
    `listed`, so that a head is small. `lacking` are the documents that could not be read, and of
    which no older content is known: their names, or with encryption the keys of these.
    """

    format: int = FORMAT
    volume: str
    sequence: Count
    taken_at: str
    seline_version: str
    place: str = ""
    encrypted: bool
    before: str = ""
    documents: Count
    size_bytes: Count
    doubt: str = ""
    lacking: tuple[str, ...] = ()
    manifest: StoredObject
    objects: tuple[StoredObject, ...]
    listed: StoredObject | None = None

    @property
    def name(self) -> str:
        """The head's name, such as `20250106T143022Z-00000012`."""
        return head_name(parse_instant(self.taken_at), self.sequence)


class MirrorManifest(_Strict, frozen=True, kw_only=True):
    """The documents of a base, or those that a later head changes and removes; and every pin.

    `lacking` names every document that could not be read and is not in the copy, `older` those
    that have the content of an older head instead.

    The digest of a deleted document is empty; its backups are listed. `name_key` makes the keys of
    the contents, empty without encryption.
    """

    format: int = FORMAT
    name_key: str = ""
    documents: tuple[PackedDocument, ...]
    removed: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()
    lacking: tuple[str, ...] = ()
    older: tuple[str, ...] = ()


class Proof(_Strict, frozen=True, kw_only=True):
    """A drill that succeeded: when, by whom, and whether every content was decrypted."""

    head: str
    at: str
    by: str
    decrypted: bool
    objects: int


def head_name(taken_at: datetime, sequence: int) -> str:
    """Return `20250106T143022Z-00000012`."""
    return f"{taken_at.astimezone(UTC).strftime(_INSTANT)}-{sequence:08d}"


def parse_head_name(name: str) -> tuple[datetime, int] | None:
    """Return a head's instant and sequence, None for another name."""
    match = _HEAD.match(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], _INSTANT).replace(tzinfo=UTC), int(match[2])
    except ValueError:
        return None


def newest_first(names: Iterable[str]) -> list[str]:
    """Return the names of heads by sequence, the last one first; other names are left out."""
    parsed = [(found[1], name) for name in names if (found := parse_head_name(name)) is not None]
    return [name for _, name in sorted(parsed, reverse=True)]


def folder_of(volume: str) -> str:
    """Return the folder of a volume's mirror."""
    return f"{ROOT}/{volume}"


def content_key(revision: Revision, name_key: str) -> str:
    """Return the key of a content, or of a document in `Head.lacking`."""
    if not name_key:
        return revision
    return hmac.digest(bytes.fromhex(name_key), revision.encode(), "sha256").hex()


def merged(manifests: Sequence[MirrorManifest]) -> dict[str, PackedDocument]:
    """Return the documents after a base and the heads that change it, oldest first."""
    documents: dict[str, PackedDocument] = {}
    for manifest in manifests:
        for name in manifest.removed:
            documents.pop(name, None)
        documents |= {document.name: document for document in manifest.documents}
    return documents


def contents_of_documents(documents: Iterable[PackedDocument]) -> set[Revision]:
    """Return the digests of every content that a copy has."""
    return {
        digest
        for document in documents
        for digest in (document.sha256, *(backup.sha256 for backup in document.backups))
        if digest
    }


def keys_of(
    documents: Mapping[str, PackedDocument], manifest: MirrorManifest
) -> dict[Revision, str]:
    """Return the key of each content that a copy has, by digest; `manifest` is of its head."""
    digests = contents_of_documents(documents.values())
    return {digest: content_key(digest, manifest.name_key) for digest in digests}


def encode(value: msgspec.Struct) -> bytes:
    """Return a value of the mirror as readable JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def decode_as(type: type[T], data: bytes, name: str) -> T:
    """Read a value of the mirror. Raises ExportDamaged; UnsupportedFormat for a newer form."""
    try:
        form = msgspec.json.decode(data, type=_Format).format
        if form > FORMAT:
            raise UnsupportedFormat(
                f"{name} has format {form}; this Seline knows {FORMAT}. Nothing was changed."
            )
        return shown_safely(msgspec.json.decode(data, type=type))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExportDamaged(f"{name} is not whole: {error}.") from error


def shown_safely(value: T) -> T:
    """Return a value whose texts a terminal can show: anyone may have written them."""
    texts = {
        field: text
        for field in getattr(value, "__struct_fields__", ())
        if isinstance(text := getattr(value, field), str)
    }
    safe: dict[str, Any] = {
        field: _CONTROLS.sub("?", text)[:TEXT_MAX] for field, text in texts.items()
    }
    return value if safe == texts else msgspec.structs.replace(value, **safe)  # type: ignore[type-var]


def decode_objects(data: bytes, name: str, type: type[K]) -> list[K]:
    """Read the objects of a head that has many. Raises ExportDamaged."""
    try:
        objects = msgspec.json.decode(data, type=list[type])  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExportDamaged(f"The objects of {name} are not whole: {error}.") from error
    check_keys(objects, name)
    return objects


def check_keys(objects: Iterable[ObjectKey], name: str) -> None:
    """Raise ExportDamaged for a key that is none: it could lead out of the folder."""
    if not all(_KEY.match(entry.key) for entry in objects):
        raise ExportDamaged(f"{name} is not what its name says.")


def decode_head(data: bytes, name: str) -> Head:
    """Read a head. Raises ExportDamaged, also for a key that is none; UnsupportedFormat."""
    head = decode_as(Head, data, name)
    _check_instant(head.taken_at, name)
    check_keys(head.objects, name)
    if not is_volume_id(head.volume) or head.name != name:
        raise ExportDamaged(f"{name} is not what its name says.")
    return head


def decode_proof(data: bytes, head: str) -> Proof:
    """Read the proof of a head. Raises ExportDamaged, also for another head's."""
    name = f"the proof of {head}"
    proof = decode_as(Proof, data, name)
    _check_instant(proof.at, name)
    if proof.head != head:
        raise ExportDamaged(f"{name} is of another head.")
    return proof


def _check_instant(text: str, name: str) -> None:
    """Raise ExportDamaged unless a text is an instant."""
    try:
        instant_text(parse_instant(text))
    except ValueError as error:
        raise ExportDamaged(f"{name} names no instant: {error}.") from error
