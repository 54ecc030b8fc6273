"""Flip one bit of a file and keep its times, as a bad disk does: for `seline demo` and tests."""

import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from typing import Final

from seline.domain.json_codec import why_not_json
from seline.errors import SelineError

_TOKEN = re.compile(rb'"(?P<text>(?:[^"\\]|\\.)*)"(?P<is_key>\s*:)?|(?P<number>[0-9]+)')
_LETTER = re.compile(rb"[A-Za-z0-9]")
_TOKENS_MAX: Final = 1_000
_CHARACTERS_TRIED: Final = 4
_TRIES_MAX: Final = 64


def choose_flip(data: bytes) -> bytes:
    """Return the data with one bit of a text or a number flipped, valid JSON if possible.

    `data` is not empty.
    """
    tried = islice(_flips_of_letters(data), _TRIES_MAX)
    sound = (flipped for flipped in tried if why_not_json(flipped) is None)
    return next(sound, with_flip(data, len(data) // 2, 0))


def with_flip(data: bytes, offset: int, bit: int) -> bytes:
    """Return the data with one bit of the byte at `offset` flipped; bit 0 is the lowest."""
    return data[:offset] + bytes([data[offset] ^ (1 << bit)]) + data[offset + 1 :]


def flip_offset(before: bytes, after: bytes) -> int:
    """Return the offset of the byte that differs."""
    return next(offset for offset, byte in enumerate(before) if byte != after[offset])


def flip_in_place(path: str, before: bytes, after: bytes) -> None:
    """Write the byte that differs into the file and restore its times.

    Raises SelineError where the file has not the byte of `before`, and OSError.
    """
    offset = flip_offset(before, after)
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        byte = os.pread(descriptor, 1, offset)
        if not stat.S_ISREG(status.st_mode) or byte != before[offset : offset + 1]:
            raise SelineError(f"{path} has just changed; nothing was flipped.", hint="Try again.")
        os.pwrite(descriptor, after[offset : offset + 1], offset)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flips_of_letters(data: bytes) -> Iterator[bytes]:
    """Yield the data with a letter or digit that one bit makes into another one.

    First in the texts that are values, then in numbers, from each token's end.
    """
    tokens = [found for found in islice(_TOKEN.finditer(data), _TOKENS_MAX) if not found["is_key"]]
    for kind in ("text", "number"):
        for found in tokens:
            start, end = found.span(kind)
            for offset in reversed(range(max(start, end - _CHARACTERS_TRIED), end)):
                for flipped in (with_flip(data, offset, bit) for bit in range(3)):
                    if _LETTER.match(data, offset) and _LETTER.match(flipped, offset):
                        yield flipped
