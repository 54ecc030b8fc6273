"""The jobs table: a row is a name and a thin function over the custody services (SPEC §7).

When each runs, and for how long at most, is a setting (`jobs.<name>`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from seline.domain.plural import counted
from seline.domain.report import Finding
from seline.operations.custody import Custody

NAMED_MAX: Final = 3
Work: TypeAlias = Callable[[Custody], Awaitable[str]]
"""Does the job and returns one line on what was done; raises what made it fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A job; `catch_up` runs it at start if a run was missed meanwhile."""

    name: str
    work: Work
    catch_up: bool = True


async def integrity(custody: Custody) -> str:
    """Check what changed, everything once a day; recover and report."""
    report = await custody.check_integrity()
    found = _found(report.findings)
    documents, backups = counted(report.documents, "document"), counted(report.backups, "backup")
    return f"{documents} and {backups} checked{found}"


def _found(findings: Sequence[Finding]) -> str:
    """Say of the first findings what became of each."""
    if not findings:
        return ""
    named = [f"{one.backup or one.document} {one.outcome}" for one in findings[:NAMED_MAX]]
    more = len(findings) - len(named)
    others = f" and {more:,} more" if more else ""
    return f"; {len(findings):,} found: {', '.join(named)}{others}"


async def rotation(custody: Custody) -> str:
    """Let go of what the policy drops, everywhere."""
    report = await custody.rotate()
    backups, freed = counted(report.backups, "backup"), counted(report.freed_bytes, "byte")
    return f"{backups} dropped, {freed} freed"


async def usage(custody: Custody) -> str:
    """Measure the volume and its growth."""
    report = await custody.measure()
    return f"{report.usage_ratio:.1%} used"


async def export(custody: Custody) -> str:
    """Write one verified export to each destination."""
    return await custody.export()


JOBS: Final[Mapping[str, Row]] = {
    row.name: row
    for row in (
        Row(name="integrity", work=integrity),
        Row(name="rotation", work=rotation),
        Row(name="usage", work=usage),
        Row(name="export", work=export),
    )
}
