"""A document: its name, its key, its content and its revision."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from seline.errors import InvalidDocumentName

Json: TypeAlias = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""Any JSON value."""

Revision: TypeAlias = str
"""The SHA-256 of a document's bytes, in hex. In quotes it is the HTTP ETag."""

BOT: Final = ""
"""The space of the bot's own documents (the data directory's top)."""

SELINE: Final = "seline"
"""The space of Seline's own state (`.seline/`)."""

METADATA_NAME: Final = "metadata.json"
NAME_CHARACTERS_MAX: Final = 100
_OTHER_NAME: Final = "Choose another name: this one is Seline's own."
_DOCUMENT = re.compile(r"(?!metadata\.json\Z)[A-Za-z0-9][A-Za-z0-9_.-]{0,94}\.json\Z")
_OTHER_CHARACTER = re.compile(r"[^A-Za-z0-9_.-]")
_SPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,94}\Z")


class DocumentKey(NamedTuple):
    """A document's address in a store."""

    space: str
    name: str


class Absent(Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""As `if_match`: the document must not exist yet."""

IfMatch: TypeAlias = Revision | Absent | None


class Origin(NamedTuple):
    """How a content was made: by other bytes from `at` to `end` of the one with revision `base`.

    `digest` is that of the bytes before `at`. The value that was changed begins at `value_at` of
    the new content, and no other member begins between there and `until`.
    """

    base: Revision
    at: int
    end: int
    digest: Any
    value_at: int
    until: int


class Content(msgspec.Struct, frozen=True, eq=False):
    """A document's bytes and their revision; the bytes are in memory, or read on demand.

    `is_encoded`: they are what `encode` makes of their value. `origin`: how they were made from the
    content before, if only a part was changed.
    """

    revision: Revision
    size_bytes: int
    held: bytes | None
    load: Callable[[], bytes] | None = None
    is_encoded: bool = False
    origin: Origin | None = None

    def __eq__(self, other: object) -> bool:
        """Contents with the same bytes are equal."""
        return isinstance(other, Content) and self.revision == other.revision

    def __hash__(self) -> int:
        return hash(self.revision)

    @classmethod
    def of(cls, data: bytes, *, is_encoded: bool = False) -> "Content":
        """Return `data` with its revision."""
        return cls(hashlib.sha256(data).hexdigest(), len(data), data, is_encoded=is_encoded)

    def spliced(self, at: int, end: int, new: bytes, value_at: int) -> "Content":
        """Return an encoded content with other bytes from `at` to `end`; hash what follows `at`.

        `value_at` is where the value that is changed begins in the result. If something before `at`
        is changed next, everything is hashed again.
        """
        before = memoryview(self.data)
        data = b"".join((before[:at], new, before[end:]))
        hashed, digest = 0, hashlib.sha256()
        if self.origin is not None and self.origin.at <= at:
            hashed, digest = self.origin.at, self.origin.digest.copy()
        view = memoryview(data)
        digest.update(view[hashed:at])
        origin = Origin(self.revision, at, end, digest.copy(), value_at, at + len(new))
        digest.update(view[at:])
        return Content(
            digest.hexdigest(), len(data), data, is_encoded=self.is_encoded, origin=origin
        )

    def moved_to(self, load: Callable[[], bytes]) -> "Content":
        """Return the same content, no longer in memory: `load` reads its bytes."""
        return Content(self.revision, self.size_bytes, None, load, self.is_encoded)

    @property
    def data(self) -> bytes:
        """The bytes. They are read each time unless they are in memory."""
        if self.held is not None:
            return self.held
        assert self.load is not None
        return self.load()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as it was read: its value, which the caller may change, and its revision."""

    name: str
    value: Any
    revision: Revision
    size_bytes: int
    updated_at: datetime


class DocumentInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A document's metadata.

    `verdict` is the text of a `Verdict` (`sound`, `torn`, …). `revision` is None if the content is
    not sound.
    """

    name: str
    revision: Revision | None
    size_bytes: int
    updated_at: datetime
    verdict: str
    backup_count: int


def check_document_name(name: str) -> str:
    """Return `name` if it is a valid document name. Raises InvalidDocumentName with the reason."""
    return bot_document(name).name


def bot_document(name: str) -> DocumentKey:
    """Return the key of a document of the bot's. Raises InvalidDocumentName with the reason.

    Results are cached, because every call of the library checks its name.
    """
    try:
        return _bot_document(name)
    except TypeError:  # an unhashable name, such as a list, cannot be a key of the cache
        return _bot_document.__wrapped__(name)


@lru_cache(maxsize=16_384)
def _bot_document(name: str) -> DocumentKey:
    reason = why_invalid_name(name)
    if reason:
        hint = _OTHER_NAME if name == METADATA_NAME else None
        raise InvalidDocumentName(
            f"{name!r} is not a document's name: {reason}.", hint=hint, name=str(name)
        )
    return DocumentKey(BOT, name)


def is_space_name(space: str) -> bool:
    """Whether a space may have this name: the rule of a document's name without `.json`."""
    return space == BOT or _SPACE.match(space) is not None


def check_space_name(space: str) -> None:
    """Raise InvalidDocumentName if no space may have this name."""
    if not is_space_name(space):
        raise InvalidDocumentName(
            f"{space!r} is not the name of a space: it has 1 to 95 letters, digits, `_`, `.` and "
            "`-`, and starts with a letter or digit.",
            hint="Choose another name for the space.",
        )


def is_document_name(name: str) -> bool:
    """Whether `name` is a valid document name."""
    return _DOCUMENT.match(name) is not None


def why_invalid_name(name: str) -> str:
    """Return why `name` is not a valid document name; empty if it is one."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return f"a name is text, not {type(name).__name__}"
    if is_document_name(name):
        return ""
    if name == METADATA_NAME:
        return "Seline keeps its own report there"
    if "/" in name or "\\" in name:
        return "a name has no folder in it"
    if not name.endswith(".json"):
        return "a name ends in .json, in small letters"
    if len(name) > NAME_CHARACTERS_MAX:
        return f"it has {len(name)} characters, {NAME_CHARACTERS_MAX} are allowed"
    wrong = _OTHER_CHARACTER.search(name)
    if wrong is None:
        return "a name starts with a letter or digit"
    return f"{wrong[0]!r} is not allowed: a name holds A-Z, a-z, 0-9, `_`, `.` and `-`"
