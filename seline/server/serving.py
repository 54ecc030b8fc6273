"""Serve a store: start and stop the library, the admin API, the jobs and the alerts in order.

Start: answer probes, lock and open the volume, accept requests. Stop: refuse requests, finish those
that have arrived, close the volume. A kill before the stop's end loses nothing: every confirmed
change is durable (V3).
"""

import asyncio
import contextlib
import logging
import math
import os
import tempfile
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Any, Final

import seline
from seline import library
from seline.access.tokens import Tokens
from seline.alerts.process import AlertProcess
from seline.errors import SelineError
from seline.operations import Operations
from seline.ports.futures import wait_for
from seline.server.assembly import assemble
from seline.server.listening import (
    CONTROL_SOCKET,
    SocketFile,
    check_address,
    hang_up,
    listen,
    listen_on_control_socket,
    listen_on_socket,
)
from seline.server.status import ServerStatus
from seline.settings import Settings, load_settings

LAST_ANSWERS_S: Final = 1.0
"""How long a command that ends waits for clients that are connected to it."""
CLOSE_S: Final = 3.0
"""How long the disk may take to close the volume."""
FIRST_LABEL: Final = "created at the first start"
_log = logging.getLogger("seline.server")


class Serving:
    """A running Seline: store and admin API in this event loop.

    `async with serving(settings) as running:`, or `running = await serving(settings)` and
    `await running.close()`. Probes are answered at once; `await running.acquired()` waits for the
    volume, so that a bot polls only once it holds its data.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        network: bool = True,
        lock_wait_s: float | None = None,
        first_token: bool = False,
    ) -> None:
        """Start nothing yet. Use `serving`.

        Without `network` only the control socket is served. `first_token` allows a first token.
        """
        self.settings = settings
        self.first_secret: str | None = None
        """The token that this start has created; show it once."""
        self.socket_elsewhere = ""
        """The path of the control socket, if it is not in the data directory."""
        self.disk_hangs = False
        """Whether the store could not be closed because the disk hangs."""
        self._network = network
        self._first_token = first_token
        self._lock_wait_s = settings.storage.lock_wait_s if lock_wait_s is None else lock_wait_s
        self._status = ServerStatus(settings.data_dir)
        self._scratch = contextlib.ExitStack()
        self._socket: SocketFile | None = None
        self._listening = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    @property
    def data(self) -> seline.DataManager:
        """The documents."""
        return self._seline.data

    @property
    def operations(self) -> Operations:
        """The operator's verbs."""
        return self._seline.operations

    @property
    def profile(self) -> seline.UserProfile:
        """The profile service."""
        return self._seline.profile

    @property
    def lessons(self) -> seline.LessonsLearned:
        """The lessons service."""
        return self._seline.lessons

    @property
    def tokens(self) -> Tokens:
        """The tokens of the admin API."""
        return self._parts.tokens

    @property
    def alerts(self) -> AlertProcess:
        """The alerts of this process."""
        return self._parts.alerts

    @property
    def address(self) -> str:
        """The URL of the admin API; empty without one."""
        return self._status.address

    @property
    def data_dir(self) -> str:
        """The absolute path of the data directory."""
        return self._status.data_dir

    async def acquired(self) -> None:
        """Wait until the volume is mounted, locked and open. Raises what opening it raises."""
        await asyncio.shield(self._opening)

    async def __aenter__(self) -> "Serving":  # noqa: PYI034  # never subclassed
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, "Serving"]:
        return self.start().__await__()

    # starting

    async def start(self) -> "Serving":
        """Answer probes, and open the volume in the background.

        An address in use raises SettingsError before the volume is touched.
        """
        if self._network:
            await check_address(*self.settings.bind)
        self._seline = library.start(
            self.settings,
            lock_wait_s=self._lock_wait_s,
            mount_wait_s=math.inf if self._network else 0.0,
            serves_commands=True,
            keep_trying=self._network,
            on_wait=self._status.wait_for,
            give_up=lambda: self._status.closing,
        )
        self._parts = assemble(self._seline, self.settings, self._status, network=self._network)
        self._opening = asyncio.ensure_future(self._open())
        try:
            await self._parts.runner.setup()
            if self._network:
                self._parts.alerts.start()
                self._status.address = await listen(self._parts.runner, *self.settings.bind)
            self._listening.set()
        except BaseException:
            await self.close()
            raise
        return self

    async def _open(self) -> None:
        """Open the volume, load the state of an earlier process, then accept requests."""
        parts = self._parts
        try:
            store = await self._seline.store.open()
            parts.audit.open()
            await parts.tokens.load()
            await self._listening.wait()
            self.first_secret = await self._create_first_token()
            await self.operations.load()
            await parts.alerts.load(parts.worker.jobs())
            await parts.worker.start(scheduled=self._network)
            await self._listen_for_commands()
        except SelineError as error:
            self._status.failure = error
            if self._network:
                await parts.alerts.report_failure(error)
            raise
        store.medium.announce(address=self.address or None)
        self._status.failure = None

    async def _create_first_token(self) -> str | None:
        """Create the first token if there is none and only this machine can connect.

        If it cannot be stored, there is no token, and the documents are served.
        """
        tokens = self._parts.tokens
        if not self._first_token or tokens.has_any or self.settings.bind_is_public:
            return None
        try:
            return (await tokens.create(scope="admin", label=FIRST_LABEL))[1]
        except SelineError as error:
            _log.warning("could not create a first token: %s", error.message)
            return None

    async def _listen_for_commands(self) -> None:
        """Listen on the control socket.

        A full volume may have no room for it. A single command then listens in a temporary
        directory, because deleting and pruning must work on a full volume (V9).
        """
        runner = self._parts.runner
        try:
            self._socket = await listen_on_control_socket(runner, self.settings.data_dir)
        except OSError as error:
            if self._network:
                _log.warning("no control socket: %s; use the address and a token", error)
                return
            scratch = self._scratch.enter_context(tempfile.TemporaryDirectory(prefix="seline-"))
            self.socket_elsewhere = os.path.join(scratch, CONTROL_SOCKET)
            self._socket = await listen_on_socket(runner, self.socket_elsewhere)

    # stopping

    async def close(self) -> None:
        """Stop in order; idempotent.

        It runs to its end even if the caller is cancelled; another call waits for it.
        """
        self._status.closing = True
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        """Carry out every step, the last one pushed first, also after a step that fails."""
        async with contextlib.AsyncExitStack() as steps:
            steps.callback(self._scratch.close)
            steps.callback(self._parts.audit.close)
            steps.push_async_callback(self._close_store)
            steps.push_async_callback(self._parts.outbound.close)
            steps.push_async_callback(self._parts.alerts.close)
            steps.push_async_callback(self._finish)
            steps.push_async_callback(self._end_opening)

    async def _end_opening(self) -> None:
        """Cancel the opening; `_close_store` closes a volume that is still being opened."""
        self._opening.cancel()
        await asyncio.wait({self._opening})
        with contextlib.suppress(SelineError, asyncio.CancelledError):
            self._opening.result()

    async def _finish(self) -> None:
        """Finish the requests and the jobs."""
        answer_s = 0.0 if self._network else LAST_ANSWERS_S
        hanging_up = hang_up(self._parts.runner, socket=self._socket, answer_s=answer_s)
        await asyncio.gather(hanging_up, self._parts.worker.stop())

    async def _close_store(self) -> None:
        try:
            await wait_for(self._seline.begin_to_close(), timeout_s=CLOSE_S)
        except TimeoutError:
            self.disk_hangs = True
            _log.error("the disk does not answer: the store is not closed; nothing is lost")


def serving(settings: Settings | None = None) -> Serving:
    """Run store and admin API inside the running event loop."""
    return Serving(settings or load_settings())


@contextlib.asynccontextmanager
async def alone(settings: Settings, *, lock_wait_s: float = 0.0) -> AsyncGenerator[Serving]:
    """Open the volume for one command, and serve it on the control socket only."""
    async with Serving(settings, network=False, lock_wait_s=lock_wait_s) as running:
        await running.acquired()
        yield running
