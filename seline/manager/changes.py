"""What each verb does to one document, as pure functions from what is there to what shall be.

They run in the store's turn, so what they see is what they change (V6). Each refuses by raising.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET

from seline.domain.backup import Backup
from seline.domain.blank_save import blank_save
from seline.domain.document import ABSENT, Content, IfMatch, Json
from seline.domain.json_codec import decode, encode, encode_decoded
from seline.domain.recovery import choose_backup
from seline.domain.verdict import usable_as_backup
from seline.errors import (
    BackupNotFound,
    DocumentNotFound,
    DocumentTooLarge,
    DocumentUnreadable,
    InvalidRequest,
    NotAnObject,
    RevisionMismatch,
)
from seline.ports.futures import turn
from seline.ports.store import Change, Current, Decision, Leave, Put, Remove

HANDED_ON_BYTES_MAX: Final = 64 << 10
"""Up to here a batch holds the decoded value beside the bytes: it takes several times as much."""

Decide = Callable[[Current], Decision]

Guard: TypeAlias = Callable[[str, str, datetime], tuple[Change, ...]]
"""Gets (document, revision before, now) of a blank save and returns the changes that pin that
revision, none where a pin of today stands already (V11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankSaved:
    """The answer of a save that removed most of a document (V11).

    `pinned`: it asked for a pin; a content of the same day may have one already.
    """

    document: str
    reason: str
    pinned: bool
    revision_before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How values become documents here."""

    document_bytes_max: int
    depth_max: int

    def content(self, value: object) -> Content:
        """Return a value's content. Raises NotSerializable, DocumentTooLarge."""
        return self.checked(encode(value, depth_max=self.depth_max))

    def held(self, value: object) -> Json:
        """Return a copy of a value as it will be read again. Raises as `content` does."""
        data = encode(value, depth_max=self.depth_max)
        self._check_size(data)
        return decode(data)

    def checked(self, data: bytes) -> Content:
        """Return the content of bytes already encoded. Raises DocumentTooLarge."""
        self._check_size(data)
        return Content.of(data)

    def _check_size(self, data: bytes) -> None:
        if len(data) > self.document_bytes_max:
            raise DocumentTooLarge(
                f"The document would have {len(data)} bytes; {self.document_bytes_max} are "
                "allowed. Nothing was written.",
                size_bytes=len(data),
                size_bytes_max=self.document_bytes_max,
            )


def look(current: Current) -> Decision:
    """Change nothing; the outcome shows what stands there when the turn comes."""
    return Leave(answer=current.sound())


def save(
    content: Content,
    *,
    if_match: IfMatch = None,
    backup: bool = True,
    guard: Guard | None = None,
) -> Decide:
    """Make `content` the document's."""

    def decide(current: Current) -> Decision:
        current.sound()
        check_match(current, if_match)
        return _guarded(current, Put(content=content, backup=backup), guard)

    return decide


def update_field(
    field: str,
    value: Json,
    encoding: Encoding,
    *,
    if_match: IfMatch = None,
    backup: bool = True,
    guard: Guard | None = None,
) -> Decide:
    """Set one field of an object; a missing document is created.

    `field` and `value` were encoded and decoded before: they can be nothing but JSON.
    """

    def decide(current: Current) -> Decision:
        before = current.sound()
        check_match(current, if_match)
        old = {} if before is None else current.value()
        if not isinstance(old, dict):
            raise NotAnObject(
                f"{current.key.name} holds a {_kind(old)}, which has no field {field!r}.",
                document=current.key.name,
            )
        new: Json = {**old, field: value}
        content = encoding.checked(encode_decoded(new))
        small = content.size_bytes <= HANDED_ON_BYTES_MAX
        put = Put(content=content, decoded=new if small else UNSET, backup=backup)
        return _guarded(current, put, guard, changed=(old.get(field), value))

    return decide


def update(
    function: Callable[[Json | None], Json],
    encoding: Encoding,
    *,
    always: bool = False,
    guard: Guard | None = None,
) -> Decide:
    """Apply a pure function to the value (None where there is no document).

    `always`: a full volume takes it, too (V9).
    """

    def decide(current: Current) -> Decision:
        before = current.sound()
        with turn():
            value = function(None if before is None else decode(before.data))
        return _guarded(current, Put(content=encoding.content(value), always=always), guard)

    return decide


def delete(*, if_match: IfMatch = None, also: tuple[Change, ...] = ()) -> Decide:
    """Make the document absent; its content stays as its newest backup."""

    def decide(current: Current) -> Decision:
        if current.content is None and current.trouble is None:
            raise not_found(current.key.name)
        _refuse_unreadable(current)
        check_match(current, if_match)
        return Remove(also=also)

    return decide


def purge(*, has_backups: bool, if_match: IfMatch = None, also: tuple[Change, ...] = ()) -> Decide:
    """Erase the document, its backups and its quarantined bytes."""

    def decide(current: Current) -> Decision:
        if current.content is None and current.trouble is None and not has_backups:
            raise not_found(current.key.name)
        check_match(current, if_match)
        return Remove(purge=True, also=also)

    return decide


def reset(current: Current) -> Decision:
    """Give a broken document up; its bytes go to quarantine."""
    if current.trouble is None:
        if current.content is None:
            raise not_found(current.key.name)
        raise InvalidRequest(
            f"{current.key.name} is sound; `reset` only gives up a broken document.",
            hint="Use `delete` to remove it, or `restore` to go back to a backup.",
        )
    return Remove()


def restore(backup: str | None) -> Decide:
    """Go back to a backup: the one named, or the newest sound one that differs from now."""

    def decide(current: Current) -> Decision:
        _refuse_unreadable(current)
        chosen, content = _named(current, backup) if backup else _newest(current)
        return Put(content=content, always=True, alone=True, answer=chosen)

    return decide


def put_imported(content: Content) -> Decide:
    """Take an imported document as it is; a broken one is replaced."""

    def decide(current: Current) -> Decision:
        _refuse_unreadable(current)
        return Put(content=content, alone=True)

    return decide


def delete_if_there(current: Current) -> Decision:
    """Make a document absent that an import does not name."""
    _refuse_unreadable(current)
    there = current.content is not None or current.trouble is not None
    return Remove() if there else Leave()


def check_match(current: Current, if_match: IfMatch) -> None:
    """Raise RevisionMismatch unless the caller knew what is there (V6)."""
    if if_match is None:
        return
    revision = None if current.content is None else current.content.revision
    name = current.key.name
    if if_match is ABSENT:
        if revision is not None or current.trouble is not None:
            raise RevisionMismatch(
                f"{name} exists already; nothing was written.", document=name, current=revision
            )
    elif revision != if_match:
        now_there = f"its revision is {revision[:12]}… now" if revision else "it does not exist"
        raise RevisionMismatch(
            f"{name} is not at the revision you named: {now_there}. Nothing was written.",
            document=name,
            current=revision,
        )


def _guarded(
    current: Current, put: Put, guard: Guard | None, changed: tuple[Json, Json] | None = None
) -> Put:
    """Return the put; one that removes most of the document keeps and pins what it removes (V11).

    `alone`: what it removes may come from the same batch, and is kept all the same.
    """
    before = current.content
    if guard is None or before is None:
        return put
    reason = blank_save(before.data, put.content.data, changed)
    if reason is None:
        return put
    document, revision = current.key.name, before.revision
    also = guard(document, revision, current.now)
    answer = BlankSaved(
        document=document, reason=reason, pinned=bool(also), revision_before=revision
    )
    return msgspec.structs.replace(put, backup=True, alone=True, also=also, answer=answer)


def _refuse_unreadable(current: Current) -> None:
    """Leave alone what the disk does not let be read; only `reset` moves it out of the way."""
    if isinstance(current.trouble, DocumentUnreadable):
        raise current.trouble


def not_found(name: str) -> DocumentNotFound:
    """Return the error for a document that does not exist."""
    return DocumentNotFound(f"There is no document {name}.", document=name)


def _newest(current: Current) -> tuple[Backup, Content]:
    unlike = None if current.content is None else current.content.revision
    choice = choose_backup(current.backups(), unlike=unlike)
    if choice.chosen is None:
        raise BackupNotFound(
            f"{current.key.name} has no sound backup that differs from what is current.",
            document=current.key.name,
            backups=choice.reasons(),
        )
    return choice.chosen


def _named(current: Current, name: str) -> tuple[Backup, Content]:
    for backup, judged in current.backups():
        if backup.name != name:
            continue
        if usable_as_backup(current.key, judged) and judged.content is not None:
            return backup, judged.content
        raise BackupNotFound(
            f"The backup {name} cannot be used: {judged.why}.",
            document=current.key.name,
            backup=name,
            verdict=str(judged.verdict),
        )
    raise BackupNotFound(
        f"{current.key.name} has no backup {name}.", document=current.key.name, backup=name
    )


def _kind(value: Json) -> str:
    words: dict[type, str] = {list: "list", str: "text", bool: "boolean", type(None): "null"}
    return words.get(type(value), "number")
