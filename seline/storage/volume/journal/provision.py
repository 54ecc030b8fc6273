"""The files of the journal: made where they are wanted and the volume has room, else removed."""

import logging
import os
from dataclasses import dataclass
from typing import Final

from seline.ports.medium import Capability
from seline.storage.volume import files
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.journal.journal import (
    JOURNAL_NAMES,
    Journal,
    allocate_journal_files,
    opened_journal_files,
)
from seline.storage.volume.os_errors import describe, raising

SHARE_OF_THE_VOLUME: Final = 16
SMALL: Final = "the volume is too small for a journal"
CHOSEN: Final = "no journal, as `seline migrate` chose"
IN_USE: Final = "by a journal"

_log = logging.getLogger("seline.storage")


@dataclass(slots=True)
class JournalProvision:
    """Makes or removes the files. `why_without`: why there is no journal where one is wanted."""

    volume: VolumeDirectory
    journal_bytes: int
    limit_bytes: int | None
    why_without: str = ""

    def begin(self) -> Journal | None:
        """Return the journal with its files, None if it is not wanted or not possible."""
        self.why_without = self._why_not()
        if not self.journal_bytes or self.why_without:
            self._remove()
            return None
        try:
            journal = Journal(allocate_journal_files(self.volume, self.journal_bytes))
        except OSError as error:
            self.why_without = f"there is no journal: {describe(error)}"
            _log.warning(self.why_without)
            return None
        try:
            self.volume.note_journal(is_used=True)
        except BaseException:
            journal.close()
            raise
        return journal

    def capability(self, journal: Journal | None) -> Capability:
        """Return which form is in use, for health."""
        if journal is not None:
            return Capability(name="commit", present=True, detail=IN_USE)
        detail = self.why_without or "each change is synced in its files"
        is_as_wanted = not self.why_without
        return Capability(name="commit", present=is_as_wanted, detail=detail, harmless=True)

    def _why_not(self) -> str:
        if self.volume.keeps_first_form:
            return CHOSEN
        return SMALL if self.journal_bytes and self._is_small() else ""

    def _is_small(self) -> bool:
        """Whether the journal would take more than a sixteenth of the volume."""
        status = os.fstatvfs(self.volume.top)
        capacity = status.f_blocks * status.f_frsize
        size_bytes = min(capacity, self.limit_bytes) if self.limit_bytes else capacity
        return size_bytes < SHARE_OF_THE_VOLUME * len(JOURNAL_NAMES) * self.journal_bytes

    def _remove(self) -> None:
        """Remove the journal's files, which are clean, so that an older Seline may open it."""
        with (
            raising(self.volume.named, "Removing the journal"),
            opened_journal_files(self.volume) as opened,
        ):
            for file in opened:
                files.unlink(self.volume.seline, file.name)
            self.volume.note_journal(is_used=False)
