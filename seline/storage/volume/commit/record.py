"""The record of a change of several documents: what was staged, and what it replaces (V5).

One JSON line and its SHA-256. It is put in place whole, by rename, so one that does not check is
rot, never a torn write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

RECORD_NAME: Final = "journal"
RECORD_FORMAT: Final = 1


class RecordEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One document's part: digests in hex, None where there was, or will be, no document."""

    space: str = msgspec.field(name="owner")
    name: str
    staged: str | None
    before: str | None
    after: str | None


class TransactionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one commit point makes current."""

    format: int
    entries: tuple[RecordEntry, ...]


class BrokenRecord(ValueError):
    """The record's bytes are not what was written."""


def encode_record(entries: Sequence[RecordEntry]) -> bytes:
    """Return the record's bytes."""
    line = msgspec.json.encode(TransactionRecord(format=RECORD_FORMAT, entries=tuple(entries)))
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


def decode_record(data: bytes) -> TransactionRecord:
    """Return the record. Raises BrokenRecord."""
    line, _, rest = data.partition(b"\n")
    if rest.strip() != hashlib.sha256(line).hexdigest().encode():
        raise BrokenRecord("its digest does not match")
    try:
        return msgspec.json.decode(line, type=TransactionRecord)
    except msgspec.MsgspecError as error:
        raise BrokenRecord(str(error)) from error
