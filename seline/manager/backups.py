"""Which backups there are, what each is worth, and why it is kept; looking changes nothing.

Everything here reads the disk and blocks; the manager has it done on the reader threads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from seline.domain.backup import Backup
from seline.domain.document import BOT, Content, DocumentKey, Revision
from seline.domain.verdict import backup_word, usable_as_backup
from seline.errors import BackupNotFound
from seline.manager.pins import Keeping
from seline.ports.store import DocumentStore

LISTINGS_MAX: Final = 3


def judged_backups(store: DocumentStore, key: DocumentKey) -> list[Backup]:
    """Judge the backups that are listed, anew where some were rotated away meanwhile."""
    judged: list[Backup] = []
    for _ in range(LISTINGS_MAX):
        listed = store.backups(key)
        judged = [one for one in (_judged_backup(store, key, each) for each in listed) if one]
        if len(judged) == len(listed):
            break
    return judged


def every_backup(store: DocumentStore, keeping: Keeping) -> list[Backup]:
    """List every document's backups, unjudged, each with its reason."""
    keys = [DocumentKey(BOT, document) for document in sorted(store.backup_counts(BOT))]
    return [backup for key in keys for backup in keeping.reasoned(key, store.backups(key))]


def backup_content(store: DocumentStore, key: DocumentKey, backup: str) -> Content:
    """Return a backup's bytes. Raises BackupNotFound, also for one that is not sound."""
    judged = store.read_backup(key, backup)
    if judged.content is None or not usable_as_backup(key, judged):
        raise BackupNotFound(
            f"The backup {backup} is {judged.verdict}: {judged.reason}.",
            document=key.name,
            backup=backup,
            verdict=str(judged.verdict),
        )
    return judged.content


def backup_revision(
    store: DocumentStore, keeping: Keeping, key: DocumentKey, backup: str
) -> Revision | None:
    """Return the revision of a backup, broken or not, as far as it is known."""
    listed = {one.name: one for one in store.backups(key)}
    return keeping.revision_of(listed[backup]) if backup in listed else None


def has_copies(store: DocumentStore, key: DocumentKey) -> bool:
    """Whether anything of a document is kept beside it: what a purge would erase."""
    return bool(store.backups(key)) or any(item.document == key.name for item in store.quarantine())


def _judged_backup(store: DocumentStore, key: DocumentKey, backup: Backup) -> Backup | None:
    try:
        judged = store.read_backup(key, backup.name)
    except BackupNotFound:
        return None
    return replace(backup, verdict=backup_word(key, judged))
