"""Prune: what the policy drops of every document, said first or done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from seline.domain.backup import Backup
from seline.domain.document import BOT, DocumentKey
from seline.domain.integrity import Verdict
from seline.domain.report import Pruned
from seline.domain.retention import Dropped, RetentionPlan
from seline.ports.store import DocumentStore
from seline.ports.waiting import settled

if TYPE_CHECKING:
    from seline.manager.data import DataManager


async def prune(data: DataManager, store: DocumentStore, *, dry_run: bool) -> list[Pruned]:
    """Plan every document's rotation, and carry it out unless `dry_run`."""
    plans = await data.reading(lambda: _plans(data, store))
    pruned: list[Pruned] = []
    for key, plan in plans:
        dropped = list(plan.drop)
        if not dry_run and dropped:
            because = {drop.backup.name: drop for drop in dropped}
            gone = await settled(store.rotate(key, partial(_plan, data, store, key)))
            dropped = [because.get(backup.name, Dropped(backup, "rotation")) for backup in gone]
        pruned += [
            Pruned(
                document=key.name,
                backup=drop.backup.name,
                because=drop.because,
                size_bytes=drop.backup.size_bytes,
            )
            for drop in dropped
        ]
    return pruned


def _plans(data: DataManager, store: DocumentStore) -> list[tuple[DocumentKey, RetentionPlan]]:
    plans = []
    for document in sorted(store.backup_counts(BOT)):
        key = DocumentKey(BOT, document)
        plans.append((key, _plan(data, store, key, store.backups(key))))
    return plans


def _plan(
    data: DataManager, store: DocumentStore, key: DocumentKey, backups: Sequence[Backup]
) -> RetentionPlan:
    if store.peek(key) is Verdict.MISSING and _deleted_long_ago(data, backups):
        marked = data.keeping.marked(key.name, backups)
        return data.keeping.plan_deleted([backup for backup in marked if not backup.pinned])
    return data.keeping.plan(key, backups)


def _deleted_long_ago(data: DataManager, backups: Sequence[Backup]) -> bool:
    """Whether even the newest backup (taken by the delete) is older than `deleted_days`."""
    limit = data.clock.now() - timedelta(days=data.options.deleted_days)
    return data.keeping.unreadable is None and all(backup.taken_at < limit for backup in backups)
