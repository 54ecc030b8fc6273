"""Sound content is served, broken content is mended first, and no disk is waited for forever (V4).

`SoundContent` does what a document's verdict asks for; `Reads` does everything that may block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, TypeVar, cast

from seline.clock import Clock
from seline.domain.document import Content, DocumentKey
from seline.domain.verdict import Judged, Remedy, Verdict
from seline.errors import (
    DocumentUnreadable,
    DocumentUnrecoverable,
    StorageError,
    StoreClosed,
    VolumeBusy,
)
from seline.manager.lifetime import Lifetime
from seline.ports.futures import in_loop, in_turn, wait_for
from seline.ports.store import SLOW_S, DocumentStore, Outcome

READ_S: Final = 10.0
"""How long a read may take before nobody waits for it any more; the disk may never answer."""
LISTING_S: Final = 60.0
"""The same for what may read everything there is."""
T = TypeVar("T")


class ServedContent:
    """What may be served of each document: its sound content, after its verdict's remedy."""

    def __init__(
        self,
        lifetime: Lifetime,
        reads: BoundedReads,
        *,
        look: Callable[[DocumentKey], Future[tuple[Outcome, ...]]],
        note: Callable[[str, str, str], None],
    ) -> None:
        """`look` has a document mended in the store's turn; `note` tells what a person should."""
        self._lifetime = lifetime
        self._reads = reads
        self._look = look
        self._note = note

    async def content(self, key: DocumentKey) -> Content | None:
        """Return a document's sound content, doing what its verdict asks for (V4)."""
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
            kind = "disk_error" if isinstance(error, DocumentUnreadable) else "unrecoverable"
            self._note(kind, key.name, error.message)
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
        """Recover or adopt in the store's turn; where nothing can be written, serve from memory."""
        try:
            return (await wait_for(self._look(key)))[0].content
        except StorageError as error:
            content = otherwise or await self._reads.bounded(lambda: store.rescue(key))
            if content is None:
                raise
            self._note(
                "served_from_memory",
                key.name,
                f"{key.name} is broken on the volume and nothing can be written "
                f"({error.message}); its sound content is served from memory.",
            )
            return content

    async def _last_known(
        self, store: DocumentStore, key: DocumentKey, judged: Judged
    ) -> Content | None:
        content = await self._reads.bounded(lambda: store.rescue(key))
        if content is None:
            raise DocumentUnrecoverable(
                f"{key.name} is being written just now ({judged.reason}), and no earlier content "
                "of it is known.",
                hint="Read it again in a few seconds.",
                document=key.name,
            )
        return content


class BoundedReads:
    """The reads under way: each has an end for whoever waits, and how long it takes is known."""

    def __init__(self, clock: Clock, lifetime: Lifetime) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._owed: dict[object, float] = {}
        """Since when each read under way is owed an answer."""

    async def bounded(self, work: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Do blocking work on the reader threads, for `limit_s` at most (`DataManager.reading`)."""
        limit_s = READ_S if limit_s is None else limit_s
        work = partial(self._watched, work, limit_s)
        if in_turn() or not (in_loop() or self.are_slow()):
            return work()
        store = await self._lifetime.open_store()
        try:
            future = cast("Future[T]", store.later(work))
        except StoreClosed:
            if self._lifetime.closed:
                raise
            return work()  # the interpreter goes down, and starts no thread any more
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
        """Do the same for what may read everything there is."""
        return await self.bounded(work, limit_s=LISTING_S)

    def are_slow(self) -> bool:
        """Whether the disk owes an answer for longer than a disk that is well would."""
        return self.busy_s() > SLOW_S

    def busy_s(self) -> float:
        """Return for how many seconds the disk has owed an answer, to a change or a read."""
        now, store = self._clock.monotonic(), self._lifetime.store
        changing_s = 0.0 if store is None else store.busy_s()
        return max([changing_s, *(now - since for since in list(self._owed.values()))])

    def _watched(self, work: Callable[[], T], limit_s: float) -> T:
        """Do reading work, which the disk owes an answer to meanwhile; a listing's counts later."""
        token = object()
        allowed_s = max(0.0, limit_s - READ_S)
        self._owed[token] = self._clock.monotonic() + allowed_s
        try:
            return work()
        finally:
            del self._owed[token]
