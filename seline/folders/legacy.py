"""Read a folder of .json files from an older bot: which can be imported, under which name.

Nothing in the folder is changed, and no link is followed.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """A file that can be imported: its own name, the document's name, its bytes."""

    file: str
    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A file that cannot be imported, with the reason and the next step."""

    file: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyFolder:
    """What a folder holds. `skipped` are files that Seline writes itself."""

    usable: tuple[Usable, ...]
    unusable: tuple[Unusable, ...]
    skipped: tuple[str, ...]


def read_legacy_folder(folder: str) -> LegacyFolder:
    """Read every .json file of the folder; sub-folders, such as backups, are left out."""
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if _is_json_file(entry))
    skipped = tuple(file for file in files if file == METADATA_NAME)
    read = [_read_file(folder, file) for file in files if file != METADATA_NAME]
    named = _named([file for file in read if isinstance(file, Usable)])
    unusable = [file for file in (*read, *named) if isinstance(file, Unusable)]
    return LegacyFolder(
        usable=tuple(file for file in named if isinstance(file, Usable)),
        unusable=tuple(sorted(unusable, key=lambda file: file.file)),
        skipped=skipped,
    )


def as_export(usable: Sequence[Usable]) -> bytes:
    """Return the files as the body of one import, their bytes unchanged."""
    members = (json.dumps(file.name).encode() + b": " + file.data for file in usable)
    return b'{"files": {' + b",\n".join(members) + b"}}"


def _is_json_file(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(_SUFFIX) and not entry.is_dir(follow_symlinks=False)


def _read_file(folder: str, file: str) -> Usable | Unusable:
    try:
        data = _read(os.path.join(folder, file))
        decode_strict(data)
    except NotJson as error:
        return Unusable(file=file, reason=f"{error}.", hint=error.hint)
    except _NotRegular:
        return Unusable(
            file=file,
            reason="a link or another special file, which is not followed.",
            hint="Put a copy of the real file in its place.",
        )
    except OSError as error:
        return Unusable(
            file=file,
            reason=f"it cannot be read: {error.strerror}.",
            hint="Give yourself the right to read it.",
        )
    return Usable(file=file, name=file, data=data)


class _NotRegular(Exception):
    """This is not a regular file."""


def _read(path: str) -> bytes:
    """Return a regular file's bytes; the check and the read use one descriptor."""
    if os.path.islink(path):
        raise _NotRegular
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as source:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _NotRegular
        return source.read()


def _named(files: Sequence[Usable]) -> list[Usable | Unusable]:
    """Give each file a valid document name; a valid name is kept."""
    taken = {file.file for file in files if is_document_name(file.file)}
    named: list[Usable | Unusable] = []
    for file in files:
        if file.file in taken:
            named.append(file)
            continue
        name = _free_name(valid_name(file.file), taken)
        if name is None:
            named.append(
                Unusable(
                    file=file.file,
                    reason="no document name can be made of it.",
                    hint="Rename it: letters, digits, `_`, `.` and `-`, ending in .json.",
                )
            )
            continue
        taken.add(name)
        named.append(Usable(file=file.file, name=name, data=file.data))
    return named


def valid_name(file: str) -> str | None:
    """Return the nearest valid document name, or None if no character of it is left."""
    stem = unicodedata.normalize("NFKD", file[: -len(_SUFFIX)])
    plain = "".join(letter for letter in stem if not unicodedata.combining(letter))
    kept = _FIRST.sub("", _FORBIDDEN.sub("_", plain))
    name = kept[: NAME_CHARACTERS_MAX - len(_SUFFIX)] + _SUFFIX
    return name if kept and is_document_name(name) else None


def _free_name(name: str | None, taken: set[str]) -> str | None:
    """Return the name, with a number if another file has it."""
    if name is None or name not in taken:
        return name
    stem = name[: NAME_CHARACTERS_MAX - len(_SUFFIX) - 6].removesuffix(_SUFFIX)
    numbers = range(2, len(taken) + 3)
    return next(free for number in numbers if (free := f"{stem}_{number}{_SUFFIX}") not in taken)
