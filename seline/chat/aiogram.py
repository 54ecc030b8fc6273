"""The chat in a bot with aiogram: `dispatcher.include_router(chat_router())`."""

from contextlib import suppress
from typing import Final

from aiogram import Bot, Router
from aiogram.exceptions import TelegramBadRequest
from aiogram.filters import Command, CommandObject
from aiogram.types import (
    BufferedInputFile,
    CallbackQuery,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    Message,
)

from seline.chat.core import ChatCore
from seline.chat.messages import COMMAND, MARK, ChatReply, ChatRequest
from seline.library import Seline

_NO_PREVIEW: Final = LinkPreviewOptions(is_disabled=True)


def chat_router(seline: Seline | None = None) -> Router:
    """Return a router that answers `/seline` and its buttons to the owners of `chat.owners`.

    It works over `seline`, else over the instance that is open in this process. What others send
    is left to the other routers.
    """
    front, router = _AiogramFront(ChatCore(seline)), Router(name="seline")
    router.message.register(front.command, Command(COMMAND), front.is_for_command)
    router.callback_query.register(front.press, front.is_for_press)
    router.startup.register(front.started)
    router.shutdown.register(front.core.close)
    return router


class _AiogramFront:
    def __init__(self, core: ChatCore) -> None:
        self.core = core

    async def started(self, bot: Bot) -> None:
        self.core.listens_to(bot.token)

    async def is_for_command(self, message: Message) -> bool:
        return self.core.admits(_of_message(message, ""))

    async def is_for_press(self, query: CallbackQuery) -> bool:
        return (query.data or "").startswith(MARK) and self.core.admits(_of_press(query))

    async def command(self, message: Message, bot: Bot, command: CommandObject) -> None:
        request = _of_message(message, command.args or "")
        reply = await self.core.handle(request)
        if reply is not None:
            await _send(bot, request, reply)

    async def press(self, query: CallbackQuery, bot: Bot) -> None:
        request = _of_press(query)
        reply = await self.core.handle(request)
        if reply is None:
            return
        is_notice = reply.kind == "notice"
        if not is_notice:
            await _send(bot, request, reply)
        with suppress(TelegramBadRequest):  # it is too late for an answer after a long act
            await query.answer(reply.text if is_notice else None, show_alert=is_notice)


def _of_message(message: Message, word: str) -> ChatRequest:
    return ChatRequest(
        service="telegram",
        user=str(message.from_user.id if message.from_user else 0),
        chat=str(message.chat.id),
        is_private=message.chat.type == "private",
        word=word.strip(),
    )


def _of_press(query: CallbackQuery) -> ChatRequest:
    message = query.message
    return ChatRequest(
        service="telegram",
        user=str(query.from_user.id),
        chat=str(message.chat.id if message else 0),
        is_private=message is not None and message.chat.type == "private",
        button=query.data or "",
        message=str(message.message_id if message else 0),
    )


async def _send(bot: Bot, request: ChatRequest, reply: ChatReply) -> None:
    """Send a reply. `parse_mode=None` also where the bot has another default."""
    chat, markup = int(request.chat), _markup(reply)
    if reply.file is not None:
        await bot.send_document(chat, BufferedInputFile(reply.file.data, reply.file.name))
    if reply.kind == "edit":
        with suppress(TelegramBadRequest):  # the message is gone: a new one takes its place
            await bot.edit_message_text(
                reply.text,
                chat_id=chat,
                message_id=int(request.message),
                parse_mode=None,
                link_preview_options=_NO_PREVIEW,
                reply_markup=markup,
            )
            return
    await bot.send_message(
        chat, reply.text, parse_mode=None, link_preview_options=_NO_PREVIEW, reply_markup=markup
    )


def _markup(reply: ChatReply) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup(
        inline_keyboard=[
            [InlineKeyboardButton(text=button.label, callback_data=button.data) for button in row]
            for row in reply.rows
        ]
    )
