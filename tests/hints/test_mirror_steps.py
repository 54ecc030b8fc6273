"""The next steps about mirrored destinations: each is taken as it is printed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Line, line_at
from tests.hints.following import Step, run
from tests.hints.test_destination_steps import check

Follow = Callable[[str], Step]


def with_bucket(folder: Path, place: Path) -> Line:
    table = {"name": "bucket", "url": f"file://{place}", "mode": "mirror", "same_disk": True}
    return line_at(folder, SELINE_EXPORTS__DESTINATIONS=json.dumps([table]))


@pytest.mark.follows("operations/checks:_destination")
def test_the_first_copy_is_made_on_request(tmp_path: Path, follow: Follow) -> None:
    line = with_bucket(tmp_path, tmp_path / "bucket")
    line("save", "a.json", stdin="[1]")
    run(line, *follow(check(line)["fix"]).commands())
    assert (check(line)["status"], "newest copy" in check(line)["detail"]) == ("ok", True)


@pytest.mark.parametrize("is_meant", [True, False])
@pytest.mark.follows("operations/mirrors:_refuse_doubt*")
def test_a_copy_that_lost_much_is_accepted_or_mended(
    tmp_path: Path, follow: Follow, is_meant: bool
) -> None:
    line = with_bucket(tmp_path, tmp_path / "bucket")
    for number in range(3):
        line("save", f"{number}.json", stdin="[1]")
    line("jobs", "run", "mirror")
    for number in range(2):
        line("delete", f"{number}.json", "--yes")
    assert line("jobs", "run", "mirror").code == 1
    accept, restore = follow(check(line)["fix"]).commands(NAME="0.json")
    if is_meant:
        assert run(line, accept).code == 0
    else:
        assert run(line, restore).code == 0
        assert line("jobs", "run", "mirror").code == 0
    assert check(line)["status"] == "ok"


@pytest.mark.follows("operations/mirrors:_refuse_doubt")
def test_a_volume_that_replaces_another_is_accepted(tmp_path: Path, follow: Follow) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        line = with_bucket(tmp_path / name, tmp_path / "bucket")
        line("save", "a.json", stdin="[1]")
        ran = line("jobs", "run", "mirror")
    assert (ran.code, "another volume" in ran.out) == (1, True)
    run(line, *follow(check(line)["fix"]).commands())
    assert check(line)["status"] == "ok"
