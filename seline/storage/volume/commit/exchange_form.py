"""Commit by exchanging names: make one batch of documents current, or leave everything unchanged.

V1  A reader finds the old bytes or the new ones, never a mixture.
V2  The old bytes are a durable backup before the new ones become visible.
V3  When `commit` returns, the batch survives a power cut.
V5  Several documents: the synced record is the commit point; after it nothing is undone.
V7  A failure before the commit point undoes everything this batch did, and raises a typed error.

The order of the steps is what keeps these guarantees:
  stage     write each new content into staging/, with checksum and mtime
  keep      link each judged file into backups/ or quarantine/; copy what cannot be linked
  sync      the staged files, then backups/ and quarantine/
  record    several documents: sync staging/, write the record, sync .seline/: the commit point
  publish   exchange each staged file with its document; keep a displaced file that has no other
            name; sync the documents' directory
  finish    remove the record, dispose of the displaced files

`staging` has the states of a change and its files, `preserve` the old files (V4), `sync` the syncs,
`replay` what follows a crash. From the first publish until the directory is synced, readers are
answered from the overlay. Nothing awaits here, and only the writer's thread comes here.
"""

import errno
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentKey
from seline.domain.incident import Incident
from seline.domain.verdict import Judged, Verdict
from seline.ports.store import AddedBackup
from seline.storage.planner import Found, Plan, Publish
from seline.storage.volume import files
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit.base import Committed
from seline.storage.volume.commit.overlay import Overlay
from seline.storage.volume.commit.preserve import Preserver
from seline.storage.volume.commit.record import RECORD_NAME, RecordEntry, encode_record
from seline.storage.volume.commit.replay import Replay
from seline.storage.volume.commit.staging import Published, Refused, Staged, Staging, as_staged
from seline.storage.volume.commit.sync import Syncer
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.mounts import mounts_inside
from seline.storage.volume.os_errors import InDoubt, StagingFailed, is_of_one_file, raising


class ExchangeCommitter:
    """The first commit form: a `Committer` that exchanges staged files with documents."""

    def __init__(
        self,
        *,
        volume: VolumeDirectory,
        capabilities: Capabilities,
        current_documents: CurrentDocuments,
        report: Callable[[Incident], None],
        release_reserve: Callable[[], bool],
        before_replacing: Callable[[DocumentKey], None],
    ) -> None:
        """Commit on a held volume, as its `capabilities` allow.

        `before_replacing` is called for each document before it is published. `release_reserve`
        makes room once for a publish after the commit point.
        """
        self.overlay = Overlay()
        self._volume = volume
        self._current_documents = current_documents
        self._release_reserve = release_reserve
        self._before_replacing = before_replacing
        self.staging = Staging(volume, capabilities)
        self.syncer = Syncer(volume, capabilities)
        self.preserver = Preserver(volume, self.staging, self.syncer, current_documents, report)
        self._replay = Replay(volume, current_documents, report, capabilities)

    # the interface

    def commit(self, plan: Plan, *, now: datetime) -> Committed:
        with self._current_documents.writing():
            return self._commit(plan, now)

    def _commit(self, plan: Plan, now: datetime) -> Committed:
        self.staging.retry_removals()
        self.preserver.retry(now)
        staged: list[Staged] = []
        try:
            self._prepare(plan, staged, now)
            changes = self._publish(staged, now, atomic=plan.atomic)
            self._remember(changes)
        finally:
            for change in staged:
                _close(change)
        return self._finish(changes, now)

    def add_backups(self, added: Sequence[tuple[Backup, AddedBackup]]) -> None:
        self.staging.retry_removals()
        staged: list[Staged] = []
        try:
            with raising(StagingFailed, "Writing backups"):
                for backup, new in added:
                    self._volume.open_space(new.key.space)
                    kept = Staged(publish=_nothing_of(new.key))
                    staged.append(self.staging.copy(kept, new.content, backup))
            self._sync(staged)
        except BaseException:
            self._undo(staged)
            raise
        finally:
            for copy in staged:
                _close(copy)

    def make_durable(self, found: Sequence[Found]) -> None:
        self.syncer.make_durable(found)

    def recover(self, now: datetime, *, again: bool = False) -> frozenset[DocumentKey]:
        return self._replay.run(now, again=again)

    def hold_unfinished(self) -> None:
        self.overlay.doubt(self._replay.unfinished())

    def recommit(self, found: Sequence[Found], now: datetime) -> None:
        publishes = tuple(_as_found(item) for item in found if item.content is not None)
        if publishes:
            plan = Plan(publishes=publishes, taken=(), atomic=False)
            for error in self.commit(plan, now=now).refused.values():
                if not is_of_one_file(error):  # else the file is as it was found
                    raise error
        for item in found:
            if item.judged.verdict is Verdict.MISSING:
                self._replay.remove_again(item.key)
        for space in self._volume.spaces:
            files.touch_and_sync(self._volume.documents(space))

    def leftovers(self) -> list[str]:
        records = {RECORD_NAME}.intersection(files.names(self._volume.seline))
        return [*files.names(self._volume.staging), *records]

    def close(self, *, settles: bool) -> None:  # noqa: ARG002  # everything is in the files
        self.syncer.close()

    # before anything is visible

    def _prepare(self, plan: Plan, staged: list[Staged], now: datetime) -> None:
        """Stage, keep and sync every change, adding its state to `staged`; undo it all on error."""
        try:
            if plan.atomic:
                self._refuse_mounts(plan.publishes)
            for publish in plan.publishes:
                self._stage(publish, staged, now)
            self._sync(staged)
            if plan.atomic:
                self._record(staged)
        except InDoubt:
            raise  # the reopening needs what is staged and linked
        except BaseException:
            self._undo(staged)
            raise

    def _refuse_mounts(self, publishes: Sequence[Publish]) -> None:
        """Raise StagingFailed if a document is a mount: after the record it must be replaced."""
        mounts = mounts_inside(self._volume.path)
        for publish in publishes if mounts else ():
            with raising(StagingFailed, f"Publishing {publish.key.name}"):
                if os.path.realpath(self._volume.path_of_document(publish.key)) in mounts:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def _stage(self, publish: Publish, staged: list[Staged], now: datetime) -> None:
        preserver = self.preserver
        with raising(StagingFailed, f"Writing {publish.key.name}"):
            staged.append(self.staging.stage(publish))
            for content in publish.found.unsaved:
                staged[-1] = preserver.keep_unsaved(staged[-1], content, now)
            for keep in (preserver.keep_broken, preserver.keep_content):
                staged[-1] = keep(staged[-1], now)
            self._before_replacing(publish.key)

    def _sync(self, staged: list[Staged]) -> None:
        descriptors = [descriptor for change in staged for descriptor in change.descriptors]
        with raising(StagingFailed, "Syncing what was written"):
            whole = self.syncer.sync_written(descriptors)
            shelved = self._shelve(staged)
        linked = {target for change in staged for target, _ in change.links}
        self.syncer.sync_directories(shelved if whole else linked, "Syncing the backups")

    def _shelve(self, staged: list[Staged]) -> set[int]:
        """Move the copies, which are durable now, into backups/; return which directories."""
        shelved: set[int] = set()
        for index in range(len(staged)):
            while staged[index].copies:
                staged[index] = self.staging.shelve(staged[index])
                shelved.add(self._volume.backups(staged[index].key.space))
        return shelved

    def _record(self, staged: Sequence[Staged]) -> None:
        """Write the record, the commit point of several documents."""
        self.syncer.sync_directories([self._volume.staging], "Syncing what was staged")
        seline, name = self._volume.seline, f"{RECORD_NAME}.new"
        with raising(StagingFailed, "Writing the journal"):
            files.unlink(seline, name, missing_ok=True)
            entries = [_entry(change) for change in staged if not change.publish.keeps_file]
            data = encode_record(entries)
            with files.closing(files.stage(seline, name, data, None, time.time_ns())) as descriptor:
                files.sync(descriptor)
            files.rename(seline, name, seline, RECORD_NAME)
        with raising(InDoubt, "Syncing the journal"):
            files.sync(seline)

    def _undo(self, staged: Sequence[Staged]) -> None:
        for change in staged:
            self.staging.remove_names(change)
        self.staging.remove(self._volume.seline, f"{RECORD_NAME}.new")

    # publish

    def _publish(
        self, staged: Sequence[Staged], now: datetime, *, atomic: bool
    ) -> list[Published | Refused]:
        for change in staged:
            self.overlay.hold(change.key, change.found.failure or change.found.content)
        changes = [self._publish_one(change, atomic=atomic) for change in staged]
        changes = self.preserver.keep_displaced(changes, now, atomic=atomic)
        self._sync_documents(staged, committed=atomic)
        if atomic:
            self._forget_record()
        for done in changes:
            if isinstance(done, Published):
                self.overlay.release(done.staged.key)
        return changes

    def _publish_one(self, staged: Staged, *, atomic: bool) -> Published | Refused:
        try:
            return self.staging.publish(staged)
        except OSError as error:
            if not atomic:
                return Refused(staged=staged, error=error)
            with raising(partial(InDoubt, committed=True), f"Publishing {staged.key.name}"):
                if not self._release_reserve():
                    raise
                return self.staging.publish(staged)

    def _sync_documents(self, staged: Sequence[Staged], *, committed: bool) -> None:
        with raising(partial(InDoubt, committed=committed), "Syncing the documents"):
            for directory in {self._volume.documents(change.key.space) for change in staged}:
                files.sync(directory)

    def _forget_record(self) -> None:
        with raising(partial(InDoubt, committed=True), "Removing the journal's record"):
            files.unlink(self._volume.seline, RECORD_NAME)
            files.sync(self._volume.seline)

    # finish: everything is durable; a failure from here on is reported, not raised

    def _remember(self, changes: Sequence[Published | Refused]) -> None:
        for change in changes:
            if isinstance(change, Refused):
                continue
            key, content = change.staged.key, change.staged.publish.content
            if content is None:
                self._current_documents.inspector.removed(key)
                self.syncer.forget(key)
            elif change.staged.file is not None:
                identity = as_staged(change.staged.file, content)
                self.syncer.remember(key, identity)
                self._current_documents.inspector.written(key, identity, content)

    def _finish(self, changes: Sequence[Published | Refused], now: datetime) -> Committed:
        committed = Committed()
        for change in changes:
            key = change.staged.key
            if isinstance(change, Refused):
                self.staging.remove_names(change.staged)
                self.overlay.release(key)
                committed.refused[key] = change.error
                continue
            for backup in change.backups:
                self._current_documents.backup_index(key.space).added(backup)
            done = self.preserver.dispose(change, now) if change.displaced else change
            committed.made[key] = list(done.backups)
            if (undo := _undo_backup(done)) is not None:
                committed.backups[key] = undo
            if done.left and done.staged.publish.purge:
                committed.unerased[key] = done.left
        return committed


def _as_found(found: Found) -> Publish:
    """Return the publish of a content that is in place already."""
    return Publish(
        key=found.key, found=found, content=found.content, backup=False, purge=False, always=True,
        retain=None,
    )  # fmt: skip


def _nothing_of(key: DocumentKey) -> Publish:
    """Return a publish that leaves a document as it is."""
    found = Found(key=key, judged=Judged(Verdict.MISSING), content=None, updated_at=None)
    return Publish(
        key=key, found=found, content=None, backup=False, purge=False, always=True, retain=None,
        keeps_file=True,
    )  # fmt: skip


def _entry(staged: Staged) -> RecordEntry:
    return RecordEntry(
        space=staged.key.space,
        name=staged.key.name,
        staged=None if staged.file is None else staged.file.name,
        before=_revision(staged.found.judged.content),
        after=_revision(staged.publish.content),
    )


def _revision(content: Content | None) -> str | None:
    return None if content is None else content.revision


def _close(staged: Staged) -> None:
    for descriptor in staged.descriptors:
        files.close(descriptor)


def _undo_backup(change: Published) -> Backup | None:
    """Return the backup that takes the change back, None if there is none."""
    publish, backups = change.staged.publish, change.backups
    if publish.purge:
        return None
    if backups:
        return backups[-1]
    return publish.found.source if publish.found.broken else None
