"""The keyboard of the tests sees what a keyboard cannot do: faults are planted in a page."""

import pytest

from tests.chromium import hand as hands
from tests.chromium.conftest import OpenPage
from tests.chromium.hand import Keyboard, hand_of
from tests.chromium.place import Place

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]
BUTTON = "document.querySelector('main button')"


@pytest.fixture
def hand(new_place: Place, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> Keyboard:
    """Return a keyboard at the form of the sign-in."""
    monkeypatch.setattr(hands, "TABS_MAX", 30)
    made: Keyboard = hand_of(Keyboard, open_page(), new_place)
    made.page.set_default_timeout(5_000)
    made.open("/sign-in")
    made.fill("textbox", "sign_in.token", "wrong")
    return made


def test_without_a_fault_none_is_seen(hand: Keyboard) -> None:
    hand.press("sign_in.button")

    assert hand.status == 401
    assert hand.faults == []


@pytest.mark.parametrize(
    ("planted", "seen"),
    [
        (f"{BUTTON}.style.setProperty('outline', 'none', 'important')", "isOutlined"),
        (f"{BUTTON}.style.cssText = 'position: fixed; left: -9999px'", "isShown"),
        ("document.querySelector('footer button').tabIndex = 1", "isInOrder"),
    ],
)
def test_a_focus_that_is_not_seen_or_jumps_is_a_fault(
    hand: Keyboard, planted: str, seen: str
) -> None:
    hand.page.evaluate(f"() => {{ {planted}; }}")

    hand.reach(hand.named("button", "sign_in.button"))
    hand.reach(hand.named("link", "kit.skip"))

    assert any(fault.startswith(f"not {seen}") for fault in hand.faults)


def test_a_control_that_tab_does_not_reach_fails(hand: Keyboard) -> None:
    hand.page.evaluate(f"() => {{ {BUTTON}.tabIndex = -1; }}")

    with pytest.raises(AssertionError, match="Tab does not reach"):
        hand.press("sign_in.button")


def test_a_control_that_enter_does_not_press_fails(hand: Keyboard) -> None:
    stopped = "addEventListener('keydown', (event) => event.preventDefault())"
    hand.page.evaluate(f"() => {{ {BUTTON}.{stopped}; }}")

    with pytest.raises(Exception, match="Timeout"):
        hand.press("sign_in.button")
