"""Reads: each is bounded in time, and only sound content is served (V4).

`BoundedReads` does everything that may block; `ServedContent` applies a verdict's remedy.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from seline.clock import Clock
from seline.domain.document import Content, DocumentKey
from seline.domain.incident import IncidentKind
from seline.domain.verdict import Judged, Remedy, Verdict
from seline.errors import (
    DocumentUnreadable,
    DocumentUnrecoverable,
    StorageError,
    StoreClosed,
    VolumeBusy,
)
from seline.manager.incidents import Incidents
from seline.manager.lifetime import Lifetime
from seline.ports.futures import in_loop, in_turn, wait_for
from seline.ports.medium import SLOW_S
from seline.ports.store import DocumentStore, Outcome

READ_S: Final = 10.0
"""Seconds after which a caller no longer waits for a read; the disk may never answer."""
LISTING_S: Final = 60.0
"""The same for a read of all documents or backups."""
READER_THREADS: Final = 3
T = TypeVar("T")


class BoundedReads:
    """The reads in progress: each caller waits for a limited time, and `busy_s` measures them."""

    def __init__(self, clock: Clock, lifetime: Lifetime) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="seline-reader")
        self._pending: dict[object, float] = {}
        """Since when each read in progress waits for the disk, in monotonic seconds."""

    async def open_store(self) -> DocumentStore:
        """Return the store, once it is open. Raises what its opening raised, and StoreClosed."""
        return await self._lifetime.open_store()

    async def bounded(self, work: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Run blocking reading work on the reader threads, for `limit_s` (READ_S) at most.

        Raises VolumeBusy if it takes longer. Without an event loop the work runs in this thread,
        unless the disk is known to be slow.
        """
        limit_s = READ_S if limit_s is None else limit_s
        work = partial(self._measured, work, limit_s)
        if in_turn() or not (in_loop() or self.are_slow()):
            return work()
        await self._lifetime.open_store()
        try:
            future = self._threads.submit(work)
        except RuntimeError as error:
            if self._lifetime.closed:
                raise StoreClosed from error
            return work()  # the interpreter shuts down and starts no more threads
        try:
            return await wait_for(future, timeout_s=None if limit_s == math.inf else limit_s)
        except TimeoutError as error:
            if not future.cancel() and future.done():
                raise
            raise VolumeBusy(
                f"The disk has not answered for {limit_s:.0f} s; nothing was read.",
                hint="Wait; if it stays so, the volume hangs: ask its provider.",
            ) from error

    async def listing(self, work: Callable[[], T]) -> T:
        """Run work that may read all documents or backups. Raises VolumeBusy."""
        return await self.bounded(work, limit_s=LISTING_S)

    def close(self) -> None:
        """End the reader threads. Idempotent."""
        self._threads.shutdown()

    def are_slow(self) -> bool:
        """Whether an answer of the disk is overdue."""
        return self.busy_s() > SLOW_S

    def busy_s(self) -> float:
        """Return for how many seconds a change or a read has waited for the disk."""
        now, store = self._clock.monotonic(), self._lifetime.store
        changing_s = 0.0 if store is None else store.medium.busy_s()
        return max([changing_s, *(now - since for since in list(self._pending.values()))])

    def _measured(self, work: Callable[[], T], limit_s: float) -> T:
        """Run work that counts as waiting for the disk; a listing counts only once it is late."""
        token = object()
        allowed_s = max(0.0, limit_s - READ_S)
        self._pending[token] = self._clock.monotonic() + allowed_s
        try:
            return work()
        finally:
            del self._pending[token]


class ServedContent:
    """What may be served of each document: its sound content, after its verdict's remedy."""

    def __init__(
        self,
        lifetime: Lifetime,
        reads: BoundedReads,
        *,
        look: Callable[[DocumentKey], Future[tuple[Outcome, ...]]],
        incidents: Incidents,
    ) -> None:
        """Serve what `reads` reads; `look` recovers or adopts a document in the store's turn."""
        self._lifetime = lifetime
        self._reads = reads
        self._look = look
        self._incidents = incidents

    async def content(self, key: DocumentKey) -> Content | None:
        """Return a document's sound content, after its verdict's remedy; None if it is missing."""
        store = self._lifetime.store or await self._lifetime.open_store()
        slow = self._reads.are_slow() and not in_turn()
        known = await self._reads.bounded(partial(store.peek, key)) if slow else store.peek(key)
        if isinstance(known, Content):
            return known
        if known is Verdict.MISSING:
            return None
        judged, _ = await self._reads.bounded(lambda: store.look(key))
        try:
            return await self.content_of(store, key, judged)
        except (DocumentUnrecoverable, DocumentUnreadable) as error:
            unreadable = isinstance(error, DocumentUnreadable)
            kind = IncidentKind.DISK_ERROR if unreadable else IncidentKind.UNRECOVERABLE
            self._incidents.note(kind, key.name, error.message)
            raise

    async def content_of(
        self, store: DocumentStore, key: DocumentKey, judged: Judged
    ) -> Content | None:
        """Return the content that a verdict allows to be served, after its remedy."""
        match judged.rule.remedy:
            case Remedy.SERVE:
                return judged.content
            case Remedy.DEFAULT:
                return None
            case Remedy.ADOPT:
                if judged.settled:
                    await self._mend(store, key, otherwise=judged.content)
                return judged.content
            case Remedy.LAST_KNOWN:
                return await self._last_known(store, key, judged)
            case Remedy.RECOVER:
                return await self._mend(store, key, otherwise=None)
            case Remedy.REFUSE:
                raise DocumentUnreadable(
                    f"{key.name} cannot be read: {judged.reason}.",
                    document=key.name,
                    reason=judged.reason,
                )

    async def _mend(
        self, store: DocumentStore, key: DocumentKey, *, otherwise: Content | None
    ) -> Content | None:
        """Recover or adopt in the store's turn; if nothing can be written, serve from memory."""
        try:
            return (await wait_for(self._look(key)))[0].content
        except StorageError as error:
            content = otherwise or await self._reads.bounded(lambda: store.medium.rescue(key))
            if content is None:
                raise
            self._incidents.note(
                IncidentKind.SERVED_FROM_MEMORY,
                key.name,
                f"{key.name} is broken on the volume and nothing can be written "
                f"({error.message}); its sound content is served from memory.",
            )
            return content

    async def _last_known(
        self, store: DocumentStore, key: DocumentKey, judged: Judged
    ) -> Content | None:
        content = await self._reads.bounded(lambda: store.medium.rescue(key))
        if content is None:
            raise DocumentUnrecoverable(
                f"{key.name} is being written just now ({judged.reason}), and no earlier content "
                "of it is known.",
                hint="Read it again in a few seconds.",
                document=key.name,
            )
        return content
