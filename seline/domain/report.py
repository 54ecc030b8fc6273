"""The results of the operator's commands, as frozen values that every interface renders."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from seline.domain.document import Revision
from seline.domain.left_out import LeftOut
from seline.domain.purged import HeldCopy

KeptIn: TypeAlias = Literal["backups", "quarantine", "nowhere"]
"""Where the content that a change replaced or removed is kept; nowhere if it was erased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The result of a restore, or of its preview.

    `undo` names the backup of the content that was replaced. It is None in a preview, if the
    document did not exist, and if its content was broken.
    """

    document: str
    backup: str
    taken_at: datetime
    revision: Revision
    undo: str | None
    kept_in: KeptIn
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """The result of a delete, or of its preview.

    `backup` has the last content; None in a preview, and if it was purged or broken. `copies` are
    those at destinations that may still hold what was purged.
    """

    document: str
    backup: str | None
    purged: bool
    kept_in: KeptIn
    dry_run: bool
    copies: tuple[HeldCopy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The result of a reset, or of its preview. `quarantined`: the broken bytes are kept."""

    document: str
    quarantined: bool
    dry_run: bool


class FindingOutcome(StrEnum):
    """What verify did with a document or backup that it did not find sound."""

    RECOVERED = "recovered"
    ADOPTED = "adopted"
    UNSETTLED = "unsettled"
    UNWRITTEN = "unwritten"
    """It is served, but the disk refused its recovery or adoption."""
    UNRECOVERABLE = "unrecoverable"
    UNREADABLE = "unreadable"
    FAILED = "failed"
    MARKED = "marked"
    """It is a broken backup, which is not counted any more."""


UNSERVED: Final = frozenset(
    {FindingOutcome.UNRECOVERABLE, FindingOutcome.UNREADABLE, FindingOutcome.FAILED}
)
"""The outcomes that leave a document that cannot be served."""
HARMLESS: Final = frozenset({FindingOutcome.ADOPTED, FindingOutcome.UNSETTLED})
"""The outcomes of files that are not broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One document or backup that verify did not find sound.

    `backup` is None if the document itself is meant. `verdict` is the text of a `Verdict`. `lost`
    describes what was lost, empty if nothing. `found_at` is when it was first found: a later report
    copies it.
    """

    document: str
    backup: str | None
    verdict: str
    outcome: FindingOutcome
    detail: str
    found_at: datetime
    lost: str = ""

    @property
    def is_unserved(self) -> bool:
        """Whether it is a document that cannot be served."""
        return self.backup is None and self.outcome in UNSERVED


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The result of verify: what it read, what was not sound, and what Seline does not keep."""

    started_at: datetime
    ended_at: datetime
    documents: int
    backups: int
    bytes_read: int
    findings: tuple[Finding, ...]
    left_out: tuple[LeftOut, ...] = ()
    """What the data directory holds besides; the first LEFT_OUT_SHOWN_MAX."""
    left_out_count: int = 0

    @property
    def damage(self) -> bool:
        """Whether anything was broken. An adopted hand edit does not count."""
        return any(found.outcome not in HARMLESS for found in self.findings)


class Status(StrEnum):
    """The result of a health check. `info`: not configured, or not due yet."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One health check: its name, its status, the detail, and how to fix it."""

    name: str
    status: Status
    detail: str
    fix: str = ""


def nothing_runs(status: Status = Status.INFO, *, is_held: bool) -> tuple[Status, str, str]:
    """Return the status, the detail and the fix where no job runs by itself and no alert is sent.

    `is_held`: a program has opened the store with `open_seline`; else only this command has.
    """
    detail = "no job runs by itself and no alert is sent"
    if not is_held:
        fix = "Start the bot, or run `seline serve`."
        return status, f"no process serves these documents now, so {detail}", fix
    fix = (
        "In a bot use `serving(http=False)` of `seline.server` in place of `open_seline` "
        "(docs/bots.md); without a bot run `seline serve`."
    )
    return status, f"{detail}: the documents are open without a server", fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """One backup that prune removed, or would remove in a dry run."""

    document: str
    backup: str
    because: str
    size_bytes: int
