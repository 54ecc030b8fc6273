"""Telegram: one message of a bot to a chat, as plain text.

The token is a part of the address, so the address is never shown. What only informs makes no sound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import aiohttp

from seline.domain.alerts.lifecycle import Alert, Severity
from seline.domain.alerts.message import body, cut, title
from seline.domain.document import Json
from seline.domain.texts import Language
from seline.outbound.http_client import Recipient, field_of, post, seconds
from seline.ports.alerts import Delivery

API: Final = "https://api.telegram.org"
TEXT_CHARACTERS_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TelegramSink:
    """Sends alerts through a bot. `chat_id` is a number, or `@channel`."""

    name: str
    min_severity: Severity
    session: aiohttp.ClientSession = field(repr=False)
    token: str = field(repr=False)
    chat_id: str = field(repr=False)
    service: str
    language: Language
    url: str = field(default=API, repr=False)
    kind: str = "telegram"

    async def send(self, alert: Alert) -> Delivery:
        """Send one message; it is delivered when Telegram says `ok`."""
        text = f"{title(alert, self.service, self.language)}\n{body(alert, self.language)}"
        quiet = alert.severity is Severity.INFO or alert.state == "resolved"
        payload: Json = {
            "chat_id": self.chat_id,
            "text": cut(text, TEXT_CHARACTERS_MAX),
            "disable_notification": quiet,
            "link_preview_options": {"is_disabled": True},
        }
        return await post(
            self.session,
            f"{self.url.rstrip('/')}/bot{self.token}/sendMessage",
            payload,
            Recipient(sink=self.name, kind=self.kind, secrets=(self.token, self.chat_id)),
            said=_description,
            patience=lambda answer: seconds(field_of(answer, "parameters", "retry_after")),
            accepted=lambda answer: field_of(answer, "ok") is True,
        )


def _description(answer: Json) -> str:
    described = field_of(answer, "description")
    return described if isinstance(described, str) else ""
