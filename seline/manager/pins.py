"""Which backups stay: the retention policy and the pins, asked by the store after each change.

V2   Rotation is planned as part of a save.
V8   A pinned backup does not go. While `pins.json` cannot be read nothing is rotated or shed,
     because any backup might be pinned. If it is lost for good, every backup of that moment is
     pinned instead: newer ones are rotated, and a person releases the old ones.
V11  A change that removes most of a document (a save, a hand edit, a recovery, an import or a
     restore) pins the content before it, in the same commit.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec
from msgspec.structs import replace

from seline.clock import parse_instant
from seline.domain import pins as pinning
from seline.domain.backup import Backup
from seline.domain.blank_save import blank_save
from seline.domain.deletion import STEP_MAX
from seline.domain.document import BOT, SELINE, Content, DocumentKey, Json, Revision
from seline.domain.incident import IncidentKind
from seline.domain.json_codec import NotJson, decode
from seline.domain.pins import Pin
from seline.domain.retention import RetentionPlan, keep_all, plan_retention
from seline.errors import SelineError, VolumeFailed
from seline.manager.awaited_store import AwaitedStore
from seline.manager.state import State, retain_state
from seline.ports.store import (
    Change,
    Current,
    Decision,
    DocumentStore,
    Guard,
    Leave,
    Outcome,
    Retain,
    current_revision,
    keys_with_backups,
)

CLOCK_SLACK: Final = timedelta(days=1)


class Pins:
    """The pins of one store, and the rotation that respects them. Any thread."""

    def __init__(self, managed: AwaitedStore, store: DocumentStore) -> None:
        """Read the pins of an open store. Blocks."""
        self._store = store
        self._note = managed.note
        self._policy = managed.settings.backups
        self._clock = clock = managed.clock
        self._opened = _no_later_than_likely(clock.now(), store), clock.monotonic()
        self._state = State(
            managed,
            "pins.json",
            tuple[Pin, ...],
            tuple[Pin, ...],
            field="pins",
            after_loss=self._every_backup,
        )
        store.medium.protect_pins(self.sheddable)  # first: a reset of the pins may shed backups
        self.load()
        store.medium.protect_pins(self.sheddable)  # again: now they are known
        store.watch(self._notice)

    def load(self) -> None:
        """Read the pins again. Blocks."""
        self._state.read(self._store)

    @property
    def failure(self) -> SelineError | None:
        """Why `pins.json` cannot be read, so that nothing is rotated; None if it can."""
        return self._state.failure

    def pins(self) -> tuple[Pin, ...]:
        """Return the pins in effect now."""
        pins = self._state.value
        return pinning.current(pins, self._latest_now()) if pins else ()

    def retain(self, key: DocumentKey) -> Retain:
        """Return the function that plans a document's rotation."""
        return retain_state if key.space == SELINE else partial(self.plan, key)

    def plan(
        self, key: DocumentKey, backups: Sequence[Backup], current_revision: Revision | None
    ) -> RetentionPlan:
        """Plan the rotation of one of the bot's documents, with reasons."""
        if self.failure is not None:
            return keep_all(backups, "the pins cannot be read")
        return plan_retention(
            self.marked(key.name, backups), self._policy, current_revision=current_revision
        )

    def reasoned(self, key: DocumentKey, backups: Sequence[Backup]) -> list[Backup]:
        """Return the backups with their pins, and the reason why each one stays or goes.

        They are listed also while the document's last change is not known (V7).
        """
        try:
            current = current_revision(self._store, key)
        except VolumeFailed:
            current = None
        plan = self.plan(key, backups, current)
        because = {kept.name: kept.because for kept in plan.keep}
        because |= {b.name: f"goes at the next rotation: {b.because}" for b in plan.drop}
        return [
            replace(backup, because="; ".join(filter(None, (because[backup.name], backup.flaw))))
            for backup in self.marked(key.name, backups)
        ]

    def marked(self, document: str, backups: Sequence[Backup]) -> list[Backup]:
        """Return the backups with their pins."""
        pinned = {pin.revision: pin.because for pin in self.pins() if pin.document == document}
        if not pinned:
            return list(backups)
        return [
            replace(backup, pinned=True, because=pinned[revision])
            if (revision := self.revision_of(backup)) in pinned
            else backup
            for backup in backups
        ]

    def sheddable(self, key: DocumentKey, backups: Sequence[Backup]) -> list[Backup]:
        """Return the backups that may make room, with their pins; none without readable pins."""
        if key.space != BOT:
            return list(backups)  # only the bot's documents have pins
        if self.failure is not None or not self._state.loaded:
            return []
        return self.marked(key.name, backups)

    def revision_of(self, backup: Backup) -> Revision | None:
        """Return a backup's revision: the recorded one, else, without a checksum, its bytes'."""
        if backup.revision is not None:
            return backup.revision
        try:
            judged = self._store.read_backup(DocumentKey(BOT, backup.document), backup.name)
        except SelineError:
            return None
        return None if judged.content is None else judged.content.revision

    def guard(self, key: DocumentKey, *, into: dict[str, Pin] | None = None) -> Guard | None:
        """Return what pins the content before most of it is removed (V11); None: it may be.

        With `into` it only collects the pins there, for `pin_all` at the end of a commit.
        """
        if key.space != BOT or key.name in self._policy.blank_guard_except:
            return None
        return partial(self._pin_before, key.name, into)

    def pin_all(self, pins: Mapping[str, Pin]) -> Change:
        """Return the change that adds the pins that its commit has collected, in one write.

        It adds none to a document that has such a pin of today. If `pins.json` is unreadable, the
        replacement succeeds without a pin: its backup stays anyway.
        """
        change = self.change(
            lambda known: pinning.with_blank_pins(known, pins.values(), ended_by=self._latest_now())
        )

        def decide(current: Current) -> Decision:
            if not pins:
                return Leave()
            try:
                return change.decide(current)
            except SelineError as error:
                self._state.do_without(error)
                for pin in pins.values():
                    self._note_unpinned(pin)
                return Leave()

        return msgspec.structs.replace(change, decide=decide)

    async def add(self, pins: Sequence[Pin]) -> int:
        """Add the pins of a copy, except of contents that are pinned already; return how many.

        Raises DocumentUnreadable, StorageError.
        """
        added, now = self.lacking(pins), self._latest_now()
        if added:
            await self._state.update(lambda known: pinning.with_added(known, pins, now))
        return added

    def lacking(self, pins: Sequence[Pin]) -> int:
        """Return how many pins of a copy `add` would add."""
        known = self.pins()
        return len(pinning.with_added(known, pins, self._latest_now())) - len(known)

    def change(self, function: Callable[[tuple[Pin, ...]], tuple[Pin, ...]]) -> Change:
        """Return a change of the pins. A full volume takes it: a shrinking save may need one."""
        return self._state.change(function, always=True)

    def _pin_before(
        self,
        document: str,
        into: dict[str, Pin] | None,
        before: Content,
        after: Content | None,
        now: datetime,
        changed: tuple[Json, Json] | None = None,
    ) -> tuple[Change, ...]:
        """Return what pins `before` if most of it, or the whole file, goes; or collect its pin."""
        pins = {} if into is None else into
        pins.pop(document, None)
        reason = "" if after is None else blank_save(before.data, after.data, changed)
        if reason is None:
            return ()
        days = self._policy.pin_days
        pins[document] = pinning.guard_pin(document, before.revision, reason, now, pin_days=days)
        return (self.pin_all(pins),) if into is None else ()

    def _note_unpinned(self, pin: Pin) -> None:
        self._note(
            IncidentKind.BLANK_SAVE_UNPINNED,
            pin.document,
            f"Most of {pin.document} was removed; the content before it is its newest backup, and "
            f"is not pinned: {pin.because}.",
        )

    def _note_pinned(self, pin: Pin) -> None:
        self._note(
            IncidentKind.BLANK_SAVE,
            pin.document,
            f"Most of {pin.document} was removed; the content before it is pinned until "
            f"{pin.until:%Y-%m-%d}: {pin.because}.",
        )

    def _every_backup(self) -> tuple[Pin, ...]:
        """Return a pin for each backup of the bot's documents (V8). Blocks."""
        keys = keys_with_backups(self._store, BOT)
        contents = [
            (backup.document, revision)
            for key in keys
            for backup in self._store.backups(key)
            if (revision := self.revision_of(backup)) is not None
        ]
        return pinning.pins_after_loss(contents, self._clock.now())

    def _latest_now(self) -> datetime:
        """Return the present, but no later than this process can have reached since its start.

        So a clock that jumps far ahead and comes back, or is wrong at the start, ends no pin.
        """
        opened_at, opened_s = self._opened
        elapsed = timedelta(seconds=self._clock.monotonic() - opened_s)
        return min(self._clock.now(), opened_at + elapsed + CLOCK_SLACK)

    def _notice(self, key: DocumentKey, outcome: Outcome) -> None:
        if key != self._state.key:
            return
        before = None if self.failure else frozenset(self._state.value)
        self._state.notice(outcome)
        for pin in self._state.value:
            if before is not None and pin not in before and pinning.is_blank(pin):
                self._note_pinned(pin)


def _no_later_than_likely(now: datetime, store: DocumentStore) -> datetime:
    """Return `now`, or a week after the last change in the report if that is earlier.

    After a longer stop pins stay somewhat longer, which does no harm.
    """
    try:
        report = decode(store.medium.read_report() or b"{}")
        last = parse_instant(str(report["last_updated"])) if isinstance(report, dict) else now
        return min(now, last + STEP_MAX)
    except (NotJson, KeyError, ValueError, OverflowError):
        return now
