"""Verify: check every document and backup past the page cache, repair, and report.

It reads one file at a time on the reader threads and lets changes go first, so the event loop and
the writer stay free.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from seline.domain.backup import Backup
from seline.domain.document import BOT, SELINE, DocumentKey
from seline.domain.incident import IncidentKind
from seline.domain.left_out import LeftOut
from seline.domain.report import Finding, FindingOutcome, VerifyReport
from seline.domain.verdict import AS_SAVED, Judged, Verdict, usable_as_backup
from seline.errors import DocumentUnreadable, DocumentUnrecoverable, SelineError, VolumeFull
from seline.manager.managed_store import ManagedStore
from seline.manager.reads import notice_removed, remedied
from seline.manager.state import State
from seline.ports.futures import pause
from seline.ports.store import DocumentStore, keys_with_backups

LEFT_OUT_SHOWN_MAX: Final = 1_000
"""How many files that Seline does not keep a report names."""
FULL_EVERY: Final = timedelta(days=1)
GIVE_WAY_MAX_S: Final = 0.02
"""How long one file waits for changes to end, so that a pass ends under any load."""
GIVE_WAY_STEP_S: Final = 0.002


class Verifier:
    """Verifies one store and knows what was found last, also by an earlier process."""

    def __init__(self, store: ManagedStore) -> None:
        self._store = store
        self._last_full_at: State[datetime | None] = store.state(
            "integrity.json", datetime | None, lambda: None, field="last_full_at"
        )
        self._checked_since: datetime | None = None
        """When the last pass of this process began."""
        self.report: VerifyReport | None = None
        """What this process found last, about everything that it has checked."""

    def read(self, store: DocumentStore) -> None:
        """Read what an earlier process found, unless it is known. Blocks.

        What it could not serve is looked at, so that listings know it.
        """
        self._last_full_at.read_once(store)
        unserved = self._store.unserved
        if not unserved.loaded:
            unserved.read_once(store)
            for name in unserved.value:
                with suppress(SelineError):
                    store.look(DocumentKey(BOT, name))

    @property
    def last_full_at(self) -> datetime | None:
        """When everything was checked last."""
        return self._last_full_at.value

    @property
    def unserved(self) -> frozenset[str]:
        """The documents that the last pass, or a read after it, could not serve."""
        return frozenset(self._store.unserved.value)

    async def run(self, *, full: bool | None = True) -> VerifyReport:
        """Check documents and backups; recover, adopt, and report.

        `full=False` checks what changed since the last pass of this kind; `None`, as the job, does
        so except once a day.
        """
        store = await self._store.open()
        await self._store.reading(lambda: self.read(store))
        started_at = self._store.clock.now()
        is_full = self._full_is_due(started_at) if full is None else full
        since = None if is_full else self._checked_since
        one_pass = _Pass(self._store, store)
        await one_pass.run(since)
        report = one_pass.report(started_at)
        if full is not True:  # a check by hand replaces none of the job's
            self._checked_since = started_at
        if since is None:
            self.report = report
            await self._last_full_at.save(report.ended_at)
        else:
            assert self.report is not None
            self.report = one_pass.added_to(self.report, report)
        unserved = frozenset(found.document for found in self.report.findings if found.is_unserved)
        if unserved != self.unserved:
            await self._store.unserved.save(tuple(sorted(unserved)))
        return report

    def _full_is_due(self, now: datetime) -> bool:
        if self._checked_since is None:
            return True
        last = self.last_full_at
        return last is None or not now - FULL_EVERY < last <= now


class _Pass:
    def __init__(self, managed: ManagedStore, store: DocumentStore) -> None:
        self._managed = managed
        self._store = store
        self._documents = 0
        self._backups = 0
        self._bytes_read = 0
        self._findings: list[Finding] = []
        self._left_out: Sequence[LeftOut] = ()
        self._checked: set[tuple[str, str | None]] = set()
        self._existing: set[tuple[str, str | None]] = set()

    async def run(self, since: datetime | None) -> None:
        documents = await self._managed.listing(lambda: list(self._store.documents(BOT)))
        await notice_removed(self._managed, documents)
        self._existing |= {(info.name, None) for info in documents}
        names = [info.name for info in documents if since is None or info.updated_at >= since]
        unsettled = [name for name in names if not await self._document(name)]
        if unsettled:
            await pause(self._managed.settings.storage.settle_s)
            for name in unsettled:
                if not await self._document(name):
                    self._documents += 1
                    detail = "it is being written just now; it was left alone"
                    self._found(name, None, Verdict.UNSETTLED, FindingOutcome.UNSETTLED, detail)
        for key in await self._managed.listing(lambda: keys_with_backups(self._store, BOT)):
            await self._check_backups(key, since)
        for info in await self._managed.reading(lambda: self._store.documents(SELINE)):
            await self._state(DocumentKey(SELINE, info.name))
        self._left_out = await self._managed.listing(self._store.medium.left_out)

    def report(self, started_at: datetime) -> VerifyReport:
        """Return what this pass found."""
        return VerifyReport(
            started_at=started_at,
            ended_at=self._managed.clock.now(),
            documents=self._documents,
            backups=self._backups,
            bytes_read=self._bytes_read,
            findings=tuple(self._findings),
            left_out=tuple(self._left_out[:LEFT_OUT_SHOWN_MAX]),
            left_out_count=len(self._left_out),
        )

    def added_to(self, before: VerifyReport, report: VerifyReport) -> VerifyReport:
        """Return an earlier report with the findings of this pass, of a part, in their place."""
        unchecked = self._existing - self._checked
        kept = [found for found in before.findings if (found.document, found.backup) in unchecked]
        return replace(before, findings=(*kept, *report.findings))

    async def _document(self, name: str) -> bool:
        """Check one document and repair it; return False while it is being written."""
        key = DocumentKey(BOT, name)
        await self._give_way()
        judged = await self._managed.reading(lambda: self._fresh(key))
        self._checked.add((name, None))
        as_saved = judged.verdict in AS_SAVED
        if not as_saved and (judged.verdict is Verdict.UNSETTLED or not judged.settled):
            return False
        self._documents += 1
        self._bytes_read += len(judged.content.data) if judged.content else 0
        if not as_saved:
            await self._mend(key, judged)
        return True

    async def _state(self, key: DocumentKey) -> None:
        """Check a state document, and repair it while memory or a backup has its content.

        It is no document of the bot's, so it is not in the report; incidents report it.
        """
        await self._give_way()
        judged = await self._managed.reading(lambda: self._fresh(key))
        if judged.verdict in AS_SAVED or judged.verdict is Verdict.UNSETTLED:
            return
        try:
            await remedied(self._managed, key, judged)
        except DocumentUnrecoverable as error:
            self._managed.note(IncidentKind.UNRECOVERABLE, key.name, error.message)
        except SelineError as error:
            kind = IncidentKind.DISK_ERROR
            if isinstance(error, VolumeFull):
                kind = IncidentKind.NO_ROOM
            elif not error.details.get("disk_failed", True):
                kind = IncidentKind.ACCESS_REFUSED
            self._managed.note(kind, key.name, f"{error.message} {error.hint}")

    async def _give_way(self) -> None:
        """Let changes go first, for a limited time."""
        waited_s = 0.0
        while waited_s < GIVE_WAY_MAX_S and self._store.medium.busy_s():
            await pause(GIVE_WAY_STEP_S)
            waited_s += GIVE_WAY_STEP_S

    def _fresh(self, key: DocumentKey) -> Judged:
        self._store.medium.read_from_disk(key)
        return self._store.look(key)[0]

    async def _mend(self, key: DocumentKey, judged: Judged) -> None:
        before = self._store.medium.incidents()
        try:
            await remedied(self._managed, key, judged)
            outcome = await self._outcome(key, judged)
            detail = judged.reason
        except DocumentUnrecoverable as error:
            outcome, detail = FindingOutcome.UNRECOVERABLE, error.message
        except DocumentUnreadable as error:
            disk_failed = error.details["disk_failed"]
            outcome = FindingOutcome.FAILED if disk_failed else FindingOutcome.UNREADABLE
            detail = f"{error.message} {error.hint}"
        except SelineError as error:
            outcome, detail = FindingOutcome.FAILED, error.message
        known = set(map(id, before))
        incidents = (found for found in self._store.medium.incidents() if id(found) not in known)
        lost = (incident.lost for incident in incidents if incident.document == key.name)
        self._found(key.name, None, judged.verdict, outcome, detail, next(lost, ""))

    async def _outcome(self, key: DocumentKey, judged: Judged) -> FindingOutcome:
        """Return what became of a document that is served: it may be as it was before."""
        now, _ = await self._managed.reading(lambda: self._store.look(key))
        if (now.verdict, now.content) == (judged.verdict, judged.content):
            return FindingOutcome.UNWRITTEN
        edited = judged.verdict is Verdict.EDITED
        return FindingOutcome.ADOPTED if edited else FindingOutcome.RECOVERED

    async def _check_backups(self, key: DocumentKey, since: datetime | None) -> None:
        for backup in await self._managed.reading(lambda: list(self._store.backups(key))):
            self._existing.add((key.name, backup.name))
            if since is not None and backup.taken_at < since:
                continue
            await self._give_way()
            judged = await self._managed.reading(partial(self._fresh_backup, key, backup))
            self._checked.add((key.name, backup.name))
            if judged is None:
                continue
            self._backups += 1
            self._bytes_read += len(judged.content.data) if judged.content else 0
            if not usable_as_backup(key, judged):
                detail = judged.flaw or "it cannot be used"
                self._found(key.name, backup.name, judged.verdict, FindingOutcome.MARKED, detail)

    def _fresh_backup(self, key: DocumentKey, backup: Backup) -> Judged | None:
        self._store.medium.read_from_disk(key, backup.name)
        try:
            return self._store.read_backup(key, backup.name)
        except SelineError:
            return None  # it was rotated in the meantime

    def _found(
        self,
        document: str,
        backup: str | None,
        verdict: Verdict,
        outcome: FindingOutcome,
        detail: str,
        lost: str = "",
    ) -> None:
        self._findings.append(
            Finding(
                document=document,
                backup=backup,
                verdict=str(verdict),
                outcome=outcome,
                detail=detail,
                found_at=self._managed.clock.now(),
                lost=lost,
            )
        )
