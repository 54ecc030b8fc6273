"""Process batches on the writer's thread: plan, admit, commit, rotate, answer.

V2  Rotation is done when the save returns.
V7  A change that cannot be made fails alone; nothing is answered before the batch is durable.
`admission` refuses writes that do not fit; `reopen` handles a failed sync.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from seline.clock import Clock
from seline.domain.backup import Backup
from seline.domain.counters import Counters
from seline.domain.document import DocumentKey
from seline.domain.verdict import Judged, Verdict
from seline.errors import OutcomeUnknown, SelineError, StorageError, VolumeBusy
from seline.ports.futures import one_wakeup
from seline.ports.store import AddedBackup, Retain
from seline.storage.planner import Found, Plan, Publish, Step, plan_batch, with_backups
from seline.storage.volume import files
from seline.storage.volume.adding import place_backups
from seline.storage.volume.admission import Admission
from seline.storage.volume.commit.base import Committed, Committer
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.disk_usage import DiskUsage
from seline.storage.volume.earlier import has_last
from seline.storage.volume.events import Events
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.inspect import Inspection
from seline.storage.volume.os_errors import (
    CommitFailed,
    DirectoryFailed,
    InDoubt,
    LookAgain,
    StagingFailed,
    describe,
    is_full,
)
from seline.storage.volume.reopen import REOPEN_EVERY_S, Reopener
from seline.storage.volume.rotation import Rotation
from seline.storage.volume.strict import verify_after_commit
from seline.storage.volume.writer import Pending

LOOKS_MAX: Final = 5

_log = logging.getLogger("seline.storage")


@dataclass(slots=True)
class Batches:
    """Everything that happens on the writer's thread, which alone calls `process`."""

    current_documents: CurrentDocuments
    committer: Committer
    rotation: Rotation
    disk_usage: DiskUsage
    clock: Clock
    events: Events
    admission: Admission
    reopener: Reopener
    strict: bool
    _busy_since_s: float | None = None
    _tend_again_s: float | None = None
    _counters: Counters = field(default_factory=Counters)

    def process(self, batch: Sequence[Pending]) -> None:
        """Answer every pending atom, in order, in as few commits as possible.

        After a failed sync nothing is planned before the reopening: a file may hold bytes that the
        disk does not, and saving them again would be answered as unchanged.
        """
        rest = list(batch)
        while rest:
            if (refusal := self.reopener.refusal()) is not None:
                self._refuse(rest, refusal)
                return
            now = self.clock.now()
            if not self._tended(now):
                continue
            atoms = [pending.atom for pending in rest]
            plan = plan_batch(atoms, self._finder(), self._backups, now)
            taken, rest = rest[: len(plan.taken)], rest[len(plan.taken) :]
            self._run(plan, taken, now)

    def idle(self) -> float | None:
        """Do in a pause what is due; return the seconds to the next call, None for none."""
        if self.reopener.failure is not None:
            return None if self.reopener.refusal() is None else REOPEN_EVERY_S
        if not self._tended(self.clock.now()):
            return REOPEN_EVERY_S
        waits = [self._tend_again_s]
        if not self.disk_usage.has_reserve():
            self.disk_usage.rebuild_reserve()
            waits.append(None if self.disk_usage.has_reserve() else REOPEN_EVERY_S)
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def settle(self) -> None:
        """Write the files of all documents, for a caller that reads them."""
        if self.reopener.failure is None:
            try:
                self.committer.settle(self.clock.now())
            except Exception as error:  # noqa: BLE001  # a defect must not end the writer
                self._fail(error)

    def close(self, *, settles: bool) -> None:
        """Write what only the journal has, if `settles` and the disk works, and end the threads."""
        self.committer.close(settles=settles and self.reopener.failure is None)

    def _tended(self, now: datetime) -> bool:
        """Do what the committer has to do; return False, and refuse writes, if the disk failed."""
        try:
            self._tend_again_s = self.committer.tend(now)
        except Exception as error:  # noqa: BLE001  # a defect must not end the writer
            self._fail(error)
            return False
        return True

    def _fail(self, error: Exception) -> None:
        """Refuse writes until the reopening, which replays what was not written."""
        failed = error if isinstance(error, CommitFailed) else _unforeseen(error)
        self.reopener.fail(failed.error, failed.doing, frozenset())

    def _finder(self) -> Callable[[DocumentKey], Found]:
        find = self.current_documents.finder()
        return lambda key: self.committer.found(key) or find(key)

    def _backups(self, key: DocumentKey) -> Iterator[tuple[Backup, Judged]]:
        self.settle()
        return self.current_documents.backups(key)

    def rotate(self, key: DocumentKey, retain: Retain) -> Sequence[Backup]:
        """Discard what `retain` drops. Raises StorageError."""
        self.reopener.check_open()
        self.settle()
        try:
            dropped = self.rotation.rotate(key, retain)
        except OSError as error:
            self.events.disk_error(error, "Discarding backups", [key])
            raise self.admission.volume.named(error, "Discarding backups") from error
        self.events.succeeded(key, "Discarding backups")
        return dropped

    def add_backups(self, added: Sequence[AddedBackup], *, always: bool) -> Sequence[bool]:
        """Add backups without replacing a file. Raises StorageError, InvalidDocumentName."""
        self.settle()
        for _ in range(LOOKS_MAX):
            with suppress(LookAgain):
                with self.current_documents.writing():
                    done = self._add_backups(added, always=always)
                if self.strict:
                    verify_after_commit(self.committer, self.current_documents)
                return done
        raise VolumeBusy("Backups are being added by hand again and again; none was added.")

    def _add_backups(self, added: Sequence[AddedBackup], *, always: bool) -> Sequence[bool]:
        self.reopener.check_open()
        placed = place_backups(self.current_documents, added)
        made = [backup for backup in placed if backup is not None]
        if not always:
            self.admission.admit_backups(made)
        new = [(b, item) for b, item in zip(placed, added, strict=True) if b is not None]
        try:
            self.committer.add_backups(new)
        except CommitFailed as error:
            if isinstance(error, DirectoryFailed):
                self.reopener.fail(error.error, error.doing, frozenset())
            elif not is_full(error.error):
                self.events.disk_error(error.error, error.doing)
            raise self.admission.volume.named(error.error, error.doing) from error
        for backup, item in new:
            self.current_documents.backup_index(item.key.space).added(backup)
        self.admission.took((), made)
        return [backup is not None for backup in placed]

    def busy_s(self) -> float:
        """Return for how many seconds the current commit has run, 0 if none runs."""
        since = self._busy_since_s
        return 0.0 if since is None else self.clock.monotonic() - since

    def counters(self, *, queued: int) -> Counters:
        """Return what was counted since the store was opened."""
        return self._counters.copy(queued=queued, flushes=files.flushes())

    # one commit

    def _run(self, plan: Plan, taken: Sequence[Pending], now: datetime) -> None:
        try:
            self.committer.make_durable(plan.rests_on)
        except DirectoryFailed as error:
            doubtful = frozenset(found.key for found in plan.rests_on)
            self.reopener.fail(error.error, error.doing, doubtful)
            self._refuse(taken, self.admission.volume.named(error.error, error.doing))
            return
        if not plan.publishes:
            self._answer(plan, taken, Committed())
            return
        try:
            committed = self._commit(plan, now)
            self._quietly(lambda: self._after(plan, committed, now))
        except LookAgain:
            self._look_again(taken)
        except SelineError as error:
            if len(taken) > 1 and self.reopener.failure is None:
                for pending in taken:
                    self.process([pending])
            else:
                self._refuse(taken, error)
        except Exception as error:  # noqa: BLE001  # a defect of Seline's is reported to the callers
            self._refuse(taken, self.reopener.in_doubt(plan, _unforeseen(error)))
        else:
            if self.strict:
                verify_after_commit(self.committer, self.current_documents)
            self._answer(plan, taken, committed)

    def _look_again(self, taken: Sequence[Pending]) -> None:
        """Plan again, LOOKS_MAX times at most, because a document changed during the commit."""
        for pending in taken:
            pending.looks += 1
        busy = [pending for pending in taken if pending.looks >= LOOKS_MAX]
        self._refuse(busy, VolumeBusy("The document is being changed by hand again and again."))
        rest = [pending for pending in taken if pending.looks < LOOKS_MAX]
        if rest:
            self.process(rest)

    def _commit(self, plan: Plan, now: datetime) -> Committed:
        self._busy_since_s = self.clock.monotonic()
        try:
            self.reopener.check_open()
            self.admission.admit(plan)
            return self._commit_or_make_room(plan, now)
        except DirectoryFailed as error:
            self.reopener.fail(error.error, error.doing, frozenset())
            raise self.admission.volume.named(error.error, error.doing) from error
        except InDoubt as error:
            raise self.reopener.in_doubt(plan, error) from error
        finally:
            self._busy_since_s = None

    def _commit_or_make_room(self, plan: Plan, now: datetime) -> Committed:
        ways = iter(self.admission.ways_to_make_room(plan))
        while True:
            try:
                return self.committer.commit(plan, now=now)
            except StagingFailed as error:
                if not is_full(error.error):
                    keys = [publish.key for publish in plan.publishes]
                    self.events.disk_error(error.error, error.doing, keys)
                elif any(made_room() for made_room in ways):  # each is tried once
                    continue
                raise self.admission.volume.named(error.error, error.doing) from error

    # after a commit: everything is durable

    def _after(self, plan: Plan, committed: Committed, now: datetime) -> None:
        for key, error in committed.refused.items():
            self.events.disk_error(error, f"Publishing {key.name}", [key])
        current = [move for move in plan.publishes if move.key not in committed.refused]
        made = [backup for move in current for backup in committed.made.get(move.key, [])]
        self.admission.took(current, made)
        self.events.succeeded(None)
        unpublished = self.committer.unpublished  # an error of theirs lasts
        for publish in current:
            if publish.key not in unpublished:
                self.events.succeeded(publish.key)
            if publish.found.removed:
                backups = self.current_documents.backup_index(publish.key.space)
                self.events.removed(publish.found, backups.of(publish.key.name)[:1], now)
            if publish.keeps_file:
                continue
            self._rotate(publish, committed)
            self.current_documents.inspector.ignore_aside(publish.key)
            if publish.found.judged.verdict is Verdict.EDITED:
                self.events.edited(publish.key.name, now, is_open=publish.found.judged.is_open)
            if publish.found.broken or (publish.found.repair and not publish.found.removed):
                aside = self.rotation.newest_aside(publish.key) if publish.found.is_bad_edit else ""
                if aside and publish.is_recovery:
                    self.current_documents.watch_aside(publish.found, aside)
                self._counters.recoveries += self.events.repaired(
                    publish, now, is_lossy=self._is_lossy(publish), aside=aside
                )
        if any(publish.found.broken for publish in current):
            self._quietly(self.rotation.bound_quarantine)

    def _is_lossy(self, publish: Publish) -> bool:
        """Whether a recovery went back to a content from before the last one."""
        found = publish.found
        if found.source is None:
            return False
        identity = found.token if isinstance(found.token, FileIdentity) else None
        broken = Inspection(found.judged, identity)
        return not has_last(self.current_documents, found.key, found.source, broken)

    def _rotate(self, publish: Publish, committed: Committed) -> None:
        retain, made = publish.retain, committed.made.get(publish.key, [])
        if publish.purge:
            self._erase(publish.key, committed)
        elif retain is not None and made:
            names = [backup.name for backup in made]
            self._quietly(
                lambda: self.rotation.rotate(publish.key, retain, just_made=names), [publish.key]
            )

    def _erase(self, key: DocumentKey, committed: Committed) -> None:
        """Erase a purged document's backups and quarantine, and note what the disk kept."""
        try:
            self.rotation.purge(key)
        except (OSError, StorageError) as error:
            self.events.disk_error(error, "Erasing backups", [key])
            committed.unerased[key] = error

    def _quietly(self, tidy: Callable[[], object], keys: Sequence[DocumentKey] = ()) -> None:
        """Report an error instead of raising it: the change is durable already."""
        try:
            tidy()
        except (OSError, StorageError) as error:
            self.events.disk_error(error, "Tidying up", keys)

    def _answer(self, plan: Plan, taken: Sequence[Pending], committed: Committed) -> None:
        self._counters.batches += bool(plan.publishes)
        for key, outcome in plan.guarding:
            if outcome.changed and key not in committed.refused:
                self.events.changed(key, outcome)
        with one_wakeup():
            for pending, steps in zip(taken, plan.taken, strict=True):
                if isinstance(steps, BaseException):
                    self._refuse([pending], steps)
                else:
                    self._settle(pending, steps, committed)

    def _settle(self, pending: Pending, steps: Sequence[Step], committed: Committed) -> None:
        for key, _ in steps:
            if key in committed.refused:
                self._refuse(
                    [pending],
                    self.admission.volume.named(committed.refused[key], f"Publishing {key.name}"),
                )
                return
        outcomes = with_backups(steps, committed.backups)
        for (key, _), outcome in zip(steps, outcomes, strict=True):
            if outcome.changed:
                self._counters.answered(time.monotonic() - pending.queued_at_s)
                self.events.changed(key, outcome)
        for key, _ in steps:
            if key in committed.unerased:
                self._refuse([pending], _half_purged(key, committed))
                return
        pending.future.set_result(outcomes)

    def _refuse(self, waiting: Sequence[Pending], error: BaseException) -> None:
        self._counters.refuse(error, len(waiting))
        for pending in waiting:
            pending.future.set_exception(error)


def _unforeseen(error: Exception) -> InDoubt:
    """Return an unexpected error as one of the disk, after which the outcome is unknown."""
    _log.critical("a commit ended unexpectedly", exc_info=error)
    cause = error if isinstance(error, OSError) else OSError(repr(error))
    return InDoubt(cause, "Committing", committed=False)


def _half_purged(key: DocumentKey, committed: Committed) -> OutcomeUnknown:
    left = committed.unerased[key]
    hint = f"Purge it again to erase the rest: `seline delete {key.name} --purge`."
    if isinstance(left, StorageError) and isinstance(left.__cause__, IsADirectoryError):
        hint = left.hint  # all else is erased
    return OutcomeUnknown(
        f"{key.name} is deleted, but the disk did not remove all of its backups and quarantined "
        f"bytes: {left if isinstance(left, str) else describe(left)}.",
        hint=hint,
    )
