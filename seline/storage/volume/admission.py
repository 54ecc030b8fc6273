"""Refuse writes that would fill the volume, and shed old backups to make room.

V8  A document's newest sound backup is never shed.
V9  Growing writes are refused before the disk is full; restores, recoveries, deletes and shrinking
    writes may use the reserve.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from seline.clock import Clock
from seline.domain.backup import Backup
from seline.domain.document import SELINE, DocumentKey
from seline.domain.retention import plan_shedding, sheddable
from seline.domain.usage import REFUSE_RATIO, Usage, blocks, room_for
from seline.domain.verdict import Verdict
from seline.errors import TooManyDocuments, VolumeFull
from seline.ports.medium import MarkPinned
from seline.settings import Settings
from seline.storage.planner import Plan, Publish
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.disk_usage import DiskUsage
from seline.storage.volume.events import Events
from seline.storage.volume.rotation import Rotation

SHED_BYTES_MIN: Final = 1 << 20
SHED_FILES_MIN: Final = 16
FILES_OF_A_CHANGE: Final = 2
"""A change stages the new content, and a copy of the old one if it cannot be linked."""
SHED_AGAIN_S: Final = 5.0
REPORT_SHED_EVERY_S: Final = 3600.0

_log = logging.getLogger("seline.storage")


def _unmarked(_key: DocumentKey, backups: Sequence[Backup]) -> Sequence[Backup]:
    """Return the backups as they are: the pins are not known yet."""
    return backups


def _nothing() -> None:
    """Write nothing: everything is in its file."""


@dataclass(slots=True)
class Admission:
    """Admits batches, as long as the volume has room for them."""

    volume: VolumeDirectory
    rotation: Rotation
    disk_usage: DiskUsage
    clock: Clock
    events: Events
    settings: Settings
    mark_pinned: MarkPinned = _unmarked
    """Is asked for the pinned backups before any is shed (V11)."""
    write_pending: Callable[[], None] = _nothing
    """Is called before any is shed: what only a journal has is no file that could stay instead."""
    _documents: int = 0
    _shed_again_at: float = 0.0
    _report_shed_again_at: float = 0.0

    def admit(self, plan: Plan) -> None:
        """Shed backups if space is short.

        Raises VolumeFull if the plan would fill the volume, and TooManyDocuments.
        """
        self._check_count(plan)
        growth = _growth(plan)
        room = room_for(growth, self.disk_usage.usage())
        if room != "free" and self._may_shed():  # measure again before any backup is shed
            room = room_for(growth, self.disk_usage.usage(fresh=True))
        if room == "free":
            return
        if self._shed(plan) or room == "refuse":
            room = room_for(growth, self.disk_usage.usage(fresh=True))
        if room == "refuse" and not all(map(_is_emergency, plan.publishes)):
            raise self._full()

    def admit_backups(self, backups: Sequence[Backup]) -> None:
        """Raise VolumeFull if these backups would fill the volume; none is shed for them."""
        growth = sum(blocks(backup.size_bytes) for backup in backups)
        for fresh in (False, True):  # measure again only before it is refused
            if room_for(growth, self.disk_usage.usage(fresh=fresh)) != "refuse":
                return
        raise self._full()

    def usage(self) -> Usage:
        """Return the usage, with the number of documents."""
        return replace(self.disk_usage.usage(), documents=self._documents)

    def has_room_for(self, growth_bytes: int) -> bool:
        """Whether a change that adds so many bytes is taken now, once old backups made room.

        It looks at backups only until they free what such a change sheds at least.
        """
        growth = blocks(growth_bytes)
        for fresh in (False, True):  # measure again only before "no"
            usage = self.disk_usage.usage(fresh=fresh)
            has_file = usage.inodes_free is None or usage.inodes_free > 0
            if has_file and room_for(growth, usage) != "refuse":
                return True
        freed_bytes, wanted_bytes = 0, max(growth, SHED_BYTES_MIN)
        if room_for(growth, usage, freed_bytes=wanted_bytes) == "refuse":
            return False
        for dropped in (one for _, backups in self._sheddable() for one in sheddable(backups)):
            has_file = True
            freed_bytes += blocks(dropped.size_bytes)
            if freed_bytes >= wanted_bytes:
                return True
        return has_file and room_for(growth, usage, freed_bytes=freed_bytes) != "refuse"

    def count_documents(self) -> None:
        """Count the documents on the volume; a person may have added or removed some."""
        counted = [space for space in self.volume.spaces if space != SELINE]
        self._documents = sum(len(self.volume.document_names(space)) for space in counted)

    def ways_to_make_room(self, plan: Plan) -> list[Callable[[], bool]]:
        """Return the ways to free space when a commit met a full disk, each to be tried once.

        Backups are shed first; an emergency may then use the reserve.
        """
        may_draw = all(map(_is_emergency, plan.publishes))
        return [lambda: self._shed(plan)] + [self.disk_usage.release_reserve] * may_draw

    def protect_pins(self, mark: MarkPinned) -> None:
        """Ask `mark` for the pinned backups from now on; others may be shed now."""
        self.mark_pinned = mark
        self._shed_again_at = 0.0

    def make_room(self, size_bytes: int) -> bool:
        """Free space for what was acknowledged; return whether anything was freed.

        The reserve comes first, then old backups (V8), if the pins are known (V11).
        """
        if self.disk_usage.release_reserve():
            return True
        if self.mark_pinned is _unmarked or not self._may_shed():
            return False
        return self._shed_for(max(blocks(size_bytes), SHED_BYTES_MIN), 1)

    def took(self, current: Sequence[Publish], made: Sequence[Backup]) -> None:
        """Update the counts after a commit made these documents current and these backups."""
        documents_bytes = added_bytes = largest_bytes = 0
        for publish in current:
            self._documents += _count_change(publish)
            documents_bytes += (change_bytes := _size_change(publish))
            added_bytes += max(0, change_bytes)
            if publish.content is not None:
                largest_bytes = max(largest_bytes, publish.content.size_bytes)
        if made:
            self._shed_again_at = 0.0  # older backups may be shed now
        backups_bytes = sum([blocks(backup.size_bytes) for backup in made])
        self.disk_usage.moved(
            documents_bytes, backups_bytes, added_bytes=added_bytes, largest_bytes=largest_bytes
        )

    def _full(self) -> VolumeFull:
        usage = self.disk_usage.usage()
        return VolumeFull(
            f"The volume at {self.volume.path} is {usage.refusal_ratio:.1%} full, and writes "
            f"that would take it to {REFUSE_RATIO * 100:.0f} % are refused. Nothing was "
            "written.",
            usage_percent=round(usage.usage_ratio * 100, 2),
        )

    def _check_count(self, plan: Plan) -> None:
        documents_max = self.settings.storage.documents_max
        new = sum(map(_count_change, plan.publishes))
        if new > 0 and self._documents + new > documents_max:
            self.count_documents()
        if new > 0 and self._documents + new > documents_max:
            raise TooManyDocuments(
                f"There are {self._documents} documents; `storage.documents_max` allows "
                f"{documents_max}. Nothing was written.",
                documents=self._documents,
                documents_max=documents_max,
            )

    def _shed(self, plan: Plan) -> bool:
        """Discard old backups for a plan; none for a change of Seline's own state alone."""
        if not self._may_shed() or not any(map(_is_for_documents, plan.publishes)):
            return False
        return self._shed_for(*self._missing(plan))

    def _shed_for(self, missing_bytes: int, missing_files: int) -> bool:
        """Discard old backups, but never a document's newest sound one (V8).

        Returns whether any was discarded; if none was, the next attempt waits.
        """
        self.write_pending()
        now_s = self.clock.monotonic()
        shed: list[Backup] = []
        for key, dropped in plan_shedding(
            dict(self._sheddable()), keep_newest=self.settings.backups.keep_newest
        ):
            if missing_bytes <= 0 and missing_files <= 0:
                break
            if self._discard(key, dropped):
                shed.append(dropped)
                missing_bytes -= blocks(dropped.size_bytes)
                missing_files -= 1
        if not shed:
            self._shed_again_at = now_s + SHED_AGAIN_S
        self._report_shed(shed, now_s)
        return bool(shed)

    def _missing(self, plan: Plan) -> tuple[int, int]:
        """Return how many bytes and files are to be freed for a plan."""
        usage, growth = self.disk_usage.usage(), _growth(plan)
        wanted_files = FILES_OF_A_CHANGE * len(plan.publishes) + SHED_FILES_MIN
        lacks_files = usage.inodes_free is not None and usage.inodes_free < wanted_files
        if lacks_files and room_for(growth, usage) == "free":
            return 0, wanted_files
        return max(growth, SHED_BYTES_MIN), wanted_files if lacks_files else 0

    def _may_shed(self) -> bool:
        return self.clock.monotonic() >= self._shed_again_at

    def _sheddable(self) -> Iterator[tuple[DocumentKey, Sequence[Backup]]]:
        """Yield the backups of every document but Seline's own, with their pins."""
        for space in self.volume.spaces:
            if space != SELINE:
                index = self.rotation.current_documents.backup_index(space)
                for key in (DocumentKey(space, document) for document in index.counts()):
                    yield key, self.mark_pinned(key, index.of(key.name))

    def _discard(self, key: DocumentKey, dropped: Backup) -> bool:
        try:
            return self.rotation.discard(key, dropped)
        except OSError as error:
            self.events.disk_error(error, "Discarding backups", [key])
            return False

    def _report_shed(self, shed: Sequence[Backup], now_s: float) -> None:
        """Log each discarded backup; report pinned ones, and others at most once an hour."""
        for dropped in shed:
            _log.warning("%s was discarded: %s", dropped.name, dropped.because)
        if pinned := [dropped for dropped in shed if dropped.pinned]:
            self.events.pins_shed(pinned)
        if shed and now_s >= self._report_shed_again_at:
            self._report_shed_again_at = now_s + REPORT_SHED_EVERY_S
            self.events.shed(shed)


def _growth(plan: Plan) -> int:
    return sum([blocks(publish.growth_bytes) for publish in plan.publishes])


def _is_for_documents(publish: Publish) -> bool:
    return publish.key.space != SELINE or publish.always


def _is_emergency(publish: Publish) -> bool:
    """Whether a full volume takes it: a restore, recovery, delete or shrinking write."""
    before, after = publish.found.content, publish.content
    if publish.always or after is None:
        return True
    return before is not None and after.size_bytes <= before.size_bytes


def _count_change(publish: Publish) -> int:
    if publish.key.space == SELINE:
        return 0
    was_there = publish.found.judged.verdict is not Verdict.MISSING or publish.found.removed
    return (publish.content is not None) - was_there


def _size_change(publish: Publish) -> int:
    before, after = publish.found.judged.content, publish.content
    if publish.keeps_file:
        return 0
    return blocks(after.size_bytes if after else 0) - blocks(before.size_bytes if before else 0)
