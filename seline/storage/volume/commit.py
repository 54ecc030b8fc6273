"""Make one batch of documents current on the volume, or leave everything as it was.

V1  A reader finds the old bytes or the new ones, never a mixture.
V2  The old bytes are a durable backup before the new ones become visible.
V3  When `run` returns, the batch survives a power cut.
V4  Broken bytes go to quarantine, and only bytes that were judged sound become a backup.
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

From the first rename until the directory is synced, readers are answered from the overlay.
Nothing awaits here, and only the writer's thread comes here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from seline.domain.backup import Backup, Stamp, backup_name
from seline.domain.document import Content, DocumentKey
from seline.domain.integrity import Verdict
from seline.domain.json_text import why_not_json
from seline.errors import SelineError
from seline.ports.store import Incident
from seline.storage.batch import Found, Plan, Publish
from seline.storage.volume import disk
from seline.storage.volume.disk import Identity
from seline.storage.volume.failures import describe
from seline.storage.volume.ground import Ground
from seline.storage.volume.journal import RECORD_NAME, Entry, encode_record
from seline.storage.volume.judging import Judging
from seline.storage.volume.probe import Probed
from seline.storage.volume.quarantine import free_aside_name, is_set_aside
from seline.storage.volume.shelf import Shelf

SYNC_THREADS: Final = 16
_NO_EXCHANGE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
SYNCFS_FILES_MIN: Final = 6
"""From this many staged files on, one sync of the whole file system is the quicker one."""

Overlay: TypeAlias = "dict[DocumentKey, Content | SelineError | None]"
"""What readers are answered: a content, None where there is no document, or why none is served."""


class StagingFailed(Exception):
    """Nothing has become visible; everything was undone. The cause is an OSError."""

    def __init__(self, error: OSError, doing: str) -> None:
        super().__init__(doing)
        self.error = error
        self.doing = doing


class LookAgain(Exception):
    """What was judged is not what lies there any more; nothing was changed."""


class DirectoryFailed(Exception):
    """A directory could not be synced before anything became visible; undone, but not for sure."""

    def __init__(self, error: OSError, doing: str) -> None:
        super().__init__(doing)
        self.error = error
        self.doing = doing


class InDoubt(Exception):
    """The disk failed after something became visible, or after the commit point.

    `committed`: the record is durable, so the batch will be rolled forward.
    """

    def __init__(self, error: OSError, doing: str, *, committed: bool) -> None:
        super().__init__(doing)
        self.error = error
        self.doing = doing
        self.committed = committed


@dataclass(slots=True)
class _Move:
    """One document's way through the commit."""

    publish: Publish
    key: DocumentKey
    staged: str = ""
    descriptor: int = -1
    mtime_ns: int = 0
    copies: list[tuple[str, Backup]] = field(default_factory=list[tuple[str, Backup]])
    descriptors: list[int] = field(default_factory=list[int])
    links: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    backups: list[Backup] = field(default_factory=list[Backup])
    set_aside: bool = False
    displaced: bool = False
    left: str = ""
    refused: OSError | None = None


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit did: the backup that holds each document's content before it, by key.

    `refused` names documents whose own rename the disk refused; the others are current.
    `unerased` says why the disk kept something of a purged document.
    """

    backups: dict[DocumentKey, str]
    made: dict[DocumentKey, list[Backup]]
    refused: dict[DocumentKey, OSError]
    unerased: dict[DocumentKey, str] = msgspec.field(default_factory=dict[DocumentKey, str])


@dataclass(slots=True, kw_only=True)
class Committer:
    """Commits batches on one ground."""

    ground: Ground
    probed: Probed
    judging: Judging
    shelves: dict[str, Shelf]
    tell: Callable[[Incident], None]
    release_reserve: Callable[[], bool]
    before_replacing: Callable[[DocumentKey], None]
    overlay: Overlay = field(default_factory=dict[DocumentKey, "Content | SelineError | None"])
    _durable: dict[DocumentKey, Identity] = field(default_factory=dict[DocumentKey, Identity])
    _refused_syncs: dict[tuple[int, int], OSError] = field(
        default_factory=dict[tuple[int, int], OSError]
    )
    _litter: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    _unseen: list[_Move] = field(default_factory=list[_Move])
    _pool: ThreadPoolExecutor | None = None
    _sequence: int = 0

    def run(self, plan: Plan, *, now: datetime) -> Committed:
        """Make the plan's publishes current together.

        Raises StagingFailed, LookAgain (nothing changed), DirectoryFailed, InDoubt.
        """
        moves = [_Move(publish, publish.key) for publish in plan.publishes]
        self._sweep_litter(now)
        try:
            self._prepare(moves, now, atomic=plan.atomic)
            self._publish(moves, now, atomic=plan.atomic)
            self._remember(moves)
        finally:
            for move in moves:
                _close(move.descriptors)
        self._finish(moves, now)
        return _committed(moves)

    def hold(self, found: Sequence[Found]) -> None:
        """Make durable what lies there and is not known to be so, before it is relied on (V3).

        Raises DirectoryFailed.
        """
        strange = [one for one in found if not self._is_durable(one)]
        try:
            for one in strange:
                self._sync_found(one)
        except OSError as error:
            raise DirectoryFailed(error, "Syncing what lies there") from error
        owners = {one.key.owner for one in strange}
        self._sync_directories(map(self.ground.documents, owners), "Syncing the documents")
        for one in strange:
            if isinstance(one.token, Identity):
                self._durable[one.key] = one.token

    def _is_durable(self, found: Found) -> bool:
        """Whether this process wrote the file, or has synced it: `cp -a` and `mv` do not."""
        return self._durable.get(found.key) == found.token

    def _sync_found(self, found: Found) -> None:
        """Sync a file as it lies there, once: after a failure its sync would say nothing."""
        if not isinstance(found.token, Identity):
            return  # nothing lies there
        file = found.token.inode, found.token.mtime_ns
        if (refusal := self._refused_syncs.get(file)) is not None:
            raise refusal
        with contextlib.suppress(FileNotFoundError):  # it was there a moment ago
            descriptor = disk.open_to_read(self.ground.documents(found.key.owner), found.key.name)
            try:
                disk.sync(descriptor)
            except OSError as error:
                self._refused_syncs[file] = error
                raise
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """End the threads that sync; idempotent. No commit runs any more."""
        if self._pool is not None:
            self._pool.shutdown()

    def _prepare(self, moves: Sequence[_Move], now: datetime, *, atomic: bool) -> None:
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

    # stage and keep

    def _stage_and_keep(self, moves: Sequence[_Move], now: datetime) -> None:
        for move in moves:
            try:
                self._stage(move)
                self._keep(move, now)
                self.before_replacing(move.key)
            except OSError as error:
                raise StagingFailed(error, f"Writing {move.key.name}") from error

    def _stage(self, move: _Move) -> None:
        content = move.publish.content
        if content is None:
            return
        move.staged = self._staging_name()
        move.descriptor, move.mtime_ns = self._write_staged(move, move.staged, content)

    def _write_staged(self, move: _Move, name: str, content: Content) -> tuple[int, int]:
        """Write a content, to be synced with the others; return its descriptor and its mtime."""
        attribute, mtime_ns = self.probed.mark(move.key, content)
        descriptor = disk.stage(self.ground.staging, name, content.data, attribute, mtime_ns)
        move.descriptors.append(descriptor)
        return descriptor, mtime_ns

    def _staging_name(self) -> str:
        self._sequence += 1
        return f"{self._sequence:08x}"

    def _keep(self, move: _Move, now: datetime) -> None:
        publish, found = move.publish, move.publish.found
        if publish.purge:
            return
        if found.unsaved is not None:
            self._copy(move, found.unsaved, now)
        if found.broken:
            self._set_aside(move, now)
            if publish.backup and found.content is not None and found.source is None:
                self._copy(move, found.content, now)
        elif publish.backup and found.content is not None:
            if found.judged.verdict is Verdict.SOUND and self._link(move, found.content, now):
                return
            self._copy(move, found.content, now)

    def _next_backup(self, move: _Move, content: Content, now: datetime) -> Backup:
        document = move.key.name
        after: Stamp | None = move.backups[-1].stamp if move.backups else None
        stamp = self.shelves[move.key.owner].next_stamp(document, now, after=after)
        return Backup(
            name=backup_name(document, stamp),
            document=document,
            stamp=stamp,
            size_bytes=content.size_bytes,
            revision=content.revision,
            verdict=Verdict.SOUND,
        )

    def _link(self, move: _Move, content: Content, now: datetime) -> bool:
        """Link the judged inode into backups/; False where it cannot be linked, or synced."""
        if not self.probed.links:
            return False
        backup = self._next_backup(move, content, now)
        target = self.ground.backups(move.key.owner)
        try:
            if not self._is_durable(move.publish.found):
                self._sync_found(move.publish.found)
            disk.link(self.ground.documents(move.key.owner), move.key.name, target, backup.name)
        except (FileNotFoundError, FileExistsError) as error:
            raise LookAgain from error
        except OSError:
            return False
        move.links.append((target, backup.name))
        if not self._is_judged(move, target, backup.name):
            raise LookAgain
        move.backups.append(backup)
        return True

    def _is_judged(self, move: _Move, directory: int, name: str) -> bool:
        token = move.publish.found.token
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return isinstance(token, Identity) and token.same_bytes(Identity.of(status))

    def _copy(self, move: _Move, content: Content, now: datetime) -> None:
        """Stage a copy that `_sync` moves into backups/ once it is durable."""
        backup = self._next_backup(move, content, now)
        name = self._staging_name()
        self._write_staged(move, name, content)
        move.copies.append((name, backup))
        move.backups.append(backup)

    def _set_aside(self, move: _Move, now: datetime) -> None:
        """Link the broken inode into quarantine/, the same bytes once (V4).

        What cannot be linked, or read, is moved there once it has come out.
        """
        broken = move.publish.found.judged.content
        if broken is not None and is_set_aside(self.ground, move.key, broken):
            return
        name = free_aside_name(self.ground, move.key, now)
        if broken is None:
            move.set_aside = True
            return
        documents = self.ground.documents(move.key.owner)
        try:
            disk.link(documents, move.key.name, self.ground.quarantine, name)
        except (FileNotFoundError, FileExistsError) as error:
            raise LookAgain from error
        except OSError:
            self._set_aside_otherwise(move, name)
        else:
            move.links.append((self.ground.quarantine, name))
            if not self._is_judged(move, self.ground.quarantine, name):
                raise LookAgain

    def _set_aside_otherwise(self, move: _Move, name: str) -> None:
        """Where the broken inode cannot be linked: move it once it comes out, else copy it now."""
        broken = move.publish.found.judged.content
        if self.probed.exchange or move.publish.content is None or broken is None:
            move.set_aside = True
            return
        descriptor = disk.stage(self.ground.quarantine, name, broken.data, None, time.time_ns())
        move.links.append((self.ground.quarantine, name))
        try:
            disk.sync(descriptor)
        finally:
            os.close(descriptor)

    # sync

    def _sync(self, moves: Sequence[_Move]) -> None:
        descriptors = [descriptor for move in moves for descriptor in move.descriptors]
        whole = (
            self.probed.own_mount
            and len(descriptors) >= SYNCFS_FILES_MIN
            and disk.syncs_filesystems()
        )
        try:
            if whole:
                disk.sync_filesystem(self.ground.top)
            else:
                self._sync_each(descriptors)
            moved = self._shelve_copies(moves)
        except OSError as error:
            raise StagingFailed(error, "Syncing what was written") from error
        directories = moved if whole else {target for move in moves for target, _ in move.links}
        self._sync_directories(directories | moved, "Syncing the backups")

    def _sync_each(self, descriptors: Sequence[int]) -> None:
        if len(descriptors) < 2:
            for descriptor in descriptors:
                disk.sync(descriptor)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="seline-sync")
        try:
            pending = [self._pool.submit(disk.sync, descriptor) for descriptor in descriptors]
        except RuntimeError:  # the interpreter is going down and takes no work any more
            pending = []
            for descriptor in descriptors:
                disk.sync(descriptor)
        failures = [error for future in pending if (error := future.exception()) is not None]
        if failures:
            raise failures[0]

    def _shelve_copies(self, moves: Sequence[_Move]) -> set[int]:
        targets: set[int] = set()
        for move in moves:
            target = self.ground.backups(move.key.owner)
            while move.copies:
                name, backup = move.copies[0]
                self._shelve(name, target, backup)
                move.links.append((target, backup.name))
                move.copies.pop(0)
                targets.add(target)
        return targets

    def _shelve(self, name: str, target: int, backup: Backup) -> None:
        """Move a copy to its name among the backups; never over one that bears it already."""
        if not self.probed.exchange:
            disk.rename(self.ground.staging, name, target, backup.name)
            return
        try:
            disk.rename_new(self.ground.staging, name, target, backup.name)
        except FileExistsError as error:
            raise LookAgain from error

    def _sync_directories(self, directories: Iterable[int], doing: str) -> None:
        for directory in directories:
            try:
                disk.sync(directory)
            except OSError as error:
                raise DirectoryFailed(error, doing) from error

    # record: the commit point of several documents

    def _record(self, moves: Sequence[_Move]) -> None:
        entries = [
            Entry(
                owner=move.key.owner,
                name=move.key.name,
                staged=move.staged or None,
                before=_revision(move.publish.found.judged.content),
                after=_revision(move.publish.content),
            )
            for move in moves
        ]
        self._sync_directories([self.ground.staging], "Syncing what was staged")
        name = f"{RECORD_NAME}.new"
        try:
            disk.unlink(self.ground.seline, name, missing_ok=True)
            data = encode_record(entries)
            descriptor = disk.stage(self.ground.seline, name, data, None, time.time_ns())
            try:
                disk.sync(descriptor)
            finally:
                os.close(descriptor)
            disk.rename(self.ground.seline, name, self.ground.seline, RECORD_NAME)
        except OSError as error:
            raise StagingFailed(error, "Writing the journal") from error
        try:
            disk.sync(self.ground.seline)
        except OSError as error:
            raise InDoubt(error, "Syncing the journal", committed=False) from error

    # publish

    def _publish(self, moves: Sequence[_Move], now: datetime, *, atomic: bool) -> None:
        for move in moves:
            self.overlay[move.key] = move.publish.found.trouble or move.publish.found.content
        for move in moves:
            try:
                self._rename_with_reserve(move, atomic=atomic)
            except OSError as error:
                if atomic:
                    raise InDoubt(error, f"Publishing {move.key.name}", committed=True) from error
                move.refused = error
        self._keep_what_came_out(moves, now, atomic=atomic)
        self._sync_documents(moves, committed=atomic)
        if atomic:
            self._forget_record()
        for move in moves:
            if move.refused is None:
                self.overlay.pop(move.key, None)

    def _rename_with_reserve(self, move: _Move, *, atomic: bool) -> None:
        try:
            self._rename(move)
        except OSError:
            if not (atomic and self.release_reserve()):
                raise
            self._rename(move)

    def _rename(self, move: _Move) -> None:
        documents, name = self.ground.documents(move.key.owner), move.key.name
        if move.publish.content is None:
            move.staged = self._staging_name()
            with contextlib.suppress(FileNotFoundError):
                disk.rename(documents, name, self.ground.staging, move.staged)
                move.displaced = True
            return
        if self.probed.exchange:
            try:
                self._exchange(move, documents)
            except OSError as error:
                if error.errno not in _NO_EXCHANGE:
                    raise
                self.probed = replace(self.probed, exchange=False)  # there was no room to probe it
            else:
                return
        disk.rename(self.ground.staging, move.staged, documents, name)

    def _exchange(self, move: _Move, documents: int) -> None:
        name = move.key.name
        if move.publish.found.judged.verdict is Verdict.MISSING:
            with contextlib.suppress(FileExistsError):
                disk.rename_new(self.ground.staging, move.staged, documents, name)
                return
        try:
            disk.exchange(self.ground.staging, move.staged, documents, name)
            move.displaced = True
        except FileNotFoundError:
            disk.rename(self.ground.staging, move.staged, documents, name)

    def _keep_what_came_out(self, moves: Sequence[_Move], now: datetime, *, atomic: bool) -> None:
        """Keep a hand edit, or broken bytes, before the sync that lets go of their old name.

        Where that cannot be done now, their new name is synced, unless a record needs what the disk
        may still have under it: the content that was staged there.
        """
        for move in moves:
            try:
                if move.displaced and self._is_only_there(move):
                    self._see_out(move, now)
                    move.displaced = False
            except OSError:
                if not atomic:
                    self._hold_what_came_out()

    def _hold_what_came_out(self) -> None:
        try:
            disk.sync(self.ground.staging)
        except OSError as error:
            raise InDoubt(error, "Syncing what came out", committed=False) from error

    def _is_only_there(self, move: _Move) -> bool:
        return move.set_aside or not self._is_judged(move, self.ground.staging, move.staged)

    def _sync_documents(self, moves: Sequence[_Move], *, committed: bool) -> None:
        for directory in {self.ground.documents(move.key.owner) for move in moves}:
            try:
                disk.sync(directory)
            except OSError as error:
                raise InDoubt(error, "Syncing the documents", committed=committed) from error

    def _forget_record(self) -> None:
        try:
            disk.unlink(self.ground.seline, RECORD_NAME)
            disk.sync(self.ground.seline)
        except OSError as error:
            raise InDoubt(error, "Removing the journal's record", committed=True) from error

    # finish: everything is durable; what fails from here on is told, not raised

    def _remember(self, moves: Sequence[_Move]) -> None:
        for move in moves:
            content = move.publish.content
            if move.refused is not None:
                continue
            if content is None:
                self.judging.forget(move.key)
                self._durable.pop(move.key, None)
            else:
                identity = self._durable[move.key] = self._as_staged(move, content)
                self.judging.remember(move.key, identity, content)

    def _as_staged(self, move: _Move, content: Content) -> Identity:
        """Return what the file is known by, as it was written: an edit of this moment differs."""
        identity = Identity.of(os.fstat(move.descriptor))
        return identity._replace(mtime_ns=move.mtime_ns, size_bytes=content.size_bytes)

    def _finish(self, moves: Sequence[_Move], now: datetime) -> None:
        for move in moves:
            if move.refused is not None:
                self._take_back_links(move)
                self._unlink_quietly(self.ground.staging, move.staged)
                self.overlay.pop(move.key, None)
                continue
            for backup in move.backups:
                self.shelves[move.key.owner].added(backup)
            if move.displaced:
                self._see_out_quietly(move, now)

    def _see_out_quietly(self, move: _Move, now: datetime) -> None:
        """What cannot be tidied now is tidied before the next commit, or at the next start."""
        try:
            self._see_out(move, now)
        except FileNotFoundError:
            return  # a reopening has dealt with it
        except OSError as error:
            move.left = describe(error)
            self._unseen.append(move)

    def _see_out(self, move: _Move, now: datetime) -> None:
        """Deal with the file that came out of the live name."""
        if move.publish.purge:
            self._erase(move, now)
        elif move.set_aside:
            aside = free_aside_name(self.ground, move.key, now)
            self._rename_aside(move.staged, aside)
        elif self._is_judged(move, self.ground.staging, move.staged):
            disk.unlink(self.ground.staging, move.staged)
        else:
            self._keep_stranger(move, now)

    def _erase(self, move: _Move, now: datetime) -> None:
        """Erase what a purged document was by now; a directory, never ours, is set aside."""
        try:
            disk.unlink(self.ground.staging, move.staged)
        except IsADirectoryError:
            self._rename_aside(move.staged, free_aside_name(self.ground, move.key, now))

    def _rename_aside(self, staged: str, name: str) -> None:
        disk.rename(self.ground.staging, staged, self.ground.quarantine, name)
        disk.sync(self.ground.quarantine)

    def _keep_stranger(self, move: _Move, now: datetime) -> None:
        """Someone edited the document in the very moment of the save: keep what they wrote."""
        key = move.key
        raw = disk.read_whole(self.ground.staging, move.staged, size_max=1 << 40)
        content = Content.of(raw.data)
        if why_not_json(raw.data) is not None:
            self._rename_aside(move.staged, free_aside_name(self.ground, key, now))
            place = "quarantine"
        else:
            target = self.ground.backups(key.owner)
            backup = self._next_backup(move, content, now)
            name = self._staging_name()
            descriptor, _ = self._write_staged(move, name, content)
            try:
                disk.sync(descriptor)
            finally:
                os.close(move.descriptors.pop())
            disk.rename(self.ground.staging, name, target, backup.name)
            disk.sync(target)
            disk.unlink(self.ground.staging, move.staged)
            move.backups.append(backup)
            self.shelves[key.owner].added(backup)
            place = f"backup {backup.name}"
        self.tell(
            Incident(
                kind="edited_meanwhile",
                document=key.name,
                at=now,
                summary=f"{key.name} was edited by hand while it was saved; the edit is kept as "
                f"{place}.",
            )
        )

    # undo: nothing is visible yet

    def _undo(self, moves: Sequence[_Move]) -> None:
        for move in moves:
            for name, _ in move.copies:
                self._unlink_quietly(self.ground.staging, name)
            self._take_back_links(move)
            if move.staged:
                self._unlink_quietly(self.ground.staging, move.staged)
        self._unlink_quietly(self.ground.seline, f"{RECORD_NAME}.new")

    def _take_back_links(self, move: _Move) -> None:
        for directory, name in move.links:
            self._unlink_quietly(directory, name)

    def _unlink_quietly(self, directory: int, name: str) -> None:
        try:
            disk.unlink(directory, name, missing_ok=True)
        except OSError:
            self._litter.append((directory, name))

    def _sweep_litter(self, now: datetime) -> None:
        """Try again to tidy what the disk did not let go of after an earlier commit."""
        litter, self._litter = self._litter, []
        for directory, name in litter:
            self._unlink_quietly(directory, name)
        unseen, self._unseen = self._unseen, []
        for move in unseen:
            self._see_out_quietly(move, now)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _revision(content: Content | None) -> str | None:
    return None if content is None else content.revision


def _committed(moves: Sequence[_Move]) -> Committed:
    current = [move for move in moves if move.refused is None]
    return Committed(
        backups={move.key: _undo_backup(move) for move in current if _undo_backup(move)},
        made={move.key: move.backups for move in current},
        refused={move.key: move.refused for move in moves if move.refused is not None},
        unerased={move.key: move.left for move in current if move.left and move.publish.purge},
    )


def _undo_backup(move: _Move) -> str:
    if move.publish.purge:
        return ""
    if move.backups:
        return move.backups[-1].name
    source = move.publish.found.source
    return source.name if source is not None and move.publish.found.broken else ""
