"""Read and judge documents and backups, each from one descriptor."""

import hashlib
import os
import time
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec

from seline.clock import Clock
from seline.cures import Cure, cure_of, not_regular, step_for_file
from seline.domain.checksum import Checksum, decode_checksum, name_hash
from seline.domain.document import BOT, Content, DocumentKey, Revision
from seline.domain.json_codec import hint_for
from seline.domain.verdict import DAMAGED, Judged, Verdict, judge
from seline.errors import UnsupportedFormat
from seline.pacing import paced
from seline.quoting import quoted
from seline.storage.volume import files
from seline.storage.volume.cache import Cache
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.os_errors import describe

YOUNG_NS: Final = 2_000_000_000
"""Below this age a coarse timestamp cannot tell two contents apart."""
AT_REST_NS: Final = 120_000_000_000
"""A file that has not changed for so long is not being written."""


class Inspection(msgspec.Struct, frozen=True):
    """A verdict with the identity of the file that was judged, None if there is no file."""

    judged: Judged
    identity: FileIdentity | None

    @property
    def updated_at(self) -> datetime | None:
        return self.identity and self.identity.updated_at


@dataclass(slots=True)
class Aside:
    """A watched file in quarantine/, with its identity when it was judged last."""

    item: str
    judged: FileIdentity | None


@dataclass(slots=True, kw_only=True)
class Inspector:
    """Reads and judges the files of one volume, and remembers sound contents.

    Any thread may call it. It writes nothing.
    """

    volume: VolumeDirectory
    clock: Clock
    settle_s: float
    document_bytes_max: int
    capabilities: Capabilities
    cache: Cache
    _unsettled: dict[DocumentKey, tuple[FileIdentity, float]] = field(default_factory=dict)
    _edits: dict[DocumentKey, Content] = field(default_factory=dict)
    _damaged: dict[DocumentKey, tuple[FileIdentity, Verdict]] = field(default_factory=dict)
    _asides: dict[DocumentKey, Aside] = field(default_factory=dict)
    """The file of a document that a recovery moved to quarantine/, as it was judged."""
    _expected: set[DocumentKey] = field(default_factory=set)
    """The bot's documents that have a file, as far as Seline knows; only the writer changes it."""
    _changes: list[set[DocumentKey]] = field(default_factory=list)

    def peek(self, key: DocumentKey) -> Content | Verdict | None:
        """Return the remembered content if one stat shows that it is current, else None."""
        entry = self.cache.get(key)
        try:
            status = files.status(self.volume.documents(key.space), key.name)
        except FileNotFoundError:
            if key in self._expected:
                return None  # another program removed it
            if (entry or key in self._edits) and self.cache.drop_if(key, entry):
                self._forget_flaws(key)  # an earlier content is no longer the last known one
            return Verdict.MISSING
        except OSError:
            return None
        if entry is None or entry[0] != (
            status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size,
        ):  # fmt: skip
            return None
        if not self.capabilities.fine_timestamps and time.time_ns() - status.st_ctime_ns < YOUNG_NS:
            return None
        if self._asides and self._changed_aside(key) is not None:
            return None
        return entry[1]

    def remembered_at(self, key: DocumentKey, content: Content) -> datetime | None:
        """Return the mtime of the file that `content` was read from, None if it is not known."""
        entry = self.cache.get(key)
        return entry[0].updated_at if entry is not None and entry[1] is content else None

    def look(self, key: DocumentKey) -> Inspection:
        """Read and judge a document, and remember it if it is sound."""
        with self.cache.reading(key) as reading:
            inspection = self._see(key, self.volume.documents, key.name, self._settled)
            judged = inspection.judged
            if judged.verdict is Verdict.EDITED and files.is_open_elsewhere(
                self.volume.documents(key.space), key.name
            ):
                judged = msgspec.structs.replace(judged, settled=False, is_open=True)
            later = self._late_edit(key) if judged.verdict is Verdict.SOUND else None
            with self.cache.unless_overtaken(reading) as is_last:
                if is_last:
                    self._remember(key, inspection.identity, judged, later)
        return msgspec.structs.replace(inspection, judged=later or judged)

    def known_damage(self, key: DocumentKey, identity: FileIdentity) -> Verdict | None:
        """Return the verdict of a file that was found damaged and has not changed since."""
        found = self._damaged.get(key)
        return found[1] if found is not None and found[0] == identity else None

    def expect_documents(self) -> None:
        """Expect the bot's documents to be there that are there now. Raises StorageError."""
        self._expected = {DocumentKey(BOT, name) for name in self.volume.document_names(BOT)}

    def expects(self, key: DocumentKey) -> bool:
        """Whether a document has a file, unless another program removed it."""
        return key in self._expected

    def changed_outside(self) -> list[str]:
        """Return the bot's documents that are not as memory knows them: removed, edited, broken."""
        expected, there = list(self._expected), set(self.volume.document_names(BOT))
        return sorted(
            key.name
            for key in paced(expected)
            if key.name not in there
            or ((self.last_known(key) or self.last_edit(key)) and self.peek(key) is None)
        )

    @contextmanager
    def changes(self) -> Generator[set[DocumentKey]]:
        """Collect the documents whose files Seline writes, removes or distrusts in the block.

        Only the writer's thread.
        """
        changed: set[DocumentKey] = set()
        self._changes.append(changed)
        try:
            yield changed
        finally:
            self._changes = [other for other in self._changes if other is not changed]

    def written(self, key: DocumentKey, identity: FileIdentity, content: Content) -> None:
        """Remember what a commit made current; bytes on another disk go away, and are not kept."""
        self._note([key])
        with self.cache.overtaking(key):
            if content.held is not None:
                self.cache.put(key, identity, content)
            self._forget_flaws(key)
        if key.space == BOT:
            self._expected.add(key)

    def removed(self, key: DocumentKey) -> None:
        """Remember that a commit removed a document, or found it removed."""
        self._note([key])
        self.forget(key)
        self._expected.discard(key)

    def forget(self, key: DocumentKey) -> None:
        """Forget what is known of a document's content."""
        with self.cache.overtaking(key):
            self._forget_flaws(key)

    def watch_aside(self, key: DocumentKey, item: str, judged: FileIdentity | None) -> None:
        """Look at a file in quarantine/ again at each read: its writer may still have it open.

        `judged` is its identity when it was judged, None if it changed after that.
        """
        self._asides[key] = Aside(item, judged)

    def ignore_aside(self, key: DocumentKey) -> None:
        """Look at a document's file in quarantine/ no more: a change followed."""
        aside = self._asides.pop(key, None)
        if aside is not None:
            self._unsettled.pop(DocumentKey(key.space, aside.item), None)

    def last_edit(self, key: DocumentKey) -> Content | None:
        """Return the last hand edit that was read, None if a commit followed it."""
        return self._edits.get(key)

    def last_known(self, key: DocumentKey) -> tuple[FileIdentity, Content] | None:
        """Return the last sound content that was read or committed, current or not."""
        return self.cache.get(key)

    def read_from_disk(self, key: DocumentKey, backup: str | None = None) -> None:
        """Make the next look at a document or backup read the disk, not the page cache."""
        if backup is not None:
            self._drop_pages(self.volume.backups, key.space, backup)
            return
        self.cache.expire(key)
        self._drop_pages(self.volume.documents, key.space, key.name)

    def distrust(self, keys: Collection[DocumentKey]) -> None:
        """Forget every remembered content, and read these documents from the disk."""
        self._note(keys)
        self.cache.clear()
        for key in keys:
            self._drop_pages(self.volume.documents, key.space, key.name)

    def read_ahead(self, keys: Iterable[DocumentKey]) -> None:
        """Let the disk begin to read these documents, before one is waited for."""
        for key in keys:
            files.read_ahead(self.volume.documents(key.space), key.name)

    def look_at_backup(self, key: DocumentKey, backup: str) -> Inspection:
        """Read and judge one backup of a document; it is not given time to settle."""
        return self._see(key, self.volume.backups, backup, _at_rest)

    def look_in(self, key: DocumentKey, directory: int) -> Inspection:
        """Read and judge a document in the directory of an export."""
        return self._see(key, lambda _space: directory, key.name, _at_rest)

    def look_aside(self, key: DocumentKey, item: str) -> Inspection:
        """Read and judge a document's file in quarantine."""
        return self._see(key, lambda _space: self.volume.quarantine, item, _at_rest)

    def recorded(self, key: DocumentKey, descriptor: int) -> Revision | None:
        """Return the revision that an open file's checksum records; its bytes may differ."""
        checksum = _recorded(key, descriptor)
        return checksum and checksum.revision

    def judge_in_pieces(self, key: DocumentKey, descriptor: int) -> bool:
        """Return whether an open file is sound, reading it in pieces."""
        checksum = _recorded(key, descriptor)
        digest = hashlib.sha256()
        while piece := os.read(descriptor, files.READ_PIECE_BYTES):
            digest.update(piece)
        return checksum is not None and checksum.digest == digest.digest()

    def _remember(
        self, key: DocumentKey, identity: FileIdentity | None, judged: Judged, later: Judged | None
    ) -> None:
        """Remember what was read, and the edit in quarantine/ that came later."""
        if judged.verdict is Verdict.SOUND and identity and judged.content:
            self.cache.put(key, identity, judged.content)
            self._forget_flaws(key)
        judged = later or judged
        if judged.verdict is Verdict.EDITED and judged.content:
            self._edits[key] = judged.content
        elif judged.verdict in DAMAGED and identity:
            self._damaged[key] = (identity, judged.verdict)

    def _forget_flaws(self, key: DocumentKey) -> None:
        self._unsettled.pop(key, None)
        self._edits.pop(key, None)
        self._damaged.pop(key, None)

    def _note(self, keys: Collection[DocumentKey]) -> None:
        for changed in self._changes:
            changed.update(keys)

    def _changed_aside(self, key: DocumentKey) -> Aside | None:
        """Return a watched file in quarantine/ that changed since it was judged, else None."""
        aside = self._asides.get(key)
        if aside is None:
            return None
        try:
            identity = FileIdentity.of(files.status(self.volume.quarantine, aside.item))
        except OSError:
            return None
        judged = aside.judged
        if judged is None:
            return aside
        is_same_file = judged.inode == identity.inode  # or another one with the same bytes
        is_written = (
            judged.mtime_ns != identity.mtime_ns or judged.size_bytes != identity.size_bytes
        )
        return aside if is_same_file and is_written else None

    def _late_edit(self, key: DocumentKey) -> Judged | None:
        """Return the edit that was moved to quarantine/ too early, once it is whole.

        A file that settled without becoming an edit is looked at again once it has changed.
        """
        aside = self._changed_aside(key)
        if aside is None:
            return None
        own = DocumentKey(key.space, aside.item)  # its time to settle is not the document's
        found = self._see(
            key, lambda _space: self.volume.quarantine, aside.item,
            lambda _key, identity: self._settled(own, identity),
        )  # fmt: skip
        judged = found.judged
        if judged.verdict is Verdict.EDITED:
            return msgspec.structs.replace(judged, reason="the writing of it took long")
        if judged.settled and found.identity is not None:
            aside.judged = found.identity  # not put into _asides: a change may have ended the watch
            self._unsettled.pop(own, None)
        return None

    def _drop_pages(self, directory: Callable[[str], int], space: str, name: str) -> None:
        with suppress(FileNotFoundError):  # there is no such space
            files.drop_cached_pages(directory(space), name)

    def _see(
        self,
        key: DocumentKey,
        directory: Callable[[str], int],
        name: str,
        settled: Callable[[DocumentKey, FileIdentity], bool],
    ) -> Inspection:
        try:
            raw = files.read_whole(directory(key.space), name, size_max=self.document_bytes_max)
        except FileNotFoundError:
            return Inspection(Judged(Verdict.MISSING), None)
        except files.StillChanging as error:
            return Inspection(Judged(Verdict.UNSETTLED, reason=str(error.strerror)), None)
        except OSError as error:
            cure = self._cure(self.volume.path_in(directory(key.space), name), error)
            judged = Judged(Verdict.UNREADABLE, reason=describe(error), cure=cure)
            return Inspection(judged, None)
        content = Content.of(raw.data)
        try:
            recorded = decode_checksum(raw.attribute)
        except UnsupportedFormat as newer:
            cure = Cure("a newer Seline wrote it", newer.hint)
            judged = Judged(Verdict.UNREADABLE, content, reason=str(newer), cure=cure)
            return Inspection(judged, raw.identity)
        judged = judge(
            key,
            content,
            recorded,
            mtime_ns=raw.identity.mtime_ns,
            settled=settled(key, raw.identity),
            checksums=self.capabilities.checksums,
        )
        if judged.is_edit:
            judged = msgspec.structs.replace(judged, cure=self._cure_of_edit(key, judged.reason))
        return Inspection(judged, raw.identity)

    def _cure_of_edit(self, key: DocumentKey, reason: str) -> Cure:
        path = self.volume.path_of_document(key)
        step = step_for_file(hint_for(reason), path)
        return Cure(reason, f"Correct {quoted(path)}: {step}")

    def _cure(self, path: str, error: OSError) -> Cure:
        """Return what makes a document or backup readable again."""
        if isinstance(error, files.TooLarge):
            setting = "storage.document_bytes_max"
            return Cure(
                f"it is larger than `{setting}`",
                f"Set `{setting} = {error.size_bytes}` (or more), then restart; or split it.",
            )
        if isinstance(error, files.NotRegular):
            return not_regular(path)
        return cure_of(error.errno, path)

    def _settled(self, key: DocumentKey, identity: FileIdentity) -> bool:
        """Whether the file was seen unchanged for `settle_s`.

        A file whose ctime, which no program can set, is minutes old is at rest at once.
        """
        if time.time_ns() - identity.ctime_ns > AT_REST_NS:
            return True
        now = self.clock.monotonic()
        seen = self._unsettled.get(key)
        if seen is None or not seen[0].same_bytes(identity):
            self._unsettled[key] = (identity, now)
            return False
        return now - seen[1] >= self.settle_s


def _at_rest(_key: DocumentKey, _identity: FileIdentity) -> bool:
    return True


def _recorded(key: DocumentKey, descriptor: int) -> Checksum | None:
    """Return the checksum of an open file, None if it has none of this document."""
    try:
        checksum = decode_checksum(files.read_attribute(descriptor))
    except UnsupportedFormat:
        return None
    return None if checksum is None or checksum.name_hash != name_hash(key) else checksum
