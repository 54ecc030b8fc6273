"""Where the process listens: an address for people, a socket beside the documents for the CLI."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Final, NamedTuple

from aiohttp import web

from seline.errors import SettingsError

SOCKET_PATH_MAX: Final = 100
CONTROL_SOCKET: Final = "control.sock"
_LOOK_S: Final = 0.02
_TURNS: Final = 5
"""Turns of the loop in which who has come is among the connections, and what was sent is begun."""


class SocketName(NamedTuple):
    """The name of a socket that this process made."""

    path: str
    identity: tuple[int, int]

    @classmethod
    def of(cls, path: str) -> SocketName:
        """Take note of a socket just made."""
        return cls(path, _identity(path))

    def remove(self) -> None:
        """Take the name away, unless it is another socket's by now."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self.identity:
                os.unlink(self.path)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path, follow_symlinks=False)
    return status.st_dev, status.st_ino


async def listen(runner: web.AppRunner, host: str | None, port: int) -> str:
    """Listen on an address, every address for host None; return it as a person types it.

    Raises SettingsError.
    """

    async def begin(host: str | None) -> None:
        await _start(web.TCPSite(runner, host, port))

    await _at(host, port, begin)
    listening = next(iter(runner.addresses))
    return f"http://{_shown_host(host)}:{listening[1]}"


async def check_address(host: str | None, port: int) -> None:
    """See that an address can be had, without listening: who calls meanwhile finds nobody.

    Raises SettingsError.
    """
    loop = asyncio.get_running_loop()

    async def begin(host: str | None) -> None:
        server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
        server.close()

    await _at(host, port, begin)


async def _at(host: str | None, port: int, begin: Callable[[str | None], Awaitable[None]]) -> None:
    """Begin at a host; at every IPv4 address where every address is meant and IPv6 is missing."""
    try:
        await begin(host)
    except OSError as error:
        if host is not None or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise _cannot_listen(error, host, port) from error
        await _at("0.0.0.0", port, begin)  # noqa: S104  # no IPv6 here


async def listen_on_control_socket(runner: web.AppRunner, data_dir: str) -> SocketName:
    """Listen beside the documents, replacing a socket that a crash left: we hold the volume.

    Raises OSError: a full volume may have no room for one more name.
    """
    with control_socket(data_dir) as path:
        made = await listen_on_socket(runner, path)
    return made._replace(path=control_socket_path(data_dir))


async def listen_on_socket(runner: web.AppRunner, path: str) -> SocketName:
    """Listen on a socket that only its owner may open. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    await _start(web.UnixSite(runner, path))
    os.chmod(path, 0o600)
    return SocketName.of(path)


async def hang_up(
    runner: web.AppRunner, *, socket: SocketName | None = None, answer_s: float = 0.0
) -> None:
    """Listen no more, answer what is on its way, and end every connection.

    The name of the socket goes first: who comes later finds nobody, and who has come is let in
    before nobody listens. Who is connected has `answer_s` to ask, hear and go.

    A connection that comes all the same is unknown to aiohttp's own hanging up, which then waits
    all of its time-out for a request that nobody would read: it is told until it hears.
    """
    listening = list(runner.sites)
    if socket is not None:
        socket.remove()
    await _take_turns()
    for site in listening:
        await site.stop()
    await _take_turns()
    if listening:
        await _last_answers(runner, answer_s)
    ending = asyncio.ensure_future(runner.cleanup())
    try:
        while not ending.done():
            for connection in _connections(runner):
                connection.close()
            await asyncio.wait({ending}, timeout=_LOOK_S)
        ending.result()
    finally:
        ending.cancel()


async def _take_turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def _last_answers(runner: web.AppRunner, answer_s: float) -> None:
    until_s = time.monotonic() + answer_s
    while _connections(runner) and time.monotonic() < until_s:  # noqa: ASYNC110  # none tells
        await asyncio.sleep(_LOOK_S)


def _connections(runner: web.AppRunner) -> list[web.RequestHandler]:
    return list(runner.server.connections) if runner.server is not None else []


async def _start(site: web.BaseSite) -> None:
    """Begin to listen, to the end: who is cancelled meanwhile hears of it when it is done.

    Cancelled half-way, asyncio leaves a socket that listens and that nobody can close.
    """
    starting = asyncio.ensure_future(site.start())
    cancelled: asyncio.CancelledError | None = None
    while not starting.done():
        try:
            await asyncio.wait({starting})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        starting.exception()  # nobody else will ask
        raise cancelled
    starting.result()


def control_socket_path(data_dir: str) -> str:
    """Return where a holder's control socket lies."""
    return os.path.join(data_dir, ".seline", CONTROL_SOCKET)


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
def control_socket(data_dir: str) -> Generator[str]:
    """Give a path of the control socket that a socket's address can hold (107 bytes)."""
    path = control_socket_path(os.path.abspath(data_dir))
    directory = os.path.dirname(path)
    if len(os.fsencode(directory)) <= SOCKET_PATH_MAX or not os.path.isdir(directory):
        yield path
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{CONTROL_SOCKET}"
    finally:
        os.close(descriptor)
