"""The difference between two contents of a document, wherever they are kept.

A content is named `current`, by a backup's name, `quarantine:ITEM`, `copy:DESTINATION` (its newest
copy), `copy:DESTINATION@INSTANT` (the last one until then) or `copy:DESTINATION@COPY`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from seline import collector
from seline.clock import parse_instant
from seline.domain.backup import parse_backup_name
from seline.domain.copy import Copy
from seline.domain.difference import Difference, difference_of
from seline.domain.document import Content, DocumentKey, Revision, bot_document
from seline.domain.json_codec import NotJson, decode_given, normalised
from seline.domain.recovery import choose_backup
from seline.errors import (
    BackupNotFound,
    CopyNotFound,
    DocumentNotFound,
    ExportDamaged,
    InvalidRequest,
)
from seline.manager.changes import not_found
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import backup_content, served_content
from seline.operations.copies import Copies
from seline.ports.medium import not_in_quarantine

CURRENT: Final = "current"
QUARANTINE: Final = "quarantine:"
COPY: Final = "copy:"
INLINE_BYTES_MAX: Final = 16 << 10
"""Contents of at most this size are compared at once."""
_thread: Final = ThreadPoolExecutor(1, thread_name_prefix="seline-difference")
"""One comparison at a time: two large contents are in memory, and no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedContent:
    """One side of a comparison. `revision` is None if the document does not exist there."""

    content: str
    revision: Revision | None
    taken_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The difference between two contents of a document."""

    document: str
    before: ComparedContent
    after: ComparedContent
    difference: Difference


async def compare_contents(
    store: ManagedStore, copies: Callable[[str], Copies], name: str, before: str, after: str
) -> Comparison:
    """Compare two contents of a document; an empty `before` is the newest backup that differs.

    A document that does not exist is compared as one that has nothing, unless it has no backup
    either. Raises DocumentNotFound, BackupNotFound, CopyNotFound, DestinationNotFound,
    InvalidRequest for a content that is not JSON, and what reading each raises.
    """
    key = bot_document(name)
    to, after_content = await _content(store, copies, key, after)
    if before:
        of, before_content = await _content(store, copies, key, before)
    else:
        of, before_content = await _newest_backup(store, key, to.revision)
    if before_content is None and after_content is None:
        raise not_found(name)
    found = await difference_between(before_content, after_content)
    return Comparison(document=name, before=of, after=to, difference=found)


async def difference_between(before: Content | None, after: Content | None) -> Difference:
    """Compare two contents without delaying the event loop; None is a missing document."""

    def compare() -> Difference:
        with collector.paused():
            return difference_of(_text(before), _text(after))

    size_bytes = sum(content.size_bytes for content in (before, after) if content is not None)
    if size_bytes <= INLINE_BYTES_MAX:
        return compare()
    return await asyncio.get_running_loop().run_in_executor(_thread, compare)


def _text(content: Content | None) -> bytes | None:
    """Return a content without the byte order mark that a hand edit may have."""
    return None if content is None else normalised(content.data)


async def _content(
    store: ManagedStore, copies: Callable[[str], Copies], key: DocumentKey, named: str
) -> tuple[ComparedContent, Content | None]:
    taken_at: datetime | None = None
    if named == CURRENT:
        content = await served_content(store, key)
    elif named.startswith(QUARANTINE):
        content, taken_at = await _quarantined(store, key, named.removeprefix(QUARANTINE))
    elif named.startswith(COPY):
        content, taken_at = await _copied(copies, key, named.removeprefix(COPY))
    else:
        content = await backup_content(store, key, named)
        parsed = parse_backup_name(named)
        taken_at = parsed[1].instant if parsed else None
    revision = None if content is None else content.revision
    return ComparedContent(content=named, revision=revision, taken_at=taken_at), content


async def _newest_backup(
    store: ManagedStore, key: DocumentKey, unlike: Revision | None
) -> tuple[ComparedContent, Content]:
    opened = await store.open()
    choice = await store.reading(
        lambda: choose_backup(
            ((backup, opened.read_backup(key, backup.name)) for backup in opened.backups(key)),
            unlike=unlike,
        )
    )
    if choice.chosen is None:
        raise BackupNotFound(
            f"{key.name} has no sound backup that differs from what it is compared with.",
            document=key.name,
            backups=choice.reasons(),
        )
    backup, content = choice.chosen
    side = ComparedContent(content=backup.name, revision=content.revision, taken_at=backup.taken_at)
    return side, content


async def _quarantined(
    store: ManagedStore, key: DocumentKey, item: str
) -> tuple[Content, datetime]:
    opened = await store.open()
    items = {kept.name: kept for kept in await store.reading(opened.medium.quarantine)}
    if item not in items or items[item].document != key.name:
        raise not_in_quarantine(item)
    data = await store.reading(lambda: opened.medium.read_quarantine(item))
    try:
        return await _checked(data), items[item].taken_at
    except NotJson as error:
        raise InvalidRequest(
            f"{item} is not JSON: {error}. So it cannot be compared.",
            hint=f"To see its bytes: `seline quarantine {item}`.",
            line=error.line,
            column=error.column,
        ) from error


async def _copied(
    copies: Callable[[str], Copies], key: DocumentKey, named: str
) -> tuple[Content, datetime]:
    destination, _, which = named.partition("@")
    copy = await _copy(copies(destination), destination, which)
    digest = next((entry.sha256 for entry in copy.documents if entry.name == key.name), "")
    if not digest:
        raise DocumentNotFound(
            f"The copy {copy.name} at {destination} has no document {key.name}.",
            hint=f"`seline exports list {destination}` shows the copies there.",
            document=key.name,
        )
    try:
        return await _checked(await copy.fetch(digest)), copy.taken_at
    except NotJson as error:
        raise ExportDamaged(f"{key.name} in {copy.name} is not JSON: {error}.") from error


async def _checked(data: bytes) -> Content:
    """Return bytes of unknown origin as a content. Raises NotJson."""
    text = normalised(data)

    def check() -> None:
        with collector.paused():
            decode_given(text)

    await asyncio.get_running_loop().run_in_executor(_thread, check)
    return Content.of(text)


async def _copy(found: Copies, destination: str, which: str) -> Copy:
    """Open the newest copy, the last one until an instant, or the one of a name."""
    if not which:
        return await found.find()
    try:
        return await found.find(at=parse_instant(which))
    except ValueError:
        info = next((info for info in await found.listed() if info.name == which), None)
    if info is None:
        raise CopyNotFound(f"{destination} has no copy {which}.", destination=destination)
    return await found.open(info)
