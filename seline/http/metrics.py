"""`/metrics`: how the store, the jobs and the doors do, as Prometheus text.

A registry of its own, asked when somebody scrapes: nothing is computed before. What a store counts
is plain numbers (`domain/figures`), so that the hot path pays next to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiohttp import web

from seline.alerts.log import AlertLog
from seline.domain.alerts.lifecycle import Severity
from seline.domain.counters import SECONDS, Figures
from seline.domain.job import JobStatus
from seline.http.context import context, operations
from seline.operations import Operations
from seline.ports.store import DocumentStore

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
REQUESTS = web.AppKey("requests", Counter[tuple[str, str, int]])
_Rows: TypeAlias = "list[tuple[list[str], float]]"


async def metrics(request: web.Request) -> web.StreamResponse:
    """Answer every figure in the text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    trouble = context(request).trouble()
    if trouble is not None:
        raise trouble
    managed = operations(request).store
    store = await managed.open()
    families = [
        *await managed.reading(lambda: list(_of_volume(store))),
        *_of_process(request, store),
    ]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})


class _Once:
    """Gives a registry what was gathered for one scrape."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _of_process(request: web.Request, store: DocumentStore) -> Iterator[Metric]:
    """Gather what the event loop counts, on the event loop."""
    yield from _of_store(store.figures())
    yield from _of_ages(operations(request))
    board = context(request).jobs
    if board is not None:
        yield from _of_jobs(board.jobs())
    log = context(request).alerts
    if log is not None:
        yield from _of_alerts(log)
    yield _counter(
        "seline_http_requests",
        "Requests answered.",
        ["route", "method", "status"],
        [([*map(str, key)], count) for key, count in request.config_dict[REQUESTS].items()],
    )


def _of_store(figures: Figures) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    yield _one(_counter, "seline_saves", "Changes made durable.", figures.changes)
    yield _one(_counter, "seline_batches", "Commits; changes share them.", figures.batches)
    yield _one(_counter, "seline_flushes", "Syncs asked of the disk.", figures.flushes)
    yield _one(_counter, "seline_recoveries", "Broken documents recovered.", figures.recoveries)
    yield _one(_gauge, "seline_queue_changes", "Changes that wait.", figures.queued)
    yield _counter(
        "seline_refusals",
        "Changes refused, by error.",
        ["code"],
        [([code], count) for code, count in figures.refused.items()],
    )
    totals = list(accumulate(figures.waits))
    bounds = [*map(str, SECONDS), "+Inf"]
    yield HistogramMetricFamily(
        "seline_save_seconds",
        "How long a change took from queue to answer.",
        buckets=list(zip(bounds, totals, strict=True)) if totals else [("+Inf", 0)],
        sum_value=figures.waited_s,
    )


def _of_volume(store: DocumentStore) -> Iterator[Metric]:
    usage = store.usage()
    yield _one(_gauge, "seline_usage_ratio", "How full the volume is, 0 to 1.", usage.usage_ratio)
    ratio = usage.inodes_ratio
    yield _one(_gauge, "seline_inodes_ratio", "How many of the possible files are taken.", ratio)
    yield _one(_gauge, "seline_used_bytes", "Bytes that count as used.", usage.counted_bytes)
    yield _one(_gauge, "seline_room_bytes", "Bytes until writes are refused.", usage.room_bytes)
    yield _one(_gauge, "seline_backups", "Backups kept.", sum(store.backup_counts("").values()))
    yield _one(_gauge, "seline_quarantined", "Broken files set aside.", len(store.quarantine()))
    writing = float(store.trouble() is None)
    yield _one(_gauge, "seline_writing", "Whether changes are taken.", writing)


def _of_ages(operator: Operations) -> Iterator[Metric]:
    instants: Mapping[str, datetime | None] = {
        "seline_last_verified_timestamp_seconds": operator.verifier.last_full_at,
        "seline_last_backup_timestamp_seconds": operator.store.metadata.last_backup_at,
        "seline_last_export_timestamp_seconds": operator.exports.last_seen_at,
    }
    for name, instant in instants.items():
        if instant is not None:
            yield _one(_gauge, name, "When it was done last.", instant.timestamp())
    if operator.usage.forecast is not None:
        days = operator.usage.forecast.days
        yield _one(_gauge, "seline_days_until_full", "Days until writes are refused.", days)


def _of_jobs(jobs: Iterator[JobStatus] | Any) -> Iterator[Metric]:
    ends: _Rows = []
    successes: _Rows = []
    for job in jobs:
        ends += [([job.name, outcome], count) for outcome, count in job.ended.items()]
        if job.last_success is not None:
            successes.append(([job.name], job.last_success.timestamp()))
    yield _counter("seline_job_runs", "Runs that ended.", ["job", "outcome"], ends)
    yield _gauge(
        "seline_job_last_success_timestamp_seconds", "The last success.", ["job"], successes
    )


def _of_alerts(log: AlertLog) -> Iterator[Metric]:
    by_severity = Counter(one.severity.value for one in log.listing() if one.state == "open")
    sinks = log.sinks()
    yield _gauge(
        "seline_alerts_open",
        "Alerts that are not over, by severity.",
        ["severity"],
        [([severity], by_severity[severity]) for severity in Severity],
    )
    yield _gauge(
        "seline_alerts_waiting",
        "Alerts that wait for a sink.",
        ["sink"],
        [([sink.name], sink.waiting) for sink in sinks],
    )
    yield _counter(
        "seline_alerts_given_up",
        "Alerts that waited too long for a sink, or were too many.",
        ["sink"],
        [([sink.name], sink.given_up) for sink in sinks],
    )


def _one(kind: Any, name: str, what: str, value: float) -> Metric:
    family: Metric = kind(name, what, [], [([], value)])
    return family


def _counter(name: str, what: str, labels: list[str], rows: _Rows) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(name, what, labels=labels), rows)


def _gauge(name: str, what: str, labels: list[str], rows: _Rows) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(name, what, labels=labels), rows)


def _filled(family: Any, rows: _Rows) -> Metric:
    for labels, value in rows:
        family.add_metric(labels, value)
    filled: Metric = family
    return filled
