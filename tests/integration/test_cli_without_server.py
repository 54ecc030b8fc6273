"""The verbs on a data directory that no process holds: each command opens and closes it."""

import hashlib
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seline import open_seline
from seline.blocking import open_seline as open_blocking
from seline.domain.metadata import FIELDS
from tests.command_line import Line, line_at, served

NAME = "user_profile.json"


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_at(tmp_path)


@pytest.fixture
def filled(line: Line) -> Line:
    """Give a command line on a data directory with one document that has one backup."""
    for value in ('{"userName": "Alex"}', '{"userName": "Alex", "location": "Lyon"}'):
        assert line("save", NAME, stdin=value).code == 0
    return line


def flip_first_letter(path: Path) -> None:
    """Change a byte in place and keep the time, as a bad disk does."""
    status = path.stat()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Alex", b"Blex"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_load_prints_what_save_stored_and_save_prints_the_files_sha256(line: Line) -> None:
    saved = line("save", NAME, stdin='{"userName": "Élodie"}')
    loaded = line("load", NAME)

    assert (saved.code, loaded.code) == (0, 0)
    assert loaded.value() == {"userName": "Élodie"}
    assert saved.out.strip() == hashlib.sha256((line.data / NAME).read_bytes()).hexdigest()
    assert "saved (new)" in saved.err


FOREIGN_METADATA = {
    "json": lambda path: path.write_text('{"mine": 1}'),
    "our_fields_and_more": lambda path: path.write_text(json.dumps(dict.fromkeys([*FIELDS, "a"]))),
    "not_json": lambda path: path.write_bytes(b"\xff mine"),
    "read_only": lambda path: (path.write_text('{"mine": 1}'), path.chmod(0o444)),
    "link": lambda path: path.symlink_to("elsewhere"),
    "directory": lambda path: path.mkdir(),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("make", FOREIGN_METADATA.values(), ids=FOREIGN_METADATA)
def test_no_verb_replaces_the_metadata_of_another_program(
    line: Line, make: Callable[[Path], object]
) -> None:
    line.data.mkdir()
    (line.data / "elsewhere").write_text("mine")
    path = line.data / "metadata.json"
    make(path)
    before = _state(path)
    (line.folder / "e.json").write_text('{"files": {"b.json": {}}}')
    assert "metadata.json" not in line("documents").err
    assert line("import", "e.json", "--dry-run").code == 0
    assert not (line.data / ".seline/metadata.json").exists(), "reading verbs write no report"
    told = [line("save", "a.json", stdin=f"[{number}]").err for number in (1, 2)]
    assert ["was not written by Seline" in text for text in told] == [True, False], "told once"
    assert line("delete", "a.json", "--yes").code == 0
    assert _state(path) == before
    assert json.loads((line.data / ".seline/metadata.json").read_bytes())["total_writes"] == 3


def _state(path: Path) -> tuple[object, ...]:
    """Return what a write would change."""
    status = path.lstat()
    data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
    return status.st_ino, status.st_mode, status.st_mtime_ns, data


@pytest.mark.one_in(2)
@pytest.mark.parametrize("left", ["", "\0" * 300, "flipped", "before"])
def test_the_report_is_rebuilt_where_it_can_be_shown_to_be_ours(filled: Line, left: str) -> None:
    path = filled.data / "metadata.json"
    text = path.read_text()
    if left == "flipped":
        status = path.stat()
        path.write_text(text.replace("{", "[", 1))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        path.unlink()
        path.write_text(text if left == "before" else left)
    assert filled("save", "next.json", stdin="[]").code == 0
    report = json.loads(path.read_bytes())
    assert report["schema_version"] == "1.0.0"
    assert report["total_writes"] == (3 if left == "before" else 1)
    assert not (filled.data / ".seline/metadata.json").exists()


def test_save_reads_a_file(line: Line) -> None:
    (line.folder / "new.json").write_text('{"a": 1}', encoding="utf-8")

    assert line("save", NAME, "new.json").code == 0

    assert line("load", NAME).value() == {"a": 1}
    assert line("save", NAME, "not-there.json").code == 1


def test_text_that_is_not_json_is_refused_with_line_and_column(filled: Line) -> None:
    refused = filled("save", NAME, stdin='{"a": 1,\n "b": }')

    assert refused.code == 5
    assert "line 2, column 7" in refused.err
    assert "Next:" in refused.err
    assert filled("load", NAME).value()["location"] == "Lyon"


def test_a_stale_revision_is_refused_and_the_right_one_saves(filled: Line) -> None:
    revision = hashlib.sha256((filled.data / NAME).read_bytes()).hexdigest()

    stale = filled("save", NAME, "--if-match", "0" * 64, stdin="{}")
    there = filled("save", NAME, "--if-match", "absent", stdin="{}")
    right = filled("save", NAME, "--if-match", revision, stdin='{"a": 1}')

    assert (stale.code, there.code, right.code) == (5, 5, 0)


def test_save_without_a_backup_makes_none(filled: Line) -> None:
    assert filled("save", NAME, "--no-backup", stdin='{"a": 1}').code == 0

    assert len(filled("backups", NAME, "--json").value()["backups"]) == 1


@pytest.mark.parametrize("name", ["../evil.json", "no-suffix", "metadata.json", "a/b.json", ".."])
def test_an_invalid_document_name_is_refused(line: Line, name: str) -> None:
    line.data.mkdir()

    refused = line("load", name)

    assert refused.code == 5
    assert "is not a" in refused.err


def test_a_missing_document_backup_item_or_token_exits_4(filled: Line) -> None:
    codes = {
        ran.code
        for ran in (
            filled("load", "nope.json"),
            filled("backups", "nope.json"),
            filled("load", NAME, "--backup", "user_profile_20010101_000000.json"),
            filled("restore", NAME, "--backup", "user_profile_20010101_000000.json", "--yes"),
            filled("delete", "nope.json", "--yes"),
            filled("quarantine", "nope_20010101_000000.json"),
            filled("token", "revoke", "00000000", "--yes"),
        )
    }

    assert codes == {4}


def test_lists_are_tables_and_with_json_the_objects_of_the_api(filled: Line) -> None:
    shown, listed = filled("documents"), filled("documents", "--json")

    assert shown.out.splitlines()[0].split() == ["NAME", "SIZE", "UPDATED", "STATE", "BACKUPS"]
    assert NAME in shown.out
    assert [document["name"] for document in listed.value()["documents"]] == [NAME]
    assert filled("--json", "documents").value() == listed.value()


def test_status_shows_counts_and_checks(filled: Line) -> None:
    shown, health = filled("status"), filled("status", "--json").value()

    assert shown.code == 0
    assert "1 document, 1 backup" in shown.out
    assert health["backup_count"] == 1
    assert {check["name"] for check in health["checks"]} >= {"writing", "usage", "documents"}


def test_a_restore_shows_its_plan_and_the_command_that_undoes_it(filled: Line) -> None:
    tried = filled("restore", NAME, "--dry-run")
    unasked = filled("restore", NAME)
    done = filled("restore", NAME, "--yes")

    assert (tried.code, unasked.code, done.code) == (0, 2, 0)
    assert "--yes" in unasked.err
    assert filled("load", NAME).value() == {"userName": "Alex"}
    assert "To undo: seline restore" in done.err


def test_a_deleted_document_can_be_restored_and_a_purged_one_cannot(filled: Line) -> None:
    assert filled("delete", NAME).code == 2
    assert filled("delete", NAME, "--yes").code == 0
    assert filled("load", NAME).code == 4
    assert filled("restore", NAME, "--yes").code == 0
    assert filled("load", NAME).value()["location"] == "Lyon"

    assert filled("delete", NAME, "--purge", "--yes").code == 0

    assert filled("restore", NAME, "--yes").code == 4
    assert list((filled.data / "backups").iterdir()) == []


def test_a_preview_shows_what_the_command_would_do(filled: Line) -> None:
    planned = filled("delete", NAME).err
    purged = filled("delete", NAME, "--purge", "--dry-run").err
    filled("delete", NAME, "--yes")
    back = filled("restore", NAME, "--dry-run").err
    made = filled("token", "create", "--json").value()

    assert f"{NAME} would be deleted; its content would be kept as its newest backup" in planned
    assert "would be erased" in purged
    assert f"there is no {NAME} now" in back
    assert "becomes a backup" not in back
    assert "would be revoked" in filled("token", "revoke", made["id"], "--dry-run").err


def test_a_preview_fails_as_the_restore_with_every_backup_broken(filled: Line) -> None:
    (backup,) = (filled.data / "backups").iterdir()
    flip_first_letter(backup)

    preview = filled("restore", NAME, "--dry-run")
    unconfirmed = filled("restore", NAME)
    done = filled("restore", NAME, "--yes")

    assert (preview.code, unconfirmed.code, done.code) == (4, 4, 4)
    assert preview.err == unconfirmed.err == done.err
    assert "has no sound backup" in preview.err
    assert "would go back" not in preview.err


def test_a_preview_as_json_is_the_servers_answer(filled: Line) -> None:
    restored = filled("restore", NAME, "--dry-run", "--json").value()
    deleted = filled("delete", NAME, "--dry-run", "--json").value()
    pruned = filled("prune", "--dry-run", "--json").value()

    assert (restored["dry_run"], restored["kept_in"]) == (True, "backups")
    assert (deleted["dry_run"], deleted["kept_in"]) == (True, "backups")
    assert (pruned["dry_run"], pruned["pruned"]) == (True, [])
    assert filled("load", NAME).value()["location"] == "Lyon"


def test_an_impossible_change_is_refused_before_the_question(filled: Line) -> None:
    unknown = filled("token", "revoke", "nope")
    sound = filled("reset", NAME)

    assert (unknown.code, sound.code) == (4, 5)
    assert "There is no token 'nope'" in unknown.err
    assert f"{NAME} is sound" in sound.err
    assert filled("reset", "nope.json").code == 4


def test_a_broken_document_is_deleted_into_quarantine_as_the_preview_shows(line: Line) -> None:
    line("save", NAME, stdin='{"userName": "Alex"}')
    flip_first_letter(line.data / NAME)

    planned = line("delete", NAME, "--dry-run")
    reset = line("reset", NAME, "--dry-run")
    done = line("delete", NAME, "--yes")

    assert (planned.code, reset.code, done.code) == (0, 0, 0)
    assert "bytes kept in quarantine/ (`seline quarantine`" in planned.err
    assert f"{NAME} would be given up" in reset.err
    assert "seline quarantine" in done.err
    assert "seline restore" not in done.err
    (item,) = line("quarantine", "--json").value()["quarantine"]
    assert item["document"] == NAME


def test_an_unreadable_document_can_be_reset_but_not_deleted(line: Line) -> None:
    line("save", NAME, stdin="{}")
    (line.data / NAME).unlink()
    (line.data / NAME).mkdir()

    assert line("delete", NAME, "--dry-run").code == 3
    assert line("reset", NAME, "--yes").code == 0
    assert line("load", NAME).code == 4


def test_an_error_that_the_log_shows_is_printed_once(line: Line) -> None:
    line("save", NAME, stdin='{"userName": "Alex"}')
    flip_first_letter(line.data / NAME)

    refused = line("load", NAME)

    assert refused.code == 3
    assert refused.err.count(f"{NAME} is broken") == 1
    assert refused.err.count("Next:") == 1


@pytest.mark.prove
def test_an_integrity_run_that_leaves_a_broken_document_exits_3(line: Line) -> None:
    line("save", NAME, stdin='{"userName": "Alex"}')
    line("save", NAME, stdin='{"userName": "Alex", "location": "Lyon"}')
    line("save", "sole.json", stdin='{"userName": "Alex"}')
    sound = line("jobs", "run", "integrity")
    flip_first_letter(line.data / NAME)
    recovered = line("jobs", "run", "integrity")
    flip_first_letter(line.data / "sole.json")
    broken = line("jobs", "run", "integrity")

    assert (sound.code, recovered.code, broken.code) == (0, 0, 3)
    assert f"1 found: {NAME} recovered" in recovered.out
    assert "integrity: something is broken." in broken.out
    assert "sole.json unrecoverable" in broken.out
    assert "Next:" in broken.err


def test_an_error_in_json_names_the_file_the_place_and_the_next_step(filled: Line) -> None:
    (filled.folder / "bad.json").write_text('{"a": 1,\n "b": }', encoding="utf-8")

    for refused, source in (
        (filled("save", NAME, "bad.json"), "bad.json"),
        (filled("save", NAME, stdin='{"a": 1,\n "b": }'), "The text on stdin"),
        (filled("import", "bad.json"), "bad.json"),
    ):
        assert refused.code == 5
        assert f"seline: {source} is not JSON: " in refused.err
        assert "(line 2, column 7)" in refused.err
        assert "Next: Correct it at the place named" in refused.err

    no_revision = filled("save", NAME, "--if-match", "zzz", stdin="{}")
    assert no_revision.code == 2
    assert "--if-match takes a revision" in no_revision.err
    assert "  Next: `seline documents --json`" in no_revision.err


def test_a_hint_names_the_verb_that_lists_valid_names(filled: Line) -> None:
    assert "Next: `seline quarantine` lists" in filled("quarantine", "nosuch").err
    assert "Next: Choose another name" in filled("load", "metadata.json").err
    assert "Next: Use letters" in filled("load", "no-suffix").err


def test_an_invalid_port_is_refused_with_its_bounds(line: Line) -> None:
    for given in ("abc", "99999"):
        refused = line("serve", "--port", given)

        assert refused.code == 2
        assert f"'{given}' is not a whole number from 0 to 65535." in refused.err


@pytest.mark.prove
def test_a_pin_keeps_its_reason_and_can_be_removed(filled: Line) -> None:
    backup = filled("backups", NAME, "--json").value()["backups"][0]["name"]

    assert filled("pin", NAME, backup, "--because", "before the move").code == 0
    pinned = filled("backups", NAME, "--json").value()["backups"][0]
    assert (pinned["pinned"], "before the move" in pinned["because"]) == (True, True)

    assert filled("unpin", NAME, backup).code == 0
    assert not filled("backups", NAME, "--json").value()["backups"][0]["pinned"]


def test_a_purge_preview_counts_the_backups(filled: Line) -> None:
    count = len(filled("backups", NAME, "--json").value()["backups"])

    shown = filled("delete", NAME, "--purge", "--dry-run")

    assert f"{NAME}, its {count} backup and its quarantined" in shown.err


@pytest.mark.prove
def test_a_purge_preview_says_how_many_backups_are_the_owners(filled: Line) -> None:
    """A purge erases them too, also a pinned one: health says so where it counts them."""
    count = len(filled("backups", NAME, "--json").value()["backups"])
    copies = [filled.data / "backups" / f"user_profile_2020010{day}_000000.json" for day in (1, 2)]
    for copy in copies:
        copy.write_text("{}")
    assert filled("pin", NAME, copies[0].name, "--because", "mine").code == 0
    checks = {check["name"]: check for check in filled("status", "--json").value()["checks"]}

    shown = filled("delete", NAME, "--purge", "--dry-run")

    assert f"{NAME}, its {count + 2} backups (2 not written by Seline) and its" in shown.err
    assert checks["foreign_backups"]["detail"] == (
        "2 files in backups/ not written by Seline: never rotated; a purge of the document erases "
        "them"
    )
    assert filled("delete", NAME, "--purge", "--yes").code == 0
    assert [copy for copy in copies if copy.exists()] == []


def test_an_unknown_variable_is_named_by_every_verb_once(filled: Line) -> None:
    for verb in (("documents",), ("status",), ("config", "show")):
        assert filled(*verb, SELINE_FOO="1").err.count("SELINE_FOO is not a setting") == 1, verb


@pytest.mark.prove
def test_the_next_step_runs_as_it_is_printed_without_seline_on_the_path(filled: Line) -> None:
    """As under `make run`, where the command is `.venv/bin/seline`."""
    command = Path(sys.executable).with_name("seline")
    environ = {**filled.environ, "PATH": "/usr/bin:/bin"}
    options: dict[str, Any] = {
        "cwd": filled.folder, "env": environ, "capture_output": True, "text": True, "check": False,
    }  # fmt: skip

    refused = subprocess.run([command, "load", "none.json"], **options)
    step = re.search(r"`([^`]+ documents)`", refused.stderr)
    assert step is not None, refused.stderr
    followed = subprocess.run(step[1], shell=True, **options)

    assert followed.returncode == 0, followed.stderr
    assert NAME in followed.stdout


def test_prune_previews_what_it_discards(line: Line) -> None:
    for number in range(3):
        line("save", NAME, stdin=json.dumps({"n": number}))
    fewer = {"SELINE_BACKUPS__KEEP_NEWEST": "1"}

    planned = line("prune", "--dry-run", "--json", **fewer)
    done = line("prune", "--yes", **fewer)

    assert len(planned.value()["pruned"]) == 1
    assert done.code == 0
    assert len(line("backups", NAME, "--json").value()["backups"]) == 1
    assert line("prune", "--yes", **fewer).code == 0


def test_verify_finds_damage_and_recovers_it(filled: Line) -> None:
    assert filled("verify").code == 0
    flip_first_letter(filled.data / NAME)

    found = filled("verify", "--json")

    assert found.code == 3
    assert found.value()["findings"][0]["outcome"] == "recovered"
    assert filled("load", NAME).value() == {"userName": "Alex"}
    item = filled("quarantine", "--json").value()["quarantine"][0]["name"]
    assert b"Blex" in filled("quarantine", item).out.encode()
    assert filled("verify").code == 0


def test_sha256sum_accepts_the_printed_sums(filled: Line) -> None:
    filled("save", "gone.json", stdin="[1]")
    filled("delete", "gone.json", "--yes")

    sums = filled("verify", "--sums")

    assert sums.code == 0
    assert len(sums.out.splitlines()) == 3
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict"],
        input=sums.out.encode(),
        cwd=filled.data,
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_a_broken_document_without_a_backup_exits_3_until_it_is_reset(line: Line) -> None:
    line("save", NAME, stdin='{"userName": "Alex"}')
    flip_first_letter(line.data / NAME)

    assert line("load", NAME).code == 3
    assert line("save", NAME, stdin="{}").code == 3
    exported = line("export")
    assert exported.code == 3
    assert json.loads(exported.out)["data"]["unrecoverable"] == [NAME]

    assert line("reset", NAME).code == 2
    assert line("reset", NAME, "--yes").code == 0
    assert line("save", NAME, stdin="{}").code == 0
    assert line("reset", NAME, "--yes").code == 5


def test_a_save_that_does_not_fit_exits_6(line: Line) -> None:
    small = {"SELINE_STORAGE__VOLUME_LIMIT_MB": "8"}
    big = json.dumps({"text": "x" * (9 << 20)})

    assert line("save", NAME, stdin=big, **small).code == 6
    assert line("load", NAME).code == 4


def test_a_document_over_the_limit_is_refused(line: Line) -> None:
    limit = {"SELINE_STORAGE__DOCUMENT_BYTES_MAX": "1024"}

    assert line("save", NAME, stdin=json.dumps("x" * 2000), **limit).code == 5


def test_an_invalid_setting_is_named_with_its_origin(line: Line) -> None:
    wrong = line("status", SELINE_STORAGE__SETTLE_S="soon")

    assert wrong.code == 2
    assert "storage.settle_s" in wrong.err
    assert "SELINE_STORAGE__SETTLE_S" in wrong.err


def test_a_mistyped_data_directory_is_not_created(line: Line) -> None:
    refused = line("documents", "--data-dir", "dta")

    assert refused.code == 2
    assert "There is no data directory at dta (argument)" in refused.err
    assert not (line.folder / "dta").exists()


def test_two_stores_or_a_malformed_url_are_usage_errors(line: Line) -> None:
    assert line("status", "--data-dir", "x", "--url", "http://127.0.0.1:1").code == 2
    assert line("status", "--url", "127.0.0.1:8080").code == 2


def test_config_show_prints_origins_and_masks_secrets(line: Line) -> None:
    secret = "a-secret-of-some-length"
    given = {"SELINE_ADMIN_TOKEN": secret, "SELINE_BACKUPS__KEEP_NEWEST": "7"}

    shown = line("config", "show", "--origin", **given)
    value = line("config", "show", "--origin", "--json", **given).value()

    assert secret not in shown.out
    assert "environment SELINE_BACKUPS__KEEP_NEWEST" in shown.out
    assert value["backups.keep_newest"] == {
        "value": 7,
        "origin": "environment SELINE_BACKUPS__KEEP_NEWEST",
    }
    assert value["server.admin_token"]["value"] == "********"
    assert line("config", "show", "--json").value()["backups.keep_newest"] == 5


def test_an_export_replaces_a_file_only_with_force(filled: Line) -> None:
    assert filled("export", "all.json").code == 0
    before = (filled.folder / "all.json").read_bytes()
    again = filled("export", "all.json")

    assert again.code == 5
    assert "--force" in again.err
    assert json.loads(before)["data"]["files"][NAME]["location"] == "Lyon"
    assert filled("export", "all.json", "--force").code == 0
    assert filled("export").value()["data"]["files"] == json.loads(before)["data"]["files"]
    assert [path.name for path in filled.folder.iterdir() if ".part" in path.name] == []


@pytest.mark.prove
def test_a_terminal_without_unicode_gets_escaped_text(filled: Line) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    filled("save", NAME, stdin='{"userName": "Élodie"}')

    assert filled("demo", **ascii_only).code == 0
    assert filled("load", NAME, **ascii_only).value() == {"userName": "Élodie"}


@pytest.mark.prove
def test_a_closed_pipe_exits_141_without_output(line: Line) -> None:
    line("save", NAME, stdin=json.dumps({"text": "x" * (1 << 20)}))

    running = line.start("load", NAME, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.read(10)
    running.stdout.close()
    assert running.stderr is not None
    printed = running.stderr.read()

    assert running.wait(timeout=60) == 141
    assert printed == b""
    running.stderr.close()


@pytest.mark.prove
def test_the_answer_no_on_a_terminal_changes_nothing(filled: Line) -> None:
    """The command runs on a pseudo-terminal and reads `n`, then `y`."""
    codes = []
    for word in (b"n\n", b"y\n"):
        ours, theirs = pty.openpty()
        running = filled.start("delete", NAME, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, word)
        codes.append(running.wait(timeout=60))
        printed = os.read(ours, 1 << 16)
        os.close(ours)
        assert b"Go ahead? [y/N]" in printed
        codes.append(filled("load", NAME).code)

    assert codes == [1, 0, 0, 4]


@pytest.mark.prove
def test_ctrl_c_at_the_question_exits_130_at_once(filled: Line) -> None:
    ours, theirs = pty.openpty()
    running = filled.start("delete", NAME, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    while b"[y/N]" not in printed:
        printed += os.read(ours, 1 << 10)

    running.send_signal(signal.SIGINT)

    assert running.wait(timeout=20) == 130
    os.close(ours)
    assert filled("load", NAME).code == 0


@pytest.mark.prove
def test_a_question_leaves_the_store_to_a_bot_and_is_asked_again_after_its_change(
    filled: Line,
) -> None:
    ours, theirs = pty.openpty()
    running = filled.start("restore", NAME, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    while b"[y/N]" not in printed:
        printed += os.read(ours, 1 << 10)
    with open_blocking(filled.data, lock_wait_s=0) as seline:
        seline.data.save_json(NAME, {"userName": "Kim"})

    os.write(ours, b"y\n")
    while printed.count(b"[y/N]") < 2:
        printed += os.read(ours, 1 << 10)
    os.write(ours, b"y\n")

    assert running.wait(timeout=20) == 0
    os.close(ours)
    assert b"changed meanwhile" in printed
    assert filled("load", NAME).value()["location"] == "Lyon"


def test_ctrl_c_while_reading_stdin_exits_130_at_once(line: Line) -> None:
    waiting = line.start("save", NAME, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=2)

    waiting.send_signal(signal.SIGINT)

    assert waiting.wait(timeout=20) == 130
    waiting.communicate()
    assert not line.data.exists()


def test_the_preview_of_a_restore_names_the_backup(filled: Line) -> None:
    backup = filled("backups", NAME, "--json").value()["backups"][0]["name"]

    assert f"would go back to {backup}" in filled("restore", NAME, "--dry-run").err


def test_a_restore_takes_the_backup_as_an_argument_or_an_option(filled: Line) -> None:
    backup = filled("backups", NAME, "--json").value()["backups"][0]["name"]

    for given in ((backup,), ("--backup", backup), (backup, "--backup", backup)):
        assert f"would go back to {backup}" in filled("restore", NAME, *given, "--dry-run").err
    assert filled("restore", NAME, backup, "--backup", "another.json", "--dry-run").code == 2


def test_an_empty_backup_name_restores_nothing(filled: Line) -> None:
    for given in (("--backup", ""), ("",)):
        refused = filled("restore", NAME, *given, "--yes")
        assert refused.code == 4
        assert f"{NAME} has no backup ''" in refused.err
    assert filled("load", NAME).value()["location"] == "Lyon"


def truncate(path: Path) -> None:
    """Leave half of a file, as a program does that was killed while it wrote."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("damage", [flip_first_letter, truncate])
def test_a_restore_of_a_damaged_document_goes_back_to_the_newest_backup(
    filled: Line, damage: Callable[[Path], None]
) -> None:
    """It goes back as far as a recovery does, and the preview has the same answer."""
    filled("save", NAME, stdin='{"userName": "Alex", "n": 3}')
    damage(filled.data / NAME)

    preview = filled("restore", NAME, "--dry-run", "--json").value()
    text = filled("restore", NAME, "--dry-run").err
    done = filled("restore", NAME, "--yes", "--json").value()

    assert preview["restored"] == done["restored"]
    assert preview["kept_in"] == done["kept_in"] == "quarantine"
    assert "its bytes would go to quarantine/" in text
    assert done["undo"] == []
    assert filled("load", NAME).value() == {"userName": "Alex", "location": "Lyon"}
    assert len(filled("quarantine", "--json").value()["quarantine"]) == 1


@pytest.mark.one_in(3)
@pytest.mark.parametrize("damage", [flip_first_letter, truncate])
@pytest.mark.parametrize(
    "verb",
    [("restore", NAME), ("delete", NAME), ("import", "other.json")],
    ids=lambda verb: verb[0],
)
def test_a_dry_run_leaves_a_damaged_document_as_it_is(
    filled: Line, verb: tuple[str, ...], damage: Callable[[Path], None]
) -> None:
    (filled.folder / "other.json").write_text(json.dumps({"files": {NAME: {"n": 9}}}))
    damage(filled.data / NAME)
    inode, data = (filled.data / NAME).stat().st_ino, (filled.data / NAME).read_bytes()

    preview = filled(*verb, "--dry-run")

    assert (preview.code, "Nothing was changed (--dry-run)." in preview.err) == (0, True)
    assert ((filled.data / NAME).stat().st_ino, (filled.data / NAME).read_bytes()) == (inode, data)
    assert list((filled.data / "quarantine").iterdir()) == []


@pytest.mark.prove
def test_a_prune_plans_the_same_with_and_without_a_server(line: Line) -> None:
    """A backup of the current content is kept, though this process has not read the document."""
    for text in ('{"n": 1}', '{"n": 2}', '{"n": 1}', '{"n": 3}', '{"n": 1}'):
        line("save", NAME, stdin=text)
    fewer = {"SELINE_BACKUPS__KEEP_NEWEST": "2", "SELINE_BACKUPS__KEEP_DAILY": "0"}
    with served(line_at(line.folder, **fewer)):
        loaded, planned = line("load", NAME), line("prune", "--dry-run", "--json").value()

    assert loaded.code == 0
    assert line("prune", "--dry-run", "--json", **fewer).value()["pruned"] == planned["pruned"]


@pytest.mark.prove
def test_a_loss_that_a_command_found_is_reported_after_it(filled: Line) -> None:
    """The process that recovered has ended; health and the server's alert come from quarantine/."""
    flip_first_letter(filled.data / NAME)
    assert filled("load", NAME).value() == {"userName": "Alex"}

    checks = filled("status", "--json").value()["checks"]
    (found,) = [check["detail"] for check in checks if check["name"] == "recovered"]
    with served(filled):
        alerts = _eventually(lambda: filled("alerts", "--json").value()["alerts"])

    (backup,) = filled("backups", NAME, "--json").value()["backups"]
    assert f"{NAME} was altered" in found
    assert f"It was recovered from backup {backup['name']}; lost: changes after" in found
    assert [(a["type"], a["severity"], a["document"]) for a in alerts] == [
        ("recovery", "critical", NAME)
    ]


def _eventually(look: Callable[[], list[Any]]) -> list[Any]:
    """Return what is found within ten seconds."""
    end_s = time.monotonic() + 10
    while not (found := look()) and time.monotonic() < end_s:
        time.sleep(0.3)
    return found


@pytest.mark.prove
def test_status_names_a_document_that_a_read_could_not_serve(line: Line) -> None:
    line("save", NAME, stdin='{"userName": "Alex"}')
    flip_first_letter(line.data / NAME)
    assert line("load", NAME).code == 3

    (found,) = [
        check
        for check in line("status", "--json").value()["checks"]
        if check["name"] == "documents"
    ]
    assert (found["status"], found["detail"]) == ("critical", f"cannot be served: {NAME}")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_first_status_knows_what_its_own_listing_finds(line: Line, form: tuple[str]) -> None:
    line("save", NAME, stdin="{}")
    (line.data / NAME).write_bytes(b"\0\0")

    first, second = line("status", *form), line("status", *form)

    assert (first.code, second.code) == (3, 3)
    assert f"cannot be served: {NAME}" in first.out
    assert "critical" in first.out.lower()


@pytest.mark.prove
def test_a_truncated_document_is_judged_by_the_first_command_that_reads_it(filled: Line) -> None:
    """The time to settle passes within the command, so it does not begin again in each."""
    truncate(filled.data / NAME)
    (filled.data / "alone.json").write_text('{"half":')

    loaded, alone = filled("load", NAME), filled("load", "alone.json")

    assert loaded.value() == {"userName": "Alex"}
    assert len(filled("quarantine", "--json").value()["quarantine"]) == 1
    assert "being written just now" not in alone.err
    assert (alone.code, "alone.json is broken" in alone.err) == (3, True)


def test_every_command_that_is_printed_names_the_store(filled: Line) -> None:
    """Else following it would change the store in ./data, which may be another bot's."""
    (filled.data / NAME).write_text('{"userName": "Alex",}')
    store = ("--data-dir", str(filled.data))

    printed = [
        filled(*verb, *store, SELINE_DATA_DIR="other") for verb in (("load", NAME), ("status",))
    ]

    commands = [re.findall(r"`[^`]*seline (?!: )([a-z-]+)", ran.err + ran.out) for ran in printed]
    assert all(commands)
    assert {word for found in commands for word in found} == {"--data-dir"}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("damage", [flip_first_letter, truncate])
@pytest.mark.parametrize("form", ["json", "folder"])
def test_an_export_recovers_a_broken_document_that_it_meets(
    filled: Line, form: str, damage: Callable[[Path], None]
) -> None:
    damage(filled.data / NAME)

    assert filled("export", "out" if form == "folder" else "out.json").code == 0

    assert json.loads((filled.data / NAME).read_bytes()) == {"userName": "Alex"}
    assert len(filled("quarantine", "--json").value()["quarantine"]) == 1
    checks = filled("status", "--json").value()["checks"]
    assert [c["status"] for c in checks if c["name"] == "recovered"] == ["warning"]


@pytest.mark.parametrize("route", ["/documents", "/storage-info"])
async def test_a_listing_recovers_a_broken_document_that_it_meets(
    tmp_path: Path, route: str
) -> None:
    directory = tmp_path / "data"
    async with open_seline(directory) as seline:
        for number in range(2):
            await seline.data.save_json(NAME, {"n": number, "filler": "x" * 50})
    truncate(directory / NAME)
    async with open_seline(directory, storage__settle_s=0.1) as seline:
        if route == "/documents":
            [info] = await seline.data.documents()
            assert info.verdict == "sound"
        else:
            [shown] = (await seline.storage_info())["data_files"]
            assert shown["verdict"] == "sound"
        assert json.loads((directory / NAME).read_bytes())["n"] == 0
        [incident] = seline.store.incidents()
        assert (incident.kind, incident.document) == ("recovered", NAME)


@pytest.mark.prove
def test_a_broken_backup_that_is_read_is_reported(filled: Line) -> None:
    (backup,) = (filled.data / "backups").iterdir()
    flip_first_letter(backup)
    with served(filled):
        assert filled("load", NAME, "--backup", backup.name).code == 4
        [alert] = _eventually(lambda: filled("alerts", "--json").value()["alerts"])
    assert (alert["type"], alert["document"]) == ("backup_damaged", NAME)
    assert backup.name in alert["summary"]


def test_an_export_does_not_call_an_unreadable_document_broken(filled: Line) -> None:
    (filled.data / NAME).unlink()
    (filled.data / NAME).mkdir()

    exported = filled("export")
    reason = filled("load", NAME)

    assert exported.code == 3
    assert exported.value()["data"]["unrecoverable"] == [NAME]
    assert f"lacks what cannot be served: {NAME}." in exported.err
    assert "seline load" in exported.err
    assert f"{NAME} cannot be read: it is not a regular file" in reason.err


def test_a_token_is_created_listed_and_revoked(line: Line) -> None:
    made = line("token", "create", "--scope", "read", "--label", "page", "--expires-days", "9")
    listed = line("token", "list", "--json").value()["tokens"]

    assert made.out.startswith(f"sel_{listed[0]['id']}_")
    assert (listed[0]["scope"], listed[0]["label"]) == ("read", "page")
    assert listed[0]["expires_at"] is not None
    assert made.out.strip() not in line("token", "list").out
    assert line("token", "revoke", listed[0]["id"]).code == 2
    assert line("token", "revoke", listed[0]["id"], "--yes").code == 0
    assert line("token", "list", "--json").value()["tokens"] == []
    assert line("token", "create", "--scope", "everything").code == 2


def test_a_data_directory_with_a_long_path_is_served(tmp_path: Path) -> None:
    """A Unix socket's address holds 107 bytes; a data directory's path may be longer."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    line = line_at(deep)

    assert line("save", NAME, stdin="{}").code == 0
    assert line("load", NAME).value() == {}


def test_ctrl_c_between_two_steps_of_a_command_ends_it() -> None:
    """An exception there would lose the step: its task could not even be cancelled."""
    program = """
import asyncio, signal
from seline.cli.verbs import run_async

def signalled(handle):
    asyncio.Handle._run = real
    signal.raise_signal(signal.SIGINT)
    real(handle)

async def work():
    asyncio.Handle._run = signalled
    await asyncio.sleep(0)

real = asyncio.Handle._run
try:
    run_async(work())
except KeyboardInterrupt:
    print("interrupted")
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert ended.stdout == "interrupted\n"
