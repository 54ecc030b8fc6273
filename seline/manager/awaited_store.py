"""A store that callers wait for: until it is open, and for each read a limited time."""

import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from datetime import timedelta
from functools import partial
from typing import Final, NoReturn, TypeVar

from seline.clock import Clock
from seline.domain.document import Json
from seline.domain.incident import Incident, IncidentKind, no_incidents, oldest_first
from seline.errors import ForkedStore, SelineError, StoreClosed, VolumeBusy
from seline.ports.futures import Promise, in_loop, in_turn, refuse_in_turn, run_once, wait_for
from seline.ports.medium import SLOW_S
from seline.ports.store import Change, DocumentStore, Outcome
from seline.settings import Settings

READ_S: Final = 10.0
"""Seconds after which a caller no longer waits for a read; the disk may never answer."""
LISTING_S: Final = 60.0
"""The same for a read of all documents or backups."""
READER_THREADS: Final = 3
REPEATED_AFTER: Final = timedelta(days=1)
_log = logging.getLogger("seline.manager")
T = TypeVar("T")


class NeverCopied:
    """Refuses to be pickled or copied, with the way to do without."""

    def __reduce__(self) -> NoReturn:
        """Raise TypeError: locks and threads belong to an open store."""
        raise TypeError(
            "An open Seline cannot be pickled or copied. Keep it outside what your framework "
            "stores, such as `bot_data`; `get_seline()` and `get_data_manager()` return it."
        )


class AwaitedStore(NeverCopied):
    """One store from its opening to its close, with its reads and its incidents. Any thread."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        """Wait for nothing yet; a subclass passes the opening's future to `_open`."""
        self.settings = settings
        self.clock = clock or Clock()
        self.limits = settings.storage
        """The limits of a document's size and depth."""
        self.opened: DocumentStore | None = None
        """The store, None while it is not open yet."""
        self.is_closing = False
        """Whether the store is closed or being closed."""
        self.before_close: Callable[[], None] = lambda: None
        """Called once the store is closing: it refuses calls, and carries out queued changes."""
        self.reopen: Callable[[Future[DocumentStore]], None] | None = None
        """Opens the store once more, if a call finds that it could not be opened."""
        self._pid = os.getpid()
        self._attempt = threading.Lock()
        self._ready = Promise[DocumentStore]()
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="seline-reader")
        self._bulk = ThreadPoolExecutor(1, thread_name_prefix="seline-bulk")
        self._reads: dict[object, float] = {}
        """Since when each read in progress waits for the disk, in monotonic seconds."""
        self._incidents = no_incidents()

    # opening and closing

    async def open(self) -> DocumentStore:
        """Return the store, once it is open. Raises what its opening raised, and StoreClosed.

        Raises ForkedStore in a child: the threads that would answer it do not exist there.
        """
        if self._pid != os.getpid():
            raise ForkedStore
        if self.opened is None:
            try:
                return await wait_for(self._opening())
            except SelineError as error:  # every caller gets its own, without the threads' frames
                raise copy(error) from None
        if self.is_closing:
            raise StoreClosed
        return self.opened

    def ready(self) -> DocumentStore | None:
        """Return the store if it is open, else None. In a forked child its calls are refused."""
        return None if self.is_closing else self.opened

    def _opening(self) -> Future[DocumentStore]:
        """Return the attempt to open the store: a new one if it may be repeated after a failure."""
        with self._attempt:
            failed = self._ready
            if self.reopen is not None and self.failed_to_open and not self.is_closing:
                self._ready = Promise[DocumentStore]()
                opening: Future[DocumentStore] = Future()
                opening.add_done_callback(self._open)
                try:
                    self.reopen(opening)
                except BaseException:  # the interpreter shuts down and starts no more threads
                    self._ready = failed
                    raise
            return self._ready

    @property
    def failed_to_open(self) -> bool:
        """Whether the store could not be opened, or was closed."""
        failed = self._ready.done() and self._ready.exception() is not None
        return failed or self.is_closing

    async def close(self) -> None:
        """Carry out what is queued and close the store; idempotent.

        It runs to its end even if the caller is cancelled; another call waits for it.
        """
        if in_loop():
            await wait_for(self.begin_to_close())
        else:
            self.is_closing = True
            self._close()

    def begin_to_close(self) -> Future[None]:
        """Close on a new thread, or here if none starts. It also closes a store that is opening."""
        self.is_closing = True
        closed = Promise[None]()
        run = run_once(self._close, closed)
        try:
            threading.Thread(target=run, name="seline-close", daemon=True).start()
        except RuntimeError:  # no other call would try again: the volume would stay locked
            run()
        return closed

    def _open(self, opening: Future[DocumentStore]) -> None:
        """Prepare the store on the thread that opened it, then let the waiting callers go on."""
        try:
            store = opening.result()
            try:
                self._prepare(store)
            except BaseException:
                store.close()  # no caller has it, so no caller could close it
                raise
            self.opened = store
        except BaseException as error:  # noqa: BLE001  # raised to every waiting caller
            self._ready.set_exception(error)
        else:
            self._ready.set_result(store)

    def _prepare(self, store: DocumentStore) -> None:
        """Build what works over the open store."""

    def _before_close(self) -> None:
        """Do what needs the store a last time."""

    def _close(self) -> None:
        if self._pid != os.getpid():  # a forked child has neither the threads nor the volume
            return
        with self._attempt:  # no attempt begins any more
            ready = self._ready
        try:
            store = ready.result()
        except SelineError:
            return
        self.before_close()
        self._before_close()
        store.close()
        self._threads.shutdown()
        self._bulk.shutdown()

    # reading

    async def reading(self, work: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Run blocking reading work on the reader threads, for `limit_s` (READ_S) at most.

        Raises VolumeBusy if it takes longer. Work without a limit (`math.inf`) takes long: it runs
        one after another on a thread of its own, so that no read waits for it. Without an event
        loop the work runs in this thread, unless the disk is known to be slow.
        """
        limit_s = READ_S if limit_s is None else limit_s
        work = partial(self._measured, work, limit_s)
        if in_turn() or not (in_loop() or self.is_slow()):
            return work()
        await self.open()
        future: Future[T] = Future()
        run = run_once(work, future)
        try:
            (self._bulk if limit_s == math.inf else self._threads).submit(run)
        except RuntimeError as error:
            if self.is_closing and future.cancel():
                raise StoreClosed from error
            run()  # no thread starts: at the interpreter's exit, or there are too many
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
        return await self.reading(work, limit_s=LISTING_S)

    def is_slow(self) -> bool:
        """Whether an answer of the disk is overdue."""
        return self.busy_s() > SLOW_S

    def busy_s(self) -> float:
        """Return for how many seconds a change or a read has waited for the disk."""
        changing_s = 0.0 if self.opened is None else self.opened.medium.busy_s()
        if not self._reads:
            return changing_s
        now = self.clock.monotonic()
        return max([changing_s, *(now - since for since in list(self._reads.values()))])

    def _measured(self, work: Callable[[], T], limit_s: float) -> T:
        """Run work that counts as waiting for the disk; a listing counts only once it is late."""
        token = object()
        allowed_s = max(0.0, limit_s - READ_S)
        self._reads[token] = self.clock.monotonic() + allowed_s
        try:
            return work()
        finally:
            del self._reads[token]

    # changing

    def submit(self, made: Sequence[Change]) -> Future[tuple[Outcome, ...]]:
        """Queue changes that take effect all or none. Raises NestedEdit from inside a turn."""
        refuse_in_turn()
        assert self.opened is not None
        return self.opened.submit(tuple(made))

    # incidents

    def note(self, kind: IncidentKind, document: str, summary: str, **details: Json) -> None:
        """Report an incident, at most once a day per kind and document: log it and keep it."""
        now = self.clock.now()
        if any(
            noted.document == document and now - noted.at < REPEATED_AFTER
            for noted in tuple(self._incidents[kind])
        ):
            return
        _log.warning("%s", summary)
        self._incidents[kind].append(
            Incident(kind=kind, document=document, at=now, summary=summary, details=details)
        )

    def incidents(self) -> list[Incident]:
        """Return the incidents of the store and of the manager, each oldest first."""
        stored = () if self.opened is None else self.opened.medium.incidents()
        return [*stored, *oldest_first(self._incidents)]
