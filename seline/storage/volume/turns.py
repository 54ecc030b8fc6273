"""The writer's turns: plan a batch, let it in, commit it, rotate, answer -- and mend after failure.

V2  Rotation is done when the save returns.
V7  One change that cannot be made fails alone; nothing is answered before the batch is durable.
V9  Growing writes are refused before the disk is full; emergencies draw on the reserve.
V10 Before each commit the path must still lead to the held directory.
After a failed sync of a directory or the journal no write is taken until the volume was reopened:
cached pages dropped, the record rolled forward, every document in doubt committed anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from seline.clock import Clock
from seline.domain.backup import Backup
from seline.domain.document import BOT, SELINE, Content, DocumentKey, is_document_name
from seline.domain.figures import Counting
from seline.domain.integrity import Verdict
from seline.domain.retention import Dropped, plan_shedding
from seline.domain.usage import Room, room_for
from seline.errors import (
    OutcomeUnknown,
    SelineError,
    StorageError,
    VolumeBusy,
    VolumeFailed,
    VolumeFull,
)
from seline.ports.store import Incident, Outcome, Retain
from seline.ports.waiting import together
from seline.storage.batch import Found, Plan, Planner, Publish
from seline.storage.volume import disk
from seline.storage.volume.commit import (
    Committed,
    Committer,
    DirectoryFailed,
    InDoubt,
    LookAgain,
    StagingFailed,
)
from seline.storage.volume.failures import describe, is_full, named
from seline.storage.volume.finding import Finding
from seline.storage.volume.ground import Ground
from seline.storage.volume.opening import Mending
from seline.storage.volume.rotation import Rotation
from seline.storage.volume.shelf import Shelf
from seline.storage.volume.space import Space, blocks
from seline.storage.volume.writer import Pending

REOPEN_EVERY_S: Final = 30.0
LOOKS_MAX: Final = 5
SHED_BYTES_MIN: Final = 1 << 20
SHED_FILES_MIN: Final = 16
FILES_OF_A_CHANGE: Final = 2
"""What is staged of one document: the new content, and a copy where the old one has no link."""
SHED_AGAIN_S: Final = 5.0
TELL_SHED_EVERY_S: Final = 3600.0

_log = logging.getLogger("seline.storage")


def _unmarked(_document: str, backups: Sequence[Backup]) -> Sequence[Backup]:
    return backups


@dataclass(slots=True, kw_only=True)
class Turns:
    """Everything that happens on the writer's thread. Nobody else calls `commit`."""

    ground: Ground
    finding: Finding
    committer: Committer
    rotation: Rotation
    mending: Mending
    shelves: dict[str, Shelf]
    space: Space
    clock: Clock
    documents_max: int
    tell: Callable[[Incident], None]
    notice: Callable[[DocumentKey, Outcome], None]
    after_commit: Callable[[Sequence[Publish]], None] | None = None
    failure: SelineError | None = None
    busy_since_s: float | None = None
    doubtful: frozenset[DocumentKey] = frozenset()
    _reopen_at: float = 0.0
    marked: Callable[[str, Sequence[Backup]], Sequence[Backup]] = _unmarked
    _shed_again_at: float = 0.0
    _tell_shed_again_at: float = 0.0
    _count: dict[str, int] = field(default_factory=dict[str, int])
    counting: Counting = field(default_factory=Counting)

    def commit(self, batch: Sequence[Pending]) -> None:
        """Settle every pending atom, in order, in as few commits as can be.

        After a failure nothing is planned before the reopening: what lies there may be what the
        disk has not kept, and saving it once more would be told that it is current already.
        """
        rest = list(batch)
        while rest:
            if self.failure is not None and not self._reopen_if_due():
                self._refuse(rest, self.failure)
                return
            now = self.clock.now()
            planner = Planner(self.finding.find, self.finding.backups, now)
            plan = planner.plan([pending.atom for pending in rest])
            taken, rest = rest[: len(plan.taken)], rest[len(plan.taken) :]
            self._run(plan, taken, now)

    def idle(self) -> float | None:
        """Mend what can be mended while nothing is queued; return when to come back, in s."""
        if self.failure is not None:
            return None if self._reopen_if_due() else REOPEN_EVERY_S
        if not self.space.has_reserve():
            self.space.rebuild_reserve()
            return None if self.space.has_reserve() else REOPEN_EVERY_S
        return None

    def rotate(self, key: DocumentKey, retain: Retain) -> Sequence[Dropped]:
        """Discard what `retain` drops. Raises StorageError."""
        self._check_place()
        try:
            return self.rotation.rotate(key, retain)
        except OSError as error:
            self._note_disk_error(error, "Discarding backups")
            raise named(error, "Discarding backups") from error

    def count_documents(self, count: int) -> None:
        """Take note of how many documents of the bot there are."""
        self._count[BOT] = count

    # one commit

    def _run(self, plan: Plan, taken: Sequence[Pending], now: datetime) -> None:
        try:
            self.committer.hold(plan.rests_on)
        except DirectoryFailed as error:
            self._fail(error.error, error.doing, frozenset(one.key for one in plan.rests_on))
            self._refuse(taken, named(error.error, error.doing))
            return
        if not plan.publishes:
            self._answer(plan, taken, Committed(backups={}, made={}, refused={}))
            return
        try:
            with self.shelves[BOT], self.shelves[SELINE]:
                committed = self._commit(plan, now)
                self._quietly(lambda: self._after(plan, committed, now))
        except LookAgain:
            self._look_again(taken)
        except SelineError as error:
            if len(taken) > 1 and self.failure is None:
                for pending in taken:
                    self.commit([pending])
            else:
                self._refuse(taken, error)
        except Exception as error:  # noqa: BLE001  # a defect of ours: whoever waits hears of it
            self._refuse(taken, self._in_doubt(plan, _unforeseen(error)))
        else:
            if self.after_commit is not None:
                self.after_commit(plan.publishes)
            self._answer(plan, taken, committed)

    def _look_again(self, taken: Sequence[Pending]) -> None:
        """The documents changed under our eyes: judge them anew, a bounded number of times."""
        for pending in taken:
            pending.looks += 1
        busy = [pending for pending in taken if pending.looks >= LOOKS_MAX]
        self._refuse(busy, VolumeBusy("The document is being changed by hand again and again."))
        rest = [pending for pending in taken if pending.looks < LOOKS_MAX]
        if rest:
            self.commit(rest)

    def _commit(self, plan: Plan, now: datetime) -> Committed:
        self.busy_since_s = self.clock.monotonic()
        try:
            self._check_open()
            self._admit(plan)
            return self._commit_or_make_room(plan, now)
        except DirectoryFailed as error:
            self._fail(error.error, error.doing, frozenset())
            raise named(error.error, error.doing) from error
        except InDoubt as error:
            raise self._in_doubt(plan, error) from error
        finally:
            self.busy_since_s = None

    def _commit_or_make_room(self, plan: Plan, now: datetime) -> Committed:
        """Commit; where the disk is full, shed backups, then draw on the reserve if that may be."""
        may_draw = all(_is_emergency(publish) for publish in plan.publishes)
        ways = [lambda: self._shed(plan)] + [self.space.release_reserve] * may_draw
        while True:
            try:
                return self.committer.run(plan, now=now)
            except StagingFailed as error:
                if not is_full(error.error):
                    self._note_disk_error(error.error, error.doing)
                elif _first_that_works(ways):
                    continue
                raise named(error.error, error.doing) from error

    def _check_place(self) -> None:
        self.ground.check_place()
        while self.ground.remade:
            name = self.ground.remade.pop()
            self.tell(
                Incident(
                    kind="remade",
                    document="",
                    at=self.clock.now(),
                    summary=f"{name}/ was removed, or moved away, while Seline was running; it was "
                    "made again, empty.",
                )
            )

    def _check_open(self) -> None:
        self._check_place()
        if self.failure is not None and not self._reopen_if_due():
            raise self.failure

    def _admit(self, plan: Plan) -> None:
        """Refuse what would fill the volume; shed backups first (V9)."""
        self._check_count(plan)
        growth = _growth(plan)
        room = room_for(growth, self.space.usage())
        if room is not Room.FREE and self._may_shed():  # no backup goes for what was counted before
            room = room_for(growth, self.space.usage(fresh=True))
        if room is Room.FREE:
            return
        if self._shed(plan) or room is Room.REFUSE:
            room = room_for(growth, self.space.usage(fresh=True))
        if room is Room.REFUSE and not all(map(_is_emergency, plan.publishes)):
            usage = self.space.usage()
            raise VolumeFull(
                f"The volume is {usage.usage_ratio:.0%} full, and writes that would take it to "
                "95 % are refused. Nothing was written.",
                usage_percent=round(usage.usage_ratio * 100, 2),
            )

    def _check_count(self, plan: Plan) -> None:
        new = sum(_count_change(publish) for publish in plan.publishes)
        if new > 0 and self._count.get(BOT, 0) + new > self.documents_max:
            self._count_anew()
        if new > 0 and self._count.get(BOT, 0) + new > self.documents_max:
            raise VolumeFull(
                f"There are {self._count[BOT]} documents; `storage.documents_max` allows "
                f"{self.documents_max}.",
                hint="Delete documents, or put several things into one.",
            )

    def _count_anew(self) -> None:
        """Count the documents: some may have come or gone by hand."""
        try:
            names = disk.names(self.ground.documents(BOT))
        except OSError as error:
            raise named(error, "Listing the documents") from error
        self.count_documents(sum(map(is_document_name, names)))

    def _shed(self, plan: Plan) -> bool:
        """Discard old backups for room, each document's newest sound one excepted (V8).

        One that must not go after all (it is the newest sound one, or in use) is passed over.
        After a vain attempt, which looked at every document, the next one waits a while. Nothing
        goes for what Seline alone keeps, such as when a job last ran.
        """
        if not self._may_shed() or not any(map(_is_for_documents, plan.publishes)):
            return False
        now_s = self.clock.monotonic()
        shelf = self.shelves[BOT]
        by_document = {
            document: self.marked(document, shelf.of(document)) for document in shelf.counts()
        }
        shed: list[Dropped] = []
        missing_bytes, missing_files = self._missing(plan)
        for dropped in plan_shedding(by_document):
            if missing_bytes <= 0 and missing_files <= 0:
                break
            if self._discard(dropped):
                shed.append(dropped)
                missing_bytes -= blocks(dropped.backup.size_bytes)
                missing_files -= 1
        if not shed:
            self._shed_again_at = now_s + SHED_AGAIN_S
        self._tell_shed(shed, now_s)
        return bool(shed)

    def _missing(self, plan: Plan) -> tuple[int, int]:
        """Return how many bytes, and how many files, a change is to find room for."""
        usage, growth = self.space.usage(), _growth(plan)
        wanted_files = FILES_OF_A_CHANGE * len(plan.publishes) + SHED_FILES_MIN
        lacks_files = usage.inodes_free is not None and usage.inodes_free < wanted_files
        if lacks_files and room_for(growth, usage) is Room.FREE:
            return 0, wanted_files
        return max(growth, SHED_BYTES_MIN), wanted_files if lacks_files else 0

    def _may_shed(self) -> bool:
        return self.clock.monotonic() >= self._shed_again_at

    def _discard(self, dropped: Dropped) -> bool:
        try:
            return self.rotation.discard(DocumentKey(BOT, dropped.backup.document), dropped)
        except OSError as error:
            self._note_disk_error(error, "Discarding backups")
            return False

    def _tell_shed(self, shed: Sequence[Dropped], now_s: float) -> None:
        """Log each one with its reason; tell a person of the first ones of an hour."""
        for dropped in shed:
            _log.warning("%s was discarded: %s", dropped.backup.name, dropped.because)
        if shed and now_s >= self._tell_shed_again_at:
            self._tell_shed_again_at = now_s + TELL_SHED_EVERY_S
            size_bytes = sum(dropped.backup.size_bytes for dropped in shed)
            self.tell(
                Incident(
                    kind="shed",
                    document="",
                    at=self.clock.now(),
                    summary=f"The volume is nearly full, so old backups make room, never the "
                    f"newest sound one of a document: first {len(shed)} of {size_bytes} bytes, "
                    f"from {shed[0].backup.name} on.",
                    details={"backups": [dropped.backup.name for dropped in shed]},
                )
            )

    # after a commit: everything is durable

    def _after(self, plan: Plan, committed: Committed, now: datetime) -> None:
        current = [move for move in plan.publishes if move.key not in committed.refused]
        for publish in current:
            self._count[publish.key.owner] = self._count.get(publish.key.owner, 0) + _count_change(
                publish
            )
            self._rotate(publish, committed)
            if publish.found.broken or publish.found.repair:
                self._tell_repair(publish, now)
        if any(publish.found.broken for publish in current):
            self._quietly(self.rotation.bound_quarantine)
        made = [backup for move in current for backup in committed.made.get(move.key, [])]
        if made:
            self._shed_again_at = 0.0  # what they succeed may go
        self.space.moved(
            sum(map(_size_change, current)), sum(blocks(backup.size_bytes) for backup in made)
        )

    def _rotate(self, publish: Publish, committed: Committed) -> None:
        retain, made = publish.retain, committed.made.get(publish.key, [])
        if publish.purge:
            self._erase(publish.key, committed)
        elif retain is not None and made:
            names = [backup.name for backup in made]
            self._quietly(lambda: self.rotation.rotate(publish.key, retain, just_made=names))

    def _erase(self, key: DocumentKey, committed: Committed) -> None:
        """Erase what a purged document leaves; who asked for it hears what the disk kept."""
        try:
            self.rotation.purge(key)
        except (OSError, StorageError) as error:
            self._note_disk_error(error, "Erasing backups")
            committed.unerased[key] = _said(error)

    def _quietly(self, tidy: Callable[[], object]) -> None:
        """Tidying may fail without the change failing: it is durable already."""
        try:
            tidy()
        except (OSError, StorageError) as error:
            self._note_disk_error(error, "Tidying up")

    def _tell_repair(self, publish: Publish, now: datetime) -> None:
        found = publish.found
        incident = _recovered(publish, now) if found.broken else _adopted(found, now)
        self.counting.recoveries += incident.kind == "recovered"
        _log.warning("%s", incident.summary)
        self.tell(incident)

    def _answer(self, plan: Plan, taken: Sequence[Pending], committed: Committed) -> None:
        self.counting.batches += bool(plan.publishes)
        with together():
            self._settle(plan, taken, committed)

    def _settle(self, plan: Plan, taken: Sequence[Pending], committed: Committed) -> None:
        now_s = time.monotonic()
        for pending, steps in zip(taken, plan.taken, strict=True):
            if isinstance(steps, BaseException):
                self._refuse([pending], steps)
                continue
            refusals = [committed.refused[s.key] for s in steps if s.key in committed.refused]
            if refusals:
                self._refuse([pending], named(refusals[0], "Publishing"))
                continue
            outcomes = tuple(step.outcome(committed.backups) for step in steps)
            for step, outcome in zip(steps, outcomes, strict=True):
                if outcome.changed:
                    self.counting.answered(now_s - pending.queued_at_s)
                    self._tell_watchers(step.key, outcome)
            unerased = [step.key for step in steps if step.key in committed.unerased]
            if unerased:
                self._refuse([pending], _half_purged(unerased[0], committed))
            else:
                pending.future.set_result(outcomes)

    def _refuse(self, waiting: Sequence[Pending], error: BaseException) -> None:
        self.counting.refuse(error, len(waiting))
        for pending in waiting:
            pending.future.set_exception(error)

    def _tell_watchers(self, key: DocumentKey, outcome: Outcome) -> None:
        try:
            self.notice(key, outcome)
        except Exception:  # noqa: BLE001  # the change is durable, whatever its watchers make of it
            _log.exception("a change of %s was not taken note of", key.name)

    # failure and reopening (SPEC §10)

    def _in_doubt(self, plan: Plan, doubt: InDoubt) -> OutcomeUnknown:
        overlay = self.committer.overlay
        keys = frozenset(publish.key for publish in plan.publishes)
        self._fail(doubt.error, doubt.doing, keys if not doubt.committed else frozenset())
        for publish in plan.publishes:  # only now: what is doubtful is at no moment served
            if doubt.committed:
                overlay[publish.key] = publish.content
            else:
                overlay.pop(publish.key, None)
        return OutcomeUnknown(f"{doubt.doing}: {describe(doubt.error)}.")

    def _fail(self, error: OSError, doing: str, doubtful: frozenset[DocumentKey]) -> None:
        self.failure = VolumeFailed(
            f"{doing}: {describe(error)}. No writes are taken until the volume was reopened, "
            f"which is tried every {REOPEN_EVERY_S:.0f} s."
        )
        self.doubtful |= doubtful
        self._reopen_at = self.clock.monotonic() + 1.0
        self._note_disk_error(error, doing)

    def _note_disk_error(self, error: OSError | StorageError, doing: str) -> None:
        what = _said(error)
        _log.error("%s: %s", doing, what)
        self.tell(
            Incident(
                kind="no_room" if _is_full(error) else "disk_error",
                document="",
                at=self.clock.now(),
                summary=f"{doing}: {what}",
            )
        )

    def _reopen_if_due(self) -> bool:
        """Try to reopen after a failure, at most every 30 s; return whether writes are taken."""
        if self.clock.monotonic() < self._reopen_at:
            return False
        self._reopen_at = self.clock.monotonic() + REOPEN_EVERY_S
        try:
            self._reopen()
        except Exception:  # noqa: BLE001  # whatever stands in the way is tried again
            _log.exception("reopening the volume failed")
            return False
        self.failure, self.doubtful = None, frozenset()
        self.committer.overlay.clear()
        _log.warning("the volume was reopened; writes are taken again")
        return True

    def _reopen(self) -> None:
        """Drop what the page cache says, mend, and commit anew what was in doubt."""
        self._check_place()
        keys = self.doubtful | frozenset(self.committer.overlay)
        self.committer.judging.cache.clear()
        for key in keys:
            disk.drop_cached_pages(self.ground.documents(key.owner), key.name)
        now = self.clock.now()
        completed = self.mending.run(now, again=True)
        again = [replace(self.finding.find(key), repair=True) for key in sorted(keys)]
        publishes = tuple(
            Publish(
                found=found, content=found.content, backup=False, purge=False, always=True,
                retain=None,
            )
            for found in again
            if found.content is not None
        )  # fmt: skip
        if publishes:
            plan = Plan(publishes=publishes, taken=(), atomic=False)
            for refused in self.committer.run(plan, now=now).refused.values():
                raise refused
        for found in again:
            if found.judged.verdict is Verdict.MISSING and found.key not in completed:
                self.mending.remove_again(found.key)
        for owner in (BOT, SELINE):
            disk.touch_and_sync(self.ground.documents(owner))
        for found in again:
            self._tell_watchers(found.key, Outcome(content=found.content, changed=True))


def _unforeseen(error: Exception) -> InDoubt:
    """Return the doubt after an error that nobody thought of: as after one of the disk's."""
    _log.critical("a commit ended unexpectedly", exc_info=error)
    cause = error if isinstance(error, OSError) else OSError(repr(error))
    return InDoubt(cause, "Committing", committed=False)


def _is_full(error: OSError | StorageError) -> bool:
    return is_full(error) if isinstance(error, OSError) else isinstance(error, VolumeFull)


def _said(error: OSError | StorageError) -> str:
    return describe(error) if isinstance(error, OSError) else error.message


def _half_purged(key: DocumentKey, committed: Committed) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{key.name} is deleted, but the disk did not let go of all of its backups and quarantined "
        f"bytes: {committed.unerased[key]}.",
        hint=f"Purge it again, which erases what is left: `seline delete {key.name} --purge`.",
    )


def _first_that_works(ways: list[Callable[[], bool]]) -> bool:
    """Try each way to make room once, in order; return whether one has made some."""
    while ways:
        if ways.pop(0)():
            return True
    return False


def _growth(plan: Plan) -> int:
    return sum(blocks(publish.growth_bytes) for publish in plan.publishes)


def _is_for_documents(publish: Publish) -> bool:
    return publish.key.owner == BOT or publish.always


def _is_emergency(publish: Publish) -> bool:
    """What a full volume still lets in: restores, recoveries, deletes and shrinking writes."""
    before, after = publish.found.content, publish.content
    if publish.always or after is None:
        return True
    return before is not None and after.size_bytes <= before.size_bytes


def _count_change(publish: Publish) -> int:
    if publish.key.owner != BOT:
        return 0
    was_there = publish.found.judged.verdict is not Verdict.MISSING
    return (publish.content is not None) - was_there


def _size_change(publish: Publish) -> int:
    return _size(publish.content) - _size(publish.found.judged.content)


def _size(content: Content | None) -> int:
    return 0 if content is None else blocks(content.size_bytes)


def _recovered(publish: Publish, now: datetime) -> Incident:
    found, name = publish.found, publish.key.name
    if found.content is None or publish.content is None:
        return Incident(
            kind="set_aside",
            document=name,
            at=now,
            summary=f"{name} was {found.judged.verdict} ({found.judged.reason}) and was given up; "
            "its bytes lie in quarantine.",
        )
    lost = "" if found.source is None else _lost_since(found.source)
    source = "memory" if found.source is None else f"backup {found.source.name}"
    return Incident(
        kind="recovered",
        document=name,
        at=now,
        summary=f"{name} was {found.judged.verdict} ({found.judged.reason}). It was recovered from "
        f"{source}; {f'lost: {lost}' if lost else 'nothing is lost'}. The broken bytes lie in "
        "quarantine.",
        lost=lost,
        details={"verdict": str(found.judged.verdict), "source": source},
    )


def _lost_since(source: Backup) -> str:
    return f"changes after {source.taken_at:%Y-%m-%d %H:%M:%S} UTC"


def _adopted(found: Found, now: datetime) -> Incident:
    return Incident(
        kind="adopted",
        document=found.key.name,
        at=now,
        summary=f"{found.key.name} was taken over as it lies there: {found.judged.reason}.",
    )
