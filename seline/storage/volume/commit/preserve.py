"""Keep a document's old bytes before its new ones are visible; look at what came out of its name.

V2  The old bytes have a name among the backups, or in quarantine/, that the commit syncs first.
V4  Broken bytes go to quarantine, and only bytes that were judged sound become a backup.
An edit of the very moment is kept, too: what comes out and is not the inode that was judged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from seline.domain.document import Content
from seline.domain.json_codec import why_not_json
from seline.domain.verdict import Verdict
from seline.ports.store import Incident
from seline.storage.volume import files
from seline.storage.volume.backup_index import BackupIndex
from seline.storage.volume.commit.staging import Move, Staging
from seline.storage.volume.commit.sync import Syncer
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.os_errors import InDoubt, LookAgain, describe
from seline.storage.volume.quarantine import free_aside_name, is_set_aside


@dataclass(slots=True)
class Preserver:
    """Keeps what the documents of one ground were. Raises OSError as the disk gave it."""

    volume: VolumeDirectory
    staging: Staging
    syncer: Syncer
    backup_indexes: dict[str, BackupIndex]
    tell: Callable[[Incident], None]
    _unseen: list[Move] = field(default_factory=list[Move])

    # before anything is visible

    def keep(self, move: Move, now: datetime) -> None:
        """Link what was judged into backups/ or quarantine/; stage a copy where that cannot be.

        Raises LookAgain.
        """
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

    def _link(self, move: Move, content: Content, now: datetime) -> bool:
        """Link the judged inode into backups/; False where it cannot be linked, or synced."""
        if not self.staging.capabilities.links:
            return False
        backup = move.next_backup(self.backup_indexes[move.key.owner], content, now)
        target = self.volume.backups(move.key.owner)
        try:
            self.syncer.make_file_durable(move.publish.found)
            files.link(self.volume.documents(move.key.owner), move.key.name, target, backup.name)
        except (FileNotFoundError, FileExistsError) as error:
            raise LookAgain from error
        except OSError:
            return False
        move.links.append((target, backup.name))
        if not move.is_judged(target, backup.name):
            raise LookAgain
        move.backups.append(backup)
        return True

    def _copy(self, move: Move, content: Content, now: datetime) -> None:
        """Stage a copy that `shelve_copies` moves into backups/ once it is durable."""
        backup = move.next_backup(self.backup_indexes[move.key.owner], content, now)
        name = self.staging.free_name()
        self.staging.write(move, name, content)
        move.copies.append((name, backup))
        move.backups.append(backup)

    def shelve_copies(self, moves: Sequence[Move]) -> set[int]:
        """Move the copies, which are durable now, into backups/; return which directories."""
        targets: set[int] = set()
        for move in moves:
            target = self.volume.backups(move.key.owner)
            while move.copies:
                name, backup = move.copies[0]
                self.staging.shelve(name, target, backup)
                move.links.append((target, backup.name))
                move.copies.pop(0)
                targets.add(target)
        return targets

    def _set_aside(self, move: Move, now: datetime) -> None:
        """Link the broken inode into quarantine/, the same bytes once (V4).

        What cannot be linked, or read, is moved there once it has come out.
        """
        broken = move.publish.found.judged.content
        if broken is not None and is_set_aside(self.volume, move.key, broken):
            return
        name = free_aside_name(self.volume, move.key, now)
        if broken is None:
            move.set_aside = True
            return
        documents = self.volume.documents(move.key.owner)
        try:
            files.link(documents, move.key.name, self.volume.quarantine, name)
        except (FileNotFoundError, FileExistsError) as error:
            raise LookAgain from error
        except OSError:
            self._set_aside_otherwise(move, name, broken)
        else:
            move.links.append((self.volume.quarantine, name))
            if not move.is_judged(self.volume.quarantine, name):
                raise LookAgain

    def _set_aside_otherwise(self, move: Move, name: str, broken: Content) -> None:
        """Where the broken inode cannot be linked: move it once it comes out, else copy it now."""
        if self.staging.capabilities.exchange or move.publish.content is None:
            move.set_aside = True
            return
        descriptor = files.stage(self.volume.quarantine, name, broken.data, None, time.time_ns())
        move.links.append((self.volume.quarantine, name))
        try:
            files.sync(descriptor)
        finally:
            os.close(descriptor)

    # what came out of the live name

    def keep_what_came_out(self, moves: Sequence[Move], now: datetime, *, atomic: bool) -> None:
        """Keep a hand edit, or broken bytes, before the sync that lets go of their old name.

        Where that cannot be done now, their new name is synced, unless a record needs what the disk
        may still have under it: the content that was staged there. Raises InDoubt.
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
            files.sync(self.volume.staging)
        except OSError as error:
            raise InDoubt(error, "Syncing what came out", committed=False) from error

    def _is_only_there(self, move: Move) -> bool:
        return move.set_aside or not move.is_judged(self.volume.staging, move.staged)

    def see_out(self, move: Move, now: datetime) -> None:
        """Deal with what came out, now that everything is durable; what fails is tried again."""
        try:
            self._see_out(move, now)
        except FileNotFoundError:
            return  # a reopening has dealt with it
        except OSError as error:
            move.left = describe(error)
            self._unseen.append(move)

    def see_out_the_rest(self, now: datetime) -> None:
        """Try again what failed after an earlier commit; the next start would do it, too."""
        unseen, self._unseen = self._unseen, []
        for move in unseen:
            self.see_out(move, now)

    def _see_out(self, move: Move, now: datetime) -> None:
        if move.publish.purge:
            self._erase(move, now)
        elif move.set_aside:
            self._move_aside(move, now)
        elif move.is_judged(self.volume.staging, move.staged):
            files.unlink(self.volume.staging, move.staged)
        else:
            self._keep_stranger(move, now)

    def _erase(self, move: Move, now: datetime) -> None:
        """Erase what a purged document was by now; a directory, never ours, is set aside."""
        try:
            files.unlink(self.volume.staging, move.staged)
        except IsADirectoryError:
            self._move_aside(move, now)

    def _move_aside(self, move: Move, now: datetime) -> None:
        aside = free_aside_name(self.volume, move.key, now)
        files.rename(self.volume.staging, move.staged, self.volume.quarantine, aside)
        files.sync(self.volume.quarantine)

    def _keep_stranger(self, move: Move, now: datetime) -> None:
        """Someone edited the document in the very moment of the save: keep what they wrote."""
        raw = files.read_whole(self.volume.staging, move.staged, size_max=1 << 40)
        if why_not_json(raw.data) is not None:
            self._move_aside(move, now)
            place = "quarantine"
        else:
            place = f"backup {self._keep_edit(move, Content.of(raw.data), now)}"
        self.tell(
            Incident(
                kind="edited_meanwhile",
                document=move.key.name,
                at=now,
                summary=f"{move.key.name} was edited by hand while it was saved; the edit is kept "
                f"as {place}.",
            )
        )

    def _keep_edit(self, move: Move, content: Content, now: datetime) -> str:
        """Make a durable backup, with a checksum, of a hand edit; return its name."""
        target, backup_index = (
            self.volume.backups(move.key.owner),
            self.backup_indexes[move.key.owner],
        )
        backup = move.next_backup(backup_index, content, now)
        name = self.staging.free_name()
        descriptor, _ = self.staging.write(move, name, content)
        try:
            files.sync(descriptor)
        finally:
            os.close(move.descriptors.pop())
        files.rename(self.volume.staging, name, target, backup.name)
        files.sync(target)
        files.unlink(self.volume.staging, move.staged)
        move.backups.append(backup)
        backup_index.added(backup)
        return backup.name
