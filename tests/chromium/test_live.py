"""A page that is open follows what happens: its parts are replaced, and the focus stays."""

import pytest

from tests.chromium.conftest import OpenPage
from tests.chromium.hand import IS_FOCUSED, Hand, hand_of
from tests.chromium.looking import Console
from tests.chromium.place import Place

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]


def test_an_open_page_follows_a_job(new_place: Place, open_page: OpenPage) -> None:
    hand = hand_of(Hand, open_page(), new_place)
    console = Console()
    console.listen(hand.page)
    hand.page.goto(new_place.link)
    hand.press("sign_in.button")
    hand.open("/jobs")
    usage = hand.t("home.job_usage")
    button = hand.named("button", "kit.act_on", act=hand.t("jobs.run_short"), name=usage)
    button.focus()
    hand.page.evaluate("() => { window.isSame = true; }")

    new_place.call("POST", "/jobs/usage/run")
    row = hand.page.locator("#jobs > li").filter(has_text=usage)
    row.get_by_text(hand.t("home.run_ok")).wait_for()

    assert hand.page.evaluate("() => window.isSame")
    assert button.evaluate(IS_FOCUSED)
    assert not console.lines


def test_an_open_page_asks_to_sign_in_when_its_session_has_ended(
    new_place: Place, open_page: OpenPage
) -> None:
    hand = hand_of(Hand, open_page(), new_place)
    hand.page.goto(new_place.link)
    hand.press("sign_in.button")
    hand.open("/jobs")
    hand.page.context.clear_cookies()

    hand.page.wait_for_url("**/sign-in?next=%2Fjobs*")
