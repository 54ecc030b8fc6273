"""What is no document: health, verify, exports and imports name it, and its next step works."""

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from seline import open_seline
from seline.cli.verbs import front
from seline.cures import not_regular, step_for_file
from seline.domain.left_out import (
    AFTER_IMPORT,
    LEAVE_IT,
    Entry,
    FileKind,
    FreeNames,
    ScannedFolder,
    left_out,
    quoted,
    shown_name,
    valid_name,
)
from seline.operations.exports import Exporter
from seline.outbound.destinations.folder import Folder
from seline.ports.destinations import Target
from seline.scan import scan
from tests.command_line import Line, Ran, line_at

Make = Callable[[Path], object]
LATIN_1: Final = os.fsdecode(b"caf\xe9.json")
RENAMED: Final[dict[str, str]] = {
    "user profile.json": "user_profile.json",
    "Étoile.json": "Etoile.json",
    "x.JSON": "x.json",
    "_private.json": "private.json",
    "日本.json": "u65e5_672c.json",
    LATIN_1: "caf_.json",
    "it's `a`\n.json": "it_s_a_.json",
    "n" * 120 + ".json": "n" * 95 + ".json",
}
"""A file's name, and the document that following its next step makes."""


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Return a command line on a data directory with one document."""
    line = line_at(tmp_path, SELINE_STORAGE__SETTLE_S="0")
    assert line("save", "kept.json", stdin="{}").code == 0
    return line


def verified(line: Line) -> dict[str, dict[str, str]]:
    """Return what verify leaves out, by name."""
    report = line("verify", "--json").value()
    assert report["left_out_count"] == len(report["left_out"])
    return {item["name"]: item for item in report["left_out"]}


def follow(line: Line, hint: str) -> None:
    """Run the command of a next step as it is printed; an import is confirmed."""
    [command] = re.findall(r": `(.*)`", hint, re.DOTALL)
    if command.startswith("seline "):
        done = line(*shlex.split(command)[1:], "--yes")
        assert done.code == 0, done.err
    else:
        subprocess.run(["sh", "-ec", command], cwd=line.folder, check=True, timeout=10)


def documents(line: Line) -> set[str]:
    return {document["name"] for document in line("documents", "--json").value()["documents"]}


def left_out_check(line: Line) -> dict[str, Any] | None:
    checks = line("status", "--json").value()["checks"]
    return next((check for check in checks if check["name"] == "left_out"), None)


@pytest.mark.one_in(3)
@pytest.mark.follows("domain/left_out:_file*")
@pytest.mark.follows("domain/left_out:_file*")
@pytest.mark.parametrize("name", RENAMED)
def test_a_file_without_a_documents_name_is_named_and_its_next_step_makes_it_one(
    line: Line, name: str
) -> None:
    (line.data / name).write_text('{"a": 1}', encoding="utf-8")

    found = verified(line)
    check = left_out_check(line)

    assert list(found) == [shown_name(name)]
    assert check is not None
    assert (check["status"], shown_name(name) in check["detail"]) == ("info", True)
    assert check["fix"] == found[shown_name(name)]["hint"]
    follow(line, check["fix"])
    assert line("load", RENAMED[name]).value() == {"a": 1}
    assert verified(line) == {}
    assert left_out_check(line) is None


def folder(name: str) -> Make:
    return lambda data: (data / name).mkdir()


def nested(data: Path) -> None:
    (data / "guilds" / "1").mkdir(parents=True)
    (data / "guilds" / "1.json").write_text('{"guild": 1}', encoding="utf-8")
    (data / "guilds" / "1" / "rôles.json").write_text("[2]", encoding="utf-8")


def linked(data: Path) -> None:
    (data.parent / "elsewhere.json").write_text('{"linked": true}', encoding="utf-8")
    (data / "link.json").symlink_to(data.parent / "elsewhere.json")


OTHERS: Final[dict[str, tuple[Make, str, set[str]]]] = {
    "guilds/": (nested, "2 .json files in a folder", {"guilds_1.json", "guilds_1_roles.json"}),
    "link.json": (linked, "a link, and Seline follows none", {"link.json"}),
    "folder.json/": (folder("folder.json"), "a folder with a document's name", set()),
    "metadata.json": (
        lambda data: (data / "metadata.json").write_text('{"mine": 1}', encoding="utf-8"),
        "Seline keeps its own report there",
        {"metadata_2.json"},
    ),
    "pipe": (lambda data: os.mkfifo(data / "pipe"), "it is no regular file", set()),
}
"""What is made, why it is left out, and the documents after its next step."""


@pytest.mark.one_in(3)
@pytest.mark.follows("domain/left_out:_folder*")
@pytest.mark.follows("domain/left_out:_folder*")
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_regular_file_is_named_and_its_next_step_works(line: Line, name: str) -> None:
    make, reason, made = OTHERS[name]
    make(line.data)

    found = verified(line)

    assert list(found) == [name]
    assert reason in found[name]["reason"]
    follow(line, found[name]["hint"])
    assert documents(line) == {"kept.json", *made}
    if "then move the folder out" in found[name]["hint"]:
        (line.data / name).rename(line.folder / "moved")
    assert verified(line) == {}


@pytest.mark.follows("domain/left_out:left_out_inside")
@pytest.mark.follows("domain/left_out:left_out_inside")
def test_what_is_not_json_is_named_without_a_warning(line: Line) -> None:
    (line.data / "bot.db").write_bytes(b"SQLite format 3\0")
    (line.data / "backups" / "notes.txt").write_text("mine", encoding="utf-8")
    (line.data / "logs").mkdir()
    (line.data / "logs" / "bot.log").write_text("x", encoding="utf-8")

    found = verified(line)

    assert set(found) == {"backups/", "bot.db", "logs/"}
    assert "1 file without a backup's name: notes.txt" in found["backups/"]["reason"]
    assert "copy it yourself" in found["bot.db"]["hint"]
    assert "3 names are not kept by Seline" in line("status").out


@pytest.mark.prove
@pytest.mark.follows("operations/checks:_left_out")
@pytest.mark.follows("operations/checks:_left_out")
def test_the_sums_count_what_is_left_out(line: Line) -> None:
    """`whole` and `No damage` are printed alone only if nothing is left out."""
    assert "No damage.\n" in line("verify").err
    assert "The export is whole" in line("export", "a.json").err
    assert "The export is whole" in line("export", "folder").err

    for number in range(12):
        (line.data / f"user {number:02}.json").write_text("{}", encoding="utf-8")

    for done in (line("export", "b.json"), line("export", "folder 2"), line("export")):
        assert "is whole" not in done.err
        assert "12 names are not kept by Seline: user 00.json" in done.err
        assert "user 09.json and 2 more" in done.err
    sums = line("verify").err
    assert "No damage in what Seline keeps." in sums
    assert "12 names" in sums
    assert sums.count("rename it: `mv -n") == 12


async def test_the_export_job_names_what_is_not_in_it(tmp_path: Path) -> None:
    async with open_seline(tmp_path / "data") as seline:
        await seline.data.save_json("a.json", {})
        (tmp_path / "data" / "user profile.json").write_text("{}", encoding="utf-8")
        target = Target(Folder("nas", str(tmp_path / "nas")), 7, same_disk=True)
        job = Exporter(seline.store, [target], version="1")

        assert "not in it, as Seline does not keep it: user profile.json" in await job.run()


async def test_the_export_job_names_the_deleted_documents_whose_backups_it_lacks(
    tmp_path: Path,
) -> None:
    async with open_seline(tmp_path / "data") as seline:
        for value in (1, 2):
            for name in ("gone.json", "kept.json"):
                await seline.data.save_json(name, value)
        job = Exporter(seline.store, [Target(Folder("nas", str(tmp_path / "nas")), 7)], version="1")
        await seline.data.delete("gone.json")

        for outcome in ("read back", "nothing changed"):
            line = await job.run()
            assert outcome in line
            assert "; not in it: 2 backups of deleted documents: gone.json" in line
        await seline.data.delete("gone.json", purge=True)
        assert "not in it" not in await job.run()


# an older bot's folder


@pytest.fixture
def old(line: Line) -> Path:
    """Give an older bot's folder with one usable file and much that an import leaves out."""
    old = line.folder / "old data"
    for name in ("backups", "conversation_history", "guilds/1", "empty"):
        (old / name).mkdir(parents=True)
    files = {
        "user_profile.json": '{"n": 3}',
        "metadata.json": '{"mine": 1}',
        "notes.txt": "no JSON",
        "backups/user_profile_20250106_143022.json": '{"n": 1}',
        "backups/user_profile_20250106_152314.json": '{"n": 2}',
        "conversation_history/2025.json": "[]",
        "guilds/1/config.json": '{"guild": 1}',
    }
    for name, text in files.items():
        (old / name).write_text(text, encoding="utf-8")
    os.mkfifo(old / "backups" / "user_profile_20250106_160000.json")
    return old


def steps(done: Ran) -> dict[str, str]:
    """Return the next step of each thing that an import names; that of backups comes after it."""
    found = re.findall(r"^(?:left out|unusable): (\S.*?): .*\n  (.*)$", done.err, re.MULTILINE)
    copying = re.findall(r"^To restore from the older backups.*$", done.err, re.MULTILINE)
    return dict(found) | dict(zip(["backups/"], copying, strict=False))


@pytest.mark.follows("cli/imports:_notify_copies")
def test_an_import_names_all_that_it_omits_and_each_next_step_works(line: Line, old: Path) -> None:
    (old / "backups" / "notes.txt").write_text("mine", encoding="utf-8")
    done = line("import", str(old), "--yes")

    assert done.code == 0, done.err
    assert "documents are imported; 1 file without a backup's name: notes.txt" in done.err
    assert "renamed: metadata.json becomes metadata_2.json" in done.err
    found = steps(done)
    assert set(found) == {"backups/", "conversation_history/", "guilds/", "notes.txt"}
    assert "backups/: 3 backups, and only documents are imported" in done.err
    for name in ("backups/", "conversation_history/", "guilds/"):
        follow(line, found[name])
    assert documents(line) == {
        "kept.json", "user_profile.json", "metadata_2.json", "conversation_history_2025.json",
        "guilds_1_config.json",
    }  # fmt: skip
    backups = line("backups", "user_profile.json", "--json").value()["backups"]
    assert [backup["name"][-20:] for backup in backups] == [
        "20250106_152314.json", "20250106_143022.json",
    ]  # fmt: skip
    assert line("restore", "user_profile.json", "--yes").code == 0
    assert line("load", "user_profile.json").value() == {"n": 2}


def test_backups_are_copied_after_an_import_and_also_if_it_changes_nothing(
    line: Line, old: Path
) -> None:
    """A preview makes no store, so a copy then would fail."""
    assert steps(line("import", str(old), "--dry-run"))["backups/"] == AFTER_IMPORT
    assert line("import", str(old), "--yes").code == 0
    assert steps(line("import", str(old), "--dry-run"))["backups/"] == AFTER_IMPORT

    follow(line, steps(line("import", str(old), "--yes"))["backups/"])
    assert len(line("backups", "user_profile.json", "--json").value()["backups"]) == 2


@pytest.mark.parametrize("text", ["[" * 9 + "]" * 9, ""], ids=["too deep", "none"])
def test_backups_are_copied_into_a_new_store_also_if_no_document_can_be_imported(
    line: Line, old: Path, text: str
) -> None:
    shutil.rmtree(line.data)
    for name in ("metadata.json", "user_profile.json"):
        (old / name).write_text(text)
        if not text:
            (old / name).unlink()
    limit = {"SELINE_STORAGE__DEPTH_MAX": "5"}
    new = ("import", str(old), "--skip-broken", "--data-dir", "new")

    done = line(*new, "--yes", "--mode", "replace", **limit)

    assert (done.code, "it holds no documents" in done.err) == (0, True), done.err
    follow(line, steps(done)["backups/"])
    assert line("restore", "user_profile.json", "--yes", "--data-dir", "new").code == 0
    assert line(*new, "--yes", "--mode", "replace", **limit).code == 0
    assert line("load", "user_profile.json", "--data-dir", "new").value() == {"n": 2}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_backups_that_root_copies_are_the_users_whose_store_it_is(line: Line, old: Path) -> None:
    os.chown(line.data, 4321, 4321)

    follow(line, steps(line("import", str(old), "--yes"))["backups/"])

    assert {path.stat().st_uid for path in (line.data / "backups").iterdir()} == {4321}


def test_copying_names_each_backup_whose_name_is_taken_by_another(line: Line, old: Path) -> None:
    [step] = re.findall(r"`(.*)`", steps(line("import", str(old), "--yes"))["backups/"])

    def copied() -> str:
        ran = subprocess.run(
            ["sh", "-ec", step],
            cwd=line.folder,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return ran.stdout.decode()

    assert (copied(), copied()) == ("", "")
    taken = "user_profile_20250106_143022.json"
    (old / "backups" / taken).write_text("[3]", encoding="utf-8")

    assert f" data/backups/{taken} differ" in copied()
    assert (line.data / "backups" / taken).read_text(encoding="utf-8") == '{"n": 1}'


def test_no_backups_are_copied_to_a_volume_on_which_they_would_be_rotated(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("setxattr", "getxattr"):
        monkeypatch.setattr(os, call, unsupported)

    store = str(old.parent / "data")
    done = CliRunner().invoke(front, ["import", str(old), "--data-dir", store, "--yes"])

    assert f"The backups stay in {old}/backups/: here they would be rotated." in done.output
    assert "cp -n" not in done.output


def unsupported(*_arguments: object, **_options: object) -> bytes:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


def test_a_next_step_names_the_store_that_the_import_named(line: Line, old: Path) -> None:
    done = line("import", str(old), "--data-dir", "another store", "--yes")

    found = steps(done)
    follow(line, found["guilds/"])
    follow(line, found["backups/"])
    listed = line("documents", "--data-dir", "another store", "--json").value()["documents"]
    assert "guilds_1_config.json" in {document["name"] for document in listed}
    assert "guilds_1_config.json" not in documents(line)


def test_a_link_in_an_older_folder_is_named_and_its_next_step_works(line: Line, old: Path) -> None:
    linked(old)

    refused = line("import", str(old), "--yes")

    assert refused.code == 5
    follow(line, steps(refused)["link.json"])
    assert line("import", str(old), "--yes").code == 0
    assert line("load", "link.json").value() == {"linked": True}


def test_a_special_file_in_an_older_folder_is_named(line: Line, old: Path) -> None:
    os.mkfifo(old / "pipe.json")

    refused = line("import", str(old), "--yes")

    assert refused.code == 5
    follow(line, steps(refused)["pipe.json"])
    assert line("import", str(old), "--yes").code == 0


def test_the_state_of_a_store_in_the_folder_is_named_and_never_imported(
    line: Line, tmp_path: Path
) -> None:
    """Neither in the folder itself nor further down, while that store is open or not."""
    bots = tmp_path / "bots"
    for number, data_dir in enumerate((bots, bots / "b")):
        assert line("save", "a.json", "--data-dir", str(data_dir), stdin=f"[{number}]").code == 0
        aside = data_dir / "quarantine" / "a_20250106_143022.seline.json"
        aside.write_text("[2]", encoding="utf-8")
    (bots / "c" / "quarantine").mkdir(parents=True)
    (bots / "c" / "quarantine" / "mine.json").write_text("[3]", encoding="utf-8")

    done = line("import", str(bots), "--prefix", "x_", "--yes")

    assert done.code == 0, done.err
    named = [
        f"{at}{name}" for at in ("", "b/") for name in (".seline/", "metadata.json", "quarantine/")
    ]
    assert sorted(steps(done)) == sorted(named)
    assert set(steps(done).values()) == {LEAVE_IT}
    assert documents(line) == {
        "kept.json", "x_a.json", "x_b_a.json", "x_c_quarantine_mine.json"
    }  # fmt: skip

    plain = line("import", str(bots), "--dry-run")
    assert {".seline/", "quarantine/", "metadata.json", "b/", "c/"} == set(steps(plain))
    assert "2 .json files in a folder" in plain.err


def test_an_import_says_whether_it_replaced_something(line: Line) -> None:
    export = line.folder / "e.json"
    for number, said in enumerate(("it replaced nothing", "replaced content is a backup now")):
        export.write_text(f'{{"files": {{"new.json": {{"n": {number}}}}}}}', encoding="utf-8")
        assert said in line("import", str(export), "--yes").err


# the listing


@pytest.mark.prove
def test_a_listing_is_bounded_and_linear(tmp_path: Path) -> None:
    """Twice the files take about twice the time; sub-folders are counted up to a limit."""
    for name in ("one", "two"):
        (tmp_path / name / "inner").mkdir(parents=True)
    for number in range(8_000):
        (tmp_path / "two" / f"日 {number}.json").touch()
        (tmp_path / "two" / "inner" / f"{number}.json").touch()
        if number < 4_000:
            (tmp_path / "one" / f"日 {number}.json").touch()

    durations = {}
    for name in ("one", "two"):
        began = time.perf_counter()
        found = left_out(scan(str(tmp_path / name), nested_max=5_000), ScannedFolder(path="x"))
        durations[name] = time.perf_counter() - began
    assert len(found) == 8_001
    assert "5,000 .json files" in found[0].reason
    assert durations["two"] < 8 * durations["one"] + 0.2


def test_a_folder_that_is_another_volume_is_not_listed(tmp_path: Path) -> None:
    nested(tmp_path)

    entries = scan(str(tmp_path), closed={"guilds": "another volume is mounted there"})

    assert [entry.path for entry in entries] == ["guilds"]
    [found] = left_out(entries, ScannedFolder(path=str(tmp_path), mounts=("guilds",)))
    assert "another volume is mounted there" in found.reason


def test_a_document_that_is_a_mount_of_its_own_is_named() -> None:
    entries = [Entry("a.json", FileKind.FILE), Entry("b.json", FileKind.FILE)]

    [found] = left_out(entries, ScannedFolder(path="/data", mounts=("b.json",)))

    assert found.name == "b.json"


def test_a_document_costs_no_quoted_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health lists every document; only what is left out has a next step with its path."""
    asked: list[str] = []
    monkeypatch.setattr(ScannedFolder, "at", lambda _, name: asked.append(name) or name)
    entries = [Entry(name, FileKind.FILE) for name in ("a.json", "b.json", "ä.json")]

    assert [item.name for item in left_out(entries, ScannedFolder(path="/data"))] == ["ä.json"]
    assert asked == ["a_2.json", "ä.json"]


MOUNTS: Final = """
import json, subprocess, sys
from seline.blocking import open_seline

def left_out():
    return {item.name: (item.reason, item.hint) for item in seline.verify().left_out}

for outside, name in (("outside", "guilds"), ("outside/1.json", "bound.json")):
    subprocess.run(["mount", "--bind", outside, f"data/{name}"], check=True)
with open_seline("data") as seline:
    found = left_out()
    for _, hint in found.values():
        subprocess.run(hint.split("`")[1], shell=True, check=True)
    print(json.dumps([found, left_out()]))
"""


def test_a_mount_in_the_data_directory_is_named_and_its_next_step_works(line: Line) -> None:
    """A folder or a single document; the mounts are in a namespace of this test's own."""
    (line.folder / "outside").mkdir()
    (line.folder / "outside" / "1.json").write_text("[1]", encoding="utf-8")
    (line.data / "guilds").mkdir()
    (line.data / "bound.json").write_text("[0]", encoding="utf-8")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace of this test's own")
    ran = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", MOUNTS],
        cwd=line.folder, env=dict(line.environ), capture_output=True, check=True,
    )  # fmt: skip
    before, after = json.loads(ran.stdout)

    assert sorted(before) == ["bound.json", "guilds/"]
    assert "it can be read, and not saved" in before["bound.json"][0]
    assert "another volume is mounted there" in before["guilds/"][0]
    assert after == {}


def test_names_that_become_equal_get_numbers_in_linear_time() -> None:
    names = FreeNames(["a_b.json"])

    began = time.perf_counter()
    made = [names.name(f"a{chr(0x4E00 + number)}b.json") for number in range(5_000)]

    assert made[:2] == ["a_b_2.json", "a_b_3.json"]
    assert len(set(made)) == 5_000
    assert time.perf_counter() - began < 2


def test_a_shell_reads_every_quoted_name_back() -> None:
    for name in (*RENAMED, "-rf", "a\tb", "back\\slash", "$(x)", "50%\n.json"):
        printed = subprocess.run(
            ["sh", "-c", f"printf %s {quoted(name)}"], capture_output=True, check=True
        ).stdout
        assert printed == os.fsencode(name)
        assert shown_name(name).isprintable()
    assert valid_name("guilds_") == "guilds_.json"


ODD: Final = (
    "a.json\n", "a.json\n\n", "\n", "a\n.json", "\na.json\n", "a.json\t", "a'`\\\n", LATIN_1 + "\n",
    "a.json ",
)  # fmt: skip


@pytest.mark.parametrize("name", ODD, ids=ascii)
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_step_acts_on_the_file_with_line_breaks_and_on_none_beside_it(
    tmp_path: Path, name: str, shell: str
) -> None:
    beside = {name.rstrip(), name.strip(), "a.json"} - {name, ""}
    for number, other in enumerate(sorted(beside)):
        (tmp_path / other).write_text(str(number), encoding="utf-8")
    file, kept = tmp_path / name, content(tmp_path)

    def run(hint: str) -> None:
        [command] = re.findall(r"`([^`]*)`", hint)
        assert command.isprintable()
        subprocess.run([shell, "-ec", command], check=True, timeout=10)

    os.mkfifo(file)
    run(not_regular(str(file)).hint)
    assert content(tmp_path) == kept
    file.symlink_to("nowhere")
    run(not_regular(str(file)).hint)
    assert content(tmp_path) == kept
    file.write_bytes(b"\xe9")
    run(step_for_file("Convert it: `iconv -f latin1 -t utf-8`.", str(file)))
    assert content(tmp_path) == {**kept, name: "é".encode(), f"{name}.original": b"\xe9"}
    entries = [Entry(each, FileKind.FILE) for each in (*beside, name)]
    found = left_out(entries, ScannedFolder(path=str(tmp_path)))
    hint = next(item.hint for item in found if item.name == shown_name(name))
    if "mv -n" in hint:
        run(hint)
        assert not file.exists()
    assert kept.items() <= content(tmp_path).items()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
