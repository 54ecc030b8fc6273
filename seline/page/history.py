"""How the volume filled: a table by day, and the figures of its chart, which `chart.js` draws."""

from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

import msgspec

from seline.domain.forecast import Forecast, Point
from seline.operations.usage import UsageReport
from seline.page.texts import Texts

POINTS_MIN: Final = 2
AHEAD_MIN: Final = timedelta(days=7)
"""How far the projection goes at least; else as far as the history goes back."""
_UNITS: Final = (("kit.gb", 1 << 30), ("kit.mb", 1 << 20), ("kit.kb", 1 << 10))


class History(NamedTuple):
    """The newest point of each day, newest first, and the figures of the chart as JSON.

    `of` is whose bytes count: all on the volume, or Seline's on a disk that others use, too.
    `full_on` is the day on which changes that grow will be refused, None without a forecast.
    """

    days: list[Point]
    of: Literal["volume", "seline"]
    full_at_bytes: int
    full_on: datetime | None
    forecast: Forecast | None
    chart: str


def history_of(report: UsageReport | None, now: datetime, texts: Texts) -> History | None:
    """Return the history of the usage; None while there are less than two points."""
    if report is None or len(report.points) < POINTS_MIN:
        return None
    by_day = {point.at.date(): point for point in report.points}
    forecast = report.forecast
    full_on = None if forecast is None else now + timedelta(days=forecast.days)
    return History(
        days=list(reversed(by_day.values())),
        of="volume" if report.usage.own_mount else "seline",
        full_at_bytes=report.full_at_bytes,
        full_on=full_on,
        forecast=forecast,
        chart=msgspec.json.encode(_figures(report, full_on, texts)).decode(),
    )


def _figures(report: UsageReport, full_on: datetime | None, texts: Texts) -> dict[str, Any]:
    """Return the lines of the chart: seconds, and three values for each in `unit`."""
    points, last = report.points, report.points[-1]
    moments = [point.at for point in points]
    used: list[float | None] = [point.used_bytes for point in points]
    projected: list[float | None] = [None] * len(points)
    if full_on is not None and report.forecast is not None:
        ends = min(full_on, last.at + max(last.at - points[0].at, AHEAD_MIN))
        days = (ends - last.at) / timedelta(days=1)
        moments.append(ends)
        used.append(None)
        projected[-1] = last.used_bytes
        projected.append(last.used_bytes + report.forecast.bytes_per_day * days)
    label, unit_bytes = _unit(max(report.full_at_bytes, last.used_bytes))
    return {
        "times": [int(moment.timestamp()) for moment in moments],
        "lines": [
            [None if value is None else round(value / unit_bytes, 3) for value in line]
            for line in (used, projected, [report.full_at_bytes] * len(moments))
        ],
        "unit": texts(label),
    }


def _unit(size_bytes: int) -> tuple[str, int]:
    return next((unit for unit in _UNITS if size_bytes >= unit[1]), _UNITS[-1])
