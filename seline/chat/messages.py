"""What goes into the core and comes out of it: requests, and replies with buttons."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

ChatService: TypeAlias = Literal["telegram", "discord"]
ReplyKind: TypeAlias = Literal["new", "edit", "notice"]
"""A new message, one that replaces the message of the button, or a short hint beside it."""
COMMAND: Final = "seline"
MARK: Final = f"{COMMAND}:"
"""How the data of each button of Seline begins, so that a front can leave the others to the bot."""
LABEL_CHARACTERS_MAX: Final = 40
NOTICE_CHARACTERS_MAX: Final = 200


class ServiceLimits(NamedTuple):
    """What a service accepts in a message and in a file, and how its buttons are laid out."""

    text_max: int
    file_bytes_max: int
    choices_per_row: int
    buttons_per_row: int


LIMITS: Final[Mapping[ChatService, ServiceLimits]] = {
    "telegram": ServiceLimits(4096, 50_000_000, 1, 2),
    "discord": ServiceLimits(2000, 10 << 20, 2, 5),
}
"""Telegram counts UTF-16 units. Discord takes at most 5 rows of buttons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a person sent: the command with a `word` after it, or a `button` under a `message`."""

    service: ChatService
    user: str
    chat: str
    is_private: bool
    word: str = ""
    button: str = ""
    message: str = ""

    @property
    def who(self) -> str:
        """The account as `chat.owners` names it."""
        return f"{self.service}:{self.user}"


class ReplyButton(NamedTuple):
    """A button as a service gets it; `data` comes back when it is pressed."""

    label: str
    data: str


class SentFile(NamedTuple):
    """A file that is sent before the text."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """What the person gets. The text is plain: a front sends it without any markup."""

    kind: ReplyKind
    text: str
    rows: Sequence[Sequence[ReplyButton]] = ()
    file: SentFile | None = None


class ChatAction(NamedTuple):
    """What a button does: the view that it opens, and of what."""

    view: str
    document: str = ""
    backup: str = ""
    revision: str = ""
    word: str = ""
    page: int = 0


class CardButton(NamedTuple):
    """A button of a card."""

    label: str
    action: ChatAction


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a view shows. `choices` are entries of its list, `buttons` what else can be done.

    `outcome` is for the audit log.
    """

    text: str
    choices: Sequence[CardButton] = ()
    buttons: Sequence[CardButton] = ()
    file: SentFile | None = None
    outcome: str = "done"


def fitted(text: str, units_max: int) -> str:
    """Shorten a text to so many UTF-16 units; what is not valid Unicode is replaced."""
    data = text.encode("utf-16-le", "replace")
    if len(data) <= 2 * units_max:
        return data.decode("utf-16-le")
    return data[: 2 * (units_max - 1)].decode("utf-16-le", "ignore") + "…"


def utf16_units(text: str) -> int:
    """Return the length of a text as Telegram counts it."""
    return len(text.encode("utf-16-le", "replace")) // 2


def label(text: str) -> str:
    """Shorten the label of a button in its middle: names often differ at their ends."""
    if len(text) <= LABEL_CHARACTERS_MAX:
        return text
    half = (LABEL_CHARACTERS_MAX - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def one_line(text: str, characters_max: int) -> str:
    """Return a text on one line, shortened."""
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= characters_max else line[: characters_max - 1] + "…"
