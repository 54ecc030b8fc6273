"""The operator's verbs, as HTTP, CLI and the jobs call them: no two doors can disagree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from seline.clock import Clock, instant_text, parse_instant
from seline.domain.document import Json
from seline.domain.report import RotationReport, VerifyReport
from seline.domain.usage import Usage
from seline.manager import DataManager

FULL_EVERY: Final = timedelta(days=1)
INTEGRITY_STATE: Final = "integrity.json"


async def _nowhere() -> str:
    return "no destination is configured"


class Custody:
    """Keeps watch over one store."""

    def __init__(
        self,
        data: DataManager,
        *,
        clock: Clock,
        export: Callable[[], Awaitable[str]] = _nowhere,
    ) -> None:
        self._data = data
        self._clock = clock
        self._changed_since: datetime | None = None
        self.export = export

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
            state: Json = {"last_full_at": instant_text(started_at)}
            await self._data.update_state(INTEGRITY_STATE, lambda _before: state)
        return report

    async def rotate(self) -> RotationReport:
        """Discard what the policy drops of every document."""
        pruned = await self._data.prune()
        return RotationReport(
            backups=len(pruned), freed_bytes=sum(one.size_bytes for one in pruned)
        )

    async def measure(self) -> Usage:
        """Measure the volume."""
        store = await self._data.open_store()
        return await self._data.reading(store.usage)

    async def _full_is_due(self, now: datetime) -> bool:
        if self._changed_since is None:
            return True
        state = await self._data.load_state(INTEGRITY_STATE, {})
        last = state.get("last_full_at") if isinstance(state, dict) else None
        return not isinstance(last, str) or not now - FULL_EVERY < parse_instant(last) <= now
