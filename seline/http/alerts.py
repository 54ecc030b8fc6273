"""The handlers for alerts: the list, and the test alert."""

from typing import cast

import msgspec
from aiohttp import web

from seline.domain.alerts.lifecycle import Alert
from seline.http.answers import AlertList, AlertShown, Deliveries
from seline.http.context import context, operations
from seline.http.rendering import JsonAnswer, answer


async def list_alerts(request: web.Request) -> JsonAnswer[AlertList]:
    """Answer the alerts, the open ones first, the status of each sink, and whether any is sent."""
    log = context(request).alerts
    alerts = [_shown(alert) for alert in log.listing()]
    sending = bool(operations(request).sinks())
    return answer(AlertList(alerts=alerts, sinks=log.sinks(), sending=sending))


async def test_alerts(request: web.Request) -> JsonAnswer[Deliveries]:
    """Send the test alert to every sink now; answer the outcome at each."""
    return answer(Deliveries(deliveries=await context(request).alerts.test()))


def _shown(alert: Alert) -> AlertShown:
    fields = msgspec.structs.asdict(alert)
    if not alert.document:
        del fields["document"]
    return cast("AlertShown", fields)
