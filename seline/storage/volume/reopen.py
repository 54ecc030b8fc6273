"""Refuse writes after a failed sync until the volume is reopened.

V3  Reopening drops the cached pages, completes the record, and commits again the documents whose
    outcome is unknown: after a failed sync memory may show bytes that the disk does not have.
V12 Before each commit the path must still lead to the held directory.
"""

import errno
import logging
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from seline.clock import Clock
from seline.cures import cure_of
from seline.domain.document import DocumentKey
from seline.domain.verdict import Verdict
from seline.errors import (
    OutcomeUnknown,
    SelineError,
    StorageError,
    VolumeFailed,
    VolumeFull,
    VolumeReadOnly,
)
from seline.ports.store import Outcome
from seline.storage.planner import Found, Plan
from seline.storage.volume.admission import Admission
from seline.storage.volume.commit.base import Committer
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.events import Events
from seline.storage.volume.os_errors import InDoubt, describe

REOPEN_EVERY_S: Final = 30.0

_log = logging.getLogger("seline.storage")


@dataclass(slots=True)
class Reopener:
    """Whether writes are taken; `failure` is the error while they are not."""

    volume: VolumeDirectory
    current_documents: CurrentDocuments
    committer: Committer
    clock: Clock
    events: Events
    admission: Admission
    failure: SelineError | None = None
    _reopen_at: float = -math.inf

    def check_open(self) -> None:
        """Raise unless writes are taken and the path leads to the held directory (V12)."""
        self.check_place()
        if (refusal := self.refusal()) is not None:
            raise refusal

    def refusal(self) -> SelineError | None:
        """Return the error that refuses writes, None if they are taken; reopen if that is due."""
        return None if self.failure is None or self._reopen_if_due() else self.failure

    def retry_for_room(self) -> None:
        """Reopen now if only room was lacking: more backups may make room."""
        if isinstance(self.failure, VolumeFull):
            self._reopen_at = -math.inf
            self.refusal()

    def check_place(self) -> None:
        """Raise unless the path leads to the held directory; report directories made again."""
        self.volume.check_place()
        while self.volume.remade:
            self.events.remade(self.volume.remade.pop())

    def in_doubt(self, plan: Plan, doubt: InDoubt) -> OutcomeUnknown:
        """Refuse writes, and reads of what may not be durable; return the error for the callers."""
        overlay = self.committer.overlay
        keys = frozenset(publish.key for publish in plan.publishes)
        self.fail(doubt.error, doubt.doing, keys if not doubt.committed else frozenset())
        for publish in plan.publishes:  # after the doubt, so that none is served in between
            if doubt.committed:
                overlay.hold(publish.key, publish.content)
            else:
                overlay.release(publish.key)
        return OutcomeUnknown(f"{doubt.doing}: {describe(doubt.error)}.")

    def fail(self, error: OSError, doing: str, doubtful: frozenset[DocumentKey]) -> None:
        """Refuse writes until the volume is reopened, first tried in the next turn."""
        hint = self.volume.named(error, doing).hint
        self.failure = self.volume.read_only() or VolumeFailed(
            f"{doing}: {describe(error)}. No writes are taken until the volume was reopened, "
            f"which is tried every {REOPEN_EVERY_S:.0f} s.",
            hint=hint,
        )
        self.committer.overlay.doubt(doubtful)
        self._reopen_at = self.clock.monotonic()
        self.events.disk_error(error, doing)

    def start(self, now: datetime) -> None:
        """Recover from a crash; on a read-only or full volume, later. Raises StorageError.

        Until then, reads are answered with what the journal has, and documents of an unfinished
        commit of the first form are not served.
        """
        self.failure = self.volume.read_only()
        if self.failure is None:
            try:
                self.committer.recover(now)
            except VolumeFull as error:
                self.failure = self._unfinished(error)
                self._reopen_at = self.clock.monotonic() + REOPEN_EVERY_S
        if self.failure is not None:
            self.committer.hold_unfinished()
        self._take_stock()

    def _reopen_if_due(self) -> bool:
        """Reopen, at once and then every 30 s; return whether writes are taken.

        A read-only volume is not tried before it is writable.
        """
        if isinstance(self.failure, VolumeReadOnly) and self.volume.read_only() is not None:
            return False
        if self.clock.monotonic() <= self._reopen_at:
            return False
        self._reopen_at = self.clock.monotonic() + REOPEN_EVERY_S
        try:
            self._reopen()
        except StorageError as error:
            if isinstance(error, VolumeFull):
                self.failure = self._unfinished(error)
            elif isinstance(self.failure, VolumeReadOnly | VolumeFull):  # no longer the reason
                self.failure = VolumeFailed(error.message, hint=error.hint)
            _log.warning("the volume was not reopened, which is tried again: %s", error.message)
            return False
        except Exception:  # noqa: BLE001  # it is tried again
            _log.exception("reopening the volume failed")
            return False
        self.failure = None
        self.committer.overlay.clear()
        self.events.succeeded(None)
        _log.warning("the volume was reopened; writes are taken again")
        return True

    def _unfinished(self, error: VolumeFull) -> VolumeFull:
        """Return the error for changes as long as a recovery has no room."""
        path, cause = self.volume.path, error.__cause__
        number = cause.errno if isinstance(cause, OSError) else errno.ENOSPC
        return VolumeFull(
            f"No space is left at {path} for what was not finished before the last stop. Reads "
            "work; nothing else is written before that.",
            hint=f"{cure_of(number, path).hint} Seline then finishes it within half a minute.",
        )

    def _take_stock(self) -> None:
        """Note which documents are there: a recovery may have added or removed some."""
        self.admission.count_documents()
        self.current_documents.inspector.expect_documents()

    def _reopen(self) -> None:
        """Read from the disk, recover, and commit again the documents that are in doubt."""
        self.check_place()
        keys = self.committer.overlay.keys
        self.current_documents.inspector.distrust(keys)
        now = self.clock.now()
        completed = self.committer.recover(now, again=True)
        again = [replace(self.current_documents.find(key), repair=True) for key in sorted(keys)]
        self.committer.recommit(
            [found for found in again if not _is_removed(found, completed)], now
        )
        self._take_stock()
        for found in again:
            self.events.changed(found.key, Outcome(content=found.content, changed=True))


def _is_removed(found: Found, completed: frozenset[DocumentKey]) -> bool:
    """Whether the document is absent because `recover` removed it, durably."""
    return found.judged.verdict is Verdict.MISSING and found.key in completed
