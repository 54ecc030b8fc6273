"""The next steps about contents that cannot be compared: each is taken as it is printed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Line
from tests.hints.following import Step, next_of, run
from tests.hints.test_command_steps import NAME, damage, saved
from tests.integration.test_cli_copies import copied, line_to

Follow = Callable[[str], Step]


@pytest.mark.follows("operations/difference:_quarantined")
def test_the_bytes_of_a_torn_item_are_shown(line: Line, follow: Follow) -> None:
    saved(line)
    damage(line.data / NAME)
    line("load", NAME)
    [item] = line("quarantine", "--json").value()["quarantine"]

    refused = line("diff", NAME, f"quarantine:{item['name']}")

    [showing] = follow(next_of(refused)).commands()
    assert len(run(line, showing).out) == item["size_bytes"]


@pytest.mark.follows("operations/difference:_copied")
def test_another_copy_that_has_the_document_is_found(tmp_path: Path, follow: Follow) -> None:
    line = line_to(tmp_path)
    saved(line, "a.json")
    copied(line)
    saved(line, NAME)

    refused = line("diff", NAME, "copy:bucket")
    assert refused.code == 4

    [listing] = follow(next_of(refused)).commands()
    copied(line)
    newest = run(line, f"{listing} --json").value()["copies"][0]["name"]
    assert line("diff", NAME, f"copy:bucket@{newest}").code == 0
