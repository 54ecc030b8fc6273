"""The queue of one sink: alerts leave it in order, one at a time, and wait while the sink fails.

Only the newest notification of an alert waits. The end of one whose beginning waits is sent with it
as one message, or neither is sent. Alerts that follow closely upon one another wait for the last of
them; more than a few that wait are sent as one digest.

A failing sink delays only its own queue, and an alert that its sink refuses does not block the
others. An alert is dropped only after a week in the queue, or if too many wait (the least severe
first). Each dropped alert is counted and logged.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final

from seline.clock import Clock
from seline.domain.alerts.lifecycle import KIND_OF, Alert, rank_of, unsent
from seline.domain.alerts.message import digest, worded
from seline.domain.alerts.retry import backoff_s, bounded
from seline.domain.plural import counted
from seline.domain.texts import Language
from seline.ports.alerts import AlertSink, Delivery, SinkStatus

SEND_S: Final = 30.0
BURST_S: Final = 4.0
"""An alert waits until this time has passed without another one, so that one message has both."""
BURST_MAX_S: Final = 60.0
SINGLE_MAX: Final = 5
"""If more alerts wait, they are sent as one digest."""
_log = logging.getLogger("seline.alerts")


async def attempt(sink: AlertSink, alert: Alert) -> Delivery:
    """Send one alert once. Every failure is an outcome."""
    try:
        async with asyncio.timeout(SEND_S):
            return await sink.send(alert)
    except TimeoutError:
        detail = f"no answer within {SEND_S:.0f} s"
    except Exception as error:  # noqa: BLE001  # a defect of the sink; its text may hold a secret
        detail = f"a defect: {type(error).__name__}"
    return _failed(sink, detail)


class SinkQueue:
    """The alerts that wait for one sink."""

    def __init__(
        self,
        sink: AlertSink,
        *,
        clock: Clock,
        jitter: Callable[[], float],
        language: Language,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        """`changed` is awaited after each message that the sink accepted."""
        self.sink = sink
        self._clock = clock
        self._jitter = jitter
        self._language: Language = language
        self._changed = changed
        self._waiting: dict[str, Alert] = {}
        self._sending: tuple[Alert, ...] = ()
        self._due_s = 0.0
        self._burst_s = 0.0
        self._held_s = 0.0
        self._one_by_one = False
        self._running: asyncio.Task[None] | None = None
        self._status = SinkStatus(name=sink.name, kind=sink.kind, min_severity=sink.min_severity)

    @property
    def waiting(self) -> tuple[Alert, ...]:
        """The alerts to deliver, in order."""
        return (*self._sending, *self._waiting.values())

    @property
    def status(self) -> SinkStatus:
        return replace(self._status, waiting=len(self._sending) + len(self._waiting))

    def add(self, alerts: Iterable[Alert], *, first: bool = False) -> None:
        """Queue the alerts that are severe enough for the sink; `first`: before the others."""
        wanted = [alert for alert in alerts if self._is_wanted(alert)]
        if not wanted:
            return
        self._hold()
        waiting = [*self._waiting.values()]
        self._put(*([*wanted, *waiting] if first else [*waiting, *wanted]))
        self._drop_surplus()

    def follow(self, alerts: Iterable[Alert]) -> None:
        """Bring the open alerts that wait up to date."""
        for alert in alerts:
            waiting = self._waiting.get(alert.id)
            if waiting is None or alert.state != "open" or not self._is_wanted(alert):
                continue
            if alert.details != waiting.details:
                self._hold()
            self._put(*self._waiting.values(), alert)

    def start(self, *, at_once: bool = False) -> asyncio.Task[None] | None:
        """Start to deliver if an attempt is due; return the running delivery.

        `at_once` does not wait for the end of a burst.
        """
        if at_once:
            self._held_s = 0.0
        if self._running is not None and not self._running.done():
            return self._running
        if not self._is_due():
            return None
        self._running = asyncio.create_task(self._deliver(), name=f"alerts to {self.sink.name}")
        return self._running

    async def test(self, alert: Alert) -> Delivery:
        """Send an alert that is not queued. After a success the others are due."""
        delivery = await attempt(self.sink, alert)
        self._record(delivery)
        if delivery.delivered:
            self._due_s = 0.0
        return delivery

    async def stop(self, *, wait_s: float) -> None:
        """Wait for a running delivery, then cancel it; its alerts stay in the queue."""
        if self._running is None or self._running.done():
            return
        await asyncio.wait({self._running}, timeout=wait_s)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    # delivering

    def _is_due(self) -> bool:
        return bool(self._waiting) and self._clock.monotonic() >= max(self._due_s, self._held_s)

    async def _deliver(self) -> None:
        self._drop_surplus()
        while self._is_due():
            self._sending = self._next()
            for alert in self._sending:
                del self._waiting[alert.id]
            delivery = await self._send(self._sending)
            self._record(delivery)
            if not delivery.delivered:
                self._retry_later(delivery)
                return
            self._sending = ()
            self._one_by_one = self._one_by_one and bool(self._waiting)
            await self._changed()

    async def _send(self, alerts: tuple[Alert, ...]) -> Delivery:
        """Send the alerts as one message. Without a digest, they are then sent one by one."""
        if len(alerts) == 1:
            return await attempt(self.sink, alerts[0])
        try:
            message = digest(alerts, self._language)
        except Exception as error:  # noqa: BLE001  # a defect; each alert can still be sent
            detail = f"a defect in the digest: {type(error).__name__}"
            return _failed(self.sink, detail, refused=True)
        return await attempt(self.sink, message)

    def _next(self) -> tuple[Alert, ...]:
        """Return the alerts of the next message: the first one, or all if these are many."""
        waiting = tuple(self._waiting.values())
        return waiting[:1] if len(waiting) <= SINGLE_MAX or self._one_by_one else waiting

    def _record(self, delivery: Delivery) -> None:
        failures = 0 if delivery.delivered else self._status.failures + 1
        self._status = replace(self._status, failures=failures, detail=delivery.detail)
        if delivery.delivered:
            self._status = replace(self._status, delivered_at=self._clock.now())

    def _retry_later(self, delivery: Delivery) -> None:
        back, self._sending = self._sending, ()
        if not delivery.refused or len(back) > 1:
            self._one_by_one |= delivery.refused
            self._put(*back, *self._waiting.values())
        else:  # let the others pass: perhaps the sink refuses only this alert
            newer = [self._waiting.pop(alert.id) for alert in back if alert.id in self._waiting]
            self._put(*self._waiting.values(), *back, *newer)
        failures = self._status.failures
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

    # the alerts that wait

    def _is_wanted(self, alert: Alert) -> bool:
        return alert.severity.rank >= self.sink.min_severity.rank

    def _put(self, *alerts: Alert) -> None:
        """Make these the alerts that wait. Of one alert the last notification replaces the others.

        An event keeps its worst one: a later occurrence does not undo what was lost. The end of a
        condition is sent as `unsent` returns it.
        """
        self._waiting = {}
        for alert in alerts:
            known = self._waiting.get(alert.id)
            last = alert if known is None else self._last_of(known, alert)
            if last is None:
                del self._waiting[alert.id]
            else:
                self._waiting[alert.id] = last

    def _last_of(self, known: Alert, alert: Alert) -> Alert | None:
        """Return what to send of two notifications of one alert, None for nothing."""
        if KIND_OF[alert.type].course == "event":
            return alert if rank_of(alert) >= rank_of(known) else known
        if (known.state, alert.state) != ("open", "resolved"):
            return alert
        over = unsent(known, alert)
        return None if over is None else worded(over, self._language)

    def _hold(self) -> None:
        """Wait for the end of a burst, at most a minute after its first alert.

        Call it before the alert is added. Only an empty queue starts a burst: an alert that arrives
        at the end of that minute must not delay those that wait.
        """
        now_s = self._clock.monotonic()
        if not self._waiting:
            self._burst_s = now_s
        self._held_s = min(now_s + BURST_S, self._burst_s + BURST_MAX_S)

    def _drop_surplus(self) -> None:
        kept = bounded([*self._waiting.values()], self._clock.now())
        dropped = len(self._waiting) - len(kept)
        if not dropped:
            return
        self._put(*kept)
        self._status = replace(self._status, given_up=self._status.given_up + dropped)
        _log.error(
            "%d alerts to the sink %s were dropped: too old, or too many", dropped, self.sink.name
        )


def _failed(sink: AlertSink, detail: str, *, refused: bool = False) -> Delivery:
    return Delivery(sink=sink.name, kind=sink.kind, delivered=False, detail=detail, refused=refused)
