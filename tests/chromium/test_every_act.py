"""Every act of the page by keyboard alone, and with scripts switched off."""

from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.chromium.conftest import OpenPage
from tests.chromium.hand import Hand, Keyboard, hand_of, missed, without_changing_parts
from tests.chromium.place import Place, lived_in
from tests.chromium.tour import TOUR

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1500)]
Ends: TypeAlias = list[tuple[str, int, str, str]]
"""Of each page: its name in the tour, its status, its heading, and its notices."""


def test_every_act_works_by_keyboard_alone(place: Place, open_page: OpenPage) -> None:
    """Reach each control with Tab: the focus is seen, and follows the order of the page."""
    hand = hand_of(Keyboard, open_page(), place)

    ends_of(hand, place)

    assert not hand.faults, "\n".join(sorted(set(hand.faults)))
    assert not missed(hand)


def test_every_act_ends_the_same_without_scripts(tmp_path: Path, open_page: OpenPage) -> None:
    """Compare the pages of a tour with scripts and of one without, and the documents after each."""
    ends, documents = [], []
    for has_scripts in (True, False):
        with lived_in(tmp_path / f"run{int(has_scripts)}") as place:
            hand = hand_of(Hand, open_page(java_script_enabled=has_scripts), place)
            ends.append(ends_of(hand, place))
            assert not missed(hand)
            listed = place.call("GET", "/documents")["documents"]
            documents.append({each["name"]: each["revision"] for each in listed})

    assert ends[0] == ends[1]
    assert documents[0] == documents[1]


def ends_of(hand: Any, place: Place) -> Ends:
    """Go through the tour, and return how each page of it ended."""
    return [
        (
            name,
            hand.status,
            *(
                without_changing_parts(" ".join(hand.page.locator(part).all_inner_texts()))
                for part in ("h1", ".notice")
            ),
        )
        for stage in TOUR
        for name in stage(hand, place)
    ]
