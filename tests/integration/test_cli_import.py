"""`seline import`: an export, stdin, or an older bot's folder; first the plan, then all of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from seline.cli.legacy_folder import CURES, as_export, look_through, valid_name
from seline.domain.document import is_document_name
from seline.domain.json_codec import decode_strict
from tests.command_line import Line, line_at

EXPORT = {"exported_at": "2025-01-06T14:30:22", "files": {"a.json": {"x": 1}, "b.json": [1, 2]}}


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_at(tmp_path)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Give an older bot's folder: two good files, what a bot leaves beside them, nothing broken."""
    folder = tmp_path / "old-data"
    (folder / "backups").mkdir(parents=True)
    write(folder, "user_profile.json", '{"userName": "Élodie"}')
    write(folder, "My Notes.JSON", "[1, 2]")
    write(folder, "metadata.json", '{"schema_version": "1.0.0"}')
    write(folder, "notes.txt", "no JSON")
    write(folder / "backups", "user_profile_20250106_143022.json", '{"userName": "old"}')
    return folder


def write(folder: Path, name: str, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)


def names(line: Line) -> list[str]:
    return [one["name"] for one in line("documents", "--json").value()["documents"]]


@pytest.mark.parametrize("export", [EXPORT, {"success": True, "data": EXPORT}])
def test_an_export_comes_back_with_or_without_its_wrapper(line: Line, export: object) -> None:
    write(line.folder, "all.json", json.dumps(export))

    tried = line("import", "all.json", "--dry-run")
    assert (tried.code, "created: 2  a.json, b.json" in tried.err) == (0, True)
    assert names(line) == []
    assert line("import", "all.json").code == 2

    assert line("import", "all.json", "--yes").code == 0
    assert names(line) == ["a.json", "b.json"]
    assert line("load", "b.json").value() == [1, 2]


def test_what_was_exported_is_imported_unchanged(line: Line) -> None:
    line("save", "big.json", stdin='{"n": 123456789012345678901234567890, "é": 1e22}')
    exported = line("export").out

    again = line("import", "-", "--yes", "--json", stdin=exported)

    assert again.value()["unchanged"] == ["big.json"]


def test_replace_deletes_what_is_not_named_and_keeps_it_as_a_backup(line: Line) -> None:
    line("save", "gone.json", stdin='{"was": "here"}')

    done = line("import", "-", "--mode", "replace", "--yes", stdin=json.dumps(EXPORT))

    assert "deleted: 1  gone.json" in done.err
    assert names(line) == ["a.json", "b.json"]
    assert line("restore", "gone.json", "--yes").code == 0


@pytest.mark.parametrize(
    ("export", "told"),
    [
        ('{"files": {"../evil.json": {}}}', "../evil.json"),
        ('{"userName": "Alex"}', "an export holds its documents there"),
        ('{"files": {}, "more": 1}', "this is no part of an export"),
        ('{"files": {"a.json": {"x": 1,}}}', "line 1, column"),
        ("", "What came on stdin is not JSON: empty file"),
    ],
)
def test_what_is_no_export_is_refused_and_changes_nothing(
    line: Line, export: str, told: str
) -> None:
    refused = line("import", "-", "--yes", stdin=export)

    assert refused.code == 5
    assert told in refused.err
    assert names(line) == []


def test_a_folder_of_an_older_bot_is_taken_with_its_names_made_right(line: Line, old: Path) -> None:
    done = line("import", str(old), "--yes")

    assert done.code == 0
    assert "renamed: My Notes.JSON becomes My_Notes.json" in done.err
    assert "passed over: metadata.json" in done.err
    assert names(line) == ["My_Notes.json", "user_profile.json"]
    assert line("load", "user_profile.json").value() == {"userName": "Élodie"}
    assert line("quarantine", "--json").value() == {"quarantine": []}


def test_one_unusable_file_refuses_the_folder_until_it_is_left_out(line: Line, old: Path) -> None:
    write(old, "cut.json", '{"a": [1, 2')
    write(old, "twice.json", '{"a": 1,\n "a": 2}')
    (old / "away.json").symlink_to(line.folder / "elsewhere.json")
    write(line.folder, "elsewhere.json", '{"secret": true}')

    refused = line("import", str(old), "--yes")

    assert refused.code == 5
    assert "cut.json: cut off: the text ends too early (line 1, column 12)" in refused.err
    assert 'twice.json: duplicate key "a" (line 2, column 2)' in refused.err
    assert "away.json: a link" in refused.err
    assert not line.data.exists() or names(line) == []

    assert line("import", str(old), "--yes", "--skip-broken").code == 0
    assert names(line) == ["My_Notes.json", "user_profile.json"]
    assert (old / "cut.json").read_text(encoding="utf-8") == '{"a": [1, 2'


def test_a_folder_without_json_is_refused(line: Line, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert line("import", "empty", "--yes").code == 5
    assert line("import", "not-there", "--yes").code == 1


def test_an_export_folders_backups_are_not_imported_and_that_is_said(line: Line) -> None:
    for value in ("[1]", "[2]"):
        line("save", "a.json", stdin=value)
    line("save", "b.json", stdin="{}")
    line("export", "exports")
    line("delete", "a.json", "--purge", "--yes")

    done = line("import", "exports", "--yes")

    assert done.code == 0
    assert line("backups", "a.json", "--json").value()["backups"] == []
    assert "The export holds 1 backup, which is not imported" in done.err
    by_hand = done.err.strip().splitlines()[-1]
    looking = line.folder / "looking"
    looking.mkdir()
    subprocess.run(["bash", "-ec", by_hand], cwd=looking, check=True)
    (backup,) = (looking / "backups").iterdir()
    assert json.loads(backup.read_bytes()) == [1]


def test_an_export_folder_without_backups_is_imported_without_more_words(line: Line) -> None:
    line("save", "a.json", stdin="[1]")
    line("export", "exports")
    line("delete", "a.json", "--purge", "--yes")

    assert "not imported" not in line("import", "exports", "--yes").err


def test_an_export_without_its_manifest_is_not_whole(line: Line, tmp_path: Path) -> None:
    export = tmp_path / "exports" / "seline-20250106T143022Z"
    export.mkdir(parents=True)
    write(export, "pack-0001.tar.zst", b"packed")

    for source in (export, export.parent):
        refused = line("import", str(source), "--yes")
        assert refused.code == 3
        assert "is not whole: it has no manifest.json" in refused.err


@pytest.mark.parametrize(
    ("content", "why", "cure"),
    [
        (b"", "empty file", CURES["empty file"]),
        (b"\0\0\0", "only NUL bytes", CURES["only NUL bytes"]),
        (b'{"a": 1', "cut off", CURES["cut off"]),
        (b"\xef\xbb\xbf{}", "byte order mark", CURES["starts with a byte order mark"]),
        (b"\xff\xfe{\0}\0", "UTF-16", CURES["UTF-16"]),
        (b'{"a": "\xe9"}', "not UTF-8 at byte 7", CURES["not UTF-8"]),
        (b'{"a": NaN}', "NaN", CURES["NaN"]),
        (b"{} {}", "something follows", CURES["something follows after the end"]),
    ],
)
def test_every_kind_of_broken_file_has_its_cure(
    tmp_path: Path, content: bytes, why: str, cure: str
) -> None:
    write(tmp_path, "broken.json", content)

    (found,) = look_through(str(tmp_path)).unusable

    assert why in found.why
    assert found.cure == cure


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("My Notes.JSON", "My_Notes.json"),
        ("été.json", "ete.json"),
        (".hidden.json", "hidden.json"),
        ("a/b:c.json", "a_b_c.json"),
        ("x" * 200 + ".json", "x" * 95 + ".json"),
        ("...json", None),
        ("日本.json", None),
    ],
)
def test_a_name_becomes_the_nearest_right_one(file: str, name: str | None) -> None:
    made = valid_name(file)

    assert made == name
    assert made is None or is_document_name(made)


def test_names_that_become_the_same_are_numbered(tmp_path: Path) -> None:
    write(tmp_path, "a b.json", "1")
    write(tmp_path, "a:b.json", "2")
    write(tmp_path, "a_b.json", "3")

    found = look_through(str(tmp_path))

    assert {one.file: one.name for one in found.usable} == {
        "a_b.json": "a_b.json",
        "a b.json": "a_b_2.json",
        "a:b.json": "a_b_3.json",
    }
    files = decode_strict(as_export(found.usable))
    assert files == {"files": {"a b.json".replace(" ", "_"): 3, "a_b_2.json": 1, "a_b_3.json": 2}}
