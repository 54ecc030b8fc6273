"""Verify: look at every document and backup past the page cache, mend, and report what was found.

In slices, one file at a time on the reader threads, giving way to changes: the loop and the writer
stay free.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from seline.domain.backup import Backup
from seline.domain.document import BOT, SELINE, DocumentKey
from seline.domain.report import Finding, VerifyReport
from seline.domain.verdict import Judged, Verdict, usable_as_backup
from seline.errors import DocumentUnreadable, DocumentUnrecoverable, SelineError, VolumeFull
from seline.manager import broken_documents
from seline.ports.futures import in_loop
from seline.ports.store import DocumentStore

if TYPE_CHECKING:
    from seline.manager.data import DataManager

GIVE_WAY_MAX_S: Final = 0.02
"""How long one file waits for changes to end: a pass ends under any load, if late."""
GIVE_WAY_STEP_S: Final = 0.002


class _Pass:
    """One pass over everything."""

    def __init__(self, data: DataManager, store: DocumentStore) -> None:
        self._data = data
        self._store = store
        self.documents = 0
        self.backups = 0
        self.bytes_read = 0
        self.findings: list[Finding] = []
        self._looked_at: set[tuple[str, str | None]] = set()
        self._there: set[tuple[str, str | None]] = set()

    async def run(self, since: datetime | None) -> None:
        documents = await self._data.documents()
        self._there |= {(info.name, None) for info in documents}
        names = [info.name for info in documents if since is None or info.updated_at >= since]
        unsettled = [name for name in names if not await self._document(name)]
        if unsettled:
            await _sleep(self._data.options.settle_s)
            for name in unsettled:
                if not await self._document(name):
                    self._unsettled(name)
        counts = await self._data.reading(lambda: self._store.backup_counts(BOT))
        for document in sorted(counts):
            await self._backups(DocumentKey(BOT, document), since)
        for info in await self._data.reading(lambda: self._store.documents(SELINE)):
            await self._state(DocumentKey(SELINE, info.name))

    def added_to(self, before: VerifyReport | None, report: VerifyReport) -> VerifyReport:
        """Return the report of an earlier pass with what this one, of a part, found instead."""
        if before is None:
            return report
        unseen = self._there - self._looked_at
        standing = [one for one in before.findings if (one.document, one.backup) in unseen]
        return replace(before, findings=(*standing, *report.findings))

    async def _document(self, name: str) -> bool:
        """Look at one document and mend it; False while it is being written."""
        key = DocumentKey(BOT, name)
        await self._give_way()
        judged = await self._data.reading(lambda: self._fresh(key))
        self._looked_at.add((name, None))
        as_saved = judged.rule.as_saved
        if not as_saved and (judged.verdict is Verdict.UNSETTLED or not judged.settled):
            return False
        self.documents += 1
        self.bytes_read += len(judged.content.data) if judged.content else 0
        if not as_saved:
            await self._mend(key, judged)
        return True

    async def _state(self, key: DocumentKey) -> None:
        """Look at one of Seline's own documents, and mend it while memory or a backup holds it.

        It is no document of the bot's to report on: what happens to it is told as it happens.
        """
        await self._give_way()
        judged = await self._data.reading(lambda: self._fresh(key))
        if judged.rule.as_saved or judged.verdict is Verdict.UNSETTLED:
            return
        try:
            await self._data.content_of(self._store, key, judged)
        except DocumentUnrecoverable as error:
            self._data.note("unrecoverable", key.name, error.message)
        except SelineError as error:
            kind = "no_room" if isinstance(error, VolumeFull) else "disk_error"
            self._data.note(kind, key.name, error.message)

    async def _give_way(self) -> None:
        """Let changes go first, for a moment."""
        waited_s = 0.0
        while waited_s < GIVE_WAY_MAX_S and self._store.busy_s():
            await _sleep(GIVE_WAY_STEP_S)
            waited_s += GIVE_WAY_STEP_S

    def _fresh(self, key: DocumentKey) -> Judged:
        self._store.drop_cached_pages(key)
        return self._store.look(key)[0]

    async def _mend(self, key: DocumentKey, judged: Judged) -> None:
        before = len(self._store.incidents())
        try:
            await self._data.content_of(self._store, key, judged)
            outcome = "adopted" if judged.verdict is Verdict.EDITED else "recovered"
            detail = judged.reason
        except DocumentUnrecoverable as error:
            outcome, detail = "unrecoverable", error.message
        except DocumentUnreadable as error:
            outcome, detail = "unreadable", error.message
        except SelineError as error:
            outcome, detail = "failed", error.message
        lost = next(
            (
                incident.lost
                for incident in self._store.incidents()[before:]
                if incident.document == key.name
            ),
            "",
        )
        self.findings.append(
            Finding(
                document=key.name,
                backup=None,
                verdict=str(judged.verdict),
                outcome=outcome,
                detail=detail,
                found_at=self._data.clock.now(),
                lost=lost,
            )
        )

    def _unsettled(self, name: str) -> None:
        self.documents += 1
        self.findings.append(
            Finding(
                document=name,
                backup=None,
                verdict=str(Verdict.UNSETTLED),
                outcome="unsettled",
                detail="it is being written just now; it was left alone",
                found_at=self._data.clock.now(),
            )
        )

    async def _backups(self, key: DocumentKey, since: datetime | None) -> None:
        for backup in await self._data.reading(lambda: list(self._store.backups(key))):
            self._there.add((key.name, backup.name))
            if since is not None and backup.taken_at < since:
                continue
            await self._give_way()
            judged = await self._data.reading(partial(self._fresh_backup, key, backup))
            self._looked_at.add((key.name, backup.name))
            if judged is None:
                continue
            self.backups += 1
            self.bytes_read += len(judged.content.data) if judged.content else 0
            if not usable_as_backup(key, judged):
                self.findings.append(
                    Finding(
                        document=key.name,
                        backup=backup.name,
                        verdict=str(judged.verdict),
                        outcome="marked",
                        detail=judged.reason or "it cannot be used",
                        found_at=self._data.clock.now(),
                    )
                )

    def _fresh_backup(self, key: DocumentKey, backup: Backup) -> Judged | None:
        self._store.drop_cached_pages(key, backup.name)
        try:
            return self._store.read_backup(key, backup.name)
        except SelineError:
            return None  # it was rotated meanwhile


async def verify(
    data: DataManager, store: DocumentStore, *, changed_since: datetime | None = None
) -> VerifyReport:
    """Run one pass and return its report; over what changed since an instant, else everything."""
    started_at = data.clock.now()
    one = _Pass(data, store)
    await one.run(changed_since)
    report = VerifyReport(
        started_at=started_at,
        ended_at=data.clock.now(),
        documents=one.documents,
        backups=one.backups,
        bytes_read=one.bytes_read,
        findings=tuple(one.findings),
    )
    data.last_verify = report if changed_since is None else one.added_to(data.last_verify, report)
    if changed_since is None:
        data.last_verified_at = report.ended_at
    found = {one.document for one in data.last_verify.findings if one.is_unserved}
    await broken_documents.remember(data, found)
    return report


async def _sleep(seconds: float) -> None:
    """Wait, with a loop or without one."""
    if in_loop():
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)  # noqa: ASYNC251  # there is no loop in this thread
