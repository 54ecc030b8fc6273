"""Properties of document names, backup names and the checksum attribute."""

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seline.domain.backup import Stamp, backup_name, next_stamp, parse_backup_name
from seline.domain.checksum import (
    ATTRIBUTE_BYTES_MAX,
    checksum_of,
    decode_checksum,
    encode_checksum,
)
from seline.domain.document import (
    NAME_CHARACTERS_MAX,
    Content,
    DocumentKey,
    check_document_name,
    is_document_name,
)
from seline.domain.verdict import Verdict, judge
from seline.errors import InvalidDocumentName, UnsupportedFormat

ALLOWED = string.ascii_letters + string.digits + "_.-"
names = st.builds(
    lambda first, rest: f"{first}{rest}.json",
    st.sampled_from(string.ascii_letters + string.digits),
    st.text(ALLOWED, max_size=60),
)
stamps = st.builds(
    Stamp,
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(
        lambda at: at.replace(microsecond=0, tzinfo=UTC)
    ),
    st.integers(0, 100_000),
)


@given(st.text())
def test_any_text_is_a_valid_name_or_refused_with_a_reason(text: str) -> None:
    if is_document_name(text):
        assert check_document_name(text) == text
        assert len(text) <= NAME_CHARACTERS_MAX
        assert "/" not in text
        assert not text.startswith(".")
    else:
        with pytest.raises(InvalidDocumentName) as refused:
            check_document_name(text)
        assert refused.value.hint


@given(names.filter(is_document_name), stamps)
def test_a_backup_name_parses_to_its_document_and_stamp(name: str, stamp: Stamp) -> None:
    assert parse_backup_name(backup_name(name, stamp)) == (name, stamp)


@given(names.filter(is_document_name), names.filter(is_document_name), stamps)
def test_two_documents_never_share_a_backup_name(first: str, second: str, stamp: Stamp) -> None:
    if first != second:
        assert backup_name(first, stamp) != backup_name(second, stamp)


@given(st.text())
def test_only_backup_names_parse_as_such(text: str) -> None:
    parsed = parse_backup_name(text)
    if parsed is not None:
        assert backup_name(*parsed) == text or parsed[1].counter != 0 or text.isascii()


@given(st.lists(st.integers(-1_000_000, 1_000_000), max_size=30))
def test_the_next_backup_sorts_last_when_the_clock_jumps(steps: list[int]) -> None:
    now = datetime(2025, 1, 6, 14, 30, 22, tzinfo=UTC)
    newest: Stamp | None = None
    for step in steps:
        now += timedelta(seconds=step)
        stamp = next_stamp(newest, now)
        assert newest is None or stamp > newest
        newest = stamp


@given(st.binary(max_size=200), st.integers(-(2**63), 2**63 - 1), names)
def test_the_attribute_is_small_and_round_trips(data: bytes, mtime_ns: int, name: str) -> None:
    checksum = checksum_of(DocumentKey("", name), Content.of(data), mtime_ns)
    attribute = encode_checksum(checksum)
    assert len(attribute) <= ATTRIBUTE_BYTES_MAX
    assert decode_checksum(attribute) == checksum


@given(st.binary(max_size=80))
def test_any_other_bytes_are_no_attribute_or_a_newer_format(attribute: bytes) -> None:
    try:
        decode_checksum(attribute)
    except UnsupportedFormat:
        assert attribute[0] > 1


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_flipped_bit_is_never_sound(data: bytes, draw: st.DataObject) -> None:
    key = DocumentKey("", "a.json")
    recorded = checksum_of(key, Content.of(data), 5)
    bit = draw.draw(st.integers(0, len(data) * 8 - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    judged = judge(key, Content.of(bytes(flipped)), recorded, mtime_ns=5, settled=True)
    assert judged.verdict in (Verdict.TORN, Verdict.ALTERED)
