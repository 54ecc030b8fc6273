"""A Discord channel as a destination, through its HTTP API: `discord://CHANNEL_ID`.

The address of a file expires after a day, so each is asked for again. A bot may send files of
10 MiB.
"""

import json
from typing import Any, Final
from urllib.parse import quote

from seline.outbound.destinations.chat import (
    INDEX_CAPTION,
    INDEX_NAME,
    LIMIT_S,
    ChatFile,
    ChatStore,
    check_chat,
)
from seline.outbound.destinations.chat_requests import ChatRefusal, ChatRequests, Upload, unlike
from seline.settings.values import DestinationSettings

API: Final = "https://discord.com/api/v10"
_SILENT: Final = 1 << 12
"""The flag of a message that notifies no one; an edit may not have it."""
_USER_AGENT: Final = "DiscordBot (seline, 1)"
"""Discord refuses bots that name themselves in another form."""


class Discord:
    """A port `Chat`."""

    file_bytes_max = 9 << 20

    def __init__(self, channel_id: str, token: str, api: str, *, wait_s_max: float) -> None:
        self._api = (api or API).rstrip("/")
        self._messages = f"{self._api}/channels/{channel_id}/messages"
        self._bot = ""
        headers = {"Authorization": f"Bot {token}", "User-Agent": _USER_AGENT}
        self.requests = ChatRequests(wait_s_max=wait_s_max, headers=headers)

    async def bot(self) -> str:
        if not self._bot:
            found = await self.requests.call("GET", f"{self._api}/users/@me")
            self._bot = str(unlike("Discord", lambda: found["id"]))
        return self._bot

    async def send(self, file: str, data: bytes, caption: str) -> ChatFile:
        message = await self.requests.call(
            "POST", self._messages, _upload(file, data, caption, _SILENT)
        )
        return _file_of(message)

    async def fetch(self, file: ChatFile) -> bytes:
        message = await self.requests.call("GET", f"{self._messages}/{file.message}")
        url = unlike("Discord", lambda: message["attachments"][0]["url"])
        return await self.requests.download(str(url), self.file_bytes_max)

    async def delete(self, message: str) -> None:
        await self.requests.call("DELETE", f"{self._messages}/{message}")

    async def edit(self, index: ChatFile, data: bytes) -> ChatFile | None:
        upload = _upload(INDEX_NAME, data, INDEX_CAPTION)
        try:
            message = await self.requests.call("PATCH", f"{self._messages}/{index.message}", upload)
        except ChatRefusal as error:
            if error.status == 404:
                return None
            raise
        return _file_of(message)

    async def pin(self, index: ChatFile) -> None:
        await self.requests.call("PUT", f"{self._messages}/pins/{index.message}")

    async def pinned(self) -> ChatFile | None:
        bot, before = await self.bot(), ""
        while True:
            page = await self.requests.call("GET", f"{self._messages}/pins?limit=50{before}")
            messages, last_at = _pins(page)
            own = [message for message in messages if _is_index(message, bot)]
            if own:
                return _file_of(own[0])
            if not last_at:
                return None
            before = f"&before={quote(last_at)}"


def _pins(page: Any) -> tuple[list[Any], str]:
    """Return the pinned messages of a page, and when the last was pinned if more pages follow."""

    def read() -> tuple[list[Any], str]:
        items = page["items"]
        last_at = str(items[-1]["pinned_at"]) if items and page.get("has_more") else ""
        return [item["message"] for item in items], last_at

    pins: tuple[list[Any], str] = unlike("Discord", read)
    return pins


def _is_index(message: Any, bot: str) -> bool:
    def read() -> bool:
        names = [attachment["filename"] for attachment in message["attachments"]]
        return names == [INDEX_NAME] and str(message["author"]["id"]) == bot

    return bool(unlike("Discord", read))


def _upload(file: str, data: bytes, caption: str, flags: int = 0) -> Upload:
    payload = {
        "content": caption,
        "allowed_mentions": {"parse": []},
        "attachments": [{"id": 0, "filename": file}],
        **({"flags": flags} if flags else {}),
    }
    return Upload("files[0]", file, data, {"payload_json": json.dumps(payload)})


def _file_of(message: Any) -> ChatFile:
    def read() -> ChatFile:
        attachment = message["attachments"][0]
        return ChatFile(str(message["id"]), str(attachment["id"]), int(attachment["size"]))

    file: ChatFile = unlike("Discord", read)
    return file


def build(configured: DestinationSettings) -> ChatStore:
    """Return the store of a `discord://` destination. Raises SettingsError."""
    channel_id, options = check_chat(configured), configured.options
    timeout_s = configured.timeout_s or LIMIT_S
    chat = Discord(channel_id, options["token"], options.get("api", ""), wait_s_max=timeout_s)
    return ChatStore(configured.name, f"discord://{channel_id}", chat, timeout_s=timeout_s)
