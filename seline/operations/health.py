"""Health: the body of `GET /health`, in the seed's shape with the checks added."""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, TypedDict

from seline.clock import instant_text
from seline.domain.report import Check, Status
from seline.domain.usage import megabytes
from seline.errors import SelineError
from seline.manager.metadata import MetadataReport
from seline.operations.checks import Facts, run_checks, worst

_WORD: Final[Mapping[Status, Literal["warning", "critical"]]] = {
    Status.WARNING: "warning",
    Status.CRITICAL: "critical",
}


class CheckShown(TypedDict):
    """A health check."""

    name: str
    status: Status
    detail: str
    fix: str


class HealthBody(TypedDict):
    """The state of the store; figures are null while it is not open."""

    status: Literal["healthy", "warning", "critical"]
    mount_path: str
    total_size_mb: float | None
    backup_size_mb: float | None
    backup_count: int | None
    metadata: MetadataReport | None
    usage_percent: float | None
    checks: list[CheckShown]
    last_integrity_check: str | None
    integrity_age_s: int | None
    backup_age_s: int | None
    export_age_s: int | None
    days_until_full: float | None


def health_body(facts: Facts) -> HealthBody:
    """Return the body. Blocks if the disk answers."""
    usage, metadata, now = facts.usage, facts.managed.metadata, facts.now
    checks = run_checks(facts)
    last_full_at, forecast = facts.verifier.last_full_at, facts.monitor.forecast
    return {
        "status": _WORD.get(worst(checks), "healthy"),
        "mount_path": facts.store.medium.place,
        "total_size_mb": megabytes(usage.files_bytes),
        "backup_size_mb": megabytes(usage.backups_bytes),
        "backup_count": facts.backup_count,
        "metadata": metadata.value(usage),
        "usage_percent": round(usage.usage_ratio * 100, 2),
        "checks": [_shown(check) for check in checks],
        "last_integrity_check": None if last_full_at is None else instant_text(last_full_at),
        "integrity_age_s": _age_s(last_full_at, now),
        "backup_age_s": _age_s(metadata.last_backup_at, now),
        "export_age_s": _age_s(facts.exports.destinations.last_seen_at, now),
        "days_until_full": None if forecast is None else round(forecast.days, 1),
    }


def unopened_health(data_dir: str, failure: SelineError) -> HealthBody:
    """Return the body while the volume is not open: the reason, and no figures."""
    check = Check(name="writing", status=Status.CRITICAL, detail=failure.message, fix=failure.hint)
    return {
        "status": "critical",
        "mount_path": os.path.abspath(data_dir),
        "total_size_mb": None,
        "backup_size_mb": None,
        "backup_count": None,
        "metadata": None,
        "usage_percent": None,
        "checks": [_shown(check)],
        "last_integrity_check": None,
        "integrity_age_s": None,
        "backup_age_s": None,
        "export_age_s": None,
        "days_until_full": None,
    }


def _shown(check: Check) -> CheckShown:
    return CheckShown(name=check.name, status=check.status, detail=check.detail, fix=check.fix)


def _age_s(instant: datetime | None, now: datetime) -> int | None:
    return None if instant is None else max(0, int((now - instant).total_seconds()))
