"""ntfy: a notification on a phone.

The address ends in the topic, which is as good as a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from seline.domain.alerts.lifecycle import Alert, Severity
from seline.domain.alerts.message import body, cut, title
from seline.domain.document import Json
from seline.domain.texts import Language
from seline.outbound.http_client import Recipient, field_of, post
from seline.ports.alerts import Delivery

TEXT_CHARACTERS_MAX: Final = 1024
"""ntfy takes 4,096 bytes; four of them may make a character."""
PRIORITY_OF: Final[Mapping[str, int]] = {
    Severity.INFO: 2,
    Severity.WARNING: 4,
    Severity.CRITICAL: 5,
    "resolved": 3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NtfySink:
    """Publishes alerts to a topic. `token`, if given, goes as `Authorization: Bearer`."""

    name: str
    min_severity: Severity
    session: aiohttp.ClientSession = field(repr=False)
    url: str = field(repr=False)
    service: str
    language: Language
    token: str | None = field(default=None, repr=False)
    kind: str = "ntfy"

    async def send(self, alert: Alert) -> Delivery:
        """Publish one notification, as JSON to the server's root: headers hold no accents."""
        server, _, topic = self.url.rstrip("/").rpartition("/")
        payload: Json = {
            "topic": topic,
            "title": title(alert, self.service, self.language),
            "message": cut(body(alert, self.language), TEXT_CHARACTERS_MAX),
            "priority": PRIORITY_OF["resolved" if alert.state == "resolved" else alert.severity],
            "tags": [alert.type.value],
        }
        secrets = (self.url, topic, self.token) if self.token else (self.url, topic)
        return await post(
            self.session,
            f"{server}/",
            payload,
            Recipient(sink=self.name, kind=self.kind, secrets=secrets),
            headers={"Authorization": f"Bearer {self.token}"} if self.token else {},
            said=_error,
        )


def _error(answer: Json) -> str:
    told = field_of(answer, "error")
    return told if isinstance(told, str) else ""
