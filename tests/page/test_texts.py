"""The words of the page: the same in both languages, and none outside of the tables."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from seline.domain.alerts.lifecycle import Severity
from seline.domain.incident import IncidentKind
from seline.domain.job import RunOutcome
from seline.domain.report import Status
from seline.domain.texts import LANGUAGES, fields_of
from seline.domain.verdict import FOREIGN, UNCHECKED, Verdict
from seline.operations import checks
from seline.operations.copies import EXPORT, MIRROR
from seline.page.assembly import VIEWS
from seline.page.reference import GROUPS
from seline.page.rendering import environment
from seline.page.texts import Texts, preferred, table
from seline.ports.destinations import Mode
from seline.settings.values import DEFAULT_JOBS
from tests.docs.blocks import ROOT

PACKAGE = ROOT / "seline" / "page"
TEMPLATES = sorted((PACKAGE / "templates").glob("*.html"))
CODE = sorted(PACKAGE.glob("*.py"))
CALL = re.compile(r"""\b(t|count)\(\s*["']([a-z_]+\.[a-z_]+)["']\s*([~,)])""")
JINJA = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)
SHOWN = re.compile(r"""\b(?:title|placeholder|alt|aria-label|content)\s*=\s*"([^"]*)\"""")
COMPUTED: dict[str, list[str]] = {
    "kit.nav_": [view.name for view in VIEWS if view.path],
    "kit.status_": list(Status),
    "kit.signed_in_": ["read", "admin"],
    "sessions.scope_": ["read", "admin"],
    "copies.mode_": list(get_args(Mode)),
    "copies.kind_": [MIRROR, EXPORT],
    "alerts.from_": list(Severity),
    "tokens.may_": ["read", "admin"],
    "reference.group_": list(GROUPS),
    "reference.scope_": ["open", "read", "admin"],
    "reference.in_": ["path", "query", "header"],
    "home.is_": ["healthy", "warning", "critical"],
    "home.check_": [*(name for name, *_ in checks.ROWS), *IncidentKind],
    "home.used_by_": ["volume", "seline"],
    "home.job_": list(DEFAULT_JOBS),
    "home.run_": list(RunOutcome),
    "documents.verdict_": [*Verdict, UNCHECKED, FOREIGN],
    "documents.kind_": ["added", "removed", "changed"],
    "documents.count_": ["added", "removed", "changed"],
    "documents.will_keep_": ["backups", "quarantine", "nowhere"],
    "documents.empty_": ["object", "list"],
    "documents.open_": ["object", "list"],
    "documents.size_": ["object", "list"],
    "documents.": ["pin", "unpin"],
}
"""Keys that a template puts together: the first part, and what may follow."""


def used() -> Iterator[tuple[str, str]]:
    """Yield each key that a template or the code names, with the name of the file."""
    for path in TEMPLATES:
        for function, key, after in CALL.findall(path.read_text("utf-8")):
            if after == "~":
                yield from ((path.name, key + part) for part in COMPUTED[key])
            elif function == "count":
                yield from ((path.name, f"{key}_{form}") for form in ("one", "many"))
            else:
                yield path.name, key
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                key = node.value
                is_key = re.fullmatch(r"[a-z_]+\.(?!html)[a-z_]+", key)
                if is_key and key.split(".")[0] in views():
                    yield path.name, key.rstrip("_")


def views() -> set[str]:
    return {path.name.partition(".")[0] for path in (PACKAGE / "texts").iterdir()}


def known(key: str) -> bool:
    """Whether a key, or both of its forms for a count, or what it begins, are in the table."""
    texts = table("en")
    return (
        key in texts
        or {f"{key}_one", f"{key}_many"} <= texts.keys()
        or any(text.startswith(f"{key}_") for text in texts)
    )


def test_every_text_is_in_both_languages_with_the_same_fields() -> None:
    english, french = table("en"), table("fr")

    assert english.keys() == french.keys()
    assert not {key for key in english if fields_of(english[key]) != fields_of(french[key])}
    assert all(text.strip() for language in LANGUAGES for text in table(language).values())


def test_every_key_that_is_used_is_in_the_table() -> None:
    keys = list(used())

    assert len(keys) > 50
    assert not {(file, key) for file, key in keys if not known(key)}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_no_words_of_its_own(template: Path) -> None:
    html = JINJA.sub("", template.read_text("utf-8"))
    between_tags = re.sub(r"<[^>]*>", "", html)
    in_attributes = [text for text in SHOWN.findall(html) if text not in allowed()]

    assert not re.findall(r"[A-Za-z]+", between_tags)
    assert not [text for text in in_attributes if re.search(r"[A-Za-z]", text)]


def allowed() -> set[str]:
    return {"width=device-width, initial-scale=1", "light dark"}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_no_inline_script_or_style(template: Path) -> None:
    html = template.read_text("utf-8")

    assert not re.search(r"<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:", html, re.IGNORECASE)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)
    assert "|safe" not in html.replace(" ", "")
    assert "autoescape" not in html


def test_every_template_escapes_and_names_what_it_lacks() -> None:
    made = environment()

    assert made.autoescape is True
    assert made.from_string("{{ text }}").render(text="<b>") == "&lt;b&gt;"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("fr", "fr"),
        ("fr-CH, en;q=0.9", "fr"),
        ("en;q=0.5, fr;q=0.8", "fr"),
        ("de", "en"),
        ("de, fr;q=0", "en"),
        ("fr;q=x, en;q=0.1", "en"),
        ("," * 500 + "fr", "en"),
        ("*", "en"),
    ],
)
def test_the_language_is_the_browser_s(header: str, language: str) -> None:
    assert preferred(header) == language


@pytest.mark.parametrize(
    ("seconds", "english", "french"),
    [
        (-5, "just now", "à l'instant"),
        (-30, "in less than a minute", "dans moins d'une minute"),
        (-60, "in 1 minute", "dans 1 minute"),
        (-86_400 * 3, "in 3 days", "dans 3 jours"),
        (-86_400 * 30 + 5, "in 30 days", "dans 30 jours"),
        (86_400 * 30 - 5, "29 days ago", "il y a 29 jours"),
        (59, "just now", "à l'instant"),
        (60, "1 minute ago", "il y a 1 minute"),
        (7_200, "2 hours ago", "il y a 2 heures"),
        (86_400 * 1234, "1,234 days ago", "il y a 1\u202f234 jours"),
    ],
)
def test_a_span_is_in_its_largest_unit(seconds: float, english: str, french: str) -> None:
    assert Texts("en").span(seconds) == english
    assert Texts("fr").span(seconds) == french


@pytest.mark.parametrize(
    ("size_bytes", "english", "french"),
    [
        (0, "0 bytes", "0 octets"),
        (1023, "1,023 bytes", "1\u202f023 octets"),
        (1536, "1.5 KB", "1,5 Ko"),
        (200 << 20, "200 MB", "200 Mo"),
        (5 << 40, "5,120 GB", "5\u202f120 Go"),
    ],
)
def test_a_size_is_in_the_unit_that_fits(size_bytes: int, english: str, french: str) -> None:
    assert Texts("en").size(size_bytes) == english
    assert Texts("fr").size(size_bytes) == french


def test_zero_is_singular_in_french_alone() -> None:
    assert Texts("en").count("home.backups", 0) == "0 backups"
    assert Texts("fr").count("home.backups", 0) == "0 sauvegarde"
