"""Builders and hypothesis strategies for the domain's values."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from seline.domain.backup import Backup, Stamp, backup_name
from seline.domain.document import Json

NOON = datetime(2025, 1, 6, 12, tzinfo=UTC)

texts = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = (
    st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
)
json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def a_backup(
    hours_ago: float = 0,
    *,
    document: str = "user_profile.json",
    counter: int = 0,
    size_bytes: int = 100,
    revision: str | None = None,
    verdict: str = "sound",
    pinned: bool = False,
    because: str = "",
) -> Backup:
    """Return a backup taken `hours_ago` hours before NOON."""
    stamp = Stamp((NOON - timedelta(hours=hours_ago)).replace(microsecond=0), counter)
    return Backup(
        name=backup_name(document, stamp),
        document=document,
        stamp=stamp,
        size_bytes=size_bytes,
        revision=revision,
        verdict=verdict,
        pinned=pinned,
        because=because,
    )


@st.composite
def backups_of_one(draw: st.DrawFn, document: str = "user_profile.json") -> list[Backup]:
    """Draw backups of one document with any order, age, size and verdict."""
    hours = draw(st.lists(st.integers(0, 2000), unique=True, max_size=12))
    return [
        a_backup(
            hours_ago,
            document=document,
            counter=draw(st.integers(0, 3)),
            size_bytes=draw(st.integers(0, 1000)),
            revision=draw(st.sampled_from((None, "a", "b", "c", "d", "e"))),
            verdict=draw(st.sampled_from(("sound", "unchecked", "torn", "altered", "edited"))),
            pinned=draw(st.booleans()),
        )
        for hours_ago in hours
    ]
