"""The verbs of copies: what a destination has, read with and without the volume."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Line, line_at, served

NAME = "a.json"


def line_to(folder: Path, **more: Any) -> Line:
    """Return a command line whose settings name the destination `bucket`."""
    table = {"name": "bucket", "url": f"file://{folder}/bucket", "same_disk": True, "mode": "both"}
    return line_at(folder, SELINE_EXPORTS__DESTINATIONS=json.dumps([table | more]))


def copied(line: Line, job: str = "mirror") -> None:
    ran = line("jobs", "run", job)
    assert ran.code == 0, ran.out


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Return a command line on a volume with one document, mirrored and exported."""
    line = line_to(tmp_path)
    for number in range(2):
        line("save", NAME, stdin=f'{{"n": {number}}}')
    copied(line)
    copied(line, "export")
    return line


def test_copies_are_listed_with_and_without_the_volume(line: Line) -> None:
    with served(line) as server:
        elsewhere = line_at(line.folder, SELINE_URL=server.url, SELINE_TOKEN=server.token)
        over_http = elsewhere("exports", "list", "bucket", "--json").value()
    shutil.rmtree(line.data)
    here = line("exports", "list", "bucket", "--json").value()
    assert here["copies"][-2:] == over_http["copies"][-2:]
    assert {copy["kind"] for copy in here["copies"]} == {"mirror", "export"}
    for copy in here["copies"]:
        assert (copy["documents"], copy["doubt"], copy["proven_at"]) == (1, "", None)
    shown = line("exports", "list", "bucket").out
    assert all(copy["name"] in shown for copy in here["copies"])
    assert not line.data.exists()


def test_an_empty_destination_has_no_copy(tmp_path: Path) -> None:
    assert "bucket has no copy" in line_to(tmp_path)("exports", "list", "bucket").err
