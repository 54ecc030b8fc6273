"""Health: the body of `GET /health`, in the seed's shape with the checks added."""

from dataclasses import asdict
from datetime import datetime
from typing import Final

from seline.clock import instant_text
from seline.domain.document import BOT, Json
from seline.domain.report import Status
from seline.domain.usage import Usage, megabytes
from seline.errors import VolumeBusy
from seline.manager.managed_store import ManagedStore
from seline.operations.checks import Facts, run_checks, worst
from seline.operations.exports import Exporter
from seline.operations.usage import UsageMonitor
from seline.operations.verify import Verifier
from seline.ports.store import DocumentStore

HEALTH_S: Final = 3.0
"""How long the disk may take; then health answers from memory."""
_WORD: Final = {Status.WARNING: "warning", Status.CRITICAL: "critical"}


class Health:
    """The health of one store."""

    def __init__(
        self, managed: ManagedStore, verifier: Verifier, monitor: UsageMonitor, exports: Exporter
    ) -> None:
        self._managed = managed
        self._verifier = verifier
        self._monitor = monitor
        self._exports = exports
        self._last_usage: Usage | None = None
        self._last_backup_count = 0

    async def report(self) -> dict[str, Json]:
        """Return the body. If the disk does not answer in time, it is made from memory."""
        store = await self._managed.open()
        try:
            return await self._managed.reading(lambda: self._measured(store), limit_s=HEALTH_S)
        except VolumeBusy:
            usage = self._last_usage or self._managed.metadata.usage
            return self._body(store, usage, ask_disk=False)

    def _measured(self, store: DocumentStore) -> dict[str, Json]:
        self._verifier.read(store)
        self._exports.read(store)
        self._last_usage = usage = store.medium.usage()
        self._last_backup_count = store.medium.backup_count(BOT)
        return self._body(store, usage, ask_disk=True)

    def _body(self, store: DocumentStore, usage: Usage, *, ask_disk: bool) -> dict[str, Json]:
        metadata, now = self._managed.metadata, self._managed.clock.now()
        facts = Facts(
            managed=self._managed,
            store=store,
            usage=usage,
            verifier=self._verifier,
            monitor=self._monitor,
            exports=self._exports,
            now=now,
        )
        checks = run_checks(facts, ask_disk=ask_disk)
        last_full_at, forecast = self._verifier.last_full_at, self._monitor.forecast
        return {
            "status": _WORD.get(worst(checks), "healthy"),
            "mount_path": store.medium.place,
            "total_size_mb": megabytes(usage.files_bytes),
            "backup_size_mb": megabytes(usage.backups_bytes),
            "backup_count": self._last_backup_count,
            "metadata": metadata.value(usage),
            "usage_percent": round(usage.usage_ratio * 100, 2),
            "checks": [asdict(check) for check in checks],
            "last_integrity_check": None if last_full_at is None else instant_text(last_full_at),
            "integrity_age_s": _age_s(last_full_at, now),
            "backup_age_s": _age_s(metadata.last_backup_at, now),
            "export_age_s": _age_s(self._exports.last_seen_at, now),
            "days_until_full": None if forecast is None else round(forecast.days, 1),
        }


def _age_s(instant: datetime | None, now: datetime) -> int | None:
    return None if instant is None else max(0, int((now - instant).total_seconds()))
