"""Alerts in the server: when the store is evaluated, what jobs report, and the heartbeat.

A background task evaluates the store every two seconds and delivers what is due; the worker
reports its runs. Only `close` and `report_failure` wait for a sink, and only for a moment.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from seline.alerts.log import AlertLog
from seline.alerts.signals import (
    capability_signals,
    copy_signals,
    document_limit_signals,
    failure_signals,
    forecast_signals,
    incident_signals,
    job_over_signals,
    may_be_over,
    over_signals,
    overdue_signals,
    pin_signals,
    report_signals,
    run_signals,
    usage_signals,
)
from seline.domain.alerts.lifecycle import Alert, AlertType, Signal
from seline.domain.copy import STILL_COPYING
from seline.domain.job import JobStatus, Run, RunOutcome
from seline.domain.report import VerifyReport
from seline.errors import ExportFailed, SelineError, VolumeBusy, VolumeFailed
from seline.operations import Operations
from seline.ports.alerts import AlertSink, Delivery
from seline.ports.medium import HANGING_S, SLOW_S
from seline.ports.store import DocumentStore

EVALUATE_EVERY_S: Final = 2.0
OVER_CHECK_EVERY_S: Final = 30.0
"""How often broken files are read again to see whether they were repaired."""
FAILURE_WAIT_S: Final = 5.0
LAST_EVALUATION_S: Final = 1.0
COPY_WAIT_S: Final = 30.0
"""How long a start may wait for the copy of an empty volume before that is an alert."""
ACCEPT: Final = "`seline destinations accept "
"""What the next step of a failure names that no other run of the job ends."""
NO_RESULT: Final = frozenset({RunOutcome.STOPPED, RunOutcome.SKIPPED})
"""The runs that show neither that a job works nor that it fails; a late one is `job_overdue`."""
STOPS_HEARTBEAT: Final = frozenset(
    {AlertType.UNRECOVERABLE_DOCUMENT, AlertType.WRITES_REFUSED, AlertType.WRONG_MOUNT}
)
"""The alerts that stop the heartbeat while they are open."""

_log = logging.getLogger("seline.alerts")


class AlertProcess:
    """The alerts of one process. Create it inside the event loop, and close it there."""

    def __init__(
        self,
        operations: Operations,
        sinks: Iterable[AlertSink],
        *,
        unavailable: Callable[[], SelineError | None],
        heartbeat: Callable[[], Awaitable[Delivery]] | None = None,
    ) -> None:
        """Take the sinks; the caller closes them.

        `unavailable` returns why the store is not open, None once it is. `heartbeat` sends one
        heartbeat.
        """
        self.log = AlertLog(operations.store, sinks)
        self._operations = operations
        self._store = operations.store
        self._unavailable = unavailable
        self._heartbeat = heartbeat
        self._signals: list[Signal] = []
        self._last_report: VerifyReport | None = None
        self._over_check_s = 0.0
        self._waits_since_s: float | None = None
        """Since when the start waits for the copy of an empty volume."""
        self._running: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the background task, whether or not the store is open.

        Without it nothing is raised or delivered: a command that opens the volume without a server
        only lists the alerts, and its health has no check of the sinks.
        """
        self._operations.sinks = self.log.sinks
        self._running = asyncio.get_running_loop().create_task(self._run(), name="seline-alerts")

    async def load(self, jobs: Iterable[JobStatus]) -> None:
        """Load the stored alerts once the store is open; clear those of disabled jobs."""
        await self.log.load(deliver=self._running is not None)
        for job in jobs:
            if not job.enabled:
                self._signals += job_over_signals(job.name)

    async def report_run(self, run: Run) -> None:
        """Evaluate after a job's run. Raises nothing."""
        self._signals += self._run_signals(run)
        await self._evaluate()
        if run.job == "integrity" and run.outcome is RunOutcome.OK:
            self._beat()

    def report_overdue(self, job: str, last_success: datetime | None) -> None:
        """Raise the alert of an overdue job."""
        self._signals += overdue_signals(job, last_success)

    async def report_failure(self, error: SelineError) -> None:
        """Notify why the store cannot be opened, before the process ends."""
        await self.log.take(failure_signals(error, opened=False))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAILURE_WAIT_S):
                await self.log.deliver_due(at_once=True)

    async def evaluate(self) -> None:
        """Apply the signals of the store's present state. Raises SelineError."""
        failure = self._unavailable()
        if failure is not None:
            if not self._waits_briefly(failure):
                await self.log.take(failure_signals(failure, opened=False))
            return
        store = await self._store.open()
        alerts = [alert for alert in self.log.listing() if may_be_over(alert)]
        await self.log.take([*self._store_signals(store), *await self._failure_signals(store)])
        await self.log.take(await self._copy_signals())
        await self.log.take(await self._over_signals(store, alerts))

    def _waits_briefly(self, failure: SelineError) -> bool:
        """Whether the start waits for a copy, and not for long: a destination may be restarting."""
        if not isinstance(failure, ExportFailed):
            self._waits_since_s = None
            return False
        now_s = self._store.clock.monotonic()
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        return now_s - self._waits_since_s < COPY_WAIT_S

    async def close(self) -> None:
        """Evaluate a last time and wait a moment for deliveries; the rest is kept."""
        running, self._running = self._running, None
        for task in (running, self._beating):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if running is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_EVALUATION_S):
                    await self._evaluate()
            await self.log.deliver_due(wait_s=0.0, at_once=True)
        await self.log.close()

    async def _run(self) -> None:
        while True:
            await self._evaluate()
            await self.log.deliver_due(wait_s=EVALUATE_EVERY_S)
            await asyncio.sleep(EVALUATE_EVERY_S)

    async def _evaluate(self) -> None:
        signals, self._signals = self._signals, []
        await self.log.take(signals)
        try:
            await self.evaluate()
        except SelineError as error:
            _log.warning("could not evaluate alerts: %s", error.message)
        except Exception:  # noqa: BLE001  # a defect here must not stop deliveries
            _log.exception("could not evaluate alerts")

    def _store_signals(self, store: DocumentStore) -> Iterator[Signal]:
        now, report = self._store.clock.now(), self._operations.verifier.report
        yield from incident_signals(self._store.incidents(), now)
        if report is not None and report is not self._last_report:
            self._last_report = report
            yield from report_signals(report, now)
        yield from pin_signals(self._store.pins.pins(), now)
        yield from capability_signals(store.medium.capabilities())

    async def _failure_signals(self, store: DocumentStore) -> Sequence[Signal]:
        """Return the signals of why nothing can be written; none while the disk is only slow.

        A disk that does not answer is not asked again until it does.
        """
        if self._store.busy_s() >= HANGING_S:
            what = f"The disk has not answered for {HANGING_S:.0f} s; changes wait for it."
            return failure_signals(VolumeFailed(what))
        if self._store.is_slow():
            return ()
        try:
            failure = await self._store.reading(store.medium.unavailable, limit_s=SLOW_S)
        except VolumeBusy:
            return ()
        return failure_signals(failure)

    async def _copy_signals(self) -> Sequence[Signal]:
        """Return the signals of the copies at destinations; none before their record was read."""
        if not self._operations.exports.destinations.is_known:
            if self._store.is_slow():
                return ()
            try:
                await self._operations.load()
            except VolumeBusy:
                return ()
        return copy_signals(self._operations.destination_checks(), self.log.listing())

    async def _over_signals(self, store: DocumentStore, alerts: Sequence[Alert]) -> list[Signal]:
        """Return the signals that clear alerts about documents, every 30 s at most."""
        too_early = self._store.clock.monotonic() < self._over_check_s
        if not alerts or too_early or self._store.is_slow():
            return []
        self._over_check_s = self._store.clock.monotonic() + OVER_CHECK_EVERY_S
        return await self._store.reading(lambda: over_signals(store, alerts))

    def _run_signals(self, run: Run) -> Sequence[Signal]:
        if run.outcome in NO_RESULT:
            return ()
        succeeded, measured = run.outcome is RunOutcome.OK, self._operations.usage.measured
        if succeeded and run.job == "mirror" and STILL_COPYING in run.detail:
            return ()  # the copy may fail as the last one did
        signals = run_signals(run.job, succeeded=True) if succeeded else self._failed_signals(run)
        if run.job != "usage" or not succeeded or measured is None:
            return signals
        return [
            *signals,
            *usage_signals(
                measured.level,
                measured.ratio,
                of_files=measured.of_files,
                shared=not measured.usage.own_mount,
                refused=measured.refused,
            ),
            *document_limit_signals(
                measured.usage.documents, self._store.settings.storage.documents_max
            ),
            *forecast_signals(measured.forecast.days if measured.forecast else None),
        ]

    def _failed_signals(self, run: Run) -> list[Signal]:
        """Return the signals of a failed run; its choices are the next step, not a detail."""
        detail, choices = run.detail, self._choices_after(run.job)
        for choice in choices:
            detail = detail.replace(f" {choice}", "")
        fix = " ".join(choices)
        return run_signals(run.job, succeeded=False, detail=detail, fix=fix)

    def _choices_after(self, job: str) -> list[str]:
        """Return the choices that a failed job waits for, empty if it needs only another run."""
        records = [record for _, record in self._operations.exports.destinations.records()]
        cures = {
            "export": [record.cure for record in records],
            "mirror": [record.mirror_cure for record in records],
        }
        return list(dict.fromkeys(cure for cure in cures.get(job, ()) if ACCEPT in cure))

    def _beat(self) -> None:
        """Send a heartbeat after a check that found nothing broken, if no alert stops it."""
        if self._heartbeat is None:
            return
        report = self._operations.verifier.report
        broken = any(found.is_unserved for found in (report.findings if report else ()))
        open_types = {alert.type for alert in self.log.listing() if alert.state == "open"}
        if broken or not STOPS_HEARTBEAT.isdisjoint(open_types):
            _log.warning("no heartbeat: not everything is sound")
        elif self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(
                self._send_heartbeat(self._heartbeat)
            )

    async def _send_heartbeat(self, heartbeat: Callable[[], Awaitable[Delivery]]) -> None:
        delivery = await heartbeat()
        if not delivery.delivered:
            _log.warning("the heartbeat did not arrive: %s", delivery.detail)
