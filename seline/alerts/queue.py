"""The queue of one sink: alerts leave it in order, one at a time, and wait while the sink fails.

A failing sink delays only its own queue, and an alert that its sink refuses does not block the
others. An alert is dropped only after a week in the queue, or if too many wait (the least severe
first). Each dropped alert is counted and logged.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from seline.clock import Clock
from seline.domain.alerts.lifecycle import Alert, Severity
from seline.domain.alerts.retry import backoff_s, bounded
from seline.domain.plural import counted
from seline.ports.alerts import AlertSink, Delivery

SEND_S: Final = 30.0
_log = logging.getLogger("seline.alerts")


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatus:
    """The state of one sink as `GET /alerts` shows it.

    `failures` counts the failed attempts since the last success; `detail` is the reason of the last
    one. `given_up` counts the alerts that were dropped since the start.
    """

    name: str
    kind: str
    min_severity: Severity
    waiting: int = 0
    failures: int = 0
    detail: str = ""
    given_up: int = 0
    delivered_at: datetime | None = None


async def attempt(sink: AlertSink, alert: Alert) -> Delivery:
    """Send one alert once. Every failure is an outcome."""
    try:
        async with asyncio.timeout(SEND_S):
            return await sink.send(alert)
    except TimeoutError:
        detail = f"no answer within {SEND_S:.0f} s"
    except Exception as error:  # noqa: BLE001  # a defect of the sink; its text may hold a secret
        detail = f"a defect: {type(error).__name__}"
    return Delivery(sink=sink.name, kind=sink.kind, delivered=False, detail=detail)


class SinkQueue:
    """The alerts that wait for one sink."""

    def __init__(
        self,
        sink: AlertSink,
        *,
        clock: Clock,
        jitter: Callable[[], float],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        """`changed` is awaited after each alert that left the queue."""
        self.sink = sink
        self._clock = clock
        self._jitter = jitter
        self._changed = changed
        self._waiting: list[Alert] = []
        self._due_s = 0.0
        self._running: asyncio.Task[None] | None = None
        self._status = SinkStatus(name=sink.name, kind=sink.kind, min_severity=sink.min_severity)

    @property
    def waiting(self) -> tuple[Alert, ...]:
        """The alerts to deliver, in order."""
        return tuple(self._waiting)

    @property
    def status(self) -> SinkStatus:
        return replace(self._status, waiting=len(self._waiting))

    def add(self, alerts: Sequence[Alert], *, first: bool = False) -> None:
        """Queue the alerts that are severe enough for the sink; `first`: before the others."""
        wanted = [alert for alert in alerts if alert.severity.rank >= self.sink.min_severity.rank]
        self._waiting = [*wanted, *self._waiting] if first else [*self._waiting, *wanted]
        self._drop_surplus()

    def start(self) -> asyncio.Task[None] | None:
        """Start to deliver if an attempt is due; return the running delivery."""
        if self._running is not None and not self._running.done():
            return self._running
        if not self._waiting or self._clock.monotonic() < self._due_s:
            return None
        self._running = asyncio.create_task(self._deliver(), name=f"alerts to {self.sink.name}")
        return self._running

    async def stop(self, *, wait_s: float) -> None:
        """Wait for a running delivery, then cancel it; its alert stays in the queue."""
        if self._running is None or self._running.done():
            return
        await asyncio.wait({self._running}, timeout=wait_s)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def _deliver(self) -> None:
        self._drop_surplus()
        while self._waiting:
            alert = self._waiting[0]
            delivery = await attempt(self.sink, alert)
            if not delivery.delivered:
                self._retry_later(alert, delivery)
                return
            self._remove(alert)
            now = self._clock.now()
            self._status = replace(self._status, failures=0, detail="", delivered_at=now)
            await self._changed()

    def _retry_later(self, alert: Alert, delivery: Delivery) -> None:
        if delivery.refused:  # let the others pass: perhaps the sink refuses only this alert
            self._remove(alert)
            self._waiting.append(alert)
        failures = self._status.failures + 1
        self._status = replace(self._status, failures=failures, detail=delivery.detail)
        wait_s = backoff_s(failures, jitter=self._jitter(), retry_after_s=delivery.retry_after_s)
        self._due_s = self._clock.monotonic() + wait_s
        _log.log(
            logging.WARNING if failures == 1 else logging.DEBUG,
            "the alert sink %s fails: %s; %s waiting, the next try is in %.0f s",
            self.sink.name,
            delivery.detail,
            counted(len(self._waiting), "alert"),
            wait_s,
        )

    def _remove(self, alert: Alert) -> None:
        """Remove an alert from any position in the queue."""
        self._waiting = [other for other in self._waiting if other is not alert]

    def _drop_surplus(self) -> None:
        kept = bounded(self._waiting, self._clock.now())
        dropped = len(self._waiting) - len(kept)
        if not dropped:
            return
        self._waiting = list(kept)
        self._status = replace(self._status, given_up=self._status.given_up + dropped)
        _log.error(
            "%d alerts to the sink %s were dropped: too old, or too many", dropped, self.sink.name
        )
