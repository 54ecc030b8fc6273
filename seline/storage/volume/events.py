"""Notify watchers of changes, and record and log incidents; their sentences are here."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from seline.clock import Clock
from seline.domain.backup import Backup
from seline.domain.document import DocumentKey, Json
from seline.domain.incident import Incident, IncidentKind, no_incidents, oldest_first
from seline.errors import StorageError
from seline.ports.store import Outcome
from seline.storage.planner import Found, Publish
from seline.storage.volume.directory import VolumeDirectory, may_write
from seline.storage.volume.earlier import Recovery
from seline.storage.volume.os_errors import describe, is_full

EDITS_MANY: Final = 3
EDITS_WITHIN: Final = timedelta(minutes=1)

_log = logging.getLogger("seline.storage")


class Events:
    """The watchers of one store, and its latest incidents. Any thread may read or watch."""

    def __init__(self, clock: Clock, volume: VolumeDirectory) -> None:
        """Start without incidents."""
        self._clock = clock
        self._volume = volume
        self._refused: dict[tuple[DocumentKey | None, str], tuple[Incident, str]] = {}
        """The last refusal of each document and work, and the directory that refused it."""
        self._edited: dict[str, deque[datetime]] = {}
        self._incidents = no_incidents()
        self._watchers: list[Callable[[DocumentKey, Outcome], None]] = []

    def watch(self, watcher: Callable[[DocumentKey, Outcome], None]) -> Callable[[], None]:
        """Call `watcher` after each durable change; return the function that stops it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def incidents(self) -> list[Incident]:
        """Return the latest incidents, oldest first."""
        return oldest_first(self._incidents)

    def report(self, incident: Incident) -> None:
        """Record an incident."""
        self._incidents[incident.kind].append(incident)

    def changed(self, key: DocumentKey, outcome: Outcome) -> None:
        """Notify the watchers of a durable change; an error of theirs is logged."""
        for watcher in list(self._watchers):
            try:
                watcher(key, outcome)
            except Exception:  # noqa: BLE001  # a watcher cannot undo what is durable
                _log.exception("a watcher failed after a change of %s", key.name)

    def disk_error(
        self, error: OSError | StorageError, doing: str, keys: Iterable[DocumentKey] = ()
    ) -> None:
        """Report an error of the disk, or an access that the system refused for these documents."""
        what = describe(error)
        _log.error("%s: %s", doing, what)
        failure = self._volume.named(error, doing) if isinstance(error, OSError) else error
        kind, step = IncidentKind.DISK_ERROR, ""
        if is_full(error):
            kind = IncidentKind.NO_ROOM
        elif not failure.details.get("disk_failed", True):
            kind, step = IncidentKind.ACCESS_REFUSED, f". {failure.hint}"
        incident = self._report(kind, f"{doing}: {what}{step}")
        for key in tuple(keys) or (None,):
            self._refused[key, doing] = incident, self._volume.refusing(error)

    def succeeded(self, key: DocumentKey | None, doing: str = "") -> None:
        """End the refusals of a document, or of the store: this work, or all, is done now."""
        for refused in list(self._refused):
            if refused[0] == key and doing in ("", refused[1]) and not self._refused[refused][1]:
                del self._refused[refused]

    def lasts(self, incident: Incident) -> bool:
        """Whether a refusal may last; that by a directory lasts until it may be written."""
        return any(
            refused is incident and not (directory and may_write(directory))
            for refused, directory in list(self._refused.values())
        )

    def remade(self, name: str) -> None:
        """Report that a directory of Seline's was missing and was made again."""
        self._report(
            IncidentKind.REMADE,
            f"{name}/ was removed, or moved away, while Seline was running; it was made again, "
            "empty.",
        )

    def foreign_metadata(self) -> None:
        """Report that `metadata.json` is another program's file, so Seline's own moves."""
        summary = (
            "metadata.json in the data directory was not written by Seline, and stays as it is; "
            "Seline keeps its report in .seline/metadata.json."
        )
        _log.warning("%s", summary)
        self._report(IncidentKind.FOREIGN_METADATA, summary)

    def shed(self, shed: Sequence[Backup]) -> None:
        """Report which backups were removed to make room."""
        size_bytes = sum(dropped.size_bytes for dropped in shed)
        self._report(
            IncidentKind.SHED,
            "The volume is nearly full, so old backups make room, never the newest sound one of a "
            f"document: first {len(shed)} of {size_bytes} bytes, from {shed[0].name} on.",
            backups=[dropped.name for dropped in shed],
        )

    def pins_shed(self, shed: Sequence[Backup]) -> None:
        """Report which pinned backups were removed to make room (V11)."""
        documents = list(dict.fromkeys(dropped.document for dropped in shed))
        self._report(
            IncidentKind.PINS_SHED,
            f"The volume is nearly full, so pinned backups of {', '.join(documents)} made room.",
            documents=list(documents),
            backups=[dropped.name for dropped in shed],
        )

    def edited(self, name: str, now: datetime, *, is_open: bool) -> None:
        """Count a commit that met a file which another program wrote; report EDITS_MANY a minute.

        A single edit is a person's. A program that writes again and again undoes Seline's changes.
        One that has the file open (`is_open`) writes from now on to a file without a name.
        """
        if is_open:
            summary = (
                f"Another program has {name} open for writing while a change replaced it: what it "
                "writes there from now on is lost, until it opens the file again."
            )
            _log.warning("%s", summary)
            self.report(_another_writer(name, now, summary, is_open=True))
        recent = self._edited.setdefault(name, deque(maxlen=EDITS_MANY))
        recent.append(now)
        if len(recent) == EDITS_MANY and timedelta(0) <= now - recent[0] <= EDITS_WITHIN:
            recent.clear()
            summary = (
                f"Another program writes {name}: it was changed outside Seline {EDITS_MANY} times "
                "within a minute."
            )
            self.report(_another_writer(name, now, summary, often=True))

    def repaired(self, publish: Publish, now: datetime, *, is_lossy: bool, aside: str = "") -> bool:
        """Report a recovery or an adopted edit; return whether it was a recovery.

        A purge keeps nothing to look at, so it is only logged.
        `aside` names the file in quarantine, if it is an edit that is not JSON.
        """
        if publish.purge:
            if publish.found.broken:
                reason = publish.found.judged.reason
                _log.warning("%s was purged while it was broken (%s)", publish.key.name, reason)
            return False
        incident = _repaired(publish, now, aside, is_lossy=is_lossy)
        _log.warning("%s", incident.summary)
        self.report(incident)
        return incident.kind is IncidentKind.RECOVERED

    def removed(self, found: Found, newest: Sequence[Backup], now: datetime) -> None:
        """Report that another program removed a document; `newest` holds its newest backup."""
        incident = _removed(found, newest, now)
        _log.warning("%s", incident.summary)
        self.report(incident)

    def recovered_before(self, recovery: Recovery) -> None:
        """Report a recovery of an earlier process, which may have ended before it could."""
        self.report(_recovered(recovery))

    def _report(self, kind: IncidentKind, summary: str, **details: Json) -> Incident:
        """Report what concerns no single document."""
        now = self._clock.now()
        incident = Incident(kind=kind, document="", at=now, summary=summary, details=details)
        self.report(incident)
        return incident


def _another_writer(name: str, now: datetime, summary: str, **details: Json) -> Incident:
    return Incident(
        kind=IncidentKind.ANOTHER_WRITER, document=name, at=now, summary=summary, details=details
    )


def _repaired(publish: Publish, now: datetime, aside: str, *, is_lossy: bool) -> Incident:
    found, name = publish.found, publish.key.name
    incident = partial(Incident, document=name, at=now)
    if not found.broken:
        how = "as it is" if found.judged.original is None else "and its bytes are in quarantine"
        return incident(
            kind=IncidentKind.ADOPTED, summary=f"{name} was adopted {how}: {found.judged.reason}."
        )
    if found.content is None or publish.content is None:
        return incident(
            kind=IncidentKind.SET_ASIDE,
            summary=f"{name} was given up ({found.judged.reason}); its bytes are in quarantine.",
        )
    return _recovered(
        Recovery(
            key=found.key,
            at=now,
            judged=found.judged,
            source=found.source,
            is_lossy=is_lossy,
            aside=aside if found.is_bad_edit else "",
        )
    )


def _removed(found: Found, newest: Sequence[Backup], now: datetime) -> Incident:
    """Return the incident of a removal.

    The newest backup has the content that memory held, else one from before the last change.
    """
    name, kept = found.key.name, found.replaced is not None
    summary = f"{name} was removed by another program or by hand"
    lost, details = "", dict[str, Json]()
    if not newest:
        lost = "the document"
        summary += (
            "; it has no backup. An export may have it: "
            f"`seline import EXPORT --only {name}` brings it back."
        )
    else:
        backup = newest[0]
        details |= {"backup": backup.name, "kept": kept, "older": not kept}
        lost = "" if kept else f"changes after {backup.taken_at:%Y-%m-%d %H:%M:%S} UTC"
        what = "its last content is kept as"
        if lost:
            what = f"its last content was not in memory; lost: {lost}; what came before is"
        summary += (
            f"; {what} backup {backup.name}: `seline restore {name} {backup.name}` brings it back."
        )
    return Incident(
        kind=IncidentKind.REMOVED, document=name, at=now, summary=summary, lost=lost,
        details=details,
    )  # fmt: skip


def _recovered(recovery: Recovery) -> Incident:
    """Return the incident of a recovery; without a backup it came from memory."""
    name, judged, source, aside = (
        recovery.key.name, recovery.judged, recovery.source, recovery.aside,
    )  # fmt: skip
    lost = ""
    if source and recovery.is_lossy:
        lost = f"changes after {source.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    origin = f"backup {source.name}" if source else "memory"
    outcome = f"It was recovered from {origin}; {f'lost: {lost}' if lost else 'nothing is lost'}."
    details: dict[str, Json] = {"verdict": str(judged.verdict), "source": origin}
    summary = (
        f"{name} was {judged.verdict} ({judged.reason}). {outcome} The broken bytes are in "
        "quarantine."
    )
    if aside:
        details |= {"verdict": "not_json", "flaw": judged.reason, "item": aside}
        summary = (
            f"{name} was changed outside Seline, and is not JSON ({judged.reason}). "
            f"{outcome} The edit is in quarantine: `seline quarantine {aside} > edit_{aside}` "
            f"writes it to a file; correct that, then `seline save {name} edit_{aside}`."
        )
    return Incident(
        kind=IncidentKind.RECOVERED,
        document=name,
        at=recovery.at,
        summary=summary,
        lost=lost,
        details=details,
    )
