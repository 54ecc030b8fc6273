"""`seline migrate`: a volume goes back to the first form of commit, stays there, and forward."""

import json
from pathlib import Path

import pytest

from tests.command_line import Line, line_at, served
from tests.faults.test_only_in_the_journal import CURRENT, killed_again

JOURNAL = {"SELINE_STORAGE__JOURNAL_BYTES": str(256 << 10)}
FILES = ("journal-a", "journal-b")


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_at(tmp_path)


def format_of(line: Line) -> int:
    return int((line.data / ".seline" / "format").read_text())


def has_journal(line: Line) -> bool:
    return any((line.data / ".seline" / name).exists() for name in FILES)


@pytest.mark.prove
def test_a_volume_goes_back_to_the_first_form_and_stays_there(line: Line) -> None:
    """Everything acknowledged is in plain files; a start with the setting makes no journal."""
    killed_again(line.data)
    done = line("migrate", "--commit-form", "first", "--json", **JOURNAL)

    assert (done.code, done.value()["commit_form"]) == (0, "first")
    assert {name: json.loads((line.data / name).read_bytes()) for name in CURRENT} == CURRENT
    assert (format_of(line), has_journal(line)) == (1, False)
    assert line("save", "other.json", stdin="{}", **JOURNAL).code == 0
    assert (format_of(line), has_journal(line)) == (1, False)
    assert "no journal, as `seline migrate` chose" in line("status", **JOURNAL).out

    done = line("migrate", "--commit-form", "journal", "--json", **JOURNAL)
    assert (done.code, done.value()["commit_form"]) == (0, "journal")
    assert (format_of(line), has_journal(line)) == (2, True)
    assert line("load", "changed.json", **JOURNAL).value() == CURRENT["changed.json"]


@pytest.mark.follows("library:migrate")
def test_without_a_size_the_journal_is_refused(line: Line) -> None:
    line("save", "a.json", stdin="{}")
    line("migrate", "--commit-form", "first")
    refused = line("migrate", "--commit-form", "journal", SELINE_STORAGE__JOURNAL_BYTES="0")

    assert refused.code == 2
    assert "Set `storage.journal_bytes`" in refused.err
    assert (line.data / ".seline" / "first_form").exists()
    assert line("migrate", "--commit-form", "journal", **JOURNAL).code == 0
    assert has_journal(line)


@pytest.mark.follows("cli/migrate:migrate")
def test_a_volume_that_is_too_small_is_told_how_it_gets_a_journal(line: Line) -> None:
    line("save", "a.json", stdin="{}")
    small = {"SELINE_STORAGE__VOLUME_LIMIT_MB": "5"}
    refused = line("migrate", "--commit-form", "journal", **JOURNAL, **small)

    assert refused.code == 1
    assert "too small for a journal" in refused.err
    assert "set a smaller `storage.journal_bytes`" in refused.err
    assert not has_journal(line)
    smaller = {"SELINE_STORAGE__JOURNAL_BYTES": str(64 << 10)}
    assert line("save", "a.json", stdin='{"n": 1}', **smaller, **small).code == 0
    assert has_journal(line)


@pytest.mark.prove
def test_a_volume_in_use_or_not_there_is_not_migrated(line: Line) -> None:
    missing = line("migrate", "--commit-form", "first")
    assert (missing.code, line.data.exists()) == (2, False)
    with served(line):
        assert line("migrate", "--commit-form", "first").code == 7
