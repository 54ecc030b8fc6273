"""What a document is: its name, its key, its content and its revision."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import msgspec

from seline.errors import InvalidDocumentName

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
"""A user's JSON value, of any kind."""

Revision: TypeAlias = str
"""The SHA-256 of a document's bytes, in hex: always truthy, and the ETag in quotes."""

BOT: Final = ""
"""The owner of the bot's own documents (the data directory's top)."""

SELINE: Final = "seline"
"""The owner of Seline's own state (`.seline/`)."""

METADATA_NAME: Final = "metadata.json"
NAME_CHARACTERS_MAX: Final = 100
_OTHER_NAME: Final = "Choose another name: this one is Seline's own."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")


class DocumentKey(NamedTuple):
    """A document's address in a store."""

    owner: str
    name: str


class Absent(Enum):
    """The type of `ABSENT`, which stands where a revision is asked for."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""`if_match=ABSENT`: the document must not exist yet."""

IfMatch: TypeAlias = Revision | Absent | None


class Content(msgspec.Struct, frozen=True):
    """A document's bytes with their revision."""

    data: bytes
    revision: Revision

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Take bytes and compute their revision."""
        return cls(data, hashlib.sha256(data).hexdigest())

    @property
    def size_bytes(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as it was read: a value of your own, and which content it came from."""

    name: str
    value: Json
    revision: Revision
    size_bytes: int
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentInfo:
    """What is known of a document without its value.

    `verdict` is the verdict's word (`sound`, `torn`, …; SPEC §3); `revision` is None where the
    content is not sound.
    """

    name: str
    revision: Revision | None
    size_bytes: int
    updated_at: datetime
    verdict: str
    backup_count: int


def check_document_name(name: str) -> str:
    """Return `name` if a document may bear it; raise InvalidDocumentName saying why not.

    Source: SPEC §3. Cached, because every call of the library passes through here.
    """
    try:
        return _checked(name)
    except TypeError:  # a list, for one, which no cache can hold
        return _checked.__wrapped__(name)


@lru_cache(maxsize=16_384)
def _checked(name: str) -> str:
    why = _what_is_wrong(name)
    if why:
        hint = _OTHER_NAME if name == METADATA_NAME else None
        raise InvalidDocumentName(
            f"{name!r} is not a document's name: {why}.", hint=hint, name=str(name)
        )
    return name


def is_document_name(name: str) -> bool:
    """Whether a document may bear this name."""
    return not _what_is_wrong(name)


def _what_is_wrong(name: str) -> str:
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return f"a name is text, not {type(name).__name__}"
    if name == METADATA_NAME:
        return "Seline keeps its own report there"
    if "/" in name or "\\" in name:
        return "a name has no folder in it"
    if not name.endswith(".json"):
        return "a name ends in .json"
    if len(name) > NAME_CHARACTERS_MAX:
        return f"it has {len(name)} characters, {NAME_CHARACTERS_MAX} are allowed"
    if not _NAME.match(name):
        return "it may hold letters, digits, `_`, `.` and `-`, and starts with a letter or digit"
    return ""
