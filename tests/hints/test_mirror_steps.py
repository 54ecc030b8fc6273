"""The next steps about mirrored destinations: each is taken as it is printed."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from seline import open_seline
from seline.domain import mirror
from seline.errors import ExportFailed
from seline.operations import destination_checks
from seline.settings import load_settings
from tests.command_line import Line, line_at, served
from tests.hints.following import Step, next_of, run, variable
from tests.hints.test_alert_steps import alert, serving_in_thread
from tests.hints.test_destination_steps import check

Follow = Callable[[str], Step]


def with_bucket(folder: Path, place: Path) -> Line:
    table = {"name": "bucket", "url": f"file://{place}", "mode": "mirror", "same_disk": True}
    return line_at(folder, SELINE_EXPORTS__DESTINATIONS=json.dumps([table]))


@pytest.mark.prove
@pytest.mark.follows("operations/destination_checks:check_destination")
def test_the_first_copy_is_made_on_request(tmp_path: Path, follow: Follow) -> None:
    line = with_bucket(tmp_path, tmp_path / "bucket")
    line("save", "a.json", stdin="[1]")
    run(line, *follow(check(line)["fix"]).commands())
    assert (check(line)["status"], "newest copy" in check(line)["detail"]) == ("ok", True)


@pytest.mark.follows("operations/destination_checks:_problems")
def test_changes_that_wait_are_copied_on_request(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = with_bucket(tmp_path, tmp_path / "bucket")
    line("save", "a.json", stdin="[1]")
    monkeypatch.setattr(destination_checks, "CHANGES_LATE_AFTER", timedelta(seconds=-60))
    with serving_in_thread(line):
        line("jobs", "run", "mirror")
        line("save", "a.json", stdin="[2]")
        step = follow(check(line)["fix"])
        step.asks("see that the destination answers")
        run(line, *step.commands())
        assert check(line)["status"] == "ok"


@pytest.mark.follows("outbound/destinations/failures:too_large")
def test_an_object_that_is_too_large_is_moved_away(tmp_path: Path, follow: Follow) -> None:
    place = tmp_path / "bucket"
    line = with_bucket(tmp_path, place)
    line("save", "a.json", stdin="[1]")
    assert line("jobs", "run", "mirror").code == 0
    claim = place / mirror.CLAIM
    os.truncate(claim, 1 << 20)
    step = follow(next_of(line("exports", "restore", "bucket", "--dry-run")))
    step.asks(f"Move {mirror.CLAIM} away there")
    claim.unlink()
    [command] = step.commands()
    assert "mirror" in run(line, command).out
    assert line("exports", "restore", "bucket", "--dry-run").code == 0


@pytest.mark.prove
@pytest.mark.follows("operations/destinations:_another", "cli/destinations:destinations")
def test_a_mirror_without_its_marker_gets_copies_again(tmp_path: Path, follow: Follow) -> None:
    place = tmp_path / "bucket"
    line = with_bucket(tmp_path, place)
    line("save", "a.json", stdin="[1]")
    assert line("jobs", "run", "mirror").code == 0
    place.rename(tmp_path / "away")
    assert line("jobs", "run", "mirror").code == 1
    step = follow(check(line)["fix"])
    step.asks("Mount it, then", "If it was moved or replaced")
    again, use = step.commands()
    taken = run(line, use)
    assert follow(taken.err.splitlines()[-1]).text.partition("Next: ")[2] == again
    assert "newest copy" not in check(line)["detail"]
    assert run(line, again).code == 0
    assert check(line)["status"] == "ok"


@pytest.mark.prove
@pytest.mark.follows("operations/mirror:damaged")
def test_a_damaged_copy_is_made_again_and_drilled(tmp_path: Path, follow: Follow) -> None:
    line = with_bucket(tmp_path, tmp_path / "bucket")
    line("save", "a.json", stdin="[1]")
    line("jobs", "run", "mirror")
    [content] = (tmp_path / "bucket").rglob("objects/*")
    content.unlink()
    assert line("jobs", "run", "drill").code == 1
    step = follow(check(line)["fix"])
    step.asks("Look for what removes or alters objects there")
    [again] = step.commands()
    assert run(line, again).code == 0
    assert check(line)["status"] == "ok"


@pytest.mark.prove
@pytest.mark.parametrize("is_meant", [True, False])
@pytest.mark.follows("operations/mirrors:_choice*")
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


@pytest.mark.prove
@pytest.mark.follows("operations/mirrors:_choice")
def test_a_volume_that_replaces_another_is_accepted(tmp_path: Path, follow: Follow) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        line = with_bucket(tmp_path / name, tmp_path / "bucket")
        line("save", "a.json", stdin="[1]")
        ran = line("jobs", "run", "mirror")
    assert (ran.code, "another volume" in ran.out) == (1, True)
    run(line, *follow(check(line)["fix"]).commands())
    assert check(line)["status"] == "ok"


@pytest.mark.prove
@pytest.mark.follows("operations/mirrors:_choice#2")
def test_a_twin_is_stopped_and_the_other_one_accepted(tmp_path: Path, follow: Follow) -> None:
    """The commands run one after the other: each is a process that mirrors."""
    for name in ("bot", "twin"):
        (tmp_path / name).mkdir()
    bot, twin = (with_bucket(tmp_path / name, tmp_path / "bucket") for name in ("bot", "twin"))
    bot("save", "a.json", stdin="[1]")
    bot("jobs", "run", "mirror")
    asyncio.run(_opened(twin))
    assert twin("jobs", "run", "mirror").code == 0
    assert bot("jobs", "run", "mirror").code == 1
    assert twin("jobs", "run", "mirror").code == 1
    step = follow(check(bot)["fix"])
    step.asks("Stop one of them")
    run(bot, *step.commands())
    assert bot("jobs", "run", "mirror").code == 0
    assert check(bot)["status"] == "ok"


@pytest.mark.prove
@pytest.mark.follows("operations/returning:refusal*", "alert:volume_restored")
def test_a_volume_whose_copy_is_damaged_begins_empty_on_request(
    tmp_path: Path, follow: Follow
) -> None:
    line = with_bucket(tmp_path, tmp_path / "bucket")
    line("save", "a.json", stdin="[1]")
    line("jobs", "run", "mirror")
    shutil.rmtree(line.data)
    [manifest] = (tmp_path / "bucket" / "seline-mirror").glob("*/manifests/*")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-1])
    with pytest.raises(ExportFailed, match="is empty, and the copy at bucket") as refused:
        asyncio.run(_opened(line))
    step = follow(refused.value.hint)
    step.asks("To begin empty")
    assert asyncio.run(_opened(line, **step.settings())) == 0
    shutil.rmtree(line.data)
    manifest.write_bytes(whole)
    with served(line):
        follow(alert(line, "volume_restored")).asks("ask its provider")


async def _opened(line: Line, **environ: str) -> int:
    here = {"SELINE_DATA_DIR": str(line.data)}
    settings = load_settings(environ={**line.environ, **environ, **here})
    async with open_seline(settings=settings) as seline:
        return len(await seline.data.documents())


@pytest.mark.prove
@pytest.mark.follows("operations/returning:refusal*")
def test_an_older_copy_is_taken_on_request_while_a_destination_fails(
    tmp_path: Path, follow: Follow
) -> None:
    tables = [
        {"name": name, "url": f"file://{tmp_path}/{name}", "mode": mode, "same_disk": True}
        for name, mode in (("bucket", "mirror"), ("nas", "export"))
    ]
    line = line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps(tables))
    line("save", "a.json", stdin="[1]")
    for job in ("mirror", "export"):
        assert line("jobs", "run", job).code == 0
    shutil.rmtree(line.data)
    claim = tmp_path / "bucket" / "seline-mirror" / "volume.json"
    claim.unlink()
    claim.mkdir()  # reading it fails
    with pytest.raises(ExportFailed, match="copy at bucket cannot be taken") as refused:
        asyncio.run(_opened(line))
    step = follow(refused.value.hint)
    step.asks("To take the copy of")
    [restore_from, *_] = [text for text in step.quoted if text.startswith("exports.restore_from")]
    name, _, value = restore_from.partition(" = ")
    assert asyncio.run(_opened(line, **{variable(name): value})) == 1


@pytest.mark.prove
def test_a_copy_is_accepted_only_when_that_is_agreed(tmp_path: Path) -> None:
    line = with_bucket(tmp_path, tmp_path / "bucket")
    line("save", "a.json", stdin="[1]")
    for action in ("accept", "use"):
        shown = line("destinations", action, "bucket", "--dry-run")
        asked = line("destinations", action, "bucket")
        assert (shown.code, "would be" in shown.err) == (0, True)
        assert (asked.code, "--yes" in asked.err) == (2, True)
        assert not (tmp_path / "bucket").exists()
        assert line("destinations", action, "other", "--dry-run").code == 4
    assert line("destinations", "accept", "bucket", "--yes").code == 0
    assert (tmp_path / "bucket").exists()
