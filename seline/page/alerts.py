"""Alerts: what is open, what was, who receives them, and a test with the answer of each sink."""

from typing import Final

from aiohttp import web

from seline.domain.alerts.lifecycle import Severity
from seline.domain.alerts.message import worded
from seline.domain.sentences.translate import translated
from seline.page import work
from seline.page.visit import POLL_S, PageRoute, View, Visit
from seline.ports.alerts import Delivery


async def show(visit: Visit) -> web.Response:
    """Show the open alerts, the most serious first, those that are over, and the sinks."""
    log, words = visit.context.alerts, visit.texts.language
    alerts = [worded(alert, words) for alert in log.listing()]
    is_open = [alert for alert in alerts if alert.state == "open"]
    return visit.render(
        "alerts.html",
        poll_s=POLL_S,
        alerts=sorted(is_open, key=lambda alert: Severity(alert.severity).rank, reverse=True),
        over=[alert for alert in alerts if alert.state != "open"],
        sinks=log.sinks(),
        sending=bool(visit.context.operations.sinks()),
        words=words,
    )


async def test(visit: Visit) -> web.Response:
    """Send the test alert to every sink, and say what each answered."""

    async def operation(_progress: work.NoteProgress) -> work.Done:
        deliveries = await visit.context.alerts.test()
        return work.Done("\n".join(_line(visit, delivery) for delivery in deliveries))

    return await work.start(visit, visit.texts("alerts.test"), operation, back="/alerts")


def _line(visit: Visit, delivery: Delivery) -> str:
    return visit.texts(
        "alerts.delivered" if delivery.delivered else "alerts.not_delivered",
        sink=delivery.sink,
        took=visit.texts.number(delivery.took_ms),
        detail=translated(visit.texts.language, delivery.detail),
    )


ALERTS: Final = View(
    "alerts",
    "/alerts",
    (PageRoute("GET", "/alerts", show), PageRoute("POST", "/alerts/test", test, "admin")),
)
