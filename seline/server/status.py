"""What the process reports about itself: whether it serves, why not, its address, since when."""

import logging
import os
import socket
import time
from collections.abc import Mapping

import seline
from seline.clock import Clock, instant_text
from seline.domain.document import Json
from seline.errors import SelineError, StoreClosed

_log = logging.getLogger("seline.server")


class ServerStatus:
    """The state of one process. `failure` is why the store is not open, None once it is."""

    def __init__(self, data_dir: str) -> None:
        """Start with a store that is being opened."""
        self.data_dir = os.path.abspath(data_dir)
        self.address = ""
        self.closing = False
        self.failure: SelineError | None = StoreClosed("The store is being opened.")
        self._since = Clock().now()
        self._started_s = time.monotonic()

    def wait_for(self, failure: SelineError) -> None:
        """Record and log what the opening of the volume waits for."""
        self.failure = failure
        _log.warning("waiting for the volume: %s %s", failure.message, failure.hint)

    def unavailable(self) -> SelineError | None:
        """Return why a request cannot be served; None if it can be."""
        if self.closing:
            return StoreClosed("The server is stopping.", hint="Try again in a moment.")
        return self.failure

    def about(self) -> Mapping[str, Json]:
        """Return the body of `GET /status`."""
        return {
            "version": seline.__version__,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": instant_text(self._since),
            "uptime_s": round(time.monotonic() - self._started_s),
            "address": self.address or None,
            "data_dir": self.data_dir,
        }
