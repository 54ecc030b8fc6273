"""Replay the journal: bring the files to what was acknowledged. Repeating it changes nothing.

V2  Every recorded backup exists, unless retention dropped it.
V3  Everything is synced before the journal is marked clean.
A document's file is compared with the versions in the journal by digest, never by time: a restored
volume has no times that mean anything. A file that is none of them was written by a person while
no Seline ran; it stays, and the last content of the journal becomes a backup.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from seline.domain.backup import parse_backup_name
from seline.domain.checksum import decode_checksum
from seline.domain.document import SELINE, Content, DocumentKey, Revision
from seline.domain.incident import Incident, IncidentKind
from seline.domain.plural import shortened
from seline.domain.verdict import DAMAGED, Judged, Verdict
from seline.errors import UnsupportedFormat
from seline.storage.volume import files
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.commit.overlay import Overlay
from seline.storage.volume.commit.sync import Syncer
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.journal.codec import JournalChange, ReadBatch, data_after
from seline.storage.volume.journal.journal import JOURNAL_NAMES, JournalFile, damaged
from seline.storage.volume.journal.prepared import PreparedFiles, ReplayedFile, is_enough
from seline.storage.volume.os_errors import is_full, raising
from seline.storage.volume.quarantine import set_aside

REPLAYED: Final = "replayed"
"""The name in staging/ of a file that a replay writes."""
WHOLE_EVERY: Final = 64
_ANY_SIZE: Final = 1 << 40
_BROKEN: Final = frozenset({Verdict.TORN, Verdict.ALTERED, Verdict.UNSETTLED})


@dataclass(slots=True)
class Versions:
    """The contents of one document by revision, oldest first.

    Few are held whole, and the others are made from them: the journal may have thousands of changes
    of a document that is nearly as large as a file of it.
    """

    _whole: dict[Revision, bytes] = field(default_factory=dict[Revision, bytes])
    _steps: dict[Revision, JournalChange] = field(default_factory=dict[Revision, JournalChange])

    def __contains__(self, revision: object) -> bool:
        """Whether the content is known."""
        return revision in self._whole or revision in self._steps

    def __getitem__(self, revision: Revision) -> bytes:
        """Return a content that is known."""
        steps: list[JournalChange] = []
        while revision not in self._whole:
            steps.append(self._steps[revision])
            revision = steps[-1].before or ""
        data = self._whole[revision]
        for step in reversed(steps):
            data = data_after(step, data)
        return data

    def values(self) -> Iterator[bytes]:
        """Yield every content."""
        yield from self._whole.values()
        latest, data = "", b""
        for revision, step in self._steps.items():
            data = data_after(step, data) if step.before == latest else self[revision]
            latest = revision
            yield data

    def add(self, revision: Revision, data: bytes) -> None:
        """Add a content that the journal has whole."""
        self._whole[revision] = data

    def add_after(self, change: JournalChange) -> None:
        """Add the content after a change, unless that before is needed and not known."""
        if change.after is None or change.after in self:
            return
        if not (change.prefix or change.suffix):
            self.add(change.after, change.data)
        elif change.before in self:
            self._steps[change.after] = change
            if len(self._steps) % WHOLE_EVERY == 0:
                self.add(change.after, self[change.after])


@dataclass(slots=True)
class DocumentHistory:
    """What the journal has of one document, oldest first.

    `versions` are its contents by revision, `backups` the revisions of its backups by name.
    """

    last: JournalChange
    versions: Versions = field(default_factory=Versions)
    backups: dict[str, Revision] = field(default_factory=dict[str, Revision])

    def add(self, change: JournalChange) -> None:
        """Add the next change."""
        self.last = change
        if change.before is not None and change.image is not None:
            self.versions.add(change.before, change.image)
        if change.backup and change.before is not None:
            self.backups[change.backup] = change.before
        self.versions.add_after(change)

    @property
    def is_lost(self) -> bool:
        """Whether the last content cannot be made from what is there."""
        after = self.last.after
        return after is not None and self.content_of(after) is None

    def content_of(self, revision: Revision) -> Content | None:
        """Return the content of a revision, None if it cannot be made from what is there."""
        content = Content.of(self.versions[revision]) if revision in self.versions else None
        return content if content is not None and content.revision == revision else None

    @property
    def at(self) -> datetime:
        """The instant of the last change."""
        return datetime.fromtimestamp(self.last.at_ns / 1e9, UTC)

    def is_torn(self, data: bytes) -> bool:
        """Whether the bytes are those of a version of which a part did not arrive."""
        return any(_is_torn(data, version) for version in self.versions.values())


def histories_of(found: Iterable[ReadBatch]) -> dict[DocumentKey, DocumentHistory]:
    """Return what batches have of each document."""
    histories: dict[DocumentKey, DocumentHistory] = {}
    for read in found:
        for dropped in read.batch.dropped:
            parsed = parse_backup_name(dropped.name)
            history = parsed and histories.get(DocumentKey(dropped.space, parsed[0]))
            if history:
                history.backups.pop(dropped.name, None)
        for change in read.batch.changes:
            histories.setdefault(change.key, DocumentHistory(change)).add(change)
    return histories


def read_in_order(journal_files: Sequence[JournalFile]) -> list[ReadBatch]:
    """Return the batches of all files, oldest first. Raises OSError and UnsupportedFormat."""
    return sorted(chain.from_iterable(file.read() for file in journal_files), key=_order)


def _order(read: ReadBatch) -> tuple[int, int]:
    return read.epoch, read.start


@dataclass(slots=True)
class JournalReplay:
    """Brings the files of one volume to the state that its journal has."""

    volume: VolumeDirectory
    current_documents: CurrentDocuments
    report: Callable[[Incident], None]
    capabilities: Capabilities
    syncer: Syncer
    make_room: Callable[[int], bool]
    written: set[DocumentKey] = field(default_factory=set[DocumentKey])
    """The documents that the last run wrote: they need not be committed again."""
    _clean: list[JournalFile] = field(default_factory=list[JournalFile])
    _prepared: PreparedFiles = field(init=False)

    def __post_init__(self) -> None:
        """Create what holds the files that are written together."""
        self._prepared = PreparedFiles(self.volume.staging, self.syncer)

    def run(self, journal_files: Sequence[JournalFile], now: datetime) -> frozenset[DocumentKey]:
        """Replay, sync, and remove the files; return the documents that the journal had.

        What looks right is written once more: its sync may have failed, and another one would prove
        nothing. For the same reason the files of the journal are made anew. Raises StorageError.
        """
        with raising(self.volume.named, "Replaying the journal"):
            found = read_in_order(journal_files)
            rotten = damaged(journal_files, found)
            self._clean = [
                file for file in journal_files if file.header.is_clean and file not in rotten
            ]
            self.written.clear()
            self._remove_unfinished()
            for file in journal_files:
                if not file.header.is_clean:
                    self._rewrite(file)
            histories = histories_of(found)
            self.current_documents.inspector.distrust(histories)
            try:
                for some in self._portions(histories):
                    for key in some:
                        self._bring(key, histories[key], now)
            finally:
                self._prepared.discard()
            if histories:
                self._sync_names()
            for file in sorted(journal_files, key=lambda file: file.header.epoch):
                if file in rotten:  # the later file goes last: alone, the other would undo it
                    self._set_aside(file, now)
                elif not file.header.is_clean:
                    files.unlink(self.volume.seline, file.name)
                else:
                    continue
                files.sync(self.volume.seline)
        self._report_lost([key.name for key, history in histories.items() if history.is_lost], now)
        return frozenset(histories)

    def hold(self, journal_files: Sequence[JournalFile], overlay: Overlay) -> None:
        """Answer readers with the last contents, where a replay would write them. Writes nothing.

        A document whose last content cannot be made is in doubt.
        """
        if self.volume.read_only() is None:
            self._sync_names()
        for key, history in histories_of(read_in_order(journal_files)).items():
            if not self._is_behind(history, self.current_documents.inspector.look(key).judged):
                continue
            after = history.last.after
            content = None if after is None else history.content_of(after)
            if after is not None and content is None:
                overlay.doubt([key])
            else:
                overlay.hold(key, content, history.at)

    def _remove_unfinished(self) -> None:
        """Remove what a crash of an earlier replay left beside the journal."""
        for name in JOURNAL_NAMES:
            files.unlink(self.volume.seline, _rewritten(name), missing_ok=True)

    def _rewrite(self, file: JournalFile) -> None:
        """Write a journal file once more and sync it, before anything is published from it.

        After a kill or a failed sync its last batch may be in the page cache only: a power cut
        would then leave a part of its documents published. Without space it is only synced.
        """
        seline, name = self.volume.seline, _rewritten(file.name)
        try:
            data = file.bytes()  # with what is damaged in it
            with files.closing(files.stage(seline, name, data, None, time.time_ns())) as new:
                files.sync(new)
            files.rename(seline, name, seline, file.name)
        except OSError as error:
            files.unlink(seline, name, missing_ok=True)
            if not is_full(error):
                raise
            files.sync(file.descriptor)
        files.sync(seline)

    # many documents

    def _portions(
        self, histories: Mapping[DocumentKey, DocumentHistory]
    ) -> Iterator[Sequence[DocumentKey]]:
        """Yield the documents, some at a time, after the files that they may need are prepared.

        While these are synced, the disk reads the documents that are to be judged.
        """
        for keys, wanted in self._gathered(histories):
            self.current_documents.inspector.read_ahead(keys)
            self._prepared.prepare(wanted)
            wanted.clear()
            yield keys

    def _gathered(
        self, histories: Mapping[DocumentKey, DocumentHistory]
    ) -> Iterator[tuple[Sequence[DocumentKey], list[ReplayedFile]]]:
        keys: list[DocumentKey] = []
        wanted: list[ReplayedFile] = []
        bytes_wanted = 0
        for key, history in histories.items():
            keys.append(key)
            for file in self._files_of(key, history):
                wanted.append(file)
                bytes_wanted += len(file.data)
                if is_enough(len(wanted), bytes_wanted):
                    break
            if is_enough(len(wanted), bytes_wanted):
                yield keys, wanted
                keys, wanted, bytes_wanted = [], [], 0
        yield keys, wanted

    def _files_of(self, key: DocumentKey, history: DocumentHistory) -> Iterator[ReplayedFile]:
        """Yield the files of a document's backups and of its last content."""
        self.volume.open_space(key.space)
        last = history.last
        for name, revision in history.backups.items():
            if (content := history.content_of(revision)) is not None:
                yield self._file(self.volume.backups(key.space), name, key, content, None)
        if last.after is not None and (content := history.content_of(last.after)) is not None:
            yield self._file(self.volume.documents(key.space), key.name, key, content, last)

    # one document

    def _bring(self, key: DocumentKey, history: DocumentHistory, now: datetime) -> None:
        self.volume.open_space(key.space)
        for name, revision in history.backups.items():
            content = history.content_of(revision)
            if content is not None:
                self._bring_backup(key, name, content, now)
        judged = self.current_documents.inspector.look(key).judged
        wanted, live = history.last.after, _revision(judged)
        if live == wanted and wanted is None:
            return
        if not self._may_replace(history, judged):
            self._keep_other(key, history, now)
        elif wanted is None:
            self._set_broken_aside(key, history, judged, now)
            files.unlink(self.volume.documents(key.space), key.name, missing_ok=True)
            self.current_documents.inspector.removed(key)
        elif (content := history.content_of(wanted)) is not None:
            self._set_broken_aside(key, history, judged, now)
            directory = self.volume.documents(key.space)
            self._write(self._file(directory, key.name, key, content, history.last))
            self.written.add(key)

    def _is_behind(self, history: DocumentHistory, judged: Judged) -> bool:
        """Whether a replay would replace the file, or its file cannot be read."""
        if judged.verdict is Verdict.UNREADABLE:
            return True
        is_current = judged.verdict not in DAMAGED and _revision(judged) == history.last.after
        return not is_current and self._may_replace(history, judged)

    def _may_replace(self, history: DocumentHistory, judged: Judged) -> bool:
        """Whether the file is missing, broken or one of the versions: no person wrote it."""
        if judged.verdict is Verdict.MISSING or judged.verdict in _BROKEN:
            return True
        content = judged.content
        if judged.verdict is Verdict.UNREADABLE or content is None:
            return False
        is_torn = judged.verdict is not Verdict.SOUND and history.is_torn(content.data)
        return is_torn or content.revision in history.versions

    def _set_broken_aside(
        self, key: DocumentKey, history: DocumentHistory, judged: Judged, now: datetime
    ) -> None:
        """Move a broken file to quarantine, unless it is a torn write of Seline's."""
        if judged.verdict not in _BROKEN:
            return
        if judged.content is None or not history.is_torn(judged.content.data):
            set_aside(self.volume, self.volume.documents(key.space), key.name, key, now)

    def _keep_other(self, key: DocumentKey, history: DocumentHistory, now: datetime) -> None:
        """Keep a person's file, and what the journal has as a backup."""
        wanted, kept = history.last.after, ""
        content = None if wanted is None else history.content_of(wanted)
        if content is not None:
            index = self.current_documents.backup_index(key.space)
            newest = index.of(key.name)[:1]
            if not any(backup.revision == wanted for backup in newest):
                backup = index.next_backup(key.name, content, now)
                directory = self.volume.backups(key.space)
                self._write(self._file(directory, backup.name, key, content, history.last))
                index.added(backup)
                kept = f" What it was before is kept as backup {backup.name}."
        self.report(
            Incident(
                kind=IncidentKind.EDITED_MEANWHILE,
                document=key.name,
                at=now,
                summary=f"{key.name} was written by another program while Seline did not run, and "
                f"stays.{kept}",
            )
        )

    def _bring_backup(self, key: DocumentKey, name: str, content: Content, now: datetime) -> None:
        """Write a backup, unless another whole file has its name.

        A hand edit has it if the link that was made of the document was not of the judged file.
        """
        directory = self.volume.backups(key.space)
        try:
            raw = files.read_whole(directory, name, size_max=_ANY_SIZE)
        except FileNotFoundError:
            pass
        else:
            if _is_whole(raw) and Content.of(raw.data).revision != content.revision:
                return
            if not _is_torn(raw.data, content.data):
                set_aside(self.volume, directory, name, key, now)
        self._write(self._file(directory, name, key, content, None))

    def _sync_names(self) -> None:
        """Make every name durable. A sync of a directory that failed proves nothing unchanged."""
        for directory in self.volume.directories:
            files.touch_and_sync(directory)

    # writing

    def _write(self, file: ReplayedFile) -> None:
        """Write a file, synced, and rename it to its place; a full volume makes room first."""
        staging = self.volume.staging
        staged = self._prepared.take(file.directory, file.name, file.data)
        while staged is None:
            files.unlink(staging, REPLAYED, missing_ok=True)
            try:
                with files.closing(files.stage(staging, REPLAYED, *file[2:])) as descriptor:
                    files.sync(descriptor)
                staged = REPLAYED
            except OSError as error:
                if not (is_full(error) and self._make_room(len(file.data))):
                    raise
        files.rename(staging, staged, file.directory, file.name)

    def _file(
        self,
        directory: int,
        name: str,
        key: DocumentKey,
        content: Content,
        change: JournalChange | None,
    ) -> ReplayedFile:
        mark = self.capabilities.mark(key, content, change.at_ns if change else None)
        return ReplayedFile(directory, name, content.data, *mark)

    def _make_room(self, size_bytes: int) -> bool:
        """Free space: first what was only prepared, then a journal file that holds nothing."""
        if self._prepared.discard():
            return True
        if self._clean:
            files.empty(self._clean.pop().descriptor)
            return True
        return self.make_room(size_bytes)

    # damage

    def _set_aside(self, file: JournalFile, now: datetime) -> None:
        """Move a damaged journal file, which was replayed, to quarantine, and report it."""
        key = DocumentKey(SELINE, "journal.json")
        name = set_aside(self.volume, self.volume.seline, file.name, key, now)
        self.report(
            Incident(
                kind=IncidentKind.JOURNAL_BROKEN,
                document="",
                at=now,
                summary="The journal was damaged on the disk; the changes in it that can be read "
                "were made.",
                lost="possibly some of the last changes before the stop",
                details={"quarantined": name},
            )
        )

    def _report_lost(self, names: Sequence[str], now: datetime) -> None:
        if names:
            self.report(
                Incident(
                    kind=IncidentKind.JOURNAL_BROKEN,
                    document=names[0],
                    at=now,
                    summary="The journal was damaged on the disk; the last change of "
                    f"{shortened(names)} cannot be read.",
                    lost="the last change of these documents",
                )
            )


def _rewritten(name: str) -> str:
    """Return the name under which a journal file is written once more."""
    return f"{name}.new"


def _revision(judged: Judged) -> Revision | None:
    return None if judged.content is None else judged.content.revision


def _is_torn(data: bytes, version: bytes) -> bool:
    """Whether the bytes are those of a version of which a part did not arrive."""
    if len(data) > len(version) or version.startswith(data):
        return len(data) <= len(version)
    return b"\0" in data and all(
        here in (0, there) for here, there in zip(data, version, strict=False)
    )


def _is_whole(raw: files.RawFile) -> bool:
    """Whether a file has the bytes that its checksum records."""
    try:
        checksum = decode_checksum(raw.attribute)
    except UnsupportedFormat:
        return True
    return checksum is not None and checksum.revision == Content.of(raw.data).revision
