"""The alert log: it applies signals to alerts, keeps them across restarts, and feeds every sink.

The states and the queues are kept in `.seline/alerts.json`. While the store cannot be written,
they are kept in memory and delivered as usual. A caller waits for the store, for one second at
most, and never for a sink. Delivery is at least once.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from seline.alerts.queue import SinkQueue
from seline.clock import Clock
from seline.domain.alerts.lifecycle import (
    Alert,
    AlertsFile,
    AlertState,
    AlertType,
    Cleared,
    Signal,
    States,
    Transition,
    limited,
    on_cleared,
    on_raised,
    on_time_passed,
    retained,
    trial,
)
from seline.domain.alerts.message import worded
from seline.errors import SelineError
from seline.manager import ManagedStore
from seline.ports.alerts import AlertSink, Delivery, SinkStatus

WRITE_WAIT_S: Final = 1.0
WRITE_RETRY_S: Final = 30.0
DELIVER_WAIT_S: Final = 30.0
STOP_WAIT_S: Final = 1.0
_log = logging.getLogger("seline.alerts")


class AlertLog:
    """The alerts of one store, and the queues of their sinks.

    `take` applies signals. `deliver_due`, called every few seconds to a minute, delivers, repeats
    notifications, and retries failed deliveries and failed writes.
    """

    def __init__(
        self,
        store: ManagedStore,
        sinks: Iterable[AlertSink],
        *,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Work over a store that may not be open yet. Until `load`, everything is in memory."""
        self._file = store.state(
            "alerts.json", AlertsFile, lambda: AlertsFile(alerts=(), waiting={})
        )
        self._clock = clock or store.clock
        self._settings = store.settings.alerts
        self._renotify = timedelta(hours=self._settings.renotify_h)
        self._states: dict[tuple[AlertType, str], AlertState] = {}
        self._queues = [
            SinkQueue(
                sink,
                clock=self._clock,
                jitter=jitter,
                language=self._settings.language,
                changed=self._write,
            )
            for sink in sinks
        ]
        self._loaded = False
        self._unreadable = False
        self._unwritten = False
        self._write_after_s = 0.0

    async def load(self, *, deliver: bool = True) -> None:
        """Add the stored states and queues once the store is open.

        A file that cannot be read now is retried by `deliver_due`. Without `deliver` the alerts are
        only listed, and nothing is written. Raises nothing.
        """
        try:
            stored = await self._file.load()
        except SelineError as error:
            self._unreadable = True
            _log.warning("could not read the alerts: %s", error.message)
            return
        self._unreadable = self._file.failure is not None
        if self._unreadable:
            return
        for state in stored.alerts:
            alert = worded(state.alert, self._settings.language)
            self._states.setdefault(state.key, replace(state, alert=alert))
        for queue in self._queues:
            queue.add(stored.waiting.get(queue.sink.name, ()), first=True)
        self._loaded = True
        if deliver and (self._hand_over(stored) or self._unwritten):
            await self._write()

    async def take(self, signals: Iterable[Signal]) -> None:
        """Apply signals in order, queue the notifications, and keep what changed."""
        now, before = self._clock.now(), dict(self._states)
        notified = [alert for signal in signals for alert in self._apply(signal, now)]
        await self._publish(notified, before, now)

    def listing(self) -> Sequence[Alert]:
        """Return the alerts: the open ones first, then the latest first."""
        alerts = [state.alert for state in self._states.values()]
        alerts.sort(key=lambda alert: alert.last_at, reverse=True)
        return sorted(alerts, key=lambda alert: alert.state)

    def sinks(self) -> Sequence[SinkStatus]:
        """Return the status of each sink."""
        return [queue.status for queue in self._queues]

    async def deliver_due(self, *, wait_s: float = DELIVER_WAIT_S, at_once: bool = False) -> None:
        """Repeat the notifications that are due, and try every sink whose attempt is due.

        Returns once each has delivered or failed, or after `wait_s`. `at_once` does not wait for
        the end of a burst of alerts.
        """
        if self._unreadable:
            await self.load()
        now, before = self._clock.now(), dict(self._states)
        transitions = [
            on_time_passed(state, now=now, renotify=self._renotify) for state in before.values()
        ]
        notified = [alert for transition in transitions for alert in self._enter(transition)]
        await self._publish(notified, before, now)
        started = [queue.start(at_once=at_once) for queue in self._queues]
        if running := [task for task in started if task is not None]:
            await asyncio.wait(running, timeout=wait_s)

    async def test(self) -> Sequence[Delivery]:
        """Send the test alert to every sink once and return the outcomes. It is not kept."""
        alert = worded(trial(self._clock.now()), self._settings.language)
        return await asyncio.gather(*(queue.test(alert) for queue in self._queues))

    async def close(self) -> None:
        """Wait a moment for running deliveries; the rest stays in the file. Idempotent."""
        await asyncio.gather(*(queue.stop(wait_s=STOP_WAIT_S) for queue in self._queues))
        if self._unwritten:
            await self._write()

    # applying signals

    def _apply(self, signal: Signal, now: datetime) -> list[Alert]:
        """Apply a signal; return the alert to notify, if any."""
        if isinstance(signal, Cleared):
            known = self._states.get((signal.type, signal.subject))
            return [] if known is None else self._enter(on_cleared(known, now=now))
        signal = limited(self._states, signal, now)
        before = self._states.get((signal.type, signal.subject))
        return self._enter(on_raised(before, signal, now=now, renotify=self._renotify))

    def _enter(self, transition: Transition) -> list[Alert]:
        state, notify = transition
        if state is not self._states.get(state.key):
            state = replace(state, alert=worded(state.alert, self._settings.language))
            self._states[state.key] = state
        return [state.alert] if notify else []

    async def _publish(self, notified: Sequence[Alert], before: States, now: datetime) -> None:
        """Queue notifications, drop old states, and write the file if it is worth it."""
        changed = [
            state.alert for key, state in self._states.items() if before.get(key) is not state
        ]
        for queue in self._queues:
            queue.add(notified)
            queue.follow(changed)
        kept = retained(self._states, now)
        dropped = len(self._states) - len(kept)
        self._states = dict(kept)
        if notified or dropped or self._unwritten or _is_news(before, self._states):
            await self._write()

    def _hand_over(self, stored: AlertsFile) -> bool:
        """Queue the open alerts for new sinks, and what waits for sinks that are gone.

        Return whether there was anything to hand over.
        """
        gone = stored.waiting.keys() - {queue.sink.name for queue in self._queues}
        left = [alert for name in sorted(gone) for alert in stored.waiting[name]]
        opened = [state.alert for state in self._states.values() if state.is_open]
        new = [queue for queue in self._queues if queue.sink.name not in stored.waiting]
        for queue in new:
            queue.add([*left, *opened], first=True)
        if left and not new:
            _log.warning(
                "%d alerts were not delivered to a sink that is gone: `seline alerts` lists what is"
                " open",
                len(left),
            )
        return bool(gone or (new and opened))

    # the file

    async def _write(self) -> None:
        """Write the file. A write that fails or takes too long is retried later."""
        self._unwritten = True
        if not self._loaded or self._clock.monotonic() < self._write_after_s:
            return
        alerts = tuple(self._states.values())
        waiting = {queue.sink.name: queue.waiting for queue in self._queues}
        value = AlertsFile(alerts=alerts, waiting=waiting)
        try:
            async with asyncio.timeout(WRITE_WAIT_S):
                await self._file.update(lambda _: value)
        except (SelineError, TimeoutError) as error:
            self._unwritten = True
            self._write_after_s = self._clock.monotonic() + WRITE_RETRY_S
            reason = error.message if isinstance(error, SelineError) else "the disk is slow"
            _log.warning("could not write the alerts: %s", reason)
        else:
            self._unwritten = False


def _is_news(before: States, after: States) -> bool:
    """Whether an alert was opened, resolved, or an event counted. A lasting condition is none."""
    return any(
        known is None
        or known.alert.state != state.alert.state
        or (state.course == "event" and known != state)
        for key, state in after.items()
        if (known := before.get(key)) is not state
    )
