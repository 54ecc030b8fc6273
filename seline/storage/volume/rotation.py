"""The only way in which a backup is removed, and the rule it keeps.

V8  The newest sound backup of a document is never removed; the one that will be kept is read and
    verified before anything is unlinked; backups in use are left; after a failed listing nothing
    goes. Two exceptions: a purge, and the backups of documents deleted long ago (`unguarded`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from seline.domain.backup import Backup
from seline.domain.document import DocumentKey
from seline.domain.integrity import Verdict
from seline.domain.retention import Dropped, Kept, RetentionPlan
from seline.ports.store import QuarantineItem, Retain
from seline.storage.volume import disk
from seline.storage.volume.ground import Ground
from seline.storage.volume.judging import Judging
from seline.storage.volume.quarantine import list_quarantine
from seline.storage.volume.shelf import Shelf

QUARANTINE_ITEMS_MAX: Final = 100
QUARANTINE_BYTES_MAX: Final = 32 << 20
_BROKEN: Final = frozenset({Verdict.ALTERED, Verdict.TORN, Verdict.UNREADABLE, Verdict.MISSING})


@dataclass(slots=True, kw_only=True)
class Rotation:
    """Discards backups and bounds the quarantine. Only the writer's thread comes here.

    `leased` names the backups that a restore or an export is reading.
    """

    ground: Ground
    judging: Judging
    shelves: dict[str, Shelf]
    leased: set[str] = field(default_factory=set[str])

    def rotate(
        self, key: DocumentKey, retain: Retain, *, just_made: Iterable[str] = ()
    ) -> list[Backup]:
        """Discard what `retain` drops of a document's backups; return what was discarded.

        `just_made` names backups that this very commit linked from judged bytes. Raises OSError
        where the directory cannot be listed: then nothing was discarded.
        """
        with self.shelves[key.owner]:
            return self._rotate(key, retain, set(just_made))

    def _rotate(self, key: DocumentKey, retain: Retain, verified: set[str]) -> list[Backup]:
        backups = self.shelves[key.owner].of(key.name)
        while (plan := retain(backups)).drop:
            newest = max(
                (kept.backup for kept in plan.keep if kept.backup.verdict not in _BROKEN),
                key=lambda backup: backup.stamp,
                default=None,
            )
            if newest is None:
                return []
            if newest.name in verified or self._is_sound(key, newest):
                return self._discard(key, [dropped.backup for dropped in plan.drop])
            backups = [
                replace(backup, verdict=Verdict.ALTERED) if backup is newest else backup
                for backup in backups
            ]
        return []

    def discard(self, key: DocumentKey, backup: Backup) -> bool:
        """Discard one backup for want of space, unless it is the newest sound one."""
        return bool(self.rotate(key, partial(_all_but, backup)))

    def purge(self, key: DocumentKey) -> None:
        """Erase every backup and quarantined copy of a document, durably (`unguarded`)."""
        with self.shelves[key.owner]:
            for backup in self.shelves[key.owner].of(key.name):
                self._unlink(key, backup)
        for item in self.quarantine():
            if item.document == key.name:
                disk.unlink(self.ground.quarantine, item.name, missing_ok=True)
        disk.sync(self.ground.backups(key.owner))
        disk.sync(self.ground.quarantine)

    def bound_quarantine(self) -> None:
        """Let the oldest quarantined bytes go beyond the bounds, keeping each document's newest."""
        items = self.quarantine()
        newest_of = {item.document: item.name for item in reversed(items)}
        size_bytes = 0
        for count, item in enumerate(items, start=1):
            size_bytes += item.size_bytes
            over = count > QUARANTINE_ITEMS_MAX or size_bytes > QUARANTINE_BYTES_MAX
            if over and newest_of[item.document] != item.name:
                disk.unlink(self.ground.quarantine, item.name, missing_ok=True)

    def quarantine(self) -> list[QuarantineItem]:
        """List what was set aside, newest first."""
        return list_quarantine(self.ground)

    def _is_sound(self, key: DocumentKey, backup: Backup) -> bool:
        return self.judging.look_at_backup(key, backup.name).judged.verdict is Verdict.SOUND

    def _discard(self, key: DocumentKey, backups: Sequence[Backup]) -> list[Backup]:
        discarded = [backup for backup in backups if backup.name not in self.leased]
        for backup in discarded:
            self._unlink(key, backup)
        return discarded

    def _unlink(self, key: DocumentKey, backup: Backup) -> None:
        disk.unlink(self.ground.backups(key.owner), backup.name, missing_ok=True)
        self.shelves[key.owner].removed(backup)


def _all_but(unwanted: Backup, backups: Sequence[Backup]) -> RetentionPlan:
    """Plan to drop one backup, unless it is the newest that may be sound."""
    may_be_sound = [backup for backup in backups if backup.verdict not in _BROKEN]
    newest = max(may_be_sound, key=lambda backup: backup.stamp, default=None)
    drop = tuple(
        Dropped(backup, "the volume is nearly full")
        for backup in backups
        if backup.name == unwanted.name and backup is not newest
    )
    gone = {dropped.backup.name for dropped in drop}
    return RetentionPlan(
        tuple(Kept(backup, "kept") for backup in backups if backup.name not in gone), drop
    )
