"""The medium port over one held directory."""

import os
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime

from seline.domain.counters import Counters
from seline.domain.document import BOT, METADATA_NAME, SELINE, Content, DocumentKey
from seline.domain.incident import Incident
from seline.domain.left_out import MOUNTED, LeftOut, ScannedFolder, left_out, left_out_inside
from seline.domain.metadata import REPORT, is_report
from seline.domain.usage import Usage
from seline.domain.verdict import Judged, Verdict, of_another, unreadable
from seline.errors import DocumentNotFound, SelineError, VolumeFull
from seline.ports.medium import Capability, MarkPinned, QuarantineItem, not_in_quarantine
from seline.scan import scan
from seline.storage.volume import files
from seline.storage.volume.batches import Batches
from seline.storage.volume.capabilities import Capabilities
from seline.storage.volume.current import CurrentDocuments
from seline.storage.volume.directory import SPACES_NAME, VolumeDirectory, while_open
from seline.storage.volume.inspect import Inspection
from seline.storage.volume.mounts import mounts_inside
from seline.storage.volume.os_errors import at, named, raising
from seline.storage.volume.quarantine import is_item, list_quarantine
from seline.storage.volume.writer import Writer


@dataclass(slots=True)
class VolumeMedium:
    """A `Medium`: the disk of one `VolumeStore`."""

    volume: VolumeDirectory
    probed: Capabilities
    current_documents: CurrentDocuments
    batches: Batches
    writer: Writer

    @property
    def place(self) -> str:
        return self.volume.path

    # space and state

    @while_open
    def usage(self) -> Usage:
        return self.batches.admission.usage()

    @while_open
    def has_room_for(self, growth_bytes: int) -> bool:
        return self.batches.admission.has_room_for(growth_bytes)

    @while_open
    def has_reserve(self) -> bool:
        return self.batches.disk_usage.has_reserve()

    @while_open
    def backup_count(self, space: str) -> int:
        self.settle()
        return sum(self.current_documents.backup_index(space).counts().values())

    @while_open
    def foreign_backup_count(self, space: str) -> int:
        return self.current_documents.backup_index(space).foreign_count()

    @while_open
    def left_out(self) -> Sequence[LeftOut]:
        """See `Medium.left_out`. What another volume that is mounted inside has is not listed."""
        own = {".seline", "backups", "quarantine", "lost+found"}
        if self._space_of_report() == BOT:
            own.add(METADATA_NAME)
        if set(self.volume.spaces) - {BOT, SELINE}:
            own.add(SPACES_NAME)
        here = os.path.realpath(self.volume.path)
        mounts = [os.path.relpath(mount, here) for mount in mounts_inside(here)]
        closed = dict.fromkeys(mounts, MOUNTED)
        with raising(self.volume.named, "Listing the data directory"):
            entries = scan(self.volume.top, closed={**closed, **dict.fromkeys(own, "Seline's own")})
            items = {item.name for item in list_quarantine(self.volume)}
            aside = sorted(set(files.names(self.volume.quarantine)) - items)
        found = left_out(entries, ScannedFolder(path=self.volume.path, own=own, mounts=mounts))
        return [*found, *left_out_inside(self.current_documents.backup_index(BOT).others(), aside)]

    def protect_pins(self, mark: MarkPinned) -> None:
        self.batches.admission.protect_pins(mark)
        if isinstance(self.batches.reopener.failure, VolumeFull):
            self.writer.between(self.batches.reopener.retry_for_room)

    def capabilities(self) -> Sequence[Capability]:
        return (*self.probed.reported, self.batches.committer.form)

    def unpublished(self) -> Sequence[str]:
        keys = self.batches.committer.unpublished
        return sorted(key.name for key in keys if key.space != SELINE)

    def unavailable(self) -> SelineError | None:
        return self.batches.reopener.failure or self.volume.lost() or self.volume.read_only()

    def busy_s(self) -> float:
        return self.batches.busy_s()

    def counters(self) -> Counters:
        return self.batches.counters(queued=self.writer.queued)

    def incidents(self) -> Sequence[Incident]:
        return self.batches.events.incidents()

    def lasts(self, incident: Incident) -> bool:
        return self.batches.events.lasts(incident)

    # broken and raw files

    @while_open
    def quarantine(self) -> Sequence[QuarantineItem]:
        with raising(at(self._aside), "Listing the quarantine"):
            return list_quarantine(self.volume)

    @while_open
    def read_quarantine(self, item: str) -> bytes:
        if not is_item(self.volume, item):
            raise not_in_quarantine(item)
        try:
            return files.read_whole(self.volume.quarantine, item, size_max=1 << 40).data
        except FileNotFoundError as error:
            raise not_in_quarantine(item) from error
        except OSError as error:
            raise named(error, f"Reading {item} in quarantine", f"{self._aside}/{item}") from error

    @property
    def _aside(self) -> str:
        return f"{self.volume.path}/quarantine"

    @while_open
    def raw(self, key: DocumentKey) -> bytes:
        judged = self.current_documents.inspector.look(key).judged
        overlay = self.batches.committer.overlay
        overlay.check_known(key)
        held = overlay.answer(key)
        if isinstance(held, Content):
            return held.data
        if held is None:
            judged = Judged(Verdict.MISSING)
        if judged.verdict is Verdict.MISSING:
            raise DocumentNotFound(f"There is no document {key.name}.", document=key.name)
        if judged.content is None:
            raise unreadable(key, judged)
        return judged.content.data

    @while_open
    def rescue(self, key: DocumentKey) -> Content | None:
        held = self.batches.committer.overlay.answer(key)
        if held is None or isinstance(held, Content):
            return held
        return self.current_documents.find(key).content

    def remembers(self, key: DocumentKey) -> bool:
        if isinstance(self.batches.committer.overlay.answer(key), Content):
            return True
        inspector = self.current_documents.inspector
        return inspector.last_edit(key) is not None or inspector.last_known(key) is not None

    @while_open
    def changed_outside(self) -> Sequence[str]:
        return self.current_documents.inspector.changed_outside()

    @while_open
    def read_from_disk(self, key: DocumentKey, backup: str | None = None) -> None:
        self.current_documents.inspector.read_from_disk(key, backup)

    # what other processes and tools see

    @while_open
    def write_report(self, data: bytes) -> Future[None]:
        return self.writer.between(lambda: self._write_report(data))

    def read_report(self) -> bytes | None:
        for space in dict.fromkeys((self._space_of_report(), SELINE)):
            if (content := self._report_in(space).judged.content) is not None:
                return content.data
        return None

    @property
    def held_since(self) -> datetime:
        return self.volume.held_since

    def announce(self, **fields: object) -> None:
        self.volume.announce(**fields)

    # parts

    def settle(self) -> None:
        """Have the files written of what is in the journal, before they are listed or read."""
        if self.batches.committer.is_behind:
            self.writer.run_between(self.batches.settle)

    def _write_report(self, data: bytes) -> None:
        """Write the report where no other program's file is; announce once if that is not the top.

        Its checksum shows that it is Seline's, even if it is damaged later.
        """
        space = self._space_of_report()
        if space != BOT and self._report_in(space).judged.verdict is Verdict.MISSING:
            self.batches.events.foreign_metadata()
        mark = self.probed.mark(REPORT, Content.of(data))
        self.volume.write_small(self.volume.documents(space), METADATA_NAME, data, mark=mark)

    def _space_of_report(self) -> str:
        """Return the space whose directory has the report: Seline's if the top has another file."""
        inspection = self._report_in(BOT)
        judged, identity = inspection.judged, inspection.identity
        if judged.verdict is Verdict.MISSING:
            return BOT
        if judged.content is None or identity is None:
            return SELINE
        recorded = None if of_another(REPORT, judged) else judged.recorded
        as_left = recorded is not None and recorded.mtime_ns == identity.mtime_ns
        return BOT if as_left or is_report(judged.content.data) else SELINE

    def _report_in(self, space: str) -> Inspection:
        return self.current_documents.inspector.look_in(REPORT, self.volume.documents(space))
