"""Plan a batch: each change decides on the result of the one before it. Every store uses this.

V2  Changes of one document that commit together leave one backup, of the content before them.
V5  An atom's changes are planned all or none: after one refusal none of them is in the plan.
V6  Order of submission is order of effect.
V7  A change that fails, with any error, fails alone: the others are planned without it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentKey, Json, Revision, check_space_name
from seline.domain.verdict import Judged, Verdict
from seline.errors import SelineError
from seline.ports.store import (
    Atom,
    Change,
    Current,
    Decision,
    Guard,
    Leave,
    Outcome,
    Put,
    Remove,
    Retain,
)

BATCH_ATOMS_MAX: Final = 512
BATCH_BYTES_MAX: Final = 32 << 20


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A document as a batch finds it.

    `content` is the sound content that the first change sees; `failure` is why there is none to
    serve. `repair` publishes `content` even without a change (an adopted edit, a recovery), or
    keeps what only memory holds while the file may change.
    `unsaved` are the contents before a hand edit or a removal that only memory holds, oldest first:
    they become backups. `replaced` is the last content known before a hand edit, a recovery or a
    removal, if `content` is another one; the guard is asked about it (V11). `broken` moves the file
    to quarantine when it is replaced. `removed`: Seline left a file, and another program removed
    it. `source` is the backup that `content` was read from. `token` is the store's own.
    """

    key: DocumentKey
    judged: Judged
    content: Content | None
    updated_at: datetime | None
    failure: SelineError | None = None
    repair: bool = False
    unsaved: tuple[Content, ...] = ()
    replaced: Content | None = None
    broken: bool = False
    removed: bool = False
    source: Backup | None = None
    token: object = None

    @property
    def may_change(self) -> bool:
        """Whether another program may be writing the file, so that only a change replaces it."""
        verdict, settled = self.judged.verdict, self.judged.settled
        return verdict is Verdict.UNSETTLED or (verdict is Verdict.EDITED and not settled)

    @property
    def is_bad_edit(self) -> bool:
        """Whether another program wrote bytes that are not JSON."""
        return self.broken and self.judged.is_edit


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """A document's new content, None to remove it.

    `keeps_file`: no file is written or removed; what only memory holds becomes a backup. `key` is
    that of `found`.
    """

    key: DocumentKey
    found: Found
    content: Content | None
    backup: bool
    purge: bool
    always: bool
    retain: Retain | None
    keeps_file: bool = False

    @property
    def is_recovery(self) -> bool:
        """Whether it only puts back what was there before."""
        content, before = self.content, self.found.content
        return content is not None and before is not None and content.revision == before.revision

    @property
    def growth_bytes(self) -> int:
        """The bytes that the change adds: the new content, less the old one if it is not kept."""
        if self.content is None:
            return 0
        before = self.found.content.size_bytes if self.found.content else 0
        return self.content.size_bytes - (0 if self.backup else before)


Step: TypeAlias = tuple[DocumentKey, Outcome]
"""One planned change; its outcome is not durable yet, and names no backup."""
JudgedBackups: TypeAlias = Callable[[DocumentKey], Iterator[tuple[Backup, Judged]]]
"""Reads and judges a document's backups one by one, newest first."""
Verdicts: TypeAlias = tuple[Step, ...] | BaseException


def with_backups(
    steps: Sequence[Step], backups: Mapping[DocumentKey, Backup]
) -> tuple[Outcome, ...]:
    """Return the outcomes of durable steps, with the backups that their commit made.

    A change after another one of its batch has none: the backup holds the content before both.
    """
    return tuple([
        msgspec.structs.replace(outcome, backup=backups[key].name)
        if outcome.changed and key in backups and _holds(backups[key], outcome.before)
        else outcome
        for key, outcome in steps
    ])  # fmt: skip


def _holds(backup: Backup, revision: Revision | None) -> bool:
    """Whether a backup holds a content; one without a checksum is taken for it."""
    return backup.revision in (None, revision)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch publishes.

    `taken` has each planned atom's steps, or the error that refused it; later atoms are planned
    next. `atomic`: the publishes become current all or none. `rests_on`: documents that already had
    the bytes of a change; they must be made durable before it is answered. `guarding` has the steps
    that guards added for hand edits and recoveries; no caller waits for them.
    """

    publishes: tuple[Publish, ...]
    taken: tuple[Verdicts, ...]
    atomic: bool
    rests_on: tuple[Found, ...] = ()
    guarding: tuple[Step, ...] = ()


class _Draft(msgspec.Struct):
    """A document after the changes that are planned so far."""

    found: Found
    content: Content | None
    failure: SelineError | None
    touched: bool = False
    backup: bool = False
    purge: bool = False
    always: bool = False
    retain: Retain | None = None
    guard: Guard | None = None
    rested_on: bool = False
    mend: bool = False
    """Whether a change that is no preview wants it recovered, or adopted."""
    decoded: Json | msgspec.UnsetType = msgspec.UNSET

    def current(self, judged_backups: JudgedBackups, now: datetime) -> Current:
        key = self.found.key
        return Current(
            key=key,
            content=self.content,
            failure=self.failure,
            updated_at=now if self.touched else self.found.updated_at,
            now=now,
            backups=lambda: judged_backups(key),
            decoded=self.decoded,
            recovered_from=None if self.touched else self.found.source,
        )

    def guarding(self, now: datetime) -> Atom:
        """Return the changes that guard the content before what no caller changed (V11)."""
        found, before = self.found, self.found.replaced
        if self.guard is None or before is None:
            return ()
        if found.removed:
            return self.guard(before, None, now)
        if self.content is None or self.keeps_file:
            return ()
        return self.guard(before, self.content, now)

    @property
    def keeps_file(self) -> bool:
        return not self.touched and (self.found.removed or self.found.may_change)

    def publish(self) -> Publish:
        keeps_file = self.keeps_file
        return Publish(
            key=self.found.key,
            found=self.found,
            content=self.content,
            backup=self.backup or (keeps_file and self.found.broken),
            purge=self.purge,
            always=self.always or not self.touched,
            retain=self.retain,
            keeps_file=keeps_file,
        )


def plan_batch(
    atoms: Sequence[Atom],
    look: Callable[[DocumentKey], Found],
    judged_backups: JudgedBackups,
    now: datetime,
) -> Plan:
    """Plan as many of `atoms` as can commit together, the first one always.

    `look` is called once per document.
    """
    taken: list[Verdicts] = []
    drafts: dict[DocumentKey, _Draft] = {}
    atomic = False
    bytes_brought = 0
    for atom in atoms[:BATCH_ATOMS_MAX]:
        if taken and bytes_brought > BATCH_BYTES_MAX:
            break
        try:
            steps = _take(atom, drafts, look, judged_backups, now)
        except BaseException as refusal:  # noqa: BLE001  # a caller's function may raise anything
            taken.append(refusal)
            continue
        if steps is None:
            assert taken, "an atom may change a document only once"
            break
        taken.append(steps)
        for _, outcome in steps:
            bytes_brought += outcome.content.size_bytes if outcome.content else 0
        if len(steps) > 1:
            atomic = atomic or len({key for key, outcome in steps if outcome.changed}) > 1
    guarding = _guard(drafts, look, judged_backups, now)
    publishes = tuple([draft.publish() for draft in drafts.values() if _is_published(draft)])
    return Plan(
        publishes=publishes,
        taken=tuple(taken),
        atomic=(atomic or bool(guarding)) and len(publishes) > 1,
        rests_on=tuple([draft.found for draft in drafts.values() if draft.rested_on]),
        guarding=guarding,
    )


def _guard(
    drafts: dict[DocumentKey, _Draft],
    look: Callable[[DocumentKey], Found],
    judged_backups: JudgedBackups,
    now: datetime,
) -> tuple[Step, ...]:
    """Plan what guards the content before each hand edit and recovery that is published (V11)."""
    replacing = [draft for draft in drafts.values() if draft.found.replaced is not None]
    published = [draft for draft in replacing if _is_published(draft)]
    atom = tuple(change for draft in published for change in draft.guarding(now))
    return (_take(atom, drafts, look, judged_backups, now) or ()) if atom else ()


def _take(
    atom: Atom,
    drafts: dict[DocumentKey, _Draft],
    look: Callable[[DocumentKey], Found],
    judged_backups: JudgedBackups,
    now: datetime,
) -> tuple[Step, ...] | None:
    """Plan an atom's changes; None if those before it must be published first."""
    trial: dict[DocumentKey, _Draft] = {}
    steps: list[Step] = []
    changes = deque(atom)
    while changes:
        change = changes.popleft()
        key = change.key
        planned = drafts.get(key)
        if planned is None:
            check_space_name(key.space)
            found = look(key)
            planned = drafts[key] = _Draft(found, found.content, found.failure)
        planned.guard = planned.guard or change.guard
        planned.mend = planned.mend or not change.preview
        draft = trial.get(key)
        if draft is None:
            draft = trial[key] = msgspec.structs.replace(planned)
        decision = change.decide(draft.current(judged_backups, now))
        if draft.touched and _must_be_first(draft, decision):
            return None
        before = None if draft.content is None else draft.content.revision
        is_broken = draft.failure is not None
        changed = _apply(draft, change, decision)
        outcome = Outcome(
            content=draft.content,
            changed=changed,
            before=before,
            broken=is_broken,
            answer=decision.answer,
        )
        steps.append((key, outcome))
        if isinstance(decision, (Put, Remove)):
            changes.extend(decision.also)
    drafts.update(trial)
    return tuple(steps)


def _must_be_first(draft: _Draft, decision: Decision) -> bool:
    """Whether no change of the document may be in the batch before this one."""
    if isinstance(decision, Put):
        needs_file = decision.alone or bool(decision.set_aside)
        return needs_file and not _already(draft, decision.content)
    return isinstance(decision, Remove)


def _apply(draft: _Draft, change: Change, decision: Decision) -> bool:
    """Apply a decision to the draft; return whether it changes the document."""
    if isinstance(decision, Leave):
        return False
    if isinstance(decision, Put):
        if _already(draft, decision.content):
            draft.rested_on = draft.rested_on or not draft.touched
            return False
        if decision.set_aside:
            draft.found = _useless(draft.found, decision.set_aside)
        draft.content, draft.decoded = decision.content, decision.decoded
        draft.backup = draft.backup or decision.backup
        draft.always = decision.always
    else:
        draft.content, draft.decoded = None, msgspec.UNSET
        draft.backup = draft.always = True
        draft.purge = decision.purge
    draft.failure = None
    draft.touched = True
    draft.retain = change.retain or draft.retain
    return True


def _useless(found: Found, why: str) -> Found:
    """Return what was found as broken, so that its bytes go to quarantine."""
    if found.broken:
        return found
    judged = msgspec.structs.replace(found.judged, reason=why)
    return msgspec.structs.replace(found, judged=judged, content=None, broken=True, repair=False)


def _already(draft: _Draft, content: Content) -> bool:
    """Whether these bytes are current and durable; those of a hand edit may not be."""
    durable = draft.touched or draft.found.judged.verdict is Verdict.SOUND
    before = draft.content
    return durable and before is not None and before.revision == content.revision


def _is_published(draft: _Draft) -> bool:
    found, content = draft.found, draft.content
    if found.repair or not draft.touched:
        return found.repair and draft.mend
    if draft.purge or found.judged.verdict not in (Verdict.SOUND, Verdict.MISSING):
        return True
    if found.content is None or content is None:
        return found.content is not content
    return found.content.revision != content.revision
