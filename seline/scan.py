"""List what a directory and its sub-directories hold: names and kinds; no file is opened."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

import msgspec

from seline.domain.left_out import UNREADABLE, Entry, FileKind
from seline.pacing import NAMES, paced

NESTED_MAX: Final = 10_000
"""How many entries of sub-directories a listing looks at unless more are asked for."""
_TOO_MANY: Final = "there may be more, which were not counted"
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def scan(
    directory: int | str, *, nested_max: int = NESTED_MAX, closed: Mapping[str, str] | None = None
) -> list[Entry]:
    """Return every entry of a directory, and up to `nested_max` of its sub-directories.

    `closed` has the paths that are not listed, and why. Blocks. Raises OSError only for the
    directory itself.
    """
    entries = list(paced(_entries(directory, "", ""), NAMES))
    room, unlisted = nested_max, closed or {}
    for index, entry in enumerate(entries):  # the list grows by what each folder holds
        if entry.kind is not FileKind.FOLDER:
            continue
        before = len(entries)
        why_closed = unlisted.get(entry.path) or ("" if room > 0 else _TOO_MANY)
        try:
            if not why_closed:
                entries.extend(islice(_entries(directory, entry.path, f"{entry.path}/"), room))
        except OSError as error:
            why_closed = f"{UNREADABLE}: {error.strerror}"
        room -= len(entries) - before
        if room <= 0 and not why_closed:
            why_closed = _TOO_MANY
        entries[index] = msgspec.structs.replace(entry, why_closed=why_closed)
    return entries


def _entries(directory: int | str, folder: str, prefix: str) -> Iterator[Entry]:
    if isinstance(directory, str):
        path = os.path.join(directory, folder)
        descriptor = os.open(path, _FLAGS if folder else _FLAGS & ~os.O_NOFOLLOW)
    else:
        descriptor = os.open(folder or ".", _FLAGS, dir_fd=directory)
    try:
        with os.scandir(descriptor) as found:
            for entry in found:
                yield Entry(prefix + entry.name, _kind(entry))
    finally:
        os.close(descriptor)


def _kind(entry: os.DirEntry[str]) -> FileKind:
    if entry.is_file(follow_symlinks=False):  # first, because nearly every entry is one
        return FileKind.FILE
    if entry.is_dir(follow_symlinks=False):
        return FileKind.FOLDER
    return FileKind.LINK if entry.is_symlink() else FileKind.OTHER
