"""A folder of a WebDAV server as a destination: `webdav://host:port/path`, `webdavs://…`.

An object is uploaded under another name, its size is compared, and then it is renamed: it is whole
or absent. WebDAV has no call that makes it durable; that is up to the server. Redirects are not
followed, because they would forward the password.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from seline.errors import ExportFailed, SettingsError
from seline.outbound.destinations import failures
from seline.outbound.destinations.endpoint import is_loopback
from seline.outbound.destinations.multistatus import read_resources
from seline.outbound.destinations.part import is_part, part_of
from seline.outbound.http_client import (
    CONNECT_S,
    AnswerTooLong,
    open_session,
    proxy_for,
    read_bounded,
    reason_of,
)
from seline.ports.destinations import OBJECT_BYTES_MAX, Listed
from seline.settings.values import DestinationSettings

LIMIT_S: Final = 300.0
CLEANING_S: Final = 2.0
ANSWER_BYTES_MAX: Final = 64 << 20
_PIECE_BYTES: Final = 64 << 10
_PROPFIND: Final = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/></prop></propfind>'
)
_PLAIN: Final = {"Accept-Encoding": "identity", "Cache-Control": "no-cache"}
_SAFE_TO_REPEAT: Final = frozenset({"PROPFIND", "MKCOL"})
"""aiohttp repeats GET, PUT and DELETE itself, where the server has closed an idle connection."""
_SCHEMES: Final = {"webdav": "http", "webdavs": "https"}


class _Body(aiohttp.Payload):
    """The body of a request, sent in pieces, from its start at each attempt.

    As bytes it would be sent in one piece. Of a file, most releases of aiohttp send only the rest
    when they repeat a request, or none of it.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = data
        self._size = len(data)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._data.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        pieces = memoryview(self._data)
        for start in range(0, len(pieces), _PIECE_BYTES):
            await writer.write(pieces[start : start + _PIECE_BYTES])


class WebDav:
    """A port `ObjectStore` on a WebDAV server. Making a `WebDav` connects to nothing.

    The server needs PUT, GET, DELETE, MKCOL, MOVE and PROPFIND.
    """

    def __init__(
        self, name: str, url: str, *, user: str = "", password: str = "", timeout_s: float = LIMIT_S
    ) -> None:
        """Take a `webdav://` or `webdavs://` address, and the login of HTTP Basic, if any."""
        address = urlsplit(url)
        self._name = name
        self._where = url.rstrip("/")
        self._server = f"{_SCHEMES[address.scheme]}://{address.netloc}"
        self._top = unquote(address.path).rstrip("/")
        self._headers = {**_PLAIN, **_login(user, password)}
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renaming = asyncio.Lock()
        self._folders: set[str] = set()
        """The folders that were seen or made."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def where(self) -> str:
        return self._where

    async def make(self) -> None:
        async with self._limited("Making the folder") as doing:
            await self._make(doing, self._top)

    async def on_data_disk(self, data_dir: str) -> bool:  # noqa: ARG002  # only a folder needs it
        return False

    async def list(self, folder: str) -> Sequence[Listed]:
        async with self._limited("Listing") as doing:
            return await self._entries(doing, folder)

    async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        async with self._limited(f"Writing {key}") as doing:
            part = part_of(key)
            try:
                await self._upload(doing, part, data)
                sizes = await self._resources(doing, self._path(part), depth="0")
                stored = sizes.get(self._path(part))
                if stored != len(data):
                    raise failures.too_short(self, key, stored, len(data))
                await self._rename(doing, part, key, replace=replace)
            except BaseException:  # a cancelled upload leaves no part either
                await self._discard(part)
                raise

    async def get(self, key: str, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
        async with self._limited(f"Reading {key}") as doing:
            try:
                status, data = await self._send("GET", self._path(key), bytes_max=bytes_max)
            except AnswerTooLong as error:
                raise failures.too_large(self, key, bytes_max) from error
            if status == 404:
                raise failures.absent(self, key)
            self._require(doing, status, 200)
            return data

    async def remove(self, key: str) -> None:
        async with self._limited(f"Removing {key}") as doing:
            path = self._path(key)
            found = await self._resources(doing, path, depth="1")
            if path not in found:
                return
            if found[path] is None:
                if await self._entries(doing, key):
                    return  # DELETE would remove them all
                self._folders.clear()
                path = f"{path}/"
            status, _ = await self._send("DELETE", path)
            self._require(doing, status, 200, 204, 404)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None and self._loop is not None and self._loop.is_running():
            await session.close()  # else it ended with its event loop

    # parts

    async def _entries(self, doing: str, folder: str) -> Sequence[Listed]:
        """Return the objects and folders in a folder; [] if it does not exist."""
        path = self._path(folder)
        found = await self._resources(doing, f"{path}/", depth="1")
        children = {file.removeprefix(f"{path}/"): size for file, size in found.items()}
        entries = (Listed(name, size) for name, size in children.items() if "/" not in name)
        return [entry for entry in entries if entry.name and not is_part(entry.name)]

    async def _resources(self, doing: str, path: str, *, depth: str) -> dict[str, int | None]:
        """Return the sizes of a resource and of what it holds, by path; {} if it is absent."""
        status, body = await self._send("PROPFIND", path, _PROPFIND, Depth=depth)
        if status == 404:
            return {}
        self._require(doing, status, 207)
        try:
            found = await read_resources(body)
        except ValueError as error:
            raise ExportFailed(
                f"{doing} at {self._where}: the listing cannot be read: {error}."
            ) from error
        if path.rstrip("/") not in found:
            raise ExportFailed(
                f"{doing} at {self._where}: the server lists another path than the one asked for.",
                hint="If a proxy changes the path, name the path behind it in "
                f"`url` of {self._name} in `exports.destinations`, then restart.",
            )
        return found

    async def _upload(self, doing: str, key: str, data: bytes) -> None:
        folder = key.rpartition("/")[0]
        await self._enter(doing, folder)
        status, _ = await self._send("PUT", self._path(key), data)
        if status in (404, 409):  # a folder is gone that was there
            self._folders.clear()
            await self._enter(doing, folder)
            status, _ = await self._send("PUT", self._path(key), data)
        self._require(doing, status, 200, 201, 204)

    async def _enter(self, doing: str, folder: str) -> None:
        """Make a folder below the top; the top must exist, as some servers make it at a PUT."""
        if folder in self._folders:
            return
        if folder:
            await self._enter(doing, folder.rpartition("/")[0])
            status, _ = await self._send("MKCOL", f"{self._path(folder)}/")
            if status not in (201, 405):  # 405: it exists
                await self._require_folder(doing, folder, status)
        elif not await self._resources(doing, f"{self._top}/", depth="0"):
            raise failures.top_missing(self, doing)
        self._folders.add(folder)

    async def _require_folder(self, doing: str, folder: str, status: int) -> None:
        """Raise what MKCOL was answered, unless another call has just made the folder."""
        if not await self._resources(doing, f"{self._path(folder)}/", depth="0"):
            self._require(doing, status)

    async def _make(self, doing: str, path: str) -> None:
        """Make a folder and what leads to it."""
        status, _ = await self._send("MKCOL", f"{path}/")
        if status == 409 and path:
            await self._make(doing, path.rpartition("/")[0])
            status, _ = await self._send("MKCOL", f"{path}/")
        if status not in (201, 405):
            self._require(doing, status)

    async def _rename(self, doing: str, part: str, key: str, *, replace: bool) -> None:
        target = str(self._url(self._path(key)))
        async with self._renaming:  # WsgiDAV fails at two at once: it removes the target first
            status, _ = await self._send(
                "MOVE", self._path(part), Destination=target, Overwrite="T" if replace else "F"
            )
        if status == 412 and not replace:
            await self._discard(part)  # the object that exists stays
        else:
            self._require(doing, status, 201, 204)

    async def _discard(self, part: str) -> None:
        """Remove an upload that failed, if the server answers soon; it is never listed."""
        with suppress(aiohttp.ClientError, OSError, TimeoutError, ExportFailed):
            async with asyncio.timeout(CLEANING_S):
                status, _ = await self._send("DELETE", self._path(part))
                if status == 404:
                    folder = self._path(part.rpartition("/")[0])
                    for path in await self._resources("Cleaning", f"{folder}/", depth="1"):
                        if path.startswith(self._path(part)):  # nginx's copy of it
                            await self._send("DELETE", path)

    def _path(self, key: str) -> str:
        return f"{self._top}/{key}".rstrip("/")

    def _url(self, path: str) -> URL:
        return URL(self._server + quote(path or "/"), encoded=True)

    async def _send(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        *,
        bytes_max: int = OBJECT_BYTES_MAX,
        **headers: str,
    ) -> tuple[int, bytes]:
        """Send one request; return the status and the body of the answer.

        An object may have `bytes_max`. Raises AnswerTooLong.
        """
        url = self._url(path)
        try:
            return await self._exchange(method, url, data, headers, bytes_max)
        except aiohttp.ServerDisconnectedError:
            if method not in _SAFE_TO_REPEAT:
                raise
            return await self._exchange(method, url, data, headers, bytes_max)

    async def _exchange(
        self, method: str, url: URL, data: bytes | None, headers: Mapping[str, str], bytes_max: int
    ) -> tuple[int, bytes]:
        async with self._open_session().request(
            method,
            url,
            data=None if data is None else _Body(data),
            headers={**self._headers, **headers},
            proxy=proxy_for(str(url)),
            allow_redirects=False,
        ) as response:
            is_object = method == "GET" and response.status == 200
            body = await read_bounded(response, bytes_max if is_object else ANSWER_BYTES_MAX)
            return response.status, body

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the session of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._session = open_session(aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S))
            self._loop, self._renaming = loop, asyncio.Lock()
        return self._session

    @asynccontextmanager
    async def _limited(self, doing: str) -> AsyncGenerator[str]:
        """Limit the time of a call, and raise what fails in it as ExportFailed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield doing
        except aiohttp.ClientConnectorCertificateError as error:
            raise _certificate_refused(self, doing, error) from error
        except aiohttp.ClientError as error:
            reason = reason_of(error, proxy_for(self._server))
            raise failures.unreachable(self, doing, reason) from error
        except TimeoutError as error:
            raise failures.timed_out(self, doing, self._timeout_s) from error

    def _require(self, doing: str, status: int, *allowed: int) -> None:
        """Raise ExportFailed unless the status is one of those allowed."""
        if status in allowed:
            return
        if status == 401:
            raise failures.login_refused(self, doing, "`user` and `password`")
        if status == 403:
            raise failures.forbidden(self, doing)
        if status in (404, 409):
            raise failures.top_missing(self, doing)
        if status == 507:
            raise failures.full(self, doing)
        raise _refused(self, doing, status)


def build(configured: DestinationSettings) -> WebDav:
    """Return the store of a `webdav://` or `webdavs://` destination. Raises SettingsError."""
    options, name, address = configured.options, configured.name, urlsplit(configured.url)
    if not re.fullmatch(r"[\w.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?", address.netloc) or (
        address.query or address.fragment
    ):
        raise SettingsError(
            f"The `url` of the destination {name} is no address of a folder.",
            hint="Write `url` as webdavs://HOST/PATH or webdavs://HOST:PORT/PATH, and the login as "
            "`user` and `password`.",
        )
    if ":" in options.get("user", ""):
        raise SettingsError(
            f"The `user` of the destination {name} contains a colon, which HTTP does not allow.",
            hint="Set `user` to a name without a colon.",
        )
    allow_http = options.get("allow_http") == "true" or is_loopback(configured.url)
    if address.scheme == "webdav" and not allow_http:
        raise SettingsError(
            f"The `url` of the destination {name} is not encrypted.",
            hint="Use an address with webdavs://, or set `allow_http = true` on a network of your "
            "own.",
        )
    return WebDav(
        name,
        configured.url,
        user=options.get("user", ""),
        password=options.get("password", ""),
        timeout_s=configured.timeout_s or LIMIT_S,
    )


def _login(user: str, password: str) -> dict[str, str]:
    if not user and not password:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def _certificate_refused(
    store: WebDav, doing: str, error: aiohttp.ClientConnectorCertificateError
) -> ExportFailed:
    cause = error.certificate_error
    why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else "not valid"
    return ExportFailed(
        f"{doing} at {store.where}: its certificate is refused: {why}.",
        hint=f"Correct the certificate of the server, or the host in `url` of {store.name}. For an "
        "authority of your own, set SSL_CERT_FILE to its certificate, then restart.",
    )


def _refused(store: WebDav, doing: str, status: int) -> ExportFailed:
    message = f"{doing} at {store.where}: the server answered {status}"
    if status in range(300, 400):
        return ExportFailed(
            f"{message}, a redirect, which is not followed.",
            hint=f"Set `url` of {store.name} in `exports.destinations` to the address it leads to, "
            "then restart.",
        )
    if status in (405, 501):
        return ExportFailed(
            f"{message}: it does not know the method.",
            hint="Correct `url`, or allow PUT, DELETE, MKCOL, MOVE and PROPFIND there (for nginx: "
            "`dav_methods PUT DELETE MKCOL MOVE;` and `dav_ext_methods PROPFIND;`).",
        )
    if status == 413:
        return ExportFailed(
            f"{message}: the object is too large for it.",
            hint="Raise the limit of a request's body on the server (for nginx: "
            "`client_max_body_size 0;`).",
        )
    return ExportFailed(f"{message}.")
