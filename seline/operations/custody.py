"""The operator's verbs, as HTTP, CLI and the jobs call them: no two doors can disagree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from seline.clock import Clock, instant_text, parse_instant
from seline.domain.document import Json
from seline.domain.forecast import Forecast, Point, forecast, read_points, with_point, write_points
from seline.domain.report import RotationReport, VerifyReport
from seline.domain.usage import Usage, UsageLevel, next_level
from seline.manager import DataManager
from seline.manager.state import remember, remembered

FULL_EVERY: Final = timedelta(days=1)
INTEGRITY_STATE: Final = "integrity.json"
USAGE_STATE: Final = "usage.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """How full the volume is, at which level that stands, and when it will be full."""

    usage: Usage
    level: UsageLevel
    forecast: Forecast | None

    @property
    def usage_ratio(self) -> float:
        return self.usage.usage_ratio

    @property
    def ratio(self) -> float:
        """How full it is by bytes or by files, whichever is more: the level goes by that."""
        return max(self.usage.usage_ratio, self.usage.inodes_ratio)


async def _nowhere() -> str:
    return "no destination is configured"


class Custody:
    """Keeps watch over one store. `export` writes one export to each destination."""

    def __init__(
        self,
        data: DataManager,
        *,
        clock: Clock,
        export: Callable[[], Awaitable[str]] = _nowhere,
    ) -> None:
        self.export = export
        self.measured: UsageReport | None = None
        """What was measured last."""
        self._data = data
        self._clock = clock
        self._changed_since: datetime | None = None
        self._level = UsageLevel.OK
        self._points: tuple[Point, ...] | None = None

    async def remember(self) -> None:
        """Take over when an earlier process last checked everything."""
        state = await remembered(self._data, INTEGRITY_STATE, {})
        last = state.get("last_full_at") if isinstance(state, dict) else None
        self._data.last_verified_at = parse_instant(last) if isinstance(last, str) else None

    async def check_integrity(self, *, full: bool | None = None) -> VerifyReport:
        """Check documents and backups on the medium; recover and report.

        `full` looks at everything, `full=False` at what changed since the pass before, None at
        everything once a day.
        """
        started_at = self._clock.now()
        if full is None:
            full = await self._full_is_due(started_at)
        since = None if full else self._changed_since
        report = await self._data.verify(changed_since=since)
        self._changed_since = started_at
        if since is None:
            await remember(self._data, INTEGRITY_STATE, {"last_full_at": instant_text(started_at)})
        return report

    async def rotate(self) -> RotationReport:
        """Discard what the policy drops, of every document."""
        pruned = await self._data.prune()
        freed_bytes = sum(one.size_bytes for one in pruned)
        return RotationReport(backups=len(pruned), freed_bytes=freed_bytes)

    async def measure(self) -> UsageReport:
        """Measure the volume; its level rises at the mark and falls two points below it."""
        store = await self._data.open_store()
        usage = await self._data.reading(store.usage)
        before = self._points if self._points is not None else await self._remembered()
        level = next_level(self._level, max(usage.usage_ratio, usage.inodes_ratio))
        points = with_point(before, Point(self._clock.now(), usage.counted_bytes))
        if points != before or level != self._level:
            kept: Json = {"level": str(level), "points": write_points(points)}
            await remember(self._data, USAGE_STATE, kept)
        self._points, self._level = points, level
        self._data.forecast = forecast(points, room_bytes=usage.room_bytes)
        self.measured = UsageReport(usage=usage, level=level, forecast=self._data.forecast)
        return self.measured

    async def _remembered(self) -> tuple[Point, ...]:
        """Take over what an earlier process measured."""
        state = await remembered(self._data, USAGE_STATE, {})
        if not isinstance(state, dict):
            return ()
        if state.get("level") in set(UsageLevel):
            self._level = UsageLevel(str(state["level"]))
        return read_points(state.get("points"))

    async def _full_is_due(self, now: datetime) -> bool:
        if self._changed_since is None:
            return True
        last = self._data.last_verified_at
        return last is None or not now - FULL_EVERY < last <= now
