"""What a commit writes into staging/, and how it goes from there to its name.

V1  A name passes from the old file to the new one in one step; nothing is written in place.
What is staged is synced by the commit, before any of it goes anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from seline.domain.backup import Backup, Stamp, backup_name
from seline.domain.document import Content, DocumentKey
from seline.domain.verdict import Verdict
from seline.storage.planner import Publish
from seline.storage.volume import files
from seline.storage.volume.backup_index import BackupIndex
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.os_errors import LookAgain

_NO_EXCHANGE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


@dataclass(slots=True)
class Move:
    """One document's way through the commit."""

    publish: Publish
    key: DocumentKey
    staged: str = ""
    descriptor: int = -1
    mtime_ns: int = 0
    copies: list[tuple[str, Backup]] = field(default_factory=list[tuple[str, Backup]])
    descriptors: list[int] = field(default_factory=list[int])
    links: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    backups: list[Backup] = field(default_factory=list[Backup])
    set_aside: bool = False
    displaced: bool = False
    left: str = ""
    refused: OSError | None = None

    def is_judged(self, directory: int, name: str) -> bool:
        """Whether what bears this name is the very inode that was judged, unchanged."""
        token = self.publish.found.token
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return isinstance(token, FileIdentity) and token.same_bytes(FileIdentity.of(status))

    def next_backup(self, backup_index: BackupIndex, content: Content, now: datetime) -> Backup:
        """Return the backup that a content becomes, after every one that there is."""
        document = self.key.name
        after: Stamp | None = self.backups[-1].stamp if self.backups else None
        stamp = backup_index.next_stamp(document, now, after=after)
        return Backup(
            name=backup_name(document, stamp),
            document=document,
            stamp=stamp,
            size_bytes=content.size_bytes,
            revision=content.revision,
            verdict=Verdict.SOUND,
        )


@dataclass(slots=True)
class Staging:
    """Writes into the staging/ of one ground, and moves out of it. `probed` says in which way."""

    volume: VolumeDirectory
    capabilities: Capabilities
    _sequence: int = 0

    def stage(self, move: Move) -> None:
        """Write a document's new content."""
        if move.publish.content is not None:
            move.staged = self.free_name()
            move.descriptor, move.mtime_ns = self.write(move, move.staged, move.publish.content)

    def write(self, move: Move, name: str, content: Content) -> tuple[int, int]:
        """Write a content, to be synced with the others; return its descriptor and its mtime."""
        attribute, mtime_ns = self.capabilities.mark(move.key, content)
        descriptor = files.stage(self.volume.staging, name, content.data, attribute, mtime_ns)
        move.descriptors.append(descriptor)
        return descriptor, mtime_ns

    def free_name(self) -> str:
        """Return a name in staging/ that nothing bears."""
        self._sequence += 1
        return f"{self._sequence:08x}"

    def shelve(self, name: str, target: int, backup: Backup) -> None:
        """Move a copy to its name among the backups; never over one that bears it already."""
        if not self.capabilities.exchange:
            files.rename(self.volume.staging, name, target, backup.name)
            return
        try:
            files.rename_new(self.volume.staging, name, target, backup.name)
        except FileExistsError as error:
            raise LookAgain from error

    def put_in_place(self, move: Move) -> None:
        """Put the new content in place of the old one, or take the document away.

        What bore the name before comes out under `move.staged`, which `displaced` says.
        """
        documents, name = self.volume.documents(move.key.owner), move.key.name
        if move.publish.content is None:
            move.staged = self.free_name()
            with contextlib.suppress(FileNotFoundError):
                files.rename(documents, name, self.volume.staging, move.staged)
                move.displaced = True
            return
        if self.capabilities.exchange:
            try:
                self._exchange(move, documents)
            except OSError as error:
                if error.errno not in _NO_EXCHANGE:
                    raise
                self.capabilities = replace(
                    self.capabilities, exchange=False
                )  # there was no room to probe it
            else:
                return
        files.rename(self.volume.staging, move.staged, documents, name)

    def _exchange(self, move: Move, documents: int) -> None:
        name = move.key.name
        if move.publish.found.judged.verdict is Verdict.MISSING:
            with contextlib.suppress(FileExistsError):
                files.rename_new(self.volume.staging, move.staged, documents, name)
                return
        try:
            files.exchange(self.volume.staging, move.staged, documents, name)
            move.displaced = True
        except FileNotFoundError:
            files.rename(self.volume.staging, move.staged, documents, name)
