"""When a copy is in doubt: it lost over half of what those of the last two days had.

A restore does not take such a copy by itself, and it displaces no other one until a person accepts
the loss. Copies in doubt are left out of the sizes, so they do not become the measure.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from seline.domain.stored import Stored

SMALL_BYTES: Final = 16 << 10
"""Of a volume that is smaller, a loss of half the bytes is no sign of a loss."""
_DAY: Final = timedelta(days=1)


class DaySize(Stored, frozen=True, kw_only=True):
    """The most documents and bytes that copies not in doubt had within a day from `since`.

    A day without a copy does not count, so the last two cover at least the last day.
    """

    since: datetime
    documents: int
    size_bytes: int


def doubt_about(documents: int, size_bytes: int, largest: Sequence[DaySize]) -> str:
    """Return why a copy may be an accident: it has under half of what the last two days had."""
    most = max((day.documents for day in largest), default=0)
    most_bytes = max((day.size_bytes for day in largest), default=0)
    if documents * 2 < most:
        return f"it has {documents} of {most} documents"
    if most_bytes >= SMALL_BYTES and size_bytes * 2 < most_bytes:
        return f"it has {size_bytes:,} of {most_bytes:,} bytes"
    return ""


def with_copy(
    largest: Sequence[DaySize], taken_at: datetime, documents: int, size_bytes: int
) -> tuple[DaySize, ...]:
    """Return the sizes of the last two days, the last first, with those of a copy."""
    is_same_day = bool(largest) and timedelta(0) <= taken_at - largest[0].since < _DAY
    if not is_same_day:
        new = DaySize(since=taken_at, documents=documents, size_bytes=size_bytes)
        return (new, *largest[:1])
    day = largest[0]
    larger = DaySize(
        since=day.since,
        documents=max(day.documents, documents),
        size_bytes=max(day.size_bytes, size_bytes),
    )
    return (larger, *largest[1:])


def size_of_last_days(sizes: Iterable[DaySize]) -> tuple[DaySize, ...]:
    """Return the most that the copies of several destinations had within two days, if any did.

    A destination without sizes is compared with that.
    """
    newest_first = sorted(sizes, key=lambda day: day.since, reverse=True)
    recent = [day for day in newest_first if newest_first[0].since - day.since <= 2 * _DAY]
    return tuple(
        DaySize(
            since=day.since,
            documents=max(each.documents for each in recent),
            size_bytes=max(each.size_bytes for each in recent),
        )
        for day in recent[:1]
    )
