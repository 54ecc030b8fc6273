"""Look at a document and say what it is: from one descriptor, through a cache of sound bytes.

The cache holds encoded bytes with the file's identity (inode, mtime, ctime, size), so a hit costs
one stat, a hand edit is seen at once, and no caller can mutate what another sees.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from seline.clock import Clock
from seline.domain.checksum import Checksum, NewerFormat, decode_checksum, name_hash
from seline.domain.document import Content, DocumentKey, Revision
from seline.domain.verdict import Judged, Verdict, judge
from seline.storage.volume import files
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.os_errors import describe

YOUNG_NS: Final = 2_000_000_000
"""Below this age a coarse timestamp cannot tell two contents apart."""

LONG_AGO_NS: Final = 120_000_000_000


class Inspection(msgspec.Struct, frozen=True):
    """A verdict with the identity of the file it was passed on, None where there is no file."""

    judged: Judged
    identity: FileIdentity | None

    @property
    def updated_at(self) -> datetime | None:
        if self.identity is None:
            return None
        return datetime.fromtimestamp(self.identity.mtime_ns / 1e9, UTC)


class Cache:
    """Sound contents by key, bounded in bytes, the least recently read out first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: OrderedDict[DocumentKey, tuple[FileIdentity, Content]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: DocumentKey) -> tuple[FileIdentity, Content] | None:
        """Return what is remembered of a document, current or not."""
        entry = self._entries.get(key)
        if entry is not None:
            try:
                self._entries.move_to_end(key)
            except KeyError:
                return entry
        return entry

    def put(self, key: DocumentKey, identity: FileIdentity, content: Content) -> None:
        """Remember a sound content, unless it alone would not fit."""
        with self._lock:
            self._forget(key)
            if content.size_bytes > self._bytes_max:
                return
            self._entries[key] = (identity, content)
            self._bytes += content.size_bytes
            while self._bytes > self._bytes_max:
                self._forget(next(iter(self._entries)))

    def forget(self, key: DocumentKey) -> None:
        """Remember nothing of a document."""
        with self._lock:
            self._forget(key)

    def clear(self) -> None:
        """Remember nothing."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _forget(self, key: DocumentKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1].size_bytes


class Inspector:
    """Looks at documents and backups of one ground. Any thread; writes nothing."""

    def __init__(
        self,
        volume: VolumeDirectory,
        *,
        clock: Clock,
        settle_s: float,
        document_bytes_max: int,
        cache_bytes_max: int,
        checksums: bool,
        fine_timestamps: bool,
    ) -> None:
        self._volume = volume
        self._clock = clock
        self._settle_s = settle_s
        self._document_bytes_max = document_bytes_max
        self._checksums = checksums
        self._fine_timestamps = fine_timestamps
        self._unsettled: dict[DocumentKey, tuple[FileIdentity, float]] = {}
        self._edits: dict[DocumentKey, Content] = {}
        self.cache = Cache(cache_bytes_max)

    def peek(self, key: DocumentKey) -> Content | Verdict | None:
        """Return the content if one stat shows that the remembered one is current (SPEC §3)."""
        try:
            status = os.stat(
                key.name, dir_fd=self._volume.documents(key.owner), follow_symlinks=False
            )
        except FileNotFoundError:
            if self.cache.get(key) or key in self._edits:
                self.forget(key)  # once it was seen to be gone, nothing older is its last content
            return Verdict.MISSING
        except OSError:
            return None
        entry = self.cache.get(key)
        if entry is None or entry[0] != (
            status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size,
        ):  # fmt: skip
            return None
        if not self._fine_timestamps and time.time_ns() - status.st_ctime_ns < YOUNG_NS:
            return None
        return entry[1]

    def look(self, key: DocumentKey) -> Inspection:
        """Read and judge a document now, and remember it if it is sound."""
        inspection = self._see(key, self._volume.documents(key.owner), key.name, self._settled)
        judged = inspection.judged
        if judged.verdict is Verdict.SOUND and inspection.identity and judged.content:
            self.remember(key, inspection.identity, judged.content)
        elif judged.verdict is Verdict.EDITED and judged.content:
            self._edits[key] = judged.content
        return inspection

    def remember(self, key: DocumentKey, identity: FileIdentity, content: Content) -> None:
        """Take note of what is current and sound; no edit is under way then."""
        self.cache.put(key, identity, content)
        self._unsettled.pop(key, None)
        self._edits.pop(key, None)

    def forget(self, key: DocumentKey) -> None:
        """Take note that there is no such document any more."""
        self.cache.forget(key)
        self._unsettled.pop(key, None)
        self._edits.pop(key, None)

    def last_edit(self, key: DocumentKey) -> Content | None:
        """Return the hand edit that was seen last, if nothing was committed since."""
        return self._edits.get(key)

    def cache_miss_next(self, key: DocumentKey) -> None:
        """Make the next peek miss, keeping the bytes as the last known content."""
        entry = self.cache.get(key)
        if entry is not None:
            self.cache.put(key, entry[0]._replace(ctime_ns=-1), entry[1])

    def look_at_backup(self, key: DocumentKey, backup: str) -> Inspection:
        """Read and judge one backup of a document; it is given no time to settle."""
        return self._see(key, self._volume.backups(key.owner), backup, _at_rest)

    def look_in(self, key: DocumentKey, directory: int) -> Inspection:
        """Read and judge a document where an export holds it."""
        return self._see(key, directory, key.name, _at_rest)

    def recorded(self, key: DocumentKey, descriptor: int) -> Revision | None:
        """Return which content an open file was written with, whatever it holds now."""
        try:
            checksum = _checksum(files.read_attribute(descriptor))
        except NewerFormat:
            return None
        if checksum is None or checksum.name_hash != name_hash(key):
            return None
        return checksum.revision

    def judge_in_pieces(self, key: DocumentKey, descriptor: int) -> bool:
        """Return whether an open file is sound, without holding it in memory."""
        try:
            checksum = _checksum(files.read_attribute(descriptor))
        except NewerFormat:
            return False
        digest = hashlib.sha256()
        while piece := os.read(descriptor, files.READ_PIECE_BYTES):
            digest.update(piece)
        if checksum is None or checksum.name_hash != name_hash(key):
            return False
        return checksum.digest == digest.digest()

    def _see(
        self,
        key: DocumentKey,
        directory: int,
        name: str,
        settled: Callable[[DocumentKey, FileIdentity], bool],
    ) -> Inspection:
        try:
            raw = files.read_whole(directory, name, size_max=self._document_bytes_max)
        except FileNotFoundError:
            return Inspection(Judged(Verdict.MISSING), None)
        except files.StillChanging as error:
            return Inspection(Judged(Verdict.UNSETTLED, reason=str(error.strerror)), None)
        except OSError as error:
            return Inspection(Judged(Verdict.UNREADABLE, reason=_reason(error)), None)
        content = Content.of(raw.data)
        try:
            recorded = _checksum(raw.attribute)
        except NewerFormat as newer:
            return Inspection(Judged(Verdict.UNREADABLE, content, reason=str(newer)), raw.identity)
        judged = judge(
            key,
            content,
            recorded,
            mtime_ns=raw.identity.mtime_ns,
            settled=settled(key, raw.identity),
            checksums=self._checksums,
        )
        return Inspection(judged, raw.identity)

    def _settled(self, key: DocumentKey, identity: FileIdentity) -> bool:
        """Whether the file has come to rest: seen unchanged for `settle_s` by monotonic time.

        A file whose ctime (which nobody can set) is minutes old needs no such proof.
        """
        if time.time_ns() - identity.ctime_ns > LONG_AGO_NS:
            return True
        now = self._clock.monotonic()
        seen = self._unsettled.get(key)
        if seen is None or not seen[0].same_bytes(identity):
            self._unsettled[key] = (identity, now)
            return False
        return now - seen[1] >= self._settle_s


def _at_rest(_key: DocumentKey, _identity: FileIdentity) -> bool:
    return True


def _reason(error: OSError) -> str:
    if isinstance(error, files.NotARegularFile):
        return "it is not a regular file"
    if error.errno == errno.EFBIG:
        return f"it has {error.strerror}"
    return describe(error)


def _checksum(attribute: bytes | None) -> Checksum | None:
    return None if attribute is None else decode_checksum(attribute)
