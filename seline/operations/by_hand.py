"""A restore by hand: if the copy is damaged, the error names another one, which is whole."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from seline.clock import instant_text
from seline.domain.copy import Copy, CopyInfo
from seline.domain.document import Revision
from seline.domain.mirror import contents_of_documents
from seline.domain.readable_export import only_named
from seline.errors import CopyNotEncrypted, ExportDamaged, ImportRefused, SelineError
from seline.operations.copies import Copies
from seline.operations.restore import fetched
from seline.ports.destinations import ObjectMissing, ObjectTooLarge

TRIED_MAX: Final = 10
"""Older copies that are read to find one that is whole."""
T = TypeVar("T")


async def restore_by_hand(
    copies: Copies,
    others: Sequence[Copies],
    restore: Callable[[Copy], Awaitable[T]],
    *,
    at: datetime | None = None,
    volume: str = "",
    only: Collection[str] = (),
) -> tuple[Copy, T]:
    """Find a copy as `Copies.find` does, and restore it; return both.

    Raises what these raise. The next step of ExportDamaged is an older copy or one of `others`,
    which was read back whole; CopyNotEncrypted keeps its own.
    """
    broken: set[Revision] = set()
    copy: Copy | None = None
    try:
        copy = _noting(await copies.find(at=at, volume=volume), broken)
        return copy, await restore(copy)
    except CopyNotEncrypted:
        raise
    except (ExportDamaged, ObjectMissing) as error:
        hint = await _next_step(error, copies, others, copy, broken, only)
        raise ExportDamaged(error.message, hint=hint) from error


def _noting(copy: Copy, broken: set[Revision]) -> Copy:
    """Return a copy that notes the contents that are damaged."""

    async def fetch(digest: Revision) -> bytes:
        try:
            return await copy.fetch(digest)
        except (ExportDamaged, ObjectMissing):
            broken.add(digest)
            raise

    return replace(copy, fetch=fetch)


async def _next_step(
    error: ExportDamaged | ObjectMissing,
    copies: Copies,
    others: Sequence[Copies],
    damaged: Copy | None,
    broken: set[Revision],
    only: Collection[str],
) -> str:
    """Return the next step: the newest older copy that is whole, or another destination."""
    name = copies.destination.name
    if older := await _older_whole(copies, damaged, broken, only):
        hint = f"Repeat it with `--at {older}` (over HTTP `at={older}`): that copy is whole."
    elif other := await _other_whole(others, damaged, only):
        hint = f"Use the copy at {other}: `seline exports restore {other}`, with your options."
    elif isinstance(error, ObjectTooLarge):
        hint = error.hint
    else:
        hint = f"Restore what is whole, one by one: `seline exports restore {name} --only NAME`."
    return hint


async def _older_whole(
    copies: Copies, damaged: Copy | None, broken: set[Revision], only: Collection[str]
) -> str:
    """Return the instant of the newest copy before a damaged one that is whole, empty if none."""
    older = await _older(copies, damaged) if damaged is not None else []
    for info in older[:TRIED_MAX]:
        if await _is_whole(copies, info, broken, only):
            return instant_text(info.taken_at)
    return ""


async def _other_whole(
    others: Sequence[Copies], damaged: Copy | None, only: Collection[str]
) -> str:
    """Return the first other destination whose newest copy is whole, empty if none."""
    for other in others:
        if await _is_newest_whole(other, damaged, only):
            return other.destination.name
    return ""


async def _older(copies: Copies, damaged: Copy) -> list[CopyInfo]:
    """Return the copies before a damaged one that `--at` with their instant selects."""
    usable = await copies.usable(at=damaged.taken_at, volume=damaged.volume)
    return [
        info
        for info in usable
        if info.name != damaged.name
        and not info.doubt
        and info is next(other for other in usable if other.taken_at <= info.taken_at)
    ]


async def _is_newest_whole(copies: Copies, damaged: Copy | None, only: Collection[str]) -> bool:
    """Whether the copy that a restore takes at another destination is whole, and of the volume."""
    try:
        copy = await copies.find()
        is_same = damaged is None or copy.volume == damaged.volume
        return is_same and await _reads_whole(copy, only)
    except SelineError:
        return False


async def _is_whole(
    copies: Copies, info: CopyInfo, broken: set[Revision], only: Collection[str]
) -> bool:
    """Whether everything that is chosen of a copy can be read."""
    try:
        return await _reads_whole(_noting(await copies.open(info), broken), only, broken)
    except (ExportDamaged, ObjectMissing, ImportRefused):
        return False


async def _reads_whole(
    copy: Copy, only: Collection[str], broken: AbstractSet[Revision] = frozenset()
) -> bool:
    """Whether the chosen documents of a copy have no content of `broken`, and can all be read.

    Raises ExportDamaged for a content that cannot, and what `fetch` and `only_named` raise.
    """
    listed = {document.name: document for document in copy.documents}
    chosen = only_named(listed, only, replace=False, of="copy").values()
    if broken & contents_of_documents(chosen):
        return False
    files = [entry for document in chosen for entry in (document, *document.backups)]
    async with aclosing(fetched(copy, [entry for entry in files if entry.sha256])) as batches:
        async for _ in batches:
            pass
    return True
