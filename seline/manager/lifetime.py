"""One store's lifetime: callers wait until it is open, and a close runs to its end."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from seline.errors import SelineError, StoreClosed
from seline.ports.futures import in_loop, wait_for
from seline.ports.store import DocumentStore


class Lifetime:
    """The store of one manager: opening, open, closed. Any thread."""

    def __init__(
        self,
        prepare: Callable[[DocumentStore], Callable[[], None]],
        *,
        after_close: Callable[[], None],
    ) -> None:
        """Call `prepare` with the open store; what it returns is called before the close."""
        self.store: DocumentStore | None = None
        self.closed = False
        self._prepare = prepare
        self._after_close = after_close
        self._before_close: Callable[[], None] = lambda: None
        self._ready: Future[DocumentStore] = Future()
        self._ready.set_running_or_notify_cancel()

    def opened(self, opening: Future[DocumentStore]) -> None:
        """Prepare the store on the thread that opened it, then let the waiting callers go on."""
        try:
            store = opening.result()
            self._take(store)
        except BaseException as error:  # noqa: BLE001  # raised to every waiting caller
            self._ready.set_exception(error)
        else:
            self._ready.set_result(store)

    @property
    def is_open(self) -> bool:
        """Whether the store is open and is not being closed."""
        return self.store is not None and not self.closed

    def failed(self) -> bool:
        """Whether the store could not be opened, or was closed."""
        failed = self._ready.done() and self._ready.exception() is not None
        return failed or self.closed

    async def open_store(self) -> DocumentStore:
        """Return the store, once it is open. Raises what its opening raised, and StoreClosed."""
        if self.store is None:
            return await wait_for(self._ready)
        if self.closed:
            raise StoreClosed
        return self.store

    async def close(self) -> None:
        """Close, to the end even if the caller is cancelled."""
        if in_loop():
            await wait_for(self.begin_to_close())
        else:
            self.closed = True
            self._close()

    def begin_to_close(self) -> Future[None]:
        """Close on a new thread, whether or not a caller waits for it."""
        self.closed = True
        closed: Future[None] = Future()
        closed.set_running_or_notify_cancel()

        def run() -> None:
            try:
                self._close()
            except BaseException as error:  # noqa: BLE001  # raised to the waiting caller
                closed.set_exception(error)
            else:
                closed.set_result(None)

        threading.Thread(target=run, name="seline-close", daemon=True).start()
        return closed

    def _take(self, store: DocumentStore) -> None:
        try:
            self._before_close = self._prepare(store)
            self.store = store
        except BaseException:
            store.close()  # no caller has it, so no caller could close it
            raise

    def _close(self) -> None:
        try:
            store = self._ready.result()
        except SelineError:
            return
        self._before_close()
        store.close()
        self._after_close()
