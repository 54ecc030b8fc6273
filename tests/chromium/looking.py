"""What is wrong with a page that Chromium shows."""

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from seline.page.texts import table

WIDTHS: Final = (360, 1280)
SCHEMES: Final = ("light", "dark")
AXE_OPTIONS: Final = {
    "resultTypes": ["violations"],
    "rules": {"label-content-name-mismatch": {"enabled": True}, "target-size": {"enabled": True}},
}
EXPECTED_ON_CONSOLE: Final = re.compile(
    r"Failed to load resource: the server responded with a status of [45]\d\d"
)
"""A page of an error; its status is compared elsewhere."""
TEXTS: Final = """() => {
    const found = [];
    const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const parent = node.parentElement;
        if (!parent.closest("script, style, code, pre, textarea, bdi, [lang=en]"))
            found.push(node.textContent);
    }
    for (const element of document.querySelectorAll("[aria-label], [title], [placeholder], [alt]"))
        for (const name of ["aria-label", "title", "placeholder", "alt"])
            if (element.hasAttribute(name)) found.push(element.getAttribute(name));
    return found.map((text) => text.replace(/\\s+/g, " ").trim()).filter((text) => text);
}"""
STILL_ENGLISH: Final[tuple[str, ...]] = ()
"""What a French page still has in English, marked as such: whole texts of the core.

The list only becomes shorter: a text that is not in it fails, and so does a row that is not found.
"""
STILL_MIXED: Final = re.compile("created at the first start")
"""Texts of the core that are part of a French one, and so are not marked."""
LONG_WORDS: Final = 3
"""A text with as many words is looked for inside of others, too."""
_ENGLISH_WORD: Final = re.compile(
    r"\b(the|is|are|was|were|of|and|with|not|by|this|it|its"
    r"|frees|lacks|keeps|holds|without|has|have|from)\b"
)
_PATH: Final = re.compile(r"/\S+")
_FIELD: Final = re.compile(r"\{\w+\}")
MARKED_ENGLISH: Final = """() => [...document.querySelectorAll("main [lang=en]")]
    .map((element) => element.textContent.replace(/\\s+/g, " ").trim()).filter((text) => text)"""
IS_TOO_WIDE: Final = (
    "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
)


@dataclass
class Console:
    """Everything that a page reports to the console, such as a breach of its own policy."""

    lines: list[str] = field(default_factory=list)

    def listen(self, page: Any) -> None:
        """Note what this page reports from now on."""
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self._note("error", str(error)))
        page.on("requestfailed", self._note_request)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not EXPECTED_ON_CONSOLE.match(text):
            self.lines.append(f"{kind}: {text}")

    def _note_request(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # a download, or a page that was left
            self.lines.append(f"error: {request.url} {request.failure}")


@cache
def axe() -> str:
    """Return the source of axe-core; Chromium runs it outside of the page's policy."""
    found = importlib.util.find_spec("axe_playwright_python")
    assert found is not None, "axe-playwright-python is not installed"
    assert found.origin is not None
    return (Path(found.origin).parent / "axe.min.js").read_text("utf-8")


def violations(page: Any) -> list[str]:
    """Return what axe-core finds, one line for each element."""
    page.evaluate(axe())
    result = page.evaluate("options => axe.run(document, options)", AXE_OPTIONS)
    return [
        f"{rule['id']}: {node['html'][:200]} ({node.get('failureSummary', '')[:300]})"
        for rule in result["violations"]
        for node in rule["nodes"]
    ]


def look(page: Any, name: str, folder: Path) -> list[str]:
    """Take the pictures of a page in each width and scheme, and return its faults."""
    faults = []
    page.evaluate("() => window.stop()")  # a page that reloads by itself stays as it is
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            if page.evaluate(IS_TOO_WIDE):
                faults.append(f"{name}: it scrolls sideways at {width} px")
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
        faults += [f"{name}, {scheme}: {line}" for line in violations(page)]
    return faults


# words


def english_left(page: Any, found: set[str]) -> Iterator[str]:
    """Yield each English text of a French page; `found` gets the rows of STILL_ENGLISH."""
    is_reference = page.url.endswith("/reference")  # of the API, which is described in English
    for text in [] if is_reference else page.evaluate(MARKED_ENGLISH):
        rows = {row for row in STILL_ENGLISH if re.fullmatch(row, text)}
        found |= rows
        if not rows:
            yield f"{text!r} is English"
    for text in page.evaluate(TEXTS):
        if _ENGLISH_WORD.search(_PATH.sub("", text)) and not STILL_MIXED.fullmatch(text):
            yield f"{text!r} has an English word"
        for pattern in _english():
            if pattern.search(text):
                yield f"{text!r} is {pattern.pattern!r}"
                break


@cache
def _english() -> Sequence[re.Pattern[str]]:
    """Return the English texts that are others in French; a short one must be the whole text."""
    french, patterns = table("fr"), []
    for key, text in table("en").items():
        parts = _FIELD.split(" ".join(text.split()))
        word_count = sum(len(re.findall(r"[A-Za-z]{2,}", part)) for part in parts)
        if text == french[key] or not word_count:
            continue
        is_long = word_count >= LONG_WORDS
        words = (".+?" if is_long else r"\S+").join(map(re.escape, parts))
        patterns.append(re.compile(rf"\b{words}" if is_long else rf"^{words}[ .:·]*$"))
    return patterns
