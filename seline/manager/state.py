"""Seline's own state: one typed value per document in `.seline/`, with one policy for damage.

A value that cannot be read must not stop a command, a job or a bot. So:

 - A document that is broken without a sound backup, or that holds another shape, is replaced by
   its default in one commit. Its bytes go to quarantine, and an incident reports it. A list of
   entries keeps those that can be read, if one broken entry must not cost the others.
 - A document that the disk does not let be read stays where it is. The default is used, and an
   incident reports it.
 - Where nothing can be written, the value is kept in memory.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from seline.domain.backup import Backup
from seline.domain.document import SELINE, Content, DocumentKey, Revision
from seline.domain.incident import IncidentKind
from seline.domain.retention import RetentionPlan, RetentionPolicy, plan_retention
from seline.domain.stored import Stored
from seline.domain.verdict import Verdict
from seline.errors import (
    DocumentUnreadable,
    DocumentUnrecoverable,
    SelineError,
    StorageError,
    StoreClosed,
    VolumeFailed,
    VolumeNotMounted,
    VolumeReadOnly,
)
from seline.manager.awaited_store import AwaitedStore
from seline.manager.changes import look
from seline.manager.encoding import content_of
from seline.ports.futures import refuse_in_turn, turn, wait_for
from seline.ports.store import Change, Current, Decision, DocumentStore, Outcome, Put

_POLICY: Final = RetentionPolicy(keep_newest=3)
_SHOWN_BY_HEALTH: Final = (StoreClosed, VolumeFailed, VolumeNotMounted, VolumeReadOnly)
"""Why no change at all is taken; that state is not kept either needs no incident."""
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FLAWS_SHOWN_MAX: Final = 3
_log = logging.getLogger("seline.manager")
T = TypeVar("T")


def retain_state(backups: Sequence[Backup], _current_revision: Revision | None) -> RetentionPlan:
    """Plan the rotation of a state document's backups."""
    return plan_retention(backups, _POLICY)


class State(Generic[T]):
    """One state document: `value` is what is in effect. Any thread.

    `failure` is the reason why the stored value is not in effect, None if it is.
    """

    def __init__(
        self,
        managed: AwaitedStore,
        name: str,
        type: object,
        default: Callable[[], T],
        *,
        field: str = "",
        entry: object = None,
        after_loss: Callable[[], T] | None = None,
    ) -> None:
        """Use `ManagedStore.state`. `after_loss` (else `default`) replaces a value that is lost.

        With `field` the document is an object of this one field, which holds the value. With
        `entry` the value is a tuple of this type, of which broken entries are left out.
        """
        self.key = DocumentKey(SELINE, name)
        self.value: T = default()
        self.failure: SelineError | None = None
        self.loaded = False
        self._field = field
        self._type = _document_type(field, type)
        self._entry: Any = entry
        self._default = default
        self._after_loss = after_loss or default
        self._managed = managed
        self._lock = threading.Lock()

    async def load(self) -> T:
        """Read the document and return the value in effect. Raises VolumeBusy, StoreClosed."""
        store = await self._managed.open()
        await self._managed.reading(lambda: self.read(store))
        return self.value

    def read(self, store: DocumentStore) -> None:
        """Do the same over an open store. Blocks."""
        try:
            self._put_in_effect(self._content(store), store)
        except DocumentUnrecoverable as error:
            self._reset(store, error)
        except (DocumentUnreadable, StorageError) as error:
            self.do_without(error)
        self.loaded = True

    def read_once(self, store: DocumentStore) -> None:
        """Do the same unless it was read before. Blocks."""
        if not self.loaded:
            self.read(store)

    async def update(self, function: Callable[[T], T], *, always: bool = False) -> T:
        """Apply a pure function to the stored value and return the new value.

        `always`: a full volume takes it, too (V9). Raises DocumentUnreadable, StorageError; then
        nothing is changed.
        """
        await self._managed.open()
        self.notice(
            (await wait_for(self._managed.submit((self.change(function, always=always),))))[0]
        )
        return self.value

    async def save(self, value: T) -> bool:
        """Put a value in effect; return whether it is stored, and report an incident if not."""
        try:
            await self.update(lambda _: value)
        except SelineError as error:
            self.value = value
            why = f"{self.key.name} could not be kept: {error.message}"
            if isinstance(error, _SHOWN_BY_HEALTH):
                _log.warning("%s", why)
            else:
                self._managed.note(IncidentKind.STATE_NOT_KEPT, "", why)
            return False
        return True

    # for atoms, in the store's turn

    def change(self, function: Callable[[T], T], *, always: bool = False) -> Change:
        """Return the change that applies a pure function; pass its outcome to `notice`.

        `always`: a full volume takes it, too (V9).
        """

        def decide(current: Current) -> Decision:
            before, damage = self._before(current)
            with turn():
                content = self._encoded(function(before))
            return Put(
                content=content,
                always=always or bool(damage),
                set_aside=damage,
                answer=damage or None,
            )

        return Change(self.key, decide, retain=retain_state)

    def notice(self, outcome: Outcome) -> None:
        """Put the value in effect that a change of this document made current."""
        if isinstance(outcome.answer, str):
            self._report_loss(outcome.answer)
        try:
            self._put_in_effect(outcome.content, self._managed.opened)
        except DocumentUnrecoverable as error:  # edited by hand; the next read or change resets it
            self.do_without(error)

    def do_without(self, error: SelineError) -> None:
        """Put the default in effect; the stored bytes stay as they are."""
        self.value = self._default()
        self.failure = error
        self._managed.note(
            IncidentKind.STATE_UNREADABLE,
            self.key.name,
            f"{self.key.name} cannot be read, and its default is used: {error.message}",
        )

    # parts

    def _put_in_effect(self, content: Content | None, store: DocumentStore | None) -> None:
        """Put the value of a content in effect, or of a newer one, so that it never goes back."""
        with self._lock:
            newest: object = None
            if store is not None:
                with suppress(SelineError):  # the store is closing, or the disk failed
                    newest = store.peek(self.key)
            self.value = self._decoded(newest if isinstance(newest, Content) else content)
            self.failure = None

    def _content(self, store: DocumentStore) -> Content | None:
        """Return the content, recovered or adopted first; where nothing can be written, rescued."""
        known = store.peek(self.key)
        if isinstance(known, Content):
            return known
        if known is Verdict.MISSING:
            return None
        try:
            return _run(store, Change(self.key, look, retain=retain_state)).content
        except StorageError:
            content = store.medium.rescue(self.key)
            if content is None:
                raise
            return content

    def _reset(self, store: DocumentStore, damage: SelineError) -> None:
        """Replace the document by its value after a loss; without a writable volume, in memory."""
        try:
            self.notice(_run(store, self.change(lambda value: value)))
        except StorageError as error:
            self.do_without(error)
            entries = None
            with suppress(SelineError):  # the store is closing, or the disk failed
                entries = self._sound_entries(store.medium.rescue(self.key))
            self.value, why = entries or (self.value, damage.message)
            self._report_loss(why, "its bytes stay in their file")

    def _before(self, current: Current) -> tuple[T, str]:
        """Return the stored value and "", or the value after a loss and why the stored one is."""
        if isinstance(current.failure, DocumentUnreadable):
            raise current.failure
        try:
            return self._decoded(current.sound()), ""
        except DocumentUnrecoverable as error:
            entries = self._sound_entries(current.content)
            return entries or (self._after_loss(), f"It was reset. {error.message}")

    def _sound_entries(self, content: Content | None) -> tuple[T, str] | None:
        """Return the entries that can be read, and what is wrong with the others.

        None for what is not a list, and for a state without entries.
        """
        if self._entry is None or content is None:
            return None
        try:
            stored = msgspec.json.decode(
                content.data, type=_document_type(self._field, tuple[msgspec.Raw, ...])
            )
        except _UNDECODABLE:
            return None
        sound: list[Any] = []
        flaws: list[str] = []
        raw: tuple[msgspec.Raw, ...] = getattr(stored, self._field)
        for number, encoded in enumerate(raw, start=1):
            try:
                sound.append(msgspec.json.decode(encoded, type=self._entry))
            except _UNDECODABLE as error:
                flaws.append(f"entry {number}: {error}")
        shown = "; ".join(flaws[:_FLAWS_SHOWN_MAX])
        why = f"{len(flaws)} of {len(raw)} entries are left out, the others in effect ({shown})."
        return cast("T", tuple(sound)), why

    def _report_loss(self, why: str, kept: str = "its bytes are in quarantine") -> None:
        self._managed.note(
            IncidentKind.STATE_RESET,
            self.key.name,
            f"{self.key.name} could not be used as it was; {kept}. {why}",
        )

    def _decoded(self, content: Content | None) -> T:
        if content is None:
            return self._default()
        try:
            stored = msgspec.json.decode(content.data, type=self._type)
        except _UNDECODABLE as error:
            raise DocumentUnrecoverable(
                f"{self.key.name} has another shape: {error}.", document=self.key.name
            ) from error
        value: T = getattr(stored, self._field) if self._field else stored
        return value

    def _encoded(self, value: T) -> Content:
        stored = {self._field: value} if self._field else value
        return content_of(msgspec.to_builtins(stored), self._managed.limits)


def _document_type(field: str, type: object) -> Any:
    """Return the type of a document that is an object of one field; without a field, `type`."""
    if not field:
        return type
    return msgspec.defstruct("Stored", [(field, type)], bases=(Stored,), frozen=True)


def _run(store: DocumentStore, change: Change) -> Outcome:
    refuse_in_turn()
    return store.submit((change,)).result()[0]
