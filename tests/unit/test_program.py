"""The commands in texts are those that the shell finds where this process was started."""

import sys
from collections.abc import Iterator

import pytest

from seline import program
from seline.cli.terminal import runnable
from seline.program import typed


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have no `seline` on PATH, and ask again in the next test."""
    monkeypatch.setenv("PATH", "/nowhere")
    program.program.cache_clear()
    yield
    program.program.cache_clear()


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        (".venv/bin/seline", ".venv/bin/seline"),
        ("my env/bin/seline", "'my env/bin/seline'"),
        ("seline", "seline"),
        ("bot.py", "seline"),
        ("/opt/bot/bin/seline", "seline"),
    ],
)
def test_a_text_for_readers_elsewhere_names_a_relative_path_only(
    called: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called, "serve"])

    assert typed("seline restore a.json") == f"{shown} restore a.json"
    assert typed("Run `seline verify`, then `seline status`.") == (
        f"Run `{shown} verify`, then `{shown} status`."
    )
    assert typed("This is what seline does.") == "This is what seline does."


def test_the_command_line_replaces_the_path_that_a_server_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bot/bin/seline", "status"])

    assert runnable("Run `.venv/bin/seline prune`.") == "Run `/opt/bot/bin/seline prune`."
    assert runnable(".venv/bin/seline prune") == "/opt/bot/bin/seline prune"
    assert runnable("lost: /mnt/seline was full") == "lost: /mnt/seline was full"
    assert runnable("/mnt/seline was full") == "/mnt/seline was full"
    assert runnable("To undo: seline delete a.json") == "To undo: /opt/bot/bin/seline delete a.json"
