"""Verdicts: how bytes are judged, and what each verdict allows."""

import pytest

from seline.domain.checksum import (
    ATTRIBUTE_BYTES_MAX,
    checksum_of,
    decode_checksum,
    encode_checksum,
)
from seline.domain.document import BOT, Content, DocumentKey
from seline.domain.verdict import (
    AS_SAVED,
    COUNTED,
    DAMAGED,
    FOREIGN,
    UNCHECKED,
    USABLE,
    Judged,
    Verdict,
    backup_word,
    judge,
    usable_as_backup,
)
from seline.errors import UnsupportedFormat

KEY = DocumentKey(BOT, "user_profile.json")
OTHER = DocumentKey(BOT, "user.json")
SAVED = Content.of(b'{"n": 1}\n')
MTIME_NS = 1_736_174_622_000_000_001
AS_LEFT, TOUCHED = MTIME_NS, MTIME_NS + 1


@pytest.mark.parametrize(
    ("data", "mtime_ns", "settled", "verdict"),
    [
        (SAVED.data, AS_LEFT, False, Verdict.SOUND),
        (SAVED.data, TOUCHED, False, Verdict.SOUND),
        (b'{"n": 2}\n', AS_LEFT, False, Verdict.ALTERED),
        (b'{"n": 2}\n', TOUCHED, False, Verdict.EDITED),
        (b'{"n": 1]\n', AS_LEFT, False, Verdict.TORN),
        (b'{"n": 1]\n', TOUCHED, False, Verdict.UNSETTLED),
        (b'{"n": 1]\n', TOUCHED, True, Verdict.TORN),
    ],
)
def test_the_verdict_follows_from_bytes_mtime_and_settled(
    data: bytes, mtime_ns: int, settled: bool, verdict: Verdict
) -> None:
    judged = judge(
        KEY, Content.of(data), checksum_of(KEY, SAVED, MTIME_NS), mtime_ns=mtime_ns, settled=settled
    )
    assert judged.verdict is verdict


@pytest.mark.parametrize(("data", "at_rest"), [(b"", Verdict.TORN), (b"12", Verdict.ALTERED)])
def test_a_file_that_shrank_is_unsettled_until_it_settles(data: bytes, at_rest: Verdict) -> None:
    """File systems show the new size before the new mtime."""
    recorded = checksum_of(KEY, SAVED, MTIME_NS)

    def verdict(*, settled: bool) -> Verdict:
        return judge(KEY, Content.of(data), recorded, mtime_ns=MTIME_NS, settled=settled).verdict

    assert verdict(settled=False) is Verdict.UNSETTLED
    assert verdict(settled=True) is at_rest


def test_a_file_written_for_another_document_counts_as_edited() -> None:
    recorded = checksum_of(OTHER, SAVED, MTIME_NS)
    assert judge(KEY, SAVED, recorded, mtime_ns=MTIME_NS, settled=True).verdict is Verdict.EDITED


def test_the_attribute_is_small_and_round_trips() -> None:
    checksum = checksum_of(KEY, SAVED, MTIME_NS)
    attribute = encode_checksum(checksum)
    assert len(attribute) <= ATTRIBUTE_BYTES_MAX
    assert decode_checksum(attribute) == checksum
    assert decode_checksum(b"\x01 of another program") is None
    with pytest.raises(UnsupportedFormat):
        decode_checksum(b"\x02" + attribute[1:])


def test_what_may_be_served_or_is_as_saved_is_not_damaged() -> None:
    assert set(Verdict) - DAMAGED == USABLE | AS_SAVED
    assert {Verdict.UNSETTLED, Verdict.TORN, Verdict.ALTERED, Verdict.UNREADABLE} == DAMAGED


def test_retention_counts_sound_and_unchecked_backups_only() -> None:
    assert {Verdict.SOUND, UNCHECKED} == COUNTED


@pytest.mark.parametrize(
    ("judged", "usable", "word"),
    [
        (Judged(Verdict.SOUND, SAVED, checksum_of(KEY, SAVED, MTIME_NS)), True, Verdict.SOUND),
        (Judged(Verdict.EDITED, SAVED, checksum_of(KEY, SAVED, MTIME_NS)), True, Verdict.EDITED),
        (Judged(Verdict.EDITED, SAVED), True, UNCHECKED),
        (Judged(Verdict.EDITED, SAVED, checksum_of(OTHER, SAVED, MTIME_NS)), False, FOREIGN),
        (Judged(Verdict.TORN, SAVED), False, Verdict.TORN),
        (Judged(Verdict.UNREADABLE), False, Verdict.UNREADABLE),
    ],
)
def test_which_backups_may_be_restored(judged: Judged, usable: bool, word: str) -> None:
    assert usable_as_backup(KEY, judged) is usable
    assert backup_word(KEY, judged) == word
