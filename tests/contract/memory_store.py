"""A store in memory, so that the contract suite tries the port on more than one store.

Documents and backups are in dictionaries, and the product's planner decides. Nothing survives the
process. No disk can damage a content, so every content is sound.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from seline.clock import Clock
from seline.domain.backup import Backup, backup_name, next_stamp, parse_backup_name
from seline.domain.counters import Counters
from seline.domain.document import SELINE, Content, DocumentInfo, DocumentKey
from seline.domain.incident import Incident
from seline.domain.left_out import LeftOut
from seline.domain.retention import verified_plan
from seline.domain.usage import Usage
from seline.domain.verdict import Judged, Verdict
from seline.errors import (
    BackupNotFound,
    DocumentNotFound,
    InvalidDocumentName,
    SelineError,
    StoreClosed,
    TooManyDocuments,
)
from seline.ports.futures import Promise
from seline.ports.medium import Capability, MarkPinned, QuarantineItem, not_in_quarantine
from seline.ports.store import AddedBackup, Atom, Outcome, Retain, Snapshot
from seline.storage.planner import Found, Publish, plan_batch, with_backups


@dataclass(slots=True)
class _Kept:
    """A document's content and its backups with theirs."""

    content: Content | None = None
    updated_at: datetime | None = None
    backups: dict[str, tuple[Backup, Content]] = field(
        default_factory=dict[str, "tuple[Backup, Content]"]
    )


class MemoryStore:
    """A `DocumentStore` in memory."""

    def __init__(self, *, clock: Clock | None = None, documents_max: int = 10_000) -> None:
        """Start empty."""
        self._clock = clock or Clock()
        self._documents_max = documents_max
        self._kept: dict[DocumentKey, _Kept] = {}
        self._instants: list[_Instant] = []
        self._lock = threading.RLock()
        self._counters = Counters()
        self._watchers: list[Callable[[DocumentKey, Outcome], None]] = []
        self._closed = False
        self.medium = MemoryMedium(self._kept, self._counters, self._check_open)

    def peek(self, key: DocumentKey) -> Content | Verdict | None:
        self._check_open()
        kept = self._kept.get(key)
        if kept is None or kept.content is None:
            return Verdict.MISSING
        return kept.content

    def remembered_at(self, key: DocumentKey, content: Content) -> datetime | None:
        kept = self._kept.get(key)
        return kept.updated_at if kept is not None and kept.content is content else None

    def look(self, key: DocumentKey) -> tuple[Judged, datetime | None]:
        found = self._find(key)
        return found.judged, found.updated_at

    def submit(self, atom: Atom) -> Future[tuple[Outcome, ...]]:
        self._check_open()
        future = Promise[tuple[Outcome, ...]]()
        with self._lock:
            plan = plan_batch([atom], self._find, self._judged_backups, self._clock.now())
            steps = plan.taken[0]
            try:
                if isinstance(steps, BaseException):
                    raise steps
                self._check_count(plan.publishes)
            except BaseException as refusal:  # a caller's function may raise anything
                self._counters.refuse(refusal)
                future.set_exception(refusal)
                return future
            made = {publish.key: self._publish(publish) for publish in plan.publishes}
            outcomes = with_backups(steps, {key: backup for key, backup in made.items() if backup})
            for (key, _), outcome in zip(steps, outcomes, strict=True):
                if outcome.changed:
                    self._counters.answered(0.0)
                    for watcher in list(self._watchers):
                        watcher(key, outcome)
        future.set_result(outcomes)
        return future

    def documents(self, space: str, *, deleted: bool = False) -> Sequence[DocumentInfo]:
        self._check_open()
        with self._lock:
            return [
                self._info(key, kept)
                for key, kept in sorted(self._kept.items())
                if key.space == space and (kept.content is None) is deleted
                if kept.content is not None or kept.backups
            ]

    def backups(self, key: DocumentKey) -> Sequence[Backup]:
        self._check_open()
        with self._lock:
            kept = self._kept.get(key, _Kept())
            backups = [backup for backup, _ in kept.backups.values()]
            return sorted(backups, key=lambda backup: backup.stamp, reverse=True)

    def read_backup(self, key: DocumentKey, backup: str) -> Judged:
        self._check_open()
        with self._lock:
            found = self._kept.get(key, _Kept()).backups.get(backup)
        if found is None:
            raise BackupNotFound(
                f"{key.name} has no backup {backup}.", document=key.name, backup=backup
            )
        return Judged(Verdict.SOUND, found[1])

    def rotate(self, key: DocumentKey, retain: Retain) -> Future[Sequence[Backup]]:
        self._check_open()
        future: Future[Sequence[Backup]] = Future()
        future.set_result(self._rotate(key, retain))
        return future

    def add_backups(
        self, added: Sequence[AddedBackup], *, always: bool = False
    ) -> Future[Sequence[bool]]:
        self._check_open()
        future: Future[Sequence[bool]] = Future()
        try:
            with self._lock:
                future.set_result([self._add_backup(new) for new in added])
        except InvalidDocumentName as error:
            future.set_exception(error)
        return future

    def _add_backup(self, new: AddedBackup) -> bool:
        name, parsed = new.name, parse_backup_name(new.name)
        if parsed is None or parsed[0] != new.key.name:
            raise InvalidDocumentName(f"{name} is not the name of a backup of {new.key.name}.")
        kept, stamp = self._kept.setdefault(new.key, _Kept()).backups, parsed[1]
        while name in kept:
            if kept[name][1].revision == new.content.revision:
                return False
            stamp = stamp._replace(counter=stamp.counter + 1)
            name = backup_name(new.key.name, stamp)
        backup = Backup(
            name=name,
            document=new.key.name,
            stamp=stamp,
            size_bytes=new.content.size_bytes,
            revision=new.content.revision,
            verdict=str(Verdict.SOUND),
        )
        kept[name] = backup, new.content
        return True

    def snapshot(self, space: str) -> Future[AbstractContextManager[Snapshot]]:
        self._check_open()
        with self._lock:
            contents = {
                key.name: kept.content
                for key, kept in self._kept.items()
                if key.space == space and kept.content is not None
            }
        future: Future[AbstractContextManager[Snapshot]] = Future()
        instant = _Instant(space, self._clock.now(), contents)
        self._instants.append(instant)
        future.set_result(nullcontext(instant))
        return future

    def watch(self, watcher: Callable[[DocumentKey, Outcome], None]) -> Callable[[], None]:
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def close(self) -> None:
        self._closed = True

    # parts

    def _info(self, key: DocumentKey, kept: _Kept) -> DocumentInfo:
        newest = next(iter(self.backups(key)), None)
        content, now = kept.content, self._clock.now()
        deleted_at = now if newest is None else newest.taken_at
        return DocumentInfo(
            name=key.name,
            revision=None if content is None else content.revision,
            size_bytes=0 if content is None else content.size_bytes,
            updated_at=deleted_at if content is None else kept.updated_at or now,
            verdict=str(Verdict.MISSING if content is None else Verdict.SOUND),
            backup_count=len(kept.backups),
        )

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed

    def _find(self, key: DocumentKey) -> Found:
        self._check_open()
        kept = self._kept.get(key)
        if kept is None or kept.content is None:
            return Found(key=key, judged=Judged(Verdict.MISSING), content=None, updated_at=None)
        judged = Judged(Verdict.SOUND, kept.content)
        return Found(key=key, judged=judged, content=kept.content, updated_at=kept.updated_at)

    def _judged_backups(self, key: DocumentKey) -> Iterator[tuple[Backup, Judged]]:
        for backup in self.backups(key):
            yield backup, self.read_backup(key, backup.name)

    def _check_count(self, publishes: Sequence[Publish]) -> None:
        new = sum(
            publish.content is not None and publish.found.content is None
            for publish in publishes
            if publish.key.space != SELINE
        )
        there = sum(key.space != SELINE and k.content is not None for key, k in self._kept.items())
        if new and there + new > self._documents_max:
            raise TooManyDocuments(f"There are {there} documents.")

    def _publish(self, publish: Publish) -> Backup | None:
        """Make one publish current; return the backup it made."""
        kept = self._kept.setdefault(publish.key, _Kept())
        backup: Backup | None = None
        before = publish.found.content
        if publish.purge:
            del self._kept[publish.key]
            for instant in self._instants:
                if instant.space == publish.key.space:
                    instant.purged.add(publish.key.name)
            return None
        if publish.backup and before is not None:
            backup = self._next_backup(publish.key, before)
            kept.backups[backup.name] = (backup, before)
        content = publish.content
        kept.content = None if content is None else Content.of(content.data)
        kept.updated_at = self._clock.now()
        if publish.retain is not None and backup is not None:
            self._rotate(publish.key, publish.retain)
        return backup

    def _next_backup(self, key: DocumentKey, content: Content) -> Backup:
        stamps = [backup.stamp for backup in self.backups(key)]
        stamp = next_stamp(max(stamps, default=None), self._clock.now())
        return Backup(
            name=backup_name(key.name, stamp),
            document=key.name,
            stamp=stamp,
            size_bytes=content.size_bytes,
            revision=content.revision,
            verdict=str(Verdict.SOUND),
        )

    def _rotate(self, key: DocumentKey, retain: Retain) -> list[Backup]:
        with self._lock:
            content = self._kept.get(key, _Kept()).content
            plan = verified_plan(
                self.backups(key),
                retain,
                verdict_of=lambda _backup: str(Verdict.SOUND),
                current_revision=None if content is None else content.revision,
            )
            for dropped in plan.drop:
                self._kept[key].backups.pop(dropped.name, None)
            return list(plan.drop)


class MemoryMedium:
    """A `Medium` without a disk: it has room, and no broken files."""

    place = ":memory:"

    def __init__(
        self, kept: dict[DocumentKey, _Kept], counters: Counters, check_open: Callable[[], None]
    ) -> None:
        self._kept = kept
        self._counters = counters
        self._check_open = check_open
        self._report: bytes | None = None
        self._held_since = datetime.now(UTC)

    def usage(self) -> Usage:
        self._check_open()
        kept = [kept for key, kept in self._kept.items() if key.space != SELINE]
        documents = sum(item.content.size_bytes for item in kept if item.content)
        backups = sum(b.size_bytes for item in kept for b, _ in item.backups.values())
        return Usage(
            capacity_bytes=1 << 40,
            used_bytes=documents + backups,
            available_bytes=1 << 40,
            files_bytes=documents + backups,
            documents_bytes=documents,
            backups_bytes=backups,
            inodes_total=None,
            inodes_free=None,
            limit_bytes=None,
            own_mount=False,
            documents=sum(item.content is not None for item in kept),
        )

    def has_room_for(self, growth_bytes: int) -> bool:
        return True

    def has_reserve(self) -> bool:
        return True

    def backup_count(self, space: str) -> int:
        return sum(len(kept.backups) for key, kept in self._kept.items() if key.space == space)

    def foreign_backup_count(self, space: str) -> int:
        return 0

    def left_out(self) -> list[LeftOut]:
        return []

    def protect_pins(self, mark: MarkPinned) -> None:
        """Do nothing: memory sheds no backups."""

    def capabilities(self) -> Sequence[Capability]:
        return [Capability(name="durability", present=False, detail="memory alone, no disk")]

    def unpublished(self) -> Sequence[str]:
        return []

    def unavailable(self) -> SelineError | None:
        return None

    def busy_s(self) -> float:
        return 0.0

    def counters(self) -> Counters:
        return self._counters.copy()

    def incidents(self) -> Sequence[Incident]:
        return []

    def lasts(self, incident: Incident) -> bool:
        return False

    def quarantine(self) -> Sequence[QuarantineItem]:
        return []

    def read_quarantine(self, item: str) -> bytes:
        raise not_in_quarantine(item)

    def raw(self, key: DocumentKey) -> bytes:
        content = self.rescue(key)
        if content is None:
            raise DocumentNotFound(f"There is no document {key.name}.", document=key.name)
        return content.data

    def rescue(self, key: DocumentKey) -> Content | None:
        self._check_open()
        return self._kept[key].content if key in self._kept else None

    def remembers(self, key: DocumentKey) -> bool:
        return key in self._kept

    def changed_outside(self) -> Sequence[str]:
        return ()

    def read_from_disk(self, key: DocumentKey, backup: str | None = None) -> None:
        """Do nothing: memory has no pages to drop."""

    def write_report(self, data: bytes) -> Future[None]:
        self._report = data
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def read_report(self) -> bytes | None:
        return self._report

    @property
    def held_since(self) -> datetime:
        return self._held_since

    def announce(self, **fields: object) -> None:
        """Do nothing: no other process can reach this memory."""


@dataclass(frozen=True, slots=True)
class _Instant:
    """The contents of one instant: a port `Snapshot`."""

    space: str
    taken_at: datetime
    contents: dict[str, Content]
    purged: set[str] = field(default_factory=set[str])

    @property
    def names(self) -> Sequence[str]:
        return sorted(self.contents)

    @property
    def broken(self) -> Mapping[str, str]:
        return {}

    def open(self, name: str) -> Iterator[bytes]:
        return iter((self.read(name).data,))

    def read(self, name: str) -> Content:
        if name in self.purged:
            raise DocumentNotFound(f"{name} was purged.", document=name)
        return self.contents[name]
