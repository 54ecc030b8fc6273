"""The record of a commit of several documents: what is staged, and what it replaces (V5).

It is one JSON line and its SHA-256, put in place by a rename: a digest that does not match means
rot, never a torn write.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from seline.domain.document import DocumentKey
from seline.errors import UnsupportedFormat

RECORD_NAME: Final = "journal"
RECORD_FORMAT: Final = 1


class RecordEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One document's change: SHA-256 in hex before and after, None without a document."""

    space: str = msgspec.field(name="owner")
    name: str
    staged: str | None
    before: str | None
    after: str | None

    @property
    def key(self) -> DocumentKey:
        return DocumentKey(self.space, self.name)


class TransactionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All changes of one commit."""

    format: int
    entries: tuple[RecordEntry, ...]


def encode_record(entries: Sequence[RecordEntry]) -> bytes:
    """Return the record's bytes."""
    line = msgspec.json.encode(TransactionRecord(format=RECORD_FORMAT, entries=tuple(entries)))
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


def decode_record(data: bytes) -> tuple[RecordEntry, ...]:
    """Return the record's entries.

    Raises ValueError if it does not match its digest or is no record, and UnsupportedFormat.
    """
    line, _, rest = data.partition(b"\n")
    if rest.strip() != hashlib.sha256(line).hexdigest().encode():
        raise ValueError("its digest does not match")
    try:
        record = msgspec.json.decode(line, type=TransactionRecord)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    if record.format > RECORD_FORMAT:
        raise UnsupportedFormat(f"The journal has format {record.format}, from a newer Seline.")
    return record.entries
