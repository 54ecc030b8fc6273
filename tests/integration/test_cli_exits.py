"""Exit codes: each error has a row, and each exception ends in a code, not in a traceback."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from seline import errors
from seline.cli import terminal
from seline.cli.errors import EXIT_FOR, Exit, exit_for, exit_on_error
from seline.cli.verbs import SECTIONS, front
from seline.client.api import error_of
from seline.errors import DocumentNotFound, SelineError

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
    """Return the exit code for an exception inside a verb."""
    with pytest.raises(click.exceptions.Exit) as raised, exit_on_error():
        raise error
    return raised.value.exit_code


def test_every_error_has_a_row_and_every_row_an_error() -> None:
    assert {kind.code for kind in EVERY_ERROR} == set(EXIT_FOR)


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_prints_message_and_hint_and_exits_with_its_code(
    kind: type[SelineError], capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind("What happened.", hint="What to do.")

    assert code_of(error) == EXIT_FOR[kind.code]

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "seline: What happened.\n  Next: What to do.\n"


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_response_becomes_the_error_that_the_server_raised(
    kind: type[SelineError],
) -> None:
    body = f'{{"code": "{kind.code}", "detail": "What happened.", "hint": "Do."}}'.encode()

    error = error_of(503, body, "here")

    assert type(error) is kind
    assert (error.message, error.hint) == ("What happened.", "Do.")


def test_a_response_that_is_not_selines_names_the_address() -> None:
    error = error_of(502, b"<html>Bad gateway</html>", "https://bot.example.org")

    assert "https://bot.example.org answered 502" in error.message
    assert code_of(error) == Exit.FAILED


def test_an_unknown_code_of_a_newer_server_is_a_failure() -> None:
    error = error_of(503, b'{"code": "not_invented_yet", "detail": "New."}', "here")

    assert (error.message, code_of(error)) == ("New.", Exit.FAILED)
    assert exit_for("not_invented_yet") is Exit.FAILED


def test_an_interrupted_verb_exits_130() -> None:
    assert code_of(KeyboardInterrupt()) == 130


def test_a_usage_error_keeps_clicks_own_message_and_code() -> None:
    with pytest.raises(click.UsageError), exit_on_error():
        raise click.UsageError("wrong")


def test_a_defect_prints_no_traceback_but_the_file_that_has_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert code_of(ZeroDivisionError("a defect")) == Exit.FAILED

    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    kept = re.search(r"\S+seline-error-\S+\.txt", printed)
    assert kept is not None
    assert "ZeroDivisionError: a defect" in Path(kept[0]).read_text(encoding="utf-8")


def test_an_os_error_exits_with_the_code_of_its_number() -> None:
    assert code_of(OSError(28, os.strerror(28), "out.json")) == Exit.FULL
    assert code_of(FileExistsError(17, os.strerror(17), "out.json")) == Exit.REFUSED
    assert code_of(PermissionError(13, os.strerror(13), "out.json")) == Exit.FAILED


def test_an_error_that_the_log_has_shown_is_not_repeated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seline.cli.terminal._logged", {"What happened."})

    assert code_of(DocumentNotFound("What happened.", hint="What to do.")) == Exit.NOT_FOUND

    assert capsys.readouterr().err == "  Next: What to do.\n"


@pytest.mark.parametrize("verb", verbs(front), ids=" ".join)
def test_the_help_of_every_verb_has_examples_and_the_global_options(verb: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(front, [*verb, "--help"])

    assert shown.exit_code == 0
    assert f"seline {' '.join(verb)}" in shown.output.split("Examples:")[1]
    assert all(option in shown.output for option in ("--data-dir", "--url", "--config", "--json"))


@pytest.mark.parametrize(
    "verb", ["delete", "restore", "reset", "import", "prune", "token revoke"], ids=str
)
def test_every_destructive_verb_has_a_dry_run_and_a_confirmation(verb: str) -> None:
    shown = CliRunner().invoke(front, [*verb.split(), "--help"]).output

    assert "--dry-run" in shown
    assert "--yes" in shown


def test_a_mistyped_verb_suggests_the_nearest_one() -> None:
    shown = CliRunner().invoke(front, ["docments"])

    assert shown.exit_code == 2
    assert "Did you mean 'documents'?" in shown.output


def test_every_verb_is_in_one_section_of_the_help() -> None:
    listed = [name for names in SECTIONS.values() for name in names]

    assert sorted(listed) == sorted(front.commands)


def test_the_help_imports_neither_the_store_nor_the_web() -> None:
    """Slow imports would make `seline --help` slow."""
    heavy = "('asyncio', 'aiohttp', 'rich', 'msgspec', 'structlog', 'seline.library')"
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from seline.cli.verbs import front\n"
        "import seline.cli\n"
        "assert CliRunner().invoke(front, ['--help']).exit_code == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("Or `seline reset a.json`.", {"data_dir": "my data"}),
        ("To undo: seline restore a.json --yes", {"data_dir": "my data", "config": "c.toml"}),
        ("`mkdir -- x && seline import x`", {"data_dir": "my data"}),
        ("`gunzip -c -- x | seline import - --yes`", {"url": "https://bot.example.org"}),
        ("  seline load a.json   prints it", {"data_dir": "my data"}),
        ("`seline token create`", {"data_dir": "my data"}),
    ],
)
def test_a_printed_command_names_the_store_that_this_command_named(
    text: str, given: dict[str, str]
) -> None:
    with click.Context(front, obj=given):
        printed = terminal.runnable(text)

    command = printed[printed.index("-m seline ") + len("-m seline ") :]
    words = shlex.split(command.partition("`")[0])
    for name, value in given.items():
        assert value == words[words.index(f"--{name.replace('_', '-')}") + 1]


def test_what_runs_only_beside_the_store_is_printed_without_its_address() -> None:
    with click.Context(front, obj={"url": "https://bot.example.org"}):
        assert "--url" not in terminal.runnable("`seline token create`")
