"""Make one batch of documents current on the volume, or leave everything as it was.

V1  A reader finds the old bytes or the new ones, never a mixture.
V2  The old bytes are a durable backup before the new ones become visible.
V3  When `run` returns, the batch survives a power cut.
V5  More than one document: the synced record is the commit point; after it nothing is undone.
V7  A failure before the commit point undoes everything this batch did, and says so by name.

The order, which is the whole point:
  stage     write each new content into staging/, with checksum and mtime
  keep      link each judged inode into backups/ (or quarantine/); what cannot be linked is copied
  sync      the staged files, then backups/ and quarantine/
  record    several documents: staging/, the record, .seline/  -- the commit point
  publish   exchange each staged file with the live one; keep what came out and bears no other name;
            sync the documents' directory
  finish    remove the record, look at what came out, forget the overlay

How each is done is said in `staging`, `preserver` (V4) and `syncer`; the order is kept here.
From the first rename until the directory is synced, readers are answered from the overlay.
Nothing awaits here, and only the writer's thread comes here.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentKey
from seline.errors import SelineError
from seline.ports.store import Incident
from seline.storage.planner import Found, Plan
from seline.storage.volume import files
from seline.storage.volume.backup_index import BackupIndex
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit.preserve import Preserver
from seline.storage.volume.commit.record import RECORD_NAME, RecordEntry, encode_record
from seline.storage.volume.commit.staging import Move, Staging
from seline.storage.volume.commit.sync import Syncer
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.inspect import Inspector
from seline.storage.volume.os_errors import InDoubt, StagingFailed

SYNCFS_FILES_MIN: Final = 6
"""From this many staged files on, one sync of the whole file system is the quicker one."""

Overlay: TypeAlias = "dict[DocumentKey, Content | SelineError | None]"
"""What readers are answered: a content, None where there is no document, or why none is served."""


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit did: the backup that holds each document's content before it, by key.

    `refused` names documents whose own rename the disk refused; the others are current.
    `unerased` says why the disk kept something of a purged document.
    """

    backups: dict[DocumentKey, str]
    made: dict[DocumentKey, list[Backup]]
    refused: dict[DocumentKey, OSError]
    unerased: dict[DocumentKey, str] = msgspec.field(default_factory=dict[DocumentKey, str])


class Committer:
    """Commits batches on one ground. `overlay` is what readers are answered meanwhile."""

    def __init__(
        self,
        *,
        volume: VolumeDirectory,
        capabilities: Capabilities,
        inspector: Inspector,
        backup_indexes: dict[str, BackupIndex],
        tell: Callable[[Incident], None],
        release_reserve: Callable[[], bool],
        before_replacing: Callable[[DocumentKey], None],
    ) -> None:
        """Commit in the way that `probed` allows.

        `before_replacing` hears of each document before it is published; `release_reserve` makes
        room, once, for what must go on.
        """
        self.overlay: Overlay = {}
        self._volume = volume
        self._inspector = inspector
        self._backup_indexes = backup_indexes
        self._release_reserve = release_reserve
        self._before_replacing = before_replacing
        self._staging = Staging(volume, capabilities)
        self._syncer = Syncer(volume)
        self._preserver = Preserver(volume, self._staging, self._syncer, backup_indexes, tell)
        self._litter: list[tuple[int, str]] = []

    def run(self, plan: Plan, *, now: datetime) -> Committed:
        """Make the plan's publishes current together.

        Raises StagingFailed, LookAgain (nothing changed), DirectoryFailed, InDoubt.
        """
        moves = [Move(publish, publish.key) for publish in plan.publishes]
        self._sweep_litter()
        self._preserver.see_out_the_rest(now)
        try:
            self._prepare(moves, now, atomic=plan.atomic)
            self._publish(moves, now, atomic=plan.atomic)
            self._remember(moves)
        finally:
            for move in moves:
                _close(move.descriptors)
        self._finish(moves, now)
        return _committed(moves)

    def make_durable(self, found: Sequence[Found]) -> None:
        """Make durable what lies there, before it is relied on (V3). Raises DirectoryFailed."""
        self._syncer.make_durable(found)

    def close(self) -> None:
        """End the threads that sync; idempotent. No commit runs any more."""
        self._syncer.close()

    def _prepare(self, moves: Sequence[Move], now: datetime, *, atomic: bool) -> None:
        """Do all that comes before the first document becomes visible, or undo it."""
        try:
            self._stage_and_keep(moves, now)
            self._sync(moves)
            if atomic:
                self._record(moves)
        except InDoubt:
            raise  # what is staged and linked is what the reopening mends with
        except BaseException:
            self._undo(moves)
            raise

    def _stage_and_keep(self, moves: Sequence[Move], now: datetime) -> None:
        for move in moves:
            try:
                self._staging.stage(move)
                self._preserver.keep(move, now)
                self._before_replacing(move.key)
            except OSError as error:
                raise StagingFailed(error, f"Writing {move.key.name}") from error

    def _sync(self, moves: Sequence[Move]) -> None:
        descriptors = [descriptor for move in moves for descriptor in move.descriptors]
        whole = (
            self._staging.capabilities.own_mount
            and len(descriptors) >= SYNCFS_FILES_MIN
            and files.syncs_filesystems()
        )
        try:
            if whole:
                files.sync_filesystem(self._volume.top)
            else:
                self._syncer.sync_files(descriptors)
            moved = self._preserver.shelve_copies(moves)
        except OSError as error:
            raise StagingFailed(error, "Syncing what was written") from error
        directories = moved if whole else {target for move in moves for target, _ in move.links}
        self._syncer.sync_directories(directories | moved, "Syncing the backups")

    # record: the commit point of several documents

    def _record(self, moves: Sequence[Move]) -> None:
        entries = [
            RecordEntry(
                owner=move.key.owner,
                name=move.key.name,
                staged=move.staged or None,
                before=_revision(move.publish.found.judged.content),
                after=_revision(move.publish.content),
            )
            for move in moves
        ]
        self._syncer.sync_directories([self._volume.staging], "Syncing what was staged")
        name = f"{RECORD_NAME}.new"
        try:
            files.unlink(self._volume.seline, name, missing_ok=True)
            data = encode_record(entries)
            descriptor = files.stage(self._volume.seline, name, data, None, time.time_ns())
            try:
                files.sync(descriptor)
            finally:
                os.close(descriptor)
            files.rename(self._volume.seline, name, self._volume.seline, RECORD_NAME)
        except OSError as error:
            raise StagingFailed(error, "Writing the journal") from error
        try:
            files.sync(self._volume.seline)
        except OSError as error:
            raise InDoubt(error, "Syncing the journal", committed=False) from error

    # publish

    def _publish(self, moves: Sequence[Move], now: datetime, *, atomic: bool) -> None:
        for move in moves:
            self.overlay[move.key] = move.publish.found.trouble or move.publish.found.content
        for move in moves:
            try:
                self._publish_with_reserve(move, atomic=atomic)
            except OSError as error:
                if atomic:
                    raise InDoubt(error, f"Publishing {move.key.name}", committed=True) from error
                move.refused = error
        self._preserver.keep_what_came_out(moves, now, atomic=atomic)
        self._sync_documents(moves, committed=atomic)
        if atomic:
            self._forget_record()
        for move in moves:
            if move.refused is None:
                self.overlay.pop(move.key, None)

    def _publish_with_reserve(self, move: Move, *, atomic: bool) -> None:
        try:
            self._staging.put_in_place(move)
        except OSError:
            if not (atomic and self._release_reserve()):
                raise
            self._staging.put_in_place(move)

    def _sync_documents(self, moves: Sequence[Move], *, committed: bool) -> None:
        for directory in {self._volume.documents(move.key.owner) for move in moves}:
            try:
                files.sync(directory)
            except OSError as error:
                raise InDoubt(error, "Syncing the documents", committed=committed) from error

    def _forget_record(self) -> None:
        try:
            files.unlink(self._volume.seline, RECORD_NAME)
            files.sync(self._volume.seline)
        except OSError as error:
            raise InDoubt(error, "Removing the journal's record", committed=True) from error

    # finish: everything is durable; what fails from here on is told, not raised

    def _remember(self, moves: Sequence[Move]) -> None:
        for move in moves:
            content = move.publish.content
            if move.refused is not None:
                continue
            if content is None:
                self._inspector.forget(move.key)
                self._syncer.known.pop(move.key, None)
            else:
                identity = self._syncer.known[move.key] = self._as_staged(move, content)
                self._inspector.remember(move.key, identity, content)

    def _as_staged(self, move: Move, content: Content) -> FileIdentity:
        """Return what the file is known by, as it was written: an edit of this moment differs."""
        identity = FileIdentity.of(os.fstat(move.descriptor))
        return identity._replace(mtime_ns=move.mtime_ns, size_bytes=content.size_bytes)

    def _finish(self, moves: Sequence[Move], now: datetime) -> None:
        for move in moves:
            if move.refused is not None:
                self._take_back_links(move)
                self._unlink_quietly(self._volume.staging, move.staged)
                self.overlay.pop(move.key, None)
                continue
            for backup in move.backups:
                self._backup_indexes[move.key.owner].added(backup)
            if move.displaced:
                self._preserver.see_out(move, now)

    # undo: nothing is visible yet

    def _undo(self, moves: Sequence[Move]) -> None:
        for move in moves:
            for name, _ in move.copies:
                self._unlink_quietly(self._volume.staging, name)
            self._take_back_links(move)
            if move.staged:
                self._unlink_quietly(self._volume.staging, move.staged)
        self._unlink_quietly(self._volume.seline, f"{RECORD_NAME}.new")

    def _take_back_links(self, move: Move) -> None:
        for directory, name in move.links:
            self._unlink_quietly(directory, name)

    def _unlink_quietly(self, directory: int, name: str) -> None:
        try:
            files.unlink(directory, name, missing_ok=True)
        except OSError:
            self._litter.append((directory, name))

    def _sweep_litter(self) -> None:
        """Try again to tidy what the disk did not let go of after an earlier commit."""
        litter, self._litter = self._litter, []
        for directory, name in litter:
            self._unlink_quietly(directory, name)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _revision(content: Content | None) -> str | None:
    return None if content is None else content.revision


def _committed(moves: Sequence[Move]) -> Committed:
    current = [move for move in moves if move.refused is None]
    return Committed(
        backups={move.key: _undo_backup(move) for move in current if _undo_backup(move)},
        made={move.key: move.backups for move in current},
        refused={move.key: move.refused for move in moves if move.refused is not None},
        unerased={move.key: move.left for move in current if move.left and move.publish.purge},
    )


def _undo_backup(move: Move) -> str:
    if move.publish.purge:
        return ""
    if move.backups:
        return move.backups[-1].name
    source = move.publish.found.source
    return source.name if source is not None and move.publish.found.broken else ""
