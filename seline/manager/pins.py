"""Which backups stay: the policy and the pins, asked for by the store after each change (V2, V8).

Unreadable pins mean that nothing is rotated: a pin that cannot be read might be the one needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from seline.clock import Clock, parse_instant
from seline.domain import pins as pinning
from seline.domain.backup import Backup
from seline.domain.deletion import STEP_MAX
from seline.domain.document import BOT, SELINE, Content, DocumentKey, Json, Revision
from seline.domain.json_codec import NotJson, decode
from seline.domain.pins import Pin
from seline.domain.retention import Kept, RetentionPlan, RetentionPolicy, plan_retention
from seline.domain.verdict import Verdict
from seline.errors import SelineError, StorageError
from seline.manager.changes import Encoding, look, update
from seline.manager.options import ManagerOptions
from seline.ports.store import (
    Atom,
    Change,
    Current,
    Decision,
    DocumentStore,
    Leave,
    Outcome,
    Retain,
)

PINS: Final = DocumentKey(SELINE, "pins.json")
CLOCK_SLACK: Final = timedelta(days=1)
_STATE_POLICY: Final = RetentionPolicy(keep_newest=3)


class Keeping:
    """Plans rotation for one store. Called on the writer's thread and on callers' threads."""

    def __init__(
        self, store: DocumentStore, options: ManagerOptions, encoding: Encoding, clock: Clock
    ) -> None:
        self._store = store
        self._options = options
        self._encoding = encoding
        self._clock = clock
        self._opened = _no_later_than_likely(clock.now(), store), clock.monotonic()
        self._pins: tuple[Pin, ...] = ()
        self.unreadable: SelineError | None = None
        store.watch(self._notice)
        store.heed_pins(self.sheddable)

    def load(self) -> None:
        """Read the pins, mended if they are broken. Blocks; an unreadable file is remembered."""
        try:
            self._take(self._mended())
        except (SelineError, ValueError, KeyError) as error:
            self.unreadable = error if isinstance(error, SelineError) else SelineError(str(error))

    def pins(self) -> tuple[Pin, ...]:
        """Return the pins that hold now."""
        return pinning.current(self._pins, self._lived_until()) if self._pins else ()

    def retain(self, key: DocumentKey) -> Retain:
        """Return the function that plans a document's rotation."""
        return partial(self.plan, key)

    def plan(
        self, key: DocumentKey, backups: Sequence[Backup], current_revision: Revision | None
    ) -> RetentionPlan:
        """Plan a document's rotation with reasons."""
        if key.owner == SELINE:
            return plan_retention(backups, _STATE_POLICY)
        if self.unreadable is not None:
            return RetentionPlan(
                tuple(Kept(backup, "the pins cannot be read") for backup in backups), ()
            )
        return plan_retention(
            self.marked(key.name, backups),
            self._options.retention,
            current_revision=current_revision,
        )

    def reasoned(self, key: DocumentKey, backups: Sequence[Backup]) -> list[Backup]:
        """Return the backups with their pins, and why each one stays, or goes."""
        known = self._store.peek(key)
        plan = self.plan(key, backups, known.revision if isinstance(known, Content) else None)
        because = {kept.backup.name: kept.because for kept in plan.keep}
        because |= {
            dropped.backup.name: f"goes at the next rotation: {dropped.because}"
            for dropped in plan.drop
        }
        return [
            replace(backup, because=because[backup.name])
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

    def sheddable(self, document: str, backups: Sequence[Backup]) -> list[Backup]:
        """Return the backups with their pins for shedding: none where the pins cannot be read."""
        return [] if self.unreadable is not None else self.marked(document, backups)

    def revision_of(self, backup: Backup) -> Revision | None:
        """Return a backup's revision: the recorded one, else, without a checksum, its bytes'."""
        if backup.revision is not None:
            return backup.revision
        try:
            judged = self._store.read_backup(DocumentKey(BOT, backup.document), backup.name)
        except SelineError:
            return None
        return None if judged.content is None else judged.content.revision

    def guard(self, document: str, revision: str, now: datetime) -> tuple[Change, ...]:
        """Return the change that pins what a blank save removes, none where today has one (V11).

        Pins that cannot be read refuse no save: nothing is rotated then, so its backup stays.
        """
        if not pinning.wants_blank_pin(self.pins(), document, now):
            return ()
        add = partial(
            pinning.with_blank_pin,
            document=document,
            revision=revision,
            now=now,
            pin_days=self._options.pin_days,
            ended_by=self._lived_until(),
        )
        pin = self.change(add)

        def decide(current: Current) -> Decision:
            try:
                return pin.decide(current)
            except SelineError as error:
                self.unreadable = error
                return Leave()

        return (msgspec.structs.replace(pin, decide=decide),)

    def change(self, function: Callable[[tuple[Pin, ...]], tuple[Pin, ...]]) -> Change:
        """Return a change of the pins. A full volume takes it: a shrinking save may need one."""

        def apply(value: Json | None) -> Json:
            pins = () if value is None else pinning.read_pins(value)
            return pinning.write_pins(function(pins))

        decide = update(apply, self._encoding, always=True)
        return Change(PINS, decide, retain=self.retain(PINS))

    def _mended(self) -> Content | None:
        """Return the pins' content, recovered in the store's turn like any other document's.

        So it is told, because a pin may be lost. Where nothing can be written, what can be rescued.
        """
        change = Change(PINS, look, retain=self.retain(PINS))
        try:
            return self._store.submit(Atom((change,))).result()[0].content
        except StorageError:
            content = self._store.rescue(PINS)
            if content is None and self._store.peek(PINS) is not Verdict.MISSING:
                raise
            return content

    def _lived_until(self) -> datetime:
        """Return the present, but no later than this process can have lived to see it.

        A clock that jumps far ahead and comes back has ended no pin (FAULTS 27), nor has one that
        was wrong at the start.
        """
        opened_at, opened_s = self._opened
        lived = timedelta(seconds=self._clock.monotonic() - opened_s)
        return min(self._clock.now(), opened_at + lived + CLOCK_SLACK)

    def _notice(self, key: DocumentKey, outcome: Outcome) -> None:
        if key == PINS:
            self._take(outcome.content)

    def _take(self, content: Content | None) -> None:
        self._pins = () if content is None else pinning.read_pins(decode(content.data))
        self.unreadable = None


def _no_later_than_likely(now: datetime, store: DocumentStore) -> datetime:
    """Return `now`, or a week after the last change that was reported if that is earlier.

    After a longer stop pins hold somewhat longer: that does no harm.
    """
    try:
        report = decode(store.read_report() or b"{}")
        last = parse_instant(str(report["last_updated"])) if isinstance(report, dict) else now
        return min(now, last + STEP_MAX)
    except (NotJson, KeyError, ValueError, OverflowError):
        return now
