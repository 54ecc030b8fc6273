"""Encode and decode what a journal file holds: two header slots, then batches.

HEADER  in block 0 and in block 1; the one with the higher number counts. A torn write leaves the
        other slot, which shows the state before.
BATCH   begins on a block's boundary. Its digest covers everything that follows it, and its epoch
        is that of the header under which it was written: what an earlier use of the file left there
        is not read. Its number is one more than that of the batch before, in whichever file.

Integers are big-endian. A batch takes effect whole or, if its digest does not match, not at all.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from seline.domain.document import Content, DocumentKey, Revision
from seline.domain.shared_ends import shared_ends
from seline.errors import UnsupportedFormat

BLOCK_BYTES: Final = 4096
SLOTS: Final = 2
FIRST_BATCH_AT: Final = SLOTS * BLOCK_BYTES
JOURNAL_FORMAT: Final = 1
BATCH_OVERHEAD_BYTES: Final = BLOCK_BYTES + 512
CHANGE_OVERHEAD_BYTES: Final = 512
"""Upper bounds of what a batch takes beside its changes, and a change beside its contents."""
DELTA_BYTES_MIN: Final = 2048
"""Below this size a whole content takes no more blocks than a part of it."""
_DIGEST_BYTES: Final = 16
_HEADER: Final = struct.Struct(">4sHQQB")
_HEADER_MAGIC: Final = b"SELJ"
_BATCH: Final = struct.Struct(">8s16sQQI")
_BATCH_MAGIC: Final = b"SELBATCH"
_NUMBERS: Final = struct.Struct(">QQI")


class Header(NamedTuple):
    """The state of a journal file.

    `number` counts the headers of the file. `epoch` identifies one use of it, from the first batch
    to the checkpoint; `is_clean`: everything of this epoch and of earlier ones is in the files.
    """

    number: int
    epoch: int
    is_clean: bool


def next_epoch(latest: int) -> int:
    """Return a later epoch. Half of it is random, so that no document can hold a forged batch."""
    return ((latest >> 32) + 1) << 32 | int.from_bytes(os.urandom(4))


class JournalChange(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One document's change.

    `before` and `after` are revisions, None without a document. `data` is the new content, or its
    middle: the first `prefix` and the last `suffix` bytes are those of the content before. `image`
    is the content before, if no earlier batch of the file has it. `backup` is the name of the
    backup that the content before becomes, empty if it becomes none. `at_ns` is the mtime.
    """

    space: str
    name: str
    at_ns: int
    before: Revision | None
    after: Revision | None
    data: bytes = b""
    prefix: int = 0
    suffix: int = 0
    image: bytes | None = None
    backup: str = ""

    @property
    def key(self) -> DocumentKey:
        return DocumentKey(self.space, self.name)

    @property
    def size_bytes_max(self) -> int:
        """An upper bound of the bytes that it takes in a batch."""
        return len(self.data) + len(self.image or b"") + CHANGE_OVERHEAD_BYTES


class DroppedBackup(NamedTuple):
    """A backup that retention dropped before it was written: a replay does not write it."""

    space: str
    name: str


class Batch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The changes of one commit, in order."""

    changes: tuple[JournalChange, ...]
    dropped: tuple[DroppedBackup, ...] = ()


class ReadBatch(NamedTuple):
    """A batch as it was found in a journal file, with the positions of its blocks."""

    epoch: int
    number: int
    start: int
    end: int
    batch: Batch


_decoder = msgspec.msgpack.Decoder(Batch)
_encoder = msgspec.msgpack.Encoder()


def encode_header(header: Header) -> bytes:
    """Return the header's block."""
    line = _HEADER.pack(_HEADER_MAGIC, JOURNAL_FORMAT, header.number, header.epoch, header.is_clean)
    return (line + _digest(line)).ljust(BLOCK_BYTES, b"\0")


def decode_header(block: bytes) -> Header | None:
    """Return the header of a block, None if it has none. Raises UnsupportedFormat."""
    line = block[: _HEADER.size]
    if block[_HEADER.size : _HEADER.size + _DIGEST_BYTES] != _digest(line):
        return None
    magic, number_of_format, number, epoch, is_clean = _HEADER.unpack(line)
    if magic != _HEADER_MAGIC:
        return None
    if number_of_format > JOURNAL_FORMAT:
        raise UnsupportedFormat(f"The journal has format {number_of_format}, from a newer Seline.")
    return Header(number, epoch, bool(is_clean))


def encode_batch(batch: Batch, *, epoch: int, number: int) -> bytes:
    """Return the batch's blocks."""
    body = _encoder.encode(batch)
    rest = _NUMBERS.pack(epoch, number, len(body)) + body
    encoded = _BATCH_MAGIC + _digest(rest) + rest
    return encoded.ljust(-len(encoded) % BLOCK_BYTES + len(encoded), b"\0")


def change_of(
    key: DocumentKey,
    before: Content | None,
    after: Content | None,
    at_ns: int,
    *,
    with_image: bool,
    backup: str = "",
) -> JournalChange:
    """Return a change as the journal has it: the content after as what differs from the one before.

    `with_image`: the file does not have the content before yet.
    """
    old, data = b"" if before is None else before.data, b"" if after is None else after.data
    prefix = suffix = 0
    if min(len(old), len(data)) >= DELTA_BYTES_MIN:
        origin = None if after is None else after.origin
        if before is not None and origin is not None and origin.base == before.revision:
            at, after_end = origin.at, len(old) - origin.end
            prefix, suffix = shared_ends(old[at : origin.end], data[at : len(data) - after_end])
            prefix, suffix = at + prefix, after_end + suffix
        else:
            prefix, suffix = shared_ends(old, data)
    return JournalChange(
        space=key.space,
        name=key.name,
        at_ns=at_ns,
        before=None if before is None else before.revision,
        after=None if after is None else after.revision,
        data=data[prefix : len(data) - suffix],
        prefix=prefix,
        suffix=suffix,
        image=old if with_image and before is not None else None,
        backup=backup,
    )


def size_of(changes: Sequence[JournalChange]) -> int:
    """Return an upper bound of the bytes that a batch of these changes takes."""
    return BATCH_OVERHEAD_BYTES + sum([change.size_bytes_max for change in changes])


def batches(data: bytes, *, after_epoch: int) -> Iterator[ReadBatch]:
    """Yield every whole batch of a journal file's bytes whose epoch is later than `after_epoch`.

    The order is that of the file, which is that of the commits.
    """
    at = FIRST_BATCH_AT
    while at < len(data):
        found = _batch_at(data, at)
        if found is None or found.epoch <= after_epoch:
            at += BLOCK_BYTES
            continue
        yield found
        at = found.end


def _batch_at(data: bytes, at: int) -> ReadBatch | None:
    if data[at : at + len(_BATCH_MAGIC)] != _BATCH_MAGIC or len(data) < at + _BATCH.size:
        return None
    _, digest, epoch, number, size_bytes = _BATCH.unpack_from(data, at)
    begin = at + len(_BATCH_MAGIC) + _DIGEST_BYTES
    end = begin + _NUMBERS.size + size_bytes
    rest = data[begin:end]
    if end > len(data) or _digest(rest) != digest:
        return None
    batch = _decoder.decode(rest[_NUMBERS.size :])
    return ReadBatch(epoch, number, at, end + -end % BLOCK_BYTES, batch)


def has_gap(found: Sequence[ReadBatch], before: int | None = None) -> bool:
    """Whether a batch was damaged before a whole one: rot, since a torn batch is the last one.

    `found` are the batches of one use of a file; `before` is the number of the next batch, which
    another file has.
    """
    if not found:
        return before is not None
    numbers = [read.number for read in found]
    end = numbers[-1] + 1 if before is None else before
    return found[0].start != FIRST_BATCH_AT or numbers != list(range(numbers[0], end))


def data_after(change: JournalChange, before: bytes) -> bytes:
    """Return the content after a change, given the one before."""
    if not (change.prefix or change.suffix):
        return change.data
    return before[: change.prefix] + change.data + before[len(before) - change.suffix :]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
