"""Exit codes: every error has its row, and every way out ends in one, never in a traceback."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from seline import cli, errors
from seline.cli.client import problem_of
from seline.cli.exits import EXIT_FOR, Exit, exit_for
from seline.cli.group import front
from seline.cli.problem import Problem, way_out
from seline.errors import SelineError

EVERY_ERROR = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SelineError)
]


def verbs(group: click.Group, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += verbs(command, (*before, name))
        else:
            found.append((*before, name))
    return found


def code_of(error: BaseException) -> int:
    """Return the exit code that an error inside a verb ends with."""
    with pytest.raises(click.exceptions.Exit) as left, way_out():
        raise error
    return left.value.exit_code


def test_every_error_has_a_row_and_every_row_an_error() -> None:
    assert {kind.code for kind in EVERY_ERROR} == set(EXIT_FOR)


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_ends_in_its_exit_code_with_message_and_hint(
    kind: type[SelineError], capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind("What happened.", hint="What to do.")

    assert code_of(error) == EXIT_FOR[kind.code]

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "seline: What happened.\n  Next: What to do.\n"


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_from_the_server_ends_as_one_of_this_process_does(kind: type[SelineError]) -> None:
    body = f'{{"code": "{kind.code}", "detail": "What happened.", "hint": "Do."}}'.encode()

    problem = problem_of(503, body, "here")

    assert (problem.message, problem.hint, problem.exit) == (
        "What happened.",
        "Do.",
        exit_for(kind.code),
    )


def test_the_answer_of_something_in_between_is_told_as_such() -> None:
    problem = problem_of(502, b"<html>Bad gateway</html>", "https://bot.example.org")

    assert "https://bot.example.org answered 502" in problem.message
    assert problem.exit is Exit.FAILED


def test_an_unknown_code_of_a_newer_server_is_a_failure() -> None:
    assert exit_for("not_invented_yet") is Exit.FAILED


def test_an_interrupted_verb_ends_with_130() -> None:
    assert code_of(KeyboardInterrupt()) == 130


def test_a_defect_is_told_without_a_traceback_which_goes_to_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert code_of(ZeroDivisionError("a defect")) == Exit.FAILED

    told = capsys.readouterr().err
    assert "Traceback" not in told
    kept = re.search(r"\S+seline-error-\S+\.txt", told)
    assert kept is not None
    assert "ZeroDivisionError: a defect" in Path(kept[0]).read_text(encoding="utf-8")


def test_a_full_disk_under_an_export_is_full_and_a_refused_file_is_a_failure() -> None:
    assert code_of(OSError(28, os.strerror(28), "out.json")) == Exit.FULL
    assert code_of(PermissionError(13, os.strerror(13), "out.json")) == Exit.FAILED


def test_a_problem_may_overrule_its_row() -> None:
    assert Problem("x", exit=Exit.USAGE).exit is Exit.USAGE


@pytest.mark.parametrize("verb", verbs(front), ids=" ".join)
def test_every_verb_teaches_with_examples_and_takes_the_common_options(
    verb: tuple[str, ...],
) -> None:
    shown = CliRunner().invoke(front, [*verb, "--help"])

    assert shown.exit_code == 0
    assert f"seline {' '.join(verb)}" in shown.output.split("Examples:")[1]
    assert all(option in shown.output for option in ("--data-dir", "--url", "--config", "--json"))


@pytest.mark.parametrize(
    "verb", ["delete", "restore", "reset", "import", "prune", "token revoke"], ids=str
)
def test_every_destructive_verb_can_be_tried_and_confirmed(verb: str) -> None:
    shown = CliRunner().invoke(front, [*verb.split(), "--help"]).output

    assert "--dry-run" in shown
    assert "--yes" in shown


def test_a_mistyped_verb_names_the_nearest_one() -> None:
    shown = CliRunner().invoke(front, ["docments"])

    assert shown.exit_code == 2
    assert "Did you mean 'documents'?" in shown.output


def test_every_module_of_verbs_is_listed_once() -> None:
    assert len(set(cli.VERB_MODULES)) == len(cli.VERB_MODULES)


def test_the_help_needs_neither_the_store_nor_the_web() -> None:
    """What makes `seline --help` quick: nothing heavy is imported for it."""
    heavy = "('asyncio', 'aiohttp', 'rich', 'msgspec', 'structlog', 'seline.library')"
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from seline.cli.group import front\n"
        "import seline.cli\n"
        "assert CliRunner().invoke(front, ['--help']).exit_code == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
