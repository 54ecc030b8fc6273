"""Read a folder of .json files from an older bot: which can be imported, under which name.

Nothing in the folder is changed, and no link is followed.
"""

import errno
import os
import re
import stat
import unicodedata
from dataclasses import dataclass
from typing import Final

from seline.domain.document import METADATA_NAME, NAME_CHARACTERS_MAX, is_document_name
from seline.domain.json_codec import NotJson, decode_strict
from seline.domain.metadata import is_report

_SUFFIX: Final = ".json"
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]+")
_FIRST = re.compile(r"^[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyFile:
    """A .json file of the folder. One that cannot be imported has a reason and a next step."""

    file: str
    name: str = ""
    """The document's name."""
    data: bytes = b""
    reason: str = ""
    hint: str = ""


def read_legacy_folder(folder: str) -> list[LegacyFile]:
    """Read every .json file of the folder, sorted by name.

    Leaves out sub-folders, such as backups, and a metadata.json that Seline wrote; another
    program's gets a new name, because this one is Seline's.
    """
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if _is_json_file(entry))
    taken = {file for file in files if is_document_name(file)} | {METADATA_NAME}
    read = [_read_file(folder, file, taken) for file in files]
    return [file for file in read if not _is_own_report(file)]


def _is_json_file(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(_SUFFIX) and not entry.is_dir(follow_symlinks=False)


def _is_own_report(file: LegacyFile) -> bool:
    return file.file == METADATA_NAME and not file.reason and is_report(file.data)


def _read_file(folder: str, file: str, taken: set[str]) -> LegacyFile:
    """Read a file and choose its document's name, which is added to `taken`."""
    try:
        data = _read(os.path.join(folder, file))
        decode_strict(data)
    except NotJson as error:
        return LegacyFile(file=file, reason=f"{error}.", hint=error.hint)
    except OSError as error:
        return LegacyFile(
            file=file,
            reason=f"it cannot be read: {error.strerror}.",
            hint="Put a copy of it there that is a regular file and that you may read.",
        )
    name = file if file in taken - {METADATA_NAME} else _free_name(valid_name(file), taken)
    if name is None:
        return LegacyFile(
            file=file,
            reason="no document name can be made of it.",
            hint="Rename it: letters, digits, `_`, `.` and `-`, ending in .json.",
        )
    taken.add(name)
    return LegacyFile(file=file, name=name, data=data)


def _read(path: str) -> bytes:
    """Return a regular file's bytes. Raises OSError for a link or another special file."""
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "it is a link, which is not followed")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as source:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return source.read()


def valid_name(file: str) -> str | None:
    """Return the nearest valid document name, or None if no character of it is left."""
    stem = unicodedata.normalize("NFKD", file[: -len(_SUFFIX)])
    plain = "".join(letter for letter in stem if not unicodedata.combining(letter))
    kept = _FIRST.sub("", _FORBIDDEN.sub("_", plain))
    name = kept[: NAME_CHARACTERS_MAX - len(_SUFFIX)] + _SUFFIX
    return name if kept and (is_document_name(name) or name == METADATA_NAME) else None


def _free_name(name: str | None, taken: set[str]) -> str | None:
    """Return the name, with a number if another file has it."""
    if name is None or name not in taken:
        return name
    stem = name[: NAME_CHARACTERS_MAX - len(_SUFFIX) - 6].removesuffix(_SUFFIX)
    numbers = range(2, len(taken) + 3)
    return next(free for number in numbers if (free := f"{stem}_{number}{_SUFFIX}") not in taken)
