"""What the operator's verbs answer: frozen values that every door renders the same way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from seline.domain.document import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A restore that was done. `undo` names the backup that takes it back, None if none was due.

    `undo` is None where the document did not exist, or where only broken bytes were replaced
    (those lie in quarantine).
    """

    document: str
    backup: str
    taken_at: datetime
    revision: Revision
    undo: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """A delete that was done; `backup` holds the last content (None when purged or broken)."""

    document: str
    backup: str | None
    purged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """A broken document that was given up; `quarantined` tells whether its bytes were kept."""

    document: str
    quarantined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One document or backup that verify did not find sound.

    `document` names it, `backup` the backup if it is one. `verdict` is the verdict's word;
    `outcome`: `recovered`, `adopted`, `unrecoverable`, `unreadable`, `unsettled`, `marked` (a
    broken backup). `lost` says in plain words what was lost, empty when nothing was. `found_at`
    stays when a later report takes the finding over from an earlier one.
    """

    document: str
    backup: str | None
    verdict: str
    outcome: str
    detail: str
    found_at: datetime
    lost: str = ""

    @property
    def is_unserved(self) -> bool:
        """Whether it is a document that cannot be served."""
        return self.backup is None and self.outcome in ("unrecoverable", "unreadable", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a pass over everything found."""

    started_at: datetime
    ended_at: datetime
    documents: int
    backups: int
    bytes_read: int
    findings: tuple[Finding, ...]

    @property
    def damage(self) -> bool:
        """Whether anything was broken; a hand edit that was adopted is none."""
        return any(found.outcome not in ("adopted", "unsettled") for found in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationReport:
    """What a rotation of everything discarded."""

    backups: int
    freed_bytes: int


class Status(StrEnum):
    """How a check stands; `info` for what is not configured or not yet due."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of health: what was looked at, how it stands, and what to do."""

    name: str
    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune dropped, or would drop: (document, backup, because, size_bytes)."""

    document: str
    backup: str
    because: str
    size_bytes: int
