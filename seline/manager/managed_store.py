"""The store as every verb uses it: awaited until it is open, read within a limit, changed in order.

A change waits for the lock of its document (`locks`), then goes to the store as a pure function
(`changes`). No `await` runs inside a commit, and nothing here touches a disk.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from seline.clock import Clock
from seline.domain.document import BOT, Content, DocumentKey, IfMatch, Revision
from seline.domain.incident import Incident, IncidentKind
from seline.domain.verdict import Judged, Verdict
from seline.manager import changes
from seline.manager.changes import BlankSaved, Guard
from seline.manager.encoding import Encoding
from seline.manager.incidents import Incidents
from seline.manager.lifetime import Lifetime
from seline.manager.locks import DocumentLocks
from seline.manager.metadata import Metadata
from seline.manager.pins import Pins
from seline.manager.reads import BoundedReads, ServedContent
from seline.manager.state import State
from seline.ports.futures import refuse_in_turn, wait_for
from seline.ports.store import Atom, Change, Current, Decision, DocumentStore, Outcome, Retain
from seline.settings import Settings

CLOSE_S: Final = 5.0
"""How long a close waits for the last report."""
T = TypeVar("T")


class ManagedStore:
    """One store with its locks, its pins and its incidents. Any task and thread."""

    def __init__(
        self, opening: Future[DocumentStore], settings: Settings, *, clock: Clock | None = None
    ) -> None:
        """Manage the store that `opening` will hold; every call waits for it."""
        self.settings = settings
        storage = settings.storage
        self.clock = clock or Clock()
        self.encoding = Encoding(
            document_bytes_max=storage.document_bytes_max, depth_max=storage.depth_max
        )
        self.locks = DocumentLocks(
            self.clock, wait_s=storage.edit_wait_s, limit_s=storage.edit_limit_s
        )
        self._incidents = Incidents(self.clock)
        self._lifetime = Lifetime(self._prepare, after_close=lambda: self._reads.close())  # noqa: PLW0108  # it is made below
        self._reads = BoundedReads(self.clock, self._lifetime)
        self._served = ServedContent(
            self._lifetime, self._reads, look=self._look, incidents=self._incidents
        )
        self._pins: Pins | None = None
        self._metadata: Metadata | None = None
        opening.add_done_callback(self._lifetime.opened)

    # opening and closing

    async def open(self) -> DocumentStore:
        """Return the store, once it is open. Raises what its opening raised, and StoreClosed."""
        return await self._lifetime.open_store()

    @property
    def opened(self) -> DocumentStore | None:
        """The store, None while it is not open yet."""
        return self._lifetime.store

    @property
    def failed_to_open(self) -> bool:
        """Whether the store could not be opened, or was closed."""
        return self._lifetime.failed()

    @property
    def is_closing(self) -> bool:
        """Whether the store is closed or being closed."""
        return self._lifetime.closed

    async def close(self) -> None:
        """Carry out what is queued and close the store; idempotent.

        It runs to its end even if the caller is cancelled; another call waits for it.
        """
        await self._lifetime.close()

    def begin_to_close(self) -> Future[None]:
        """Close on a new thread. A store that is still opening is closed, too."""
        return self._lifetime.begin_to_close()

    @property
    def pins(self) -> Pins:
        """The pins and the rotation; only once the store is open."""
        assert self._pins is not None, "the store is not open yet"
        return self._pins

    @property
    def metadata(self) -> Metadata:
        """What `metadata.json` reports; only once the store is open."""
        assert self._metadata is not None, "the store is not open yet"
        return self._metadata

    def state(
        self, name: str, type: object, default: Callable[[], T], *, field: str = ""
    ) -> State[T]:
        """Return one of Seline's own state documents, not read yet (see `State`)."""
        return State(
            name,
            type,
            default=default,
            field=field,
            reads=self._reads,
            encoding=self.encoding,
            incidents=self._incidents,
        )

    # reading

    async def reading(self, work: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Run blocking reading work on the reader threads (see `BoundedReads.bounded`)."""
        return await self._reads.bounded(work, limit_s=limit_s)

    async def listing(self, work: Callable[[], T]) -> T:
        """Run work that may read all documents or backups. Raises VolumeBusy."""
        return await self._reads.listing(work)

    async def content(self, key: DocumentKey) -> Content | None:
        """Return a document's sound content, recovered or adopted first; None if it is missing."""
        return await self._served.content(key)

    async def content_of(self, key: DocumentKey, judged: Judged) -> Content | None:
        """Return the content that a verdict allows to be served, after its remedy."""
        return await self._served.content_of(await self.open(), key, judged)

    async def exists(self, key: DocumentKey) -> bool:
        """Whether there is a document of this name, sound or not."""
        return (await self.open()).peek(key) is not Verdict.MISSING

    def busy_s(self) -> float:
        """Return for how many seconds a change or a read has waited for the disk."""
        return self._reads.busy_s()

    # changing

    async def change(self, key: DocumentKey, decide: Callable[[Current], Decision]) -> Outcome:
        """Change one document of the bot in its turn; return the outcome."""
        if not self._lifetime.is_open:
            await self.open()
        return await self._through(Change(key, decide, retain=self.pins.retain(key)))

    async def save(
        self, key: DocumentKey, content: Content, *, backup: bool, if_match: IfMatch, shrink: bool
    ) -> Outcome:
        """Save a content in its turn; return the outcome."""
        if not self._lifetime.is_open:
            await self.open()
        return await self._through(
            self.save_change(key, content, backup=backup, if_match=if_match, shrink=shrink)
        )

    def submit(self, changes: Sequence[Change]) -> Future[tuple[Outcome, ...]]:
        """Queue changes that take effect all or none. Raises NestedEdit from inside a turn."""
        refuse_in_turn()
        assert self.opened is not None
        return self.opened.submit(Atom(tuple(changes)))

    def save_change(
        self,
        key: DocumentKey,
        content: Content,
        *,
        backup: bool,
        if_match: IfMatch,
        shrink: bool = False,
    ) -> Change:
        """Return the change that saves a content, guarded against blank saves (V11)."""
        guard = self.guard(key, shrink=shrink)
        decide = changes.save(content, if_match=if_match, backup=backup, guard=guard)
        retain = self.pins.retain(key)
        return Change(key, decide, retain=retain, size_hint=content.size_bytes)

    def look_change(self, key: DocumentKey) -> Change:
        """Return the change that only looks: it recovers or adopts what has to be."""
        return Change(key, changes.look, retain=self.pins.retain(key))

    def retain(self, key: DocumentKey) -> Retain:
        """Return the function that plans a document's rotation."""
        return self.pins.retain(key)

    def guard(self, key: DocumentKey, *, shrink: bool) -> Guard | None:
        """Return what pins the content before a blank save; None if shrinking is meant (V11)."""
        meant = shrink or key.name in self.settings.backups.blank_guard_except
        return None if meant else self._pin_blank

    # incidents

    def note(self, kind: IncidentKind, document: str, summary: str) -> None:
        """Report an incident, at most once a day per kind and document."""
        self._incidents.note(kind, document, summary)

    def incidents(self) -> list[Incident]:
        """Return the incidents of the store and of the manager, each oldest first."""
        stored = () if self.opened is None else self.opened.medium.incidents()
        return [*stored, *self._incidents.noted()]

    # parts

    def _prepare(self, store: DocumentStore) -> Callable[[], None]:
        """Build what works over the open store; return what a close does first."""
        self._pins = Pins(
            store,
            self.clock,
            policy=self.settings.backups,
            reads=self._reads,
            encoding=self.encoding,
            incidents=self._incidents,
        )
        self._metadata = Metadata(store, self.clock)
        store.watch(self._note_blank_save)
        return partial(self._metadata.write, wait_s=CLOSE_S)

    async def _through(self, change: Change) -> Outcome:
        future = await self.locks.through(change.key.name, lambda: self.submit((change,)))
        return (await wait_for(future))[0]

    def _look(self, key: DocumentKey) -> Future[tuple[Outcome, ...]]:
        return self.submit((self.look_change(key),))

    def _pin_blank(self, document: str, revision: Revision, now: datetime) -> tuple[Change, ...]:
        return self.pins.guard(document, revision, now)

    def _note_blank_save(self, key: DocumentKey, outcome: Outcome) -> None:
        blank = outcome.answer
        if key.space != BOT or not isinstance(blank, BlankSaved):
            return
        readable = self.pins.failure is None
        pinned = readable and blank.pinned
        days = self.settings.backups.pin_days
        kept = f"is kept for {days} days" if pinned else "is its newest backup"
        self.note(
            IncidentKind.BLANK_SAVE if readable else IncidentKind.BLANK_SAVE_UNPINNED,
            blank.document,
            f"A save removed most of {blank.document} ({blank.reason}); the content before it "
            f"{kept}.",
        )
