"""Preserve a document's old file: before a change is visible, and after it is displaced.

V2  Before the new content is visible, the old one has a name in backups/ that the commit syncs.
V4  Broken bytes go to quarantine/; only bytes that were judged sound become a backup.
A hand edit made during the commit is displaced by it, and kept too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from seline.domain.backup import Backup
from seline.domain.document import Content
from seline.domain.incident import Incident, IncidentKind
from seline.domain.json_codec import normalised, why_not_json
from seline.domain.verdict import Verdict
from seline.storage.volume import files
from seline.storage.volume.commit.staging import Published, Refused, Staged, Staging, is_judged
from seline.storage.volume.commit.sync import Syncer
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import VolumeDirectory
from seline.storage.volume.os_errors import InDoubt, LookAgain, describe, raising
from seline.storage.volume.quarantine import free_aside_name, is_set_aside, set_aside


@dataclass(slots=True)
class Preserver:
    """Preserves what documents were. Methods raise OSError as the disk gave it."""

    volume: VolumeDirectory
    staging: Staging
    syncer: Syncer
    current_documents: CurrentDocuments
    report: Callable[[Incident], None]
    _undisposed: list[Published] = field(default_factory=list[Published])

    # before the change is visible; each of the three makes one name at most

    def keep_unsaved(self, staged: Staged, content: Content, now: datetime) -> Staged:
        """Back up a content before a hand edit or a removal, which only memory holds."""
        return staged if staged.publish.purge else self._copy(staged, content, now)

    def keep_broken(self, staged: Staged, now: datetime) -> Staged:
        """Link a broken file into quarantine/, the same bytes once (V4). Raises LookAgain.

        So is one in another encoding that Seline did not write: only its text becomes current. A
        file that cannot be linked, or read, is moved there once it is displaced.
        """
        publish = staged.publish
        judged = staged.found.judged
        is_kept = staged.found.broken or judged.original is not None
        if not is_kept or publish.purge or publish.keeps_file:
            return staged
        broken = judged.original or judged.content
        if broken is not None and is_set_aside(self.volume, staged.key, broken):
            return staged
        name = free_aside_name(self.volume, staged.key, now)
        if broken is None:
            return replace(staged, aside=True)
        linked = self._link(staged, self.volume.quarantine, name)
        return linked or self._set_aside_otherwise(staged, name, broken)

    def keep_content(self, staged: Staged, now: datetime) -> Staged:
        """Back up the content that the change replaces: link it, or copy it. Raises LookAgain."""
        publish, found = staged.publish, staged.found
        if publish.purge or not publish.backup or found.content is None:
            return staged
        if found.broken and found.source is not None:
            return staged  # it is a backup already
        linked = None
        if found.judged.verdict is Verdict.SOUND and self.staging.capabilities.links:
            linked = self._link_backup(staged, found.content, now)
        return linked or self._copy(staged, found.content, now)

    def _link_backup(self, staged: Staged, content: Content, now: datetime) -> Staged | None:
        """Link the judged file into backups/; None if it cannot be linked, or synced."""
        backup = self._next_backup(staged, content, now)
        try:
            self.syncer.make_file_durable(staged.found)
        except OSError:
            return None
        linked = self._link(staged, self.volume.backups(staged.key.space), backup.name)
        return linked and replace(linked, backups=(*staged.backups, backup))

    def link_as(self, staged: Staged, backup: Backup) -> Staged | None:
        """Link the judged file into backups/; None if it is another one, or cannot be linked."""
        try:
            linked = self._link(staged, self.volume.backups(staged.key.space), backup.name)
        except LookAgain:
            return None
        return linked and replace(linked, backups=(*staged.backups, backup))

    def _link(self, staged: Staged, target: int, name: str) -> Staged | None:
        """Link the document's file to a new name; None if the disk refuses. Raises LookAgain."""
        documents = self.volume.documents(staged.key.space)
        try:
            files.link(documents, staged.key.name, target, name)
        except (FileNotFoundError, FileExistsError) as error:
            raise LookAgain from error
        except OSError:
            return None
        with self.staging.removed_on_error(target, name):
            if not is_judged(staged.found, target, name):
                raise LookAgain
        return replace(staged, links=(*staged.links, (target, name)))

    def _copy(self, staged: Staged, content: Content, now: datetime) -> Staged:
        return self.staging.copy(staged, content, self._next_backup(staged, content, now))

    def _set_aside_otherwise(self, staged: Staged, name: str, broken: Content) -> Staged:
        """Move a broken file that cannot be linked once it is displaced; else copy it now."""
        if self.staging.capabilities.exchange or staged.publish.content is None:
            return replace(staged, aside=True)
        target = self.volume.quarantine
        descriptor = files.stage(target, name, broken.data, None, time.time_ns())
        with self.staging.removed_on_error(target, name), files.closing(descriptor):
            files.sync(descriptor)
        return replace(staged, links=(*staged.links, (target, name)))

    def _next_backup(self, staged: Staged, content: Content, now: datetime) -> Backup:
        index = self.current_documents.backup_index(staged.key.space)
        return index.next_backup(staged.key.name, content, now, staged.backups)

    # after the change is visible

    def keep_displaced(
        self, changes: Sequence[Published | Refused], now: datetime, *, atomic: bool
    ) -> list[Published | Refused]:
        """Keep displaced hand edits and broken files before the sync that drops their old name.

        If one cannot be kept now, staging/ is synced, so that its name there is durable; not in a
        transaction, whose record needs what the disk may still have under that name: the content
        that was staged there. Raises InDoubt.
        """
        kept: list[Published | Refused] = []
        for change in changes:
            try:
                if isinstance(change, Published) and self._is_only_copy(change):
                    kept.append(self._dispose(change, now))
                    continue
            except OSError:
                if not atomic:
                    self._sync_staging()
            kept.append(change)
        return kept

    def dispose(self, change: Published, now: datetime) -> Published:
        """Remove or keep the displaced file; everything is durable. A failure is retried later."""
        try:
            return self._dispose(change, now)
        except FileNotFoundError:
            return change  # a reopening disposed of it
        except OSError as error:
            self._undisposed.append(change)
            return replace(change, left=describe(error))

    def retry(self, now: datetime) -> None:
        """Dispose of the files that earlier commits could not; the next start would too."""
        undisposed, self._undisposed = self._undisposed, []
        for change in undisposed:
            self.dispose(change, now)

    def _is_only_copy(self, change: Published) -> bool:
        """Whether the displaced file has no other name: it was not the one that was judged."""
        if not change.displaced:
            return False
        staged = change.staged
        return staged.aside or not is_judged(staged.found, self.volume.staging, change.displaced)

    def _sync_staging(self) -> None:
        with raising(InDoubt, "Syncing what was displaced"):
            files.sync(self.volume.staging)

    def _dispose(self, change: Published, now: datetime) -> Published:
        staged = change.staged
        edit: Backup | None = None
        if staged.publish.purge:
            self._erase(change, now)
        elif staged.aside:
            self._move_aside(change, now)
        elif is_judged(staged.found, self.volume.staging, change.displaced):
            files.unlink(self.volume.staging, change.displaced)
        else:
            edit = self._keep_edit(change, now)
        return replace(change, displaced="", edit=edit)

    def _erase(self, change: Published, now: datetime) -> None:
        """Erase what a purge displaced; a directory, which Seline did not make, is set aside."""
        try:
            files.unlink(self.volume.staging, change.displaced)
        except IsADirectoryError:
            self._move_aside(change, now)

    def _move_aside(self, change: Published, now: datetime) -> None:
        set_aside(self.volume, self.volume.staging, change.displaced, change.staged.key, now)

    def _keep_edit(self, change: Published, now: datetime) -> Backup | None:
        """Keep a hand edit made during the save; return its backup, None if it is torn."""
        raw = files.read_whole(self.volume.staging, change.displaced, size_max=1 << 40)
        backup: Backup | None = None
        data = normalised(raw.data)
        if why_not_json(data) is not None:
            self._move_aside(change, now)
        else:
            backup = self._back_up_edit(change, Content.of(data), now)
        name = change.staged.key.name
        place = "quarantine" if backup is None else f"backup {backup.name}"
        self.report(
            Incident(
                kind=IncidentKind.EDITED_MEANWHILE,
                document=name,
                at=now,
                summary=f"{name} was edited by hand while it was saved; the edit is kept as "
                f"{place}.",
            )
        )
        return backup

    def _back_up_edit(self, change: Published, content: Content, now: datetime) -> Backup:
        """Make a durable backup, with a checksum, of a hand edit."""
        key, staging = change.staged.key, self.volume.staging
        target, index = (
            self.volume.backups(key.space),
            self.current_documents.backup_index(key.space),
        )
        backup = index.next_backup(key.name, content, now, change.backups)
        copy = self.staging.write(self.staging.free_name(), key, content)
        with files.closing(copy.descriptor):
            files.sync(copy.descriptor)
        files.rename(staging, copy.name, target, backup.name)
        files.sync(target)
        files.unlink(staging, change.displaced)
        index.added(backup)
        return backup
