"""Find the content that a document's change starts from (V4).

sound       that content
missing     none; the last known content becomes a backup if another program removed the file
edited      the edit, adopted once it has settled; the content before it becomes a backup
unsettled   the last known content, which becomes a backup; the file is kept unless a change
            replaces it
torn, altered   the last hand edit, else the remembered content if it is the recorded one (nothing
            is lost), else the backup that has the recorded content, else the one that
            `choose_backup` returns; the file goes to quarantine
unreadable  an error; the file is not replaced
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from msgspec.structs import replace

from seline.domain.backup import Backup
from seline.domain.document import BOT, Content, DocumentKey, Json, Revision
from seline.domain.plural import counted
from seline.domain.recovery import choose_backup
from seline.domain.verdict import Judged, Verdict, of_another, unreadable, unrecoverable_step
from seline.errors import DocumentUnrecoverable, SelineError, VolumeFull
from seline.spool import Spool
from seline.storage.planner import Found
from seline.storage.volume.backup_index import BackupIndex
from seline.storage.volume.files import FileIdentity
from seline.storage.volume.inspect import Inspection, Inspector

HELD_BYTES_MAX: Final = 16 << 20
"""Once a batch has found contents of this size, it holds no further ones in memory."""


@dataclass(frozen=True, slots=True)
class CurrentDocuments:
    """The documents with what is remembered of them. Any thread may call it; it writes nothing."""

    inspector: Inspector
    _backup_indexes: dict[str, BackupIndex] = field(default_factory=dict[str, BackupIndex])

    def finder(self) -> Callable[[DocumentKey], Found]:
        """Return `find` for one batch: contents beyond HELD_BYTES_MAX go to a temporary file.

        They are needed until the batch is durable, for readers, and one batch may replace all
        documents. Without room for the file they stay in memory.
        """
        spool, held_bytes = Spool(0), 0

        def find(key: DocumentKey) -> Found:
            nonlocal held_bytes
            found = self.find(key)
            content = found.content
            if content is None:
                return found
            if held_bytes < HELD_BYTES_MAX:
                held_bytes += content.size_bytes
                return found
            with suppress(VolumeFull):
                moved = content.moved_to(spool.keep(content.data))
                same = found.judged.content is content
                judged = replace(found.judged, content=moved) if same else found.judged
                found = replace(found, content=moved, judged=judged)
            return found

        return find

    def find(self, key: DocumentKey) -> Found:
        """Return the document as a change finds it."""
        inspection = self._inspect(key)
        judged = inspection.judged
        sound = judged.content if judged.verdict is Verdict.SOUND else None
        found = Found(
            key=key,
            judged=judged,
            content=sound,
            updated_at=inspection.updated_at,
            token=inspection.identity,
        )
        match judged.verdict:
            case Verdict.MISSING if self.inspector.expects(key):
                return self._removed(found)
            case Verdict.MISSING | Verdict.SOUND:
                return found
            case Verdict.EDITED:
                found = self._replaced(found, judged.content)
                return replace(found, repair=judged.settled or bool(found.unsaved))
            case Verdict.UNREADABLE:
                return replace(found, broken=True, failure=unreadable(key, judged))
            case Verdict.UNSETTLED | Verdict.TORN | Verdict.ALTERED:
                return self._recover(found)

    def current_revision(self, key: DocumentKey) -> Revision | None:
        """Return the revision of a sound document, None for a missing or broken one."""
        judged = self._inspect(key).judged
        content = judged.content if judged.verdict is Verdict.SOUND else None
        return None if content is None else content.revision

    def watch_aside(self, found: Found, item: str) -> None:
        """Watch what a recovery moved to quarantine/: it may become a whole edit there."""
        if isinstance(found.token, FileIdentity):
            self.inspector.watch_aside(found.key, item, found.token)

    def recall(self, key: DocumentKey, revision: Revision) -> Content | None:
        """Return a content by its revision, from memory or a sound backup, else None."""
        entry = self.inspector.last_known(key)
        if entry is not None and entry[1].revision == revision:
            return entry[1]
        chosen = self._backup_with(key, revision)
        return None if chosen is None else chosen[1]

    def backup_index(self, space: str) -> BackupIndex:
        """Return a space's index of backups; it is empty for a space that does not exist."""
        index = self._backup_indexes.get(space)
        if index is None:
            volume, attributes = self.inspector.volume, self.inspector.capabilities.checksums
            before = volume.earlier_backups if space == BOT else ()
            index = BackupIndex(
                space,
                partial(volume.backups, space),
                volume.named,
                earlier=None if attributes else before,
            )
            if space in volume.spaces:
                index = self._backup_indexes.setdefault(space, index)
        return index

    @contextmanager
    def writing(self) -> Generator[None]:
        """Let only the writer change the indexes until the block ends."""
        begun: list[BackupIndex] = []
        try:
            for space in self.inspector.volume.spaces:
                index = self.backup_index(space)
                index.begin()
                begun.append(index)
            yield
        except BaseException:
            for index in begun:
                index.end(failed=True)
            raise
        for index in begun:
            index.end()

    def backups(self, key: DocumentKey) -> Iterator[tuple[Backup, Judged]]:
        """Read and judge a document's backups one by one, newest first."""
        return self._judged(key, self.backup_index(key.space).of(key.name))

    def _judged(
        self, key: DocumentKey, backups: Iterable[Backup]
    ) -> Iterator[tuple[Backup, Judged]]:
        for backup in backups:
            yield backup, self.inspector.look_at_backup(key, backup.name).judged

    def _backup_with(self, key: DocumentKey, revision: Revision) -> tuple[Backup, Content] | None:
        """Return the newest sound backup with a content; one that records another is not read.

        An index that could not read a backup's checksum does not know what it records.
        """
        known = self.backup_index(key.space).of(key.name)
        recording = (part for part in known if part.revision in (None, revision))
        candidates = self._judged(key, recording)
        return choose_backup(candidates, revision=revision, sound_only=True).chosen

    def _inspect(self, key: DocumentKey) -> Inspection:
        known = self.inspector.peek(key)
        if isinstance(known, Content):
            entry = self.inspector.last_known(key)
            if entry is not None:
                return Inspection(Judged(Verdict.SOUND, entry[1]), entry[0])
        return self.inspector.look(key)

    def _replaced(self, found: Found, content: Content | None) -> Found:
        """Return what was found with a content that Seline did not save, and the one before it.

        The one before is in memory, else it is in the newest sound backup.
        """
        entry = self.inspector.last_known(found.key)
        before = None if entry is None else entry[1]
        if before is None:
            chosen = choose_backup(self.backups(found.key), sound_only=True).chosen
            before = None if chosen is None else chosen[1]
        if before is None or (content is not None and before.revision == content.revision):
            return replace(found, content=content)
        unsaved = () if entry is None or self._is_saved(found.key, before) else (before,)
        return replace(found, content=content, unsaved=unsaved, replaced=before)

    def _removed(self, found: Found) -> Found:
        """Return a document whose file another program removed, with what memory has of it."""
        entry, edit = self.inspector.last_known(found.key), self.inspector.last_edit(found.key)
        known = [content for content in (entry and entry[1], edit) if content is not None]
        unsaved = tuple(content for content in known if not self._is_saved(found.key, content))
        replaced = known[-1] if known else None
        return replace(found, repair=True, removed=True, unsaved=unsaved, replaced=replaced)

    def _recover(self, found: Found) -> Found:
        found = replace(found, broken=True, repair=not found.may_change)
        edit = self.inspector.last_edit(found.key)
        content = edit or self._remembered(found)
        if content is not None:
            kept = found.repair or self._is_saved(found.key, content)
            found = self._replaced(found, edit) if edit else replace(found, content=content)
            return replace(found, repair=found.repair or not kept)
        last = self._recorded_backup(found)
        if last is not None:
            found, content = replace(found, source=last[0]), last[1]
            known = self.inspector.last_known(found.key)
            return self._gone_back(found, content) if known else replace(found, content=content)
        choice = choose_backup(self.backups(found.key))
        if choice.chosen is None:
            return replace(found, repair=False, failure=_unrecoverable(found, choice.reasons()))
        backup, content = choice.chosen
        return self._gone_back(replace(found, source=backup), content)

    def _gone_back(self, found: Found, content: Content) -> Found:
        """Return a document with a backup's content; what memory has becomes a backup at once."""
        found = self._replaced(found, content)
        return replace(found, repair=found.repair or bool(found.unsaved))

    def _recorded_backup(self, found: Found) -> tuple[Backup, Content] | None:
        """Return the sound backup that has the content which the broken file recorded.

        It need not be the newest one. What a broken edit recorded is not the last content.
        """
        judged, recorded = found.judged, found.judged.recorded
        if recorded is None or judged.is_edit or of_another(found.key, judged):
            return None
        return self._backup_with(found.key, recorded.revision)

    def _is_saved(self, key: DocumentKey, content: Content) -> bool:
        """Whether a content is the newest backup already."""
        newest = self.backup_index(key.space).of(key.name)[:1]
        return any(backup.ours and backup.revision == content.revision for backup in newest)

    def _remembered(self, found: Found) -> Content | None:
        """Return the remembered content if it is the one that was committed last.

        It is too if the file has its bytes: then only the checksum is damaged.
        """
        entry = self.inspector.last_known(found.key)
        if entry is None:
            return None
        content, recorded = found.judged.content, found.judged.recorded
        known = {part.revision for part in (content, recorded) if part is not None}
        return None if recorded is not None and entry[1].revision not in known else entry[1]


def _unrecoverable(found: Found, backups: list[Json]) -> SelineError:
    name = found.key.name
    if found.judged.verdict is Verdict.UNSETTLED:
        return DocumentUnrecoverable(
            f"{name} is being written just now ({found.judged.reason}), and no earlier content of "
            "it is known.",
            hint="Read it again in a few seconds.",
            document=name,
            backups=backups,
        )
    tried = f"{counted(len(backups), 'backup')} tried in vain" if backups else "it has no backup"
    hint = unrecoverable_step(name, found.judged)
    return DocumentUnrecoverable(
        f"{name} is broken ({found.judged.reason}), {tried}.",
        hint=hint,
        document=name,
        backups=backups,
    )
