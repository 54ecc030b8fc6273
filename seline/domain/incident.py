"""Incidents: what happened to a document or the volume, and what each kind means.

A kind has one row in `RULES`: how health shows it, which alert reports it, and the next step.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from seline.domain.alerts.lifecycle import AlertType
from seline.domain.document import Json
from seline.domain.report import Status

OF_A_KIND_MAX: Final = 200


class IncidentKind(StrEnum):
    """What happened."""

    RECOVERED = "recovered"
    UNRECOVERABLE = "unrecoverable"
    SERVED_FROM_MEMORY = "served_from_memory"
    BACKUP_DAMAGED = "backup_damaged"
    DISK_ERROR = "disk_error"
    ACCESS_REFUSED = "access_refused"
    JOURNAL_BROKEN = "journal_broken"
    BLANK_SAVE = "blank_save"
    BLANK_SAVE_UNPINNED = "blank_save_unpinned"
    PINS_SHED = "pins_shed"
    STATE_RESET = "state_reset"
    STATE_UNREADABLE = "state_unreadable"
    STATE_NOT_KEPT = "state_not_kept"
    REMOVED = "removed"
    ADOPTED = "adopted"
    NOT_ADOPTED = "not_adopted"
    ANOTHER_WRITER = "another_writer"
    EDITED_MEANWHILE = "edited_meanwhile"
    SET_ASIDE = "set_aside"
    REMADE = "remade"
    SHED = "shed"
    NO_ROOM = "no_room"
    FOREIGN_METADATA = "foreign_metadata"
    VOLUME_RESTORED = "volume_restored"
    COPY_UNREADABLE = "copy_unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRule:
    """What a kind of incident means.

    `alert` is None if a person caused the incident, or if another alert reports it. `unserved`:
    the document could not be served.
    """

    status: Status = Status.WARNING
    alert: AlertType | None = None
    fix: str = ""
    unserved: bool = False


_LOOK: Final = "Look at what was set aside with `seline quarantine`."
RULES: Final[Mapping[IncidentKind, IncidentRule]] = {
    IncidentKind.RECOVERED: IncidentRule(alert=AlertType.RECOVERY, fix=_LOOK),
    IncidentKind.UNRECOVERABLE: IncidentRule(alert=AlertType.UNRECOVERABLE_DOCUMENT, unserved=True),
    IncidentKind.SERVED_FROM_MEMORY: IncidentRule(alert=AlertType.SERVED_FROM_MEMORY),
    IncidentKind.BACKUP_DAMAGED: IncidentRule(alert=AlertType.BACKUP_DAMAGED),
    IncidentKind.DISK_ERROR: IncidentRule(alert=AlertType.DISK_ERROR, unserved=True),
    IncidentKind.ACCESS_REFUSED: IncidentRule(alert=AlertType.ACCESS_REFUSED, unserved=True),
    IncidentKind.JOURNAL_BROKEN: IncidentRule(alert=AlertType.JOURNAL_DAMAGED, fix=_LOOK),
    IncidentKind.BLANK_SAVE: IncidentRule(),
    IncidentKind.BLANK_SAVE_UNPINNED: IncidentRule(alert=AlertType.BLANK_SAVE),
    IncidentKind.PINS_SHED: IncidentRule(alert=AlertType.PINS_SHED),
    IncidentKind.STATE_RESET: IncidentRule(fix=_LOOK),
    IncidentKind.STATE_UNREADABLE: IncidentRule(),
    IncidentKind.STATE_NOT_KEPT: IncidentRule(),
    IncidentKind.REMOVED: IncidentRule(alert=AlertType.DOCUMENT_REMOVED),
    IncidentKind.ADOPTED: IncidentRule(status=Status.INFO),
    IncidentKind.NOT_ADOPTED: IncidentRule(),
    IncidentKind.ANOTHER_WRITER: IncidentRule(alert=AlertType.ANOTHER_WRITER),
    IncidentKind.EDITED_MEANWHILE: IncidentRule(status=Status.INFO),
    IncidentKind.SET_ASIDE: IncidentRule(status=Status.INFO, fix=_LOOK),
    IncidentKind.REMADE: IncidentRule(),
    IncidentKind.SHED: IncidentRule(),
    IncidentKind.NO_ROOM: IncidentRule(),
    IncidentKind.FOREIGN_METADATA: IncidentRule(status=Status.INFO),
    IncidentKind.VOLUME_RESTORED: IncidentRule(status=Status.INFO, alert=AlertType.VOLUME_RESTORED),
    IncidentKind.COPY_UNREADABLE: IncidentRule(
        alert=AlertType.COPY_UNREADABLE,
        fix="If there is a copy, give the destination a key that may read in "
        "`exports.destinations`, and restart. Then run `seline exports restore NAME`.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One incident. `document` is empty if it concerns the volume.

    `lost` describes what was lost, empty if nothing. `details` go to the alert's texts.
    """

    kind: IncidentKind
    document: str
    at: datetime
    summary: str
    lost: str = ""
    details: dict[str, Json] = field(default_factory=dict[str, Json])

    @property
    def rule(self) -> IncidentRule:
        return RULES[self.kind]


def no_incidents() -> dict[IncidentKind, deque[Incident]]:
    """Return where incidents are kept: many of one kind push out none of another kind."""
    return {kind: deque(maxlen=OF_A_KIND_MAX) for kind in IncidentKind}


def oldest_first(kept: Mapping[IncidentKind, Iterable[Incident]]) -> list[Incident]:
    """Return the incidents that are kept."""
    found = (incident for of_a_kind in kept.values() for incident in tuple(of_a_kind))
    return sorted(found, key=lambda incident: incident.at)
