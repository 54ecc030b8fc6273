"""Where the store is, and the way to it: one client of the admin API, three doors (V10).

1. `--url` or SELINE_URL: a server elsewhere, with SELINE_TOKEN or SELINE_ADMIN_TOKEN.
2. Whoever holds the data directory: its control socket, else its loopback address.
3. Nobody holds it: it is opened here for the one command, and served on the same socket.

Whoever is opening it or letting it go is waited for (`patience`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, cast
from urllib.parse import urlsplit

import aiohttp

from seline.cli import terminal
from seline.cli.client import ANSWER_S, CONNECT_S, Api, Door
from seline.cli.exits import Exit
from seline.cli.patience import Patience, serves_commands
from seline.cli.problem import Problem
from seline.cli.verbs import GlobalOptions
from seline.errors import VolumeLocked
from seline.settings import Settings, load_settings

_POLL_S: Final = 0.1
_SOCKET_PATH_MAX: Final = 100
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def settings_of(options: GlobalOptions, **arguments: object) -> Settings:
    """Return the settings under the command's options. Raises SettingsError."""
    given = {"storage.data_dir": options.data_dir, **arguments}
    return load_settings(config=options.config, arguments=given)


@asynccontextmanager
async def reached(
    options: GlobalOptions, *, makes: bool, **arguments: object
) -> AsyncGenerator[Api]:
    """Give the API, whoever serves it. `makes` allows a new data directory.

    `arguments` are settings by their sectioned names. Raises Problem, SettingsError, VolumeLocked
    and what opening a volume raises.
    """
    settings = settings_of(options, **arguments)
    async with AsyncExitStack() as stack:
        door = _elsewhere(options, settings)
        if door is None:
            _check_data_dir(settings, makes=makes)
            door = await _here(stack, settings)
        yield Api(_Way(stack, door, settings), options, settings)


class _Way:
    """The door in use; the data directory's own is looked for again when it shuts.

    A command that holds the directory for its own moment serves others meanwhile, then goes.
    """

    def __init__(self, stack: AsyncExitStack, door: Door, settings: Settings) -> None:
        self._stack = stack
        self._settings = settings
        self.door = door
        self.session = _session(door)
        self._said = _Said()
        logging.getLogger("seline").addHandler(self._said)
        stack.callback(logging.getLogger("seline").removeHandler, self._said)
        stack.push_async_callback(self.session.close)

    async def found_again(self) -> bool:
        """Look for the holder again, unless the door is our own or an address."""
        if self.door.socket is None or self.door.alone:
            return False
        await asyncio.sleep(_POLL_S)
        self.door = await _here(self._stack, self._settings)
        self.session = _session(self.door)
        self._stack.push_async_callback(self.session.close)
        return True

    def has_said(self, message: str) -> bool:
        """Whether these words were logged since the door was opened: the log goes to stderr."""
        return message in self._said.messages


class _Said(logging.Handler):
    """Remembers what was said by the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.add(record.getMessage())


def _session(door: Door) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S)
    headers = {} if door.token is None else {"Authorization": f"Bearer {door.token}"}
    return aiohttp.ClientSession(connector=door.connector(), timeout=timeout, headers=headers)


def _elsewhere(options: GlobalOptions, settings: Settings) -> Door | None:
    """Return the door to a server elsewhere, None where this machine's data is meant."""
    if options.url and options.data_dir:
        raise Problem(
            "--url and --data-dir name two places.", "Give the one you mean.", exit=Exit.USAGE
        )
    url = options.url or (None if options.data_dir else settings.url)
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Problem(
            f"{url} is not the address of a server.",
            "Give --url (or SELINE_URL) as http://host:port or https://host.",
            exit=Exit.USAGE,
        )
    token = _token(settings)
    if parts.scheme == "http" and token and parts.hostname not in _LOOPBACK:
        terminal.say(f"seline: the token goes to {parts.hostname} unencrypted; https:// hides it.")
    return Door(where=url, base=url.rstrip("/"), token=token)


def _token(settings: Settings) -> str | None:
    token = settings.token or settings.server.admin_token
    if token is not None and not (token.isascii() and token.isprintable()):
        raise Problem(
            "SELINE_TOKEN holds characters that no token has.",
            "Copy it again: `sel_`, then letters, digits, `-` and `_`.",
            exit=Exit.USAGE,
        )
    return token


async def _here(stack: AsyncExitStack, settings: Settings) -> Door:
    """Return the holder's door, else open the volume for as long as `stack` lasts."""
    from seline.server import alone

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="seline: %(message)s")
    # whom it would tell of waiting, and to stop the other process: here waiting is our own affair
    logging.getLogger("seline.server").setLevel(logging.ERROR)
    patience = Patience()
    while True:
        if await _listens(settings.data_dir):
            path = stack.enter_context(_control_socket(settings.data_dir))
            where = f"the process that holds {settings.data_dir}"
            return Door(where=where, base=_NAME, socket=path)
        try:
            running = await stack.enter_async_context(alone(settings))
        except VolumeLocked as locked:
            holder = cast("dict[str, Any]", locked.details.get("holder") or {})
            now_s = time.monotonic()
            if patience.sees(holder, now_s=now_s):
                door = _door_of_holder(locked, holder, settings)
                if door is not None:
                    return door
            if patience.is_over(now_s=now_s):
                raise _without_a_door(locked, holder) from locked
            if patience.is_tried(now_s=now_s):
                terminal.say(f"seline: waiting for whoever holds {settings.data_dir} …")
            await asyncio.sleep(_POLL_S)
        else:
            beside = stack.enter_context(_control_socket(settings.data_dir))
            path = running.socket_elsewhere or beside
            return Door(
                where=f"{settings.data_dir}, opened for this command",
                base=_NAME,
                socket=path,
                alone=True,
            )


_NAME: Final = "http://localhost"


def _check_data_dir(settings: Settings, *, makes: bool) -> None:
    """Refuse a data directory that is not there, rather than make one of a mistyped name."""
    if makes or os.path.isdir(settings.data_dir):
        return
    origin = settings.origins["storage.data_dir"]
    raise Problem(
        f"There is no data directory at {settings.data_dir} ({origin}).",
        "Name it with --data-dir or SELINE_DATA_DIR; `seline serve` or `seline save` makes a new "
        "one.",
        exit=Exit.USAGE,
    )


def _without_a_door(locked: VolumeLocked, holder: Mapping[str, Any]) -> Problem:
    if serves_commands(holder):
        return Problem(
            f"{locked.message} It has not opened its door for commands.",
            "It is starting or stopping, or its disk hangs: look at its log, then try again.",
            code=locked.code,
        )
    return Problem(
        f"{locked.message} It has no door for commands.",
        "Stop it, or let the bot open its data with `seline.server.serving`, then try again.",
        code=locked.code,
    )


def _door_of_holder(
    locked: VolumeLocked, holder: Mapping[str, Any], settings: Settings
) -> Door | None:
    """Return the holder's address, None while it may still open its socket."""
    if holder.get("host") not in (None, socket.gethostname()):
        raise Problem(
            f"{locked.message} That is another container or machine, out of this one's reach.",
            "Run this command there (`railway ssh`), or use --url with a token.",
            code=locked.code,
        ) from locked
    address, token = holder.get("address"), _token(settings)
    if not address:
        return None
    if token is None:
        raise Problem(
            f"{locked.message} It listens on {address}, which asks for a token.",
            "Set SELINE_TOKEN, then run the same command again.",
            code=locked.code,
        ) from locked
    return Door(where=str(address), base=str(address), token=token)


@contextmanager
def _control_socket(data_dir: str) -> Generator[str]:
    """Give the control socket's path, short enough for a socket's address (107 bytes)."""
    folder = os.path.join(os.path.abspath(data_dir), ".seline")
    if len(os.fsencode(folder)) <= _SOCKET_PATH_MAX or not os.path.isdir(folder):
        yield os.path.join(folder, "control.sock")
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/control.sock"
    finally:
        os.close(descriptor)


async def _listens(data_dir: str) -> bool:
    """Whether somebody listens beside the documents; a crash may leave a socket where none does."""
    with _control_socket(data_dir) as path:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_unix_connection(path), CONNECT_S)
        except (OSError, TimeoutError):
            return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
