"""`seline import`: an export, stdin, or an older bot's folder; all or nothing after a preview."""

import json
import os
import re
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from seline.cures import step_for_file
from seline.domain.document import METADATA_NAME, is_document_name
from seline.domain.json_codec import HINTS, decode_strict
from seline.domain.left_out import valid_name
from seline.domain.metadata import FIELDS
from seline.folders.export import import_body
from seline.folders.legacy import read_legacy_folder
from tests.command_line import Line, Ran, line_at

EXPORT = {"exported_at": "2025-01-06T14:30:22", "files": {"a.json": {"x": 1}, "b.json": [1, 2]}}


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_at(tmp_path)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Give an older bot's folder: two usable files, and others that an import leaves out."""
    folder = tmp_path / "old-data"
    (folder / "backups").mkdir(parents=True)
    write(folder, "user_profile.json", '{"userName": "Élodie"}')
    write(folder, "My Notes.JSON", "[1, 2]")
    write(folder, "metadata.json", json.dumps(dict.fromkeys(FIELDS)))
    write(folder, "notes.txt", "no JSON")
    write(folder / "backups", "user_profile_20250106_143022.json", '{"userName": "old"}')
    return folder


def write(folder: Path, name: str, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)


def names(line: Line) -> list[str]:
    return [document["name"] for document in line("documents", "--json").value()["documents"]]


@pytest.mark.parametrize("export", [EXPORT, {"success": True, "data": EXPORT}])
def test_an_export_is_imported_with_or_without_its_wrapper(line: Line, export: object) -> None:
    write(line.folder, "all.json", json.dumps(export))

    tried = line("import", "all.json", "--dry-run")
    assert (tried.code, "created: 2  a.json, b.json" in tried.err) == (0, True)
    assert line("import", "all.json").code == 2
    assert not line.data.exists(), "a preview makes no store"
    assert os.listdir(line.folder / "scratch") == []

    assert line("import", "all.json", "--yes").code == 0
    assert names(line) == ["a.json", "b.json"]
    assert line("load", "b.json").value() == [1, 2]


@pytest.mark.prove
def test_one_document_comes_back_from_an_export_folder(line: Line) -> None:
    """The documents that are not named keep what was saved since the export."""
    for name in ("a.json", "b.json", "c.json"):
        line("save", name, stdin='{"n": 1}')
    line("export", "exports")
    for name in ("a.json", "b.json", "c.json"):
        line("save", name, stdin='{"n": 2}')

    done = line("import", "exports", "--only", "a.json", "--only", "b.json", "--yes")

    assert done.code == 0, done.err
    values = [line("load", name).value()["n"] for name in ("a.json", "b.json", "c.json")]
    assert values == [1, 1, 2]
    assert line("import", "exports", "--only", "d.json", "--dry-run").code != 0


def test_a_preview_changes_nothing_in_a_directory_without_a_store(line: Line) -> None:
    """A document that is there without a store counts, as it will for the import."""
    write(line.folder, "all.json", json.dumps(EXPORT))
    line.data.mkdir()
    write(line.data, "notes.txt", "mine")

    assert "created: 2" in line("import", "all.json", "--dry-run").err
    assert os.listdir(line.data) == ["notes.txt"]

    write(line.data, "a.json", '{"old": 1}')
    assert "changed: 1  a.json" in line("import", "all.json", "--dry-run").err


def test_an_import_of_the_current_export_changes_nothing(line: Line) -> None:
    line("save", "big.json", stdin='{"n": 123456789012345678901234567890, "é": 1e22}')
    exported = line("export").out

    again = line("import", "-", "--yes", "--json", stdin=exported)

    assert again.value()["unchanged"] == ["big.json"]


def test_replace_deletes_other_documents_and_keeps_them_as_backups(line: Line) -> None:
    line("save", "gone.json", stdin='{"was": "here"}')

    done = line("import", "-", "--mode", "replace", "--yes", stdin=json.dumps(EXPORT))

    assert "deleted: 1  gone.json" in done.err
    assert names(line) == ["a.json", "b.json"]
    assert line("restore", "gone.json", "--yes").code == 0


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ('{"files": {"../evil.json": {}}}', "../evil.json"),
        ('{"userName": "Alex"}', "an export holds its documents there"),
        ('{"files": {}, "more": 1}', "this is no part of an export"),
        ('{"files": {"a.json": {"x": 1,}}}', "line 1, column"),
        ("", "The text on stdin is not JSON: empty file"),
    ],
)
def test_a_source_that_is_not_an_export_is_refused(line: Line, export: str, message: str) -> None:
    refused = line("import", "-", "--yes", stdin=export)

    assert refused.code == 5
    assert message in refused.err
    assert not line.data.exists() or names(line) == []


def test_an_older_bots_folder_is_imported_under_valid_names(line: Line, old: Path) -> None:
    done = line("import", str(old), "--yes")

    assert done.code == 0
    assert "renamed: My Notes.JSON becomes My_Notes.json" in done.err
    assert names(line) == ["My_Notes.json", "user_profile.json"]
    assert line("load", "user_profile.json").value() == {"userName": "Élodie"}
    assert line("quarantine", "--json").value() == {"quarantine": []}


def test_metadata_of_another_program_is_imported_under_a_new_name(line: Line, old: Path) -> None:
    write(old, "metadata.json", '{"mine": 1}')
    assert (
        "renamed: metadata.json becomes metadata_2.json"
        in line("import", str(old), "--dry-run").err
    )
    assert not (line.data / "metadata.json").exists(), "a preview writes no report"
    assert line("import", str(old), "--yes").code == 0
    assert line("load", "metadata_2.json").value() == {"mine": 1}


def test_an_unusable_file_refuses_the_folder_unless_it_is_skipped(line: Line, old: Path) -> None:
    write(old, "cut.json", '{"a": [1, 2')
    write(old, "twice.json", '{"a": 1,\n "a": 2}')
    (old / "away.json").symlink_to(line.folder / "elsewhere.json")
    write(line.folder, "elsewhere.json", '{"secret": true}')

    refused = line("import", str(old), "--yes")

    assert refused.code == 5
    assert "cut.json: cut off: the text ends too early (line 1, column 12)" in refused.err
    assert 'twice.json: duplicate key "a" (line 2, column 2)' in refused.err
    assert "away.json: it cannot be read: it is a link" in refused.err
    assert not line.data.exists() or names(line) == []

    assert line("import", str(old), "--yes", "--skip-broken").code == 0
    assert names(line) == ["My_Notes.json", "user_profile.json"]
    assert (old / "cut.json").read_text(encoding="utf-8") == '{"a": [1, 2'


def test_a_folder_without_json_is_refused(line: Line, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert line("import", "empty", "--yes").code == 5
    assert line("import", "not-there", "--yes").code == 1


@pytest.mark.prove
def test_an_export_folders_backups_come_back_too(line: Line) -> None:
    for value in ("[1]", "[2]"):
        line("save", "a.json", stdin=value)
    line("save", "b.json", stdin="{}")
    line("export", "exports")
    [kept] = [item["name"] for item in line("backups", "a.json", "--json").value()["backups"]]
    line("delete", "a.json", "--purge", "--yes")

    tried = line("import", "exports", "--dry-run")
    done = line("import", "exports", "--yes", "--json")

    assert (tried.code, done.code) == (0, 0)
    assert "backups added: 1" in tried.err
    assert (done.value()["created"], done.value()["backups"]) == (["a.json"], 1)
    assert line("load", "a.json").value() == [2]
    [again] = line("backups", "a.json", "--json").value()["backups"]
    assert again["name"] == kept
    assert "Nothing was changed" in line("import", "exports").err


@pytest.mark.prove
def test_no_backups_leaves_those_of_an_export_out(line: Line) -> None:
    for value in ("[1]", "[2]"):
        line("save", "a.json", stdin=value)
    line("export", "exports")
    line("delete", "a.json", "--purge", "--yes")

    assert line("import", "exports", "--yes", "--no-backups").code == 0

    assert line("load", "a.json").value() == [2]
    assert line("backups", "a.json", "--json").value()["backups"] == []


@pytest.mark.prove
def test_a_document_beyond_a_limit_is_left_out_of_an_export_folder(line: Line) -> None:
    line("save", "large.json", stdin=json.dumps("x" * 3000))
    line("save", "small.json", stdin="[1]")
    line("export", "exports")
    for name in ("large.json", "small.json"):
        line("delete", name, "--purge", "--yes")
    limit = {"SELINE_STORAGE__DOCUMENT_BYTES_MAX": "2000"}

    refused = line("import", "exports", "--yes", **limit)
    done = line("import", "exports", "--yes", "--skip-broken", **limit)

    assert refused.code == 5
    assert "left out: large.json" in done.err
    assert names(line) == ["small.json"]


def test_an_export_without_a_manifest_is_refused(line: Line, tmp_path: Path) -> None:
    export = tmp_path / "exports" / "seline-20250106T143022Z"
    export.mkdir(parents=True)
    write(export, "pack-0001.tar.zst", b"packed")

    for source in (export, export.parent):
        refused = line("import", str(source), "--yes")
        assert refused.code == 3
        assert "is not whole: it has no manifest.json" in refused.err


@pytest.mark.parametrize(
    ("content", "reason", "hint"),
    [
        (b"", "empty file", HINTS["empty file"]),
        (b"\0\0\0", "only NUL bytes", HINTS["only NUL bytes"]),
        (b'{"a": 1', "cut off", HINTS["cut off"]),
        (b"\xff\xfe{\0}", "broken UTF-16", HINTS["broken UTF-"]),
        (b"{\0}\0", "UTF-16LE", HINTS["UTF-16LE"]),
        (b'{"a": "\xe9"}', "not UTF-8 at byte 7", HINTS["not UTF-8"]),
        (b'{"a": NaN}', "NaN", HINTS["NaN"]),
        (b"{} {}", "something follows", HINTS["something follows after the end"]),
    ],
)
def test_each_kind_of_broken_file_has_a_hint(
    tmp_path: Path, content: bytes, reason: str, hint: str
) -> None:
    write(tmp_path, "broken.json", content)

    [found], _ = read_legacy_folder(str(tmp_path))

    assert reason in found.reason
    assert found.hint == step_for_file(hint, str(tmp_path / "broken.json"))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("My Notes.JSON", "My_Notes.json"),
        ("été.json", "ete.json"),
        ("métadata.json", "metadata.json"),
        (".hidden.json", "hidden.json"),
        ("a/b:c.json", "a_b_c.json"),
        ("x" * 200 + ".json", "x" * 95 + ".json"),
        ("...json", "u2e_2e.json"),
        ("日本.json", "u65e5_672c.json"),
    ],
)
def test_an_invalid_name_becomes_the_nearest_valid_one(file: str, name: str) -> None:
    made = valid_name(file)

    assert made == name
    assert is_document_name(made) or made == METADATA_NAME


def test_names_that_become_equal_get_numbers(tmp_path: Path) -> None:
    write(tmp_path, "a b.json", "1")
    write(tmp_path, "a:b.json", "2")
    write(tmp_path, "a_b.json", "3")

    files, _ = read_legacy_folder(str(tmp_path))

    assert {file.file: file.name for file in files} == {
        "a_b.json": "a_b.json",
        "a b.json": "a_b_2.json",
        "a:b.json": "a_b_3.json",
    }
    assert decode_strict(import_body({file.name: file.data for file in files})) == {
        "files": {"a_b.json": 3, "a_b_2.json": 1, "a_b_3.json": 2}
    }


@pytest.mark.parametrize("place", ["", "guilds"])
@pytest.mark.parametrize("name", ["backups", "quarantine"])
def test_dated_copies_in_a_sub_folder_do_not_become_documents(
    tmp_path: Path, place: str, name: str
) -> None:
    beside = tmp_path / place
    (beside / name).mkdir(parents=True)
    write(beside, "1.json", "{}")
    for copy in ("1_20250106_143022.json", "2_20250106_143022.json"):
        write(beside / name, copy, "{}")

    files, others = read_legacy_folder(str(tmp_path), prefix="x_")

    assert [os.path.basename(file.file) for file in files] == ["1.json"]
    [copies] = others
    assert copies.name == os.path.join(place, name, "")
    assert copies.reason == "2 dated files, and only documents are imported"
    write(beside / name, "mine.json", "{}")
    assert len(read_legacy_folder(str(tmp_path), prefix="x_")[0]) == 4, "one is no dated copy"


def test_dated_files_beside_none_of_their_documents_are_imported(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    write(tmp_path / "backups", "1_20250106_143022.json", "{}")

    assert len(read_legacy_folder(str(tmp_path), prefix="x_")[0]) == 1


def test_a_plan_names_the_document_that_a_renamed_file_replaces(line: Line, old: Path) -> None:
    line("save", "My_Notes.json", stdin='"of the store"')
    line("save", "user_profile.json", stdin='"of the store"')

    planned = line("import", str(old), "--dry-run").err

    assert "  changed: 2  My_Notes.json, user_profile.json" in planned
    assert "  replaced by a file of another name: My Notes.JSON (as My_Notes.json)" in planned


ARCHIVES = {
    "old.tar": "tar -cf old.tar old-data",
    "old.tar.gz": "tar -czf old.tar.gz old-data",
    "old.tgz": "tar -czf old.tgz -C old-data .",
    "old.tar.xz": "tar -cJf old.tar.xz old-data",
    "old.zip": "python3 -m zipfile -c old.zip old-data/user_profile.json",
    "an export.json.gz": "gzip -c export.json > 'an export.json.gz'",
    "exports.tar": "tar -cf exports.tar exports",
    "pack": "true",
}
"""An archive, and the command that makes it."""


@pytest.mark.one_in(3)
@pytest.mark.follows("cli/imports:_read_legacy#4")
@pytest.mark.parametrize("archive", ARCHIVES)
def test_an_archive_is_refused_with_the_commands_that_import_it(
    line: Line, old: Path, archive: str
) -> None:
    (old / "My Notes.JSON").unlink()
    line("save", "user_profile.json", stdin='{"userName": "Élodie"}')
    assert line("export", "export.json").code == 0
    exported = line("export", "exports").out.strip()
    line("delete", "user_profile.json", "--purge", "--yes")
    subprocess.run(["bash", "-ec", ARCHIVES[archive]], cwd=line.folder, check=True)
    source = f"{exported}/pack-0001.tar.zst" if archive == "pack" else archive

    refused = line("import", source, "--yes")

    assert (refused.code, "is an archive; nothing was changed." in refused.err) == (5, True)
    done = follow(line, refused)
    if done.code:  # the archive holds the folder with the files
        assert "holds no .json file" in done.err
        done = follow(line, done)
    assert done.code == 0, done.err
    assert line("load", "user_profile.json").value() == {"userName": "Élodie"}


def follow(line: Line, ran: Ran) -> Ran:
    """Run the commands of a next step as they are printed; the import is confirmed."""
    [commands] = re.findall(r"Next: .*?`(.*)`", ran.err)
    *before, last = commands.split(" && ")
    given = b""
    if " | " in last:
        pipe, last = last.split(" | ")
        given = subprocess.run(
            ["bash", "-ec", pipe], cwd=line.folder, check=True, capture_output=True
        ).stdout
    for command in before:
        subprocess.run(["bash", "-ec", command], cwd=line.folder, check=True)
    return line(*shlex.split(last)[1:], "--yes", stdin=given)


@pytest.mark.follows("cli/imports:_notify_beside")
def test_what_is_beside_exports_is_named_and_its_next_step_imports_it(line: Line) -> None:
    line("save", "a.json", stdin="[1]")
    line("export", "exports")
    write(line.folder / "exports", "user profile.json", '{"n": 1}')

    done = line("import", "exports", "--yes")

    assert done.code == 0
    assert "Not imported, as it is no export: 1 name in exports: user profile.json." in done.err
    assert follow(line, done).code == 0
    assert line("load", "user_profile.json").value() == {"n": 1}


@pytest.mark.parametrize("text", ["l’été, 5 €", "naïve"])
def test_text_from_windows_is_shown_and_read_as_the_next_step_says(line: Line, text: str) -> None:
    """No character of it becomes a control character."""
    folder = line.folder / "old"
    folder.mkdir()
    original = json.dumps({"text": text}, ensure_ascii=False).encode("cp1252")
    write(folder, "a.json", original)

    refused = line("import", "old", "--yes")

    assert refused.code == 5
    assert f'read as Windows-1252: \'{{"text": "{text}'[:40] in refused.err
    [command] = re.findall(r"`(iconv .*?)`", refused.err)
    subprocess.run(["bash", "-ec", command], cwd=line.folder, check=True)
    assert line("import", "old", "--yes").code == 0
    assert line("load", "a.json").value() == {"text": text}
    assert (folder / "a.json.original").read_bytes() == original


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_taken_wherever_a_text_comes_in(line: Line, encoding: str) -> None:
    folder = line.folder / "old"
    folder.mkdir()
    write(folder, "a.json", '{"city": "Orléans"}'.encode(encoding))
    write(line.folder, "all.json", '{"files": {"b.json": "Orléans"}}'.encode(encoding))

    assert line("save", "c.json", "old/a.json").code == 0
    assert line("import", "old", "--yes").code == 0
    assert line("import", "all.json", "--yes").code == 0

    assert line("load", "a.json").value() == line("load", "c.json").value() == {"city": "Orléans"}
    assert line("load", "b.json").value() == "Orléans"


SOURCES = {
    "a named pipe": os.mkfifo,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(path),
    "a device": lambda path: Path(path).symlink_to("/dev/zero"),
}


@pytest.mark.follows("cli/documents:json_source")
@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_from_which_nothing_may_come_is_refused(
    line: Line, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a pipe without a writer, or reading a device, never ends."""
    monkeypatch.chdir(line.folder)
    SOURCES[kind]("given.json")
    write(line.folder, "all.json", json.dumps(EXPORT))

    for verb in (["import", "given.json", "--yes"], ["save", "a.json", "given.json"]):
        refused = line(*verb)
        assert refused.code == 5
        assert "given.json is not a regular file. Nothing was changed." in refused.err
        assert "Name a regular file, or `-` to give the text on stdin." in refused.err
    with (line.folder / "all.json").open("rb") as text:
        assert line("import", "-", "--yes", stdin=text.read()).code == 0
    assert line("import", "all.json", "--yes").code == 0


def test_each_kind_of_name_in_a_folder_is_imported_or_named(line: Line) -> None:
    folder = line.folder / "old"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.json"))
    renamed = {
        "new\nline.json": "new_line.json",
        os.fsdecode(b"invalid\xff.json"): "invalid_.json",
        "space.json ": "space.json",
        "n" * 250 + ".json": "n" * 95 + ".json",
        "e\u0301t.json": "et.json",
        "\u00e9t.json": "et_2.json",
    }
    for number, name in enumerate(renamed):
        write(folder, name, str(number))

    done = line("import", "old", "--skip-broken", "--yes")

    assert done.code == 0, done.err
    assert "left out: socket.json: it cannot be read: it is not a regular file." in done.err
    assert "`rm -- old/socket.json`" in done.err
    assert done.err.count("renamed: ") == len(renamed)
    assert names(line) == sorted(renamed.values())


def test_files_over_a_limit_are_skipped_counted_and_named(line: Line, old: Path) -> None:
    """The limit is the store's. A file that no store takes is not even read."""
    for name, size in (("big.json", 2_000), ("more.json", 3_000), ("fits.json", 900)):
        write(old, name, json.dumps("x" * size))
    for name, levels in (("deep.json", 30), ("deeper.json", 150)):
        write(old, name, "[" * levels + "]" * levels)
    with (old / "endless.json").open("wb") as file:
        file.truncate((1 << 30) + 1)
    small = {"SELINE_STORAGE__DOCUMENT_BYTES_MAX": "2000", "SELINE_STORAGE__DEPTH_MAX": "20"}

    refused = line("import", str(old), "--yes", **small)
    assert refused.code == 5
    assert "endless.json: it cannot be read: it is larger than any document may be" in refused.err
    (old / "endless.json").unlink()
    refused = line("import", str(old), "--yes", **small)
    assert (refused.code, "$.files['big.json']" in refused.err) == (5, True)
    assert not line.data.exists()

    done = line("import", str(old), "--yes", "--skip-broken", **small)

    assert done.code == 0, done.err
    assert "left out: big.json: The document would have 2003 bytes; 2000 are allowed." in done.err
    assert "left out: more.json: The document would have 3003 bytes" in done.err
    assert done.err.count("Split it") == 2
    for name in ("deep.json", "deeper.json"):
        why = "nested deeper than 20 levels, or it contains itself at $[0][0][0][0][0]…."
        assert f"left out: {name}: {why}\n  Correct it at the place named" in done.err
    assert "4 files are left out" in done.err
    assert names(line) == ["My_Notes.json", "fits.json", "user_profile.json"]
