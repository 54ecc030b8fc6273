"""The next steps about what cannot be compared, or restored in part, each followed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Line
from tests.hints.following import Step, next_of, run
from tests.hints.test_command_steps import NAME, damage, saved
from tests.integration.test_cli_copies import copied, line_to

Follow = Callable[[str], Step]


@pytest.mark.prove
@pytest.mark.follows("operations/difference:_quarantined")
def test_the_bytes_of_a_torn_item_are_shown(line: Line, follow: Follow) -> None:
    saved(line)
    damage(line.data / NAME)
    line("load", NAME)
    [item] = line("quarantine", "--json").value()["quarantine"]

    refused = line("diff", NAME, f"quarantine:{item['name']}")

    [showing] = follow(next_of(refused)).commands()
    assert len(run(line, showing).out) == item["size_bytes"]


@pytest.mark.prove
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


@pytest.mark.prove
@pytest.mark.follows(
    "error:path_not_found",
    "domain/json_pointer:_replaced",
    "domain/json_pointer:tokens_of",
    "manager/data:planned_restore",
    "manager/changes:_with_path",
)
def test_one_value_is_restored_once_its_path_is_right(line: Line, follow: Follow) -> None:
    saved(line, NAME, {"a": {"b": [1]}, "n": 1}, {"a": 5, "n": 2})
    [listing] = follow(next_of(line("restore", NAME, "--path", "/n", "--yes"))).commands()
    backup = run(line, f"{listing} --json").value()["backups"][0]["name"]

    def restored(path: str) -> Step:
        return follow(next_of(line("restore", NAME, backup, "--path", path, "--yes")))

    restored("n").asks("a slash before each key")
    [comparing] = restored("/m").commands(NAME=NAME)
    paths = [c["path"] for c in run(line, f"{comparing} --json").value()["changes"]]
    assert paths == ["/a", "/n"]
    restored("/a/b").asks("a path above it", "the whole document")
    assert line("restore", NAME, backup, "--path", "/a", "--yes").code == 0
    assert line("load", NAME).value() == {"a": {"b": [1]}, "n": 2}

    line("delete", NAME, "--yes")
    [whole] = restored("/n").commands()
    assert run(line, f"{whole} --yes").code == 0
    assert line("load", NAME).value()["n"] == 1
