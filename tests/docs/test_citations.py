"""Guarantees, documents and files that the repository cites exist in it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

FOLDERS = (".railway", "config", "docs", "seline", "tests", "workers")
SUFFIXES = frozenset({"", ".json", ".md", ".py", ".toml", ".yaml", ".yml"})
GUARANTEE = re.compile(r"\bV([1-9]\d?)\b")
DOCUMENT = re.compile(r"[\w./-]+\.md\b")
ABSENT_DOCUMENT = re.compile(r"\b(?:SPEC|DESIGN|HOUSE|REVIEW)\b|\bFAULTS \d|§")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`")


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every file that may cite something, but this one."""
    folders = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    for path in sorted([*ROOT.glob("*"), *folders]):
        if path.is_file() and path.suffix in SUFFIXES and path != Path(__file__):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every page of documentation."""
    yield from ((name, text) for name, text in texts() if name.endswith(".md"))


def test_every_cited_guarantee_is_defined() -> None:
    """Cite V1 to V12 only, as docs/guarantees.md defines them."""
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    defined = re.findall(r"^## V(\d+) ", page, re.MULTILINE)

    cited = {(number, name) for name, text in texts() for number in GUARANTEE.findall(text)}

    assert defined == [str(number) for number in range(1, 13)]
    assert not {name for number, name in cited if number not in defined}


def test_every_cited_document_is_in_the_repository() -> None:
    """Name a page by its path from the root, from the citing page, or from docs/."""
    missing = [
        f"{name}: {cited}"
        for name, text in texts()
        for cited in DOCUMENT.findall(text)
        if not any((base / cited).is_file() for base in (ROOT, ROOT / "docs", ROOT / name / ".."))
    ]

    assert not missing


def test_no_file_cites_a_document_outside_the_repository() -> None:
    """Cite a guarantee, or a page that a reader can open."""
    citing = [
        f"{name}: {line.strip()}"
        for name, text in texts()
        for line in text.splitlines()
        if ABSENT_DOCUMENT.search(line)
    ]

    assert not citing


@pytest.mark.parametrize("page", [name for name, _ in pages()])
def test_every_path_in_a_page_exists(page: str) -> None:
    """Name files and folders by their path from the root, so that a rename shows here."""
    text = (ROOT / page).read_text(encoding="utf-8")

    assert not [path for path in PATH.findall(text) if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", [name for name, _ in pages()])
def test_every_link_in_a_page_leads_to_a_heading(page: str) -> None:
    """Link to a page of the repository, and to a heading that is in it."""
    text = (ROOT / page).read_text(encoding="utf-8")

    for target, anchor in LINK.findall(text):
        linked = (ROOT / page).parent / target if target else ROOT / page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), anchor


def anchors(text: str) -> set[str]:
    """Return the names under which a page's headings are linked."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
