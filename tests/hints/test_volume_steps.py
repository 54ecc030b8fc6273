"""The next steps about the volume and the health of the store: following them ends the state."""

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from seline import errors
from seline.blocking import open_seline
from seline.domain.document import Content
from seline.domain.json_codec import encode
from seline.library import load, restore_volume
from tests.command_line import Line, line_at, served
from tests.copied import original
from tests.faults.injection import failing_call
from tests.faults.small_filesystem import SmallFilesystem, small_filesystem
from tests.faults.small_filesystem import run as system
from tests.hints.following import Step, next_of, run, shell
from tests.hints.test_command_steps import damage, saved

NAME: Final = "user_profile.json"
MIB: Final = 1 << 20
Follow = Callable[[str], Step]


@pytest.fixture
def volume(line: Line) -> Iterator[SmallFilesystem]:
    """Mount a small file system at the data directory of `line`."""
    with small_filesystem(line.data) as small:
        yield small


def fix_of(line: Line, check: str, **environ: str) -> str:
    """Return the next step that health gives for a check; empty if there is none."""
    health = line("status", "--json", **environ).value()
    return str(next((row["fix"] for row in health["checks"] if row["name"] == check), ""))


# where the volume is


@pytest.mark.prove
@pytest.mark.follows("error:restore_unfinished")
def test_an_interrupted_restore_is_completed_with_an_export(
    line: Line, tmp_path: Path, follow: Follow
) -> None:
    (tmp_path / "other").mkdir()
    other = line_at(tmp_path / "other")
    for number in (1, 2):
        other("save", NAME, stdin=str(number))
    export = f"other/{other('export', 'out/').out.strip()}"
    lost = Content.of(encode(original(1).documents["doc_0.json"])).revision
    settings = load(arguments={"storage.data_dir": str(line.data)})
    with pytest.raises(errors.ExportDamaged):
        restore_volume(settings, original(1).copy(lost=[lost]), lock_wait_s=0)

    refused = line("load", NAME)

    assert refused.code == 7
    serve, command = follow(next_of(refused)).commands(EXPORT=export)
    assert serve == "seline serve"  # followed in test_coming_back
    assert run(line, f"{command} --dry-run").code == 7
    done = run(line, command)
    assert done.code == 0, done.err
    assert "The interrupted restore is completed" in done.err
    assert line("load", NAME).value() == 2
    assert len(line("backups", NAME, "--json").value()["backups"]) == 1


@pytest.mark.follows("error:volume_not_mounted")
def test_a_volume_is_attached_or_not_required(line: Line, follow: Follow) -> None:
    required = {"SELINE_STORAGE__REQUIRE_MOUNT": "true"}
    step = follow(next_of(line("save", NAME, stdin="{}", **required)))
    step.asks("Attach the volume")
    line.data.mkdir()
    with small_filesystem(line.data):
        assert line("save", NAME, stdin="{}", **required).code == 0
    assert step.settings() == {"SELINE_STORAGE__REQUIRE_MOUNT": "false"}
    [variable] = [text for text in step.quoted if text.startswith("SELINE_")]
    name, _, value = variable.partition("=")
    assert line("save", NAME, stdin="{}", **{name: value}).code == 0
    assert line("save", NAME, stdin="{}", **step.settings()).code == 0


@pytest.mark.follows("storage/volume/mounts:check_place")
def test_the_data_directory_is_the_mount_of_the_platform(line: Line, follow: Follow) -> None:
    here = {"SELINE_DATA_DIR": ""}
    with small_filesystem(line.folder / "v"), small_filesystem(line.folder / "other"):
        platform = {
            "RAILWAY_VOLUME_MOUNT_PATH": str(line.folder / "v"),
            "RAILWAY_ENVIRONMENT": "production",
        }
        wrong = {**platform, "SELINE_DATA_DIR": str(line.folder / "other")}
        step = follow(next_of(line("save", NAME, stdin="{}", **wrong)))
        step.asks("or leave it unset")
        named = re.search(r"SELINE_DATA_DIR=(\S+),", step.text)
        assert named is not None
        for given in ({"SELINE_DATA_DIR": named[1]}, here):
            done = line("save", NAME, stdin="{}", **platform, **given)
            assert done.code == 0, done.err


@pytest.mark.follows("storage/volume/directory:lost#2")
def test_a_volume_is_mounted_where_it_was(line: Line, follow: Follow) -> None:
    with open_seline(line.data) as seline:
        seline.data.save_json(NAME, {"n": 1})
        line.data.rename(line.folder / "away")
        line.data.mkdir()
        with pytest.raises(errors.VolumeNotMounted) as refused:
            seline.data.save_json(NAME, {"n": 2})
    follow(refused.value.hint).asks("Mount the volume where it was, then restart")
    line.data.rmdir()
    (line.folder / "away").rename(line.data)

    assert line("save", NAME, stdin='{"n": 2}').code == 0


@pytest.mark.follows("storage/volume/directory:lost")
def test_a_data_directory_that_is_gone_is_put_back_or_made_by_a_restart(
    line: Line, follow: Follow
) -> None:
    away = line.folder / "away"
    with open_seline(line.data) as seline:
        seline.data.save_json(NAME, {"n": 1})
        line.data.rename(away)
        with pytest.raises(errors.VolumeNotMounted) as refused:
            seline.data.save_json(NAME, {"n": 2})
        follow(refused.value.hint).asks("Put the directory back", "resume by themselves")
        away.rename(line.data)
        seline.data.save_json(NAME, {"n": 2})
        line.data.rename(away)

    follow(refused.value.hint).asks("If it is lost, restart: that makes a new one")
    with open_seline(line.data) as seline:
        assert seline.data.load_json(NAME) == {}


@pytest.mark.prove
@pytest.mark.usefixtures("first_form")
@pytest.mark.follows("cure:EROFS", "alert:writes_refused", "alert:served_from_memory")
def test_a_volume_that_is_read_only_can_be_read_and_is_written_later(
    line: Line, volume: SmallFilesystem, follow: Follow
) -> None:
    saved(line)
    with served(line):
        system("mount", "-o", "remount,ro", str(volume.path))
        step = follow(next_of(line("save", NAME, stdin="{}")))
        step.asks("Reads and exports still work", "writes resume by themselves")
        assert line("load", NAME).value() == {"n": 2}
        assert line("export").code == 0
        [status] = follow(alert(line, "writes_refused")).commands()
        assert "read-only" in run(line, status).out

        shell(line.folder, step.quoted[0])
        assert line("save", NAME, stdin='{"n": 3}').code == 0
        ended(line, "writes_refused")

        damage(line.data / NAME)
        system("mount", "-o", "remount,ro", str(volume.path))
        assert line("load", NAME).value() == {"n": 3}
        exporting, status = follow(alert(line, "served_from_memory")).commands()
        (line.folder / "all.json").write_text(run(line, exporting).out)
        assert json.loads((line.folder / "all.json").read_text())["data"]["files"][NAME]
        assert NAME in run(line, status).out
        system("mount", "-o", "remount,rw", str(volume.path))


def test_a_read_only_volume_without_a_store_promises_no_reads(
    line: Line, volume: SmallFilesystem
) -> None:
    system("mount", "-o", "remount,ro", str(volume.path))
    for data_dir in (line.data, line.data / "inner"):
        with pytest.raises(errors.VolumeReadOnly, match="nothing can be read") as refused:
            open_seline(data_dir, lock_wait_s=0)
        assert "still work" not in refused.value.hint

    shell(line.folder, Step(refused.value.hint).quoted[0])
    with open_seline(data_dir, lock_wait_s=0) as seline:
        seline.data.save_json(NAME, {"n": 1})


def alert(line: Line, kind: str, *, about: str = "", state: str = "open") -> str:
    """Return the next step of an alert, once the server has raised it."""
    ends_at = time.monotonic() + 30
    while True:
        listed = line("alerts", "--json").value()["alerts"]
        fixes = [
            row["fix"]
            for row in listed
            if (row["type"], row["state"]) == (kind, state) and about in row["summary"]
        ]
        if fixes:
            return str(fixes[0])
        assert time.monotonic() < ends_at, f"no {state} alert {kind}: {listed}"
        time.sleep(0.2)


def ended(line: Line, kind: str, *, about: str = "") -> None:
    """Wait until the alert is resolved."""
    alert(line, kind, about=about, state="resolved")


# who holds the store


@pytest.mark.prove
@pytest.mark.follows("error:volume_locked")
def test_a_store_that_another_process_holds_is_reached_through_it_or_later(
    line: Line, follow: Follow
) -> None:
    saved(line)
    with served(line):
        with pytest.raises(errors.VolumeLocked) as refused, open_seline(line.data, lock_wait_s=0):
            pass
        step = follow(refused.value.hint)
        step.asks("Stop that process", "until then", "reach its documents through it")
        for command in step.commands():
            assert run(line, command).code == 0
    with open_seline(line.data, lock_wait_s=0) as seline:
        assert seline.data.load_json(NAME) == {"n": 2}


# what the health shows


@pytest.mark.follows("operations/checks:_pins")
def test_pins_that_cannot_be_read_are_removed(line: Line, follow: Follow) -> None:
    saved(line)
    (line.data / ".seline" / "pins.json").mkdir()
    follow(fix_of(line, "pins")).asks("remove .seline/pins.json, then restart")
    (line.data / ".seline" / "pins.json").rmdir()

    assert fix_of(line, "pins") == ""


@pytest.mark.follows("operations/checks:_pins#2")
def test_backups_that_a_loss_has_pinned_are_released(line: Line, follow: Follow) -> None:
    saved(line)
    (line.data / ".seline" / "pins.json").write_text('{"pins": "none"}')
    step = follow(fix_of(line, "pins"))
    step.asks("Pin what you need", "release the others")
    _, unpin = step.commands()
    for backup in line("backups", NAME, "--json").value()["backups"]:
        assert run(line, f"{unpin} {NAME} {backup['name']}").code == 0

    assert fix_of(line, "pins") == ""


@pytest.mark.prove
@pytest.mark.follows("operations/checks:_integrity", "operations/checks:_integrity#2")
def test_what_was_not_verified_is_verified(line: Line, follow: Follow) -> None:
    saved(line)
    [verify] = follow(fix_of(line, "integrity")).commands()
    assert run(line, verify).code == 0
    assert fix_of(line, "integrity") == ""

    [backup] = (line.data / "backups").iterdir()
    damage(backup)
    with served(line):
        assert run(line, verify).code == 3
        step = follow(fix_of(line, "integrity"))
        step.asks("They are replaced as the documents are saved")
        [listing] = step.commands(NAME=NAME)
        assert backup.name in run(line, listing).out
        saved(line, NAME, *({"n": number} for number in range(12)))
        run(line, verify)
        assert fix_of(line, "integrity") == ""


@pytest.mark.prove
@pytest.mark.follows("operations/checks:_exports", "operations/destination_checks:_problems#2")
def test_exports_are_set_up_and_run(line: Line, follow: Follow) -> None:
    saved(line)
    step = follow(fix_of(line, "exports"))
    step.asks("Name a folder on another disk")
    [variable] = step.settings()
    table = [{"name": "nas", "url": f"file://{line.folder}/nas", "same_disk": True}]
    line = line_at(line.folder, **{variable: json.dumps(table)})
    assert line("jobs", "run", "export").code == 0
    assert fix_of(line, "exports") == ""

    recorded = line.data / ".seline" / "exports.json"
    aged = re.sub(r'("whole_at": *")20\d\d-', r"\g<1>2020-", recorded.read_text())
    recorded.write_text(aged)
    [jobs] = follow(fix_of(line, "exports")).commands()
    assert "export" in run(line, jobs).out
    saved(line, NAME, {"n": 9})
    time.sleep(1.1)  # an export's name has its second
    assert run(line, f"{jobs} run export").code == 0
    assert fix_of(line, "exports") == ""


@pytest.mark.prove
@pytest.mark.follows("operations/checks:_quarantine")
def test_what_was_set_aside_is_listed(line: Line, follow: Follow) -> None:
    saved(line)
    damage(line.data / NAME)
    line("load", NAME)
    [listing] = follow(fix_of(line, "quarantine")).commands()

    assert NAME in run(line, listing).out


@pytest.mark.prove
@pytest.mark.follows("operations/checks:_foreign_backups")
def test_foreign_backups_are_listed_and_removed(line: Line, follow: Follow) -> None:
    saved(line)
    foreign = line.data / "backups" / "user_profile_20200101_000000.json"
    foreign.write_text("{}")
    step = follow(fix_of(line, "foreign_backups"))
    step.asks("remove by hand what you do not need")
    [listing] = step.commands(NAME=NAME)
    assert foreign.name in run(line, listing).out
    foreign.unlink()

    assert fix_of(line, "foreign_backups") == ""


@pytest.mark.prove
@pytest.mark.follows("operations/checks:_volume", "alert:checksums_unsupported")
def test_a_volume_without_checksums_is_replaced_by_one_with_them(
    line: Line, follow: Follow
) -> None:
    line.data.mkdir()
    system("mount", "-t", "ramfs", "ramfs", str(line.data))
    try:
        if fix_of(line, "volume") == "":
            pytest.skip("this ramfs keeps extended attributes")
        saved(line)
        follow(fix_of(line, "volume")).asks("Put the data directory on a local ext4")
        with served(line):
            follow(alert(line, "checksums_unsupported")).asks("on a local ext4")
        shutil.copytree(line.data, line.folder / "copy", ignore=_not_files)
    finally:
        system("umount", str(line.data))
    with small_filesystem(line.data) as volume:
        if volume.kind != "ext4":
            pytest.skip("no ext4 can be mounted here")
        shutil.copytree(line.folder / "copy", line.data, dirs_exist_ok=True)
        assert fix_of(line, "volume") == ""
        assert line("load", NAME).value() == {"n": 2}


def _not_files(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".sock", "lock"))]


# where there is no room


@pytest.mark.prove
@pytest.mark.follows("os:ENOSPC", "os:EDQUOT", "spool:temporary_space")
def test_a_full_disk_beside_the_volume_is_freed_or_replaced(line: Line, follow: Follow) -> None:
    large = {"files": {f"d{n}.json": {"text": "x" * MIB} for n in range(12)}}
    (line.folder / "large.json").write_text(json.dumps(large))
    with small_filesystem(line.folder / "tiny", size_mb=6) as tiny:
        filler = tiny.fill("others", leave_bytes=64 << 10)
        temporary = {"TMPDIR": str(tiny.path)}
        step = follow(next_of(line("import", "large.json", "--yes", **temporary)))
        step.asks("Free space there, or set TMPDIR to a directory on a larger disk")
        assert line("import", "large.json", "--yes", TMPDIR=str(line.folder)).code == 0

        refused = line("export", "tiny/all.json")
        assert refused.code == 6
        step = follow(next_of(refused))
        step.asks("Free space where the file is to be written, then try again")
        filler.unlink()
        for name in large["files"]:
            line("delete", name, "--yes", "--purge")
        assert line("export", "tiny/all.json").code == 0


@pytest.mark.usefixtures("first_form")
@pytest.mark.follows("cure:other")
def test_after_an_error_of_the_disk_an_export_is_made_and_changes_are_taken_again(
    line: Line, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    with open_seline(line.data) as seline:
        seline.data.save_json(NAME, {"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing_call(errno.EIO))
            with pytest.raises(errors.VolumeFailed) as refused:
                seline.data.save_json(NAME, {"n": 2})
        step = follow(refused.value.hint)
        step.asks("Take an export to another disk now")
        seline.data.save_json(NAME, {"n": 2})
    export, copy = step.quoted[:2]
    assert run(line, export.replace("DIRECTORY", "one/")).code == 0
    shell(line.folder, copy.replace("DIRECTORY", "copy"))
    copied = {"SELINE_DATA_DIR": "copy"}
    assert line("load", NAME, **copied).value() == {"n": 2}


@pytest.mark.prove
@pytest.mark.follows("error:too_many_documents")
def test_a_document_is_deleted_or_more_are_allowed(line: Line, follow: Follow) -> None:
    few = line_at(line.folder, SELINE_STORAGE__DOCUMENTS_MAX="1")
    saved(few, NAME, {"n": 1})
    step = follow(next_of(few("save", "b.json", stdin="{}")))
    step.asks("raise")
    [variable] = step.settings()
    assert line("save", "b.json", stdin="{}", **{variable: "2"}).code == 0
    for name in ("b.json", NAME):
        [command] = step.commands(NAME=name)
        assert run(few, command).code == 0

    assert few("save", "b.json", stdin="{}").code == 0


@pytest.mark.prove
@pytest.mark.follows("bench/measure:measure")
def test_a_disk_without_room_is_measured_once_space_is_free(line: Line, follow: Follow) -> None:
    with small_filesystem(line.folder / "disk", size_mb=100) as small:
        filler = small.fill_to(0.5, "filler")
        refused = line("bench", "--dir", "disk", "--seconds", "1")
        assert refused.code == 6
        assert "Measuring needs 64 MB of free space in disk." in refused.err
        step = follow(next_of(refused))
        step.asks("Free space there", "measure another disk of this kind with `--dir`")
        filler.unlink()
        assert line("bench", "--dir", "disk", "--seconds", "1").code == 0
        assert [path.name for path in small.path.iterdir()] == ["lost+found"]
    assert line("bench", "--dir", ".", "--seconds", "1").code == 0
