"""The core of the chat: who gets an answer, what a request does, and the reply.

A request comes from a front and the reply goes back to it. Only the owners that `chat.owners` names
get replies, and only in private chats; anyone else gets none, whatever they send. Each act is a
line in the audit log.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from seline import library
from seline.access.audit import AuditLog
from seline.chat import acts, views
from seline.chat.buttons import SentButtons
from seline.chat.messages import (
    LIMITS,
    NOTICE_CHARACTERS_MAX,
    Card,
    CardButton,
    ChatAction,
    ChatReply,
    ChatRequest,
    ReplyButton,
    ReplyKind,
    fitted,
)
from seline.chat.views import Turn
from seline.domain.alerts.lifecycle import Alert
from seline.domain.sentences.translate import rows
from seline.domain.texts import Language, Wording, load_tables
from seline.errors import SelineError
from seline.library import Seline
from seline.manager.call_record import recorded
from seline.ports.alerts import CHATS

OPENING_S: Final = 5.0
"""How long a request waits for a store that is still being opened."""
STRANGERS_MAX: Final = 20
ChatView: TypeAlias = Callable[[Turn], Awaitable[Card]]
VIEWS: Final[Mapping[str, ChatView]] = {
    "home": views.home,
    "documents": views.documents,
    "deleted": views.deleted,
    "document": views.document,
    "contents": views.contents,
    "preview": views.preview,
    "export": views.export,
    "alerts": views.alerts,
}
ACTS: Final[Mapping[str, ChatView]] = {
    "restore": acts.restore,
    "undo": acts.undo,
    "delete_again": acts.delete_again,
    "export_now": acts.export_now,
}
_log = logging.getLogger("seline.chat")


@functools.cache
def wording(language: Language) -> Wording:
    """Return the texts of the chat; it shares those of units and checks with the page."""
    rows(language)
    tables = load_tables("seline.page", language) | load_tables("seline.chat", language)
    return Wording(language, tables)


class ChatCore:
    """Answers the requests of the owners. Use it in the event loop of the bot."""

    def __init__(self, seline: Seline | None = None) -> None:
        """Work over `seline`, else over the instance that is open in this process."""
        self._given = seline
        self._buttons = SentButtons()
        self._audit: tuple[Seline, AuditLog] | None = None
        self._strangers: set[str] = set()

    def admits(self, request: ChatRequest) -> bool:
        """Whether a request gets a reply. The log names the first strangers."""
        try:
            owners = self._seline().settings.chat.owners
        except SelineError as error:
            _log.error("the chat does not answer: %s %s", error.message, error.hint)
            return False
        is_owner = request.who in owners
        if not is_owner and not request.button and len(self._strangers) < STRANGERS_MAX:
            if request.who not in self._strangers:
                _log.info("no answer for %s, which `chat.owners` does not name", request.who)
            self._strangers.add(request.who)
        return is_owner and request.is_private

    async def handle(self, request: ChatRequest) -> ChatReply | None:
        """Carry out a request; None if its sender gets no answer. Raises nothing."""
        if not self.admits(request):
            return None
        seline = self._seline()
        now = seline.store.clock.now()
        texts = await asyncio.to_thread(wording, seline.settings.alerts.language)
        kind: ReplyKind = "new"
        action = ChatAction("documents", word=request.word) if request.word else ChatAction("home")
        if request.button:
            pressed = self._buttons.press(request, now)
            if pressed is None:
                text = fitted(texts("chat.expired"), NOTICE_CHARACTERS_MAX)
                return ChatReply(kind="notice", text=text)
            action, is_lasting = pressed
            kind = "new" if is_lasting else "edit"
        turn = Turn(seline=seline, texts=texts, request=request, action=action, now=now)
        return self._reply(turn, kind, await self._card(turn))

    def listens_to(self, token: str) -> None:
        """Note that the updates of a bot for Telegram arrive here: its alerts get buttons."""
        CHATS[token] = self

    def under_alert(self, alert: Alert, *, data_dir: str, chat: str) -> Sequence[tuple[str, str]]:
        """Return buttons that show what an alert is about, as `AlertButtons` asks."""
        who = f"telegram:{chat}"  # the number of a private chat is the person's
        try:
            seline = self._seline()
        except SelineError:  # the alert is sent without buttons
            return []
        if seline.settings.data_dir != data_dir or who not in seline.settings.chat.owners:
            return []
        now, texts = seline.store.clock.now(), wording(seline.settings.alerts.language)
        buttons = list(views.buttons_of_alert(texts, alert))
        actions = [button.action for button in buttons]
        offered = self._buttons.offer(who, chat, "", actions, now, is_lasting=True)
        return [(button.label, data) for button, data in zip(buttons, offered, strict=True)]

    async def _card(self, turn: Turn) -> Card:
        """Return the card of a view or an act, or the one that explains why there is none."""
        try:
            if not await _is_open(turn.seline):
                again = turn.button("chat.again", "home")
                return Card(text=turn.texts("chat.opening"), buttons=[again])
            self._open_audit(turn.seline)
            if turn.action.view in ACTS:
                return await self._act(turn)
            return await VIEWS[turn.action.view](turn)
        except SelineError as error:
            message = fitted(turn.said(error.message), LIMITS[turn.request.service].text_max // 2)
            step = turn.texts("chat.next_step", step=turn.said(error.hint))
            return Card(text=f"{message}\n{step}", buttons=[turn.home])
        except Exception:  # noqa: BLE001  # the border of a request
            _log.exception("unexpected error in the chat")
            return Card(text=turn.texts("chat.unexpected"), buttons=[turn.home])

    async def _act(self, turn: Turn) -> Card:
        """Carry out an act, and write who did what, with the outcome, to the audit log."""
        outcome = "failed"
        with recorded() as record:
            try:
                card = await ACTS[turn.action.view](turn)
                outcome = card.outcome
                return card
            except Exception as error:
                outcome = getattr(error, "code", type(error).__name__)
                raise
            finally:
                _, document, backup, *_ = turn.action
                what = "/".join(filter(None, (f"{turn.action.view} ", document, backup))).strip()
                assert self._audit is not None
                who = f"chat {turn.request.who}"
                self._audit[1].append(who=who, what=what, outcome=outcome, record=record)

    def _reply(self, turn: Turn, kind: ReplyKind, card: Card) -> ChatReply:
        request, limits = turn.request, LIMITS[turn.request.service]
        message = request.message if kind == "edit" else ""
        actions = [button.action for button in (*card.choices, *card.buttons)]
        data = iter(self._buttons.offer(request.who, request.chat, message, actions, turn.now))
        rows = [
            *_rows(card.choices, data, limits.choices_per_row),
            *_rows(card.buttons, data, limits.buttons_per_row),
        ]
        text = fitted(card.text, limits.text_max)
        return ChatReply(kind=kind, text=text, rows=rows, file=card.file)

    def close(self) -> None:
        """Write what is queued for the audit log and close it; another request opens it again.

        Alerts get no more buttons until `listens_to`.
        """
        for token in [token for token, chat in CHATS.items() if chat is self]:
            del CHATS[token]
        self._close_audit()

    def _close_audit(self) -> None:
        if self._audit is not None:
            self._audit[1].close()
            self._audit = None

    def _seline(self) -> Seline:
        return self._given or library.get_seline()

    def _open_audit(self, seline: Seline) -> None:
        """Open the audit log of an instance that is open, once."""
        if self._audit is None or self._audit[0] is not seline:
            self._close_audit()
            log = AuditLog(seline.settings.data_dir)
            log.open()
            self._audit = seline, log


async def _is_open(seline: Seline) -> bool:
    """Wait a moment for the store. Raises what its opening raises, and StoreClosed."""
    try:
        async with asyncio.timeout(OPENING_S):
            await seline.store.open()
    except TimeoutError:
        return False
    return True


def _rows(
    buttons: Sequence[CardButton], data: Iterator[str], per_row: int
) -> Iterator[list[ReplyButton]]:
    made = [ReplyButton(button.label, next(data)) for button in buttons]
    for first in range(0, len(made), per_row):
        yield made[first : first + per_row]
