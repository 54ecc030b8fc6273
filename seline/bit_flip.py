"""Flip one bit of a file and keep its times, as a bad disk does: for `seline demo` and tests."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from seline.domain.json_codec import why_not_json
from seline.errors import SelineError

_TOKEN = re.compile(rb'"(?P<text>(?:[^"\\]|\\.)*)"(?P<is_key>\s*:)?|(?P<number>[0-9]+)')
_LETTER = re.compile(rb"[A-Za-z0-9]")
_TOKENS_MAX: Final = 1_000
_CHARACTERS_TRIED: Final = 4
_TRIES_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One bit to flip; bit 0 is the byte's lowest. `stays_json`: the result is still JSON."""

    offset: int
    bit: int
    before: int
    stays_json: bool

    @property
    def after(self) -> int:
        return self.before ^ (1 << self.bit)


def choose_flip(data: bytes) -> Flip:
    """Choose a bit of a text or a number; prefer one whose flip keeps the document valid JSON.

    `data` is not empty.
    """
    for offset in islice(_offsets(data), _TRIES_MAX):
        flip = _flip_that_stays_json(data, offset)
        if flip is not None:
            return flip
    middle = len(data) // 2
    return Flip(offset=middle, bit=0, before=data[middle], stays_json=False)


def flip_in_place(path: str, flip: Flip) -> None:
    """Flip the bit in the file and restore its times.

    Raises SelineError where the byte is not the one for which the flip was chosen, and OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        byte = os.pread(descriptor, 1, flip.offset)
        if not stat.S_ISREG(status.st_mode) or byte != bytes([flip.before]):
            raise SelineError(f"{path} has just changed; nothing was flipped.", hint="Try again.")
        os.pwrite(descriptor, bytes([flip.after]), flip.offset)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _offsets(data: bytes) -> Iterator[int]:
    """Yield offsets in the texts that are values, then in numbers, from each token's end."""
    tokens = [found for found in islice(_TOKEN.finditer(data), _TOKENS_MAX) if not found["is_key"]]
    for kind in ("text", "number"):
        for found in tokens:
            start, end = found.span(kind)
            yield from reversed(range(max(start, end - _CHARACTERS_TRIED), end))


def _flip_that_stays_json(data: bytes, offset: int) -> Flip | None:
    """Return a flip of a letter or digit into another one that keeps the document valid JSON."""
    before = data[offset]
    for bit in range(3):
        after = before ^ (1 << bit)
        if not (_LETTER.match(bytes([before])) and _LETTER.match(bytes([after]))):
            continue
        flipped = data[:offset] + bytes([after]) + data[offset + 1 :]
        if why_not_json(flipped) is None:
            return Flip(offset=offset, bit=bit, before=before, stays_json=True)
    return None
