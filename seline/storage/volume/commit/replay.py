"""Recover from a crash or a failed sync: complete the record, remove temporary files.

V1, V3, V5  Every document that a record names becomes current.
A crash in the middle of it changes nothing: the next run gives the same result.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from seline.domain.backup import Backup
from seline.domain.checksum import decode_checksum
from seline.domain.document import SELINE, Content, DocumentKey, Json
from seline.domain.incident import Incident, IncidentKind
from seline.domain.json_codec import why_not_json
from seline.domain.recovery import choose_backup
from seline.domain.verdict import USABLE, Verdict
from seline.errors import UnsupportedFormat
from seline.storage.volume import files
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit.record import (
    RECORD_NAME,
    RecordEntry,
    decode_record,
    encode_record,
)
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.os_errors import describe, is_full, is_of_one_file, raising
from seline.storage.volume.quarantine import free_aside_name, set_aside

_ANY_SIZE: Final = 1 << 40
AGAIN: Final = "again"
"""The name in staging/ of a content that is published once more."""


@dataclass(slots=True)
class Replay:
    """Completes what a commit of the first form left unfinished on one volume."""

    volume: VolumeDirectory
    current_documents: CurrentDocuments
    report: Callable[[Incident], None]
    capabilities: Capabilities

    def run(self, now: datetime, *, again: bool = False) -> frozenset[DocumentKey]:
        """Sync all names, complete the record, then sweep; return the documents of the record.

        `again`: after a failed sync, not at start. Raises StorageError.
        """
        with raising(self.volume.named, "Recovering the volume"):
            self._sync_names()
            completed = self._roll_forward(now, again=again)
            self._sweep_staging(now)
            if not again:  # snapshots in progress use the directories
                self._sweep_exports()
            self._sweep_twins()
        return completed

    def unfinished(self) -> frozenset[DocumentKey]:
        """Return the documents of a record that is not completed, none if it is broken."""
        try:
            data = files.read_whole(self.volume.seline, RECORD_NAME, size_max=_ANY_SIZE).data
            return frozenset(entry.key for entry in decode_record(data))
        except (FileNotFoundError, ValueError):
            return frozenset()

    def _sync_names(self) -> None:
        """Sync every name before it is served or relied on (V3).

        The last rename of a killed process may be in the page cache only.
        """
        for directory in self.volume.directories:
            files.touch_and_sync(directory)

    def _roll_forward(self, now: datetime, *, again: bool) -> frozenset[DocumentKey]:
        seline = self.volume.seline
        files.unlink(seline, f"{RECORD_NAME}.new", missing_ok=True)
        try:
            data = files.read_whole(seline, RECORD_NAME, size_max=_ANY_SIZE).data
        except FileNotFoundError:
            if not again:
                return frozenset()
            data = encode_record(())  # the disk may still hold the last record: replace it
        try:
            entries = decode_record(data)
        except ValueError as broken:
            self._set_record_aside(now, str(broken))
            return frozenset()
        damaged = [entry for entry in entries if self._is_damaged(entry)]
        published = any(map(self._is_in_place, entries))
        if published or not damaged:
            self._rewrite_record(data)
            self._complete(entries, now)
        if damaged:
            self._give_up(damaged, now, published=published)
        else:
            files.unlink(seline, RECORD_NAME, missing_ok=True)
            files.sync(seline)
        return frozenset(entry.key for entry in entries)

    def _rewrite_record(self, data: bytes) -> None:
        """Write the record once more and sync it, before anything is published from it.

        After a kill or a failed sync it may be in the page cache only: a power cut would then leave
        a part of its documents published. Without space for a copy it is only synced.
        """
        seline, name = self.volume.seline, f"{RECORD_NAME}.new"
        try:
            self._write_bytes(seline, name, data, None, time.time_ns())
            files.rename(seline, name, seline, RECORD_NAME)
        except OSError as error:
            files.unlink(seline, name, missing_ok=True)
            if not is_full(error):
                raise
        files.sync(seline)

    def _is_damaged(self, entry: RecordEntry) -> bool:
        """Whether the staged file has rotted: it is neither the new content nor the old one.

        A commit whose record still exists was never acknowledged, so it may be given up.
        """
        staged = None if entry.staged is None else self._staged_revision(entry.staged)
        if staged is None or staged in (entry.before, entry.after):
            return False
        return not self._is_in_place(entry)

    def _is_in_place(self, entry: RecordEntry) -> bool:
        live = self.current_documents.inspector.look(entry.key).judged
        if entry.after is None:
            return live.verdict is Verdict.MISSING and entry.before is not None
        return live.content is not None and live.content.revision == entry.after

    def _give_up(self, damaged: Sequence[RecordEntry], now: datetime, *, published: bool) -> None:
        """Move a record that cannot be completed, and its rotten files, to quarantine."""
        names = ", ".join(entry.name for entry in damaged)
        outcome = "is there without it" if published else "was not made"
        self._set_record_aside(now, f"what was to become {names} has changed", outcome)
        for entry in damaged:
            if entry.staged is not None:
                self._move_aside(entry.staged, now)

    def _complete(self, entries: Sequence[RecordEntry], now: datetime) -> None:
        """Publish each document, then sync.

        A document that is published already is written and published again: its sync may have
        failed, and a second sync of the same file would prove nothing. One that the system does not
        let be replaced stays as it is, so that it does not keep the volume closed.
        """
        refused: list[tuple[RecordEntry, OSError]] = []
        for entry in entries:
            self.volume.open_space(entry.space)
            try:
                if entry.after is None:
                    self._complete_removal(entry)
                else:
                    self._complete_put(entry, now)
            except OSError as error:
                if not is_of_one_file(error):
                    raise
                refused.append((entry, error))
        for space in {entry.space for entry in entries}:
            files.touch_and_sync(self.volume.documents(space))
        for entry, why in refused:
            self._leave_out(entry, why, now)

    def _leave_out(self, entry: RecordEntry, error: OSError, now: datetime) -> None:
        """Move what a document was to become to quarantine, and report it."""
        doing, kept, details = f"Publishing {entry.name}", "", dict[str, Json]()
        if entry.staged is not None:
            if self._staged_revision(entry.staged) != entry.after:
                return  # it was published before
            item = self._move_aside(entry.staged, now)
            kept = f" What it was to become is in quarantine: `seline quarantine {item}` shows it."
            details["item"] = item
        self.report(
            Incident(
                kind=IncidentKind.ACCESS_REFUSED,
                document=entry.name,
                at=now,
                summary=f"{doing}: {describe(error)}. The change of several documents is there "
                f"without it.{kept} {self.volume.named(error, doing).hint}",
                details=details,
            )
        )

    def _complete_put(self, entry: RecordEntry, now: datetime) -> None:
        key = entry.key
        live = self.current_documents.inspector.look(key).judged
        staged = entry.staged
        if staged is None or not self._is_staged(entry):
            if live.content is None or live.content.revision != entry.after:
                return
            staged = f"{AGAIN}-{entry.staged}"
            if not self._stage_again(staged, key, live.content):
                return
        elif live.content is not None and live.content.revision not in (entry.before, entry.after):
            self._keep_found(key, live.content, sound_json=live.verdict in USABLE, now=now)
        files.rename(self.volume.staging, staged, self.volume.documents(entry.space), entry.name)

    def _stage_again(self, name: str, key: DocumentKey, content: Content) -> bool:
        """Write a content once more to staging/; return False if there is no space."""
        files.unlink(self.volume.staging, name, missing_ok=True)
        try:
            self._write(self.volume.staging, name, key, content)
        except OSError as error:
            files.unlink(self.volume.staging, name, missing_ok=True)
            if is_full(error):
                return False
            raise
        return True

    def _complete_removal(self, entry: RecordEntry) -> None:
        key = entry.key
        live = self.current_documents.inspector.look(key).judged
        if live.content is not None and live.content.revision == entry.before:
            files.unlink(self.volume.documents(entry.space), entry.name, missing_ok=True)
        elif live.verdict is Verdict.MISSING:
            self.remove_again(key)

    def remove_again(self, key: DocumentKey) -> None:
        """Remove a document that is absent once more; the caller syncs the directory.

        The removal may be in the page cache only, and the last sync of the directory may have
        failed. So its newest sound backup is published and removed; a crash leaves that content.
        """
        staging, documents = self.volume.staging, self.volume.documents(key.space)
        chosen = choose_backup(self.current_documents.backups(key), sound_only=True).chosen
        if chosen is not None and self._stage_again(AGAIN, key, chosen[1]):
            files.rename(staging, AGAIN, documents, key.name)
            files.unlink(documents, key.name, missing_ok=True)

    def _is_staged(self, entry: RecordEntry) -> bool:
        """Whether the staged file has the new content; after an exchange it does not."""
        assert entry.staged is not None
        return self._staged_revision(entry.staged) == entry.after

    def _staged_revision(self, name: str) -> str | None:
        try:
            raw = files.read_whole(self.volume.staging, name, size_max=_ANY_SIZE)
        except FileNotFoundError:
            return None
        return Content.of(raw.data).revision

    def _set_record_aside(
        self, now: datetime, why: str, outcome: str = "may be there in part"
    ) -> None:
        key = DocumentKey(SELINE, "journal.json")
        name = set_aside(self.volume, self.volume.seline, RECORD_NAME, key, now)
        files.sync(self.volume.seline)
        self.report(
            Incident(
                kind=IncidentKind.JOURNAL_BROKEN,
                document="",
                at=now,
                summary=f"The journal was damaged on the disk ({why}); a change of several "
                f"documents {outcome}.",
                lost="possibly a part of the last change of several documents",
                details={"quarantined": name},
            )
        )

    def _sweep_staging(self, now: datetime) -> None:
        """Remove the files of unacknowledged commits; move other files to quarantine."""
        for name in files.names(self.volume.staging):
            try:
                raw = files.read_whole(self.volume.staging, name, size_max=_ANY_SIZE)
            except OSError:
                self._move_aside(name, now)
                continue
            if self._is_ours(raw.attribute, raw.data):
                files.unlink(self.volume.staging, name, missing_ok=True)
            else:
                self._move_aside(name, now)

    def _is_ours(self, attribute: bytes | None, data: bytes) -> bool:
        """Whether Seline wrote these bytes, whole or in part.

        The checksum is set before the first byte. A file that parses and does not match it is a
        hand edit that a commit displaced.
        """
        if not self.capabilities.checksums or not data.strip(b"\0"):
            return True
        try:
            checksum = decode_checksum(attribute)
        except UnsupportedFormat:
            return False
        if checksum is None:
            return False
        return checksum.revision == Content.of(data).revision or why_not_json(data) is not None

    def _move_aside(self, name: str, now: datetime) -> str:
        key = DocumentKey(SELINE, "staging.json")
        return set_aside(self.volume, self.volume.staging, name, key, now)

    def _sweep_exports(self) -> None:
        for name in files.names(self.volume.exports):
            with contextlib.suppress(OSError):
                files.unlink(self.volume.exports, name)  # a file of the probe
                continue
            shutil.rmtree(name, ignore_errors=True, dir_fd=self.volume.exports)

    def _sweep_twins(self) -> None:
        """Remove backups that are their document's own file: a crash came before the publish.

        Such a file has two names. So of most documents no backup is opened, and a start with
        thousands of backups takes no longer for it.
        """
        for space in self.volume.spaces:
            index = self.current_documents.backup_index(space)
            for document in index.counts():
                if self._has_two_names(space, document):
                    for backup in index.of(document)[:1]:
                        self._sweep_twin(space, document, backup)

    def _has_two_names(self, space: str, document: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return files.status(self.volume.documents(space), document).st_nlink > 1
        return False

    def _sweep_twin(self, space: str, document: str, backup: Backup) -> None:
        try:
            live = files.status(self.volume.documents(space), document)
            kept = files.status(self.volume.backups(space), backup.name)
        except FileNotFoundError:
            return
        if backup.ours and (live.st_dev, live.st_ino) == (kept.st_dev, kept.st_ino):
            files.unlink(self.volume.backups(space), backup.name, missing_ok=True)
            self.current_documents.backup_index(space).removed(backup)

    def _keep_found(
        self, key: DocumentKey, content: Content, *, sound_json: bool, now: datetime
    ) -> None:
        """Keep a hand edit made between the crash and this start, before it is replaced."""
        if not sound_json:
            aside = free_aside_name(self.volume, key, now)
            self._keep_as(self.volume.quarantine, aside, key, content)
            return
        backup_index = self.current_documents.backup_index(key.space)
        backup = backup_index.next_backup(key.name, content, now)
        self._keep_as(self.volume.backups(key.space), backup.name, key, content)
        backup_index.added(backup)

    def _keep_as(self, directory: int, name: str, key: DocumentKey, content: Content) -> None:
        with contextlib.suppress(FileExistsError):
            self._write(directory, name, key, content)
            files.sync(directory)

    def _write(self, directory: int, name: str, key: DocumentKey, content: Content) -> None:
        """Write a content under a new name, and sync it."""
        self._write_bytes(directory, name, content.data, *self.capabilities.mark(key, content))

    def _write_bytes(
        self, directory: int, name: str, data: bytes, attribute: bytes | None, mtime_ns: int
    ) -> None:
        with files.closing(files.stage(directory, name, data, attribute, mtime_ns)) as descriptor:
            files.sync(descriptor)
