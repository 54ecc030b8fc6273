"""The store as every verb uses it: awaited until it is open, read within a limit, changed in order.

A change waits for the lock of its document (`locks`), then goes to the store as a pure function
(`changes`). No `await` runs inside a commit, and nothing here touches a disk.
"""

import secrets
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias, TypeVar

from seline.clock import Clock
from seline.domain.copy import Copy
from seline.domain.document import BOT, Content, DocumentKey, IfMatch
from seline.domain.purged import HeldCopy
from seline.domain.verdict import Verdict
from seline.domain.volume_file import VolumeFile
from seline.errors import RestoreUnfinished, SelineError
from seline.manager import changes
from seline.manager.awaited_store import AwaitedStore
from seline.manager.call_record import CallRecord, current_record
from seline.manager.changes import Decide
from seline.manager.locks import DocumentLocks
from seline.manager.metadata import Metadata
from seline.manager.pins import Pins
from seline.manager.state import State
from seline.ports.futures import wait_for
from seline.ports.store import Change, DocumentStore, Guard, Outcome
from seline.settings import Settings

CLOSE_S: Final = 5.0
"""How long a close waits for the last report."""
OnPurge: TypeAlias = Callable[[str], Awaitable[tuple[Sequence[Change], Sequence[HeldCopy]]]]
T = TypeVar("T")


class ManagedStore(AwaitedStore):
    """One store with its locks and, once it is open, its pins. Any task and thread."""

    pins: Pins
    """The pins and the rotation; only once the store is open."""
    metadata: Metadata
    """What `metadata.json` reports; only once the store is open."""

    def __init__(
        self,
        opening: Future[DocumentStore],
        settings: Settings,
        *,
        clock: Clock | None = None,
        for_restore: bool = False,
    ) -> None:
        """Manage the store that `opening` will hold; every call waits for it.

        Every call raises RestoreUnfinished on a volume onto which a restore was interrupted,
        except `for_restore`.
        """
        super().__init__(settings, clock=clock)
        storage = settings.storage
        self.locks = DocumentLocks(
            self.clock, wait_s=storage.edit_wait_s, limit_s=storage.edit_limit_s
        )
        self.unserved: State[tuple[str, ...]] = self.state(
            "unserved.json", tuple[str, ...], tuple[str, ...], field="documents"
        )
        """The documents that could not be served, also by an earlier process."""
        self.volume_file: State[VolumeFile] = self.state("volume.json", VolumeFile, VolumeFile)
        """Which volume this is."""
        self.new_id = secrets.token_hex(4)
        """The id of a volume that has none."""
        self.on_purge: OnPurge | None = None
        """Returns what notes a purge in its commit, and the copies that may hold the document."""
        self._is_identified = False
        self._becomes: Copy | None = None
        self._for_restore = for_restore
        opening.add_done_callback(self._open)

    def state(
        self,
        name: str,
        type: object,
        default: Callable[[], T],
        *,
        field: str = "",
        entry: object = None,
    ) -> State[T]:
        """Return one of Seline's own state documents, not read yet (see `State`)."""
        return State(self, name, type, default, field=field, entry=entry)

    async def exists(self, key: DocumentKey) -> bool:
        """Whether there is a document of this name, sound or not."""
        store = await self.open()
        known = store.peek(key)
        if known is None:
            return (await self.reading(lambda: store.look(key)))[0].verdict is not Verdict.MISSING
        return known is not Verdict.MISSING

    # changing

    def submit(self, made: Sequence[Change]) -> Future[tuple[Outcome, ...]]:
        """Do as `AwaitedStore` does; the first write of a document makes the volume's id first.

        What is changed is added to the record of the call that runs.
        """
        return self._submit(made, current_record())

    def _submit(
        self, made: Sequence[Change], record: CallRecord | None
    ) -> Future[tuple[Outcome, ...]]:
        if not self._is_identified and any(map(_writes, made)):
            self._identify()
        future = super().submit(made)
        if record is not None:
            record.add(future, made)
        return future

    def _identify(self) -> None:
        becomes = self._becomes
        identify = self.volume_file.change(lambda known: known.identified(self.new_id, becomes))
        identifying = super().submit((identify,))
        self._is_identified = True
        identifying.add_done_callback(self._notice_id)

    @contextmanager
    def becoming(self, copy: Copy) -> Generator[None]:
        """Let a volume without an id become the volume of a copy with its first write."""
        self._becomes = copy
        try:
            yield
        finally:
            self._becomes = None

    def _notice_id(self, identifying: Future[tuple[Outcome, ...]]) -> None:
        if identifying.exception() is None:
            self.volume_file.notice(identifying.result()[0])
        else:
            self._is_identified = False  # the next write tries again

    async def change(self, key: DocumentKey, decide: Decide, *, dry_run: bool = False) -> Outcome:
        """Change one document of the bot in its turn, or preview that; return the outcome."""
        await self.open()
        change = self.change_of(key, decide)
        return await self._through(changes.preview(change) if dry_run else change)

    def change_of(self, key: DocumentKey, decide: Decide, *, size_hint: int = 0) -> Change:
        """Return a change of one of the bot's documents, with its rotation and its guard."""
        return Change(
            key,
            decide,
            retain=self.pins.retain(key),
            guard=self.pins.guard(key),
            size_hint=size_hint,
        )

    async def save(
        self, key: DocumentKey, content: Content, *, backup: bool, if_match: IfMatch, shrink: bool
    ) -> Outcome:
        """Save a content in its turn; return the outcome."""
        await self.open()
        return await self._through(
            self.save_change(key, content, backup=backup, if_match=if_match, shrink=shrink)
        )

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
        return self.change_of(key, decide, size_hint=content.size_bytes)

    async def look(self, key: DocumentKey) -> Content | None:
        """Return a document's content after what was queued, recovered or adopted in its turn."""
        change = self.change_of(key, changes.look)
        return (await wait_for(self.submit((change,))))[0].content

    def guard(self, key: DocumentKey, *, shrink: bool) -> Guard | None:
        """Return what pins the content before a blank save; None if shrinking is meant (V11)."""
        return None if shrink else self.pins.guard(key)

    # parts

    def _prepare(self, store: DocumentStore) -> None:
        self.volume_file.read(store)
        known = self.volume_file
        if known.value.restoring and not self._for_restore:
            raise RestoreUnfinished(
                f"The restore of {known.value.restoring} onto the volume at {store.medium.place} "
                "was interrupted. Nothing is served before it is completed."
            )
        self._is_identified = known.value.is_identified or known.failure is not None
        self.pins = Pins(self, store)
        self.metadata = Metadata(store, self.clock)

    def _before_close(self) -> None:
        self._keep_what_only_memory_holds()
        self.metadata.write(wait_s=CLOSE_S)

    def _keep_what_only_memory_holds(self) -> None:
        """Look once more at the documents that another program changed or removed."""
        assert self.opened is not None
        with suppress(SelineError, TimeoutError):
            for name in self.opened.medium.changed_outside():
                change = self.change_of(DocumentKey(BOT, name), changes.look)
                self.opened.submit((change,)).exception(timeout=CLOSE_S)

    async def _through(self, change: Change) -> Outcome:
        record = current_record()  # the task that releases the lock may start the change
        future = await self.locks.through(change.key.name, lambda: self._submit((change,), record))
        return (await wait_for(future))[0]


def _writes(change: Change) -> bool:
    """Whether a change may write one of the bot's documents."""
    return change.key.space == BOT and not change.preview and change.decide is not changes.look
