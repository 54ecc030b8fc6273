"""A thread for calls that may never return: it delays neither other threads nor a process's end."""

import errno
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from seline.ports.futures import wait_for

T = TypeVar("T")


class OwnThread:
    """Carries out one call after another, on a daemon thread that exists while there are calls."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._since: float | None = None
        """Since when the present call runs, in monotonic seconds; None without a thread."""

    @property
    def busy_s(self) -> float:
        """For how long the present call has run."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    async def run(self, work: Callable[[], T], *, limit_s: float) -> T:
        """Return what a call returns. Raises TimeoutError after `limit_s`; the call continues.

        A call that did not begin by then is not made. Raises OSError if no thread can be started.
        """
        future: Future[T] = Future()
        with self._lock:
            self._calls.append((future, work))
            if self._since is None:
                self._start()
        try:
            return await wait_for(future, timeout_s=limit_s)
        finally:
            future.cancel()  # has an effect only if it did not begin

    def _start(self) -> None:
        """Start the thread for the only call."""
        self._since = time.monotonic()
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError as error:  # at the interpreter's exit, or there are too many
            self._since = None
            self._calls.clear()
            raise OSError(errno.EAGAIN, str(error)) from error

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._since = None
                    return
                future, work = self._calls.popleft()
                self._since = time.monotonic()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  # raised to the caller that waits
                future.set_exception(error)
