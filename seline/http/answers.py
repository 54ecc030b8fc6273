"""The JSON of requests and answers: what the handlers take and return, and OpenAPI describes.

An answer of `done` has the fields of a value of the domain after `"success": true`. The bodies of
requests are structs: the fields that a route takes, all of them text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

from msgspec import Struct

from seline.access.audit import AuditEntry
from seline.domain.alerts.lifecycle import AlertType, Severity
from seline.domain.copy import CopyInfo
from seline.domain.destination import Mode
from seline.domain.difference import ChangeKind
from seline.domain.document import DocumentInfo
from seline.domain.job import RunOutcome
from seline.domain.left_out import LeftOut
from seline.domain.readable_export import ImportReport
from seline.domain.report import Deleted, Finding, KeptIn, Pruned
from seline.operations.difference import ComparedContent
from seline.ports.alerts import Delivery, SinkStatus
from seline.ports.medium import QuarantineItem

# bodies


class RestoreBody(Struct, forbid_unknown_fields=True):
    """The document to restore, and the backup; the newest sound one that differs without it.

    `path`: a JSON Pointer to the only value that is restored.
    """

    filename: str
    backup: str | None = None
    path: str = ""


class PinBody(Struct, forbid_unknown_fields=True):
    """Why a backup is kept."""

    because: str | None = None


class IdentityBody(Struct, forbid_unknown_fields=True):
    """The key of an encrypted copy, for this request only."""

    identity: str


class TokenBody(Struct, forbid_unknown_fields=True):
    """The token to make."""

    scope: str = "admin"
    label: str = ""
    expires_at: str | None = None


# answers


class UndoStep(TypedDict):
    """A request that takes back what was done, with its headers and its body (null: none).

    `command` does the same on the command line.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, str] | None
    command: str


class Live(TypedDict):
    """The event loop runs."""

    status: Literal["ok"]


class ReadyCheck(TypedDict):
    """What readiness depends on: `ok`, `closed`, or the code of an error."""

    name: str
    status: str


class Ready(TypedDict):
    """Whether the volume is held and open; with reasons if they are asked for."""

    status: Literal["ok", "unavailable"]
    checks: NotRequired[list[ReadyCheck]]


class DocumentInfos(TypedDict):
    """The documents, by name."""

    documents: Sequence[DocumentInfo]


class Saved(TypedDict):
    """A document was saved."""

    success: bool
    name: str
    revision: str
    created: bool
    undo: list[UndoStep]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedAnswer(Deleted):
    """What a delete did, or would do."""

    undo: list[UndoStep]


class BackupShown(TypedDict):
    """A backup of a document."""

    name: str
    document: str
    taken_at: datetime
    size_bytes: int
    sha256: str | None
    verdict: str
    pinned: bool
    because: str


class BackupList(TypedDict):
    """A document's backups, newest first."""

    backups: list[BackupShown]


class Pinning(TypedDict):
    """Whether a backup is pinned now."""

    success: bool
    document: str
    backup: str
    pinned: bool
    undo: list[UndoStep]


class ChangeShown(TypedDict):
    """A changed value: its JSON Pointer, and the value before and after."""

    path: str
    kind: ChangeKind
    before: Any
    after: Any
    shortened: list[str]


class DifferenceShown(TypedDict):
    """What differs, and how many values."""

    changes: list[ChangeShown]
    added: int
    removed: int
    changed: int
    truncated: bool
    patch: list[Mapping[str, Any]] | None


DifferenceAnswer = TypedDict(
    "DifferenceAnswer",
    {
        "document": str,
        "from": ComparedContent,
        "to": ComparedContent,
        "changes": list[ChangeShown],
        "added": int,
        "removed": int,
        "changed": int,
        "truncated": bool,
        "patch": list[Mapping[str, Any]] | None,
    },
)
"""What makes the content `to` of the content `from`; `patch` has operations of RFC 6902."""


class RestoredFrom(TypedDict):
    """The document, the backup whose content it has now, and the path of the value restored."""

    document: str
    backup: str
    taken_at: datetime
    path: str


class RestoreAnswer(TypedDict):
    """What a restore did, or would do."""

    success: bool
    message: str
    restored: RestoredFrom
    kept_in: KeptIn
    dry_run: bool
    difference: DifferenceShown | None
    undo: list[UndoStep]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported(ImportReport):
    """What an import did, or would do. `foreign`: the export is of another volume."""

    foreign: bool
    undo: list[UndoStep]


class VerifyAnswer(TypedDict):
    """What verify read and found."""

    success: bool
    damage: bool
    started_at: datetime
    ended_at: datetime
    documents: int
    backups: int
    bytes_read: int
    findings: Sequence[Finding]
    left_out: Sequence[LeftOut]
    left_out_count: int


class PruneAnswer(TypedDict):
    """The backups that were removed, or would be."""

    success: bool
    dry_run: bool
    pruned: Sequence[Pruned]
    freed_bytes: int


class QuarantineList(TypedDict):
    """The quarantined files, newest first."""

    quarantine: Sequence[QuarantineItem]


class ExportedData(TypedDict):
    """Every document of one instant by name; those that are broken are named apart."""

    exported_at: str
    files: Mapping[str, Any]
    from_backups: NotRequired[Mapping[str, str]]
    unrecoverable: NotRequired[list[str]]


class Exported(TypedDict):
    """The readable export."""

    success: bool
    data: ExportedData


class RunShown(TypedDict):
    """A run of a job. `outcome` is null while it runs."""

    id: str
    started_at: datetime
    ended_at: datetime | None
    outcome: RunOutcome | None
    detail: str


class JobShown(TypedDict):
    """A job, its next run and its last one."""

    name: str
    schedule: str
    enabled: bool
    next_run: datetime | None
    running: bool
    last: RunShown | None
    last_success: datetime | None


class JobList(TypedDict):
    """Every job."""

    jobs: list[JobShown]


class JobStarted(TypedDict):
    """A run that was started, or was in progress already."""

    job: str
    run: str
    url: str


class RunList(TypedDict):
    """A job's runs, newest first."""

    job: str
    runs: list[RunShown]


class DestinationShown(TypedDict):
    """What is known of a destination."""

    name: str
    where: str
    keep: int
    same_disk: bool
    mode: str
    marker: str
    on_data_disk: bool
    whole_at: datetime | None
    failed_at: datetime | None
    failure: str
    lacking: Sequence[str]
    mirrored_at: datetime | None
    mirrored_since: datetime | None
    sequence: int
    mirror_failed_at: datetime | None
    mirror_failure: str
    mirror_lacking: Sequence[str]
    mirror_older: Sequence[str]
    checked_at: datetime | None
    proven_at: datetime | None
    proven_by: str
    not_restored: str
    drill_failure: str


class DestinationList(TypedDict):
    """Every configured destination."""

    destinations: list[DestinationShown]


class CopyList(TypedDict):
    """The copies at a destination, newest first."""

    destination: str
    copies: Sequence[CopyInfo]


class DestinationAccepted(TypedDict):
    """The destination whose copy of this volume is the one to restore now."""

    success: bool
    name: str


class DestinationUsed(DestinationAccepted):
    """The destination in use again; `has_copy`: a copy of this volume is known to be there."""

    marker: str
    on_data_disk: bool
    mode: Mode
    has_copy: bool


class CopyRestored(TypedDict):
    """What the restore of a copy did, or would do."""

    success: bool
    copy: str
    taken_at: datetime
    volume: str
    foreign: bool
    created: Sequence[str]
    changed: Sequence[str]
    unchanged: Sequence[str]
    deleted: Sequence[str]
    dry_run: bool
    backups: int
    pins: int
    passed_over: Sequence[str]
    purged: Sequence[str]
    undo: list[UndoStep]


class AlertShown(TypedDict):
    """An alert. `document` is there only if it is about one."""

    id: str
    type: AlertType
    severity: Severity
    state: Literal["open", "resolved"]
    document: NotRequired[str]
    summary: str
    details: Mapping[str, Any]
    fix: str
    first_at: datetime
    last_at: datetime
    count: int


class AlertList(TypedDict):
    """The alerts, the open ones first, and the sinks. `sending`: whether any alert is sent."""

    alerts: list[AlertShown]
    sinks: Sequence[SinkStatus]
    sending: bool


class AuditList(TypedDict):
    """Entries of the audit log, newest first; `next` is the `before` of the following page."""

    entries: Sequence[AuditEntry]
    next: str | None
    damaged: int


class Deliveries(TypedDict):
    """The outcome of a test alert at each sink."""

    deliveries: Sequence[Delivery]
