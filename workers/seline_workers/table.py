"""The table of jobs: each has a name and a thin function over the operations.

When each job runs, and for how long at most, is a setting (`jobs.<name>`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

from seline.domain.plural import counted
from seline.domain.report import Finding
from seline.operations import Operations

NAMED_MAX: Final = 3
Work: TypeAlias = Callable[[Operations], Awaitable[str]]
"""Does the job and returns one line on what was done; raises what made it fail."""


async def integrity(operations: Operations) -> str:
    """Verify what changed, everything once a day; recover and report."""
    report = await operations.verify(full=None)
    documents, backups = counted(report.documents, "document"), counted(report.backups, "backup")
    return f"{documents} and {backups} checked{_found(report.findings)}"


def _found(findings: Sequence[Finding]) -> str:
    """Name the first findings and their outcomes."""
    if not findings:
        return ""
    named = [f"{found.backup or found.document} {found.outcome}" for found in findings[:NAMED_MAX]]
    more = len(findings) - len(named)
    others = f" and {more:,} more" if more else ""
    return f"; {len(findings):,} found: {', '.join(named)}{others}"


async def rotation(operations: Operations) -> str:
    """Discard the backups that the retention policy drops."""
    pruned = await operations.prune()
    backups = counted(len(pruned), "backup")
    freed = counted(sum(dropped.size_bytes for dropped in pruned), "byte")
    return f"{backups} dropped, {freed} freed"


async def usage(operations: Operations) -> str:
    """Measure the volume and its growth."""
    report = await operations.usage.measure()
    return f"{report.usage.usage_ratio:.1%} used"


async def export(operations: Operations) -> str:
    """Write one verified export to each destination."""
    return await operations.exports.run()


async def mirror(operations: Operations) -> str:
    """Copy what changed to each destination that is mirrored; empty if nothing changed."""
    return await operations.mirrors.run()


async def drill(operations: Operations) -> str:
    """Restore the newest copy at each destination in scratch space, and compare everything."""
    return await operations.drill()


JOBS: Final[Mapping[str, Work]] = {
    "integrity": integrity,
    "rotation": rotation,
    "usage": usage,
    "export": export,
    "mirror": mirror,
    "drill": drill,
}
