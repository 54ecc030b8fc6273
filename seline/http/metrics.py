"""`/metrics`: the counters of the store, the jobs, the alerts and the API as Prometheus text.

`_FAMILIES` has one row per metric. Everything is read when the route is called, into a registry of
its own, so nothing is computed between two calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiohttp import web

from seline.alerts.log import AlertLog
from seline.domain.alerts.lifecycle import Severity
from seline.domain.counters import LATENCY_BOUNDS_S, CounterValues
from seline.domain.document import BOT
from seline.domain.job import JobStatus
from seline.domain.usage import Usage
from seline.http.context import context, operations
from seline.operations import Operations
from seline.ports.store import DocumentStore

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
REQUESTS = web.AppKey("requests", Counter[tuple[str, str, int]])


async def metrics(request: web.Request) -> web.StreamResponse:
    """Answer every metric in the text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    unavailable = context(request).unavailable()
    if unavailable is not None:
        raise unavailable
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(await _read(request)))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What the metrics are read from, once per call of the route."""

    figures: CounterValues
    usage: Usage
    backups: int
    quarantined: int
    writing: bool
    operations: Operations
    jobs: Sequence[JobStatus]
    alerts: AlertLog | None
    requests: Counter[tuple[str, str, int]]


async def _read(request: web.Request) -> _Source:
    managed, board = operations(request).store, context(request).jobs
    store = await managed.open()
    usage, backups, quarantined, writing = await managed.reading(lambda: _of_volume(store))
    return _Source(
        figures=store.medium.counters(),
        usage=usage,
        backups=backups,
        quarantined=quarantined,
        writing=writing,
        operations=operations(request),
        jobs=() if board is None else board.jobs(),
        alerts=context(request).alerts,
        requests=request.config_dict[REQUESTS],
    )


def _of_volume(store: DocumentStore) -> tuple[Usage, int, int, bool]:
    medium = store.medium
    quarantined, writing = len(medium.quarantine()), medium.unavailable() is None
    return medium.usage(), medium.backup_count(BOT), quarantined, writing


Samples: TypeAlias = list[tuple[list[str], float]]
"""The label values and the value of each sample."""


def _one(value: Callable[[_Source], float | None]) -> Callable[[_Source], Samples]:
    """Return a reader of one sample without labels; without a value there is no sample."""

    def read(source: _Source) -> Samples:
        found = value(source)
        return [] if found is None else [([], found)]

    return read


def _instant(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()


def _days_until_full(source: _Source) -> float | None:
    forecast = source.operations.usage.forecast
    return None if forecast is None else forecast.days


def _open_alerts(source: _Source) -> Samples:
    listed = () if source.alerts is None else source.alerts.listing()
    counts = Counter(alert.severity for alert in listed if alert.state == "open")
    return [([severity.value], counts[severity]) for severity in Severity]


def _of_sinks(field: str) -> Callable[[_Source], Samples]:
    def read(source: _Source) -> Samples:
        sinks = () if source.alerts is None else source.alerts.sinks()
        return [([sink.name], getattr(sink, field)) for sink in sinks]

    return read


def _runs(source: _Source) -> Samples:
    return [
        ([job.name, outcome], count) for job in source.jobs for outcome, count in job.ended.items()
    ]


def _successes(source: _Source) -> Samples:
    return [
        ([job.name], job.last_success.timestamp())
        for job in source.jobs
        if job.last_success is not None
    ]


def _requests(source: _Source) -> Samples:
    return [([*map(str, key)], count) for key, count in source.requests.items()]


_Row: TypeAlias = tuple[str, str, str, tuple[str, ...], Callable[[_Source], Samples]]
_COUNTER, _GAUGE = "counter", "gauge"
_FAMILIES: Final[tuple[_Row, ...]] = (
    (_GAUGE, "seline_usage_ratio", "How full the volume is, 0 to 1.", (),
     _one(lambda source: source.usage.usage_ratio)),
    (_GAUGE, "seline_inodes_ratio", "How many of the possible files exist, 0 to 1.", (),
     _one(lambda source: source.usage.inodes_ratio)),
    (_GAUGE, "seline_used_bytes", "Bytes that count as used.", (),
     _one(lambda source: source.usage.counted_bytes)),
    (_GAUGE, "seline_room_bytes", "Bytes until writes are refused.", (),
     _one(lambda source: source.usage.room_bytes)),
    (_GAUGE, "seline_days_until_full", "Days until writes are refused.", (),
     _one(_days_until_full)),
    (_GAUGE, "seline_backups", "Backups kept.", (), _one(lambda source: source.backups)),
    (_GAUGE, "seline_quarantined", "Broken files in quarantine.", (),
     _one(lambda source: source.quarantined)),
    (_GAUGE, "seline_writing", "Whether changes are accepted.", (),
     _one(lambda source: float(source.writing))),
    (_COUNTER, "seline_saves", "Changes made durable.", (),
     _one(lambda source: source.figures.changes)),
    (_COUNTER, "seline_batches", "Commits; changes share them.", (),
     _one(lambda source: source.figures.batches)),
    (_COUNTER, "seline_flushes", "Syncs asked of the disk.", (),
     _one(lambda source: source.figures.flushes)),
    (_COUNTER, "seline_recoveries", "Broken documents recovered.", (),
     _one(lambda source: source.figures.recoveries)),
    (_GAUGE, "seline_queue_changes", "Changes in the queue.", (),
     _one(lambda source: source.figures.queued)),
    (_COUNTER, "seline_refusals", "Changes refused, by error.", ("code",),
     lambda source: [([code], count) for code, count in source.figures.refused.items()]),
    (_GAUGE, "seline_last_verified_timestamp_seconds", "The last verify of everything.", (),
     _one(lambda source: _instant(source.operations.verifier.last_full_at))),
    (_GAUGE, "seline_last_backup_timestamp_seconds", "The last backup.", (),
     _one(lambda source: _instant(source.operations.store.metadata.last_backup_at))),
    (_GAUGE, "seline_last_export_timestamp_seconds", "The last whole export.", (),
     _one(lambda source: _instant(source.operations.exports.last_seen_at))),
    (_COUNTER, "seline_job_runs", "Runs that ended.", ("job", "outcome"), _runs),
    (_GAUGE, "seline_job_last_success_timestamp_seconds", "The last success.", ("job",),
     _successes),
    (_GAUGE, "seline_alerts_open", "Open alerts, by severity.", ("severity",), _open_alerts),
    (_GAUGE, "seline_alerts_waiting", "Alerts in the queue of a sink.", ("sink",),
     _of_sinks("waiting")),
    (_COUNTER, "seline_alerts_given_up", "Alerts that a sink's queue dropped.", ("sink",),
     _of_sinks("given_up")),
    (_COUNTER, "seline_http_requests", "Requests answered.", ("route", "method", "status"),
     _requests),
)  # fmt: skip


class _Collector:
    """Gives a registry the metrics of one call."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, Any] = {_COUNTER: CounterMetricFamily, _GAUGE: GaugeMetricFamily}
        for kind, name, text, labels, read in _FAMILIES:
            family = families[kind](name, text, labels=labels)
            for label_values, value in read(self._source):
                family.add_metric(label_values, value)
            yield family
        yield _latencies(self._source.figures)


def _latencies(figures: CounterValues) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    totals = list(accumulate(figures.waits))
    bounds = [*map(str, LATENCY_BOUNDS_S), "+Inf"]
    return HistogramMetricFamily(
        "seline_save_seconds",
        "How long a change took from queue to answer.",
        buckets=list(zip(bounds, totals, strict=True)) if totals else [("+Inf", 0)],
        sum_value=figures.waited_s,
    )
