"""Read a folder of .json files from an older bot: which can be imported, under which name.

Nothing in the folder is changed, and no link is followed.
"""

import errno
import os
import stat
import sys
from dataclasses import dataclass
from typing import Final

from seline.cures import cure_of, step_for_file
from seline.domain.document import METADATA_NAME, is_document_name
from seline.domain.json_codec import NotJson, decode_strict, normalised
from seline.domain.left_out import (
    LEAVE_IT,
    UNREADABLE,
    Entry,
    FileKind,
    FreeNames,
    LeftOut,
    ScannedFolder,
    is_json,
    left_out,
    without_copies,
    without_state,
)
from seline.domain.metadata import is_report
from seline.errors import DocumentTooLarge
from seline.quoting import shown_name
from seline.scan import NESTED_MAX, scan


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyFile:
    """A .json file of the folder. One that cannot be imported has a reason and a next step."""

    file: str
    name: str = ""
    """The document's name."""
    data: bytes = b""
    reason: str = ""
    hint: str = ""


def read_legacy_folder(folder: str, *, prefix: str = "") -> tuple[list[LegacyFile], list[LeftOut]]:
    """Read every .json file of a folder; return them, and what else the folder holds, by name.

    With a `prefix`, which each name then starts with, sub-folders are read as well, without the
    dated copies in them. A metadata.json of another program gets a new name, because this one is
    Seline's.
    """
    place = ScannedFolder(path=folder, imported=True, nested=prefix != "")
    scanned = scan(folder, nested_max=sys.maxsize if prefix else NESTED_MAX)
    entries, omitted = without_state(scanned, nested=place.nested)
    if place.nested:
        entries, copies = without_copies(entries)
        omitted += copies
    files = sorted(entry.path for entry in entries if _is_taken(entry, nested=place.nested))
    names = FreeNames([] if prefix else filter(is_document_name, files))
    read = [_read_file(place, file, prefix, names) for file in files]
    reports = [file.file for file in read if _is_own_report(file)]
    omitted += [LeftOut(name=file, reason=_REPORT, hint=LEAVE_IT) for file in reports]
    return [file for file in read if file.file not in reports], [
        *left_out(entries, place),
        *omitted,
    ]


def folder_of_documents(folder: str) -> str | None:
    """Return the folder further down that holds all .json files but backups; None if none does."""
    inside = {
        os.path.dirname(entry.path)
        for entry in scan(folder)
        if entry.kind is FileKind.FILE and is_json(entry.path)
    }
    kept = [path for path in inside if os.path.basename(path) != "backups"]
    found = os.path.commonpath(kept) if kept and all(kept) else ""
    return os.path.join(folder, found) if found else None


def _is_taken(entry: Entry, *, nested: bool) -> bool:
    is_here = nested or "/" not in entry.path
    return is_here and entry.kind is not FileKind.FOLDER and is_json(entry.path)


def _is_own_report(file: LegacyFile) -> bool:
    is_named_so = os.path.basename(file.file) == METADATA_NAME
    return is_named_so and not file.reason and is_report(file.data)


def _read_file(place: ScannedFolder, file: str, prefix: str, names: FreeNames) -> LegacyFile:
    """Read a file and choose its document's name."""
    shown, path = shown_name(file), os.path.join(place.path, file)
    try:
        data = normalised(_read(path))
        decode_strict(data)
    except NotJson as error:
        hint = step_for_file(error.hint, path)
        return LegacyFile(file=shown, reason=f"{error}.", hint=hint)
    except OSError as error:
        is_large = error.errno == errno.EFBIG
        hint = DocumentTooLarge.hint if is_large else cure_of(error.errno, path).hint
        return LegacyFile(file=shown, reason=f"{UNREADABLE}: {error.strerror}.", hint=hint)
    keeps_name = not prefix and is_document_name(file)
    return LegacyFile(file=shown, name=file if keeps_name else names.name(prefix + file), data=data)


def _read(path: str) -> bytes:
    """Return a regular file's bytes. Raises OSError for a link or another special file."""
    kind = stat.S_IFMT(os.lstat(path).st_mode)
    if kind == stat.S_IFLNK:
        raise OSError(errno.ELOOP, "it is a link, which is not followed")
    if kind != stat.S_IFREG:  # a socket cannot be opened, and a device may be endless
        raise OSError(errno.ELOOP, "it is not a regular file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as source:
        status = os.fstat(descriptor)
        if status.st_size > _FILE_BYTES_MAX:
            raise OSError(errno.EFBIG, "it is larger than any document may be")
        return source.read()


_FILE_BYTES_MAX: Final = 1 << 30
_REPORT: Final = "the report of the Seline that kept this folder"
