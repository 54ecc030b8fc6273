"""What lies in quarantine/: broken bytes that were set aside, for a person to look at."""

from __future__ import annotations

import os
from datetime import datetime

from seline.domain.backup import Stamp, backup_name, parse_backup_name
from seline.domain.document import Content
from seline.ports.store import QuarantineItem
from seline.storage.volume import disk
from seline.storage.volume.ground import Ground


def list_quarantine(ground: Ground) -> list[QuarantineItem]:
    """List what was set aside, newest first; files that are not ours are left out."""
    items: list[QuarantineItem] = []
    for name in disk.names(ground.quarantine):
        parsed = parse_backup_name(name)
        if parsed is None:
            continue
        document, stamp = parsed
        try:
            status = os.stat(name, dir_fd=ground.quarantine, follow_symlinks=False)
        except FileNotFoundError:
            continue
        items.append(
            QuarantineItem(
                name=name, document=document, taken_at=stamp.instant, size_bytes=status.st_size
            )
        )
    return sorted(items, key=lambda item: (item.taken_at, item.name), reverse=True)


def free_aside_name(ground: Ground, document: str, now: datetime) -> str:
    """Return a name in quarantine/ that nothing bears yet."""
    taken = set(disk.names(ground.quarantine))
    counter = 0
    while (name := backup_name(document, Stamp(now, counter))) in taken:
        counter += 1
    return name


def is_set_aside(ground: Ground, document: str, content: Content) -> bool:
    """Whether these bytes of this document lie there already, in a file of their own."""
    for item in list_quarantine(ground):
        if item.document != document or item.size_bytes != content.size_bytes:
            continue
        try:
            raw = disk.read_whole(ground.quarantine, item.name, size_max=item.size_bytes)
        except OSError:
            continue
        if raw.data == content.data:
            return True
    return False
