"""How much two texts share at their ends, also where that ends at the edge of a piece."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seline.domain import shared_ends as module
from seline.domain.shared_ends import shared_ends

texts = st.text("ab", max_size=40).map(str.encode)


def one_by_one(before: bytes, after: bytes) -> tuple[int, int]:
    prefix = suffix = 0
    shortest = min(len(before), len(after))
    while prefix < shortest and before[prefix] == after[prefix]:
        prefix += 1
    while suffix < shortest - prefix and before[-1 - suffix] == after[-1 - suffix]:
        suffix += 1
    return prefix, suffix


@given(texts, texts, texts, texts)
def test_any_texts_are_compared_as_byte_by_byte(
    first: bytes, old: bytes, new: bytes, last: bytes
) -> None:
    before, after = first + old + last, first + new + last
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECES_BYTES", (8, 3))
        assert shared_ends(before, after) == one_by_one(before, after)


@pytest.mark.parametrize("at", [0, 1023, 1024, 1025, 16_383, 16_384, 17_408, 39_999])
def test_the_byte_that_differs_is_found_anywhere_in_a_large_text(at: int) -> None:
    before = b"x" * 40_000
    after = before[:at] + b"y" + before[at + 1 :]

    assert shared_ends(before, after) == (at, 39_999 - at)
    assert shared_ends(before, before) == (40_000, 0)
