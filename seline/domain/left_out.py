"""What a data directory, or a folder to import, holds besides documents: why, and the next step.

`left_out` decides it for health, verify, exports and imports. Each next step can be copied into a
shell as it is.
"""

import errno
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from seline.cures import cure_of, not_regular
from seline.domain.backup import is_aside_name, parse_backup_name
from seline.domain.document import (
    METADATA_NAME,
    NAME_CHARACTERS_MAX,
    is_document_name,
    why_invalid_name,
)
from seline.domain.plural import counted, shortened
from seline.quoting import on_one_line, quoted, shown_name

SUFFIX: Final = ".json"
MOUNTED: Final = "another volume is mounted there"
UNREADABLE: Final = "it cannot be read"
"""The start of why a folder was not listed: it is not readable."""
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]+")
_FIRST = re.compile(r"^[^A-Za-z0-9]+")
_NO_BACKUP: Final = "without a backup's name"
_STATE: Final = "the state of the Seline that kept this folder"
LEAVE_IT: Final = "Leave it: the store that you import into has its own."
_COPY: Final = "An export does not hold it: copy it yourself to where your exports are."
AFTER_IMPORT: Final = "To restore from them, import first: how to copy them is shown after that."
"""Of `backups/`: the store's own exists after the import, and not each volume can keep copies."""


class FileKind(StrEnum):
    """What a name in a directory is. A link is not followed."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "special file"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One name, with its path from the directory. `why_closed`: why a folder was not listed.

    The garbage collector skips them: a scan makes one for each document.
    """

    path: str
    kind: FileKind
    why_closed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file or folder that Seline does not take: its name, why, and the next step."""

    name: str
    reason: str
    hint: str


class FreeNames:
    """Gives each file a document name that no other file has."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {METADATA_NAME, *taken}
        self._counters: Counter[str] = Counter()

    def name(self, file: str) -> str:
        """Return a free name like the file's, which is taken from now on."""
        wanted = name = valid_name(file)
        while name in self._taken:
            self._counters[wanted] += 1
            stem = wanted.removesuffix(SUFFIX)[: NAME_CHARACTERS_MAX - len(SUFFIX) - 6]
            name = f"{stem}_{self._counters[wanted] + 1}{SUFFIX}"
        self._taken.add(name)
        return name


def valid_name(file: str) -> str:
    """Return the document name most like a file's; if no character is left, the code points."""
    file = file.strip()
    stem = file[: -len(SUFFIX)] if is_json(file) else file
    plain = "".join(
        letter
        for letter in unicodedata.normalize("NFKD", stem)
        if not unicodedata.combining(letter)
    )
    kept = _FIRST.sub("", _FORBIDDEN.sub("_", plain))
    kept = kept or "u" + "_".join(f"{ord(letter):x}" for letter in stem)
    return kept[: NAME_CHARACTERS_MAX - len(SUFFIX)] + SUFFIX


def is_json(file: str) -> bool:
    """Whether a file's name ends in .json, in any case; white space may follow."""
    return file.rstrip().lower().endswith(SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedFolder:
    """Where entries are, and what the next steps name.

    `imported`: it is no data directory, but is imported into one. `own` are the names that are
    Seline's, `mounts` those that are mounts of their own. `nested`: files in sub-folders are taken
    as those beside them are.
    """

    path: str
    imported: bool = False
    own: Collection[str] = ()
    mounts: Collection[str] = ()
    nested: bool = False

    def at(self, name: str) -> str:
        """Return the quoted path of a name."""
        return quoted(os.path.join(self.path, name))


def left_out(entries: Sequence[Entry], place: ScannedFolder) -> list[LeftOut]:
    """Return what is no document in a directory that was scanned, sorted by name.

    Files that end in .json are left out only of a data directory: an import renames them.
    """
    names = FreeNames([entry.path for entry in entries])
    inside, why_closed = _inside(entries)
    found = (
        _mount(entry, place)
        if entry.path in place.mounts
        else _file(entry, place, names)
        if entry.kind is not FileKind.FOLDER
        else _folder(entry.path, inside[entry.path], why_closed.get(entry.path, ""), place)
        for entry in entries
        if _is_considered(entry, place)
    )
    return sorted((item for item in found if item is not None), key=lambda item: item.name)


def _is_considered(entry: Entry, place: ScannedFolder) -> bool:
    if place.nested:
        return entry.kind is not FileKind.FOLDER or entry.why_closed != ""
    name = entry.path
    if entry.kind is FileKind.FILE and is_document_name(name):
        return name in place.mounts  # nearly every entry is a document
    return "/" not in name and name not in place.own


def without_state(entries: Sequence[Entry], *, nested: bool) -> tuple[list[Entry], list[LeftOut]]:
    """Return the entries of a folder to import without the state of any store in it, and that.

    It is `.seline`, and what Seline put into `quarantine` beside one; that of a store further down
    is named only if `nested`. `entries` are in the order of `scan`.
    """
    folders = {entry.path for entry in entries if entry.kind is FileKind.FOLDER}
    state = {
        path
        for path in folders
        if os.path.basename(path) in (".seline", "quarantine")
        and os.path.join(os.path.dirname(path), ".seline") in folders
    }
    places = [os.path.split(entry.path) for entry in entries]
    owners = {
        folder
        for folder, name in places
        if folder in state and os.path.basename(folder) != ".seline" and not is_aside_name(name)
    }
    state -= owners
    inside = set(state)
    kept: list[Entry] = []
    for entry, (folder, name) in zip(entries, places, strict=True):
        if entry.path in inside or folder in inside or (folder in owners and is_aside_name(name)):
            inside.add(entry.path)
        else:
            kept.append(entry)
    named = sorted(path for path in state if nested or "/" not in path)
    return kept, [_left_out(f"{path}/", _STATE, LEAVE_IT) for path in named]


def without_copies(entries: Sequence[Entry]) -> tuple[list[Entry], list[LeftOut]]:
    """Return entries without the dated copies that an older bot kept of its documents, and those.

    They are in `backups` or `quarantine` beside a document that they are of, where every .json file
    has a backup's name.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.kind is not FileKind.FOLDER and is_json(entry.path):
            folder, name = os.path.split(entry.path)
            files[folder].append(name)
    copies: dict[str, int] = {}
    for folder, names in files.items():
        parsed = list(map(parse_backup_name, names))
        beside = files.get(os.path.dirname(folder), ())
        is_of_copies = os.path.basename(folder) in ("backups", "quarantine") and all(parsed)
        if is_of_copies and any(copy and copy[0] in beside for copy in parsed):
            copies[folder] = len(names)
    kept = [e for e in entries if os.path.dirname(e.path) not in copies or not is_json(e.path)]
    reason = "and only documents are imported"
    return kept, [
        _left_out(f"{folder}/", f"{counted(count, 'dated file')}, {reason}", _COPY)
        for folder, count in sorted(copies.items())
    ]


def left_out_inside(backups: Sequence[str], aside: Sequence[str]) -> list[LeftOut]:
    """Return an entry for names in backups/ that no backup has, one for those in quarantine/.

    `aside` are the names in quarantine/ that Seline did not put there.
    """
    hint = "Seline neither uses nor removes them: move them away when you do not need them."
    return [
        _left_out(folder, f"{counted(len(names), 'file')} {why}: {shortened(names)}", hint)
        for folder, names, why in (
            ("backups/", backups, _NO_BACKUP),
            ("quarantine/", aside, "that Seline did not set aside"),
        )
        if names
    ]


def _inside(entries: Sequence[Entry]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return, for each folder, the files in it, and why some of it was not listed."""
    inside: dict[str, list[str]] = defaultdict(list)
    why_closed: dict[str, str] = {}
    for entry in entries:
        top, _, rest = entry.path.partition("/")
        if rest and entry.kind is not FileKind.FOLDER:
            inside[top].append(rest)
        if entry.why_closed:
            why_closed.setdefault(top, entry.why_closed)
    return inside, why_closed


def _mount(entry: Entry, place: ScannedFolder) -> LeftOut:
    path = os.path.join(place.path, entry.path)
    hint = cure_of(errno.EBUSY, path, mounts=(path,)).hint
    if entry.kind is FileKind.FOLDER:
        return _left_out(f"{entry.path}/", f"{MOUNTED}, and nothing is taken from it", hint)
    return _left_out(entry.path, "it is a mount of its own: it can be read, and not saved", hint)


def _file(entry: Entry, place: ScannedFolder, names: FreeNames) -> LeftOut | None:
    """Decide about a file, a link or a special file."""
    file = entry.path
    if is_json(file) and place.imported:
        return None
    if entry.kind is not FileKind.FILE:
        is_link = entry.kind is FileKind.LINK
        reason = "it is a link, and Seline follows none" if is_link else "it is no regular file"
        return _left_out(file, reason, not_regular(os.path.join(place.path, file)).hint)
    if not is_json(file):
        return _left_out(file, "its name does not end in .json", _COPY)
    if not (reason := why_invalid_name(file)):
        return None
    free = place.at(names.name(file))
    hint = f"To have Seline keep it, rename it: `mv -n -- {place.at(file)} {free}`"
    return _left_out(file, reason, hint)


def _folder(
    name: str, inside: Sequence[str], why_closed: str, place: ScannedFolder
) -> LeftOut | None:
    """Decide about a folder by the files in it and in its sub-folders."""
    path, at, shown, reason = os.path.join(place.path, name), place.at(f"{name}/"), f"{name}/", ""
    if not place.imported and not why_invalid_name(name):
        hint = not_regular(path).hint
        return _left_out(shown, "a folder with a document's name", hint)
    if not inside and not why_closed:
        return None
    backups = [file for file in inside if parse_backup_name(file) is not None]
    if place.imported and name == "backups" and backups:
        reason = f"{counted(len(backups), 'backup')}, and only documents are imported"
        others = [file for file in inside if parse_backup_name(file) is None]
        if others:
            reason += f"; {counted(len(others), 'file')} {_NO_BACKUP}: {shortened(others)}"
        return _left_out(shown, reason, AFTER_IMPORT)
    if why_closed.startswith(UNREADABLE):
        return _left_out(shown, why_closed, cure_of(errno.EACCES, path).hint)
    documents = sum(map(is_json, inside))
    if not documents and not why_closed:
        return _left_out(shown, "a folder without .json files", _COPY)
    prefix = valid_name(f"{name}_").removesuffix(SUFFIX)
    hint = f"To import what is in it: `seline import {at} --prefix {prefix}`"
    if not place.imported:
        hint += ", then move the folder out of the data directory"
    reason = f"{counted(documents, '.json file')} in a folder, and none is taken from folders"
    return _left_out(shown, f"{reason}; {why_closed}" if why_closed else reason, hint)


def _left_out(name: str, reason: str, hint: str) -> LeftOut:
    hint = on_one_line(hint)
    return LeftOut(name=shown_name(name), reason=reason, hint=hint)
