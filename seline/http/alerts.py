"""The handlers for alerts: the list, and the test alert."""

from aiohttp import web

from seline.domain.alerts.lifecycle import Alert
from seline.domain.document import Json
from seline.http.context import context, operations
from seline.http.rendering import answer, members


async def list_alerts(request: web.Request) -> web.StreamResponse:
    """Answer the alerts, the open ones first, the status of each sink, and whether any is sent."""
    log = context(request).alerts
    alerts = [_shape(alert) for alert in log.listing()]
    sending = bool(operations(request).sinks())
    return answer({"alerts": alerts, "sinks": log.sinks(), "sending": sending})


async def test_alerts(request: web.Request) -> web.StreamResponse:
    """Send the test alert to every sink now; answer the outcome at each."""
    return answer({"deliveries": await context(request).alerts.test()})


def _shape(alert: Alert) -> dict[str, Json]:
    """Return an alert as JSON, with `document` only if it is about one."""
    return {name: value for name, value in members(alert).items() if name != "document" or value}
