"""The page's story: from the link of the first start to a restore and its undo."""

import pytest

from tests.chromium.conftest import OpenPage
from tests.chromium.hand import Hand, Keyboard, hand_of
from tests.chromium.looking import Console
from tests.chromium.place import PROFILE, Place

pytestmark = [pytest.mark.prove(first=True), pytest.mark.timeout(300)]
FIRST_LOAD_BYTES_MAX = 120 * 1024


@pytest.mark.parametrize(
    ("kind", "options"),
    [(Hand, {}), (Keyboard, {}), (Hand, {"java_script_enabled": False})],
    ids=["mouse", "keyboard", "no_scripts"],
)
def test_an_owner_signs_in_restores_and_undoes(
    kind: type[Hand], options: dict[str, bool], new_place: Place, open_page: OpenPage
) -> None:
    """One-time link, Home, a document, a backup, the difference, Restore, Undo; on a telephone."""
    console = Console()
    hand = hand_of(kind, open_page(viewport={"width": 360, "height": 740}, **options), new_place)
    console.listen(hand.page)
    for city in ("Besançon", "Orléans"):
        new_place.save(PROFILE, {"userName": "Zoé", "ville": city})

    hand.page.goto(new_place.link)
    hand.press("sign_in.button")
    hand.says("home.is_healthy")
    hand.follow("kit.nav_documents")
    hand.go_to(PROFILE)
    hand.follow_backup(0)
    assert f'ville {hand.t("documents.before")} "Orléans"' in hand.text()
    hand.press("documents.restore")
    assert new_place.load(PROFILE)["ville"] == "Besançon"
    hand.says("documents.kept_backups")
    hand.press("kit.undo")
    assert new_place.load(PROFILE)["ville"] == "Orléans"
    assert not console.lines


def test_the_skip_link_leads_past_the_navigation(new_place: Place, open_page: OpenPage) -> None:
    hand = hand_of(Keyboard, open_page(), new_place)
    hand.page.goto(new_place.link)
    hand.press("sign_in.button")

    hand.page.keyboard.press("Tab")
    focused = hand.focused()
    assert 'class="skip"' in focused["what"]
    assert focused["isShown"]
    assert focused["isOutlined"]
    hand.page.keyboard.press("Enter")
    hand.page.keyboard.press("Tab")

    assert hand.page.evaluate("() => Boolean(document.activeElement.closest('main'))")


def test_the_first_load_is_small_and_the_second_smaller(
    new_place: Place, open_page: OpenPage
) -> None:
    """Count what is transferred, compressed, for Home after the sign-in; then for Documents."""
    page = open_page()
    transferred = _transferred(page)
    page.goto(new_place.address + "/sign-in")
    page.fill("#token", new_place.token)
    page.click("main button")
    page.wait_for_load_state("networkidle")
    first = dict(transferred)
    transferred.clear()
    page.goto(new_place.address + "/documents")
    page.wait_for_load_state("networkidle")

    assert any("/static/" in address for address in first)
    assert 0 < sum(first.values()) <= FIRST_LOAD_BYTES_MAX, first
    assert list(transferred) == [new_place.address + "/documents"]


def _transferred(page: object) -> dict[str, int]:
    """Return the bytes that a page takes from the network, by address; they are added as it loads.

    What comes from the browser's cache is not in it.
    """
    session = page.context.new_cdp_session(page)  # type: ignore[attr-defined]
    session.send("Network.enable")
    addresses: dict[str, str] = {}
    bytes_of: dict[str, int] = {}
    cached: set[str] = set()

    def asked(event: dict[str, object]) -> None:
        addresses[str(event["requestId"])] = str(event["request"]["url"])  # type: ignore[index]

    def loaded(event: dict[str, object]) -> None:
        identifier = str(event["requestId"])
        if identifier not in cached:
            address = addresses[identifier]
            bytes_of[address] = bytes_of.get(address, 0) + int(event["encodedDataLength"])  # type: ignore[call-overload]

    session.on("Network.requestWillBeSent", asked)
    session.on(
        "Network.responseReceived",
        lambda event: event["response"]["fromDiskCache"] and cached.add(event["requestId"]),
    )
    session.on("Network.requestServedFromCache", lambda event: cached.add(event["requestId"]))
    session.on("Network.loadingFinished", loaded)
    return bytes_of
