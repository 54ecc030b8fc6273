"""The process: the library with its admin API, started and stopped in order.

Start: serve the probes, hold the volume, open, let people in. Stop: not ready, finish the
requests, let go. Nothing depends on the stop being reached: what was answered is durable (V3).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from aiohttp import web

import seline
from seline import library
from seline.access.audit import AuditLog
from seline.access.tokens import Tokens
from seline.alerts.process import AlertProcess
from seline.clock import SystemClock, instant_text
from seline.domain.document import Json
from seline.errors import SelineError, StoreClosed
from seline.http.app import build_app
from seline.http.context import AppContext
from seline.operations import Operations
from seline.outbound.alert_sinks import AlertSource, build_sinks
from seline.outbound.heartbeat import Heartbeat
from seline.outbound.http_client import open_session
from seline.ports.futures import wait_for
from seline.server.listening import (
    CONTROL_SOCKET,
    SocketFile,
    check_address,
    hang_up,
    listen,
    listen_on_control_socket,
    listen_on_socket,
)
from seline.settings import Settings, load_settings
from seline_workers import Worker
from seline_workers.runs import ignore

SHUTDOWN_S: Final = 8.0
LAST_ANSWERS_S: Final = 1.0
"""How long a command that is over waits for those that are asking it, to send them on."""
CLOSE_S: Final = 3.0
"""How long a disk may take to let go; nothing that was answered depends on it."""
LINGERING_S: Final = 1.0
"""How long a body that was refused is still read, so that its sender sees the answer."""
FIRST_LABEL: Final = "made at the first start"
_log = logging.getLogger("seline.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a person should see when the server is ready. `secret` is shown this once."""

    address: str
    data_dir: str
    secret: str | None
    has_token: bool


class Serving:
    """A running Seline: store and admin API in this event loop.

    `async with serving(settings) as running:`, or `running = await serving(settings)` and
    `await running.close()`. It serves probes at once; `await running.acquired()` waits for the
    volume, so that a bot begins polling only once it holds its data.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        network: bool = True,
        lock_wait_s: float | None = None,
        first_token: bool = False,
    ) -> None:
        """Remember how to serve; nothing is started yet. Use `serving`."""
        self.settings = settings
        self._network = network
        self._first_token = first_token
        self._lock_wait_s = settings.storage.lock_wait_s if lock_wait_s is None else lock_wait_s
        self._data_dir = os.path.abspath(settings.data_dir)
        self._closing = False
        self._stopping: asyncio.Task[None] | None = None
        self._waiting: SelineError = StoreClosed("The store is being opened.")
        self._opened = False
        self._since = SystemClock().now()
        self._started_s = time.monotonic()
        self.address = ""
        self.socket_elsewhere = ""
        """Where the control socket is, if not beside the documents."""
        self._scratch = contextlib.ExitStack()
        self._socket: SocketFile | None = None
        self.disk_hangs = False
        """Whether the disk hung so that the store could not be closed."""
        self.started: Started | None = None

    async def start(self) -> Serving:
        """Serve the probes and begin to open the volume.

        Where the address cannot be had, nothing of the volume is touched. Raises SettingsError.
        """
        if self._network:
            await check_address(*self.settings.bind)
        self._seline = library.start(
            self.settings,
            lock_wait_s=self._lock_wait_s,
            mount_wait_s=math.inf if self._network else 0.0,
            serves_commands=True,
            keep_trying=self._network,
            on_wait=self._on_wait,
            give_up=lambda: self._closing,
        )
        self._assemble()
        self._listening = asyncio.Event()
        self._opening = asyncio.ensure_future(self._open())
        try:
            await self._runner.setup()
            if self._network:
                self._alerts.start()
                self.address = await listen(self._runner, *self.settings.bind)
            self._listening.set()
        except BaseException:
            await self.close()
            raise
        return self

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

    async def acquired(self) -> None:
        """Wait until the volume is mounted, held and open. Raises what its opening raised."""
        await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Stop in order; idempotent.

        It goes on where the caller is cancelled, and another call waits for it.
        """
        self._closing = True
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    async def __aenter__(self) -> Serving:  # noqa: PYI034  # never subclassed
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Serving]:
        return self.start().__await__()

    # stopping

    async def _stop(self) -> None:
        """Take every step, whatever became of the one before; the last one noted is the first."""
        async with contextlib.AsyncExitStack() as steps:
            steps.callback(self._scratch.close)
            steps.callback(self._audit.close)
            steps.push_async_callback(self._let_go)
            steps.push_async_callback(self._outbound.close)
            steps.push_async_callback(self._alerts.close)
            steps.push_async_callback(self._finish)
            steps.push_async_callback(self._end_opening)

    async def _end_opening(self) -> None:
        """Begin nothing more: what is opened from now on is only closed again."""
        self._opening.cancel()
        await asyncio.wait({self._opening})
        with contextlib.suppress(SelineError, asyncio.CancelledError):
            self._opening.result()

    async def _finish(self) -> None:
        answer_s = 0.0 if self._network else LAST_ANSWERS_S
        hanging_up = hang_up(self._runner, socket=self._socket, answer_s=answer_s)
        await asyncio.gather(hanging_up, self._worker.stop())

    async def _let_go(self) -> None:
        try:
            await wait_for(self._seline.begin_to_close(), timeout_s=CLOSE_S)
        except TimeoutError:
            self.disk_hangs = True
            _log.error("the disk does not answer: the store is left as it is, nothing is lost")

    # parts

    def _assemble(self) -> None:
        """Make what works over the documents, and the application that serves it."""
        self.tokens = Tokens(self._seline.store, admin_token=self.settings.server.admin_token)
        self._audit = AuditLog(self.settings.data_dir)
        self._alerts = self._make_alerts()
        self._worker = Worker(
            self.operations,
            self.settings.jobs,
            on_run_ended=self._alerts.report_run if self._network else ignore,
            on_overdue=self._alerts.report_overdue,
        )
        self._runner = web.AppRunner(
            build_app(self._doors()),
            handle_signals=False,
            shutdown_timeout=SHUTDOWN_S,
            lingering_time=LINGERING_S,
            access_log=None,
            auto_decompress=False,  # it would be done before the token is asked for
        )

    def _make_alerts(self) -> AlertProcess:
        alerting = self.settings.alerts
        self._outbound = open_session()
        source = AlertSource(
            service=self.settings.service,
            data_dir=self.settings.data_dir,
            language=alerting.language,
        )
        url = alerting.heartbeat_url
        return AlertProcess(
            self.operations,
            build_sinks(alerting.sinks, self._outbound, source),
            unavailable=self._unopened,
            heartbeat=Heartbeat(session=self._outbound, url=url).send if url else None,
            language=alerting.language,
            renotify_h=alerting.renotify_h,
        )

    def _doors(self) -> AppContext:
        storage = self.settings.storage
        return AppContext(
            data=self.data,
            tokens=self.tokens,
            trouble=self._trouble,
            about=self._about,
            audit=self._audit.append,
            jobs=self._worker,
            alerts=self._alerts.log,
            operations=self.operations,
            loopback_only=not self.settings.bind_is_public,
            trust_proxy=self.settings.server.trust_proxy,
            metrics_open=self.settings.server.metrics_open,
            body_bytes_max=storage.document_bytes_max + (1 << 20),
        )

    def _trouble(self) -> SelineError | None:
        if self._closing:
            return StoreClosed("The server is stopping.", hint="Ask again in a moment.")
        return self._unopened()

    def _unopened(self) -> SelineError | None:
        """Say why the store is not open yet; it is still looked at while the server stops."""
        return None if self._opened else self._waiting

    def _about(self) -> Mapping[str, Json]:
        return {
            "version": seline.__version__,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": instant_text(self._since),
            "uptime_s": round(time.monotonic() - self._started_s),
            "address": self.address or None,
            "data_dir": self._data_dir,
        }

    def _on_wait(self, missing: SelineError) -> None:
        self._waiting = missing
        _log.warning("waiting for the volume: %s %s", missing.message, missing.hint)

    async def _open(self) -> None:
        try:
            store = await self._seline.store.open()
            self._audit.open()
            await self.tokens.load()
            await self._listening.wait()
            secret = await self._first_secret()
            await self.operations.load()
            await self._alerts.load(self._worker.jobs())
            await self._worker.start(scheduled=self._network)
            await self._listen_to_commands()
        except SelineError as error:
            self._waiting = error
            if self._network:
                await self._alerts.report_failure(error)
            raise
        store.announce(address=self.address or None)
        self.started = Started(
            address=self.address,
            data_dir=self._data_dir,
            secret=secret,
            has_token=self.tokens.has_any,
        )
        self._opened = True

    async def _listen_to_commands(self) -> None:
        """Listen beside the documents; for one command, where a full volume has no room, elsewhere.

        Whoever wants to make room must get in (V9).
        """
        try:
            self._socket = await listen_on_control_socket(self._runner, self.settings.data_dir)
        except OSError as refusal:
            if self._network:
                _log.warning("no control socket: %s; use the address and a token", refusal)
                return
            scratch = self._scratch.enter_context(tempfile.TemporaryDirectory(prefix="seline-"))
            self.socket_elsewhere = os.path.join(scratch, CONTROL_SOCKET)
            self._socket = await listen_on_socket(self._runner, self.socket_elsewhere)

    async def _first_secret(self) -> str | None:
        """Make the first token, where nobody could come in and the server is this machine's own.

        Where it cannot be kept, nobody comes in; the documents are served all the same.
        """
        if not self._first_token or self.tokens.has_any or self.settings.bind_is_public:
            return None
        try:
            return (await self.tokens.create(scope="admin", label=FIRST_LABEL)).secret
        except SelineError as error:
            _log.warning("no first token was made: %s", error.message)
            return None


def serving(settings: Settings | None = None) -> Serving:
    """Run store and admin API inside the running event loop."""
    return Serving(settings or load_settings())


@contextlib.asynccontextmanager
async def alone(settings: Settings, *, lock_wait_s: float = 0.0) -> AsyncGenerator[Serving]:
    """Open the volume for one command, and serve it on the control socket alone."""
    async with Serving(settings, network=False, lock_wait_s=lock_wait_s) as running:
        await running.acquired()
        yield running
