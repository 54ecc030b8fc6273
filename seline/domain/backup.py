"""Backups: their file names, their order and their metadata.

Backups are ordered by (instant, counter), compared as numbers and never as text. A new backup sorts
after every older one of its document, even if the clock went back.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from seline.domain.checksum import Checksum, name_hash
from seline.domain.document import DocumentKey, Revision, is_document_name, is_space_name
from seline.domain.verdict import UNCHECKED

_BACKUP = re.compile(
    r"(?P<stem>.+)_(?P<at>\d{8}_\d{6})(?:_(?P<counter>\d{1,9}))?\.json\Z", re.ASCII
)
_ASIDE: Final = ".seline.json"
"""How the name of an item in quarantine/ ends."""


class Stamp(NamedTuple):
    """A backup's position in the order of its document's backups."""

    instant: datetime
    counter: int


class Backup(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One earlier content of a document.

    `verdict` is the text of a `Verdict`, or `unchecked` if the file was not read yet. `revision` is
    the one in the checksum attribute, None without an attribute. `ours` is False for a file that
    Seline did not write: no policy removes it. `because` is the reason for which it is pinned, kept
    or dropped. `flaw` is why it does not count, empty if it does or was not read.
    """

    name: str
    document: str
    stamp: Stamp
    size_bytes: int
    revision: Revision | None
    verdict: str = UNCHECKED
    pinned: bool = False
    ours: bool = True
    because: str = ""
    flaw: str = ""

    @property
    def taken_at(self) -> datetime:
        return self.stamp.instant


def backup_name(document: str, stamp: Stamp) -> str:
    """Return the file name, such as `user_profile_20250106_143022.json`.

    Later backups in the same second have `_01`, `_02` and so on before `.json`.
    """
    counter = f"_{stamp.counter:02d}" if stamp.counter else ""
    return f"{document.removesuffix('.json')}_{_second_in_name(stamp.instant)}{counter}.json"


@lru_cache(16)
def _second_in_name(at: datetime) -> str:
    """Return the part of a name that the backups of one second share."""
    day = f"{at.year:04d}{at.month:02d}{at.day:02d}"
    return f"{day}_{at.hour:02d}{at.minute:02d}{at.second:02d}"


def is_own_backup(backup: Backup, space: str, checksum: Checksum | None) -> bool:
    """Whether Seline wrote a file: each backup has the checksum of its document."""
    key = DocumentKey(space, backup.document)
    return checksum is not None and checksum.name_hash == name_hash(key) and is_given_name(backup)


def is_given_name(backup: Backup) -> bool:
    """Whether Seline gives this name to the backup; another name may have the same stamp."""
    return backup.name == backup_name(backup.document, backup.stamp)


def parse_backup_name(name: str) -> tuple[str, Stamp] | None:
    """Return the document's name and the stamp, None if `name` is not a backup's file name."""
    match = _BACKUP.match(name) if isinstance(name, str) else None
    if match is None or not is_document_name(f"{match['stem']}.json"):
        return None
    try:
        instant = _instant_in_name(match["at"])
    except ValueError:
        return None
    return f"{match['stem']}.json", Stamp(instant, int(match["counter"] or 0))


def _instant_in_name(at: str) -> datetime:
    """Return the instant of a text such as `20250106_143022`. Raises ValueError.

    `strptime` takes several times as long, and a start reads the name of each backup.
    """
    day = int(at[:4]), int(at[4:6]), int(at[6:8])
    return datetime(*day, int(at[9:11]), int(at[11:13]), int(at[13:]), tzinfo=UTC)


def aside_name(document: str, stamp: Stamp) -> str:
    """Return the name of an item in quarantine/, which no other program gives."""
    return backup_name(document, stamp).removesuffix(".json") + _ASIDE


def is_aside_name(name: str) -> bool:
    """Whether `aside_name` returns this name for some document."""
    return parse_aside_name(name) is not None and name.endswith(_ASIDE)


def parse_aside_name(name: str) -> tuple[str, Stamp] | None:
    """Return the document of an item in quarantine/ and the stamp; None for another file.

    A backup's name is one, too: items had such names before. Outside the bot's space the document
    is `space+name`.
    """
    if not isinstance(name, str):
        return None
    space, plus, rest = name.rpartition("+")
    plain = f"{rest.removesuffix(_ASIDE)}.json" if rest.endswith(_ASIDE) else rest
    parsed = parse_backup_name(plain)
    if parsed is None or (plus and not (space and is_space_name(space))):
        return None
    return f"{space}{plus}{parsed[0]}", parsed[1]


def next_stamp(newest: Stamp | None, now: datetime) -> Stamp:
    """Return a stamp after `newest`: this second if it is later, else the next counter."""
    this_second = now.astimezone(UTC).replace(microsecond=0)
    if newest is None or this_second > newest.instant:
        return Stamp(this_second, 0)
    return Stamp(newest.instant, newest.counter + 1)
