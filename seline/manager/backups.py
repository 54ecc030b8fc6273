"""Which backups there are, what each is worth, and why it is kept. Nothing here changes anything.

Every function reads the disk and blocks; callers run it on the reader threads.
"""

from typing import Final

from msgspec.structs import replace

from seline.domain.backup import Backup
from seline.domain.document import BOT, Content, DocumentKey, Revision
from seline.domain.verdict import COUNTED, backup_word, usable_as_backup
from seline.errors import BackupNotFound
from seline.manager.pins import Pins
from seline.ports.store import DocumentStore, keys_with_backups

LISTINGS_MAX: Final = 3


def judged_backups(store: DocumentStore, key: DocumentKey) -> list[Backup]:
    """Judge the listed backups; list them again if some were rotated in the meantime."""
    judged: list[Backup] = []
    for _ in range(LISTINGS_MAX):
        listed = store.backups(key)
        found = (_judged_backup(store, key, backup) for backup in listed)
        judged = [backup for backup in found if backup is not None]
        if len(judged) == len(listed):
            break
    return judged


def every_backup(store: DocumentStore, pins: Pins) -> list[Backup]:
    """List every document's backups, unjudged, each with its reason."""
    keys = keys_with_backups(store, BOT)
    return [backup for key in keys for backup in pins.reasoned(key, store.backups(key))]


def backup_content(store: DocumentStore, key: DocumentKey, backup: str) -> Content:
    """Return a backup's bytes. Raises BackupNotFound, also for one that is not sound."""
    judged = store.read_backup(key, backup)
    if judged.content is None or not usable_as_backup(key, judged):
        raise BackupNotFound(
            f"The backup {backup} is {judged.verdict}: {judged.flaw}.",
            document=key.name,
            backup=backup,
            verdict=str(judged.verdict),
        )
    return judged.content


def backup_revision(
    store: DocumentStore, pins: Pins, key: DocumentKey, name: str
) -> Revision | None:
    """Return the revision of a backup, broken or not, as far as it is known."""
    listed = {backup.name: backup for backup in store.backups(key)}
    return pins.revision_of(listed[name]) if name in listed else None


def has_copies(store: DocumentStore, key: DocumentKey) -> bool:
    """Whether a document has backups or quarantined bytes: what a purge would erase."""
    items = store.medium.quarantine()
    return bool(store.backups(key)) or any(item.document == key.name for item in items)


def _judged_backup(store: DocumentStore, key: DocumentKey, backup: Backup) -> Backup | None:
    try:
        judged = store.read_backup(key, backup.name)
    except BackupNotFound:
        return None
    word = backup_word(key, judged)
    return replace(backup, verdict=word, flaw="" if word in COUNTED else judged.flaw)
