"""What lies in quarantine/: broken bytes that were set aside, for a person to look at.

Ordered as backups are: what was set aside later comes later, whatever the clock says.
"""

from __future__ import annotations

import os
from datetime import datetime

from seline.domain.backup import Stamp, backup_name, next_stamp, parse_backup_name
from seline.domain.document import SELINE, Content, DocumentKey
from seline.ports.store import QuarantineItem
from seline.storage.volume import files
from seline.storage.volume.directory import VolumeDirectory


def list_quarantine(volume: VolumeDirectory) -> list[QuarantineItem]:
    """List what was set aside, newest first; files that are not ours are left out."""
    items: list[tuple[Stamp, QuarantineItem]] = []
    for name in files.names(volume.quarantine):
        parsed = parse_backup_name(name)
        if parsed is None:
            continue
        document, stamp = parsed
        try:
            status = os.stat(name, dir_fd=volume.quarantine, follow_symlinks=False)
        except FileNotFoundError:
            continue
        item = QuarantineItem(
            name=name, document=document, taken_at=stamp.instant, size_bytes=status.st_size
        )
        items.append((stamp, item))
    items.sort(key=lambda one: (one[0], one[1].name), reverse=True)
    return [item for _, item in items]


def aside_document(key: DocumentKey) -> str:
    """Return the name under which a document is known in quarantine/, which all spaces share."""
    return f"seline.{key.name}" if key.space == SELINE else key.name


def free_aside_name(volume: VolumeDirectory, key: DocumentKey, now: datetime) -> str:
    """Return a name in quarantine/ that comes after all others of the document."""
    document = aside_document(key)
    parsed = (parse_backup_name(name) for name in files.names(volume.quarantine))
    stamps = [one[1] for one in parsed if one is not None and one[0] == document]
    return backup_name(document, next_stamp(max(stamps, default=None), now))


def is_set_aside(volume: VolumeDirectory, key: DocumentKey, content: Content) -> bool:
    """Whether these bytes of this document lie there already, in a file of their own."""
    document = aside_document(key)
    for item in list_quarantine(volume):
        if item.document != document or item.size_bytes != content.size_bytes:
            continue
        try:
            raw = files.read_whole(volume.quarantine, item.name, size_max=item.size_bytes)
        except OSError:
            continue
        if raw.data == content.data:
            return True
    return False
