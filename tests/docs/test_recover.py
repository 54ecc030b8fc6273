"""Each scenario of docs/recover.md, with the commands as the page prints them."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.command_line import Line, line_at, served
from tests.docs.blocks import ROOT, blocks
from tests.hints.following import shell
from tests.integration.test_cli_copies import copied, line_to
from tests.integration.test_pending_restore import RESTORE_WITH_KEY

PAGE = (ROOT / "docs" / "recover.md").read_text(encoding="utf-8")
PROFILE = "user_profile.json"
ASKING = ("restore", "import")


def commands(heading: str) -> list[str]:
    """Return the command lines of a section."""
    text = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return [command for block in found for command in block.splitlines()]


def run(line: Line, command: str) -> str:
    """Run a printed command as a person who answers its question with yes."""
    words = shlex.split(command)
    assert words[0] == "seline", command
    asks = words[1] in ASKING or words[1:3] == ["exports", "restore"]
    ran = line(*words[1:], *["--yes"] * asks)
    assert ran.code == 0, f"{command}\n{ran.err}"
    return ran.out


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Return a command line on a mirrored volume: a document with a backup, and a deleted one."""
    line = line_to(tmp_path, mode="mirror")
    for location in ("Paris", "Lyon"):
        line("save", PROFILE, stdin=json.dumps({"location": location}))
    line("save", "deleted.json", stdin="[1]")
    line("delete", "deleted.json", "--yes")
    copied(line)
    return line


def test_the_volume_is_gone(line: Line) -> None:
    backups = {path.name for path in (line.data / "backups").iterdir()}
    shutil.rmtree(line.data)
    listing, serve, with_key = commands("The volume is gone")
    assert with_key == RESTORE_WITH_KEY
    assert "mirror" in run(line, listing)
    assert serve == "seline serve"
    with served(line):
        assert line("load", PROFILE).value() == {"location": "Lyon"}
        assert line("restore", "deleted.json", "--yes").code == 0
        while "the volume was empty" not in line("alerts").out:
            pass
    assert backups <= {path.name for path in (line.data / "backups").iterdir()}


@pytest.mark.prove
def test_the_machine_is_gone(line: Line, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    shutil.rmtree(line.data)
    destinations = line.environ["SELINE_EXPORTS__DESTINATIONS"]
    new = line_at(
        tmp_path / "new",
        SELINE_EXPORTS__DESTINATIONS=destinations,
        RAILWAY_ENVIRONMENT="production",
        RAILWAY_VOLUME_MOUNT_PATH="/data",
        SELINE_STORAGE__REQUIRE_MOUNT="false",  # as the page says for `railway run`
    )
    for command in commands("The machine is gone"):
        run(new, command)
    assert json.loads((tmp_path / "new" / "restored" / PROFILE).read_bytes()) == {
        "location": "Lyon"
    }
    for directory in ("restored", "data"):
        assert new("load", PROFILE, "--data-dir", directory).value() == {"location": "Lyon"}
        assert new("restore", PROFILE, "--data-dir", directory, "--yes").code == 0
        assert new("load", PROFILE, "--data-dir", directory).value() == {"location": "Paris"}


@pytest.mark.prove
def test_an_earlier_seline_must_open_the_volume(line: Line) -> None:
    journal = {"SELINE_STORAGE__JOURNAL_BYTES": "262144"}
    assert line("save", PROFILE, stdin='{"location": "Nice"}', **journal).code == 0
    assert (line.data / ".seline" / "format").read_text() == "2\n"
    [command] = commands("An earlier Seline must open the volume")
    run(line, command)

    assert (line.data / ".seline" / "format").read_text() == "1\n"
    assert json.loads((line.data / PROFILE).read_bytes()) == {"location": "Nice"}


@pytest.mark.prove
def test_one_document_is_wrong(line: Line) -> None:
    backups, restore, from_a_copy = commands("One document is wrong")
    line("save", PROFILE, stdin='{"location": "wrong"}')
    assert "_" in run(line, backups)
    run(line, restore)
    assert line("load", PROFILE).value() == {"location": "Lyon"}
    line("delete", PROFILE, "--purge", "--yes")
    run(line, re.sub(r"'20.*'", "'2999-01-01 00:00'", from_a_copy))
    assert line("load", PROFILE).value() == {"location": "Lyon"}


@pytest.mark.prove
def test_the_key_is_lost(line: Line, tmp_path: Path) -> None:
    old = line("key", "new", "--output", "old-key.txt").out.strip()
    copied(line_at(tmp_path, **line.environ, SELINE_EXPORTS__ENCRYPT_TO=old))
    (tmp_path / "old-key.txt").unlink()

    new_key, copy, drill = commands("The key is lost")
    recipient = run(line, new_key).strip()
    line = line_at(tmp_path, **line.environ, SELINE_EXPORTS__ENCRYPT_TO=recipient)
    run(line, copy)
    run(line, drill)

    shutil.rmtree(line.data)
    assert line("exports", "fetch", "bucket", "back", "--identity", "new-key.txt").code == 0
    assert {path.name for path in (tmp_path / "back").glob("*.json")} == {PROFILE}
    assert len([*(tmp_path / "back" / "backups").iterdir()]) == 2


@pytest.mark.prove
def test_a_document_is_erased_from_the_copies(line: Line, tmp_path: Path) -> None:
    """Delete all at the destination but the marker: a new copy has what is left, and only that."""
    line = line_to(tmp_path, mode="both")
    line("save", "private.json", stdin='"private"')
    copied(line)
    assert line("jobs", "run", "export").code == 0
    destinations = json.loads(line.environ["SELINE_EXPORTS__DESTINATIONS"])
    folder = Path(destinations[0]["url"].removeprefix("file://"))
    assert line("delete", "private.json", "--purge", "--yes").code == 0
    for path in folder.iterdir():
        if path.name != "seline-destination":
            shutil.rmtree(path)

    copied(line)
    assert line("jobs", "run", "export").code == 0
    assert line("exports", "fetch", "bucket", "left").code == 0
    assert {path.name for path in (tmp_path / "left").glob("*.json")} == {PROFILE}
    copies = line("exports", "list", "bucket", "--json").value()["copies"]
    assert [copy["documents"] for copy in copies] == [1, 1]


@pytest.mark.prove
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_everything_is_read_without_seline(
    line: Line, tmp_path: Path, is_encrypted: bool, installed: None
) -> None:
    recipient = line("key", "new", "--output", "key.txt").out.strip()
    sealed = {"SELINE_EXPORTS__ENCRYPT_TO": recipient} if is_encrypted else {}
    line = line_at(tmp_path, **line_to(tmp_path, mode="both").environ, **sealed)
    copied(line)
    line("save", "later.json", stdin="[2]")
    copied(line)
    copied(line, "export")
    plain, age_packs, zstd, age_zstd, unmirror = commands("Without Seline")
    [export] = (tmp_path / "bucket").glob("seline-2*")
    [mirror] = [path for path in (tmp_path / "bucket" / "seline-mirror").iterdir() if path.is_dir()]
    key = shlex.quote(str(tmp_path / "key.txt"))

    packs = (age_packs if is_encrypted else plain).replace("EXPORT", shlex.quote(str(export)))
    (tmp_path / "own").mkdir()
    shell(tmp_path / "own", packs.replace("key.txt", key))
    assert json.loads((tmp_path / "own" / "documents" / "later.json").read_bytes()) == [2]

    found = sorted((mirror / "objects").glob("*.age" if is_encrypted else "*.zst"))
    printed = (age_zstd if is_encrypted else zstd).replace("key.txt", key)
    read = [
        shell(tmp_path, re.sub(r"OBJECT\S+", shlex.quote(str(path)), printed)) for path in found
    ]
    assert {"location": "Lyon"} in [json.loads(content) for content in read]

    [code] = blocks("docs/recover.md", "python")
    (tmp_path / "unmirror.py").write_text(code)
    unmirror = unmirror.replace("seline-mirror/VOLUME", shlex.quote(str(mirror)))
    shell(tmp_path, unmirror.replace("python3", shlex.quote(sys.executable)))
    restored = tmp_path / "restored"
    assert json.loads((restored / PROFILE).read_bytes()) == {"location": "Lyon"}
    assert json.loads((restored / "later.json").read_bytes()) == [2]
    assert len([*(restored / "backups").iterdir()]) == 2
