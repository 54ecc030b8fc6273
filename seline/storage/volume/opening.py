"""Mend what a sudden end left: roll the record forward, sweep what is ours, set aside the rest.

V1, V3, V5  A record in place is a promise: every document it names becomes current.
Doing it again, after a crash in the middle, gives the same result. Only the lock's holder does it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from seline.domain.backup import Backup, backup_name
from seline.domain.document import BOT, SELINE, Content, DocumentKey
from seline.domain.integrity import (
    NewerFormat,
    checksum_of,
    decode_checksum,
    encode_checksum,
)
from seline.domain.json_text import why_not_json
from seline.errors import UnsupportedFormat
from seline.ports.store import Incident
from seline.storage.volume import disk
from seline.storage.volume.failures import named
from seline.storage.volume.ground import Ground
from seline.storage.volume.journal import (
    RECORD_FORMAT,
    RECORD_NAME,
    BrokenRecord,
    Entry,
    Record,
    decode_record,
)
from seline.storage.volume.judging import Judging
from seline.storage.volume.quarantine import free_aside_name
from seline.storage.volume.shelf import Shelf

_ANY_SIZE: Final = 1 << 40


class Mending:
    """Brings a ground to where every acknowledged change is in place and nothing is stray."""

    def __init__(
        self,
        ground: Ground,
        judging: Judging,
        shelves: dict[str, Shelf],
        tell: Callable[[Incident], None],
        *,
        checksums: bool,
    ) -> None:
        self._ground = ground
        self._judging = judging
        self._shelves = shelves
        self._tell = tell
        self._checksums = checksums

    def run(self, now: datetime) -> None:
        """Roll forward, then sweep. Raises StorageError where the disk refuses."""
        try:
            self._roll_forward(now)
            self._sweep_staging(now)
            self._sweep_exports()
            self._sweep_twins()
        except OSError as error:
            raise named(error, "Mending the volume at start") from error

    def _roll_forward(self, now: datetime) -> None:
        seline = self._ground.seline
        disk.unlink(seline, f"{RECORD_NAME}.new", missing_ok=True)
        try:
            data = disk.read_whole(seline, RECORD_NAME, size_max=_ANY_SIZE).data
        except FileNotFoundError:
            return
        try:
            record = decode_record(data)
        except BrokenRecord as broken:
            self._set_record_aside(now, str(broken))
            return
        if record.format > RECORD_FORMAT:
            raise UnsupportedFormat(f"The journal has format {record.format}, from a newer Seline.")
        self._complete(record, now)
        disk.unlink(seline, RECORD_NAME)
        disk.sync(seline)

    def _complete(self, record: Record, now: datetime) -> None:
        for entry in record.entries:
            if entry.after is None:
                self._complete_removal(entry)
            else:
                self._complete_put(entry, now)
        for owner in {entry.owner for entry in record.entries}:
            disk.sync(self._ground.documents(owner))

    def _complete_put(self, entry: Entry, now: datetime) -> None:
        if entry.staged is None or not self._is_staged(entry):
            return  # it is in place already
        key = DocumentKey(entry.owner, entry.name)
        live = self._judging.look(key).judged
        if live.content is not None and live.content.revision not in (entry.before, entry.after):
            self._keep_found(key, live.content, sound_json=live.usable, now=now)
        disk.rename(
            self._ground.staging, entry.staged, self._ground.documents(entry.owner), entry.name
        )

    def _complete_removal(self, entry: Entry) -> None:
        key = DocumentKey(entry.owner, entry.name)
        live = self._judging.look(key).judged
        if live.content is not None and live.content.revision == entry.before:
            disk.unlink(self._ground.documents(entry.owner), entry.name, missing_ok=True)

    def _is_staged(self, entry: Entry) -> bool:
        """Whether the staged file holds the recorded content (after an exchange it does not)."""
        assert entry.staged is not None
        try:
            raw = disk.read_whole(self._ground.staging, entry.staged, size_max=_ANY_SIZE)
        except FileNotFoundError:
            return False
        return Content.of(raw.data).revision == entry.after

    def _set_record_aside(self, now: datetime, why: str) -> None:
        name = free_aside_name(self._ground, "seline.journal.json", now)
        disk.rename(self._ground.seline, RECORD_NAME, self._ground.quarantine, name)
        disk.sync(self._ground.quarantine)
        disk.sync(self._ground.seline)
        self._tell(
            Incident(
                kind="journal_broken",
                document="",
                at=now,
                summary=f"The journal was damaged on the disk ({why}); a change of several "
                "documents may be there in part.",
                lost="possibly a part of the last change of several documents",
                details={"quarantined": name},
            )
        )

    def _sweep_staging(self, now: datetime) -> None:
        """Sweep what a document, a backup or a commit that was never answered accounts for."""
        for name in disk.names(self._ground.staging):
            try:
                raw = disk.read_whole(self._ground.staging, name, size_max=_ANY_SIZE)
            except OSError:
                self._move_aside(name, now)
                continue
            if self._is_ours(raw.attribute, raw.data):
                disk.unlink(self._ground.staging, name, missing_ok=True)
            else:
                self._move_aside(name, now)

    def _is_ours(self, attribute: bytes | None, data: bytes) -> bool:
        """Whether Seline wrote these bytes, whole or in part, and never acknowledged them.

        The attribute is set before the first byte. What parses without matching it is a hand
        edit that was swapped out in the very moment of a save.
        """
        if not self._checksums or not data.strip(b"\0"):
            return True
        try:
            checksum = decode_checksum(attribute) if attribute is not None else None
        except NewerFormat:
            return False
        if checksum is None:
            return False
        return checksum.revision == Content.of(data).revision or why_not_json(data) is not None

    def _move_aside(self, name: str, now: datetime) -> None:
        aside = free_aside_name(self._ground, "seline.staging.json", now)
        disk.rename(self._ground.staging, name, self._ground.quarantine, aside)
        disk.sync(self._ground.quarantine)

    def _sweep_exports(self) -> None:
        for name in disk.names(self._ground.exports):
            shutil.rmtree(name, ignore_errors=True, dir_fd=self._ground.exports)

    def _sweep_twins(self) -> None:
        """Remove a backup that is its document's own inode: a crash between link and rename."""
        for owner in (BOT, SELINE):
            for document in self._shelves[owner].counts():
                for backup in self._shelves[owner].of(document)[:1]:
                    self._sweep_twin(owner, document, backup)

    def _sweep_twin(self, owner: str, document: str, backup: Backup) -> None:
        try:
            live = os.stat(document, dir_fd=self._ground.documents(owner), follow_symlinks=False)
            kept = os.stat(backup.name, dir_fd=self._ground.backups(owner), follow_symlinks=False)
        except FileNotFoundError:
            return
        if (live.st_dev, live.st_ino) == (kept.st_dev, kept.st_ino):
            disk.unlink(self._ground.backups(owner), backup.name, missing_ok=True)
            self._shelves[owner].removed(backup)

    def _keep_found(
        self, key: DocumentKey, content: Content, *, sound_json: bool, now: datetime
    ) -> None:
        """Keep what a person wrote between the crash and this start, before it is replaced."""
        if sound_json:
            stamp = self._shelves[key.owner].next_stamp(key.name, now)
            directory, name = self._ground.backups(key.owner), backup_name(key.name, stamp)
        else:
            directory = self._ground.quarantine
            name = free_aside_name(self._ground, key.name, now)
        mtime_ns = time.time_ns()
        attribute = encode_checksum(checksum_of(key, content, mtime_ns))
        with contextlib.suppress(FileExistsError):
            descriptor = disk.stage(
                directory, name, content.data, attribute if self._checksums else None, mtime_ns
            )
            try:
                disk.sync(descriptor)
            finally:
                os.close(descriptor)
            disk.sync(directory)
