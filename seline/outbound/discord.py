"""Discord: one embed through a channel's webhook, whose address is the secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from seline.clock import instant_text
from seline.domain.alerts.lifecycle import Alert, Severity
from seline.domain.alerts.message import body, cut, title
from seline.domain.document import Json
from seline.domain.texts import Language
from seline.outbound.http_client import Recipient, field_of, post, seconds
from seline.ports.alerts import Delivery

TITLE_CHARACTERS_MAX: Final = 256
TEXT_CHARACTERS_MAX: Final = 4096
COLOR_OF: Final[Mapping[str, int]] = {
    Severity.INFO: 0x3B82F6,
    Severity.WARNING: 0xF59E0B,
    Severity.CRITICAL: 0xDC2626,
    "resolved": 0x16A34A,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordSink:
    """Sends alerts to a channel; nobody is mentioned, whatever a document is called."""

    name: str
    min_severity: Severity
    session: aiohttp.ClientSession = field(repr=False)
    url: str = field(repr=False)
    service: str
    language: Language
    kind: str = "discord"

    async def send(self, alert: Alert) -> Delivery:
        """Send one embed and wait until Discord has saved it."""
        embed: dict[str, Json] = {
            "title": cut(title(alert, self.service, self.language), TITLE_CHARACTERS_MAX),
            "description": cut(body(alert, self.language), TEXT_CHARACTERS_MAX),
            "color": COLOR_OF["resolved" if alert.state == "resolved" else alert.severity],
            "timestamp": instant_text(alert.last_at),
            "footer": {"text": alert.id},
        }
        payload: Json = {"embeds": [embed], "allowed_mentions": {"parse": []}}
        return await post(
            self.session,
            _waiting(self.url),
            payload,
            Recipient(sink=self.name, kind=self.kind, secrets=_secrets(self.url)),
            said=_message,
            patience=lambda answer: seconds(field_of(answer, "retry_after")),
        )


def _waiting(url: str) -> str:
    """Return the address that answers once the message is saved, not before."""
    parts = urlsplit(url)
    query = f"{parts.query}&wait=true" if parts.query else "wait=true"
    return urlunsplit(parts._replace(query=query))


def _secrets(url: str) -> tuple[str, ...]:
    """Return the address, and its last part alone: the webhook's token."""
    return url, urlsplit(url).path.rstrip("/").rpartition("/")[2] or url


def _message(answer: Json) -> str:
    told = field_of(answer, "message")
    return told if isinstance(told, str) else ""
