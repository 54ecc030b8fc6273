"""The document store port over one held directory.

Readers are answered from the overlay while a commit runs, else from memory after one stat, else
from the disk. Changes go through the writer's queue.
"""

import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from msgspec import UNSET

from seline.clock import Clock
from seline.domain.backup import Backup, parse_backup_name
from seline.domain.checksum import decode_checksum
from seline.domain.document import Content, DocumentInfo, DocumentKey, Revision
from seline.domain.verdict import DAMAGED, UNCHECKED, Judged, Verdict
from seline.errors import BackupNotFound, SelineError, UnsupportedFormat
from seline.pacing import FILES, paced
from seline.ports.store import AddedBackup, Atom, Outcome, Retain, Snapshot
from seline.storage.volume import files
from seline.storage.volume.batches import Batches
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory, while_open
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.medium import VolumeMedium
from seline.storage.volume.os_errors import raising
from seline.storage.volume.snapshots import Snapshots
from seline.storage.volume.writer import Writer

LOOKS: Final = 3
"""How often a snapshot looks at what changed since it looked, before its last step."""


@dataclass(eq=False)
class VolumeStore:
    """A `DocumentStore` of readable files in one directory. `open_volume` builds it."""

    volume: VolumeDirectory
    medium: VolumeMedium
    clock: Clock
    current_documents: CurrentDocuments
    snapshots: Snapshots
    batches: Batches
    writer: Writer
    _closing: threading.RLock = field(default_factory=threading.RLock)
    _is_closing: bool = False

    # reading

    def peek(self, key: DocumentKey) -> Content | Verdict | None:
        self.volume.check_usable()
        overlay = self.batches.committer.overlay
        held = overlay.answer(key)
        if held is UNSET:
            found = self.current_documents.inspector.peek(key)
            if found is Verdict.MISSING:
                self.volume.check_usable()  # after a close the descriptor may be another's
            held = overlay.answer(key)  # once more: a commit may have begun before the file changed
            if held is UNSET:
                return found
        return None if isinstance(held, SelineError) else held or Verdict.MISSING

    def remembered_at(self, key: DocumentKey, content: Content) -> datetime | None:
        overlay = self.batches.committer.overlay
        held = overlay.answer(key) is content
        known = overlay.instant(key) if held else None
        return known or self.current_documents.inspector.remembered_at(key, content)

    @while_open
    def look(self, key: DocumentKey) -> tuple[Judged, datetime | None]:
        inspection = self.current_documents.inspector.look(key)
        held = self.batches.committer.overlay.answer(key)
        if held is UNSET:
            return inspection.judged, inspection.updated_at
        if isinstance(held, SelineError):
            raise held
        verdict = Verdict.MISSING if held is None else Verdict.SOUND
        instant = self.batches.committer.overlay.instant(key)
        return Judged(verdict, held), instant or inspection.updated_at or self.clock.now()

    @while_open
    def documents(self, space: str, *, deleted: bool = False) -> Sequence[DocumentInfo]:
        self.medium.settle()
        counts = self.current_documents.backup_index(space).counts()
        names = self._document_names(space)
        if deleted:
            gone = sorted(counts.keys() - set(names))
            return [self._deleted(space, name) for name in paced(gone)]
        infos = (self._info(DocumentKey(space, name), counts.get(name, 0)) for name in paced(names))
        return [info for info in infos if info is not None]

    @while_open
    def backups(self, key: DocumentKey) -> Sequence[Backup]:
        self.medium.settle()
        return self.current_documents.backup_index(key.space).of(key.name)

    @while_open
    def read_backup(self, key: DocumentKey, backup: str) -> Judged:
        self.medium.settle()
        parsed = parse_backup_name(backup)
        if parsed is None or parsed[0] != key.name:
            raise BackupNotFound(
                f"{backup!r} is not a backup of {key.name}.", document=key.name, backup=backup
            )
        judged = self.current_documents.inspector.look_at_backup(key, backup).judged
        if judged.verdict is Verdict.MISSING:
            raise BackupNotFound(
                f"{key.name} has no backup {backup}.", document=key.name, backup=backup
            )
        return judged

    # changing

    def submit(self, atom: Atom) -> Future[tuple[Outcome, ...]]:
        self.volume.check_usable()  # the volume stays open until the writer has ended
        return self.writer.submit(atom)

    @while_open
    def rotate(self, key: DocumentKey, retain: Retain) -> Future[Sequence[Backup]]:
        return self.writer.between(lambda: self.batches.rotate(key, retain))

    @while_open
    def add_backups(
        self, added: Sequence[AddedBackup], *, always: bool = False
    ) -> Future[Sequence[bool]]:
        return self.writer.between(lambda: self.batches.add_backups(added, always=always))

    @while_open
    def snapshot(self, space: str) -> Future[AbstractContextManager[Snapshot]]:
        return self.writer.in_steps(self._take_snapshot(space))

    def watch(self, watcher: Callable[[DocumentKey, Outcome], None]) -> Callable[[], None]:
        return self.batches.events.watch(watcher)

    def close(self) -> None:
        if self.volume.is_forked:  # the journal's files are the parent's
            return
        with self._closing:  # a close by another thread ends first
            if self._is_closing:  # a signal's handler, in the middle of this
                return
            self._is_closing = True
            try:
                self.writer.close()
                self.batches.close(settles=not self.writer.is_dead)
                self.volume.close()
            finally:
                self._is_closing = False

    # parts

    def _document_names(self, space: str) -> list[str]:
        """List a space's documents by name, sorted; what the journal has counts."""
        overlay = self.batches.committer.overlay  # first: a file may be published in between
        held = {key.name: overlay.answer(key) for key in overlay.unpublished if key.space == space}
        names = self.volume.document_names(space)
        if not held:
            return names
        added = {name for name, answer in held.items() if isinstance(answer, Content)}
        removed = {name for name, answer in held.items() if answer is None}
        return sorted(added.union(names) - removed)

    def _info(self, key: DocumentKey, backup_count: int) -> DocumentInfo | None:
        known = self.peek(key)
        if isinstance(known, Content):
            updated_at = self.remembered_at(key, known)
            if updated_at is not None:
                return DocumentInfo(
                    name=key.name,
                    revision=known.revision,
                    size_bytes=known.size_bytes,
                    updated_at=updated_at,
                    verdict=str(Verdict.SOUND),
                    backup_count=backup_count,
                )
        directory = self.volume.documents(key.space)
        try:
            status = files.status(directory, key.name)
        except OSError:
            return None
        if isinstance(known, Content):
            revision, verdict = known.revision, str(Verdict.SOUND)
        else:
            revision, verdict = self._recorded(key, status)
        return DocumentInfo(
            name=key.name,
            revision=revision or None,
            size_bytes=status.st_size,
            updated_at=FileIdentity.of(status).updated_at,
            verdict=verdict,
            backup_count=backup_count,
        )

    def _recorded(self, key: DocumentKey, status: os.stat_result) -> tuple[Revision, str]:
        """Return the revision and the verdict word of a document that is not in memory.

        Its bytes are read only if the checksum shows that Seline did not leave the file like this.
        """
        try:
            descriptor = files.open_to_read(self.volume.documents(key.space), key.name)
            with files.closing(descriptor):
                checksum = decode_checksum(files.read_attribute(descriptor))
        except (OSError, UnsupportedFormat):
            return "", UNCHECKED
        inspector = self.current_documents.inspector
        damage = inspector.known_damage(key, FileIdentity.of(status))
        if checksum is None:
            return "", str(damage or UNCHECKED)
        if (checksum.mtime_ns, checksum.size_bytes) == (status.st_mtime_ns, status.st_size):
            return checksum.revision, str(damage or UNCHECKED)
        found = damage or inspector.look(key).judged.verdict
        return "", str(found) if found in DAMAGED else UNCHECKED

    def _deleted(self, space: str, name: str) -> DocumentInfo:
        backups = self.current_documents.backup_index(space).of(name)
        return DocumentInfo(
            name=name,
            revision=None,
            size_bytes=0,
            updated_at=backups[0].taken_at if backups else self.clock.now(),
            verdict=str(Verdict.MISSING),
            backup_count=len(backups),
        )

    def _take_snapshot(self, space: str) -> Generator[None, None, AbstractContextManager[Snapshot]]:
        held = yield from self._identities(space)
        overlay = self.batches.committer.overlay
        answers = {key.name: overlay.answer(key) for key in overlay.keys if key.space == space}
        durable = {key.name for key in overlay.unpublished if key.space == space}
        unpublished = {
            name: answer
            for name, answer in answers.items()
            if name in durable and (answer is None or isinstance(answer, Content))
        }
        in_doubt = frozenset(answers.keys() - unpublished.keys())
        files_held = {name: held[name] for name in held.keys() - answers.keys()}
        now = self.clock.now()
        return closing(self.snapshots.take(space, files_held, in_doubt, unpublished, now))

    def _identities(self, space: str) -> Generator[None, None, dict[str, FileIdentity]]:
        """Return the documents' files as they are in the last step.

        The steps before look at all of them, and again at those that Seline changed since, until
        these are few: the last step looks at them and at new ones.
        """
        looked: dict[str, FileIdentity] = {}
        with self.current_documents.inspector.changes() as changed:
            self.batches.settle()
            names = self.volume.document_names(space)
            for _ in range(LOOKS):
                changed.clear()
                for number, name in enumerate(paced(names), 1):
                    looked |= self._identity(space, name)
                    if number % FILES == 0:
                        yield
                names = [key.name for key in changed if key.space == space]
                if len(names) <= FILES:
                    break
            self.batches.settle()
            for key in changed:
                if key.space == space:
                    looked.pop(key.name, None)
        found: dict[str, FileIdentity] = {}
        for name in self.volume.document_names(space):
            if name in looked:
                found[name] = looked[name]
            else:
                found |= self._identity(space, name)
        return found

    def _identity(self, space: str, name: str) -> dict[str, FileIdentity]:
        """Return the identity of a document's file by its name, nothing if there is no file."""
        with raising(self.volume.named, f"Reading {name}"), suppress(FileNotFoundError):
            status = files.status(self.volume.documents(space), name)
            return {name: FileIdentity.of(status)}
        return {}
