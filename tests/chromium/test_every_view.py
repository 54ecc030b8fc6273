"""Every view in Chromium: legible, within its policy, at 360 px, in both languages."""

from pathlib import Path
from typing import get_args

import pytest

from seline.domain.texts import Language
from tests.chromium.conftest import OpenPage
from tests.chromium.hand import Hand, hand_of, missed
from tests.chromium.looking import STILL_ENGLISH, Console, english_left, look
from tests.chromium.place import Place
from tests.chromium.tour import TOUR, Stage, empty
from tests.docs.blocks import ROOT

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1500)]
SCREENS = ROOT / ".prove" / "screens"


@pytest.mark.parametrize("language", get_args(Language))
def test_every_view_is_legible_and_keeps_to_its_policy(
    language: str, place: Place, open_page: OpenPage
) -> None:
    """Visit every page in light and dark, at 360 and 1280 px; keep a picture of each."""
    hand = hand_of(Hand, open_page(language, timezone_id="Europe/Paris"), place, language)

    faults = looked_at(hand, place, TOUR, SCREENS / language)

    assert not faults, "\n".join(faults)
    assert not missed(hand)


@pytest.mark.parametrize("language", get_args(Language))
def test_every_view_without_documents_is_legible(
    language: str, new_place: Place, open_page: OpenPage
) -> None:
    hand = hand_of(Hand, open_page(language), new_place, language)

    faults = looked_at(hand, new_place, (empty,), SCREENS / language)

    assert not faults, "\n".join(faults)


def looked_at(hand: Hand, place: Place, stages: tuple[Stage, ...], folder: Path) -> list[str]:
    """Go through the stages and return the faults of each page."""
    folder.mkdir(parents=True, exist_ok=True)
    console, faults, found = Console(), [], set[str]()
    console.listen(hand.page)
    for stage in stages:
        for name in stage(hand, place):
            faults += look(hand.page, name, folder)
            if hand.t.language == "fr":
                faults += [f"{name}: {text}" for text in english_left(hand.page, found)]
    if hand.t.language == "fr" and stages == TOUR:
        rows = [row for row in STILL_ENGLISH if row not in found]
        faults += [f"take it from STILL_ENGLISH: {row}" for row in rows]
    return [*faults, *console.lines]
