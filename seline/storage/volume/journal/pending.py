"""The documents that the journal has, and whose files or backups are not written yet.

V3  Readers are answered from the overlay until the document's file is written.
V7  What the journal has cannot be refused any more. If a file cannot be written, its content is
    served from the overlay, an incident names it, and it is tried again.

A file is written at most `publish_within_s` after the change; the backups of a document that goes
on changing follow within BACKUPS_WITHIN_S.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from seline.clock import Clock
from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentKey
from seline.errors import StorageError
from seline.storage.planner import Publish
from seline.storage.volume.commit.overlay import Overlay
from seline.storage.volume.commit.staging import Published
from seline.storage.volume.journal.codec import JournalChange, change_of
from seline.storage.volume.journal.publishing import Earlier, Publisher, Unpublished
from seline.storage.volume.os_errors import StagingFailed, is_full

RETRY_S: Final = 1.0
BACKUPS_WITHIN_S: Final = 1.0
PUBLISH_FOR_S: Final = 0.005
"""After this time the batches that wait have a turn, and the other documents are published then."""
EARLIER_BYTES_MAX: Final = 8 << 20
"""The contents of one document that wait in memory for their backups."""


@dataclass(slots=True, kw_only=True)
class PendingDocuments:
    """Publishes documents when they are due. `on_published` is called after each of them.

    `due_at_s` is the monotonic time at which the next one is due, infinite if there is none.
    """

    publisher: Publisher
    overlay: Overlay
    clock: Clock
    within_s: float
    disk_error: Callable[[OSError | StorageError, str, Sequence[DocumentKey]], None]
    release_reserve: Callable[[], bool]
    rotate: Callable[[Unpublished, Sequence[Backup]], None]
    on_published: Callable[[DocumentKey, Unpublished, Published], None]
    due_at_s: float = math.inf
    _documents: dict[DocumentKey, Unpublished] = field(
        default_factory=dict[DocumentKey, Unpublished]
    )
    _failing: set[DocumentKey] = field(default_factory=set[DocumentKey])

    @property
    def keys(self) -> Collection[DocumentKey]:
        """The documents of which something is not written yet."""
        return self._documents.keys()

    @property
    def documents(self) -> list[Unpublished]:
        """The same, with their contents."""
        return list(self._documents.values())

    @property
    def failing(self) -> Collection[DocumentKey]:
        """The documents whose files could not be written."""
        return self._failing

    def waiting(self, key: DocumentKey) -> Unpublished | None:
        """Return the document if its file is not written yet."""
        document = self._documents.get(key)
        return None if document is None or document.is_current else document

    def last_backup(self, key: DocumentKey) -> list[Backup]:
        """Return the newest backup of a document that is not written yet, if there is one."""
        document = self._documents.get(key)
        return [last.backup for last in document.earlier[-1:]] if document else []

    def add(self, publish: Publish, backup: Backup | None, now: datetime, at_ns: int) -> None:
        """Hold a durable change in the overlay, until it is published."""
        key, before, now_s = publish.key, publish.found.content, self.clock.monotonic()
        document = self._documents.get(key)
        if document is None:
            document = self._documents[key] = Unpublished(
                found=publish.found, content=publish.content, at=now, at_ns=at_ns,
                since_s=now_s, backups_since_s=now_s,
            )  # fmt: skip
        elif document.is_current:
            document.found, document.since_s, document.is_current = publish.found, now_s, False
        document.content, document.at, document.at_ns = publish.content, now, at_ns
        document.retain = publish.retain or document.retain
        if backup is not None and before is not None:
            document.earlier.append(Earlier(backup, before))
            if document.earlier_bytes > EARLIER_BYTES_MAX:
                self.publisher.prune(document)
                if document.earlier_bytes > EARLIER_BYTES_MAX:
                    document.since_s = document.backups_since_s = -math.inf
        self.due_at_s = min(self.due_at_s, self._due_of(document))
        self.overlay.hold(key, publish.content, now)

    def publish_all(self, now: datetime) -> None:
        """Publish every document; one that cannot be published stays in the overlay."""
        for document in self.documents:
            self._publish(document, now, backups=True)
        self._plan_next()

    def publish_due(self, now_s: float, now: datetime) -> None:
        """Publish what is due, for PUBLISH_FOR_S at most: the next call goes on."""
        for document in self.documents:
            if self._due_of(document) <= now_s:
                is_late = document.backups_since_s + BACKUPS_WITHIN_S <= now_s
                self._publish(document, now, backups=is_late or document.can_be_linked)
                if self.clock.monotonic() > now_s + PUBLISH_FOR_S:
                    break
        self._plan_next()

    def clear(self) -> None:
        """Forget every document."""
        self._documents.clear()
        self._failing.clear()
        self.due_at_s = math.inf

    def stuck(self, keys: Collection[DocumentKey]) -> StagingFailed:
        """Return the error for changes that wait for these documents, which cannot be written."""
        document = self._documents[min(keys)]
        error = document.error or OSError("what was saved before is not in its file yet")
        return StagingFailed(error, f"Publishing {document.key.name}")

    def _due_of(self, document: Unpublished) -> float:
        """Return the monotonic time at which something of a document is to be written."""
        if document.failed_at_s is not None:
            return document.failed_at_s + RETRY_S
        if document.is_current:
            return document.backups_since_s + BACKUPS_WITHIN_S
        return document.since_s + self.within_s

    def _plan_next(self) -> None:
        self.due_at_s = min(map(self._due_of, self._documents.values()), default=math.inf)

    def _publish(self, document: Unpublished, now: datetime, *, backups: bool) -> None:
        """Write a document's file, and its `backups`; what fails is tried again later."""
        self.publisher.retry(now)
        key = document.key
        with self.publisher.current_documents.writing():
            try:
                published = self._published(document, now, backups=backups)
            except (OSError, StorageError) as error:
                if document.failed_at_s is None:
                    self.disk_error(error, f"Publishing {key.name}", [key])
                document.failed_at_s = self.clock.monotonic()
                document.error = error if isinstance(error, OSError) else OSError(error.message)
                self._failing.add(key)
                return
            self.on_published(key, document, published)
            self._settle(document, published, backups=backups)

    def _published(self, document: Unpublished, now: datetime, *, backups: bool) -> Published:
        """Publish a document; a full volume gives up its reserve."""
        try:
            return self.publisher.publish(document, now, backups=backups)
        except (OSError, StorageError) as error:
            if not (is_full(error) and self.release_reserve()):
                raise
            return self.publisher.publish(document, now, backups=backups)

    def _settle(self, document: Unpublished, published: Published, *, backups: bool) -> None:
        key = document.key
        self.overlay.release(key)
        self._failing.discard(key)
        document.failed_at_s = None
        if backups or not document.earlier:
            del self._documents[key]
            self.rotate(document, published.backups)
        else:
            document.is_current = True


def carried(document: Unpublished) -> list[JournalChange]:
    """Return the changes of a document that could not be published, for the next file."""
    steps: list[tuple[Content | None, str]] = [(document.found.content, "")]
    for backup, content in document.earlier:
        if content is document.found.content:
            steps[0] = content, backup.name
        else:
            steps.append((content, backup.name))
    afters = [content for content, _ in steps[1:]] + [document.content]
    return [
        change_of(
            document.key, before, after, document.at_ns, with_image=number == 0, backup=backup
        )
        for number, ((before, backup), after) in enumerate(zip(steps, afters, strict=True))
    ]
