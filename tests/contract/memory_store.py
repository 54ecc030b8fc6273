"""A store in memory, so that the contract suite tries the port on more than one store.

Documents and backups are in dictionaries, and the product's planner decides. Nothing survives the
process. No disk can damage a content, so every content is sound.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from seline.clock import Clock
from seline.domain.backup import Backup, backup_name, next_stamp
from seline.domain.counters import Counters, CounterValues
from seline.domain.document import SELINE, Content, DocumentInfo, DocumentKey
from seline.domain.incident import Incident
from seline.domain.retention import verified_plan
from seline.domain.usage import Usage
from seline.domain.verdict import Judged, Verdict
from seline.errors import BackupNotFound, DocumentNotFound, SelineError, StoreClosed, VolumeFull
from seline.ports.store import (
    Atom,
    Capability,
    Outcome,
    QuarantineItem,
    Retain,
    Snapshot,
    not_in_quarantine,
)
from seline.storage.planner import Found, Planner, Publish

T = TypeVar("T")


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
        self._lock = threading.RLock()
        self._report: bytes | None = None
        self._counting = Counters()
        self._watchers: list[Callable[[DocumentKey, Outcome], None]] = []
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="seline-reader")
        self._closed = False

    @property
    def place(self) -> str:
        return ":memory:"

    def peek(self, key: DocumentKey) -> Content | Verdict | None:
        self._check_open()
        kept = self._kept.get(key)
        if kept is None or kept.content is None:
            return Verdict.MISSING
        return kept.content

    def look(self, key: DocumentKey) -> tuple[Judged, datetime | None]:
        found = self._find(key)
        return found.judged, found.updated_at

    def busy_s(self) -> float:
        return 0.0

    def later(self, work: Callable[[], T]) -> Future[T]:
        try:
            return self._readers.submit(self._unless_closed, work)
        except RuntimeError as error:  # closed, or the interpreter is going down
            raise StoreClosed from error

    def rescue(self, key: DocumentKey) -> Content | None:
        return self._find(key).content

    def submit(self, atom: Atom) -> Future[tuple[Outcome, ...]]:
        self._check_open()
        future: Future[tuple[Outcome, ...]] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            plan = Planner(self._find, self._judged_backups, self._clock.now()).plan([atom])
            steps = plan.taken[0]
            try:
                if isinstance(steps, BaseException):
                    raise steps
                self._check_count(plan.publishes)
            except BaseException as refusal:  # a caller's function may raise anything
                self._counting.refuse(refusal)
                future.set_exception(refusal)
                return future
            made = {publish.key: self._publish(publish) for publish in plan.publishes}
            outcomes = tuple(
                step.outcome({key: name for key, name in made.items() if name}) for step in steps
            )
            for step, outcome in zip(steps, outcomes, strict=True):
                if outcome.changed:
                    self._counting.answered(0.0)
                    for watcher in list(self._watchers):
                        watcher(step.key, outcome)
        future.set_result(outcomes)
        return future

    def documents(self, space: str) -> Sequence[DocumentInfo]:
        self._check_open()
        with self._lock:
            return [
                DocumentInfo(
                    name=key.name,
                    revision=kept.content.revision,
                    size_bytes=kept.content.size_bytes,
                    updated_at=kept.updated_at or self._clock.now(),
                    verdict=str(Verdict.SOUND),
                    backup_count=len(kept.backups),
                )
                for key, kept in sorted(self._kept.items())
                if key.space == space and kept.content is not None
            ]

    def backups(self, key: DocumentKey) -> Sequence[Backup]:
        self._check_open()
        with self._lock:
            kept = self._kept.get(key, _Kept())
            backups = [backup for backup, _ in kept.backups.values()]
            return sorted(backups, key=lambda backup: backup.stamp, reverse=True)

    def backup_counts(self, space: str) -> dict[str, int]:
        with self._lock:
            return {
                key.name: len(kept.backups)
                for key, kept in self._kept.items()
                if key.space == space and kept.backups
            }

    def read_backup(self, key: DocumentKey, backup: str) -> Judged:
        with self._lock:
            found = self._kept.get(key, _Kept()).backups.get(backup)
        if found is None:
            raise BackupNotFound(
                f"{key.name} has no backup {backup}.", document=key.name, backup=backup
            )
        return Judged(Verdict.SOUND, found[1])

    def rotate(self, key: DocumentKey, retain: Retain) -> Future[Sequence[Backup]]:
        future: Future[Sequence[Backup]] = Future()
        future.set_result(self._rotate(key, retain))
        return future

    def heed_pins(
        self, marked: Callable[[DocumentKey, Sequence[Backup]], Sequence[Backup]]
    ) -> None:
        """Do nothing: memory sheds no backups."""

    def quarantine(self) -> Sequence[QuarantineItem]:
        return []

    def read_quarantine(self, item: str) -> bytes:
        raise not_in_quarantine(item)

    def raw(self, key: DocumentKey) -> bytes:
        content = self._find(key).content
        if content is None:
            raise DocumentNotFound(f"There is no document {key.name}.", document=key.name)
        return content.data

    def drop_cached_pages(self, key: DocumentKey, backup: str | None = None) -> None:
        """Do nothing: memory has no pages to drop."""

    def write_report(self, data: bytes) -> Future[None]:
        self._report = data
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def read_report(self) -> bytes | None:
        return self._report

    def announce(self, **fields: object) -> None:
        """Do nothing: no other process can reach this memory."""

    def has_reserve(self) -> bool:
        return True

    def snapshot(self, space: str) -> Future[AbstractContextManager[Snapshot]]:
        with self._lock:
            contents = {
                key.name: kept.content
                for key, kept in self._kept.items()
                if key.space == space and kept.content is not None
            }
        future: Future[AbstractContextManager[Snapshot]] = Future()
        future.set_result(nullcontext(_Instant(self._clock.now(), contents)))
        return future

    def usage(self) -> Usage:
        with self._lock:
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
        )

    def figures(self) -> CounterValues:
        return self._counting.figures()

    def capabilities(self) -> Sequence[Capability]:
        return [Capability(name="durability", present=False, detail="memory alone, no disk")]

    def incidents(self) -> Sequence[Incident]:
        return []

    def trouble(self) -> SelineError | None:
        return None

    def watch(self, notice: Callable[[DocumentKey, Outcome], None]) -> Callable[[], None]:
        self._watchers.append(notice)
        return lambda: self._watchers.remove(notice)

    def close(self) -> None:
        self._closed = True
        self._readers.shutdown()

    # parts

    def _unless_closed(self, work: Callable[[], T]) -> T:
        self._check_open()
        return work()

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
            raise VolumeFull(f"There are {there} documents; {self._documents_max} are allowed.")

    def _publish(self, publish: Publish) -> str:
        """Make one publish current; return the name of the backup it made."""
        kept = self._kept.setdefault(publish.key, _Kept())
        name = ""
        before = publish.found.content
        if publish.purge:
            del self._kept[publish.key]
            return name
        if publish.backup and before is not None:
            backup = self._next_backup(publish.key, before)
            kept.backups[backup.name] = (backup, before)
            name = backup.name
        content = publish.content
        kept.content = None if content is None else Content.of(content.data)
        kept.updated_at = self._clock.now()
        if publish.retain is not None and name:
            self._rotate(publish.key, publish.retain)
        return name

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


@dataclass(frozen=True, slots=True)
class _Instant:
    """The contents of one instant: a port `Snapshot`."""

    taken_at: datetime
    contents: dict[str, Content]

    @property
    def names(self) -> Sequence[str]:
        return sorted(self.contents)

    def open(self, name: str) -> Iterator[bytes]:
        return iter((self.contents[name].data,))
