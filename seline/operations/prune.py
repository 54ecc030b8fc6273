"""Prune: discard the backups that the retention policy drops, of every document.

A preview and the act use the same plan, for which the backup to rely on was checked: the preview
lists what goes, unless something changes in between. If a listing fails, nothing goes (V8).
"""

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

from seline.domain.backup import Backup
from seline.domain.deletion import DeletedFor, observed
from seline.domain.document import BOT, DocumentKey, Revision
from seline.domain.report import Pruned
from seline.domain.retention import RetentionPlan, plan_deleted, verified_plan
from seline.domain.verdict import Verdict
from seline.errors import BackupNotFound
from seline.manager.managed_store import ManagedStore
from seline.ports.futures import wait_for
from seline.ports.store import DocumentStore, Retain, current_revision, keys_with_backups

_log = logging.getLogger("seline.manager")
_Ages = Mapping[str, DeletedFor]


class Pruner:
    """Prunes one store; it also records for how long documents have been deleted."""

    def __init__(self, store: ManagedStore) -> None:
        self._store = store
        self._deleted = store.state(
            "deleted.json", dict[str, DeletedFor], dict[str, DeletedFor], field="deleted"
        )

    async def run(self, *, dry_run: bool = False) -> list[Pruned]:
        """Discard what the policy drops; `dry_run` only lists it. Raises StorageError."""
        store = await self._store.open()
        ages = await self._ages(store, dry_run=dry_run)
        plans = await self._store.reading(partial(self._plans, store, ages), limit_s=math.inf)
        pruned: list[Pruned] = []
        for key, plan in plans:
            dropped: Sequence[Backup] = plan.drop
            if dropped and not dry_run:
                dropped = await wait_for(store.rotate(key, self._retain(store, key, ages)))
            if dropped and plan.unguarded and not dry_run:
                _log.warning("%s was deleted long ago: its backups are discarded", key.name)
            pruned += [
                Pruned(
                    document=backup.document,
                    backup=backup.name,
                    because=backup.because,
                    size_bytes=backup.size_bytes,
                )
                for backup in dropped
            ]
        return pruned

    def prunable_bytes(self, store: DocumentStore) -> int:
        """Return how many bytes the backups have that `run` would discard. Blocks."""
        self._deleted.read_once(store)
        ages = self._deleted.value if self._deleted.failure is None else {}
        plans = self._plans(store, ages)
        return sum(backup.size_bytes for _, plan in plans for backup in plan.drop)

    async def _ages(self, store: DocumentStore, *, dry_run: bool) -> _Ages:
        """Return for how long documents with backups have been deleted, and record it.

        An age that cannot be read or recorded does not grow, so those backups stay for now.
        """

        def missing() -> list[str]:
            return [info.name for info in store.documents(BOT, deleted=True)]

        names = await self._store.reading(missing, limit_s=math.inf)
        before = await self._deleted.load()
        ages = observed(before, names, self._store.clock.now())
        kept = self._deleted.failure is None
        if ages != before and not dry_run:
            kept = await self._deleted.save(ages)
        return ages if kept else {}

    def _plans(self, store: DocumentStore, ages: _Ages) -> list[tuple[DocumentKey, RetentionPlan]]:
        """Return the rotation plan of each document that has backups. Blocks."""
        plans = []
        for key in keys_with_backups(store, BOT):
            plan = verified_plan(
                store.backups(key),
                self._retain(store, key, ages),
                verdict_of=partial(_verdict_of, store, key),
                current_revision=current_revision(store, key),
            )
            plans.append((key, plan))
        return plans

    def _retain(self, store: DocumentStore, key: DocumentKey, ages: _Ages) -> Retain:
        """Return the function that plans a document's rotation, also of one deleted long ago."""

        def retain(backups: Sequence[Backup], current_revision: Revision | None) -> RetentionPlan:
            pins = self._store.pins
            if store.peek(key) is Verdict.MISSING and self._deleted_long_ago(key, ages, backups):
                return plan_deleted(pins.marked(key.name, backups))
            return pins.plan(key, backups, current_revision)

        return retain

    def _deleted_long_ago(self, key: DocumentKey, ages: _Ages, backups: Sequence[Backup]) -> bool:
        """Whether it has been deleted for `deleted_days`, and its newest backup is as old."""
        days = timedelta(days=self._store.settings.backups.deleted_days)
        limit = self._store.clock.now() - days
        return (
            self._store.pins.failure is None
            and key.name in ages
            and ages[key.name].age_s >= days.total_seconds()
            and all(backup.taken_at < limit for backup in backups if backup.ours)
        )


def _verdict_of(store: DocumentStore, key: DocumentKey, backup: Backup) -> str:
    try:
        return str(store.read_backup(key, backup.name).verdict)
    except BackupNotFound:
        return str(Verdict.MISSING)
