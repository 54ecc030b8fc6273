"""The next steps about copies at destinations: each is taken as it is printed."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from seline.errors import CopyNotFound, ExportFailed
from seline.operations.copies import Copies
from seline.operations.packs import unpacked
from seline.outbound.destinations.folder import Folder
from seline.ports.sealing import UNSEALED
from tests.command_line import Line, line_at
from tests.faults.small_filesystem import small_filesystem
from tests.hints.following import Step, next_of, run
from tests.hints.test_destination_steps import check
from tests.integration.test_cli_copies import copied, line_to
from tests.mirrored_bot import flip

Follow = Callable[[str], Step]


@pytest.mark.prove
@pytest.mark.follows("error:copy_not_found", "operations/copies:_undecided")
def test_a_destination_shows_the_copies_that_it_has(tmp_path: Path, follow: Follow) -> None:
    copies = Copies(Folder("bucket", str(tmp_path / "bucket")), UNSEALED)
    line = line_to(tmp_path)
    with pytest.raises(CopyNotFound) as none:
        asyncio.run(copies.find())
    [listing] = follow(none.value.hint).commands()
    assert "bucket has no copy" in run(line, listing).err

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        line = line_to(tmp_path / name, url=f"file://{tmp_path}/bucket", mode="export")
        line("save", f"{name}.json", stdin="[1]")
        copied(line, "export")
    with pytest.raises(ExportFailed, match="the copies of 2 volumes") as several:
        asyncio.run(copies.find())
    step = follow(several.value.hint)
    step.asks("`--volume ID`")
    listing, restore = step.commands(ID=volume_of(line))
    volumes = {copy["volume"] for copy in run(line, f"{listing} --json").value()["copies"]}
    found = {asyncio.run(copies.find(volume=volume)).documents[0].name for volume in volumes}
    assert found == {"one.json", "two.json"}
    line("delete", "two.json", "--yes")
    assert run(line, f"{restore} --yes").code == 0
    assert line("load", "two.json").value() == [1]


def volume_of(line: Line) -> str:
    known = json.loads((line.data / ".seline" / "volume.json").read_bytes())
    return str(known["id"])


@pytest.mark.follows("cli/copies:_refuse_unknown")
def test_a_destination_is_set_on_the_new_machine(tmp_path: Path, follow: Follow) -> None:
    step = follow(next_of(line_at(tmp_path)("exports", "list", "bucket")))
    step.asks("Set `exports.destinations` here")
    line = line_to(tmp_path)
    [shown] = step.commands()
    assert "bucket" in run(line, shown).out
    assert line("exports", "list", "bucket").code == 0


@pytest.mark.prove
@pytest.mark.follows("folders/plain:check_absent", "folders/plain:chosen_documents")
def test_a_copy_is_fetched_once_folder_and_names_are_right(tmp_path: Path, follow: Follow) -> None:
    line = line_to(tmp_path)
    line("save", "a.json", stdin="[1]")
    copied(line)
    taken = line("exports", "fetch", "bucket", "data")
    follow(next_of(taken)).asks("Name a new folder")
    wrong = line("exports", "fetch", "bucket", "back", "--only", "b.json")
    follow(next_of(wrong)).asks("It holds 1 document: a.json")
    assert line("exports", "fetch", "bucket", "back", "--only", "a.json").code == 0


@pytest.mark.prove
@pytest.mark.follows("library:try_restore")
def test_a_drill_without_room_is_made_in_another_directory(tmp_path: Path, follow: Follow) -> None:
    line = line_to(tmp_path)
    line("save", "a.json", stdin="[1]")
    copied(line)
    with small_filesystem(tmp_path / "small"):
        refused = line("drill", "bucket", TMPDIR=str(tmp_path / "small"))
    assert refused.code != 0
    follow(next_of(refused)).asks("set TMPDIR to a directory on a larger disk")
    (tmp_path / "large").mkdir()
    assert line("drill", "bucket", TMPDIR=str(tmp_path / "large")).code == 0
    assert not any((tmp_path / "large").iterdir())


@pytest.mark.prove
@pytest.mark.follows("cli/terminal:notice_undo")
def test_a_restored_copy_is_taken_back_as_it_is_printed(tmp_path: Path, follow: Follow) -> None:
    line = line_to(tmp_path)
    for name in ("a.json", "b.json", "c.json"):
        line("save", name, stdin="[1]")
    copied(line)
    line("save", "a.json", stdin="[2]")
    line("delete", "b.json", "--purge", "--yes")
    done = line("exports", "restore", "bucket", "--yes")
    for undo in [text for text in done.err.splitlines() if text.startswith("To undo: ")]:
        [command] = follow(undo).commands()
        assert run(line, command).code == 0
    assert line("load", "a.json").value() == [2]
    assert line("load", "b.json").code == 4


@pytest.mark.prove
@pytest.mark.follows(
    "operations/destination_checks:_unproven", "operations/destination_checks:_unproven#2"
)
def test_a_copy_is_proven_as_health_asks(tmp_path: Path, follow: Follow) -> None:
    line = line_to(tmp_path, mode="mirror")
    recipient = line("key", "new", "--output", "key.txt").out.strip()
    sealed = line_at(tmp_path, **line.environ, SELINE_EXPORTS__ENCRYPT_TO=recipient)
    sealed("save", "a.json", stdin="[1]")
    copied(sealed)
    assert sealed("jobs", "run", "drill").code == 0
    [command] = follow(check(sealed)["fix"]).commands()
    proven = run(sealed, command)
    assert proven.code == 0, proven.err

    record = tmp_path / "data" / ".seline" / "exports.json"
    known = json.loads(record.read_bytes())
    known["destinations"]["bucket"] |= {
        "mirrored_since": "2025-01-06T00:00:00Z",
        "checked_at": None,
    }
    record.write_text(json.dumps(known))
    [again] = follow(check(line)["fix"]).commands()
    copied(line)
    assert run(line, again).code == 0
    assert check(line)["status"] == "ok"


def two_copies(tmp_path: Path, *names: str, apart_s: float = 0) -> Line:
    """Return a command line to these mirrors of a volume that was copied twice."""
    tables = [
        {"name": name, "url": f"file://{tmp_path}/{name}", "mode": "mirror", "same_disk": True}
        for name in names
    ]
    line = line_at(tmp_path, SELINE_EXPORTS__DESTINATIONS=json.dumps(tables))
    line("save", "a.json", stdin="[1]")
    line("save", "b.json", stdin="[1]")
    line("save", "c.json", stdin="[3]")
    copied(line)
    time.sleep(apart_s)
    line("save", "a.json", stdin="[2]")
    copied(line)
    for name in ("a.json", "b.json"):
        line("delete", name, "--yes")
    return line


def damage(folder: Path, value: object) -> None:
    """Damage the object with this content."""
    [path] = [
        path
        for path in folder.rglob("objects/*")
        if json.loads(unpacked(path.read_bytes(), path.name, bytes_max=1 << 20)) == value
    ]
    flip(path)


def damaged(line: Line) -> str:
    """Restore the newest copy, which is damaged; return the next step."""
    ran = line("exports", "restore", "bucket", "--yes")
    assert (ran.code, "bucket has" in ran.err or "cannot be unpacked" in ran.err) == (3, True)
    assert line("load", "a.json").code == 4, "nothing was changed"
    return next_of(ran)


@pytest.mark.prove
@pytest.mark.follows("operations/by_hand:_next_step")
def test_an_older_copy_is_restored_when_the_newest_is_damaged(
    tmp_path: Path, follow: Follow
) -> None:
    line = two_copies(tmp_path, "bucket", apart_s=1.1)
    damage(tmp_path / "bucket", [2])
    step = follow(damaged(line))
    option, _query = step.quoted
    ran = line("exports", "restore", "bucket", "--yes", *option.split())
    assert ran.code == 0, ran.err
    assert line("load", "a.json").value() == [1]


@pytest.mark.prove
@pytest.mark.follows("operations/by_hand:_next_step#2")
def test_another_destination_is_used_when_no_older_copy_is_whole(
    tmp_path: Path, follow: Follow
) -> None:
    line = two_copies(tmp_path, "bucket", "nas")
    damage(tmp_path / "bucket", [1])
    [command] = follow(damaged(line)).commands()
    assert run(line, f"{command} --yes").code == 0
    assert line("load", "a.json").value() == [2]


@pytest.mark.prove
@pytest.mark.follows("operations/by_hand:_next_step#3")
def test_what_is_whole_is_restored_one_by_one(tmp_path: Path, follow: Follow) -> None:
    line = two_copies(tmp_path, "bucket")
    damage(tmp_path / "bucket", [1])
    [command] = follow(damaged(line)).commands(NAME="c.json")
    assert run(line, f"{command} --yes").code == 0
