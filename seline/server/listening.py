"""Listen: on an address for HTTP clients, on a Unix socket in the data directory for commands."""

import asyncio
import errno
import os
import socket
import time
from typing import Final

from aiohttp import web

from seline.commands import RemoveSocket
from seline.errors import SettingsError

FINISH_S: Final = 8.0
"""How long a stop waits for the requests that have arrived."""
_OTHER_PORT: Final = (
    "Stop what listens there, or choose another port with --port, PORT or SELINE_SERVER__PORT."
)
_OTHER_HOST: Final = (
    "Give an address of this machine with --host or SELINE_SERVER__HOST: 127.0.0.1 for this "
    "machine alone, 0.0.0.0 for every address."
)
_EVERY: Final = {"IPv4": "0.0.0.0", "IPv6": "::"}  # noqa: S104  # shown, not bound
_POLL_S: Final = 0.02
_LOOP_ITERATIONS: Final = 5
"""Event-loop iterations to wait so that accepted connections are registered and read."""


async def check_address(host: str | None, port: int) -> str | None:
    """Check that an address is free; return the host to listen on. Raises SettingsError.

    Host None is every address; without IPv6 that is every IPv4 address.
    """
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
    except OSError as error:
        if host is not None or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise _cannot_listen(error, host, port) from error
        return await check_address("0.0.0.0", port)  # noqa: S104  # no IPv6 here
    server.close()
    return host


async def listen(runner: web.AppRunner, host: str | None, port: int) -> str:
    """Listen on a checked address; return its URL. Raises SettingsError."""
    try:
        await _start(web.TCPSite(runner, host, port))
    except OSError as error:
        raise _cannot_listen(error, host, port) from error
    address = next(iter(runner.addresses))
    return f"http://{_shown_host(host)}:{address[1]}"


def also_listened_on(runner: web.AppRunner) -> str:
    """Return what the address of `listen` does not show, such as " (every address)"; often ""."""
    bound = sorted((str(where[0]), int(where[1])) for where in runner.addresses)
    every = [kind for kind, host in _EVERY.items() if host in dict(bound)]
    if every:
        return f" (every {' and '.join(every)} address of this machine)"
    if len(bound) == 1:
        return ""
    return f" ({', '.join(f'{_shown_host(host)}:{port}' for host, port in bound)})"


async def answer_on(runner: web.AppRunner, listening: socket.socket) -> None:
    """Answer requests on a socket that listens already; the runner's cleanup closes it."""
    await _start(web.SockSite(runner, listening))


async def hang_up(
    runner: web.AppRunner, *, remove_socket: RemoveSocket | None = None, answer_s: float = 0.0
) -> None:
    """Stop listening, answer the requests that have arrived, and close every connection.

    The socket's file is removed first, so that no new client connects; clients that have connected
    are accepted before the listening ends. They have `answer_s` to send a last request and close.

    aiohttp's cleanup does not know a connection that is registered during it, and then waits its
    whole time-out for a request that is never read. So connections are closed until it returns,
    and aborted after FINISH_S: a client that does not read cannot delay the stop.
    """
    sites = list(runner.sites)
    if remove_socket is not None:
        remove_socket()
    await _run_loop()
    for site in sites:
        await site.stop()
    await _run_loop()
    if sites:
        await _wait_for_clients(runner, answer_s)
    abort_at_s = time.monotonic() + FINISH_S
    cleanup = asyncio.ensure_future(runner.cleanup())
    try:
        while not cleanup.done():
            for connection in _connections(runner):
                connection.close()
                if time.monotonic() > abort_at_s and connection.transport is not None:
                    connection.transport.abort()
            await asyncio.wait({cleanup}, timeout=_POLL_S)
        cleanup.result()
    finally:
        cleanup.cancel()


async def _run_loop() -> None:
    for _ in range(_LOOP_ITERATIONS):
        await asyncio.sleep(0)


async def _wait_for_clients(runner: web.AppRunner, answer_s: float) -> None:
    until_s = time.monotonic() + answer_s
    while _connections(runner) and time.monotonic() < until_s:  # noqa: ASYNC110  # no event for it
        await asyncio.sleep(_POLL_S)


def _connections(runner: web.AppRunner) -> list[web.RequestHandler]:
    return list(runner.server.connections) if runner.server is not None else []


async def _start(site: web.BaseSite) -> None:
    """Start a site completely, and raise a cancellation only afterwards.

    A cancelled start would leave a listening socket that cannot be closed.
    """
    starting = asyncio.ensure_future(site.start())
    cancelled: asyncio.CancelledError | None = None
    while not starting.done():
        try:
            await asyncio.wait({starting})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        starting.exception()  # mark it as retrieved
        raise cancelled
    starting.result()


def _cannot_listen(error: OSError, host: str | None, port: int) -> SettingsError:
    where = f"{host or 'every address'}, port {port}"
    number = error.errno or 0
    why = os.strerror(number) if number > 0 else error.strerror  # an unknown name: < 0
    is_host = number < 0 or number == errno.EADDRNOTAVAIL
    hint = _OTHER_HOST if is_host else _OTHER_PORT
    field = "server.host" if is_host else "server.port"
    return SettingsError(f"Cannot listen on {where}: {why}.", hint=hint, field=field)


def _shown_host(host: str | None) -> str:
    if host is None or host in ("0.0.0.0", "::"):  # noqa: S104  # shown, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
