"""Publish documents that the journal has: write their files, without a sync.

V1  One rename or exchange replaces a document; nothing is written in place.
V2  The backups that retention keeps are written before the document is replaced.
Several changes of a document are published together: the last content, and the backups that
retention keeps of those before. The backups of a document that changes all the time are written
later than its file, so that few of them are written in vain. A hand edit that the exchange
displaces is kept as a backup.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentKey
from seline.domain.verdict import Judged, Verdict
from seline.ports.store import Retain
from seline.storage.planner import Found, Publish
from seline.storage.volume import files
from seline.storage.volume.commit.preserve import Preserver
from seline.storage.volume.commit.staging import Published, Staged, Staging, as_staged
from seline.storage.volume.commit.sync import Syncer
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.journal.codec import DroppedBackup
from seline.storage.volume.os_errors import LookAgain


class Earlier(NamedTuple):
    """A content that the journal has, and the backup that it becomes."""

    backup: Backup
    content: Content


@dataclass(slots=True, kw_only=True)
class Unpublished:
    """A document of which something is in the journal, and not in its file or backups yet.

    `found` is the file as the first change judged it, `content` what the last one made of it (None:
    removed), `earlier` what is to become backups, oldest first. `since_s` is the monotonic time of
    the first change, `backups_since_s` that of the first change whose backup is not written;
    `failed_at_s` that of the last attempt to publish it, if that failed, and `error` why.
    `is_current`: the file is written, and only backups are not.
    """

    found: Found
    content: Content | None
    at: datetime
    at_ns: int
    since_s: float
    backups_since_s: float
    earlier: list[Earlier] = field(default_factory=list[Earlier])
    retain: Retain | None = None
    failed_at_s: float | None = None
    error: OSError | None = None
    is_current: bool = False

    @property
    def key(self) -> DocumentKey:
        return self.found.key

    @property
    def can_be_linked(self) -> bool:
        """Whether the file that is replaced is the only backup to make."""
        return len(self.earlier) == 1 and self.earlier[0].content is self.found.content

    @property
    def earlier_bytes(self) -> int:
        """About how many bytes wait to become backups."""
        return len(self.earlier) * self.earlier[-1].content.size_bytes if self.earlier else 0

    def as_found(self) -> Found:
        """Return the document as the next change finds it; it has no token of a file."""
        verdict = Verdict.MISSING if self.content is None else Verdict.SOUND
        return Found(
            key=self.key,
            judged=Judged(verdict, self.content),
            content=self.content,
            updated_at=self.at,
        )


@dataclass(slots=True)
class Publisher:
    """Writes the files of unpublished documents. Only the writer's thread comes here."""

    current_documents: CurrentDocuments
    staging: Staging
    preserver: Preserver
    syncer: Syncer
    before_replacing: Callable[[DocumentKey], None]
    dropped: list[DroppedBackup] = field(default_factory=list[DroppedBackup])
    """The backups that were not written; the next batch records them."""

    def publish(self, document: Unpublished, now: datetime, *, backups: bool) -> Published:
        """Write a document's file, if it is not current, and its `backups`; return what was made.

        What is displaced is removed, or kept if it is not the file that was judged.

        Raises OSError or StorageError: then the document's file is as it was.
        """
        staged = Staged(publish=_as_publish(document))
        try:
            kept = self._kept(document) if backups else []
            if not document.is_current:
                staged = self.staging.stage(staged.publish, document.at_ns)
            for backup, content in kept:
                staged = self._keep(staged, backup, content)
            while staged.copies:
                staged = self._shelve(staged)
            if document.is_current:
                published = Published(staged=staged)
            else:
                self.before_replacing(document.key)
                published = self.staging.publish(staged)
        except BaseException:
            self.staging.remove_names(staged)
            _close(staged)
            raise
        try:
            if not document.is_current:
                self._remember(staged, document)
        finally:
            _close(staged)
        return self._finish(published, document.key, now)

    def retry(self, now: datetime) -> None:
        """Try again what could not be removed, or kept, when documents were published before."""
        self.staging.retry_removals()
        self.preserver.retry(now)

    def prune(self, document: Unpublished) -> None:
        """Forget the earlier contents that retention does not keep."""
        if document.retain is None or len(document.earlier) < 2:
            return
        key = document.key
        known = self.current_documents.backup_index(key.space).of(key.name)
        revision = None if document.content is None else document.content.revision
        new = [earlier.backup for earlier in document.earlier]
        dropped = {backup.name for backup in document.retain([*known, *new], revision).drop}
        gone = {backup.name for backup in new[:-1] if backup.name in dropped}
        self.dropped += [DroppedBackup(key.space, name) for name in gone]
        document.earlier = [kept for kept in document.earlier if kept.backup.name not in gone]

    def _kept(self, document: Unpublished) -> list[Earlier]:
        """Return the backups to make; a name that another file has by now is replaced."""
        self.prune(document)
        key, index = document.key, self.current_documents.backup_index(document.key.space)
        known = index.of(key.name)
        taken, kept = {backup.name for backup in known}, list[Earlier]()
        for earlier in document.earlier:
            if earlier.backup.name not in taken:
                kept.append(earlier)
                continue
            after = [part.backup for part in kept]
            at = earlier.backup.taken_at
            backup = index.next_backup(key.name, earlier.content, at, after)
            kept.append(Earlier(backup, earlier.content))
        return kept

    def _keep(self, staged: Staged, backup: Backup, content: Content) -> Staged:
        """Link the file that is replaced, or write another content."""
        linked = None
        if content is staged.found.content and self.staging.capabilities.links:
            linked = self.preserver.link_as(staged, backup)
        return linked or self.staging.copy(staged, content, backup)

    def _shelve(self, staged: Staged) -> Staged:
        try:
            return self.staging.shelve(staged)
        except LookAgain as error:
            raise FileExistsError(f"{staged.copies[0][1].name} exists") from error

    def _remember(self, staged: Staged, document: Unpublished) -> None:
        key, inspector = document.key, self.current_documents.inspector
        if staged.file is None or document.content is None:
            inspector.removed(key)
            self.syncer.forget(key)
        else:
            identity = as_staged(staged.file, document.content)
            self.syncer.remember(key, identity)
            inspector.written(key, identity, document.content)

    def _finish(self, published: Published, key: DocumentKey, now: datetime) -> Published:
        for backup in published.backups:
            self.current_documents.backup_index(key.space).added(backup)
        return self.preserver.dispose(published, now) if published.displaced else published


def _as_publish(document: Unpublished) -> Publish:
    return Publish(
        key=document.key, found=document.found, content=document.content, backup=True,
        purge=False, always=False, retain=None,
    )  # fmt: skip


def _close(staged: Staged) -> None:
    for descriptor in staged.descriptors:
        files.close(descriptor)
