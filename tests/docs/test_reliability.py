"""docs/reliability.md is built from figures only, and the README quotes its headline."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.proof import report
from tests.proof.report import CONTROL, DOCUMENT, SUITES, document, headline, read

NOTING = frozenset({"note", "noted"})
FIGURES = [
    {"suite": "power cut", "what": "save", "tried": 1500, "failures": 0, "where": "tmpfs",
     "date": "2026-11-24", "possible": 1500},
    {"suite": "power cut", "what": "import", "tried": 900, "failures": 0, "where": "tmpfs",
     "date": "2026-11-25", "possible": 2000, "drawn": "1 in 10"},
    {"suite": "rot", "what": "documents", "tried": 100, "failures": 1, "where": "ext4, tmpfs",
     "date": "2026-11-25"},
    {"suite": CONTROL, "what": "writes in place", "tried": 19, "failures": 11, "where": "tmpfs",
     "date": "2026-11-25", "kind": "store"},
    {"suite": CONTROL, "what": "nothing is synced", "tried": 400, "failures": 80,
     "where": "tmpfs", "date": "2026-11-25", "kind": "build"},
    {"suite": CONTROL, "what": "rot: no checksum", "tried": 100, "failures": 60, "where": "ext4",
     "date": "2026-11-25"},
]  # fmt: skip


def test_the_headline_counts_faults_broken_promises_and_wrong_stores() -> None:
    assert headline(FIGURES) == (
        "**2,500 faults tried, 1 promises broken; 3 of 3 wrong stores flagged** "
        "(2026-11-25, on tmpfs, ext4)."
    )


def test_the_document_describes_each_suite_and_counts_what_was_not_tried() -> None:
    text = document(FIGURES)

    assert headline(FIGURES) in text
    assert f"## Power cut\n\n{SUITES['power cut']}" in text
    assert "| [power cut](#power-cut) | 2 | 2,400 | 0 | tmpfs |" in text
    assert "| save | 1,500 | 0 | tmpfs |  |" in text
    assert "| import | 900 of 2,000 | 0 | tmpfs | drawn 1 in 10 |" in text
    assert "There was no time for 1,100 others" in text


def test_wrong_stores_and_wrong_builds_have_separate_tables() -> None:
    stores, builds, others = document(FIGURES).split("### ")[1:]

    assert "| writes in place | 19 | 11 |" in stores
    assert "| nothing is synced | 400 | 80 |" in builds
    assert "| rot: no checksum | 100 | 60 |" in others


def test_a_repeated_round_keeps_only_its_last_figure() -> None:
    earlier = {**FIGURES[0], "tried": 3}
    lines = "\n".join(map(json.dumps, [earlier, *FIGURES]))

    assert [figure["tried"] for figure in read(lines)] == [figure["tried"] for figure in FIGURES]


def test_after_a_slice_of_the_long_run_the_document_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = tmp_path / "figures.jsonl"
    figures.write_text("\n".join(map(json.dumps, FIGURES)))
    monkeypatch.setenv("SELINE_FIGURES", str(figures))
    monkeypatch.setenv("SELINE_PROVE_MINUTES", "10")
    monkeypatch.setattr(report, "DOCUMENT", tmp_path / "docs" / "reliability.md")

    report.main()

    assert (tmp_path / "reliability.md").read_text() == document(FIGURES)
    assert not (tmp_path / "docs").exists()


def test_every_suite_that_notes_figures_is_described() -> None:
    noted = set(_noted_suites())

    assert noted >= {"power cut", CONTROL}
    assert noted - {CONTROL} <= SUITES.keys()


@pytest.mark.skipif(not DOCUMENT.exists(), reason="`make prove` has not written it yet")
def test_every_suite_of_the_document_is_in_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    named = re.findall(r"^\| \[(.+?)\]\(#", text, re.MULTILINE)

    assert named
    assert set(named) <= set(_noted_suites())


@pytest.mark.skipif(not DOCUMENT.exists(), reason="`make prove` has not written it yet")
def test_the_readme_quotes_the_headline() -> None:
    [line] = re.findall(r"^\*\*.+ tried, .+$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert line in " ".join(readme.split())


def _noted_suites() -> Iterator[str]:
    """Yield the suites under which the tests note figures: named there, or in their `SUITE`."""
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if not any(f"{noting}(" in text for noting in NOTING):
            continue
        tree = ast.parse(text)
        names = {
            node.target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in NOTING and node.args:
                suite = node.args[0]
                value = suite.value if isinstance(suite, ast.Constant) else None
                named = names.get(ast.unparse(suite), value)
                if isinstance(named, str):
                    yield named
