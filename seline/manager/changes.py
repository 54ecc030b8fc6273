"""What each verb does to one document: pure functions from its current content to a decision.

They run in the store's turn, so they change what they see (V6). Each refuses by raising.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import UNSET

from seline.domain.backup import Backup
from seline.domain.document import ABSENT, Content, IfMatch, Json
from seline.domain.json_codec import decode, encode_decoded
from seline.domain.json_pointer import replaced_at, tokens_of, value_at
from seline.domain.json_splice import with_item, with_member
from seline.domain.recovery import choose_backup
from seline.domain.report import KeptIn
from seline.domain.verdict import usable_as_backup
from seline.errors import (
    BackupNotFound,
    DocumentNotFound,
    DocumentUnreadable,
    InvalidRequest,
    NotAnObject,
    PathNotFound,
    RevisionMismatch,
)
from seline.manager.encoding import checked_content, content_of, spliced_content
from seline.ports.futures import turn
from seline.ports.store import Change, Current, Decision, Guard, Leave, Put, Remove
from seline.settings import Storage

HANDED_ON_BYTES_MAX: Final = 64 << 10
"""Up to this size a batch holds the decoded value too, which takes several times the bytes."""

Decide = Callable[[Current], Decision]

CREATED: Final = "created"
"""The answer of a save that made a new document."""


def look(current: Current) -> Decision:
    """Change nothing; the outcome has the content of this turn."""
    return Leave(answer=current.sound())


def preview(change: Change) -> Change:
    """Return a change that decides the same and changes nothing; its answer is the decision."""

    def decide(current: Current) -> Decision:
        return Leave(answer=change.decide(current))

    return msgspec.structs.replace(change, decide=decide, preview=True)


def save(
    content: Content, *, if_match: IfMatch = None, backup: bool = True, guard: Guard | None = None
) -> Decide:
    """Make `content` the document's. The answer is CREATED if there was none."""

    def decide(current: Current) -> Decision:
        before = current.sound()
        check_match(current, if_match)
        answer = CREATED if before is None else None
        return _guarded(current, Put(content=content, backup=backup, answer=answer), guard)

    return decide


def update_field(
    field: str,
    value: Json,
    limits: Storage,
    *,
    if_match: IfMatch = None,
    backup: bool = True,
    guard: Guard | None = None,
) -> Decide:
    """Set one field of an object; a missing document is created.

    `field` and `value` were encoded and decoded before, so they are JSON.
    """

    def decide(current: Current) -> Decision:
        before = current.sound()
        check_match(current, if_match)
        if before is not None and before.is_encoded:
            splice = with_member(before.data, field, value, before.origin)
            if splice is not None:
                content = spliced_content(before, splice, limits)
                was = None if splice.old is None else decode(splice.old)
                put = Put(content=content, backup=backup)
                return _guarded(current, put, guard, changed=(was, value))
        old = {} if before is None else current.value()
        if not isinstance(old, dict):
            raise NotAnObject(
                f"{current.key.name} holds a {_kind(old)}, which has no field {field!r}.",
                document=current.key.name,
            )
        new: Json = {**old, field: value}
        content = checked_content(encode_decoded(new), limits)
        small = content.size_bytes <= HANDED_ON_BYTES_MAX
        put = Put(content=content, decoded=new if small else UNSET, backup=backup)
        return _guarded(current, put, guard, changed=(old.get(field), value))

    return decide


def append_item(
    path: str,
    item: Json,
    limits: Storage,
    *,
    if_match: IfMatch = None,
    backup: bool = True,
    guard: Guard | None = None,
) -> Decide:
    """Append an item to the list at a JSON Pointer; a missing document or list is created.

    `item` was encoded and decoded before, so it is JSON.
    """
    tokens = tokens_of(path)

    def decide(current: Current) -> Decision:
        before = current.sound()
        check_match(current, if_match)
        content = None
        if before is not None and before.is_encoded and len(tokens) <= 1:
            member = tokens[0] if tokens else None
            splice = with_item(before.data, member, item, before.origin)
            content = splice and spliced_content(before, splice, limits)
        if content is None:
            content = _with_item(current, path, item, limits)
        put = Put(content=content, backup=backup)
        return _guarded(current, put, guard, changed=(None, item))

    return decide


def _with_item(current: Current, path: str, item: Json, limits: Storage) -> Content:
    name = current.key.name
    empty: Json = {} if path else []
    old = empty if current.content is None else current.value()
    try:
        items = value_at(old, path, name)
    except PathNotFound:
        items = []
    if not isinstance(items, list):
        raise PathNotFound(
            f"{name} has no list at {path}: its value is of type {_kind(items)}. Nothing changed.",
            hint="Name the list, such as `/items`.",
            document=name,
            path=path,
        )
    return checked_content(encode_decoded(replaced_at(old, path, [*items, item], name)), limits)


def update(
    function: Callable[[Any], object],
    limits: Storage,
    *,
    if_match: IfMatch = None,
    backup: bool = True,
    guard: Guard | None = None,
) -> Decide:
    """Apply a pure function to the value (`{}` if there is no document); answers as `save` does."""

    def decide(current: Current) -> Decision:
        before = current.sound()
        check_match(current, if_match)
        with turn():
            value = function({} if before is None else decode(before.data))
        answer = CREATED if before is None else None
        put = Put(content=content_of(value, limits), backup=backup, answer=answer)
        return _guarded(current, put, guard)

    return decide


def delete(*, if_match: IfMatch = None, also: tuple[Change, ...] = ()) -> Decide:
    """Remove the document; its content is kept as its newest backup."""

    def decide(current: Current) -> Decision:
        if current.content is None and current.failure is None:
            raise not_found(current.key.name)
        _refuse_unreadable(current)
        check_match(current, if_match)
        return Remove(also=also, answer=_kept_in(current))

    return decide


def purge(*, has_backups: bool, if_match: IfMatch = None, also: tuple[Change, ...] = ()) -> Decide:
    """Erase the document, its backups and its quarantined bytes."""

    def decide(current: Current) -> Decision:
        if current.content is None and current.failure is None and not has_backups:
            raise not_found(current.key.name)
        check_match(current, if_match)
        return Remove(purge=True, also=also)

    return decide


def reset(current: Current) -> Decision:
    """Give up a broken document; its bytes go to quarantine."""
    if current.failure is None:
        if current.content is None:
            raise not_found(current.key.name)
        raise InvalidRequest(
            f"{current.key.name} is sound; `reset` only gives up a broken document.",
            hint="Use `delete` to remove it, or `restore` to go back to a backup.",
        )
    return Remove(answer=_kept_in(current))


class RestorePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore does: its backup, the content before and after, and where the first is kept.

    `before` is None if there is no document, or if it is broken.
    """

    backup: Backup
    before: Content | None
    after: Content
    kept_in: KeptIn


def restore(
    backup: str | None,
    limits: Storage,
    *,
    path: str = "",
    if_match: IfMatch = None,
    guard: Guard | None = None,
) -> Decide:
    """Go back to a backup: the one named, or the newest sound one that differs from now.

    `path`, a JSON Pointer, takes only that value from the backup. The answer is a RestorePlan.
    """

    def decide(current: Current) -> Decision:
        _refuse_unreadable(current)
        if current.content is None and current.failure is None and not any(current.backups()):
            raise _nothing_of(current.key.name)
        check_match(current, if_match)
        chosen, content = _newest(current) if backup is None else _named(current, backup)
        kept_in = _kept_in(current)
        plan = RestorePlan(
            backup=chosen,
            before=current.content if kept_in == "backups" else None,
            after=_with_path(current, chosen, content, path, limits) if path else content,
            kept_in=kept_in,
        )
        put = Put(content=plan.after, always=True, alone=True, answer=plan)
        return _guarded(current, put, guard)

    return decide


def _with_path(
    current: Current, backup: Backup, content: Content, path: str, limits: Storage
) -> Content:
    """Return the current content with the backup's value at a path."""
    name = current.key.name
    if current.sound() is None:
        raise PathNotFound(
            f"There is no document {name}, so no part of it can be restored.",
            hint=f"Restore it whole: `seline restore {name} {backup.name}`.",
            document=name,
        )
    value = value_at(decode(content.data), path, backup.name)
    new = replaced_at(current.value(), path, value, name)
    return content_of(new, limits)


def put_imported(content: Content, *, guard: Guard | None = None) -> Decide:
    """Put an imported content in place; a broken document is replaced."""

    def decide(current: Current) -> Decision:
        _refuse_unreadable(current)
        return _guarded(current, Put(content=content, alone=True), guard)

    return decide


def put_copied(content: Content) -> Decide:
    """Put a content of a copy in place, also on a full volume; what is there becomes a backup."""

    def decide(current: Current) -> Decision:
        _refuse_unreadable(current)
        return Put(content=content, always=True, alone=True)

    return decide


def delete_if_there(current: Current) -> Decision:
    """Remove a document that an import does not name."""
    _refuse_unreadable(current)
    there = current.content is not None or current.failure is not None
    return Remove() if there else Leave()


def check_match(current: Current, if_match: IfMatch) -> None:
    """Raise RevisionMismatch unless the caller named the current revision (V6)."""
    if if_match is None:
        return
    revision = None if current.content is None else current.content.revision
    name = current.key.name
    if if_match is ABSENT:
        if revision is not None or current.failure is not None:
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
    """Return the put; one that removes most of the document keeps and pins its content (V11).

    `alone`: that content may come from the same batch, so it is published first.
    """
    before = current.content
    if guard is None or before is None:
        return put
    also = guard(before, put.content, current.now, changed)
    return msgspec.structs.replace(put, backup=True, alone=True, also=also) if also else put


def _refuse_unreadable(current: Current) -> None:
    """Raise the error of a file that the disk does not let be read; only `reset` moves it."""
    if isinstance(current.failure, DocumentUnreadable):
        raise current.failure


def _kept_in(current: Current) -> KeptIn:
    """Return where the content that a change replaces is kept."""
    if current.failure is not None or current.recovered_from is not None:
        return "quarantine"
    return "nowhere" if current.content is None else "backups"


def not_found(name: str) -> DocumentNotFound:
    """Return the error for a document that does not exist."""
    return DocumentNotFound(f"There is no document {name}.", document=name)


def _nothing_of(name: str) -> BackupNotFound:
    message = f"There is no document {name}, and no backup of one."
    return BackupNotFound(message, hint="`seline documents` lists the names.", document=name)


def _newest(current: Current) -> tuple[Backup, Content]:
    """Return the newest sound backup that differs from now; of a broken document, the newest."""
    content = None if current.recovered_from is not None else current.content
    unlike = None if content is None else content.revision
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
        f"{current.key.name} has no backup {name or repr(name)}.",
        document=current.key.name,
        backup=name,
    )


def _kind(value: Json) -> str:
    words: dict[type, str] = {
        dict: "object",
        list: "list",
        str: "text",
        bool: "boolean",
        type(None): "null",
    }
    return words.get(type(value), "number")
