"""Coming back: restore a copy onto a volume that never held a document.

The copies of one volume at all destinations are tried, the newest first. It is the volume of the
first destination that has one. A copy that is damaged and a destination that fails are passed over,
logged, and named in the result.

While a destination fails, only the newest copy of another mirror is taken, which is as fresh. An
older copy is not: the destination that fails may have a newer one, and may answer later.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from heapq import merge
from itertools import accumulate
from typing import Final, NamedTuple, TypeAlias

from msgspec import structs

from seline.domain.copy import MIRROR, Copy, CopyInfo, is_made_in_doubt
from seline.domain.plural import counted, shortened
from seline.domain.readable_export import ImportReport
from seline.domain.volume_file import PendingRestore
from seline.errors import (
    CopyNotFound,
    ExportDamaged,
    ExportFailed,
    ImportRefused,
    KeyMissing,
    SelineError,
    StorageError,
    TooManyDocuments,
    UnsupportedFormat,
    VolumeFull,
)
from seline.manager.managed_store import ManagedStore
from seline.operations.copies import Copies, not_whole_text
from seline.operations.restore import fill_or_leave_empty
from seline.ports.destinations import ObjectForbidden, ObjectMissing, Target
from seline.ports.sealing import Sealer

AUTO: Final = "auto"
OFF: Final = "off"
Damaged: TypeAlias = dict[tuple[str, str], ExportDamaged | ObjectMissing | ImportRefused]
"""Copies that are damaged or refused, by destination and name: they are not fetched again."""
_NOT_TAKEN: Final = (ExportFailed, KeyMissing, UnsupportedFormat, TooManyDocuments, VolumeFull)
"""Why a start cannot take a copy that may be whole; it waits, because an older one is no answer."""
_log = logging.getLogger("seline.restore")


@dataclass(slots=True)
class Returned:
    """What a start on an empty volume found.

    `copy` was restored, None if none was found, and `report` is what it brought. `passed_over` says
    why each copy before it was not taken. `forbidden` names the destinations that refuse to be
    read.
    """

    copy: Copy | None = None
    report: ImportReport | None = None
    passed_over: list[str] = field(default_factory=list[str])
    forbidden: list[str] = field(default_factory=list[str])


class _Candidate(NamedTuple):
    """A copy that may be taken; `is_fresh`: no copy of its mirror is newer.

    `age_order` is the instant when it was made at the latest, which sorts copies of several
    destinations: a later copy there may show that the clock was ahead.
    """

    info: CopyInfo
    copies: Copies
    is_fresh: bool
    age_order: tuple[datetime, bool]

    @property
    def text(self) -> str:
        return f"the copy of {self.info.taken_at:%Y-%m-%d %H:%M:%S} UTC at {self.name}"

    @property
    def name(self) -> str:
        return self.copies.destination.name

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.info.name


async def come_back(
    store: ManagedStore,
    targets: Sequence[Target],
    sealer: Sealer,
    *,
    restore_from: str,
    damaged: Damaged,
) -> Returned:
    """Restore the newest whole copy onto an empty volume, if a destination has one.

    `damaged` is what earlier calls found, and gets what this one finds.
    Raises ExportFailed if there are copies, or a destination that fails, and none can be taken: to
    begin empty would look as if everything were lost. Raises what `fill_volume` raises.
    """
    chosen = [target for target in targets if restore_from in (AUTO, target.destination.name)]
    search = _Search([Copies(target.destination, sealer) for target in chosen])
    async with aclosing(search.candidates()) as candidates:
        async for candidate in candidates:
            if (known := damaged.get(candidate.key)) is not None:
                await search.refuse(candidate, known)
                continue
            try:
                copy = search.without_purged(await candidate.copies.open(candidate.info))
                report = await fill_or_leave_empty(store, copy, progress=_log_progress)
            except (ExportDamaged, ObjectMissing, ImportRefused) as error:
                damaged[candidate.key] = error
                await search.refuse(candidate, error)
            except _NOT_TAKEN as error:
                search.fail(candidate.name, error)
            else:
                documents = counted(len(report.created), "document")
                backups = counted(report.backups, "backup")
                _log.info("restored %s: %s and %s", candidate.text, documents, backups)
                search.found.copy, search.found.report = copy, report
                return search.found
    if search.flaw is not None:
        place, restoring = (await store.open()).medium.place, store.volume_file.value.restoring
        raise search.refusal(place, is_interrupted=bool(restoring))
    return search.found


async def note_pending(store: ManagedStore, error: ExportFailed) -> None:
    """Note on the empty volume that it waits for a copy: other processes then write nothing.

    Does nothing if the volume takes no changes, which its next opening reports.
    """
    pending = PendingRestore(error.message, error.hint)
    if pending != store.volume_file.value.pending:
        with suppress(StorageError):
            await store.volume_file.update(lambda known: structs.replace(known, pending=pending))


class _Search:
    """The copies that may be taken, and why each one before was not."""

    def __init__(self, destinations: Sequence[Copies]) -> None:
        self.found = Returned()
        self.flaw: tuple[str, SelineError] | None = None
        """What is wrong, and where: the first failure of a destination, else the first damage."""
        self._destinations = destinations
        self._failed: set[str] = set()
        self._left: _Candidate | None = None
        """The first copy that is not taken because a destination fails."""
        self._newer: tuple[str, Copy] | None = None
        """The first copy that is damaged, and lists its documents all the same."""

    async def candidates(self) -> AsyncGenerator[_Candidate]:
        """Yield the copies of one volume, the newest first."""
        volume = ""
        found: list[list[_Candidate]] = []
        for copies in self._destinations:
            found.append(await self._candidates_at(copies, volume))
            volume = volume or copies.volume
        for candidate in merge(*found, key=lambda other: other.age_order, reverse=True):
            if self._may_be_taken(candidate):
                yield candidate

    async def _candidates_at(self, copies: Copies, volume: str) -> list[_Candidate]:
        """Return the copies of a volume at one destination, the last one first."""
        name = copies.destination.name
        try:
            infos = await copies.usable(volume=volume)
        except CopyNotFound as error:
            self.flaw = self.flaw or (name, error)
            self._note(f"{name}: {error.message}")
            return []
        except SelineError as error:
            self.fail(name, error)
            return []
        is_newest_lost = self._note_damaged(copies, infos)
        kinds = [info.kind for info in infos]
        fresh = kinds.index(MIRROR) + 1 if MIRROR in kinds and not is_newest_lost else 0
        ages = accumulate((info.taken_at for info in infos), min)
        return [
            _Candidate(info, copies, number < fresh, (age, info.kind == MIRROR))
            for number, (info, age) in enumerate(zip(infos, ages, strict=True))
        ]

    def _note_damaged(self, copies: Copies, infos: Sequence[CopyInfo]) -> bool:
        """Note what is newer than these copies and damaged; return whether the mirror has such."""
        name = copies.destination.name
        newer = copies.damaged_after(infos[0] if infos else None)
        for damaged in newer:
            self.flaw = self.flaw or (name, damaged.error)
            self._note(not_whole_text(damaged.taken_at, damaged.error, name))
        return any(damaged.kind == MIRROR for damaged in newer)

    def _may_be_taken(self, candidate: _Candidate) -> bool:
        elsewhere = (other for other in self._destinations if other is not candidate.copies)
        if any(is_made_in_doubt(candidate.info, at.in_doubt, here=False) for at in elsewhere):
            self._note(f"{candidate.text} is passed over: the mirror was in doubt then")
            return False
        if candidate.name in self._failed | {*self.found.forbidden}:
            return False
        if self._failed and not candidate.is_fresh:
            self._left = self._left or candidate
            return False
        return True

    async def refuse(self, candidate: _Candidate, error: SelineError) -> None:
        """Note that a copy is damaged, or beyond a limit, for which an older one is no answer."""
        if isinstance(error, ImportRefused):
            self.fail(candidate.name, error)
            return
        self.flaw = self.flaw or (candidate.name, error)
        self._note(not_whole_text(candidate.info.taken_at, error, candidate.name))
        if self._newer is None and candidate.info.kind == MIRROR:
            with suppress(SelineError):  # its list may be what is damaged
                self._newer = candidate.text, await candidate.copies.open(candidate.info)

    def without_purged(self, copy: Copy) -> Copy:
        """Return an older copy without the documents of which a newer, damaged one has nothing.

        They were purged in between: of a deleted document the newer one has the backups. Of two
        copies of one second at two destinations, neither counts as newer.
        """
        if self._newer is None:
            return copy
        text, newer = self._newer
        if newer.destination != copy.destination and newer.taken_at <= copy.taken_at:
            return copy
        known = {*newer.lacking, *(document.name for document in newer.documents)}
        purged = sorted(document.name for document in copy.documents if document.name not in known)
        if purged:
            self._note(f"{shortened(purged)}, which {text} no longer has")
        return replace(
            copy,
            documents=tuple(document for document in copy.documents if document.name in known),
            pins=tuple(pin for pin in copy.pins if pin.document in known),
        )

    def fail(self, name: str, error: SelineError) -> None:
        """Note that a destination cannot be asked."""
        if isinstance(error, ObjectForbidden):
            self.found.forbidden.append(name)
            self._note(f"{name} refuses to be read: {error.message}")
            return
        if not self._failed:
            self.flaw = name, error
        self._failed.add(name)
        self._note(f"{name} failed: {error.message}")

    def _note(self, text: str) -> None:
        _log.warning("%s", text)
        self.found.passed_over.append(text.removesuffix("."))

    def refusal(self, place: str, *, is_interrupted: bool) -> ExportFailed:
        """Return the error of a search that has found a flaw, and no copy.

        `is_interrupted`: the volume has a part of a copy, so that it is not served before all of it
        is restored.
        """
        assert self.flaw is not None
        name, error = self.flaw
        left = self._left
        step = error.hint
        if is_interrupted:
            return ExportFailed(
                f"The volume at {place} has a part of a copy, and the copy at {name} cannot be "
                f"taken: {error.message}",
                hint=f"{step} To begin empty, move everything in the data directory away, and set "
                "`exports.restore_from = off`.",
            )
        if isinstance(error, KeyMissing):
            step = (
                f"Run `seline exports restore {name} --identity key.txt --yes` on this machine, "
                "also while the service waits; or set `exports.passphrase` to the passphrase that "
                "the copy was made with, then restart."
            )
        return ExportFailed(
            f"The volume at {place} is empty, and the copy at {name} cannot be taken: "
            f"{error.message}",
            hint=f"{step} To take {left.text}, set `exports.restore_from = {left.name}`. "
            "To begin empty, set `exports.restore_from = off`."
            if left is not None
            else f"{step} To begin empty, set `exports.restore_from = off`.",
        )


def _log_progress(done: int, of_all: int, size_bytes: int) -> None:
    _log.info("restored %d of %s, %d bytes", done, counted(of_all, "document"), size_bytes)
