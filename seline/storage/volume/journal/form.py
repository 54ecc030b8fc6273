"""Commit by a journal: a batch is durable after one write and one sync; its files follow.

V2  The journal has the content before each change, until it is durable as a backup.
V3  The sync of the journal is the commit point. Readers are answered from the overlay until the
    document's file is written.
V5  The changes of a batch are one record: after a crash all of them are replayed, or none.
V7  What the journal has cannot be refused any more: a file that cannot be written is tried again.

    commit      append to the journal, hold in the overlay, answer
    publish     at most `publish_within_s` later: write the files, without a sync; the backups of a
                document that goes on changing follow within BACKUPS_WITHIN_S
    checkpoint  when the file is full, or after CHECKPOINT_AFTER_S: the other file takes the
                batches; other threads sync the published files; the file is clean

Plain changes go through the journal if they fit into one batch: what differs from the content
before, and that content itself once in each file. Every other change (a recovery, an adopted edit,
a purge) is committed by the first form, after the journal has given up the documents concerned: at
each moment one of the two is responsible for a document.

The kernel reports a failed sync to one caller only. So every other sync of a directory waits for
the checkpoint: else it could succeed while the checkpoint gets the error for the same names.

`journal` has the two files, `codec` their format, `pending` the documents that are not published
yet; `publishing` writes them, `checkpoint` syncs them, `provision` makes the files, and `replaying`
follows a crash. Only the writer's thread comes here.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
from seline.storage.volume.journal.checkpoint import (
    Checkpoint,
    Responsible,
    Touched,
    sync_published,
)
from seline.storage.volume.journal.codec import (
    BATCH_OVERHEAD_BYTES,
    Batch,
    JournalChange,
    change_of,
    size_of,
)
from seline.storage.volume.journal.journal import Journal, JournalFile, opened_journal_files
from seline.storage.volume.journal.pending import RETRY_S, PendingDocuments, carried
from seline.storage.volume.journal.provision import JournalProvision
from seline.storage.volume.journal.publishing import Publisher, Unpublished
from seline.storage.volume.journal.replaying import JournalReplay
from seline.storage.volume.journal.room import check_room
from seline.storage.volume.os_errors import (
    CommitFailed,
    DirectoryFailed,
    InDoubt,
    LookAgain,
    StagingFailed,
    raising,
)

CHECKPOINT_AFTER_S: Final = 30.0
CARRIED_BATCHES_MAX: Final = 2
"""Of the four that a file has room for: one more must always fit beside them."""


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
        self.overlay: Overlay = first.overlay
        self._volume = volume
        self._capabilities = capabilities
        self._current_documents = current_documents
        self._clock = clock
        self._publisher = Publisher(
            current_documents, first.staging, first.preserver, first.syncer, before_replacing
        )
        self._pending = PendingDocuments(
            publisher=self._publisher, overlay=first.overlay, clock=clock,
            within_s=publish_within_s, disk_error=disk_error, release_reserve=release_reserve,
            rotate=rotate, on_published=self._note_published,
        )  # fmt: skip
        self._replay = JournalReplay(
            volume, current_documents, report, capabilities, first.syncer, make_room
        )
        self._provision = JournalProvision(volume, journal_bytes, limit_bytes)
        self._checkpoint = Checkpoint(volume, capabilities)
        self._active = Responsible()
        self._journal: Journal | None = None
        self._unreplayed: Sequence[DocumentKey] = ()

    # the interface

    @property
    def form(self) -> Capability:
        return self._provision.capability(self._journal)

    @property
    def is_behind(self) -> bool:
        return bool(self._pending.keys)

    @property
    def unpublished(self) -> Sequence[DocumentKey]:
        return (*self._unreplayed, *self._pending.failing)

    def found(self, key: DocumentKey) -> Found | None:
        waiting = self._pending.waiting(key)
        return None if waiting is None else waiting.as_found()

    def commit(self, plan: Plan, *, now: datetime) -> Committed:
        self._checkpoint.check()
        self._replace_removed(now)
        journal = self._journal
        if journal is None or not all(map(self._is_plain, plan.publishes)):
            self._give_up(plan, now)
            return self.first.commit(plan, now=now)
        for publish in plan.publishes:
            self._volume.open_space(publish.key.space)
        check_room(self._volume, lambda: self._pending.documents, plan.publishes)
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
            self._pending.add(publish, backups.get(publish.key), now, at_ns)
            self._active.keys[publish.key] = _revision(publish.content)
        if not self._pending.within_s:
            try:
                self.settle(now)
            except CommitFailed as error:
                raise InDoubt(error.error, error.doing, committed=True) from error
        return Committed(backups=backups)

    def add_backups(self, added: Sequence[tuple[Backup, AddedBackup]]) -> None:
        self._checkpoint.wait(check=True)
        self.first.add_backups(added)

    def make_durable(self, found: Sequence[Found]) -> None:
        if not found:
            return
        written = [item for item in found if self._pending.waiting(item.key) is None]
        if not all(map(self.first.syncer.is_known, written)):
            self._checkpoint.wait(check=True)
        self.first.make_durable(written)

    def recover(self, now: datetime, *, again: bool = False) -> frozenset[DocumentKey]:
        self._checkpoint.wait()
        self._forget()
        with opened_journal_files(self._volume) as opened:
            completed = self._replay.run(opened, now)
            completed |= self.first.recover(now, again=again)
        self._unreplayed = ()
        self._journal = self._provision.begin()
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
        self._pending.publish_all(now)

    def tend(self, now: datetime) -> float | None:
        self._checkpoint.check()
        now_s, journal = self._clock.monotonic(), self._journal
        if self._pending.due_at_s <= now_s:
            self._pending.publish_due(now_s, now)
        wait_s = max(0.0, self._pending.due_at_s - now_s)
        if self._checkpoint.is_running:
            wait_s = min(wait_s, RETRY_S)
        if journal is not None and not journal.active.header.is_clean:
            left_s = self._active.since_s + CHECKPOINT_AFTER_S - now_s
            if left_s <= 0 or not journal.has_room_for(journal.batch_bytes_max):
                with suppress(StagingFailed):
                    self._switch(now)
                left_s = RETRY_S
            wait_s = min(wait_s, left_s)
        return None if wait_s == math.inf else wait_s

    def close(self, *, settles: bool) -> None:
        if settles:
            with suppress(OSError, StorageError, CommitFailed, LookAgain):
                self._drain(self._clock.now())
                if self._journal is not None and not self._journal.is_in_place(self._volume):
                    self._remove_put_back(self._journal)
        self._checkpoint.wait()
        self._forget()
        self.first.close(settles=settles)

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
            is_stale = publish.found.token is None and self._pending.waiting(publish.key) is None
            if is_stale and publish.found.judged.verdict is Verdict.SOUND:
                raise LookAgain

    def _is_found_durable(self, publishes: Sequence[Publish]) -> bool:
        """Sync what was found, once: a replay must not meet what was there before it.

        Returns False if a file cannot be synced: the first form copies it. Raises DirectoryFailed.
        """
        found = [item.found for item in publishes if self._pending.waiting(item.key) is None]
        if not found:
            return True
        if not all(map(self.first.syncer.is_known, found)) or any(map(self._is_new, found)):
            self._checkpoint.wait(check=True)
        try:
            for item in found:
                self.first.syncer.make_file_durable(item)
        except OSError:
            return False
        self.first.make_durable(found)
        missing = {item.key.space for item in found if self._is_new(item)}
        if spaces := missing.intersection(self._volume.spaces):
            directories = map(self._volume.documents, spaces)
            self.first.syncer.sync_directories(directories, "Syncing a name")
        return True

    def _is_new(self, found: Found) -> bool:
        return found.judged.verdict is Verdict.MISSING and found.key not in self._active.keys

    def _backups(self, publishes: Sequence[Publish], now: datetime) -> dict[DocumentKey, Backup]:
        backups: dict[DocumentKey, Backup] = {}
        kept = [
            (publish.key, before)
            for publish in publishes
            if publish.backup and (before := publish.found.content) is not None
        ]
        for space in {key.space for key, _ in kept}:
            with self._current_documents.backup_index(space) as index:
                for key, before in kept:
                    if key.space == space:
                        after = self._pending.last_backup(key)
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
        left_bytes = bytes_max - BATCH_OVERHEAD_BYTES
        for publish in publishes:
            change = self._change(publish, backups.get(publish.key), at_ns)
            left_bytes -= change.size_bytes_max
            if left_bytes < 0:
                return None
            changes.append(change)
        return changes

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

    # publishing

    def _note_published(
        self, key: DocumentKey, document: Unpublished, published: Published
    ) -> None:
        made = published.backups
        self._active.touched.add(Touched(*key))
        self._active.touched |= {Touched(key.space, backup.name, is_backup=True) for backup in made}
        self._note_edit(document, published)

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
        self._checkpoint.wait(check=True)
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

    # checkpoints

    def _switch(self, now: datetime) -> None:
        """Let the other file take the batches, and sync what this one has on another thread.

        Raises StagingFailed if it has no room for the documents that cannot be published,
        DirectoryFailed if the checkpoint before failed or was not made, and InDoubt.
        """
        assert self._journal is not None
        self.settle(now)
        self._checkpoint.wait(check=True)
        file, failing = self._journal.active, self._pending.documents
        changes_of = [carried(document) for document in failing]
        if sum(map(size_of, changes_of)) > CARRIED_BATCHES_MAX * self._journal.batch_bytes_max:
            raise self._pending.stuck(self._pending.keys)
        self._journal.switch()  # first: after Ctrl-C here, what the other file has is replayed
        ending, self._active = self._active, Responsible()
        for document, changes in zip(failing, changes_of, strict=True):
            self._append_again(changes)
            self._active.keys[document.key] = _revision(document.content)
        self._checkpoint.start(file, ending)

    def _drain(self, now: datetime) -> None:
        """Make everything durable in its files. Raises StagingFailed or DirectoryFailed."""
        self.settle(now)
        self._checkpoint.wait(check=True)
        if self._journal is not None and not self._journal.active.header.is_clean:
            self._switch(now)
            self._checkpoint.wait(check=True)

    def _give_up(self, plan: Plan, now: datetime) -> None:
        """Leave the documents of a plan to the first form.

        Raises LookAgain if their files were written just now, StagingFailed if one cannot be.
        """
        self._checkpoint.wait(check=True)
        keys = {publish.key for publish in plan.publishes}
        is_purge = any(publish.purge for publish in plan.publishes)
        was_unpublished = not keys.isdisjoint(self._pending.keys)
        if is_purge or keys & (self._active.keys.keys() | self._checkpoint.ending.keys.keys()):
            self._drain(now)
        if stuck := keys.intersection(self._pending.keys):
            raise self._pending.stuck(stuck)
        if was_unpublished:
            raise LookAgain
        if is_purge and self._journal is not None:
            self._erase(self._journal.files)

    def _erase(self, clean: Sequence[JournalFile]) -> None:
        """Erase the files, which are clean, and remove one that cannot be synced.

        Raises StagingFailed or DirectoryFailed.
        """
        for file in clean:
            try:
                file.erase()
            except DirectoryFailed:
                with suppress(OSError):
                    files.unlink(self._volume.seline, file.name)
                raise

    def _replace_removed(self, now: datetime) -> None:
        """Make the journal again if another program removed or replaced a file of it.

        A start would not find that file, or would replay what was put in its place. Raises
        StagingFailed or DirectoryFailed.
        """
        if self._journal is None or self._journal.is_in_place(self._volume):
            return
        self._journal.remove_others(self._volume)  # first: a reopening replays it
        self.settle(now)
        if self._pending.keys:  # a switch may carry them over to the file that was removed
            raise self._pending.stuck(self._pending.keys)
        self._drain(now)
        self._remove_put_back(self._journal)  # the other program may have gone on
        self._forget()
        self._journal = self._provision.begin()

    def _remove_put_back(self, journal: Journal) -> None:
        """Durably remove what stands under the names of a drained journal, and is not its files.

        A start would replay it, or the first form commit beside it. Raises StagingFailed or
        DirectoryFailed.
        """
        journal.remove_others(self._volume)
        with raising(DirectoryFailed, "Replacing the journal"):
            files.sync(self._volume.seline)

    def _forget(self) -> None:
        self._pending.clear()
        self._active, self._checkpoint.ending = Responsible(), Responsible()
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


def _revision(content: Content | None) -> Revision | None:
    return None if content is None else content.revision
