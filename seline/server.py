"""The process: the library with its admin API, started and stopped in order.

Start: serve the probes, hold the volume, open, let people in. Stop: not ready, finish the
requests, let go. Nothing depends on the stop being reached: what was answered is durable (V3).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from aiohttp import web

import seline
from seline import library
from seline.clock import SystemClock, instant_text
from seline.domain.document import Json
from seline.errors import SelineError, SettingsError, StoreClosed, VolumeLocked
from seline.http.app import build_app
from seline.http.doors import Doors
from seline.outbound.folder import Folder
from seline.services.custody import Custody
from seline.services.exporting import Destination, Exporting
from seline.services.tokens import Tokens
from seline.settings import Settings, load_settings
from seline.storage.volume.audit import AuditLog
from seline_workers import Worker

SHUTDOWN_S: Final = 8.0
LINGERING_S: Final = 1.0
"""How long a body that was refused is still read, so that its sender sees the answer."""
SOCKET_PATH_MAX: Final = 100
FIRST_LABEL: Final = "made at the first start"
_log = logging.getLogger("seline.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a person should see when the server is ready. `secret` is shown this once."""

    address: str
    data_dir: str
    secret: str | None
    anyone_can_come_in: bool


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
        self._waiting: SelineError = StoreClosed("The store is being opened.")
        self._opened = False
        self._since = SystemClock().now()
        self._started_s = time.monotonic()
        self.address = ""
        self.started: Started | None = None

    async def start(self) -> Serving:
        """Serve the probes and begin to open the volume."""
        self._seline = library.start(
            self.settings,
            lock_wait_s=self._lock_wait_s,
            on_wait=self._on_wait,
            give_up=lambda: self._closing,
        )
        self.tokens = Tokens(
            self.data, admin_token=self.settings.server.admin_token, clock=self.data.clock
        )
        self._audit = AuditLog(self.settings.data_dir)
        self.exporting = Exporting(
            self.data, _destinations(self.settings), version=seline.__version__
        )
        self.custody = Custody(self.data, clock=self.data.clock, export=self.exporting.run)
        self._worker = Worker(self.data, self.custody, self.settings.jobs, clock=self.data.clock)
        self._runner = web.AppRunner(
            build_app(self._doors()),
            handle_signals=False,
            shutdown_timeout=SHUTDOWN_S,
            lingering_time=LINGERING_S,
            access_log=None,
        )
        await self._runner.setup()
        self._listening = asyncio.Event()
        self._opening = asyncio.ensure_future(self._open())
        try:
            if self._network:
                await self._listen()
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
    def profile(self) -> seline.UserProfile:
        """The profile service."""
        return self._seline.profile

    @property
    def lessons(self) -> seline.LessonsLearned:
        """The lessons service."""
        return self._seline.lessons

    async def acquired(self) -> None:
        """Wait until the volume is held and the store open. Raises what its opening raised."""
        await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Stop in order; idempotent."""
        if self._closing:
            return
        self._closing = True
        await self._runner.cleanup()
        await self._worker.stop()
        if not self._opening.done():
            self._opening.cancel()
        with contextlib.suppress(SelineError, asyncio.CancelledError):
            await self._opening
        await self._seline.close()
        self._audit.close()

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

    # parts

    def _doors(self) -> Doors:
        storage = self.settings.storage
        return Doors(
            data=self.data,
            tokens=self.tokens,
            trouble=self._trouble,
            about=self._about,
            audit=self._audit.note,
            jobs=self._worker,
            exporting=self.exporting,
            loopback_only=not self.settings.bind_is_public,
            trust_proxy=self.settings.server.trust_proxy,
            metrics_open=self.settings.server.metrics_open,
            body_bytes_max=storage.document_bytes_max + (1 << 20),
        )

    def _trouble(self) -> SelineError | None:
        if self._closing:
            return StoreClosed("The server is stopping.", hint="Ask again in a moment.")
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

    def _on_wait(self, locked: VolumeLocked) -> None:
        self._waiting = locked
        _log.warning("waiting for the volume: %s", locked.message)

    async def _open(self) -> None:
        try:
            store = await self.data.open_store()
            await self.tokens.load()
            await self._listening.wait()
            secret = await self._first_secret()
            await self._worker.start(scheduled=self._network)
            await self._listen_on_control_socket()
        except SelineError as error:
            self._waiting = error
            raise
        store.announce(address=self.address or None)
        self.started = Started(
            address=self.address,
            data_dir=self._data_dir,
            secret=secret,
            anyone_can_come_in=self.tokens.any_known,
        )
        self._opened = True

    async def _first_secret(self) -> str | None:
        """Make the first token, where nobody could come in and the server is this machine's own."""
        if not self._first_token or self.tokens.any_known or self.settings.bind_is_public:
            return None
        return (await self.tokens.create(scope="admin", label=FIRST_LABEL)).secret

    async def _listen(self) -> None:
        host, port = self.settings.bind
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            if host is None and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                await web.TCPSite(self._runner, "0.0.0.0", port).start()  # noqa: S104  # no IPv6
            else:
                raise _cannot_listen(error, host, port) from error
        listening = next(iter(self._runner.addresses))
        self.address = f"http://{_shown_host(host)}:{listening[1]}"

    async def _listen_on_control_socket(self) -> None:
        """Listen beside the documents, replacing a socket that a crash left: we hold the volume."""
        with _short_path(self.settings.data_dir) as directory:
            path = os.path.join(directory, "control.sock")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            try:
                await web.UnixSite(self._runner, path).start()
                os.chmod(path, 0o600)
            except OSError as error:
                _log.warning("no control socket: %s; use the address and a token", error)


def serving(settings: Settings | None = None) -> Serving:
    """Run store and admin API inside the running event loop."""
    return Serving(settings or load_settings())


@contextlib.asynccontextmanager
async def alone(settings: Settings, *, lock_wait_s: float = 0.0) -> AsyncGenerator[Serving]:
    """Open the volume for one command, and serve it on the control socket alone."""
    async with Serving(settings, network=False, lock_wait_s=lock_wait_s) as running:
        await running.acquired()
        yield running


async def run_server(settings: Settings, *, announce: Callable[[Started], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises the typed error where the volume cannot be held."""
    for warning in settings.warnings:
        _log.warning("%s", warning)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = Serving(settings, first_token=True)
    async with running:
        stopping = asyncio.ensure_future(stop.wait())
        acquiring = asyncio.ensure_future(running.acquired())
        await asyncio.wait({stopping, acquiring}, return_when=asyncio.FIRST_COMPLETED)
        if acquiring.done():
            acquiring.result()
            assert running.started is not None
            _say_who_may_come_in(running.started, settings)
            announce(running.started)
            await stopping
        else:
            acquiring.cancel()
        stopping.cancel()
        _log.info("stopping")


def control_socket_path(data_dir: str) -> str:
    """Return where a holder's control socket lies."""
    return os.path.join(data_dir, ".seline", "control.sock")


def _destinations(settings: Settings) -> list[Destination]:
    return [
        Destination(target=Folder(one.name, one.path), keep=one.keep or settings.exports.keep)
        for one in settings.exports.destinations
    ]


def _say_who_may_come_in(started: Started, settings: Settings) -> None:
    if not started.anyone_can_come_in and settings.bind_is_public:
        _log.warning(
            "nobody can come in over the network yet: set SELINE_ADMIN_TOKEN (at least 16 "
            "characters), or run `seline token create` on this machine"
        )
    _log.info("ready on %s, data in %s", started.address, started.data_dir)


def _cannot_listen(error: OSError, host: str | None, port: int) -> SettingsError:
    where = f"{host or 'every address'}, port {port}"
    number = error.errno or 0
    why = os.strerror(number) if number > 0 else error.strerror  # a name that is not known: < 0
    return SettingsError(
        f"Cannot listen on {where}: {why}.",
        hint="Stop what listens there, or choose another with PORT or SELINE_SERVER__PORT.",
        field="server.port",
    )


def _shown_host(host: str | None) -> str:
    if host is None or host in ("0.0.0.0", "::"):  # noqa: S104  # shown, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _short_path(data_dir: str) -> Generator[str]:
    """Give `.seline` under a path that a socket's address can hold (107 bytes)."""
    directory = os.path.join(os.path.abspath(data_dir), ".seline")
    if len(os.fsencode(directory)) <= SOCKET_PATH_MAX:
        yield directory
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
