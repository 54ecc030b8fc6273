"""The verbs of copies: what a destination has, read with and without the volume."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from seline.cli.verbs import front
from tests.command_line import Line, line_at, served
from tests.mirrored_bot import flip

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


@pytest.mark.prove
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


def test_a_bucket_that_lacks_a_variable_is_no_destination(tmp_path: Path) -> None:
    """Name the variable and the destination that lack, not the data directory."""
    names = ("BUCKET", "ENDPOINT", "ACCESS_KEY_ID", "RAILWAY_ENVIRONMENT")
    line = line_at(tmp_path, **dict.fromkeys(names, "http://localhost"))
    refused = line("exports", "list", "bucket")
    assert refused.code == 4
    assert "SECRET_ACCESS_KEY is missing" in refused.err
    assert "name no destination bucket" in refused.err
    assert "data directory" not in refused.err


def test_a_run_of_the_mirror_without_a_mirrored_destination_says_so(tmp_path: Path) -> None:
    line = line_to(tmp_path, mode="export")
    line("save", "a.json", stdin="[1]")
    assert "no destination is mirrored" in line("jobs", "run", "mirror").out


def test_a_copy_is_fetched_as_plain_files_without_the_volume(line: Line, tmp_path: Path) -> None:
    backups = {path.name: path.read_bytes() for path in (line.data / "backups").iterdir()}
    shutil.rmtree(line.data)

    ran = line("exports", "fetch", "bucket", "back")

    assert (ran.code, ran.out) == (0, "back\n"), ran.err
    assert "1 document and 1 backup as of" in ran.err
    back = tmp_path / "back"
    assert json.loads((back / NAME).read_bytes()) == {"n": 1}
    assert {path.name: path.read_bytes() for path in (back / "backups").iterdir()} == backups
    assert not line.data.exists()
    assert line("load", NAME, "--data-dir", "back").value() == {"n": 1}
    again = line("exports", "fetch", "bucket", "back")
    assert (again.code, "is not empty" in again.err) == (5, True)
    assert not list(tmp_path.glob(".back*"))


@pytest.mark.prove
def test_a_copy_of_an_instant_and_of_one_document_is_fetched(line: Line, tmp_path: Path) -> None:
    line("save", "b.json", stdin="[1]")
    copied(line)
    line("exports", "fetch", "bucket", "one", "--only", "b.json")
    line("exports", "fetch", "bucket", "all", "--at", "2999-01-01 14:30")
    assert {path.name for path in (tmp_path / "one").glob("*.json")} == {"b.json"}
    assert {path.name for path in (tmp_path / "all").glob("*.json")} == {NAME, "b.json"}
    for wrong in ("yesterday", "2026-13-01", "0001-01-01T00:00:00+02:00"):
        assert line("exports", "fetch", "bucket", "none", "--at", wrong).code == 2
    before = line("exports", "fetch", "bucket", "none", "--at", "2020-01-01")
    assert (before.code, "has no whole copy until 2020-01-01" in before.err) == (4, True)
    other = line("exports", "fetch", "bucket", "none", "--volume", "00000000")
    assert (other.code, "has no whole copy of the volume 00000000." in other.err) == (4, True)
    assert not (tmp_path / "none").exists()


def test_an_altered_content_leaves_no_folder(line: Line, tmp_path: Path) -> None:
    for path in (tmp_path / "bucket").rglob("*.json.zst"):
        if path.parent.name == "objects":
            flip(path)
    shutil.rmtree(next((tmp_path / "bucket").glob("seline-2*")))
    ran = line("exports", "fetch", "bucket", "back")
    assert ran.code == 3, ran.err
    assert not list(tmp_path.glob("*back*"))


@pytest.mark.parametrize("mode", ["mirror", "export"])
def test_an_encrypted_copy_is_fetched_with_its_key(tmp_path: Path, mode: str) -> None:
    line = line_to(tmp_path, mode=mode)
    recipient = line("key", "new", "--output", "key.txt").out.strip()
    line("save", NAME, stdin="[1]")
    assert line("jobs", "run", mode, SELINE_EXPORTS__ENCRYPT_TO=recipient).code == 0

    listed = line("exports", "list", "bucket", "--json").value()["copies"]
    assert listed[0]["documents"] == 1
    assert line("exports", "fetch", "bucket", "back").code == 8
    ran = line("exports", "fetch", "bucket", "back", "--identity", "key.txt")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "back" / NAME).read_bytes()) == [1]
    other = line("key", "new", "--output", "other.txt")
    assert other.code == 0
    assert line("exports", "fetch", "bucket", "none", "--identity", "other.txt").code == 8


def changed(line: Line) -> None:
    """Change, delete and add a document after the copy."""
    line("save", "gone.json", stdin='{"kept": true}')
    copied(line)
    line("save", NAME, stdin='{"n": "wrong"}')
    line("delete", "gone.json", "--purge", "--yes")
    line("save", "later.json", stdin="[]")


def test_a_copy_is_restored_onto_the_running_store_and_undone(line: Line) -> None:
    changed(line)
    with served(line):
        dry = line("exports", "restore", "bucket", "--dry-run", "--json").value()
        assert (dry["created"], dry["changed"]) == (["gone.json"], [NAME])
        assert dry["purged"] == ["gone.json"]
        assert line("load", NAME).value() == {"n": "wrong"}
        done = line("exports", "restore", "bucket", "--yes")
        assert done.code == 0, done.err
        assert "purged since that copy: 1  gone.json" in done.err
        assert line("load", NAME).value() == {"n": 1}
        assert line("load", "gone.json").value() == {"kept": True}
        assert line("load", "later.json").value() == []
        again = line("exports", "restore", "bucket", "--yes")
        assert "would change nothing" in again.err


@pytest.mark.prove
def test_a_newer_copy_that_cannot_be_read_is_named(line: Line, tmp_path: Path) -> None:
    """The fetch and the restore take the copy before it, and both name the reason."""
    time.sleep(1.1)  # the next copy has another instant
    line("save", NAME, stdin='{"n": 2}')
    copied(line)
    newest = max((tmp_path / "bucket").glob("seline-mirror/*/heads/*"))
    newest.write_bytes(b"{")
    for export in (tmp_path / "bucket").glob("seline-2*"):
        shutil.rmtree(export)

    fetched = line("exports", "fetch", "bucket", str(tmp_path / "out"))
    restored = line("exports", "restore", "bucket", "--yes")
    for done in (fetched, restored):
        assert done.code == 0, done.err
        assert re.search(rf"Not taken: the copy of .* is not whole: {newest.stem}", done.err)
    assert line("load", NAME).value() == {"n": 1}


@pytest.mark.prove
def test_one_document_of_a_copy_is_restored_without_a_server(line: Line) -> None:
    changed(line)
    done = line("exports", "restore", "bucket", "--only", NAME, "--yes")
    assert (done.code, line("load", NAME).value()) == (0, {"n": 1}), done.err
    assert line("load", "gone.json").code == 4
    unknown = line("exports", "restore", "bucket", "--only", "no.json", "--yes")
    assert (unknown.code, "copy does not hold no.json" in unknown.err) == (5, True)


@pytest.mark.prove
def test_a_copy_is_restored_onto_a_new_volume(line: Line) -> None:
    shutil.rmtree(line.data)
    done = line("exports", "restore", "bucket", "--yes")
    assert (done.code, line("load", NAME).value()) == (0, {"n": 1}), done.err
    assert "ANOTHER volume" not in done.err


@pytest.mark.prove
def test_a_preview_of_a_restore_makes_no_store(line: Line) -> None:
    shutil.rmtree(line.data)
    dry = line("exports", "restore", "bucket", "--dry-run")
    assert (dry.code, f"created: 1  {NAME}" in dry.err) == (0, True), dry.err
    assert "ANOTHER volume" not in dry.err
    assert not line.data.exists()
    assert not list((line.folder / "scratch").iterdir())


@pytest.mark.prove
def test_a_restore_after_a_start_that_restored_says_what_that_was(line: Line) -> None:
    shutil.rmtree(line.data)
    with served(line):
        done = line("exports", "restore", "bucket", "--yes")
    assert done.code == 0
    assert "would change nothing" in done.err
    assert re.search(r"Restored 1 document as of [\d :-]+ UTC from bucket; the volume", done.err)


@pytest.mark.prove
def test_a_restore_onto_a_volume_with_documents_says_that_the_copy_is_anothers(line: Line) -> None:
    shutil.rmtree(line.data)
    line("save", "own.json", stdin="1", SELINE_EXPORTS__RESTORE_FROM="off")
    done = line("exports", "restore", "bucket", "--yes")
    assert (done.code, "ANOTHER volume" in done.err) == (0, True), done.err


def test_an_encrypted_copy_is_restored_and_drilled_with_the_identity(tmp_path: Path) -> None:
    line = line_to(tmp_path, mode="mirror")
    recipient = line("key", "new", "--output", "key.txt").out.strip()
    line = line_at(tmp_path, **line.environ, SELINE_EXPORTS__ENCRYPT_TO=recipient)
    line("save", NAME, stdin="[1]")
    copied(line)
    line("save", NAME, stdin="[2]")

    assert line("exports", "restore", "bucket", "--yes").code == 8
    done = line("exports", "restore", "bucket", "--yes", "--identity", "key.txt")
    assert (done.code, line("load", NAME).value()) == (0, [1]), done.err
    assert line("drill", "bucket").code == 8
    drilled = line("drill", "bucket", "--identity", "key.txt")
    assert drilled.code == 0, drilled.err
    [copy] = line("exports", "list", "bucket", "--json").value()["copies"]
    assert copy["proven_by"].startswith("person at ")
    assert not list((tmp_path / "scratch").iterdir())


def test_a_damaged_copy_is_listed_with_what_is_wrong(line: Line, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    [head] = bucket.glob("seline-mirror/*/heads/*")
    [manifest] = bucket.glob("*/manifest.json")
    for path in (head, manifest):
        path.write_text("{")
    listed = line("exports", "list", "bucket")
    assert "bucket has no copy" not in listed.err
    for name in (head.stem, manifest.parent.name):
        [row] = [row for row in listed.out.splitlines() if row.startswith(name)]
        assert "it is damaged: " in row
        assert "encrypted" not in row
    for copy in line("exports", "list", "bucket", "--json").value()["copies"]:
        assert copy["documents"] is None
    assert "seline exports list bucket" in line("exports", "restore", "bucket", "--yes").err


def test_a_drill_of_a_damaged_copy_leaves_no_proof(tmp_path: Path) -> None:
    line = line_to(tmp_path, mode="mirror")
    line("save", NAME, stdin="[1]")
    copied(line)
    [content] = (tmp_path / "bucket").rglob("objects/*")
    flip(content)
    assert line("drill", "bucket").code == 3
    assert not list((tmp_path / "bucket").rglob("proofs/*"))
    assert not list((tmp_path / "scratch").iterdir())


def test_a_key_is_not_sent_to_another_machine_unencrypted(tmp_path: Path) -> None:
    line = line_to(tmp_path)
    line("key", "new", "--output", "key.txt")
    there = ("--url", "http://bot.example.org", "--identity", "key.txt")
    ran = line("exports", "restore", "bucket", *there)
    assert (ran.code, "unencrypted" in ran.err) == (2, True)


def test_a_command_waits_for_a_copy_that_outlasts_one_run_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy ends with the process, and a run reports no failure after so long."""
    line = line_to(tmp_path, mode="mirror")
    line("save", "a.json", stdin="[1]")
    monkeypatch.setattr("seline.operations.mirrors.WAIT_S", 0.0)
    environ = {**line.environ, "SELINE_DATA_DIR": str(line.data)}

    ran = CliRunner().invoke(front, ["jobs", "run", "mirror"], env=environ)

    assert ran.exit_code == 0, ran.output
    assert "1 content for 1 document" in ran.output
    assert len(line("exports", "list", "bucket", "--json").value()["copies"]) == 1
