"""A copy of a whole volume at one instant, wherever it is kept."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any, Final

from seline.domain.backup import parse_backup_name
from seline.domain.document import Revision, is_document_name
from seline.domain.manifest import PackedDocument
from seline.domain.pins import Pin
from seline.domain.plural import counted, shortened
from seline.errors import ExportDamaged

MIRROR: Final = "mirror"
EXPORT: Final = "export"
NUMBER_MAX: Final = 10**12
"""No copy has a higher number, and the number of a restored one leaves room for later copies."""
STILL_COPYING: Final = "still copying"
"""What a run of the mirror says of a copy that goes on in the process after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy that a restore can take.

    The digest of a deleted document is empty; its backups are listed. `volume` is the id of the
    volume that made the copy, `sequence` the number of the copy, `destination` the name of where it
    is. `lacking` are the documents that could not be read for it, `older` those that could not and
    have an older content. `passed_over` tells why newer copies were not taken. The names are those
    of documents and backups. `fetch` returns a content by its digest, compared with it; it raises
    ExportFailed, ExportDamaged and KeyMissing.
    """

    name: str
    taken_at: datetime
    volume: str
    sequence: int = 0
    destination: str = ""
    documents: tuple[PackedDocument, ...]
    pins: tuple[Pin, ...] = ()
    lacking: tuple[str, ...] = ()
    older: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    fetch: Callable[[Revision], Coroutine[Any, Any, bytes]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyInfo:
    """A copy as it is listed.

    `kind` is `mirror` or `export`. Of two copies of a volume at one destination the later one has
    the higher `sequence`. `documents` and `size_bytes` are None where only a key shows them, or
    the copy is damaged. `doubt` is why a restore does not take it by itself, empty if it does.
    `lacking` are the documents that could not be read for it; where a copy is encrypted it has a
    key for each.
    """

    name: str
    kind: str
    volume: str
    taken_at: datetime
    sequence: int = 0
    documents: int | None = None
    size_bytes: int | None = None
    doubt: str = ""
    lacking: tuple[str, ...] = ()
    proven_at: datetime | None = None
    proven_by: str = ""


def last_first(copies: Iterable[CopyInfo]) -> list[CopyInfo]:
    """Return the copies in the order in which they were made, under any clock, the last first."""
    return sorted(copies, key=lambda info: (info.sequence, *age_order(info)), reverse=True)


def age_order(info: CopyInfo) -> tuple[datetime, bool, str]:
    """Return the key that sorts copies; of one second, that of the mirror has more."""
    return info.taken_at, info.kind == MIRROR, info.name


def last_in_doubt(heads: Iterable[CopyInfo]) -> list[CopyInfo]:
    """Return, of each volume's mirror, the last copies if they are in doubt."""
    found: list[CopyInfo] = []
    ordered = last_first(heads)
    for volume in {info.volume for info in ordered}:
        own = (info for info in ordered if info.volume == volume)
        found += takewhile(lambda info: info.doubt, own)
    return found


def is_made_in_doubt(info: CopyInfo, in_doubt: Iterable[CopyInfo], *, here: bool) -> bool:
    """Whether a copy is an export that was made while the mirror of its volume was in doubt.

    `in_doubt` are the last copies of a mirror. `here`: it is at the destination of the export, so
    the numbers decide, under any clock; else the instants.
    """
    return info.kind == EXPORT and any(
        head.sequence < info.sequence if here else head.taken_at <= info.taken_at
        for head in in_doubt
        if head.volume == info.volume
    )


def lacking_text(lacking: Sequence[str], older: Sequence[str] = ()) -> str:
    """Return a clause about what could not be read for a copy, empty if there is nothing.

    Documents without a name are counted.
    """
    names = [name for name in lacking if is_document_name(name)]
    nameless = len(lacking) - len(names)
    found = [shortened(names)] if names else []
    found += [counted(nameless, "document")] if nameless else []
    clauses = [f"it lacks {' and '.join(found)}"] if found else []
    clauses += [f"it has an older content of {shortened(older)}"] if older else []
    return "; ".join(clauses)


def check_copy(copy: Copy) -> None:
    """Raise ExportDamaged for a number that no copy has, or a name that no document or backup has.

    Something else than Seline has written it. The volume would go on from such a number.
    """
    if copy.sequence > NUMBER_MAX:
        raise ExportDamaged(f"{copy.name} has the number {copy.sequence}, which no copy reaches.")
    for document in copy.documents:
        wrong = [] if is_document_name(document.name) else [document.name]
        for backup in document.backups:
            parsed = parse_backup_name(backup.name)
            if parsed is None or parsed[0] != document.name:
                wrong.append(backup.name)
        if wrong:
            raise ExportDamaged(f"{copy.name} names what no volume holds: {wrong[0]!r}.")
