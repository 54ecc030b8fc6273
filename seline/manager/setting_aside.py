"""The quarantine's bounds: the oldest go first, and never what may be a document's only copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from seline.domain.document import BOT, DocumentKey
from seline.domain.integrity import Verdict
from seline.errors import SelineError
from seline.ports.store import DocumentStore, QuarantineItem
from seline.ports.waiting import settled

if TYPE_CHECKING:
    from seline.manager.data import DataManager

ITEMS_MAX: Final = 100
BYTES_MAX: Final = 32 << 20
_USABLE: Final = frozenset({Verdict.SOUND, Verdict.EDITED})


def surplus(
    items: Sequence[QuarantineItem], has_another_copy: Callable[[str], bool]
) -> list[QuarantineItem]:
    """Return what is beyond the bounds, of items given newest first.

    The newest stays whatever its size; so does what `has_another_copy` denies of its document.
    """
    gone: list[QuarantineItem] = []
    kept, kept_bytes = 0, 0
    for item in items:
        within = kept < ITEMS_MAX and kept_bytes + item.size_bytes <= BYTES_MAX
        if kept and not within and has_another_copy(item.document):
            gone.append(item)
        else:
            kept, kept_bytes = kept + 1, kept_bytes + item.size_bytes
    return gone


async def bound_quarantine(data: DataManager, store: DocumentStore) -> list[QuarantineItem]:
    """Discard what is beyond the quarantine's bounds; return it."""

    def plan() -> list[QuarantineItem]:
        return surplus(store.quarantine(), lambda document: _has_sound_copy(store, document))

    gone = await data.reading(plan)
    if gone:
        await settled(store.discard_quarantined([item.name for item in gone]))
    return gone


def _has_sound_copy(store: DocumentStore, document: str) -> bool:
    """Whether the document itself or one of its backups can be used."""
    key = DocumentKey(BOT, document)
    if store.look(key)[0].verdict in _USABLE:
        return True
    for backup in store.backups(key):
        try:
            if store.read_backup(key, backup.name).verdict in _USABLE:
                return True
        except SelineError:
            continue
    return False
