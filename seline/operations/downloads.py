"""Downloads: bytes of the volume in a spool, so that a slow client occupies no memory.

A backup is checked before: the bytes that were checked are the bytes that are sent.
"""

from collections.abc import Callable

from seline.domain.document import BOT, Content, DocumentKey, Revision, check_document_name
from seline.manager.backups import backup_content
from seline.manager.managed_store import ManagedStore
from seline.operations.spool import Spool, spooled


async def raw_document(store: ManagedStore, name: str) -> Spool:
    """Return a document's bytes as they are, sound or not. Raises DocumentNotFound."""
    key = DocumentKey(BOT, check_document_name(name))
    opened = await store.open()
    return await _spooled(store, lambda: opened.medium.raw(key))


async def quarantined(store: ManagedStore, item: str) -> Spool:
    """Return a quarantined file's bytes. Raises DocumentNotFound."""
    opened = await store.open()
    return await _spooled(store, lambda: opened.medium.read_quarantine(item))


async def sound_backup(store: ManagedStore, name: str, backup: str) -> tuple[Revision, Spool]:
    """Return a backup's revision and bytes. Raises BackupNotFound, also for one that is broken."""
    key = DocumentKey(BOT, check_document_name(name))
    opened = await store.open()

    def read() -> tuple[Revision, Spool]:
        content: Content = backup_content(opened, key, backup)
        return content.revision, spooled(content.data)

    return await store.reading(read)


async def _spooled(store: ManagedStore, read: Callable[[], bytes]) -> Spool:
    return await store.reading(lambda: spooled(read()))
