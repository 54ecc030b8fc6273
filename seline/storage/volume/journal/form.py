"""Commit by a journal: a batch is durable after one write and one sync; its files follow.

V2  The journal has the content before each change, until it is durable as a backup.
V3  The sync of the journal is the commit point. Readers are answered from the overlay until the
    document's file is written.
V5  The changes of a batch are one record: after a crash all of them are replayed, or none.
V7  What the journal has cannot be refused any more. If a file cannot be written, its content is
    served from the overlay, an incident names it, and it is tried again.

    commit      append to the journal, hold in the overlay, answer
    publish     at most `publish_within_s` later: write the files, without a sync; the backups of a
                document that goes on changing follow within BACKUPS_WITHIN_S
    checkpoint  when the file is full, or after CHECKPOINT_AFTER_S: the other file takes the
                batches; the published files are synced on another thread; the file is clean

Plain changes go through the journal if they fit into one batch: what differs from the content
before, and that content itself once in each file. Every other change (a recovery, an adopted edit,
a purge) is committed by the first form, after the journal has given up the documents concerned: at
each moment one of the two is responsible for a document.

`journal` has the two files, `codec` their format, `publishing` writes the documents, and
`replaying` follows a crash. Only the writer's thread comes here.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from seline.clock import Clock
from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentKey, Revision
from seline.domain.incident import Incident
from seline.domain.verdict import Verdict
from seline.errors import StorageError
from seline.ports.medium import Capability
from seline.ports.store import AddedBackup
from seline.storage.planner import Found, Plan, Publish
from seline.storage.volume import files
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit.base import Committed
from seline.storage.volume.commit.exchange_form import ExchangeCommitter
from seline.storage.volume.commit.overlay import Overlay
from seline.storage.volume.commit.staging import Published
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.journal.checkpoint import Touched, sync_published
from seline.storage.volume.journal.codec import Batch, JournalChange, change_of, size_of
from seline.storage.volume.journal.journal import (
    JOURNAL_NAMES,
    Journal,
    JournalFile,
    allocate_journal_files,
    open_journal_files,
    opened_journal_files,
)
from seline.storage.volume.journal.publishing import Earlier, Publisher, Unpublished
from seline.storage.volume.journal.replaying import JournalReplay
from seline.storage.volume.os_errors import (
    CommitFailed,
    DirectoryFailed,
    InDoubt,
    LookAgain,
    StagingFailed,
    describe,
    is_full,
    raising,
)

CHECKPOINT_AFTER_S: Final = 30.0
RETRY_S: Final = 1.0
BACKUPS_WITHIN_S: Final = 1.0
PUBLISH_FOR_S: Final = 0.005
"""After this time the batches that wait have a turn, and the other documents are published then."""
EARLIER_BYTES_MAX: Final = 8 << 20
"""The contents of one document that wait in memory for their backups."""
SHARE_OF_THE_VOLUME: Final = 16
SMALL: Final = "the volume is too small for a journal"
CHOSEN: Final = "no journal, as `seline migrate` chose"
IN_USE: Final = "a journal"
CARRIED_BATCHES_MAX: Final = 2
"""Of the four that a file has room for: one more must always fit beside them."""

_log = logging.getLogger("seline.storage")


@dataclass(slots=True)
class _Responsible:
    """The documents that one journal file has, and the files to sync before it is clean."""

    keys: dict[DocumentKey, Revision | None] = field(
        default_factory=dict[DocumentKey, "Revision | None"]
    )
    touched: set[Touched] = field(default_factory=set[Touched])
    since_s: float = 0.0


class JournalCommitter:
    """The second commit form: a `Committer` with a journal before the first form."""

    def __init__(
        self,
        first: ExchangeCommitter,
        *,
        volume: VolumeDirectory,
        capabilities: Capabilities,
        current_documents: CurrentDocuments,
        clock: Clock,
        journal_bytes: int,
        limit_bytes: int | None,
        publish_within_s: float,
        report: Callable[[Incident], None],
        disk_error: Callable[[OSError | StorageError, str, Sequence[DocumentKey]], None],
        release_reserve: Callable[[], bool],
        make_room: Callable[[int], bool],
        before_replacing: Callable[[DocumentKey], None],
        rotate: Callable[[Unpublished, Sequence[Backup]], None],
    ) -> None:
        """Commit on a held volume. `rotate` is called after each document is published.

        `make_room` frees space for a replay that meets a full disk, until it returns False.
        """
        self.first = first
        self._volume = volume
        self._capabilities = capabilities
        self._current_documents = current_documents
        self._clock = clock
        self._journal_bytes = journal_bytes
        self._limit_bytes = limit_bytes
        self._publish_within_s = publish_within_s
        self._disk_error = disk_error
        self._release_reserve = release_reserve
        self._rotate = rotate
        self._publisher = Publisher(
            current_documents, first.staging, first.preserver, first.syncer, before_replacing
        )
        self._replay = JournalReplay(volume, current_documents, report, capabilities, make_room)
        self._journal: Journal | None = None
        self._why_without = ""
        self._unpublished: dict[DocumentKey, Unpublished] = {}
        self._failing: set[DocumentKey] = set()
        self._unreplayed: Sequence[DocumentKey] = ()
        self._due_at_s = math.inf
        self._active = _Responsible()
        self._ending = _Responsible()
        self._checkpoint: Future[None] | None = None
        self._pool: ThreadPoolExecutor | None = None

    # the interface

    @property
    def overlay(self) -> Overlay:
        return self.first.overlay

    @property
    def form(self) -> Capability:
        if self._journal is None:
            detail = self._why_without or "each change is synced in its files"
            is_as_wanted = not self._why_without
            return Capability(name="commit", present=is_as_wanted, detail=detail, harmless=True)
        return Capability(name="commit", present=True, detail=IN_USE)

    @property
    def is_behind(self) -> bool:
        return bool(self._unpublished)

    @property
    def unpublished(self) -> Sequence[DocumentKey]:
        return (*self._unreplayed, *self._failing)

    def found(self, key: DocumentKey) -> Found | None:
        waiting = self._waiting(key)
        return None if waiting is None else waiting.as_found()

    def _waiting(self, key: DocumentKey) -> Unpublished | None:
        """Return the document if its file is not written yet."""
        document = self._unpublished.get(key)
        return None if document is None or document.is_current else document

    def commit(self, plan: Plan, *, now: datetime) -> Committed:
        self._check_checkpoint()
        journal = self._journal
        if journal is None or not all(map(self._is_plain, plan.publishes)):
            self._give_up(plan, now)
            return self.first.commit(plan, now=now)
        self._refuse_stale(plan.publishes)
        if not self._is_found_durable(plan.publishes):
            self._give_up(plan, now)
            return self.first.commit(plan, now=now)
        at_ns = time.time_ns()
        backups = self._backups(plan.publishes, now)
        changes = self._changes(plan.publishes, backups, at_ns, journal.batch_bytes_max)
        if changes is None:
            self._give_up(plan, now)
            return self.first.commit(plan, now=now)
        if not journal.has_room_for(size_of(changes)):
            self._switch(now)
            raise LookAgain
        journal.append(self._batch(changes))
        for publish in plan.publishes:
            self._note(publish, backups.get(publish.key), now, at_ns)
        if not self._publish_within_s:
            try:
                self.settle(now)
            except CommitFailed as error:
                raise InDoubt(error.error, error.doing, committed=True) from error
        return Committed(backups=backups)

    def add_backups(self, added: Sequence[tuple[Backup, AddedBackup]]) -> None:
        self.first.add_backups(added)

    def make_durable(self, found: Sequence[Found]) -> None:
        self.first.make_durable([item for item in found if self._waiting(item.key) is None])

    def recover(self, now: datetime, *, again: bool = False) -> frozenset[DocumentKey]:
        self._end_checkpoint()
        self._forget()
        with opened_journal_files(self._volume) as opened:
            completed = self._replay.run(opened, now)
            completed |= self.first.recover(now, again=again)
        self._unreplayed = ()
        self._journal = self._begin()
        return completed

    def hold_unfinished(self) -> None:
        with (
            raising(self._volume.named, "Reading the journal"),
            opened_journal_files(self._volume) as opened,
        ):
            for file in opened:  # a kill may have come before its sync
                files.sync_data(file.descriptor)
            self._replay.hold(opened, self.overlay)
        self._unreplayed = self.overlay.unpublished
        self.first.hold_unfinished()

    def recommit(self, found: Sequence[Found], now: datetime) -> None:
        written = self._replay.written
        self.first.recommit([item for item in found if item.key not in written], now)

    def leftovers(self) -> Sequence[str]:
        return self.first.leftovers()

    def settle(self, now: datetime) -> None:
        """Publish every document; one that cannot be published stays in the overlay."""
        for document in list(self._unpublished.values()):
            self._publish(document, now, backups=True)
        self._plan_next()

    def tend(self, now: datetime) -> float | None:
        self._check_checkpoint()
        now_s, journal = self._clock.monotonic(), self._journal
        if self._due_at_s <= now_s:
            self._publish_due(now_s, now)
        wait_s = max(0.0, self._due_at_s - now_s)
        if self._checkpoint is not None:
            wait_s = min(wait_s, RETRY_S)
        if journal is not None and not journal.active.header.is_clean:
            left_s = self._active.since_s + CHECKPOINT_AFTER_S - now_s
            if left_s <= 0 or not journal.has_room_for(journal.batch_bytes_max):
                with suppress(StagingFailed):
                    self._switch(now)
                left_s = RETRY_S
            wait_s = min(wait_s, left_s)
        return None if wait_s == math.inf else wait_s

    def close(self) -> None:
        with suppress(OSError, StorageError, CommitFailed, LookAgain):
            self._drain(self._clock.now())
        self._end_checkpoint()
        if self._pool is not None:
            self._pool.shutdown()
        self._forget()
        self.first.close()

    # what goes through the journal

    def _is_plain(self, publish: Publish) -> bool:
        found = publish.found
        if publish.purge or publish.keeps_file or found.broken or found.removed or found.unsaved:
            return False
        judged = found.judged
        return judged.original is None and judged.verdict in (Verdict.SOUND, Verdict.MISSING)

    def _refuse_stale(self, publishes: Sequence[Publish]) -> None:
        """Raise LookAgain for a document that was published after it was found."""
        for publish in publishes:
            is_stale = publish.found.token is None and self._waiting(publish.key) is None
            if is_stale and publish.found.judged.verdict is Verdict.SOUND:
                raise LookAgain

    def _is_found_durable(self, publishes: Sequence[Publish]) -> bool:
        """Sync what was found, once: a replay must not meet what was there before it.

        Returns False if a file cannot be synced: the first form copies it. Raises DirectoryFailed.
        """
        found = [item.found for item in publishes if self._waiting(item.key) is None]
        try:
            for item in found:
                self.first.syncer.make_file_durable(item)
        except OSError:
            return False
        self.first.make_durable(found)
        missing = {item.key.space for item in found if self._is_new(item)}
        spaces = missing.intersection(self._volume.spaces)
        self.first.syncer.sync_directories(map(self._volume.documents, spaces), "Syncing a name")
        return True

    def _is_new(self, found: Found) -> bool:
        return found.judged.verdict is Verdict.MISSING and found.key not in self._active.keys

    def _backups(self, publishes: Sequence[Publish], now: datetime) -> dict[DocumentKey, Backup]:
        backups: dict[DocumentKey, Backup] = {}
        for publish in publishes:
            key, before = publish.key, publish.found.content
            if before is not None and publish.backup:
                index = self._current_documents.backup_index(key.space)
                unpublished = self._unpublished.get(key)
                after = [last.backup for last in unpublished.earlier[-1:]] if unpublished else []
                backups[key] = index.next_backup(key.name, before, now, after)
        return backups

    def _changes(
        self,
        publishes: Sequence[Publish],
        backups: Mapping[DocumentKey, Backup],
        at_ns: int,
        bytes_max: int,
    ) -> list[JournalChange] | None:
        """Return the changes as the journal has them, None if they are too large for a batch."""
        changes: list[JournalChange] = []
        for publish in publishes:
            change = self._change(publish, backups.get(publish.key), at_ns)
            if size_of([change]) > bytes_max:
                return None
            changes.append(change)
        return changes if size_of(changes) <= bytes_max else None

    def _change(self, publish: Publish, backup: Backup | None, at_ns: int) -> JournalChange:
        key, before = publish.key, publish.found.content
        is_known = before is None or self._active.keys.get(key) == before.revision
        return change_of(
            key, before, publish.content, at_ns,
            with_image=not is_known, backup=backup.name if backup else "",
        )  # fmt: skip

    def _batch(self, changes: Sequence[JournalChange]) -> Batch:
        dropped = tuple(self._publisher.dropped)
        self._publisher.dropped.clear()
        if not self._active.keys:
            self._active.since_s = self._clock.monotonic()
        return Batch(changes=tuple(changes), dropped=dropped)

    def _note(self, publish: Publish, backup: Backup | None, now: datetime, at_ns: int) -> None:
        """Hold a durable change in the overlay, until it is published."""
        key, before, now_s = publish.key, publish.found.content, self._clock.monotonic()
        document = self._unpublished.get(key)
        if document is None:
            document = self._unpublished[key] = Unpublished(
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
                self._publisher.prune(document)
                if document.earlier_bytes > EARLIER_BYTES_MAX:
                    document.since_s = document.backups_since_s = -math.inf
        self._active.keys[key] = _revision(publish.content)
        self._due_at_s = min(self._due_at_s, self._due_of(document))
        self.overlay.hold(key, publish.content, now)

    # publishing

    def _due_of(self, document: Unpublished) -> float:
        """Return the monotonic time at which something of a document is to be written."""
        if document.failed_at_s is not None:
            return document.failed_at_s + RETRY_S
        if document.is_current:
            return document.backups_since_s + BACKUPS_WITHIN_S
        return document.since_s + self._publish_within_s

    def _publish_due(self, now_s: float, now: datetime) -> None:
        """Publish what is due, for PUBLISH_FOR_S at most: the next call goes on."""
        for document in list(self._unpublished.values()):
            if self._due_of(document) <= now_s:
                is_late = document.backups_since_s + BACKUPS_WITHIN_S <= now_s
                self._publish(document, now, backups=is_late or document.can_be_linked)
                if self._clock.monotonic() > now_s + PUBLISH_FOR_S:
                    break
        self._plan_next()

    def _plan_next(self) -> None:
        self._due_at_s = min(map(self._due_of, self._unpublished.values()), default=math.inf)

    def _publish(self, document: Unpublished, now: datetime, *, backups: bool) -> None:
        """Write a document's file, and its `backups`; what fails is tried again later."""
        self.first.staging.retry_removals()
        self.first.preserver.retry(now)
        key = document.key
        with self._current_documents.writing():
            try:
                published = self._published(document, now, backups=backups)
            except (OSError, StorageError) as error:
                if document.failed_at_s is None:
                    self._disk_error(error, f"Publishing {key.name}", [key])
                document.failed_at_s = self._clock.monotonic()
                document.error = error if isinstance(error, OSError) else OSError(error.message)
                self._failing.add(key)
                return
            self._note_published(document, published, backups=backups)

    def _note_published(
        self, document: Unpublished, published: Published, *, backups: bool
    ) -> None:
        key, made = document.key, published.backups
        self._active.touched.add(Touched(*key))
        self._active.touched |= {Touched(key.space, backup.name, is_backup=True) for backup in made}
        self._note_edit(document, published)
        self.overlay.release(key)
        self._failing.discard(key)
        document.failed_at_s = None
        if backups or not document.earlier:
            del self._unpublished[key]
            self._rotate(document, made)
        else:
            document.is_current = True

    def _note_edit(self, document: Unpublished, published: Published) -> None:
        """Note a hand edit that was displaced as a version before the content that displaced it.

        Else a replay that finds it in place would take it for an edit made after the crash. One
        that could not be moved to backups/ stays in staging/, durably.
        """
        volume, edit, key = self._volume, published.edit, document.key
        if self._journal is None or (edit is None and not published.displaced):
            return
        directory = volume.staging if edit is None else volume.backups(key.space)
        name = published.displaced if edit is None else edit.name
        doing = f"Keeping the edit of {key.name}"
        with raising(DirectoryFailed, doing):
            if edit is None:
                files.sync(volume.staging)
            content = Content.of(files.read_whole(directory, name, size_max=1 << 40).data)
        change = change_of(
            key, content, document.content, document.at_ns,
            with_image=True, backup="" if edit is None else edit.name,
        )  # fmt: skip
        if self._journal.has_room_for(size_of([change])):
            self._append_again([change])
            return
        with raising(DirectoryFailed, doing):
            sync_published(self._volume, self._capabilities, self._active.touched)

    def _append_again(self, changes: Sequence[JournalChange]) -> None:
        """Append changes that were acknowledged before. Raises DirectoryFailed or InDoubt."""
        assert self._journal is not None
        try:
            self._journal.append(self._batch(changes))
        except StagingFailed as error:
            raise DirectoryFailed(error.error, error.doing) from error

    def _published(self, document: Unpublished, now: datetime, *, backups: bool) -> Published:
        """Publish a document; a full volume gives up its reserve."""
        try:
            return self._publisher.publish(document, now, backups=backups)
        except (OSError, StorageError) as error:
            if not (is_full(error) and self._release_reserve()):
                raise
            return self._publisher.publish(document, now, backups=backups)

    # checkpoints

    def _switch(self, now: datetime) -> None:
        """Let the other file take the batches, and sync what this one has on another thread.

        Raises StagingFailed if it has no room for the documents that cannot be published,
        DirectoryFailed if the checkpoint before failed, and InDoubt.
        """
        assert self._journal is not None
        self.settle(now)
        self._end_checkpoint(check=True)
        ended, failing = self._journal.active, list(self._unpublished.values())
        carried = [_carried(document) for document in failing]
        if sum(map(size_of, carried)) > CARRIED_BATCHES_MAX * self._journal.batch_bytes_max:
            raise _stuck(failing)
        self._ending, self._active = self._active, _Responsible()
        self._journal.switch()
        for document, changes in zip(failing, carried, strict=True):
            self._append_again(changes)
            self._active.keys[document.key] = _revision(document.content)
        self._checkpoint = self._started(ended, set(self._ending.touched))

    def _started(self, file: JournalFile, touched: set[Touched]) -> Future[None]:
        """Begin a checkpoint; at the interpreter's exit, when no thread starts, do it here."""

        def end() -> None:
            sync_published(self._volume, self._capabilities, touched)
            try:
                file.mark_clean()
            except OSError:  # everything is durable; a file whose sync failed is not used again
                files.unlink(self._volume.seline, file.name)
                raise

        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="seline-checkpoint")
        try:
            return self._pool.submit(end)
        except RuntimeError:
            done = Future[None]()
            try:
                end()
                done.set_result(None)
            except OSError as error:
                done.set_exception(error)
            return done

    def _check_checkpoint(self) -> None:
        """Raise DirectoryFailed if the checkpoint in progress has failed."""
        if self._checkpoint is not None and self._checkpoint.done():
            self._end_checkpoint(check=True)

    def _end_checkpoint(self, *, check: bool = False) -> None:
        """Wait for the checkpoint in progress; `check`: raise DirectoryFailed if it failed."""
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            return
        error = checkpoint.exception()
        if error is None:
            self._ending = _Responsible()
        elif check and isinstance(error, OSError):
            raise DirectoryFailed(error, "Syncing the documents") from error
        elif check:
            raise error

    def _drain(self, now: datetime) -> None:
        """Make everything durable in its files. Raises StagingFailed or DirectoryFailed."""
        self.settle(now)
        self._end_checkpoint(check=True)
        if self._journal is not None and not self._journal.active.header.is_clean:
            self._switch(now)
            self._end_checkpoint(check=True)

    def _give_up(self, plan: Plan, now: datetime) -> None:
        """Leave the documents of a plan to the first form.

        Raises LookAgain if their files were written just now, StagingFailed if one cannot be.
        """
        keys = {publish.key for publish in plan.publishes}
        is_purge = any(publish.purge for publish in plan.publishes)
        was_unpublished = not keys.isdisjoint(self._unpublished)
        if is_purge or keys & (self._active.keys.keys() | self._ending.keys.keys()):
            self._drain(now)
        if stuck := keys & self._unpublished.keys():
            raise _stuck([self._unpublished[key] for key in sorted(stuck)])
        if was_unpublished:
            raise LookAgain
        if is_purge and self._journal is not None:
            with raising(StagingFailed, "Erasing the journal"):
                for file in self._journal.files:
                    file.erase()

    # the files of the journal

    def _begin(self) -> Journal | None:
        """Return the journal with its files, None if it is not wanted or not possible."""
        if not self._journal_bytes or self._is_unwanted() or self._is_small():
            self._remove()
            return None
        try:
            journal = Journal(allocate_journal_files(self._volume, self._journal_bytes))
            self._volume.note_journal(is_used=True)
        except OSError as error:
            _log.warning("there is no journal: %s", describe(error))
            self._why_without = f"there is no journal: {describe(error)}"
            return None
        return journal

    def _is_unwanted(self) -> bool:
        self._why_without = CHOSEN if self._volume.keeps_first_form else ""
        return bool(self._why_without)

    def _is_small(self) -> bool:
        """Whether the journal would take more than a sixteenth of the volume."""
        status = os.fstatvfs(self._volume.top)
        capacity = status.f_blocks * status.f_frsize
        size_bytes = min(capacity, self._limit_bytes) if self._limit_bytes else capacity
        is_small = size_bytes < SHARE_OF_THE_VOLUME * len(JOURNAL_NAMES) * self._journal_bytes
        self._why_without = SMALL if self._journal_bytes and is_small else ""
        return is_small

    def _remove(self) -> None:
        """Remove the journal's files, which are clean, so that an older Seline may open it."""
        with raising(self._volume.named, "Removing the journal"):
            for file in open_journal_files(self._volume):
                files.close(file.descriptor)
                files.unlink(self._volume.seline, file.name)
            self._volume.note_journal(is_used=False)

    def _forget(self) -> None:
        self._unpublished.clear()
        self._failing.clear()
        self._due_at_s = math.inf
        self._active, self._ending = _Responsible(), _Responsible()
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


def _carried(document: Unpublished) -> list[JournalChange]:
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


def _stuck(failing: Sequence[Unpublished]) -> StagingFailed:
    """Return the error for changes that wait for documents whose files cannot be written."""
    error = failing[0].error or OSError("what was saved before is not in its file yet")
    return StagingFailed(error, f"Publishing {failing[0].key.name}")


def _revision(content: Content | None) -> Revision | None:
    return None if content is None else content.revision
