"""`/metrics`: the counters of the store, the jobs, the alerts and the API as Prometheus text.

`_FAMILIES` has one row per metric. Everything is read when the route is called, into a registry of
its own, so nothing is computed between two calls.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, Final, TypeAlias

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from seline.domain.alerts.lifecycle import Severity
from seline.domain.counters import LATENCY_BOUNDS_S, Counters
from seline.domain.document import BOT
from seline.domain.usage import Usage
from seline.http.context import AppContext, context, operations

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
REQUESTS = web.AppKey("requests", Counter[tuple[str, str, int]])

_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"})


def method_label(request: web.BaseRequest) -> str:
    """Return the method as a label; methods that a client invents share one."""
    return request.method if request.method in _METHODS else "other"


async def metrics(request: web.Request) -> web.StreamResponse:
    """Answer every metric in the text format."""
    unavailable = context(request).unavailable()
    if unavailable is not None:
        raise unavailable
    registry = CollectorRegistry(auto_describe=False)
    registry.register(await _read(request))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Source:
    """What the metrics are read from, once per call of the route."""

    figures: Counters
    usage: Usage
    backups: int
    quarantined: int
    writing: bool
    context: AppContext
    requests: Counter[tuple[str, str, int]]

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, for the registry."""
        for family, name, text, labels, read in _FAMILIES:
            metric = family(name, text, labels=labels)
            for label_values, value in read(self):
                metric.add_metric(label_values, value)
            yield metric
        yield _latencies(self.figures)


async def _read(request: web.Request) -> _Source:
    managed = operations(request).store
    store = await managed.open()
    medium = store.medium
    usage, backups, quarantined, failure = await managed.reading(
        lambda: (
            medium.usage(),
            medium.backup_count(BOT),
            len(medium.quarantine()),
            medium.unavailable(),
        )
    )
    return _Source(
        figures=medium.counters(),
        usage=usage,
        backups=backups,
        quarantined=quarantined,
        writing=failure is None,
        context=context(request),
        requests=request.config_dict[REQUESTS],
    )


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
    forecast = source.context.operations.usage.forecast
    return None if forecast is None else forecast.days


def _open_alerts(source: _Source) -> Samples:
    listed = source.context.alerts.listing()
    counts = Counter(alert.severity for alert in listed if alert.state == "open")
    return [([severity.value], counts[severity]) for severity in Severity]


def _of_sinks(field: str) -> Callable[[_Source], Samples]:
    def read(source: _Source) -> Samples:
        return [([sink.name], getattr(sink, field)) for sink in source.context.alerts.sinks()]

    return read


def _runs(source: _Source) -> Samples:
    return [
        ([job.name, outcome], count)
        for job in source.context.jobs.jobs()
        for outcome, count in job.ended.items()
    ]


def _successes(source: _Source) -> Samples:
    return [
        ([job.name], job.last_success.timestamp())
        for job in source.context.jobs.jobs()
        if job.last_success is not None
    ]


def _requests(source: _Source) -> Samples:
    return [([*map(str, key)], count) for key, count in source.requests.items()]


_Row: TypeAlias = tuple[Any, str, str, tuple[str, ...], Callable[[_Source], Samples]]
_COUNTER, _GAUGE = CounterMetricFamily, GaugeMetricFamily
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
     _one(lambda source: _instant(source.context.operations.verifier.last_full_at))),
    (_GAUGE, "seline_last_backup_timestamp_seconds", "The last backup.", (),
     _one(lambda source: _instant(source.context.operations.store.metadata.last_backup_at))),
    (_GAUGE, "seline_last_export_timestamp_seconds", "The last whole export.", (),
     _one(lambda source: _instant(source.context.operations.exports.destinations.last_seen_at))),
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


def _latencies(figures: Counters) -> Metric:
    totals = accumulate(figures.waits)
    bounds = [*map(str, LATENCY_BOUNDS_S), "+Inf"]
    return HistogramMetricFamily(
        "seline_save_seconds",
        "How long a change took from queue to answer.",
        buckets=list(zip(bounds, totals, strict=True)),
        sum_value=figures.waited_s,
    )
