"""Alerts: raised, repeated while they last, resolved; delivered to every sink, whatever fails.

States and what waits for delivery are kept in `.seline/alerts.json`, so that a restart loses
nothing. Where the store cannot be written, they are kept in memory and delivered all the same.
A caller waits for the store alone, and not long; never for a sink. Delivery is at least once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias, cast

from seline.alerts.queue import SinkQueue, attempt
from seline.clock import Clock
from seline.domain.alerts.lifecycle import (
    KIND_OF,
    Alert,
    AlertState,
    AlertType,
    Cleared,
    Course,
    Raised,
    Severity,
    Signal,
    Transition,
    crowded,
    forgotten,
    raised,
    repeated,
    resolved,
    reworded,
    trial,
)
from seline.domain.alerts.record import read_record, write_record
from seline.domain.document import Json
from seline.domain.texts import Language
from seline.errors import SelineError
from seline.manager import ManagedStore
from seline.ports.alerts import AlertSink, Delivery, SinkStatus

RENOTIFY_H: Final = 24.0
KEEP_WAIT_S: Final = 1.0
KEEP_AGAIN_S: Final = 30.0
DELIVER_WAIT_S: Final = 30.0
STOP_WAIT_S: Final = 1.0
_log = logging.getLogger("seline.alerts")


class Alerts:
    """The alerts of one store: an `AlertLog`, and where alerts are raised.

    They are delivered from the moment they are raised; `deliver_due`, called every few seconds to
    a minute, tells what stands again, retries what failed, and writes what could not be written.
    """

    def __init__(
        self,
        store: ManagedStore,
        sinks: Iterable[AlertSink],
        *,
        language: Language = "en",
        renotify_h: float = RENOTIFY_H,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Work over a store that may not be open yet: until `load` everything is in memory."""
        self._state = store.state("alerts.json", object, lambda: None)
        self._clock = clock or store.clock
        self._language: Language = language
        self._renotify = timedelta(hours=renotify_h)
        self._standings: dict[_Key, AlertState] = {}
        self._queues = [
            SinkQueue(sink, clock=self._clock, jitter=jitter, moved=self._keep) for sink in sinks
        ]
        self._loaded = False
        self._unread = False
        self._unwritten = False
        self._write_after_s = 0.0

    async def load(self, *, deliver: bool = True) -> None:
        """Take up what was remembered, once the store is open; deliver what still waits.

        A record that is broken beyond recovery is set aside, said in the log, and begun anew; one
        that cannot be read now is tried again by `deliver_due`. Raises nothing.
        """
        try:
            standings, waiting = await self._remembered()
        except SelineError as error:
            self._unread = True
            _log.warning("the state of the alerts could not be read: %s", error.message)
            return
        self._unread = False
        for standing in standings:
            worded = _in_language(standing, self._language)
            self._standings.setdefault(standing.key, worded)
        for queue in self._queues:
            queue.add(waiting.get(queue.sink.name, ()), first=True)
        self._loaded = True
        if self._unwritten:
            await self._keep()
        if deliver:
            self._start()

    async def raise_alert(
        self,
        type: AlertType,
        subject: str = "",
        *,
        severity: Severity | None = None,
        details: Mapping[str, Json] | None = None,
        at: datetime | None = None,
    ) -> None:
        """Say that something was seen; `at` tells occurrences of an event apart (else now)."""
        seen = Raised(type=type, subject=subject, severity=severity, details=details or {}, at=at)
        await self.take((seen,))

    async def resolve(self, type: AlertType, subject: str = "") -> None:
        """Say that something no longer stands; nothing happens where nothing stood."""
        await self.take((Cleared(type=type, subject=subject),))

    async def take(self, signals: Iterable[Signal]) -> None:
        """Take note of several signals at once; what is news is on its way when this returns."""
        now, before = self._clock.now(), dict(self._standings)
        told: list[Alert] = []
        for signal in signals:
            self._note(self._step(signal, now), told)
        await self._tell(told, before, now)

    def listing(self) -> Sequence[Alert]:
        alerts = [standing.alert for standing in self._standings.values()]
        alerts.sort(key=lambda alert: alert.last_at, reverse=True)
        return sorted(alerts, key=lambda alert: alert.state)

    def sinks(self) -> Sequence[SinkStatus]:
        return [queue.status() for queue in self._queues]

    async def deliver_due(self, *, wait_s: float = DELIVER_WAIT_S) -> None:
        """Tell again what stands, and try every sink that it is time for; a dead one delays none.

        Returns once each has delivered or failed, at the latest after `wait_s`.
        """
        if self._unread:
            await self.load()
        now, before = self._clock.now(), dict(self._standings)
        told: list[Alert] = []
        for standing in before.values():
            self._note(repeated(standing, now=now, renotify=self._renotify), told)
        await self._tell(told, before, now)
        running = self._start()
        if running:
            await asyncio.wait(running, timeout=wait_s)

    async def test(self) -> Sequence[Delivery]:
        alert = trial(self._clock.now(), self._language)
        return await asyncio.gather(*(attempt(queue.sink, alert) for queue in self._queues))

    async def close(self) -> None:
        """Let deliveries end, for a moment; what they carried is kept. Idempotent."""
        await asyncio.gather(*(queue.stop(wait_s=STOP_WAIT_S) for queue in self._queues))
        if self._unwritten:
            await self._keep()

    # what a signal does

    def _step(self, signal: Signal, now: datetime) -> Transition | None:
        """Return what a signal makes of its standing, None where there is none."""
        if isinstance(signal, Cleared):
            known = self._standings.get((signal.type, signal.subject))
            if known is None:
                return None
            return resolved(known, now=now, language=self._language)
        seen = crowded(self._standings, signal)
        return raised(
            self._standings.get((seen.type, seen.subject)),
            seen,
            now=now,
            renotify=self._renotify,
            language=self._language,
        )

    def _note(self, step: Transition | None, told: list[Alert]) -> None:
        if step is None:
            return
        self._standings[step.standing.key] = step.standing
        if step.told:
            told.append(step.standing.alert)

    async def _tell(
        self, told: Sequence[Alert], before: Mapping[_Key, AlertState], now: datetime
    ) -> None:
        """Have alerts delivered, and keep what is worth it."""
        for queue in self._queues:
            queue.add(told)
        self._start()
        gone = forgotten(self._standings, now)
        self._standings = {
            key: one for key, one in self._standings.items() if one.alert.id not in gone
        }
        if told or gone or self._unwritten or _worth_keeping(before, self._standings):
            await self._keep()

    def _start(self) -> list[asyncio.Task[None]]:
        return [task for queue in self._queues if (task := queue.start()) is not None]

    # the record

    async def _keep(self) -> None:
        """Write the record; where that fails or takes long, it is tried again later."""
        self._unwritten = True
        if not self._loaded or self._clock.monotonic() < self._write_after_s:
            return
        record = self._record()
        try:
            async with asyncio.timeout(KEEP_WAIT_S):
                await self._state.update(lambda _: record)
        except (SelineError, TimeoutError) as error:
            self._unwritten = True
            self._write_after_s = self._clock.monotonic() + KEEP_AGAIN_S
            _log.warning("the state of the alerts could not be written: %s", _told_by(error))
        else:
            self._unwritten = False

    def _record(self) -> Json:
        waiting = {queue.sink.name: queue.waiting for queue in self._queues if queue.waiting}
        return write_record(self._standings.values(), waiting)

    async def _remembered(self) -> tuple[list[AlertState], dict[str, list[Alert]]]:
        value = cast("Json", await self._state.load())
        if self._state.failure is not None:
            raise self._state.failure
        try:
            return ([], {}) if value is None else read_record(value)
        except (ValueError, KeyError) as error:
            _log.warning("alerts.json has another shape (%s); it is begun anew", error)
        return [], {}


_Key: TypeAlias = tuple[AlertType, str]


def _worth_keeping(before: Mapping[_Key, AlertState], after: Mapping[_Key, AlertState]) -> bool:
    """Whether something happened; that something still stands is not written each time."""
    return any(
        known is None
        or known.alert.state != one.alert.state
        or (KIND_OF[one.alert.type].course is Course.EVENT and known != one)
        for key, one in after.items()
        if (known := before.get(key)) is not one
    )


def _in_language(standing: AlertState, language: Language) -> AlertState:
    return replace(standing, alert=reworded(standing.alert, language))


def _told_by(error: Exception) -> str:
    return error.message if isinstance(error, SelineError) else "the disk takes long"
