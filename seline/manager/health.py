"""Health, storage info and `metadata.json`: the store's state in the seed's shapes (SPEC §6).

What is broken shows at once and in words; what is not configured or not yet due is `info`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from seline.clock import instant_text, parse_instant
from seline.domain.backup import Backup
from seline.domain.document import BOT, DocumentInfo, DocumentKey, Json
from seline.domain.forecast import DAYS_WARN, Forecast, in_words
from seline.domain.json_codec import NotJson, decode, encode
from seline.domain.plural import counted
from seline.domain.report import Check, Status
from seline.domain.usage import Usage, UsageLevel, level_of
from seline.errors import DocumentUnrecoverable, SelineError
from seline.manager import broken_documents
from seline.ports.store import HANGING_S, SLOW_S, DocumentStore, Incident, Outcome

if TYPE_CHECKING:
    from seline.manager.data import DataManager

SCHEMA_VERSION: Final = "1.0.0"
REPORT_EVERY_S: Final = 300.0
RECENT: Final = timedelta(days=1)
MIB: Final = 1 << 20
_RANK: Final = (Status.OK, Status.INFO, Status.WARNING, Status.CRITICAL)
_WORD: Final = {Status.WARNING: "warning", Status.CRITICAL: "critical"}

_STATUS_OF_LEVEL: Final = {
    UsageLevel.OK: Status.OK,
    UsageLevel.HALF: Status.INFO,
    UsageLevel.WARNING: Status.WARNING,
    UsageLevel.HIGH: Status.WARNING,
    UsageLevel.CRITICAL: Status.CRITICAL,
}

_UNSERVED: Final = frozenset({"unrecoverable", "disk_error"})
_STATUS_OF_INCIDENT: Final = {
    "adopted": Status.INFO,
    "set_aside": Status.INFO,
    "edited_meanwhile": Status.INFO,
}


class Health:
    """Counts what happens, and says how the store stands."""

    def __init__(self, data: DataManager, store: DocumentStore) -> None:
        self._data = data
        self._lock = threading.Lock()
        self._reported_at = time.monotonic()
        self._writes = 0
        self._last_updated: datetime | None = None
        self.last_backup_at: datetime | None = None
        self._created_at, self._writes = self._remembered(store)
        self._usage, self._backup_count = store.usage(), 0
        store.watch(self._notice)
        self._store = store
        self.write_report(store)

    def report(self, store: DocumentStore) -> dict[str, Json]:
        """Return the body of `GET /health`. Blocks."""
        self._usage = store.usage()
        self._backup_count = sum(store.backup_counts(BOT).values())
        return self._body(self._usage, list(self._checks(store, self._usage)))

    def from_memory(self, store: DocumentStore) -> dict[str, Json]:
        """Return the same while the disk does not answer: what is known without asking it."""
        checks = [_unanswered(self._data.busy_s()), *self._known_checks(store, self._usage)]
        return self._body(self._usage, checks)

    def _body(self, usage: Usage, checks: Sequence[Check]) -> dict[str, Json]:
        worst = max((check.status for check in checks), key=_RANK.index)
        verified_at = self._data.last_verified_at
        now = self._data.clock.now()
        return {
            "status": _WORD.get(worst, "healthy"),
            "mount_path": self._store.place,
            "total_size_mb": _mb(usage.files_bytes),
            "backup_size_mb": _mb(usage.backups_bytes),
            "backup_count": self._backup_count,
            "metadata": self.metadata(usage),
            "usage_percent": round(usage.usage_ratio * 100, 2),
            "checks": [asdict(check) for check in checks],
            "last_integrity_check": None if verified_at is None else instant_text(verified_at),
            "integrity_age_s": _age(verified_at, now),
            "backup_age_s": _age(self.last_backup_at, now),
            "export_age_s": _age(self._data.last_export_at, now),
            "days_until_full": None
            if self._data.forecast is None
            else round(self._data.forecast.days, 1),
        }

    def storage_info(
        self, store: DocumentStore, documents: Sequence[DocumentInfo], backups: Sequence[Backup]
    ) -> dict[str, Json]:
        """Return the body of `GET /storage-info`."""
        usage = store.usage()
        limit_bytes = usage.limit_bytes or usage.capacity_bytes
        return {
            "mount_path": store.place,
            "data_files": [
                {
                    "name": info.name,
                    "size_kb": _kb(info.size_bytes),
                    "size_bytes": info.size_bytes,
                    "modified": instant_text(info.updated_at),
                    "sha256": info.revision,
                    "verdict": info.verdict,
                    "backups": info.backup_count,
                }
                for info in documents
            ],
            "backups": [
                {
                    "name": backup.name,
                    "document": backup.document,
                    "size_kb": _kb(backup.size_bytes),
                    "taken_at": instant_text(backup.taken_at),
                    "pinned": backup.pinned,
                    "because": backup.because,
                }
                for backup in backups
            ],
            "summary": {
                "total_size_mb": _mb(usage.files_bytes),
                "usage_percent": round(usage.usage_ratio * 100, 2),
                "volume_limit_mb": round(limit_bytes / MIB, 2)
                if limit_bytes % MIB
                else limit_bytes // MIB,
                "free_mb": _mb(usage.available_bytes),
                "inodes_free": usage.inodes_free,
            },
        }

    def metadata(self, usage: Usage) -> dict[str, Json]:
        """Return the value of `metadata.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "created_at": instant_text(self._created_at),
            "last_backup": _text(self.last_backup_at),
            "last_updated": _text(self._last_updated),
            "total_writes": self._writes,
            "storage_info": {
                "total_size_mb": _mb(usage.files_bytes),
                "backup_size_mb": _mb(usage.backups_bytes),
                "usage_percent": round(usage.usage_ratio * 100, 2),
            },
        }

    def write_report(self, store: DocumentStore, *, at_close: bool = False) -> None:
        """Write `metadata.json`, best effort; at close it is waited for."""
        try:
            future = store.write_report(encode(self.metadata(store.usage())))
            if at_close:
                future.exception(timeout=5.0)
        except (SelineError, OSError, TimeoutError):
            return

    def _notice(self, key: DocumentKey, outcome: Outcome) -> None:
        if key.owner != BOT:
            return
        with self._lock:
            self._writes += 1
            self._last_updated = self._data.clock.now()
            if outcome.backup is not None:
                self.last_backup_at = self._last_updated
            due = time.monotonic() - self._reported_at >= REPORT_EVERY_S
            if due:
                self._reported_at = time.monotonic()
        if due:
            self.write_report(self._store)

    def _remembered(self, store: DocumentStore) -> tuple[datetime, int]:
        """Return since when this store exists and how many writes it has seen, as last reported."""
        try:
            report = decode(store.read_report() or b"{}")
            if not isinstance(report, dict):
                return self._data.clock.now(), 0
            writes = report.get("total_writes", 0)
            created = parse_instant(str(report["created_at"]))
            self.last_backup_at = _instant(report.get("last_backup"))
            self._last_updated = _instant(report.get("last_updated"))
            return created, writes if isinstance(writes, int) else 0
        except (NotJson, KeyError, ValueError):
            return self._data.clock.now(), 0

    # the checks

    def _checks(self, store: DocumentStore, usage: Usage) -> Iterator[Check]:
        yield self._writing(store)
        yield from self._known_checks(store, usage)
        yield self._documents(store)
        yield self._quarantine(store)
        if not store.has_reserve():
            yield Check(
                name="reserve",
                status=Status.WARNING,
                detail="the emergency space is not there; it comes back when there is room",
                fix="Free space with `seline prune`, or enlarge the volume.",
            )

    def _known_checks(self, store: DocumentStore, usage: Usage) -> Iterator[Check]:
        """Yield what is said without asking the disk."""
        yield _usage(usage, self._data.forecast)
        yield _inodes(usage)
        yield from self._incidents(store)
        yield self._pins()
        yield self._integrity()
        yield from (check() for check in self._data.more_checks)
        yield _capabilities(store)

    def _writing(self, store: DocumentStore) -> Check:
        trouble, busy_s = store.trouble(), self._data.busy_s()
        if trouble is None and busy_s > SLOW_S:
            return _unanswered(busy_s)
        if trouble is None:
            return Check(name="writing", status=Status.OK, detail="changes are taken")
        return Check(
            name="writing", status=Status.CRITICAL, detail=trouble.message, fix=trouble.hint
        )

    def _documents(self, store: DocumentStore) -> Check:
        """Name the documents that cannot be served; each was found by a read or a verify."""
        still = [name for name in sorted(self._suspects(store)) if _still_broken(store, name)]
        if not still:
            return Check(name="documents", status=Status.OK, detail="none is known to be broken")
        return Check(
            name="documents",
            status=Status.CRITICAL,
            detail=f"cannot be served: {', '.join(still[:10])}",
            fix=DocumentUnrecoverable.hint,
        )

    def _suspects(self, store: DocumentStore) -> set[str]:
        """Return what could not be served, by a read of this process or by the last verify."""
        verified = self._data.last_verify
        found = (
            broken_documents.remembered(store)
            if verified is None
            else {one.document for one in verified.findings if one.is_unserved}
        )
        return {*found, *(one.document for one in self._data.incidents if one.kind in _UNSERVED)}

    def _incidents(self, store: DocumentStore) -> Iterator[Check]:
        since = self._data.clock.now() - RECENT
        for incident in (*store.incidents(), *self._data.incidents):
            if incident.at >= since:
                yield _incident(incident)

    def _quarantine(self, store: DocumentStore) -> Check:
        """Tell what was set aside lately, also before this process started."""
        since = self._data.clock.now() - RECENT
        lately = [item for item in store.quarantine() if item.taken_at >= since]
        if not lately:
            return Check(name="quarantine", status=Status.OK, detail="nothing was set aside lately")
        names = ", ".join(sorted({item.document for item in lately})[:10])
        return Check(
            name="quarantine",
            status=Status.WARNING,
            detail=f"{counted(len(lately), 'broken file')} set aside within a day: {names}",
            fix="Look at them with `seline quarantine`, and ask the volume's provider.",
        )

    def _pins(self) -> Check:
        if self._data.keeping.unreadable is None:
            count = len(self._data.keeping.pins())
            detail = f"{counted(count, 'content')} pinned"
            return Check(name="pins", status=Status.OK, detail=detail)
        return Check(
            name="pins",
            status=Status.WARNING,
            detail="the pins cannot be read, so no backup is rotated",
            fix="Restore or remove .seline/pins.json, then restart.",
        )

    def _integrity(self) -> Check:
        verified = self._data.last_verify
        if verified is None:
            return Check(
                name="integrity",
                status=Status.INFO,
                detail="nothing was verified since the start",
                fix="Run `seline verify`.",
            )
        marked = [found for found in verified.findings if found.outcome == "marked"]
        if not marked:
            documents = counted(verified.documents, "document")
            detail = f"{documents} and {counted(verified.backups, 'backup')} verified"
            return Check(name="integrity", status=Status.OK, detail=detail)
        return Check(
            name="integrity",
            status=Status.WARNING,
            detail=f"{counted(len(marked), 'damaged backup')}, not counted any more",
            fix="They are replaced as the documents are saved; `seline backups NAME` shows them.",
        )


def _still_broken(store: DocumentStore, document: str) -> bool:
    try:
        judged, _ = store.look(DocumentKey(BOT, document))
    except SelineError:
        return True
    return judged.rule.damaged


def _incident(incident: Incident) -> Check:
    status = _STATUS_OF_INCIDENT.get(incident.kind, Status.WARNING)
    return Check(
        name=incident.kind,
        status=status,
        detail=f"{instant_text(incident.at)} {incident.summary}",
        fix="Look at what was set aside with `seline quarantine`."
        if incident.kind in ("recovered", "set_aside", "journal_broken")
        else "",
    )


def _unanswered(busy_s: float) -> Check:
    return Check(
        name="writing",
        status=Status.WARNING if busy_s < HANGING_S else Status.CRITICAL,
        detail=f"the disk has not answered for {busy_s:.0f} s; what needs it waits",
        fix="Wait; if it stays so, the volume hangs: ask its provider.",
    )


def _usage(usage: Usage, forecast: Forecast | None) -> Check:
    percent = f"{usage.usage_ratio:.1%} of the volume is used"
    if forecast is not None:
        percent += f"; full {in_words(forecast)}"
    soon = Status.WARNING if forecast is not None and forecast.days < DAYS_WARN else Status.OK
    status = max(_STATUS_OF_LEVEL[level_of(usage.usage_ratio)], soon, key=_RANK.index)
    return Check(
        name="usage",
        status=status,
        detail=percent,
        fix="Free space with `seline prune`, delete documents, or enlarge the volume."
        if status is not Status.OK
        else "",
    )


def _inodes(usage: Usage) -> Check:
    if not usage.inodes_total or usage.inodes_free is None:
        return Check(name="inodes", status=Status.OK, detail="not limited here")
    status = _STATUS_OF_LEVEL[level_of(usage.inodes_ratio)]
    return Check(
        name="inodes",
        status=status,
        detail=f"{usage.inodes_free} of {usage.inodes_total} files can still be made",
        fix="Keep fewer backups, delete documents or other files, or enlarge the volume."
        if status not in (Status.OK, Status.INFO)
        else "",
    )


def _capabilities(store: DocumentStore) -> Check:
    missing = [capability for capability in store.capabilities() if not capability.present]
    if not missing:
        return Check(name="volume", status=Status.OK, detail="it can do everything Seline needs")
    return Check(
        name="volume",
        status=Status.WARNING,
        detail="; ".join(f"{missed.name}: {missed.detail}" for missed in missing),
        fix="Put the data directory on a local ext4 (with its journal), xfs or btrfs volume.",
    )


def _mb(size_bytes: int) -> float:
    return round(size_bytes / MIB, 2)


def _kb(size_bytes: int) -> float:
    return round(max(size_bytes, 0) / 1024, 1)


def _age(instant: datetime | None, now: datetime) -> int | None:
    return None if instant is None else max(0, int((now - instant).total_seconds()))


def _instant(text: object) -> datetime | None:
    return parse_instant(text) if isinstance(text, str) else None


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant_text(instant)
