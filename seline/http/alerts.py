"""The handlers for alerts: the list, and the test alert."""

from aiohttp import web

from seline.alerts.log import AlertLog
from seline.domain.alerts.lifecycle import Alert
from seline.domain.document import Json
from seline.errors import RouteNotFound
from seline.http.context import context
from seline.http.rendering import answer, plain


async def list_alerts(request: web.Request) -> web.StreamResponse:
    """Answer the alerts, the open ones first, and the status of each sink."""
    log = _log(request)
    alerts = [_shape(alert) for alert in log.listing()]
    return answer({"alerts": alerts, "sinks": log.sinks()})


async def test_alerts(request: web.Request) -> web.StreamResponse:
    """Send the test alert to every sink now; answer the outcome at each."""
    return answer({"deliveries": await _log(request).test()})


def _log(request: web.Request) -> AlertLog:
    log = context(request).alerts
    if log is None:
        raise RouteNotFound("This process keeps no alerts.")
    return log


def _shape(alert: Alert) -> Json:
    """Return an alert as JSON, with `document` only if it is about one."""
    shape = plain(alert)
    assert isinstance(shape, dict)
    return {name: value for name, value in shape.items() if name != "document" or value}
