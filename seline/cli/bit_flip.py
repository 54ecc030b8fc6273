"""Flip one bit of a file and keep its time, as a bad disk does: choose the bit, then do it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from seline.cli.problem import Problem
from seline.domain.json_codec import why_not_json

_TOKEN = re.compile(rb'"(?P<text>(?:[^"\\]|\\.)*)"(?P<is_key>\s*:)?|(?P<number>[0-9]+)')
_LETTER = re.compile(rb"[A-Za-z0-9]")
_TOKENS_MAX: Final = 1_000
_CHARACTERS_TRIED: Final = 4
_TRIES_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One bit to flip: bit 0 is the byte's lowest. `stays_json`: syntax will not tell."""

    offset: int
    bit: int
    before: int
    stays_json: bool

    @property
    def after(self) -> int:
        return self.before ^ (1 << self.bit)


def choose_flip(data: bytes) -> Flip:
    """Choose a bit inside a text or a number such that the document stays JSON, if there is one.

    `data` is not empty.
    """
    for offset in islice(_offsets(data), _TRIES_MAX):
        flip = _harmless(data, offset)
        if flip is not None:
            return flip
    middle = len(data) // 2
    return Flip(offset=middle, bit=0, before=data[middle], stays_json=False)


def flip_in_place(path: str, flip: Flip) -> None:
    """Flip the bit in the file itself, and put its times back.

    Raises Problem where the file is not what the flip was chosen for.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        there = os.pread(descriptor, 1, flip.offset)
        if not stat.S_ISREG(status.st_mode) or there != bytes([flip.before]):
            raise Problem(f"{path} has just changed; nothing was flipped.", "Run it again.")
        os.pwrite(descriptor, bytes([flip.after]), flip.offset)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _offsets(data: bytes) -> Iterator[int]:
    """Yield places in the values' texts, then in their numbers: the last characters first."""
    tokens = [found for found in islice(_TOKEN.finditer(data), _TOKENS_MAX) if not found["is_key"]]
    for kind in ("text", "number"):
        for found in tokens:
            start, end = found.span(kind)
            yield from reversed(range(max(start, end - _CHARACTERS_TRIED), end))


def _harmless(data: bytes, offset: int) -> Flip | None:
    """Return a flip of a letter or digit into another, with which the document stays JSON."""
    before = data[offset]
    for bit in range(3):
        after = before ^ (1 << bit)
        if not (_LETTER.match(bytes([before])) and _LETTER.match(bytes([after]))):
            continue
        flipped = data[:offset] + bytes([after]) + data[offset + 1 :]
        if why_not_json(flipped) is None:
            return Flip(offset=offset, bit=bit, before=before, stays_json=True)
    return None
