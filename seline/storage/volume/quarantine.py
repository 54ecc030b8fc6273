"""The broken files in quarantine/, kept for a person to look at.

All spaces share the directory. A later item has a later stamp, also if the clock was set back. A
file is Seline's if it has an item's name, or a backup's name and the checksum attribute, as items
had before. Every other file is its owner's: no limit and no purge removes it.
"""

import stat
from datetime import datetime

from seline.domain.backup import Stamp, aside_name, is_aside_name, next_stamp, parse_aside_name
from seline.domain.document import BOT, SELINE, Content, DocumentKey
from seline.ports.medium import QuarantineItem
from seline.storage.volume import files
from seline.storage.volume.directory import VolumeDirectory


def list_quarantine(volume: VolumeDirectory) -> list[QuarantineItem]:
    """List the items, newest first; what Seline did not put there is left out.

    A purge may have moved a directory there; Seline moves no link and no special file.
    """
    items: list[tuple[Stamp, QuarantineItem]] = []
    for name in files.names(volume.quarantine):
        parsed = parse_aside_name(name)
        if parsed is None or not is_item(volume, name):
            continue
        document, stamp = parsed
        try:
            status = files.status(volume.quarantine, name)
        except FileNotFoundError:
            continue
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            continue
        item = QuarantineItem(
            name=name, document=document, taken_at=stamp.instant, size_bytes=status.st_size
        )
        items.append((stamp, item))
    items.sort(key=lambda entry: (entry[0], entry[1].name), reverse=True)
    return [item for _, item in items]


def aside_document(key: DocumentKey) -> str:
    """Return the name of a document in quarantine/: `space+name` outside the bot's space.

    Neither a space nor a document may have `+` in its name, so no two documents share one.
    """
    if key.space == BOT:
        return key.name
    return f"seline.{key.name}" if key.space == SELINE else f"{key.space}+{key.name}"


def is_item(volume: VolumeDirectory, name: str) -> bool:
    """Whether Seline put the file of this name into quarantine/."""
    if is_aside_name(name) or parse_aside_name(name) is None:
        return is_aside_name(name)
    try:
        with files.closing(files.open_to_read(volume.quarantine, name)) as descriptor:
            return files.read_attribute(descriptor) is not None
    except OSError:
        return False


def free_aside_name(volume: VolumeDirectory, key: DocumentKey, now: datetime) -> str:
    """Return a new name in quarantine/, later than all others of the document."""
    document = aside_document(key)
    parsed = map(parse_aside_name, filter(is_aside_name, files.names(volume.quarantine)))
    stamps = [item[1] for item in parsed if item is not None and item[0] == document]
    return aside_name(document, next_stamp(max(stamps, default=None), now))


def set_aside(
    volume: VolumeDirectory, directory: int, name: str, key: DocumentKey, now: datetime
) -> str:
    """Move a file of a document to quarantine/, durably; return its name there."""
    aside = free_aside_name(volume, key, now)
    files.rename(directory, name, volume.quarantine, aside)
    files.sync(volume.quarantine)
    return aside


def is_set_aside(volume: VolumeDirectory, key: DocumentKey, content: Content) -> bool:
    """Whether these bytes of this document are in quarantine/ already."""
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
