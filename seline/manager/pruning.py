"""Prune: what the policy drops of every document, said first or done.

Both come from the same plan, in which the backup to rely on was looked at: what a dry run announces
is what goes, unless something changes in between. After a listing that failed nothing goes (V8).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from seline.domain.backup import Backup
from seline.domain.deletion import DeletedFor, read_gone, with_look, write_gone
from seline.domain.document import BOT, Content, DocumentKey, Revision
from seline.domain.report import Pruned
from seline.domain.retention import Dropped, RetentionPlan, plan_deleted, verified_plan
from seline.domain.verdict import Verdict
from seline.errors import BackupNotFound, SelineError
from seline.ports.futures import wait_for
from seline.ports.store import DocumentStore, Retain

if TYPE_CHECKING:
    from seline.manager.data import DataManager

DELETED: Final = "deleted.json"
_log = logging.getLogger("seline.manager")


async def prune(data: DataManager, store: DocumentStore, *, dry_run: bool) -> list[Pruned]:
    """Plan every document's rotation, and carry it out unless `dry_run`. Raises StorageError."""
    gone = await _look_for_deleted(data, store, dry_run=dry_run)
    plans = await data.reading(partial(_plans, data, store, gone), limit_s=math.inf)
    pruned: list[Pruned] = []
    for key, plan in plans:
        dropped: Sequence[Dropped] = plan.drop
        if dropped and not dry_run:
            dropped = await wait_for(store.rotate(key, _retain(data, store, key, gone)))
        if dropped and plan.unguarded and not dry_run:
            _log.warning("%s was deleted long ago: its backups are gone", key.name)
        pruned += [_pruned(key, one) for one in dropped]
    return pruned


async def _look_for_deleted(
    data: DataManager, store: DocumentStore, *, dry_run: bool
) -> Mapping[str, DeletedFor]:
    """Return which documents with backups are gone, and for how long; write it down if it moved.

    What cannot be read or written down makes nothing older: then their backups stay for now.
    """

    def missing() -> list[str]:
        documents = sorted(store.backup_counts(BOT))
        return [one for one in documents if store.peek(DocumentKey(BOT, one)) is Verdict.MISSING]

    names = await data.reading(missing, limit_s=math.inf)
    try:
        state = await data.load_state(DELETED, {"deleted": {}})
        known = read_gone(state)
        now_gone = with_look(known, names, data.clock.now())
        if now_gone != known and not dry_run:
            await data.update_state(DELETED, lambda _before: write_gone(now_gone))
    except (SelineError, ValueError, KeyError) as error:
        data.note("state_not_kept", "", f"{DELETED} cannot be kept, so no backup of a deleted "
                  f"document goes: {error}")  # fmt: skip
        return {}
    return now_gone


def _plans(
    data: DataManager, store: DocumentStore, gone: Mapping[str, DeletedFor]
) -> list[tuple[DocumentKey, RetentionPlan]]:
    """Return what rotation would do with each document's backups now."""
    plans = []
    for document in sorted(store.backup_counts(BOT)):
        key = DocumentKey(BOT, document)
        known = store.peek(key)
        plan = verified_plan(
            store.backups(key),
            _retain(data, store, key, gone),
            verdict_of=partial(_verdict_of, store, key),
            current_revision=known.revision if isinstance(known, Content) else None,
        )
        plans.append((key, plan))
    return plans


def _verdict_of(store: DocumentStore, key: DocumentKey, backup: Backup) -> str:
    try:
        return str(store.read_backup(key, backup.name).verdict)
    except BackupNotFound:
        return str(Verdict.MISSING)


def _retain(
    data: DataManager, store: DocumentStore, key: DocumentKey, gone: Mapping[str, DeletedFor]
) -> Retain:
    """Return the function that plans a document's rotation, also of one deleted long ago."""

    def retain(backups: Sequence[Backup], current_revision: Revision | None) -> RetentionPlan:
        if store.peek(key) is Verdict.MISSING and _deleted_long_ago(data, key, gone, backups):
            return plan_deleted(data.keeping.marked(key.name, backups))
        return data.keeping.plan(key, backups, current_revision)

    return retain


def _deleted_long_ago(
    data: DataManager, key: DocumentKey, gone: Mapping[str, DeletedFor], backups: Sequence[Backup]
) -> bool:
    """Whether it was seen to be gone for `deleted_days`, and even its newest backup is as old."""
    days = timedelta(days=data.options.deleted_days)
    limit = data.clock.now() - days
    return (
        data.keeping.unreadable is None
        and key.name in gone
        and gone[key.name].age >= days
        and all(backup.taken_at < limit for backup in backups)
    )


def _pruned(key: DocumentKey, dropped: Dropped) -> Pruned:
    return Pruned(
        document=key.name,
        backup=dropped.backup.name,
        because=dropped.because,
        size_bytes=dropped.backup.size_bytes,
    )
