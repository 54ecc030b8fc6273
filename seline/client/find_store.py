"""Find the store and connect to its admin API (V10).

1. `url`: a server at that address, with SELINE_TOKEN or SELINE_ADMIN_TOKEN.
2. The process that holds the data directory: its control socket, else its loopback address.
3. No process holds it: open it here for the caller, and serve it on the same socket.

A process that is opening or closing the directory is waited for (`wait`).
"""

import asyncio
import contextlib
import os
import socket
import stat
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from seline.client.api import CONNECT_S, RETRY_S, Api, Endpoint
from seline.client.wait import Wait, serves_commands
from seline.commands import control_socket
from seline.domain.document import is_document_name
from seline.errors import SettingsError, VolumeLocked
from seline.settings import Settings

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Notify: TypeAlias = Callable[[str], None]


@asynccontextmanager
async def connect(
    settings: Settings, *, url: str | None = None, create: bool = False, notify: Notify
) -> AsyncGenerator[Api]:
    """Give the API of the server at `url`, or of the data directory that the settings name.

    `create` allows a new data directory. `notify` takes a notice for a person. Raises
    SettingsError, VolumeLocked and what opening a volume raises.
    """
    async with AsyncExitStack() as stack:
        if url is not None:
            api = Api(_server_at(url, settings, notify))
        else:
            check_data_dir(settings, create=create)
            find = partial(_find_holder, stack, settings, notify)
            api = Api(await find(), find_again=find, release=stack.aclose)
        try:
            yield api
        finally:
            await api.close()


def _server_at(url: str, settings: Settings, notify: Notify) -> Endpoint:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            f"{url} is not the address of a server.",
            hint="Give --url (or SELINE_URL) as http://host:port or https://host.",
        )
    token = _token(settings)
    if token and is_readable_on_the_way(url):
        notify(f"the token goes to {parts.hostname} unencrypted; https:// hides it.")
    return Endpoint(where=url, base=url.rstrip("/"), token=token)


def is_readable_on_the_way(url: str) -> bool:
    """Whether others on the network can read what is sent to a server."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


def _token(settings: Settings) -> str | None:
    return settings.token or settings.server.admin_token


def check_data_dir(settings: Settings, *, create: bool = False) -> None:
    """Refuse a missing data directory, so that a mistyped name does not create one."""
    if create or _may_be_directory(settings.data_dir):
        return
    origin = settings.origins["storage.data_dir"]
    raise SettingsError(
        f"There is no data directory at {settings.data_dir} ({origin}).",
        hint="Name it with --data-dir or SELINE_DATA_DIR; `seline serve` or `seline save` makes a "
        "new one.",
    )


def is_new_store(settings: Settings) -> bool:
    """Whether opening the data directory would make a store there: it holds no document yet.

    False on a machine where a mount is required: opening it checks that first (V12).
    """
    try:
        names = os.listdir(settings.data_dir)
    except OSError as error:
        return isinstance(error, FileNotFoundError) and not settings.mount_required
    is_empty = ".seline" not in names and not any(map(is_document_name, names))
    return is_empty and not settings.mount_required


def _may_be_directory(path: str) -> bool:
    """Whether it is a directory, or cannot be looked at; then opening it names the reason."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


async def _find_holder(stack: AsyncExitStack, settings: Settings, notify: Notify) -> Endpoint:
    """Return the holder's endpoint; without a holder, open the volume until `stack` closes."""
    from seline import server

    data_dir = settings.data_dir
    wait = Wait()
    while True:
        if await _accepts(data_dir):
            path = stack.enter_context(control_socket(data_dir))
            return Endpoint(where=f"the process that holds {data_dir}", socket=path)
        try:
            running = await stack.enter_async_context(server.alone(settings))
        except VolumeLocked as locked:
            endpoint = _locked(locked, settings, wait, notify)
            if endpoint is not None:
                return endpoint
            await asyncio.sleep(RETRY_S)
        else:
            path = stack.enter_context(control_socket(data_dir))
            return Endpoint(
                where=f"{data_dir}, opened for this command",
                socket=running.socket_elsewhere or path,
                opened_here=True,
            )


def _locked(
    locked: VolumeLocked, settings: Settings, wait: Wait, notify: Notify
) -> Endpoint | None:
    """Return the holder's address, or None to look again. Raises VolumeLocked at the wait's end."""
    holder = cast("dict[str, Any]", locked.details.get("holder") or {})
    now_s = time.monotonic()
    if wait.observe(holder, now_s=now_s):
        endpoint = _holder_address(locked, holder, settings)
        if endpoint is not None:
            return endpoint
    if wait.is_over(now_s=now_s):
        raise _without_socket(locked, holder) from locked
    if wait.notice_is_due(now_s=now_s):
        notify(f"waiting for the process that holds {settings.data_dir} …")
    return None


def _holder_address(
    locked: VolumeLocked, holder: Mapping[str, Any], settings: Settings
) -> Endpoint | None:
    """Return the holder's address; None while it announces none, and may still open its socket."""
    if holder.get("host") not in (None, socket.gethostname()):
        raise VolumeLocked(
            f"{locked.message} That is another container or machine, which this one cannot reach.",
            hint="Run this command there (`railway ssh`), or use --url with a token.",
        ) from locked
    address, token = holder.get("address"), _token(settings)
    if not address:
        return None
    if token is None:
        raise VolumeLocked(
            f"{locked.message} It listens on {address}, which asks for a token.",
            hint="Set SELINE_TOKEN, then run the same command again.",
        ) from locked
    return Endpoint(where=str(address), base=str(address), token=token)


def _without_socket(locked: VolumeLocked, holder: Mapping[str, Any]) -> VolumeLocked:
    if serves_commands(holder):
        return VolumeLocked(
            f"{locked.message} It has not opened its socket for commands.",
            hint="It is starting or stopping, or its disk hangs: look at its log, then try again.",
        )
    return VolumeLocked(
        f"{locked.message} It has no socket for commands.",
        hint="Its log says why. Stop it, then run the same command again.",
    )


async def _accepts(data_dir: str) -> bool:
    """Return whether the control socket accepts connections; a crash leaves one that does not."""
    with control_socket(data_dir) as path:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_unix_connection(path), CONNECT_S)
        except (OSError, TimeoutError):
            return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
