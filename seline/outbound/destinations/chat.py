"""Objects in a chat: each is one message with a file, or several, and a pinned one lists them all.

An object exists once the index has it, and the index is one message that is edited, so an object is
whole or absent. The index is in the chat only: a process on an empty volume finds it there.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec.structs import replace as changed

from seline.errors import ExportFailed, SettingsError
from seline.outbound.destinations import failures
from seline.outbound.destinations.chat_requests import ChatRefusal, ChatRequests
from seline.outbound.destinations.endpoint import is_loopback
from seline.outbound.http_client import reason_of
from seline.ports.destinations import OBJECT_BYTES_MAX, Listed
from seline.settings.values import DestinationSettings

LIMIT_S: Final = 600.0
CLEANING_S: Final = 5.0
INDEX_NAME: Final = "seline-index.json"
INDEX_CAPTION: Final = (
    "The list of Seline's copies in this chat. Keep it pinned: it is how the bot finds them."
)
_FORMAT: Final = 1
_MB: Final = 1_000_000


class ChatFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file in the chat: the message's id, the file's own id, and its size."""

    message: str
    file: str
    size_bytes: int


class ChatObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object: its files in order, none if it is empty."""

    size_bytes: int
    sha256: str
    files: tuple[ChatFile, ...]


class ChatIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All objects by key, and the bot that sent them: another one cannot fetch its files."""

    bot: str
    objects: dict[str, ChatObject] = {}
    format: int = _FORMAT


class OtherPinned(Exception):
    """Another message is pinned, which hides the index."""


class Chat(Protocol):
    """One chat of a service. Every call raises ChatRefusal, and what aiohttp raises."""

    file_bytes_max: int
    """The largest file that it takes and gives back."""
    requests: ChatRequests

    async def bot(self) -> str:
        """Return the id of the bot."""
        ...

    async def send(self, file: str, data: bytes, caption: str) -> ChatFile:
        """Send a message with a file."""
        ...

    async def fetch(self, file: ChatFile) -> bytes:
        """Return a file."""
        ...

    async def delete(self, message: str) -> None:
        """Delete a message of the bot's own, or at least its file."""
        ...

    async def edit(self, index: ChatFile, data: bytes) -> ChatFile | None:
        """Replace the file of the index; return None if its message is gone."""
        ...

    async def pin(self, index: ChatFile) -> None:
        """Pin the index."""
        ...

    async def pinned(self) -> ChatFile | None:
        """Return the pinned index, None if nothing is pinned. Raises OtherPinned."""
        ...


class ChatStore:
    """A port `ObjectStore` in a chat. Making a `ChatStore` connects to nothing."""

    def __init__(self, name: str, where: str, chat: Chat, *, timeout_s: float) -> None:
        self._name = name
        self._where = where
        self._chat = chat
        self._timeout_s = timeout_s
        self._index: ChatIndex | None = None
        self._message: ChatFile | None = None
        """The message of the index that is in `_index`."""
        self._is_pinned = False
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def where(self) -> str:
        return self._where

    async def make(self) -> None:
        """Do nothing: a person makes the chat."""

    async def on_data_disk(self, data_dir: str) -> bool:  # noqa: ARG002  # only a folder needs it
        return False

    async def list(self, folder: str) -> Sequence[Listed]:
        async with self._limited("Listing"):
            objects = (await self._read()).objects
        above = f"{folder}/" if folder else ""
        found: dict[str, int | None] = {}
        for key, item in objects.items():
            if key.startswith(above):
                name, _, rest = key.removeprefix(above).partition("/")
                found[name] = None if rest else item.size_bytes
        return [Listed(name, size_bytes) for name, size_bytes in found.items()]

    async def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        async with self._limited(f"Writing {key}"):
            index = await self._read()
            before = index.objects.get(key)
            if before is not None and not replace:
                return
            item = await self._upload(key, data)
            try:
                await self._write(changed(index, objects={**index.objects, key: item}))
            except ChatRefusal:  # after another failure the index may have them
                await self._delete(item.files)
                raise
            if before is not None:
                await self._delete(before.files)

    async def get(self, key: str, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
        async with self._limited(f"Reading {key}"):
            item = (await self._read()).objects.get(key)
            if item is None:
                raise failures.absent(self, key)
            if item.size_bytes > bytes_max:
                raise failures.too_large(self, key, bytes_max)
            data = await self._content(key, item)
        if hashlib.sha256(data).hexdigest() != item.sha256:
            raise ExportFailed(f"{self._where} does not give {key} back as it was sent.")
        return data

    async def remove(self, key: str) -> None:
        async with self._limited(f"Removing {key}"):
            index = await self._read()
            item = index.objects.get(key)
            if item is None:
                return
            rest = {other: kept for other, kept in index.objects.items() if other != key}
            await self._write(changed(index, objects=rest))
            await self._delete(item.files)

    async def close(self) -> None:
        await self._chat.requests.close()

    # parts

    async def _read(self) -> ChatIndex:
        """Return the index as it is in the chat now; an empty one if nothing is pinned."""
        try:
            pinned = await self._chat.pinned()
        except OtherPinned:
            if self._index is None:
                raise
            pinned = None
        self._is_pinned = pinned is not None
        if self._index is not None and (pinned is None or pinned == self._message):
            return self._index
        bot = await self._chat.bot()
        index = ChatIndex(bot) if pinned is None else self._decoded(await self._chat.fetch(pinned))
        if index.bot != bot:
            raise ExportFailed(
                f"{self._where} has the copies of another bot, whose files this one cannot fetch.",
                hint=f"Name another chat in `url` of {self._name} in `exports.destinations`, or "
                "set `token` to that bot's, then restart.",
            )
        self._index, self._message = index, pinned
        return index

    def _decoded(self, data: bytes) -> ChatIndex:
        try:
            index = msgspec.json.decode(data, type=ChatIndex)
        except msgspec.DecodeError as error:
            raise ExportFailed(f"The {INDEX_NAME} in {self._where} is not whole.") from error
        if index.format > _FORMAT:
            raise ExportFailed(f"A newer Seline wrote the {INDEX_NAME} in {self._where}.")
        return index

    async def _write(self, index: ChatIndex) -> None:
        """Make an index the one in the chat: edit the pinned message, or send and pin a new one."""
        data = msgspec.json.format(msgspec.json.encode(index), indent=1)
        before, message = self._message, None
        if before is not None and self._is_pinned:
            message = await self._chat.edit(before, data)
        if message is None:
            message = await self._chat.send(INDEX_NAME, data, INDEX_CAPTION)
            try:
                await self._chat.pin(message)
            except BaseException:  # a cancelled call leaves no message either
                await self._delete([message])
                raise
        self._index, self._message, self._is_pinned = index, message, True
        if before is not None and before.message != message.message:
            await self._delete([before])

    async def _content(self, key: str, item: ChatObject) -> bytes:
        """Return the content of an object; it has other bytes if its files are larger."""
        data = bytearray()
        for file in item.files:
            if len(data) <= item.size_bytes:
                data += await self._fetch(key, file)
        return bytes(data)

    async def _fetch(self, key: str, file: ChatFile) -> bytes:
        try:
            return await self._chat.fetch(file)
        except ChatRefusal as error:
            if error.status not in (400, 404):
                raise
            raise ExportFailed(
                f"A file of {key} is gone from {self._where}, or is not given back: {error}."
            ) from error

    async def _upload(self, key: str, data: bytes) -> ChatObject:
        """Send the files of an object; those sent are deleted if one fails."""
        size = self._chat.file_bytes_max
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        files: list[ChatFile] = []
        try:
            for number, piece in enumerate(pieces, start=1):
                part = f".part{number}of{len(pieces)}" if len(pieces) > 1 else ""
                caption = _caption(key, number, len(pieces), len(data))
                files.append(await self._chat.send(key.replace("/", "_") + part, piece, caption))
        except BaseException:  # a cancelled call leaves no message either
            await self._delete(files)
            raise
        digest = hashlib.sha256(data).hexdigest()
        return ChatObject(size_bytes=len(data), sha256=digest, files=tuple(files))

    async def _delete(self, files: Sequence[ChatFile]) -> None:
        """Delete files that no index lists; one that stays costs only space in the chat."""
        for file in files:
            with suppress(ChatRefusal, aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(CLEANING_S):
                    await self._chat.delete(file.message)

    @asynccontextmanager
    async def _limited(self, doing: str) -> AsyncGenerator[None]:
        """Make one call after the other, each limited, and raise what fails as ExportFailed."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        try:
            async with asyncio.timeout(self._timeout_s), self._lock:
                yield
        except TimeoutError as error:
            raise failures.timed_out(self, doing, self._timeout_s) from error
        except OtherPinned as error:
            raise _hidden(self, doing) from error
        except ChatRefusal as error:
            raise _refused(self, doing, error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(self, doing, reason_of(error, None)) from error


def _caption(key: str, number: int, count: int, size_bytes: int) -> str:
    """Return what a person reads under a file."""
    folder, _, file = key.rpartition("/")
    part = f", part {number} of {count}" if count > 1 else ""
    size = f"{size_bytes / _MB:.1f} MB" if size_bytes >= _MB else f"{size_bytes:,} bytes"
    of = f" of the copy {folder}" if folder else ""
    return f"Seline: {file}{of}{part} ({size}). Keep it: your bot's documents come back from here."


def _hidden(store: ChatStore, doing: str) -> ExportFailed:
    return ExportFailed(
        f"{doing} at {store.where}: another message is pinned, and hides the list of the copies.",
        hint=f"Unpin it in the chat, so that the message with {INDEX_NAME} is pinned last.",
    )


def _unreachable(store: ChatStore, doing: str, reason: str) -> ExportFailed:
    return ExportFailed(
        f"{doing} at {store.where}: {reason}.",
        hint=f"Check the network, and `api` of {store.name} in `exports.destinations` if it is "
        "set; the next run tries again.",
    )


def _refused(store: ChatStore, doing: str, error: ChatRefusal) -> ExportFailed:
    message = f"{doing} at {store.where}: {error}."
    if error.status == 401:
        return failures.login_refused(store, doing, "`token`")
    if error.status == 403 or "not enough rights" in error.reason:
        return ExportFailed(
            message,
            hint=f"In the chat, let the bot of {store.name} read the history, send files, and pin "
            "messages.",
        )
    if error.status == 404 or "chat not found" in error.reason:
        return ExportFailed(
            message,
            hint=f"Add the bot to the chat, or correct the id in `url` of {store.name} in "
            "`exports.destinations`, then restart.",
        )
    if error.status == 429:
        return ExportFailed(
            message,
            hint=f"The next run tries again; or raise `timeout_s` of {store.name} in "
            "`exports.destinations`, then restart.",
        )
    return ExportFailed(message)


def check_chat(configured: DestinationSettings) -> str:
    """Return the chat's id of a destination. Raises SettingsError for what no chat can do."""
    name, address, api = configured.name, urlsplit(configured.url), configured.options.get("api")
    if not re.fullmatch(r"-?\d{1,20}", address.netloc) or address.path.strip("/"):
        raise SettingsError(
            f"The `url` of the destination {name} is not that of a chat.",
            hint=f"Write `url` as {address.scheme}://ID, with the number that is the chat's id.",
        )
    if configured.mode != "export":
        raise SettingsError(
            f"The destination {name} is a chat, which is too slow for the mirror.",
            hint=f'Set `mode = "export"` for {name}, or leave it out.',
        )
    if api and not api.startswith("https://") and not is_loopback(api):
        raise SettingsError(
            f"The `api` of the destination {name} is not encrypted, and would show the token.",
            hint="Use an address with https://, or leave `api` out.",
        )
    return address.netloc
