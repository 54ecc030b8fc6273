"""A folder of .json files from an older bot, looked through: what can be taken, as what, what not.

Nothing is changed in it, and nothing outside it is read: links are not followed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from seline.domain.document import METADATA_NAME, NAME_CHARACTERS_MAX, is_document_name
from seline.domain.json_codec import NotJson, decode_strict

_SUFFIX: Final = ".json"
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]+")
_FIRST = re.compile(r"^[^A-Za-z0-9]+")

CURES: Final = {
    "empty file": "Delete the file, or put `{}` into it.",
    "only white space": "Delete the file, or put `{}` into it.",
    "only NUL bytes": "A crash left it so: take it from a backup, or leave it out.",
    "cut off": "It was not written to its end: take it from a backup, or close what is open.",
    "starts with a byte order mark": "Save it as UTF-8 without a byte order mark.",
    "UTF-16": "Save it as UTF-8: `iconv -f UTF-16 -t UTF-8`.",
    "not UTF-8": "Save it as UTF-8: `iconv -f LATIN1 -t UTF-8`, if that is what it is.",
    "duplicate key": "Keep the one of the two that is right.",
    "NaN": "Put null or a number in its place.",
    "Infinity": "Put null or a number in its place.",
    "-Infinity": "Put null or a number in its place.",
    "a comma stands before the closing bracket": "Remove that comma.",
    "something follows after the end": "Remove what follows, or make one list of it.",
}
_OTHER_CURE: Final = "Mend it at the place named, with any text editor."


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """A file that can be taken: its own name, the document's name, its bytes."""

    file: str
    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A file that cannot be taken, why, and what helps."""

    file: str
    why: str
    cure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyFile:
    """What a folder holds. `passed_over` are reports that Seline makes itself."""

    usable: tuple[Usable, ...]
    unusable: tuple[Unusable, ...]
    passed_over: tuple[str, ...]


def look_through(folder: str) -> LegacyFile:
    """Read every .json file right in the folder; sub-folders (backups) are left alone."""
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if _is_json_file(entry))
    passed_over = tuple(file for file in files if file == METADATA_NAME)
    looked_at = [_look(folder, file) for file in files if file != METADATA_NAME]
    named = _named([one for one in looked_at if isinstance(one, Usable)])
    unusable = [one for one in (*looked_at, *named) if isinstance(one, Unusable)]
    return LegacyFile(
        usable=tuple(one for one in named if isinstance(one, Usable)),
        unusable=tuple(sorted(unusable, key=lambda one: one.file)),
        passed_over=passed_over,
    )


def as_export(usable: Sequence[Usable]) -> bytes:
    """Return the files as one export, their bytes as they are."""
    members = (json.dumps(one.name).encode() + b": " + one.data for one in usable)
    return b'{"files": {' + b",\n".join(members) + b"}}"


def _is_json_file(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(_SUFFIX) and not entry.is_dir(follow_symlinks=False)


def _look(folder: str, file: str) -> Usable | Unusable:
    path = os.path.join(folder, file)
    try:
        data = _read(path)
        decode_strict(data)
    except NotJson as error:
        return Unusable(file=file, why=f"{error}.", cure=cure(error.reason))
    except _NoFile:
        return Unusable(
            file=file,
            why="a link or another special file, which is not followed.",
            cure="Put a copy of the real file in its place.",
        )
    except OSError as error:
        return Unusable(
            file=file,
            why=f"it cannot be read: {error.strerror}.",
            cure="Give yourself the right to read it.",
        )
    return Usable(file=file, name=file, data=data)


class _NoFile(Exception):
    """This is no regular file."""


def _read(path: str) -> bytes:
    """Return a regular file's bytes, looking at one descriptor only."""
    if os.path.islink(path):
        raise _NoFile
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as source:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _NoFile
        return source.read()


def cure(reason: str) -> str:
    """Return what helps against a reason for which bytes are not JSON."""
    return next((cure for start, cure in CURES.items() if reason.startswith(start)), _OTHER_CURE)


def _named(files: Sequence[Usable]) -> list[Usable | Unusable]:
    """Give every file a name that a document may bear; the right ones keep theirs."""
    taken = {one.file for one in files if is_document_name(one.file)}
    named: list[Usable | Unusable] = []
    for one in files:
        if one.file in taken:
            named.append(one)
            continue
        name = _free_name(valid_name(one.file), taken)
        if name is None:
            named.append(
                Unusable(
                    file=one.file,
                    why="no document's name can be made of it.",
                    cure="Rename it: letters, digits, `_`, `.` and `-`, ending in .json.",
                )
            )
            continue
        taken.add(name)
        named.append(Usable(file=one.file, name=name, data=one.data))
    return named


def valid_name(file: str) -> str | None:
    """Return the nearest name that a document may bear, None if nothing is left of it."""
    stem = unicodedata.normalize("NFKD", file[: -len(_SUFFIX)])
    plain = "".join(letter for letter in stem if not unicodedata.combining(letter))
    kept = _FIRST.sub("", _FORBIDDEN.sub("_", plain))
    name = kept[: NAME_CHARACTERS_MAX - len(_SUFFIX)] + _SUFFIX
    return name if kept and is_document_name(name) else None


def _free_name(name: str | None, taken: set[str]) -> str | None:
    """Return the name, numbered where another file bears it already."""
    if name is None or name not in taken:
        return name
    stem = name[: NAME_CHARACTERS_MAX - len(_SUFFIX) - 6].removesuffix(_SUFFIX)
    numbers = range(2, len(taken) + 3)
    return next(free for number in numbers if (free := f"{stem}_{number}{_SUFFIX}") not in taken)
