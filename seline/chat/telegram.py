"""The chat in a bot with python-telegram-bot: `application.add_handler(chat_handler())`."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from telegram import (
    Bot,
    CallbackQuery,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InputFile,
    LinkPreviewOptions,
    Message,
    Update,
)
from telegram.error import BadRequest
from telegram.ext import BaseHandler, CallbackContext

from seline.chat.core import ChatCore
from seline.chat.messages import COMMAND, MARK, ChatReply, ChatRequest
from seline.library import Seline

_NO_PREVIEW: Final = LinkPreviewOptions(is_disabled=True)


def chat_handler(seline: Seline | None = None) -> "ChatHandler":
    """Return the handler that answers `/seline` and its buttons to the owners of `chat.owners`.

    It works over `seline`, else over the instance that is open in this process. What others send
    is left to the other handlers: add it before one that takes every message or button.
    """
    return ChatHandler(ChatCore(seline))


if TYPE_CHECKING:
    _UpdateHandler = BaseHandler[Update, CallbackContext[Any, Any, Any, Any], None]
else:  # older versions have two parameters
    _UpdateHandler = BaseHandler


class ChatHandler(_UpdateHandler):
    """Takes the updates that the owners send to Seline. Other updates do not wait for it."""

    def __init__(self, core: ChatCore) -> None:
        """Answer with `core`."""
        super().__init__(self._answer, block=False)
        self._core = core

    def check_update(self, update: object) -> bool:
        """Return whether this handler takes an update."""
        if not isinstance(update, Update):
            return False
        self._core.listens_to(update.get_bot().token)  # a handler does not know its bot before
        request = _request(update)
        return request is not None and self._core.admits(request)

    async def _answer(self, update: Update, context: CallbackContext[Any, Any, Any, Any]) -> None:
        request = _request(update)
        reply = None if request is None else await self._core.handle(request)
        if request is None or reply is None:
            return
        is_notice = reply.kind == "notice"
        if not is_notice:
            await _send(context.bot, request, reply)
        if update.callback_query is not None:
            with suppress(BadRequest):  # it is too late for an answer after a long act
                text = reply.text if is_notice else None
                await update.callback_query.answer(text, show_alert=is_notice)


def _request(update: Update) -> ChatRequest | None:
    query, message = update.callback_query, update.message
    if query is not None:
        return _of_press(query) if (query.data or "").startswith(MARK) else None
    return None if message is None else _of_message(message)


def _of_message(message: Message) -> ChatRequest | None:
    """Return the request of a message that is the command, also as `/seline@name_of_the_bot`."""
    command, _, word = (message.text or "").partition(" ")
    name, _, bot = command.partition("@")
    is_ours = not bot or bot.lower() == (message.get_bot().username or "").lower()
    if name != f"/{COMMAND}" or not is_ours or message.from_user is None:
        return None
    return ChatRequest(
        service="telegram",
        user=str(message.from_user.id),
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
        await bot.send_document(chat, InputFile(reply.file.data, reply.file.name))
    if reply.kind == "edit":
        with suppress(BadRequest):  # the message is gone: a new one takes its place
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
        [
            [InlineKeyboardButton(button.label, callback_data=button.data) for button in row]
            for row in reply.rows
        ]
    )
