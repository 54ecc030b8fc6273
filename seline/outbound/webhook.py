"""A webhook: JSON in the shape of Railway's own webhooks, so that one receiver takes both.

`type`, `details`, `resource`, `severity` (in capitals) and `timestamp`, as Railway sends them; and
`id` and `state`, by which a receiver knows an alert again and sees it end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import aiohttp

from seline.clock import instant_text
from seline.domain.alerts.lifecycle import Alert, Severity
from seline.domain.document import Json
from seline.outbound.http_client import Recipient, post
from seline.ports.alerts import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSink:
    """Posts alerts to an address. `token`, if given, goes as `Authorization: Bearer`."""

    name: str
    min_severity: Severity
    session: aiohttp.ClientSession = field(repr=False)
    url: str = field(repr=False)
    service: str
    place: str
    token: str | None = field(default=None, repr=False)
    kind: str = "webhook"

    async def send(self, alert: Alert) -> Delivery:
        """Post one alert; every status of success is one."""
        secrets = (self.url, self.token) if self.token else (self.url,)
        envelope = Recipient(sink=self.name, kind=self.kind, secrets=secrets)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        payload = webhook_payload(alert, service=self.service, place=self.place)
        return await post(self.session, self.url, payload, envelope, headers=headers)


def webhook_payload(alert: Alert, *, service: str, place: str) -> Json:
    """Return the body of the request."""
    resource: dict[str, Json] = {"service": {"name": service}, "volume": {"mountPath": place}}
    if alert.document is not None:
        resource["document"] = {"name": alert.document}
    return {
        "id": alert.id,
        "type": alert.type.value,
        "state": alert.state,
        "severity": alert.severity.value.upper(),
        "timestamp": instant_text(alert.last_at),
        "resource": resource,
        "details": {
            **alert.details,
            "summary": alert.summary,
            "fix": alert.fix,
            "count": alert.count,
            "firstAt": instant_text(alert.first_at),
            "lastAt": instant_text(alert.last_at),
        },
    }
