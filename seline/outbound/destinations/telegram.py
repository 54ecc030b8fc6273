"""A Telegram chat as a destination, through the Bot API: `telegram://CHAT_ID`.

A bot may send files of 50 MB, and gets back those of at most 20 MB. A chat shows its newest pinned
message only.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from seline.outbound.destinations.chat import (
    INDEX_CAPTION,
    INDEX_NAME,
    LIMIT_S,
    ChatFile,
    ChatStore,
    OtherPinned,
    check_chat,
)
from seline.outbound.destinations.chat_requests import ChatRefusal, ChatRequests, Upload, unlike
from seline.settings.values import DestinationSettings

API: Final = "https://api.telegram.org"
REMOVED: Final = "Seline: an older copy, removed."
_log = logging.getLogger("seline.exports")


class Telegram:
    """A port `Chat`."""

    file_bytes_max = 19_000_000

    def __init__(self, chat_id: str, token: str, api: str, *, wait_s_max: float) -> None:
        self._chat_id = chat_id
        self._token = token
        self._api = (api or API).rstrip("/")
        self.requests = ChatRequests(wait_s_max=wait_s_max)

    async def bot(self) -> str:
        return self._token.partition(":")[0]

    async def send(self, file: str, data: bytes, caption: str) -> ChatFile:
        fields = {"caption": caption, "disable_notification": "true"}
        message = await self._call("sendDocument", fields, Upload("document", file, data, {}))
        return _file_of(message)

    async def fetch(self, file: ChatFile) -> bytes:
        found = await self._call("getFile", {"file_id": file.file})
        path = unlike("Telegram", lambda: found["file_path"])
        url = f"{self._api}/file/bot{self._token}/{path}"
        return await self.requests.download(url, self.file_bytes_max)

    async def delete(self, message: str) -> None:
        """Delete a message. After 48 hours Telegram refuses that, and its file is replaced."""
        try:
            await self._call("deleteMessage", {"message_id": message})
        except ChatRefusal:
            await self._edit(message, "removed.txt", b"removed\n", REMOVED)

    async def edit(self, index: ChatFile, data: bytes) -> ChatFile | None:
        try:
            message = await self._edit(index.message, INDEX_NAME, data, INDEX_CAPTION)
        except ChatRefusal as error:
            if error.status == 400 and "not enough rights" not in error.reason:
                return None
            raise
        return _file_of(message)

    async def pin(self, index: ChatFile) -> None:
        fields = {"message_id": index.message, "disable_notification": "true"}
        await self._call("pinChatMessage", fields)

    async def pinned(self) -> ChatFile | None:
        chat = await self._call("getChat", {})
        message = unlike("Telegram", lambda: chat.get("pinned_message"))
        if message is None:
            return None
        name = unlike("Telegram", lambda: message.get("document", {}).get("file_name"))
        if name != INDEX_NAME:
            raise OtherPinned
        return _file_of(message)

    async def _edit(self, message: str, file: str, data: bytes, caption: str) -> Any:
        media = {"type": "document", "media": "attach://document", "caption": caption}
        fields = {"message_id": message, "media": json.dumps(media)}
        return await self._call("editMessageMedia", fields, Upload("document", file, data, {}))

    async def _call(
        self, method: str, fields: Mapping[str, str], upload: Upload | None = None
    ) -> Any:
        """Call a method; follow a group once that has become a supergroup."""
        url = f"{self._api}/bot{self._token}/{method}"
        while True:
            given = {"chat_id": self._chat_id, **fields}
            content = given if upload is None else upload._replace(fields=given)
            try:
                answer = await self.requests.call("POST", url, content)
            except ChatRefusal as error:
                if error.status == 404:  # the address has the token
                    raise ChatRefusal(401, error.reason, error.answer) from error
                moved = str((error.answer.get("parameters") or {}).get("migrate_to_chat_id", ""))
                if not moved or moved == self._chat_id:
                    raise
                _log.warning(
                    "The chat telegram://%s has become telegram://%s: change `url` in "
                    "`exports.destinations`.",
                    self._chat_id,
                    moved,
                )
                self._chat_id = moved
            else:
                return unlike("Telegram", lambda: answer["result"])  # noqa: B023  # called at once


def _file_of(message: Any) -> ChatFile:
    def read() -> ChatFile:
        document = message["document"]
        return ChatFile(
            message=str(message["message_id"]),
            file=str(document["file_id"]),
            size_bytes=int(document.get("file_size", 0)),
        )

    file: ChatFile = unlike("Telegram", read)
    return file


def build(configured: DestinationSettings) -> ChatStore:
    """Return the store of a `telegram://` destination. Raises SettingsError."""
    chat_id, options = check_chat(configured), configured.options
    timeout_s = configured.timeout_s or LIMIT_S
    chat = Telegram(chat_id, options["token"], options.get("api", ""), wait_s_max=timeout_s)
    return ChatStore(configured.name, f"telegram://{chat_id}", chat, timeout_s=timeout_s)
