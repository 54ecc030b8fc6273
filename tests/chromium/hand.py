"""The hands of a reader: one with a mouse, one with a keyboard alone. Both go by texts.

A name is a key of the page's texts with its fields, so that one way works in each language.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from seline.page.assembly import VIEWS
from seline.page.texts import Texts
from tests.chromium.place import Place

Role = Literal["button", "link", "textbox", "searchbox", "checkbox", "combobox"]
TABS_MAX: Final = 400
IS_FOCUSED: Final = "element => element === document.activeElement"
FOCUSED: Final = """() => {
    const element = document.activeElement, style = getComputedStyle(element);
    const box = element.getBoundingClientRect(), last = window.lastFocused;
    window.lastFocused = element;
    const follows = Node.DOCUMENT_POSITION_FOLLOWING;
    return {
        what: element.outerHTML.slice(0, 160),
        isPage: element === document.body,
        isOutlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        isShown: box.width > 0 && box.right > 0 && box.left < innerWidth
            && box.bottom > 0 && box.top < innerHeight,
        isInOrder: !last || last === document.body || last === element
            || Boolean(last.compareDocumentPosition(element) & follows),
    };
}"""
"""The element that has the focus: whether it is seen, and follows the one before it in the page."""


@dataclass
class Hand:
    """Read with a mouse."""

    page: Any
    address: str
    t: Texts
    posted: list[str] = field(default_factory=list)
    """The paths of the forms that were sent."""
    visited: list[str] = field(default_factory=list)
    status: int = 0
    """Of the page that is shown."""

    def __post_init__(self) -> None:
        self.page.on("response", self._note)

    def _note(self, response: Any) -> None:
        request = response.request
        if not request.is_navigation_request():
            return
        path = self._path(response.url)
        if request.method == "POST":
            self.posted.append(path)
        else:
            self.visited.append(path)

    def _path(self, address: str) -> str:
        return address.removeprefix(self.address).partition("?")[0]

    def open(self, path: str) -> None:
        """Type an address."""
        self.status = self.page.goto(self.address + path).status

    def named(self, role: Role, key: str, **fields: object) -> Any:
        """Return the first element of a role by its whole name."""
        text = self.t(key, **fields)
        return self.page.get_by_role(role, name=re.compile(f"^{re.escape(text)}$")).first

    def press(self, key: str, **fields: object) -> None:
        """Press a button, and wait for the page that it leads to."""
        with self._next():
            self.use(self.named("button", key, **fields))

    def follow(self, key: str, **fields: object) -> None:
        """Follow a link by its text."""
        with self._next():
            self.use(self.named("link", key, **fields))

    def go_to(self, text: str) -> None:
        """Follow the first link with a part of its text, which is no text of the page."""
        with self._next():
            self.use(self.page.get_by_role("link", name=text).first)

    def download(self, key: str) -> bytes:
        """Follow a link that leads to a file, and return its bytes."""
        with self.page.expect_download() as download:
            self.use(self.named("link", key))
        self.visited.append(self._path(download.value.url))
        return Path(download.value.path()).read_bytes()

    def unfold(self, summary: Any) -> None:
        """Open what is folded away."""
        self.use(summary)

    def follow_backup(self, number: int) -> None:
        """Follow the link to a backup of the document that is shown, the newest first."""
        with self._next():
            self.use(self.page.locator("ol.rows > li a").nth(number))

    def end_another_session(self) -> None:
        """End the first session in the list that is not this one."""
        rows = self.page.locator("main .rows > li").filter(has_not=self.page.locator("mark"))
        with self._next():
            self.use(rows.get_by_role("button").first)

    @contextmanager
    def another(self, token: str) -> Iterator["Hand"]:
        """Sign in with another browser, which is closed after the block."""
        context = self.page.context.browser.new_context(locale=self.t.language)
        try:
            other = Hand(context.new_page(), self.address, self.t)
            other.open("/sign-in")
            other.fill("textbox", "sign_in.token", token)
            other.press("sign_in.button")
            yield other
        finally:
            context.close()

    def has(self, key: str, **fields: object) -> bool:
        """Whether the page has a button."""
        return bool(self.named("button", key, **fields).count())

    def use(self, element: Any) -> None:
        """Press an element."""
        element.click()

    def fill(self, role: Role, key: str, text: str) -> None:
        """Replace the text of a field."""
        self.named(role, key).fill(text)

    def tick(self, text: str) -> None:
        """Tick a box."""
        self.page.get_by_role("checkbox", name=text).check()

    def choose(self, key: str, value: str) -> None:
        """Choose a value of a list."""
        self.named("combobox", key).select_option(value)

    def wait(self) -> None:
        """Wait until a page that reloads by itself is another one."""
        self.page.locator("[aria-busy=true]").wait_for(state="detached", timeout=60_000)

    def says(self, key: str, **fields: object) -> None:
        """Fail unless the page has a text."""
        text = self.t(key, **fields)
        assert text in self.text(), (text, self.text())

    def text(self) -> str:
        """Return the text of the page's main part, with single spaces."""
        return " ".join(self.page.locator("main").inner_text().split())

    @contextmanager
    def _next(self) -> Iterator[None]:
        with self.page.expect_navigation(wait_until="load") as shown:
            yield
        self.status = shown.value.status


@dataclass
class Keyboard(Hand):
    """Read with Tab, Enter, Space and the arrows alone; each focus is seen and in order."""

    faults: list[str] = field(default_factory=list)

    def use(self, element: Any) -> None:
        """Reach an element with Tab, and press Enter."""
        self.reach(element)
        self.page.keyboard.press("Enter")

    def fill(self, role: Role, key: str, text: str) -> None:
        """Reach a field, and type over its text."""
        self.reach(self.named(role, key))
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def tick(self, text: str) -> None:
        """Reach a box, and press Space."""
        self.reach(self.page.get_by_role("checkbox", name=text))
        self.page.keyboard.press("Space")

    def choose(self, key: str, value: str) -> None:
        """Reach a list, and press arrows until the value is chosen."""
        element = self.named("combobox", key)
        self.reach(element)
        for _ in range(10):
            if element.input_value() == value:
                return
            self.page.keyboard.press("ArrowDown")
        raise AssertionError(f"the arrows do not reach {value}")

    def reach(self, element: Any) -> None:
        """Press Tab until an element has the focus."""
        element.wait_for(state="visible")
        for _ in range(TABS_MAX):
            if element.evaluate(IS_FOCUSED):
                return
            self.page.keyboard.press("Tab")
            self._look()
        raise AssertionError(f"Tab does not reach {element}")

    def focused(self) -> Any:
        """Return the element that has the focus, and what FOCUSED says of it."""
        return self.page.evaluate(FOCUSED)

    def _look(self) -> None:
        focused = self.focused()
        if focused["isPage"]:
            self.page.evaluate("() => { window.lastFocused = null; }")
            return
        for fault in ("isOutlined", "isShown", "isInOrder"):
            if not focused[fault]:
                self.faults.append(f"not {fault}: {focused['what']}")


def hand_of(kind: type[Hand], page: Any, place: Place, language: str = "en") -> Any:
    """Return a hand on a page of Chromium."""
    return kind(page, place.address, Texts("fr" if language == "fr" else "en"))


def missed(hand: Hand) -> list[str]:
    """Return the routes of the page that a hand did not ask for."""
    asked = {"GET": hand.visited, "POST": hand.posted}
    return [
        f"{route.method} {route.path}"
        for view in VIEWS
        for route in view.routes
        if not any(_is_at(path, route.path) for path in asked[route.method])
    ]


def _is_at(path: str, route: str) -> bool:
    """Whether a path is one of a route with variable parts."""
    parts = re.split(r"{\w+(?::[^}]*})?[^}/]*}", route)
    return re.fullmatch("[^/]+".join(map(re.escape, parts)), path) is not None


def without_changing_parts(text: str) -> str:
    """Return a page's text without what differs between two runs: times, numbers of time, names."""
    changing: Iterable[tuple[str, str]] = (
        (r"\d{8}_\d{6}(_\d+)?", "STAMP"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?Z?", "TIME"),
        (r"sel_[\w-]+", "SECRET"),
        (r"\b[0-9a-f]{8,}\b", "ID"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
        (r"\d+([.,]\d+)?", "N"),
    )
    for pattern, name in changing:
        text = re.sub(pattern, name, text)
    return text
