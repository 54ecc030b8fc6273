"""Make the files durable that were published without a sync.

V3  A journal file is marked clean only after this returned without an error.
"""

from collections.abc import Collection
from typing import NamedTuple

from seline.storage.volume import files
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.directory import VolumeDirectory


class Touched(NamedTuple):
    """A file that was published: a document, or a backup of one."""

    space: str
    name: str
    is_backup: bool = False


def sync_published(
    volume: VolumeDirectory, capabilities: Capabilities, touched: Collection[Touched]
) -> None:
    """Sync the whole file system if it is the volume's own, else these files and all directories.

    Raises OSError.
    """
    if capabilities.own_mount and files.syncs_filesystems():
        files.sync_filesystem(volume.top)
        return
    for file in touched:
        directory_of = volume.backups if file.is_backup else volume.documents
        try:
            descriptor = files.open_to_read(directory_of(file.space), file.name)
        except (FileNotFoundError, files.NotRegular):
            continue  # rotated, or removed by another program
        with files.closing(descriptor):
            files.sync(descriptor)
    for directory in volume.directories:
        files.sync(directory)
