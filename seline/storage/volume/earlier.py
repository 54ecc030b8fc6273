"""Recoveries of earlier processes, from what they left in quarantine/.

A process that is killed after a recovery, or a command that ends, reports it to no one. The broken
file in quarantine/ and the backups show what was lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from seline.domain.backup import Backup
from seline.domain.checksum import Checksum
from seline.domain.document import BOT, DocumentKey, is_document_name
from seline.domain.recovery import choose_backup
from seline.domain.verdict import Judged, Verdict, of_another
from seline.ports.medium import QuarantineItem
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.inspect import Inspection
from seline.storage.volume.quarantine import list_quarantine

RECENT: Final = timedelta(days=1)
WRITTEN_WITHIN: Final = timedelta(seconds=2)
"""A recovery writes the document within this time of the instant in its item's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """A recovery of a document. `source` is the backup that it went back to, None for memory.

    `is_lossy`: the backup is older than the content before the document broke.
    `aside` names the file in quarantine if it is an edit that is not JSON.
    """

    key: DocumentKey
    at: datetime
    judged: Judged
    source: Backup | None
    is_lossy: bool = True
    aside: str = ""


def earlier_recoveries(documents: CurrentDocuments, now: datetime) -> Iterator[Recovery]:
    """Yield the recoveries of the last day, oldest first. Raises OSError.

    A file that became whole in quarantine/ is watched instead, so that it is adopted. It must carry
    the checksum of the document's file: a copy carries none, and no upload goes on in it.
    """
    for item in reversed(list_quarantine(documents.inspector.volume)):
        if not is_document_name(item.document) or not now - RECENT <= item.taken_at <= now:
            continue
        key = DocumentKey(BOT, item.document)
        judged, live = documents.inspector.look_aside(key, item.name), documents.inspector.look(key)
        if judged.judged.verdict is not Verdict.EDITED:
            recovery = _recovery(documents, key, item, judged, live.judged)
            if recovery is not None:
                yield recovery
        elif _is_late_upload(key, judged, live) and _is_as_recovered(
            documents, key, item, judged.judged.recorded, live
        ):
            documents.inspector.watch_aside(key, item.name, None)


def has_last(
    documents: CurrentDocuments, key: DocumentKey, source: Backup, broken: Inspection
) -> bool:
    """Whether a backup has the content before a document's broken file.

    The file's checksum shows it, else the time: what is kept when the file is met is written later.
    The time of a file that Seline did not write shows nothing.
    """
    judged, identity = broken.judged, broken.identity
    if judged.recorded is not None and not of_another(key, judged):
        return judged.recorded.revision == source.revision
    kept = documents.inspector.look_at_backup(key, source.name).identity
    if not source.ours or not judged.is_edit or kept is None or identity is None:
        return False
    return kept.mtime_ns > identity.mtime_ns


def _recovery(
    documents: CurrentDocuments,
    key: DocumentKey,
    item: QuarantineItem,
    broken: Inspection,
    live: Judged,
) -> Recovery | None:
    """Return the recovery that left an item; None if it was no recovery.

    Changes were lost if the content that the broken file recorded is nowhere; without a record, if
    the document went back to the backup before.
    """
    judged, later = broken.judged, _later(documents, key, item)
    if live.content is None:
        return None  # it was given up, or deleted
    candidates = (found for found in documents.backups(key) if found[0] not in later)
    before, kept = choose_backup(candidates).chosen or (None, None)
    after = (later[-1] if later else live.content).revision
    source = before if kept is not None and kept.revision == after else None
    if judged.recorded is None:
        is_lossy = source is not None and not has_last(documents, key, source, broken)
    else:
        backups = documents.backup_index(BOT).of(key.name)
        known = {live.content.revision, *(backup.revision for backup in backups)}
        is_lossy = judged.recorded.revision not in known
        if source is None and judged.recorded.revision == after:
            same = (backup for backup in backups if backup.revision == after)
            source = next((backup for backup in same if backup.taken_at <= item.taken_at), None)
    if before is None and (is_lossy or judged.recorded is None):
        return None
    return Recovery(
        key=key,
        at=item.taken_at,
        judged=judged,
        source=before if is_lossy else source,
        is_lossy=is_lossy,
        aside=item.name if judged.is_edit else "",
    )


def _later(documents: CurrentDocuments, key: DocumentKey, item: QuarantineItem) -> list[Backup]:
    """Return the backups that were made after an item was set aside, newest first."""
    backups = documents.backup_index(key.space).of(key.name)
    return [backup for backup in backups if backup.ours and backup.taken_at > item.taken_at]


def _is_late_upload(key: DocumentKey, judged: Inspection, live: Inspection) -> bool:
    """Whether a file in quarantine/ is the document's own, written after its present file."""
    ours, other = judged.identity, live.identity
    if judged.judged.recorded is None or of_another(key, judged.judged):
        return False
    return ours is not None and other is not None and ours.mtime_ns > other.mtime_ns


def _is_as_recovered(
    documents: CurrentDocuments,
    key: DocumentKey,
    item: QuarantineItem,
    recorded: Checksum | None,
    live: Inspection,
) -> bool:
    """Whether a document is what the recovery put back, and no change followed; False in doubt.

    A recovery puts back the content that the broken file recorded, or the newest backup. A save
    without a backup shows only in the content and the mtime.
    """
    content, updated_at = live.judged.content, live.updated_at
    if live.judged.verdict is not Verdict.SOUND or content is None or updated_at is None:
        return False
    if abs(updated_at - item.taken_at) >= WRITTEN_WITHIN or _later(documents, key, item):
        return False
    newest = documents.backup_index(key.space).of(key.name)[:1]
    put_back = {backup.revision for backup in newest} | {recorded and recorded.revision}
    return content.revision in put_back
