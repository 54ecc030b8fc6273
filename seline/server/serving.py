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
import socket
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from copy import copy
from typing import Any, Final

import seline
from seline import library
from seline.access.audit import AuditLog
from seline.access.sessions import OneTimeLink, Sessions
from seline.access.tokens import Tokens
from seline.alerts.process import AlertProcess
from seline.clock import Clock, instant_text
from seline.commands import CONTROL_SOCKET, RemoveSocket, addressable, listen_at, listen_in
from seline.domain.document import Json
from seline.errors import SelineError, SettingsError, StoreClosed, VolumeLocked
from seline.http.app import build_app
from seline.http.connections import ApiRunner
from seline.http.context import AppContext
from seline.manager.awaited_store import NeverCopied
from seline.outbound.alert_sinks import build_sinks
from seline.outbound.heartbeat import send_heartbeat
from seline.outbound.http_client import open_session
from seline.ports.futures import wait_for
from seline.program import typed
from seline.server import listening
from seline.settings import Settings
from seline.storage.volume.lock import find_holder
from seline_workers import Worker
from seline_workers.runs import ignore

LAST_ANSWERS_S: Final = 1.0
"""How long a command that ends waits for clients that are connected to it."""
CLOSE_S: Final = 3.0
"""How long the disk may take to close the volume."""
FIRST_LABEL: Final = "created at the first start"
_log = logging.getLogger("seline.server")


class Serving(NeverCopied):
    """A running Seline: store and admin API in this event loop.

    `data` has the documents, `operations` the operator's verbs, `profile` and `lessons` the
    services for a bot, `tokens` and `alerts` those of this process.

    `async with serving(settings) as running:`, or `running = await serving(settings)` and
    `await running.close()`. Probes are answered at once; `await running.acquired()` waits for the
    volume, so that a bot polls only once it holds its data.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        network: bool = True,
        http: bool = True,
        lock_wait_s: float | None = None,
        is_process: bool = False,
        opened: library.Seline | None = None,
        control: socket.socket | None = None,
    ) -> None:
        """Start nothing yet. Use `serving`.

        Without `network` only the control socket is served, and no job runs by itself; without
        `http` jobs and alerts run. `is_process`: serving is what the process is for, so it makes
        a first token, and an address in use raises SettingsError.
        `opened` is a Seline that its owner closes, `control` the socket on which it listens;
        that owner removes the socket's file.
        """
        self.settings = settings
        self.first_secret: str | None = None
        """The token that this start has created; show it once."""
        self.first_link = ""
        """The address that signs in once, if nobody can sign in yet; show it once."""
        self.socket_elsewhere = ""
        """The path of the control socket, if it is not in the data directory."""
        self.disk_hangs = False
        """Whether the store could not be closed because the disk hangs."""
        self._network = network
        self._http = network and http
        self._is_process = is_process
        self._opened, self._control = opened, control
        self._lock_wait_s = settings.storage.lock_wait_s if lock_wait_s is None else lock_wait_s
        self.data_dir = os.path.abspath(settings.data_dir)
        self.address = ""
        """The URL of the admin API; empty without one."""
        self.listens_on = ""
        """The same, with every other address that it is reached at."""
        self._failure: SelineError | None = StoreClosed("The store is being opened.")
        """Why the store is not open, None once it is."""
        self._is_alone = not network and opened is None
        self._pending: SelineError | None = None
        """Why one command writes nothing: the volume is empty, and waits for a copy."""
        self._closing = False
        self._since = Clock().now()
        """Since when the process holds the data directory, once it does."""
        self._scratch = contextlib.ExitStack()
        self._remove_socket: RemoveSocket | None = None
        self._listening = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def acquired(self) -> None:
        """Wait until the volume is mounted, locked and open. Raises what opening it raises."""
        try:
            await asyncio.shield(self._opening)
        except SelineError as error:  # the stop raises it, too, and would replace its frames
            raise copy(error) from None

    async def __aenter__(self) -> "Serving":  # noqa: PYI034  # never subclassed
        """Answer probes, and open the volume in the background."""
        host, port = self.settings.bind
        if self._http:
            host = await self._check_address(host, port)
        self._seline = self._opened or library.start(
            self.settings,
            lock_wait_s=self._lock_wait_s,
            mount_wait_s=math.inf if self._network else 0.0,
            serves_commands=False,
            keep_trying=self._network,
            come_back=library.copies_of(self.settings) if self._network else None,
            on_wait=self._wait_for,
            give_up=lambda: self._closing,
        )
        self.data, self.operations = self._seline.data, self._seline
        self.operations.is_held = self._network or self._opened is not None
        self.profile, self.lessons = self._seline.profile, self._seline.lessons
        self._assemble()
        self._opening = asyncio.ensure_future(self._open())
        try:
            await self._runner.setup()
            if self._network:
                self.alerts.start()
                self.operations.listed_alerts = self.alerts.log.listing
            if self._http:
                self.address = await listening.listen(self._runner, host, port)
                self.listens_on = f"{self.address}{listening.also_listened_on(self._runner)}"
            self._listening.set()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, "Serving"]:
        return self.__aenter__().__await__()

    # starting

    async def _check_address(self, host: str | None, port: int) -> str | None:
        """Return the host to listen on. Raises SettingsError.

        In a bot an address in use is logged, because the documents need no address.
        """
        try:
            return await listening.check_address(host, port)
        except SettingsError as error:
            if self._is_process:
                raise _served_already(self.data_dir) or error from None
            self._http = False
            _log.error(
                "%s The API is not served there; commands on this machine, the jobs and the "
                "alerts work. Next: %s",
                error.message,
                error.hint,
            )
            return host

    def _assemble(self) -> None:
        """Build the parts over a store that may not be open yet.

        Without `network` no job raises an alert: the process serves one command.
        """
        settings = self.settings
        self.tokens = Tokens(self._seline.store, admin_token=settings.server.admin_token)
        self.sessions = Sessions(self._seline.store, self.tokens)
        self._once = OneTimeLink(self._seline.store.clock)
        self._audit = AuditLog(settings.data_dir)
        self._outbound = open_session()
        self.alerts = self._alert_process()
        self._worker = Worker(
            self.operations,
            settings.jobs,
            on_run_ended=self.alerts.report_run if self._network else ignore,
            on_overdue=self.alerts.report_overdue,
        )
        app = build_app(
            AppContext(
                settings=settings,
                data=self.data,
                operations=self.operations,
                tokens=self.tokens,
                jobs=self._worker,
                alerts=self.alerts.log,
                audit=self._audit,
                unavailable=self._unavailable,
                about=self._about,
            )
        )
        if self._http and settings.server.page:
            from seline.page.assembly import add_page

            add_page(app, self.sessions, self._once)
        self._runner = ApiRunner(
            app,
            handle_signals=False,
            shutdown_timeout=listening.FINISH_S / 2,  # aiohttp waits it twice
        )

    def _alert_process(self) -> AlertProcess:
        outbound, url = self._outbound, self.settings.alerts.heartbeat_url
        return AlertProcess(
            self.operations,
            build_sinks(self.settings, outbound),
            unavailable=lambda: self._failure,  # a closing store is still evaluated
            heartbeat=(lambda: send_heartbeat(outbound, url)) if url else None,
        )

    async def _open(self) -> None:
        """Open the volume, load the state of an earlier process, then accept requests."""
        try:
            store = await self._seline.store.open()
            self._audit.open()
            await self.tokens.load()
            await self.sessions.load()
            if self._is_alone:
                self._pending = await library.pending_restore(self._seline.store, self.settings)
            await self._listening.wait()
            self.first_link = self._make_first_link()
            self.first_secret = await self._create_first_token()
            await self.operations.load()
            await self.alerts.load(self._worker.jobs())
            await self._worker.start(scheduled=self._network)
            await self._listen_for_commands()
        except SelineError as error:
            self._failure = error
            if self._network:
                await self.alerts.report_failure(error)
            raise
        self._since = store.medium.held_since
        store.medium.announce(address=self.address or None)
        self._failure = self._pending
        if self._network:
            self._log_ready()
            self._looking = asyncio.create_task(self._look_at_documents())

    async def _look_at_documents(self) -> None:
        """List the documents, which recovers those that broke while nothing ran."""
        with contextlib.suppress(SelineError):  # the integrity job meets them, too
            await self.data.documents()

    async def _create_first_token(self) -> str | None:
        """Create the first token if there is none and only this machine can connect.

        If it cannot be stored, there is no token, and the documents are served.
        """
        if not self._is_process or self.tokens.has_any or self.settings.bind_is_public:
            return None
        try:
            return (await self.tokens.create(scope="admin", label=FIRST_LABEL))[1]
        except SelineError as error:
            _log.warning("could not create a first token: %s", error.message)
            return None

    def _make_first_link(self) -> str:
        """Return the address that signs in once, if no token and no session of the page exists."""
        has_page = self._is_process and self._http and self.settings.server.page
        if not has_page or self.tokens.has_any or self.sessions.has_any:
            return ""
        return f"{self.address}/sign-in?once={self._once.make()}"

    async def _listen_for_commands(self) -> None:
        """Listen on the control socket.

        A full volume may have no room for it. A single command then listens in a temporary
        directory, because deleting and pruning must work on a full volume (V9).
        """
        control = self._control
        if control is None:
            try:
                control, self._remove_socket = listen_in(self.settings.data_dir)
            except OSError as error:
                if self._network:
                    _log.warning("no control socket: %s; use the address and a token", error)
                    return
                scratch = tempfile.TemporaryDirectory(prefix="seline-")
                place = self._scratch.enter_context(scratch)
                file = os.path.join(place, CONTROL_SOCKET)
                self.socket_elsewhere = self._scratch.enter_context(addressable(file))
                control, self._remove_socket = listen_at(self.socket_elsewhere)
        await listening.answer_on(self._runner, control)

    # what the process reports about itself

    def _log_ready(self) -> None:
        if not self._http:
            _log.info("ready without HTTP, data in %s", self.data_dir)
            return
        if not self.tokens.has_any and self.settings.bind_is_public:
            _log.warning(
                "there is no token, so requests over the network are refused: set "
                "SELINE_ADMIN_TOKEN (at least 16 characters), or run `seline token create` on this "
                "machine"
            )
        more = "" if self.first_secret else typed("; `seline token create` makes a token")
        _log.info("ready on %s, data in %s%s", self.listens_on, self.data_dir, more)

    def _wait_for(self, failure: SelineError) -> None:
        """Record and log what the opening of the volume waits for."""
        self._failure = failure
        library.log_wait(failure)

    def _unavailable(self) -> SelineError | None:
        """Return why a request cannot be served; None if it can be."""
        if self._closing:
            return StoreClosed("The server is stopping.", hint="Try again in a moment.")
        return self._failure

    def _about(self) -> dict[str, Json]:
        """Return the body of `GET /status`."""
        return {
            "version": seline.__version__,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": instant_text(self._since),
            "uptime_s": max(0, round((Clock().now() - self._since).total_seconds())),
            "address": self.address or None,
            "data_dir": self.data_dir,
        }

    # stopping

    async def close(self) -> None:
        """Stop in order; idempotent.

        It runs to its end even if the caller is cancelled; another call waits for it.
        """
        self._closing = True
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        """Carry out every step, the last one pushed first, also after a step that fails."""
        async with contextlib.AsyncExitStack() as steps:
            steps.callback(self._scratch.close)
            steps.callback(self._audit.close)
            steps.push_async_callback(self._close_store)
            steps.push_async_callback(self._outbound.close)
            steps.push_async_callback(self.operations.mirrors.close)
            steps.push_async_callback(self.alerts.close)
            steps.push_async_callback(self.tokens.close)
            steps.push_async_callback(self._finish)
            steps.push_async_callback(self._end_opening)

    async def _end_opening(self) -> None:
        """Cancel the opening; `_close_store` closes a volume that is still being opened."""
        begun = {task for task in (self._opening, self._looking) if task is not None}
        for task in begun:
            task.cancel()
        await asyncio.wait(begun)
        with contextlib.suppress(SelineError, asyncio.CancelledError):
            self._opening.result()

    async def _finish(self) -> None:
        """Finish the requests and the jobs."""
        answer_s = 0.0 if self._network else LAST_ANSWERS_S
        hanging_up = listening.hang_up(
            self._runner, remove_socket=self._remove_socket, answer_s=answer_s
        )
        await asyncio.gather(hanging_up, self._worker.stop())

    async def _close_store(self) -> None:
        if self._opened is not None:
            return
        try:
            await wait_for(self._seline.begin_to_close(), timeout_s=CLOSE_S)
        except TimeoutError:
            self.disk_hangs = True
            _log.error("the disk does not answer: the store is not closed; nothing is lost")


def serving(settings: Settings | None = None, *, http: bool = True) -> Serving:
    """Run store, jobs, alerts and admin API inside the running event loop.

    With `http=False` no address is opened; the command line reaches it nevertheless.
    """
    return Serving(settings or library.load(), http=http)


def _served_already(data_dir: str) -> VolumeLocked | None:
    """Return the error for a directory that another process holds, with its address."""
    locked = find_holder(data_dir)
    address = locked and locked.details["holder"].get("address")
    if locked is None or not address:
        return locked
    return VolumeLocked(f"{locked.message} It listens on {address}.")


@contextlib.asynccontextmanager
async def alone(settings: Settings, *, lock_wait_s: float = 0.0) -> AsyncGenerator[Serving]:
    """Open the volume for one command, and serve it on the control socket only."""
    async with Serving(settings, network=False, lock_wait_s=lock_wait_s) as running:
        await running.acquired()
        yield running


async def answer_commands(
    opened: library.Seline, control: socket.socket, *, until: Callable[[], Awaitable[None]]
) -> None:
    """Answer commands on a socket, which it closes, with a Seline that is open in this process."""
    running = Serving(opened.settings, network=False, opened=opened, control=control)
    async with running:
        await running.acquired()
        await until()
