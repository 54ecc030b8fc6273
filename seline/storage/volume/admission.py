"""Who may still write: refuse what would fill the volume, and make room by old backups.

V8  What is shed is never a document's newest sound backup.
V9  Growing writes are refused before the disk is full; emergencies draw on the reserve.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from seline.clock import Clock
from seline.domain.backup import Backup
from seline.domain.document import SELINE, Content, DocumentKey
from seline.domain.retention import plan_shedding
from seline.domain.usage import Room, room_for
from seline.domain.verdict import Verdict
from seline.errors import VolumeFull
from seline.ports.medium import MarkPinned
from seline.storage.planner import Plan, Publish
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.disk_usage import DiskUsage, blocks
from seline.storage.volume.events import Events
from seline.storage.volume.rotation import Rotation

SHED_BYTES_MIN: Final = 1 << 20
SHED_FILES_MIN: Final = 16
FILES_OF_A_CHANGE: Final = 2
"""What is staged of one document: the new content, and a copy where the old one has no link."""
SHED_AGAIN_S: Final = 5.0
TELL_SHED_EVERY_S: Final = 3600.0

_log = logging.getLogger("seline.storage")


def _unpinned(_key: DocumentKey, backups: Sequence[Backup]) -> Sequence[Backup]:
    return backups


@dataclass(slots=True, kw_only=True)
class Admission:
    """Admits batches, as long as the volume has room for them."""

    volume: VolumeDirectory
    rotation: Rotation
    disk_usage: DiskUsage
    clock: Clock
    documents_max: int
    events: Events
    _documents: int = 0
    _mark_pinned: MarkPinned = _unpinned
    _shed_again_at: float = 0.0
    _tell_shed_again_at: float = 0.0

    def admit(self, plan: Plan) -> None:
        """Refuse what would fill the volume; shed backups first (V9). Raises VolumeFull."""
        self._check_count(plan)
        growth = _growth(plan)
        room = room_for(growth, self.disk_usage.usage())
        if room is not Room.FREE and self._may_shed():  # no backup goes for what was counted before
            room = room_for(growth, self.disk_usage.usage(fresh=True))
        if room is Room.FREE:
            return
        if self._shed(plan) or room is Room.REFUSE:
            room = room_for(growth, self.disk_usage.usage(fresh=True))
        if room is Room.REFUSE and not all(map(_is_emergency, plan.publishes)):
            usage = self.disk_usage.usage()
            raise VolumeFull(
                f"The volume is {usage.usage_ratio:.0%} full, and writes that would take it to "
                "95 % are refused. Nothing was written.",
                usage_percent=round(usage.usage_ratio * 100, 2),
            )

    def count_documents(self) -> None:
        """Count the documents on the volume; a person may have added or removed some."""
        counted = [space for space in self.volume.spaces if space != SELINE]
        self._documents = sum(len(self.volume.document_names(space)) for space in counted)

    def heed_pins(self, mark: MarkPinned) -> None:
        """Ask `mark` for the pinned backups before any is shed (V11)."""
        self._mark_pinned = mark

    def ways_to_make_room(self, plan: Plan) -> list[Callable[[], bool]]:
        """Return what may be tried, once each, where the disk is full all the same.

        Backups are shed, then the reserve is drawn on if that may be.
        """
        may_draw = all(map(_is_emergency, plan.publishes))
        return [lambda: self._shed(plan)] + [self.disk_usage.release_reserve] * may_draw

    def took(self, current: Sequence[Publish], made: Sequence[Backup]) -> None:
        """Take note of what is current now, and of the backups that were made of it."""
        self._documents += sum(map(_count_change, current))
        if made:
            self._shed_again_at = 0.0  # what they succeed may go
        self.disk_usage.moved(
            sum(map(_size_change, current)), sum(blocks(backup.size_bytes) for backup in made)
        )

    def _check_count(self, plan: Plan) -> None:
        new = sum(map(_count_change, plan.publishes))
        if new > 0 and self._documents + new > self.documents_max:
            self.count_documents()
        if new > 0 and self._documents + new > self.documents_max:
            raise VolumeFull(
                f"There are {self._documents} documents; `storage.documents_max` allows "
                f"{self.documents_max}.",
                hint="Delete documents, or put several things into one.",
            )

    def _shed(self, plan: Plan) -> bool:
        """Discard old backups for room, each document's newest sound one excepted (V8).

        One that must not go after all (it is the newest sound one, or in use) is passed over.
        After a vain attempt, which looked at every document, the next one waits a while. Nothing
        goes for what Seline alone keeps, such as when a job last ran.
        """
        if not self._may_shed() or not any(map(_is_for_documents, plan.publishes)):
            return False
        now_s = self.clock.monotonic()
        shed: list[Backup] = []
        missing_bytes, missing_files = self._missing(plan)
        for key, dropped in plan_shedding(self._sheddable()):
            if missing_bytes <= 0 and missing_files <= 0:
                break
            if self._discard(key, dropped):
                shed.append(dropped)
                missing_bytes -= blocks(dropped.size_bytes)
                missing_files -= 1
        if not shed:
            self._shed_again_at = now_s + SHED_AGAIN_S
        self._tell_shed(shed, now_s)
        return bool(shed)

    def _missing(self, plan: Plan) -> tuple[int, int]:
        """Return how many bytes, and how many files, a change is to find room for."""
        usage, growth = self.disk_usage.usage(), _growth(plan)
        wanted_files = FILES_OF_A_CHANGE * len(plan.publishes) + SHED_FILES_MIN
        lacks_files = usage.inodes_free is not None and usage.inodes_free < wanted_files
        if lacks_files and room_for(growth, usage) is Room.FREE:
            return 0, wanted_files
        return max(growth, SHED_BYTES_MIN), wanted_files if lacks_files else 0

    def _may_shed(self) -> bool:
        return self.clock.monotonic() >= self._shed_again_at

    def _sheddable(self) -> dict[DocumentKey, Sequence[Backup]]:
        """Return the backups of every document but Seline's own, with their pins."""
        keys = [
            DocumentKey(space, document)
            for space in self.volume.spaces
            if space != SELINE
            for document in self.rotation.backup_indexes.of(space).counts()
        ]
        return {
            key: self._mark_pinned(key, self.rotation.backup_indexes.of(key.space).of(key.name))
            for key in keys
        }

    def _discard(self, key: DocumentKey, dropped: Backup) -> bool:
        try:
            return self.rotation.discard(key, dropped)
        except OSError as error:
            self.events.disk_error(error, "Discarding backups")
            return False

    def _tell_shed(self, shed: Sequence[Backup], now_s: float) -> None:
        """Log each one with its reason; tell a person of the first ones of an hour."""
        for dropped in shed:
            _log.warning("%s was discarded: %s", dropped.name, dropped.because)
        if shed and now_s >= self._tell_shed_again_at:
            self._tell_shed_again_at = now_s + TELL_SHED_EVERY_S
            self.events.shed(shed)


def _growth(plan: Plan) -> int:
    return sum(blocks(publish.growth_bytes) for publish in plan.publishes)


def _is_for_documents(publish: Publish) -> bool:
    return publish.key.space != SELINE or publish.always


def _is_emergency(publish: Publish) -> bool:
    """What a full volume still lets in: restores, recoveries, deletes and shrinking writes."""
    before, after = publish.found.content, publish.content
    if publish.always or after is None:
        return True
    return before is not None and after.size_bytes <= before.size_bytes


def _count_change(publish: Publish) -> int:
    if publish.key.space == SELINE:
        return 0
    was_there = publish.found.judged.verdict is not Verdict.MISSING
    return (publish.content is not None) - was_there


def _size_change(publish: Publish) -> int:
    return _size(publish.content) - _size(publish.found.judged.content)


def _size(content: Content | None) -> int:
    return 0 if content is None else blocks(content.size_bytes)
