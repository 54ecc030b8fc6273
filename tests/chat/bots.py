"""Bots of the three libraries, in this process, without a network.

Each feeds its library what the service would send, and keeps what the library sends: the network
call is replaced at the library's own border. `ShownMessage` is what a person would see.
"""

import ast
import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import aiogram
import discord
import telegram
from aiogram.client.default import DefaultBotProperties
from aiogram.client.session.base import BaseSession
from aiogram.types import BufferedInputFile
from discord.ext import commands
from discord.webhook.async_ import AsyncWebhookAdapter
from telegram.ext import Application, ApplicationBuilder, Defaults, MessageHandler, filters
from telegram.request import BaseRequest

from seline.library import Seline
from tests.chat.screen import NOW, OWNER, STRANGER, Screen, ShownMessage
from tests.docs.blocks import blocks


class TelegramService(Screen):
    """The Bot API, as far as the chat uses it; it refuses what the real one refuses."""

    def call(self, name: str, values: dict[str, Any], files: dict[str, bytes]) -> Any:
        """Carry out a call, and return its result."""
        if name == "getMe":
            return {"id": 1, "is_bot": True, "first_name": "b", "username": "TheBot"}
        self.calls.append(name)
        is_plain = values.get("parse_mode") is None or not values.get("text")
        assert is_plain, "the text has no markup"
        message = {"message_id": 0, "date": 0, "chat": {"id": OWNER, "type": "private"}}
        if name == "answerCallbackQuery":
            if values.get("text"):
                assert len(values["text"]) <= 200
                self.notices.append(values["text"])
            return True
        number = str(values.get("message_id") or len(self.calls) + 100)
        if name == "sendDocument":
            self.files |= files
        else:
            assert len(values["text"].encode("utf-16-le")) // 2 <= 4096
            markup = values["reply_markup"]
            rows = (json.loads(markup) if isinstance(markup, str) else markup)["inline_keyboard"]
            buttons = {each["text"]: each["callback_data"] for row in rows for each in row}
            assert all(0 < len(data.encode()) <= 64 for data in buttons.values())
            self.messages[number] = ShownMessage(values["text"], buttons)
        return {**message, "message_id": int(number)}


def telegram_message(text: str, user: int, chat: str, number: int) -> dict[str, Any]:
    """Return a message as the Bot API describes it."""
    length = len(text.split(maxsplit=1)[0])
    return {
        "message_id": number,
        "date": 1,
        "chat": {"id": user if chat == "private" else -5, "type": chat},
        "from": {"id": user, "is_bot": False, "first_name": "Alex"},
        "text": text,
        "entities": [{"type": "bot_command", "offset": 0, "length": length}],
    }


class TelegramBot:
    """What both libraries for Telegram have in common: updates go in as the Bot API sends them."""

    service = "telegram"
    owner = f"telegram:{OWNER}"

    def __init__(self) -> None:
        self.screen: Any = TelegramService()
        self._updates = 0

    async def feed(self, update: dict[str, Any]) -> None:
        raise NotImplementedError

    async def command(
        self, word: str = "", *, user: int = OWNER, private: bool = True, name: str = "/seline"
    ) -> None:
        """Send the command."""
        chat = "private" if private else "group"
        message = telegram_message(f"{name} {word}".strip(), user, chat, 5)
        await self._feed({"message": message})

    async def press(
        self, button: str, *, user: int = OWNER, private: bool = True, message: str = ""
    ) -> None:
        """Press a button by its label, or by its data, under the newest message."""
        data = button if ":" in button else self.screen.labelled(button)
        number = int(message or list(self.screen.messages)[-1])
        under = telegram_message("x", user, "private" if private else "group", number)
        query = {"id": "1", "from": under["from"], "chat_instance": "1", "data": data}
        await self._feed({"callback_query": {**query, "message": under}})

    async def _feed(self, update: dict[str, Any]) -> None:
        self._updates += 1
        await self.feed({"update_id": self._updates, **update})


class AiogramBot(TelegramBot):
    """A dispatcher with the router, and a handler of the bot's own after it."""

    async def start(self, seline: Seline) -> None:
        self.dispatcher = aiogram.Dispatcher()
        await run_example("aiogram", dispatcher=self.dispatcher)
        own = aiogram.Router()
        own.message.register(self._own)
        own.callback_query.register(self._own)
        self.dispatcher.include_router(own)
        defaults = DefaultBotProperties(parse_mode="HTML")
        self.bot = aiogram.Bot("1:offline", session=_Session(self.screen), default=defaults)

    async def begin(self) -> None:
        """Do what the library does before the first update."""
        await self.dispatcher.emit_startup(bot=self.bot)

    async def _own(self, event: Any) -> None:
        self.screen.unhandled.append(type(event).__name__)

    async def feed(self, update: dict[str, Any]) -> None:
        given = aiogram.types.Update.model_validate(update, context={"bot": self.bot})
        await self.dispatcher.feed_update(self.bot, given)

    async def stop(self) -> None:
        await self.dispatcher.emit_shutdown()


class _Session(BaseSession):
    def __init__(self, screen: TelegramService) -> None:
        super().__init__()
        self.screen = screen

    async def close(self) -> None: ...

    async def make_request(self, bot: Any, method: Any, timeout: int | None = None) -> Any:
        files = {}
        if isinstance(getattr(method, "document", None), BufferedInputFile):
            files[method.document.filename] = method.document.data
            method = method.model_copy(update={"document": "attached"})
        values = {name: self.prepare_value(getattr(method, name), bot, {}, _dumps_json=False)
                  for name in type(method).model_fields}  # fmt: skip
        result = self.screen.call(method.__api_method__, values, files)
        if isinstance(result, dict) and "message_id" in result:
            return aiogram.types.Message.model_validate(result, context={"bot": bot})
        return result if not isinstance(result, dict) else aiogram.types.User(**result)

    async def stream_content(self, *_: Any, **__: Any) -> AsyncGenerator[bytes, None]:
        yield b""


class PythonTelegramBot(TelegramBot):
    """An application with the handler, and one of the bot's own after it."""

    async def start(self, seline: Seline) -> None:
        builder = ApplicationBuilder().token("1:offline").defaults(Defaults(parse_mode="HTML"))
        requests = [_Request(self.screen), _Request(self.screen)]
        builder = builder.request(requests[0]).get_updates_request(requests[1])
        self.application: Application[Any, Any, Any, Any, Any, Any] = builder.build()
        await run_example("python-telegram-bot", application=self.application)
        self.application.add_handler(MessageHandler(filters.ALL, self._own))
        self.application.add_handler(telegram.ext.CallbackQueryHandler(self._own))
        await self.application.initialize()
        await self.application.start()

    async def begin(self) -> None:
        """Let any update arrive."""
        await self.command(user=STRANGER, name="/start")

    async def _own(self, update: Any, _context: Any) -> None:
        self.screen.unhandled.append("Message" if update.message else "CallbackQuery")

    async def feed(self, update: dict[str, Any]) -> None:
        given = telegram.Update.de_json(update, self.application.bot)
        await settled(self.application.process_update(given))

    async def stop(self) -> None:
        await self.application.stop()
        await self.application.shutdown()


class _Request(BaseRequest):
    def __init__(self, screen: TelegramService) -> None:
        self.screen = screen

    @property
    def read_timeout(self) -> float:
        return 1.0

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def do_request(
        self, url: str, method: str, request_data: Any = None, **_: Any
    ) -> tuple[int, bytes]:
        values = request_data.parameters if request_data else {}
        parts = request_data.multipart_data if request_data else {}
        files = {name: data for name, data, _ in (parts or {}).values()}
        result = self.screen.call(url.rpartition("/")[2], values, files)
        return 200, json.dumps({"ok": True, "result": result}).encode()


class DiscordBot:
    """A bot with the cog; interactions go in as the gateway sends them."""

    service = "discord"
    owner = f"discord:{OWNER}"

    def __init__(self) -> None:
        self.screen = Screen()
        self._messages = 100

    async def start(self, seline: Seline) -> None:
        self.bot = commands.Bot("!", intents=discord.Intents.default())
        await self.bot._async_setup_hook()
        await run_example("discord.py", bot=self.bot)
        self._request = AsyncWebhookAdapter.request
        AsyncWebhookAdapter.request = self._answer  # type: ignore[method-assign,assignment]

    async def stop(self) -> None:
        await self.bot.remove_cog("SelineCog")
        AsyncWebhookAdapter.request = self._request  # type: ignore[method-assign]

    async def command(
        self, word: str = "", *, user: int = OWNER, private: bool = True, name: str = "seline"
    ) -> None:
        """Send the command."""
        options = [{"name": "word", "type": 3, "value": word}] if word else []
        data = {"id": "9", "type": 1, "name": name, "options": options}
        await self._dispatch({"type": 2, "data": data}, user, private)

    async def press(
        self, button: str, *, user: int = OWNER, private: bool = True, message: str = ""
    ) -> None:
        """Press a button by its label, or by its data, under the newest message."""
        data = button if ":" in button else self.screen.labelled(button)
        number = message or list(self.screen.messages)[-1]
        pressed = {"custom_id": data, "component_type": 2}
        about = {"type": 3, "data": pressed, "message": _message(number)}
        await self._dispatch(about, user, private)

    async def _dispatch(self, about: dict[str, Any], user: int, private: bool) -> None:
        self._under = about.get("message", {}).get("id", "")
        person = {"id": str(user), "username": "alex", "discriminator": "0", "avatar": None}
        payload = {
            "id": "3", "application_id": "4", "token": "t", "version": 1, "channel_id": "55",
            "attachment_size_limit": 10 << 20, "entitlements": [], "user": person,
            "context": 1 if private else 2, "channel": {"id": "55", "type": 1, "recipients": []},
            **about,
        }  # fmt: skip

        async def dispatch() -> None:
            self.bot._connection.parse_interaction_create(payload)  # type: ignore[arg-type]

        await settled(dispatch())

    async def _answer(self, route: Any, session: Any, **values: Any) -> Any:
        self.screen.calls.append(f"{route.method} {route.path}")
        if route.path.endswith("/callback"):
            about = {"id": "3", "type": 2, "response_message_loading": True}
            return {"interaction": about}
        payload = values.get("payload") or {}
        for part in values.get("multipart") or []:
            if part["name"] == "payload_json":
                payload = json.loads(part["value"])
            else:
                self.screen.files[part["filename"]] = part["value"].read()
        if payload.get("flags", 0) & 64:
            self.screen.notices.append(payload["content"])
        elif payload.get("embeds"):
            number = self._under if route.method == "PATCH" else str(len(self.screen.calls) + 100)
            self.screen.messages[number] = _shown(payload)
        return _message("6")


def _shown(payload: dict[str, Any]) -> ShownMessage:
    text = payload["embeds"][0]["description"]
    assert len(text) <= 4096
    assert len(payload["components"]) <= 5
    assert all(len(row["components"]) <= 5 for row in payload["components"])
    buttons = {
        each["label"]: each["custom_id"]
        for row in payload["components"]
        for each in row["components"]
    }
    assert all(0 < len(data) <= 100 for data in buttons.values())
    assert all(0 < len(label) <= 80 for label in buttons)
    plain = text.replace("\\", "")
    assert text == discord.utils.escape_markdown(plain, ignore_links=False), (
        "the text has no markup"
    )
    return ShownMessage(plain, buttons)


def _message(number: str) -> dict[str, Any]:
    author = {"id": "4", "username": "bot", "discriminator": "0", "avatar": None, "bot": True}
    return {
        "id": number, "channel_id": "55", "type": 0, "content": "", "author": author, "embeds": [],
        "attachments": [], "mentions": [], "mention_roles": [], "mention_everyone": False,
        "pinned": False, "tts": False, "timestamp": NOW.isoformat(), "edited_timestamp": None,
        "flags": 0, "components": [],
    }  # fmt: skip


async def run_example(library: str, **names: Any) -> None:
    """Run the lines of docs/bots.md that add the chat to a bot of a library."""
    [code] = [
        code
        for code in blocks("docs/bots.md", "python")
        if code.startswith(f"# the chat, {library}\n")
    ]
    compiled = compile(code, "docs/bots.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(compiled, names)
    if running is not None:
        await running


async def settled(begin: Any) -> None:
    """Run a coroutine, and wait for every task that it starts."""
    before = asyncio.all_tasks()
    await begin
    while tasks := asyncio.all_tasks() - before:
        await asyncio.gather(*tasks)


BOTS = {"aiogram": AiogramBot, "python-telegram-bot": PythonTelegramBot, "discord.py": DiscordBot}
