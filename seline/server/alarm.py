"""Alerts in the process: who hears of them, what is looked at, and when.

A task of its own looks every two seconds and delivers what is due; the worker tells of its runs.
Nothing here waits for a sink but the stop and the last words, and these not long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from seline.alerts.log import Alerts
from seline.alerts.signals import (
    Watcher,
    alerts_from_days,
    alerts_from_lateness,
    alerts_from_run,
    alerts_from_trouble,
    alerts_from_usage,
)
from seline.domain.alerts.lifecycle import AlertType, Cleared, Signal
from seline.domain.job import JobRecord, JobStatus, Run, RunOutcome
from seline.errors import SelineError
from seline.operations import Operations
from seline.outbound.alert_sinks import AlertSource, build_sinks
from seline.outbound.heartbeat import Heartbeat
from seline.outbound.http_client import open_session
from seline.settings import Settings

LOOK_EVERY_S: Final = 2.0
LAST_WORDS_S: Final = 5.0
LAST_LOOK_S: Final = 1.0
BROKEN: Final = frozenset({"unrecoverable", "unreadable", "failed"})
"""The outcomes of findings after which an integrity check gives no sign of life."""
SILENCING: Final = frozenset(
    {AlertType.UNRECOVERABLE_DOCUMENT, AlertType.WRITES_REFUSED, AlertType.WRONG_MOUNT}
)
"""The alerts that, while they stand, do the same."""

_log = logging.getLogger("seline.alerts")


class Alarm:
    """The alerts of one process. Made inside the event loop; closed with it."""

    def __init__(
        self,
        operations: Operations,
        settings: Settings,
        *,
        trouble: Callable[[], SelineError | None],
    ) -> None:
        """`trouble` says why the store is not open, None once it is."""
        chosen = settings.alerts
        self._operations = operations
        self._session = open_session()
        source = AlertSource(
            service=settings.service, data_dir=settings.data_dir, language=chosen.language
        )
        self.alerts = Alerts(
            operations.store,
            build_sinks(chosen.sinks, self._session, source),
            language=chosen.language,
            renotify_h=chosen.renotify_h,
        )
        self._watch = Watcher(operations, self.alerts, trouble=trouble)
        self._heartbeat = (
            None
            if chosen.heartbeat_url is None
            else Heartbeat(session=self._session, url=chosen.heartbeat_url)
        )
        self._heard: list[Signal] = []
        self._tending: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look and to deliver, whether or not the store is open yet.

        Not begun, it only answers what is asked: a command on a volume of its own tells nobody.
        """
        self._tending = asyncio.get_running_loop().create_task(self._tend(), name="seline-alerts")

    async def take_up(self, jobs: Iterable[JobStatus]) -> None:
        """Take up what an earlier process knew, once the store is open.

        What was said of jobs that are switched off is over.
        """
        await self.alerts.load(deliver=self._tending is not None)
        off = [job.name for job in jobs if not job.enabled]
        kinds = (AlertType.JOB_FAILED, AlertType.JOB_OVERDUE)
        self._heard += [Cleared(type=kind, subject=name) for name in off for kind in kinds]

    async def run_ended(self, run: Run, record: JobRecord) -> None:
        """Hear what a run of a job came to. Raises nothing."""
        self._heard += self._told_by(run, record)
        await self._look()
        if run.job == "integrity" and run.outcome is RunOutcome.OK:
            self._beat()

    def overdue(self, job: str, last_success: datetime | None) -> None:
        """Hear that a job is long overdue."""
        self._heard += alerts_from_lateness(job, last_success)

    async def last_words(self, error: SelineError) -> None:
        """Say why the store cannot be opened, before the process gives up."""
        await self.alerts.take(alerts_from_trouble(error, opened=False))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self.alerts.deliver_due()

    async def close(self) -> None:
        """Look a last time, let what is under way end for a moment, keep the rest."""
        tending, self._tending = self._tending, None
        for task in (tending, self._beating):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if tending is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_LOOK_S):
                    await self._look()
        await self.alerts.close()
        await self._session.close()

    async def _tend(self) -> None:
        while True:
            await self._look()
            await self.alerts.deliver_due(wait_s=LOOK_EVERY_S)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        heard, self._heard = self._heard, []
        await self.alerts.take(heard)
        try:
            await self._watch.look()
        except SelineError as error:
            _log.warning("what there is to tell could not be looked at: %s", error.message)
        except Exception:  # noqa: BLE001  # a defect here must not end the alerts that do work
            _log.exception("what there is to tell could not be looked at")

    def _told_by(self, run: Run, record: JobRecord) -> Sequence[Signal]:
        if run.outcome is RunOutcome.STOPPED:
            return ()
        if run.outcome is RunOutcome.SKIPPED:
            return alerts_from_lateness(run.job, record.last_success)
        succeeded = run.outcome is RunOutcome.OK
        signals = alerts_from_run(run.job, succeeded=succeeded, detail=run.detail)
        measured = self._operations.usage.measured
        if run.job != "usage" or not succeeded or measured is None:
            return signals
        days = measured.forecast.days if measured.forecast else None
        return [
            *signals,
            *alerts_from_usage(
                measured.level, measured.ratio, of_files=measured.ratio > measured.usage_ratio
            ),
            *alerts_from_days(days),
        ]

    def _beat(self) -> None:
        """Give a sign of life after a check that left nothing broken, where changes are taken."""
        if self._heartbeat is None:
            return
        report = self._operations.verifier.report
        found = report.findings if report else ()
        standing = [one.type for one in self.alerts.listing() if one.state == "open"]
        if any(one.outcome in BROKEN for one in found) or not SILENCING.isdisjoint(standing):
            _log.warning("no heartbeat: not everything is sound")
        elif self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._give_sign(self._heartbeat))

    async def _give_sign(self, heartbeat: Heartbeat) -> None:
        delivery = await heartbeat.send()
        if not delivery.delivered:
            _log.warning("the heartbeat did not arrive: %s", delivery.detail)
