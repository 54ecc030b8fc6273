"""A folder of an SFTP server as a destination: `sftp://user@host:port/path` (extra `sftp`).

An object is uploaded under another name, made durable where the server can (OpenSSH can), its size
is compared, and then it is renamed over the object before: it is whole or absent. One connection
serves all calls. It is made at the first one, and again after it was lost.
"""

# for where asyncssh is not installed
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false

import asyncio
import os
import socket
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote, urlsplit

from seline.errors import ExportFailed, SettingsError
from seline.outbound.destinations import failures
from seline.outbound.destinations.part import is_part, part_of
from seline.outbound.destinations.ssh_login import PORT, SshLogin, load, public_key
from seline.outbound.extra import check_extra
from seline.ports.destinations import OBJECT_BYTES_MAX, Listed
from seline.settings.values import DestinationSettings

if TYPE_CHECKING:
    import asyncssh  # else imported by SshLogin, at the first connection

LIMIT_S: Final = 300.0
CLEANING_S: Final = 2.0
BYTES_AT_ONCE: Final = 1 << 20
BLOCK_BYTES: Final = 1 << 15  # where the server names no limit
REASON_CHARACTERS_MAX: Final = 200
T = TypeVar("T")


class Sftp:
    """A port `ObjectStore` on an SFTP server. Making an `Sftp` connects to nothing."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        host_key: str = "",
        key_file: str = "",
        password: str = "",
        timeout_s: float = LIMIT_S,
    ) -> None:
        """Take an `sftp://user@host:port/path` address; `key_file` is the path of a private key.

        `host_key` is a line of `ssh-keyscan` or of a `.pub` file. Raises ValueError for another.
        """
        address = urlsplit(url)
        self._name = name
        self._where = url.rstrip("/")
        self._top = unquote(address.path).rstrip("/")
        self._login = SshLogin(
            name=name,
            host=address.hostname or "",
            port=address.port or PORT,
            user=unquote(address.username or ""),
            host_key=public_key(host_key) if host_key else "",
            key_file=key_file,
            password=password,
        )
        self._timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def where(self) -> str:
        return self._where

    async def make(self) -> None:
        await self._run("Making the folder", self._make)

    async def on_data_disk(self, data_dir: str) -> bool:  # noqa: ARG002  # only a folder needs it
        return False

    async def list(self, folder: str) -> Sequence[Listed]:
        return await self._run("Listing", lambda client: self._list(client, folder))

    async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        await self._run(
            f"Writing {key}", lambda client: self._put(client, key, data, replace=replace)
        )

    async def get(self, key: str, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
        return await self._run(f"Reading {key}", lambda client: self._get(client, key, bytes_max))

    async def remove(self, key: str) -> None:
        await self._run(f"Removing {key}", lambda client: self._remove(client, key))

    async def close(self) -> None:
        self._disconnect()

    # what the calls do

    async def _make(self, client: "asyncssh.SFTPClient") -> None:
        await client.makedirs(self._top or "/", exist_ok=True)

    async def _list(self, client: "asyncssh.SFTPClient", folder: str) -> Sequence[Listed]:
        import asyncssh

        try:
            found = await client.readdir(self._path(folder))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNotADirectory):
            return []
        entries: list[Listed] = []
        for file in found:
            name, mode = str(file.filename), file.attrs.permissions or 0
            if stat.S_ISDIR(mode) and name not in {".", ".."}:
                entries.append(Listed(name, None))
            elif stat.S_ISREG(mode) and not is_part(name):
                entries.append(Listed(name, file.attrs.size or 0))
        return entries

    async def _put(
        self, client: "asyncssh.SFTPClient", key: str, data: bytes, *, replace: bool
    ) -> None:
        import asyncssh

        part = part_of(key)
        try:
            await self._upload(client, part, data)
            await self._rename(client, part, key, replace=replace)
        except BaseException as error:  # a cancelled upload leaves no part either
            failed = isinstance(error, asyncssh.SFTPFailure)
            is_full = failed and await self._is_full(client, len(data))
            await _quietly(client.remove(self._path(part)))
            if is_full:
                raise failures.full(self, f"Writing {key}") from error
            raise

    async def _upload(self, client: "asyncssh.SFTPClient", part: str, data: bytes) -> None:
        import asyncssh

        async def write(start: int, size_bytes: int) -> None:
            await file.write(data[start : start + size_bytes], start)

        file = await self._open_new(client, part)
        async with _closing(file):
            await _in_blocks(len(data), client.limits.max_write_len, write)
            with suppress(asyncssh.SFTPOpUnsupported):
                await file.fsync()
            stored = (await file.stat()).size
        if stored != len(data):
            raise failures.too_short(self, part, stored, len(data))

    async def _open_new(
        self, client: "asyncssh.SFTPClient", part: str
    ) -> "asyncssh.SFTPClientFile":
        """Open a new file, and make the folders below the top that it needs."""
        import asyncssh

        private = asyncssh.SFTPAttrs(permissions=0o600)
        try:
            return await client.open(self._path(part), "wb", private, block_size=0)
        except asyncssh.SFTPNoSuchFile:
            await self._make_folder(client, part.rpartition("/")[0])
            return await client.open(self._path(part), "wb", private, block_size=0)

    async def _make_folder(self, client: "asyncssh.SFTPClient", folder: str) -> None:
        """Make a folder below the top and what leads to it; the top itself must exist."""
        import asyncssh

        path = self._path(folder)
        if await client.isdir(path):
            return
        if not folder:
            raise failures.top_missing(self, "Making a folder")
        await self._make_folder(client, folder.rpartition("/")[0])
        try:
            await client.mkdir(path, asyncssh.SFTPAttrs(permissions=0o700))
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            if not await client.isdir(path):  # else another call has just made it
                raise

    async def _rename(
        self, client: "asyncssh.SFTPClient", part: str, key: str, *, replace: bool
    ) -> None:
        """Give an upload its key; without `replace` an object that exists stays."""
        import asyncssh

        old, new = self._path(part), self._path(key)
        if replace:
            with suppress(asyncssh.SFTPOpUnsupported):
                await client.posix_rename(old, new)
                return
        try:
            await client.rename(old, new)
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists) as error:
            if not await client.exists(new):
                raise
            if replace:
                raise _cannot_replace(self, key) from error
            await client.remove(old)

    async def _is_full(self, client: "asyncssh.SFTPClient", size_bytes: int) -> bool:
        """Whether there is no room for an object: SFTP's own error does not tell."""
        import asyncssh

        with suppress(asyncssh.Error, OSError):
            space = await client.statvfs(self._top or "/")
            return bool(space.bavail * space.frsize < size_bytes)
        return False

    async def _get(self, client: "asyncssh.SFTPClient", key: str, bytes_max: int) -> bytes:
        import asyncssh

        blocks: dict[int, bytes] = {}

        async def read(start: int, size_bytes: int) -> None:
            end = start + size_bytes
            while start < end:
                block: bytes = await file.read(end - start, start)
                if not block:
                    break
                blocks[start] = block
                start += len(block)

        try:
            file = await client.open(self._path(key), "rb", block_size=0)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNotADirectory) as error:
            raise failures.absent(self, key) from error
        async with _closing(file):
            size_bytes = (await file.stat()).size or 0
            if size_bytes > bytes_max:
                raise failures.too_large(self, key, bytes_max)
            await _in_blocks(size_bytes, client.limits.max_read_len, read)
        return b"".join(blocks[start] for start in sorted(blocks))

    async def _remove(self, client: "asyncssh.SFTPClient", key: str) -> None:
        path = self._path(key)
        if not await client.isdir(path):
            await _if_there(client.remove(path))
            return
        names = {str(name) for name in await client.listdir(path)} - {".", ".."}
        if all(map(is_part, names)):
            for name in names:
                await _if_there(client.remove(f"{path}/{name}"))
            await _if_there(client.rmdir(path))

    def _path(self, key: str) -> str:
        return f"{self._top}/{key}".rstrip("/") or "/"

    # the connection

    async def _run(self, doing: str, work: Callable[["asyncssh.SFTPClient"], Awaitable[T]]) -> T:
        """Return what `work` returns, within the time limit; raise its errors as ExportFailed."""
        try:
            await load()
        except OSError as error:  # no thread could be started, or it took too long
            raise failures.unreachable(self, doing, _reason(error)) from error
        import asyncssh

        # first, because asyncssh closes what a cancelled call has opened, and waits for the answer
        ended = asyncio.get_running_loop().call_later(self._timeout_s, self._disconnect)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._connected(work)
        except TimeoutError as error:
            raise failures.timed_out(self, doing, self._timeout_s) from error
        except (asyncssh.Error, OSError) as error:
            raise self._failure(doing, error) from error
        finally:
            ended.cancel()

    async def _connected(self, work: Callable[["asyncssh.SFTPClient"], Awaitable[T]]) -> T:
        """Call `work` with the connection; call it again if an earlier connection was lost."""
        import asyncssh

        before = self._client
        client = await self._connect()
        try:
            return await work(client)
        except (
            asyncssh.DisconnectError,
            asyncssh.SFTPConnectionLost,
            asyncssh.SFTPNoConnection,
            OSError,
        ):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None  # asyncssh replaced it while it cleaned up
            if self._client is client:
                self._disconnect()
            if client is not before:
                raise
        return await work(await self._connect())

    async def _connect(self) -> "asyncssh.SFTPClient":
        """Return the client of the running event loop, a new one unless it is connected."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._disconnect()
            self._loop, self._connecting = loop, asyncio.Lock()
        async with self._connecting:
            if self._client is None:
                self._disconnect()  # from a server that did not start SFTP
                connection = self._connection = await self._login.connect()
                self._client = await connection.start_sftp_client(path_errors="surrogateescape")
            return self._client

    def _disconnect(self) -> None:
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None and self._loop is not None and self._loop.is_running():
            connection.abort()  # else it ended with its event loop

    def _failure(self, doing: str, error: Exception) -> ExportFailed:
        import asyncssh

        if isinstance(error, asyncssh.PermissionDenied):
            options = "the user in `url`, `key_file` or `password`"
            return failures.login_refused(self, doing, options)
        if isinstance(error, asyncssh.SFTPPermissionDenied):
            return failures.forbidden(self, doing)
        if isinstance(error, asyncssh.SFTPNoSuchFile):
            return failures.top_missing(self, doing)
        if isinstance(error, (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)):
            return failures.full(self, doing)
        if isinstance(error, asyncssh.SFTPError):
            return ExportFailed(f"{doing} at {self._where}: the server answers: {_reason(error)}.")
        return failures.unreachable(self, doing, _reason(error))


def build(configured: DestinationSettings) -> Sftp:
    """Return the store of an `sftp://` destination. Raises SettingsError."""
    check_extra("asyncssh", "sftp")
    options, name, address = configured.options, configured.name, urlsplit(configured.url)
    try:
        has_port = address.port is None or address.port > 0
    except ValueError:
        has_port = False
    if not (address.username and has_port) or address.query or address.fragment:
        raise SettingsError(
            f"The `url` of the destination {name} is no address of a folder.",
            hint="Write `url` as sftp://USER@HOST/PATH or sftp://USER@HOST:PORT/PATH.",
        )
    if not (options.get("key_file") or options.get("password")):
        raise SettingsError(
            f"The destination {name} has no login.",
            hint="Set its `key_file`, the path of a private key, or its `password`.",
        )
    try:
        return Sftp(name, configured.url, timeout_s=configured.timeout_s or LIMIT_S, **options)
    except ValueError as error:
        raise SettingsError(
            f"The `host_key` of the destination {name} cannot be used: {error}.",
            hint=f"Set `host_key` to a line that `ssh-keyscan {address.hostname}` prints.",
        ) from error


async def _in_blocks(
    size_bytes: int, block_bytes: int, transfer: Callable[[int, int], Awaitable[None]]
) -> None:
    """Call `transfer(start, size_bytes)` for each block of a file, some at once.

    A call that is cancelled, or fails, leaves no other running. asyncssh's own loop does.
    """
    block_bytes = block_bytes or BLOCK_BYTES
    starts = iter(range(0, size_bytes, block_bytes))

    async def each() -> None:
        for start in starts:
            await transfer(start, min(block_bytes, size_bytes - start))

    at_once = max(2, BYTES_AT_ONCE // block_bytes)
    running = [asyncio.ensure_future(each()) for _ in range(at_once)]
    try:
        await asyncio.gather(*running)
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _cannot_replace(store: Sftp, key: str) -> ExportFailed:
    return ExportFailed(
        f"{store.where}: its server cannot replace {key} in one step.",
        hint="Use a server with the extension posix-rename@openssh.com, such as OpenSSH, and "
        f"correct `url` of {store.name} in `exports.destinations`, then restart.",
    )


def _reason(error: Exception) -> str:
    """Return why a call failed, on one line."""
    if isinstance(error, socket.gaierror):
        return "its host name is not known"
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else "it cannot be connected to"
    reason = str(getattr(error, "reason", error))
    return " ".join(reason.split())[:REASON_CHARACTERS_MAX]


@asynccontextmanager
async def _closing(file: "asyncssh.SFTPClientFile") -> AsyncGenerator[None]:
    """Close a file at the end; after an error only if the server answers soon."""
    try:
        yield
    except BaseException:  # a cancelled call leaves no file open either
        await _quietly(file.close())
        raise
    await file.close()


async def _if_there(removal: Awaitable[None]) -> None:
    """Wait for a removal; it does nothing if there is nothing to remove."""
    import asyncssh

    with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNotADirectory):
        await removal


async def _quietly(call: Awaitable[None]) -> None:
    """Wait a short time for a call that cleans up, and ignore how it ends."""
    import asyncssh

    with suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(CLEANING_S):
            await call
