"""The buttons that were sent: what each does, for whom, and until when. They are in memory only.

The data of a button is a random number, so it cannot be forged. It is valid for one person in one
chat, under one message, until it expires. The first press of a set ends the set, so that no press
is carried out twice; the buttons under an alert only open views, and stay.
"""

import re
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from seline.chat.messages import MARK, ChatAction, ChatRequest

VALID_FOR: Final = timedelta(minutes=30)
LASTING_FOR: Final = timedelta(days=7)
SETS_MAX: Final = 1000
_DATA: Final = re.compile(rf"({MARK}[\w-]{{16}})\.(0|[1-9]\d?)", re.ASCII)


@dataclass(slots=True, kw_only=True)
class ButtonSet:
    """The buttons of one message. `message` is empty until it is known, at the first press."""

    who: str
    chat: str
    message: str
    until: datetime
    is_lasting: bool
    actions: Sequence[ChatAction]


class SentButtons:
    """The sets that are valid; the oldest ones are forgotten."""

    def __init__(self) -> None:
        self._sets: OrderedDict[str, ButtonSet] = OrderedDict()

    def offer(
        self,
        who: str,
        chat: str,
        message: str,
        actions: Sequence[ChatAction],
        now: datetime,
        *,
        is_lasting: bool = False,
    ) -> list[str]:
        """Return the data of a button for each action."""
        key = f"{MARK}{secrets.token_urlsafe(12)}"
        until = now + (LASTING_FOR if is_lasting else VALID_FOR)
        self._sets[key] = ButtonSet(
            who=who, chat=chat, message=message, until=until, is_lasting=is_lasting, actions=actions
        )
        while len(self._sets) > SETS_MAX:
            self._sets.popitem(last=False)
        return [f"{key}.{number}" for number in range(len(actions))]

    def press(self, request: ChatRequest, now: datetime) -> tuple[ChatAction, bool] | None:
        """Return what a button does and whether it stays, None if it is not valid (any more)."""
        match = _DATA.fullmatch(request.button)
        found = self._sets.get(match[1]) if match else None
        if match is None or found is None or int(match[2]) >= len(found.actions):
            return None
        is_theirs = (found.who, found.chat) == (request.who, request.chat)
        if not is_theirs or found.message not in ("", request.message):
            return None
        if now >= found.until or not found.is_lasting:
            del self._sets[match[1]]
        if now >= found.until:
            return None
        found.message = request.message
        return found.actions[int(match[2])], found.is_lasting
