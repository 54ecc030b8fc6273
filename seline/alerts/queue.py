"""One lane for each sink: alerts leave it in order, one at a time, and wait while the sink fails.

A dead sink holds up its own lane alone; an alert that its sink refuses lets the others pass.
Nothing is dropped but what waited for a week, and the least of too many; each is counted and
logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from seline.clock import Clock
from seline.domain.alerts.lifecycle import Alert
from seline.domain.alerts.retry import backoff_s, bounded
from seline.domain.plural import counted
from seline.ports.alerts import AlertSink, Delivery, SinkStatus

SEND_S: Final = 30.0
_log = logging.getLogger("seline.alerts")


async def attempt(sink: AlertSink, alert: Alert) -> Delivery:
    """Send one alert once; whatever goes wrong is an answer."""
    try:
        async with asyncio.timeout(SEND_S):
            return await sink.send(alert)
    except TimeoutError:
        detail = f"no answer within {SEND_S:.0f} s"
    except Exception as error:  # noqa: BLE001  # a sink's own defect; its text may hold a secret
        detail = f"a defect: {type(error).__name__}"
    return Delivery(sink=sink.name, kind=sink.kind, delivered=False, detail=detail)


class SinkQueue:
    """What waits for one sink."""

    def __init__(
        self,
        sink: AlertSink,
        *,
        clock: Clock,
        jitter: Callable[[], float],
        moved: Callable[[], Awaitable[None]],
    ) -> None:
        """`moved` is awaited after each alert that left the lane."""
        self.sink = sink
        self._clock = clock
        self._jitter = jitter
        self._moved = moved
        self._waiting: list[Alert] = []
        self._due_s = 0.0
        self._failures = 0
        self._detail = ""
        self._given_up = 0
        self._delivered_at: datetime | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> Sequence[Alert]:
        """What is to be delivered, in order."""
        return tuple(self._waiting)

    def add(self, alerts: Sequence[Alert], *, first: bool = False) -> None:
        """Have alerts wait, if the sink wants to hear of them; `first`: before the others."""
        wanted = [one for one in alerts if one.severity.rank >= self.sink.min_severity.rank]
        self._waiting = [*wanted, *self._waiting] if first else [*self._waiting, *wanted]
        self._drop_surplus()

    def start(self) -> asyncio.Task[None] | None:
        """Deliver what waits, if it is time; return the running delivery."""
        if self._running is not None and not self._running.done():
            return self._running
        if not self._waiting or self._clock.monotonic() < self._due_s:
            return None
        self._running = asyncio.create_task(self._deliver(), name=f"alerts to {self.sink.name}")
        return self._running

    def status(self) -> SinkStatus:
        """Return how the sink stands."""
        return SinkStatus(
            name=self.sink.name,
            kind=self.sink.kind,
            min_severity=self.sink.min_severity,
            waiting=len(self._waiting),
            failures=self._failures,
            detail=self._detail,
            given_up=self._given_up,
            delivered_at=self._delivered_at,
        )

    async def stop(self, *, wait_s: float) -> None:
        """Let a running delivery end, and end it after `wait_s`; what it carried still waits."""
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
            if not self._settle(alert, delivery):
                return
            await self._moved()

    def _settle(self, alert: Alert, delivery: Delivery) -> bool:
        """Take note of an attempt; return whether the alert left the lane."""
        if not delivery.delivered:
            self._failed(delivery)
            if delivery.refused:
                self._put_last(alert)
            return False
        self._failures, self._detail = 0, ""
        self._delivered_at = self._clock.now()
        self._leave(alert)
        return True

    def _failed(self, delivery: Delivery) -> None:
        self._failures += 1
        self._detail = delivery.detail
        again_s = backoff_s(
            self._failures, jitter=self._jitter(), retry_after_s=delivery.retry_after_s
        )
        self._due_s = self._clock.monotonic() + again_s
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        _log.log(
            level,
            "the alert sink %s fails: %s; %s waiting, the next try is in %.0f s",
            self.sink.name,
            delivery.detail,
            counted(len(self._waiting), "alert"),
            again_s,
        )

    def _put_last(self, alert: Alert) -> None:
        """Let the others pass: it may be this one alone that the sink does not take."""
        self._leave(alert)
        self._waiting.append(alert)

    def _leave(self, alert: Alert) -> None:
        """Take an alert out, wherever it stands now."""
        self._waiting = [one for one in self._waiting if one is not alert]

    def _drop_surplus(self) -> None:
        kept = bounded(self._waiting, self._clock.now())
        if len(kept) < len(self._waiting):
            self._give_up(len(self._waiting) - len(kept), "too old, or too many")
            self._waiting = list(kept)

    def _give_up(self, count: int, why: str) -> None:
        self._given_up += count
        _log.error("%d alerts to the sink %s were given up: %s", count, self.sink.name, why)
