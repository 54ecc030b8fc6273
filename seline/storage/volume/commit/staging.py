"""The states of a change in a commit, and the files that it writes into staging/.

    Publish (the plan's) -> Staged -> Published or Refused

A `Staged` is not visible yet, and lists every name that was made for it: that is what an undo
removes. Each step returns the next state, or raises and leaves nothing that the state before it
does not list.

V1  One rename or exchange replaces a document; nothing is written in place.
"""

import contextlib
import errno
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeAlias

import msgspec

from seline.domain.backup import Backup
from seline.domain.document import Content, DocumentKey
from seline.domain.verdict import Verdict
from seline.storage.planner import Found, Publish
from seline.storage.volume import files
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.os_errors import LookAgain

_NO_EXCHANGE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

Name: TypeAlias = tuple[int, str]
"""A directory's descriptor and a name in it."""


class StagedFile(NamedTuple):
    """A file in staging/, open until the commit ends."""

    name: str
    descriptor: int
    mtime_ns: int


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """A change before it is visible.

    `file` is the new content, None for a removal. `copies` are backups that are still in staging/,
    `links` the names made in backups/ and quarantine/. `backups` are all backups made, oldest
    first. `aside`: the replaced file goes to quarantine/ once it is displaced.
    """

    publish: Publish
    file: StagedFile | None = None
    copies: tuple[tuple[StagedFile, Backup], ...] = ()
    links: tuple[Name, ...] = ()
    backups: tuple[Backup, ...] = ()
    descriptors: tuple[int, ...] = ()
    aside: bool = False

    @property
    def key(self) -> DocumentKey:
        return self.publish.key

    @property
    def found(self) -> Found:
        return self.publish.found

    def names(self, staging: int) -> Iterator[Name]:
        """Yield every name that was made for the change."""
        yield from ((staging, copy.name) for copy, _ in self.copies)
        yield from self.links
        if self.file is not None:
            yield staging, self.file.name


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A change that is visible.

    `displaced` is the name in staging/ of the file that had the document's name before, "" once it
    is disposed of, or if there was none. `edit` is the backup of a hand edit found there. `left`
    is the disk's reason for keeping the displaced file.
    """

    staged: Staged
    displaced: str = ""
    edit: Backup | None = None
    left: str = ""

    @property
    def backups(self) -> tuple[Backup, ...]:
        return self.staged.backups + (() if self.edit is None else (self.edit,))


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the disk refused to publish: the document is unchanged."""

    staged: Staged
    error: OSError


def is_judged(found: Found, directory: int, name: str) -> bool:
    """Whether the file of this name is the very inode that was judged, unchanged."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    token = found.token
    return isinstance(token, FileIdentity) and token.same_bytes(FileIdentity.of(status))


def as_staged(file: StagedFile, content: Content) -> FileIdentity:
    """Return the identity of the file as it was written: an edit made since then differs."""
    identity = FileIdentity.of(os.fstat(file.descriptor))
    return identity._replace(mtime_ns=file.mtime_ns, size_bytes=content.size_bytes)


@dataclass(slots=True)
class Staging:
    """Writes files into staging/, renames them to their places, and removes temporary names."""

    volume: VolumeDirectory
    capabilities: Capabilities
    _sequence: int = 0
    _kept: list[Name] = field(default_factory=list[Name])

    def stage(self, publish: Publish, at_ns: int | None = None) -> Staged:
        """Write a document's new content, not yet synced; its mtime is `at_ns`, or now."""
        self.volume.open_space(publish.key.space)
        if publish.content is None or publish.keeps_file:
            return Staged(publish=publish)
        name = self.free_name()
        with self.removed_on_error(self.volume.staging, name):
            file = self.write(name, publish.key, publish.content, at_ns)
        return Staged(publish=publish, file=file, descriptors=(file.descriptor,))

    def write(
        self, name: str, key: DocumentKey, content: Content, at_ns: int | None = None
    ) -> StagedFile:
        """Write a content with its checksum to a name in staging/, not yet synced."""
        attribute, mtime_ns = self.capabilities.mark(key, content, at_ns)
        descriptor = files.stage(self.volume.staging, name, content.data, attribute, mtime_ns)
        return StagedFile(name, descriptor, mtime_ns)

    def copy(self, staged: Staged, content: Content, backup: Backup) -> Staged:
        """Write a content that `shelve` moves into backups/ once it is durable."""
        copy = self.write(self.free_name(), staged.key, content)
        return msgspec.structs.replace(
            staged,
            copies=(*staged.copies, (copy, backup)),
            backups=(*staged.backups, backup),
            descriptors=(*staged.descriptors, copy.descriptor),
        )

    def shelve(self, staged: Staged) -> Staged:
        """Move the first copy, which is durable, into backups/. Raises LookAgain if it exists."""
        (copy, backup), *rest = staged.copies
        target = self.volume.backups(staged.key.space)
        if self.capabilities.exchange:
            try:
                files.rename_new(self.volume.staging, copy.name, target, backup.name)
            except FileExistsError as error:
                raise LookAgain from error
        elif files.exists(target, backup.name):
            raise LookAgain
        else:
            files.rename(self.volume.staging, copy.name, target, backup.name)
        return msgspec.structs.replace(
            staged, copies=tuple(rest), links=(*staged.links, (target, backup.name))
        )

    def publish(self, staged: Staged) -> Published:
        """Replace the document by its staged content, or remove it."""
        documents, name = self.volume.documents(staged.key.space), staged.key.name
        if staged.publish.keeps_file:
            return Published(staged=staged)
        if staged.file is None:
            removed = self.free_name()
            with contextlib.suppress(FileNotFoundError):
                files.rename(documents, name, self.volume.staging, removed)
                return Published(staged=staged, displaced=removed)
            return Published(staged=staged)
        if self.capabilities.exchange:
            try:
                displaced = self._exchange(staged.found, staged.file.name, documents)
            except OSError as error:
                if error.errno not in _NO_EXCHANGE:
                    raise
                # the volume was too full for the probe at open
                self.capabilities = replace(self.capabilities, exchange=False)
            else:
                return Published(staged=staged, displaced=displaced)
        files.rename(self.volume.staging, staged.file.name, documents, name)
        return Published(staged=staged)

    def _exchange(self, found: Found, staged: str, documents: int) -> str:
        """Exchange the staged file with the document; return the displaced file's name, or ""."""
        name = found.key.name
        if found.judged.verdict is Verdict.MISSING:
            with contextlib.suppress(FileExistsError):
                files.rename_new(self.volume.staging, staged, documents, name)
                return ""
        try:
            files.exchange(self.volume.staging, staged, documents, name)
        except FileNotFoundError:
            files.rename(self.volume.staging, staged, documents, name)
            return ""
        return staged

    def free_name(self) -> str:
        """Return a new name in staging/."""
        self._sequence += 1
        return f"{self._sequence:08x}"

    def remove(self, directory: int, name: str) -> None:
        """Remove a name; never raises OSError."""
        try:
            files.unlink(directory, name, missing_ok=True)
        except OSError:
            self._kept.append((directory, name))

    def remove_names(self, staged: Staged) -> None:
        """Remove every name that was made for a change; never raises OSError."""
        for directory, name in staged.names(self.volume.staging):
            self.remove(directory, name)

    @contextlib.contextmanager
    def removed_on_error(self, directory: int, name: str) -> Generator[None]:
        """Remove a new name if the block raises, but not a file that has the name already."""
        try:
            yield
        except FileExistsError:
            raise
        except BaseException:
            self.remove(directory, name)
            raise

    def retry_removals(self) -> None:
        """Remove the names that could not be removed before."""
        kept, self._kept = self._kept, []
        for directory, name in kept:
            self.remove(directory, name)
