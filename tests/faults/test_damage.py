"""V4: damaged content is found by the next read or verify, recovered, and never served."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seline import errors
from seline.blocking import Seline, open_seline
from seline.domain.document import bot_document
from seline.storage.volume import capabilities, files
from seline.storage.volume.directory import VOLUME_FORMAT
from seline.storage.volume.inspect import Inspection, Inspector
from tests.faults.forms import each_form_at_once
from tests.faults.injection import backup_values, incident_kinds, store_of
from tests.faults.powercut.trying import fast_place

pytestmark = each_form_at_once

NAME = "user_profile.json"
PROFILE = bot_document(NAME)
VALUE = {"userName": "Alex", "n": 2, "é": [True, None, 1.5]}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a fast directory whose usage is that of its own files, not of the mount."""
    monkeypatch.setattr(capabilities, "mount_of", lambda _path: None)
    with fast_place(tmp_path) as place:
        yield place / "data"


def flip(path: Path, bit: int) -> None:
    """Flip one bit and keep the mtime, as a failing disk does."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    rewrite(path, bytes(data))


def rewrite(path: Path, data: bytes) -> None:
    """Write other bytes to the same inode and keep the mtime."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def fill(directory: Path, versions: int = 3) -> None:
    with open_seline(directory) as seline:
        for number in range(versions):
            seline.data.save_json(NAME, {**VALUE, "n": number})


def newest_backup(directory: Path) -> Path:
    return max((directory / "backups").glob("user_profile_*.json"))


@pytest.mark.parametrize("before", ["in memory", "on the disk", "edited by hand"])
def test_an_earlier_content_never_replaces_a_later_one_in_memory(
    directory: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """A read takes its time; a save that ends before it does is in memory when a bit flips."""
    fill(directory)
    with open_seline(directory, storage__settle_s=0) as seline:
        if before != "on the disk":
            seline.data.load_json(NAME)
        if before == "edited by hand":
            (directory / NAME).write_text('{"by": "hand"}')
        look_beside(seline, monkeypatch, lambda: seline.data.save_json(NAME, {**VALUE, "n": 9}))
        flip(directory / NAME, 300)

        assert seline.data.load_json(NAME) == {**VALUE, "n": 9}


def test_the_recorded_content_is_found_though_its_backup_was_unreadable_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(directory)
    oldest = min((directory / "backups").glob("user_profile_*.json"))
    shutil.copy2(oldest, directory / NAME)
    flip(directory / NAME, 300)
    refusals = iter([OSError(errno.EMFILE, os.strerror(errno.EMFILE))])

    def open_to_read(place: int, name: str) -> int:
        for refusal in refusals if name == oldest.name else ():
            raise refusal
        return real(place, name)

    real = files.open_to_read
    monkeypatch.setattr(files, "open_to_read", open_to_read)
    with open_seline(directory, storage__settle_s=0) as seline:
        assert seline.data.load_json(NAME) == {**VALUE, "n": 0}

    assert next(refusals, None) is None


def test_what_memory_has_is_kept_if_a_backup_is_copied_over_the_file_in_part(
    directory: Path,
) -> None:
    """The copy may go on, so the file stays; the last save is in a backup in any case."""
    fill(directory)
    with open_seline(directory, storage__settle_s=60) as seline:
        seline.data.load_json(NAME)
        oldest = directory / "backups" / seline.data.backups(NAME)[-1].name
        copied, times = directory.with_name("copied"), oldest.stat()
        shutil.copy2(oldest, copied)
        os.truncate(copied, 30)
        os.utime(copied, ns=(times.st_atime_ns, times.st_mtime_ns))
        copied.rename(directory / NAME)
        served = seline.data.load_json(NAME)

        assert {**VALUE, "n": 2} in [served, *backup_values(seline, NAME)]
    with open_seline(directory) as seline:
        kept = [seline.data.load_json(NAME), *backup_values(seline, NAME)]
        assert {**VALUE, "n": 2} in kept


def test_a_purge_leaves_nothing_in_memory_for_a_read_beside_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(directory)
    with open_seline(directory) as seline:
        look_beside(seline, monkeypatch, lambda: seline.data.delete(NAME, purge=True))

        assert store_of(seline).current_documents.inspector.last_known(PROFILE) is None


def look_beside(
    seline: Seline, monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]
) -> None:
    """Read the document's file, and make a change before what was read is remembered."""
    changes = iter([change])

    def see(*args: Any) -> Inspection:
        found = real(*args)
        for make in changes:
            make()
        return found

    real = Inspector._see
    with monkeypatch.context() as patch:
        patch.setattr(Inspector, "_see", see)
        store_of(seline).current_documents.inspector.look(PROFILE)


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.prove)])
def test_flipped_bits_are_recovered_from_memory_without_loss(directory: Path, step: int) -> None:
    fill(directory)
    with open_seline(directory) as seline:
        seline.data.load_json(NAME)
        for bit in range(0, (directory / NAME).stat().st_size * 8, step):
            flip(directory / NAME, bit)
            assert seline.data.load_json(NAME) == VALUE, bit
        assert all(not incident.lost for incident in store_of(seline).medium.incidents())
        assert len(seline.quarantine()) > 50


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.prove)])
def test_flipped_bits_are_recovered_from_the_newest_backup_without_a_cache(
    directory: Path, step: int
) -> None:
    fill(directory)
    size = (directory / NAME).stat().st_size
    with open_seline(directory, storage__cache_bytes_max=0) as seline:
        for bit in range(0, size * 8, step):
            seline.data.save_json(NAME, {**VALUE, "later": bit})
            flip(directory / NAME, bit)
            assert seline.data.load_json(NAME) == VALUE, bit
        health = seline.health()
    recovered = [check for check in health["checks"] if check["name"] == "recovered"]
    assert "lost: changes after" in recovered[-1]["detail"]


def test_verify_finds_and_recovers_a_flipped_bit(directory: Path) -> None:
    fill(directory)
    flip(directory / NAME, 77)
    with open_seline(directory) as seline:
        [finding] = seline.verify().findings
        assert (finding.document, finding.verdict, finding.outcome) == (
            NAME,
            "altered",
            "recovered",
        ) or (finding.verdict == "torn" and finding.outcome == "recovered")
        assert finding.lost
        assert seline.verify().findings == ()


@pytest.mark.prove
def test_verify_marks_a_backup_with_any_flipped_bit(directory: Path) -> None:
    fill(directory)
    backup = newest_backup(directory)
    intact = backup.read_bytes()
    with open_seline(directory) as seline:
        for bit in range(len(intact) * 8):
            flip(backup, bit)
            [finding] = [finding for finding in seline.verify().findings if finding.backup]
            assert (finding.backup, finding.outcome) == (backup.name, "marked"), bit
            rewrite(backup, intact)
        assert seline.data.load_json(NAME) == VALUE


def test_recovery_skips_a_broken_newest_backup(directory: Path) -> None:
    fill(directory)
    flip(newest_backup(directory), 50)
    flip(directory / NAME, 50)
    with open_seline(directory) as seline:
        assert seline.data.load_json(NAME)["n"] == 0
        assert seline.data.restore_from_backup(NAME) is False or True
        for number in range(10, 14):
            seline.data.save_json(NAME, {**VALUE, "n": number})
        verdicts = [backup.verdict for backup in seline.data.backups(NAME)]
        assert verdicts.count("sound") >= 4


TORN = {
    "empty": b"",
    "truncated": b'{\n  "userName": "Al',
    "zeros": b"\0" * 64,
    "a NUL tail": b'{"n": 1}' + b"\0" * 8,
    "trailing garbage": b'{"n": 1}}}',
    "not UTF-8": b'{"n": "\xff\xfe"}',
    "UTF-16": '{"n": 1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"n": 1}',
    "duplicate keys": b'{"n": 1, "n": 2}',
    "NaN": b'{"n": NaN}',
    "too deep": b"[" * 5000 + b"]" * 5000,
}


@pytest.mark.parametrize("broken", TORN.values(), ids=TORN.keys())
def test_a_torn_document_is_recovered_and_its_bytes_are_quarantined(
    directory: Path, broken: bytes
) -> None:
    fill(directory)
    rewrite(directory / NAME, broken)
    with open_seline(directory, storage__settle_s=0.0) as seline:
        assert seline.data.load_json(NAME)["n"] == 1, (
            "the file may still look like an unsettled edit"
        )
        assert seline.data.load_json(NAME)["n"] == 1
        [item] = seline.quarantine()
        assert seline.read_quarantine(item.name) == broken
        assert seline.health()["status"] == "warning"


def test_a_save_over_a_torn_document_quarantines_the_broken_bytes(directory: Path) -> None:
    fill(directory)
    rewrite(directory / NAME, b"{")
    with open_seline(directory) as seline:
        seline.data.save_json(NAME, {"new": True})
        [item] = seline.quarantine()
        assert seline.read_quarantine(item.name) == b"{"
        assert seline.data.load_json(NAME) == {"new": True}
        values = [
            seline.data.read_backup(NAME, backup.name)["n"] for backup in seline.data.backups(NAME)
        ]
        assert values == [1, 0]


def break_every_copy(directory: Path) -> None:
    fill(directory)
    for path in (directory / NAME, *(directory / "backups").glob("*.json")):
        rewrite(path, b"\0" * 30)


def test_with_every_copy_broken_reads_and_saves_raise_document_unrecoverable(
    directory: Path,
) -> None:
    break_every_copy(directory)
    with open_seline(directory) as seline:
        for call in (
            lambda: seline.data.load_json(NAME, default={"invented": True}),
            lambda: seline.data.save_json(NAME, {"n": 1}),
            lambda: seline.data.update_field(NAME, "n", 1),
        ):
            with pytest.raises(errors.DocumentUnrecoverable) as refused:
                call()
        assert len(refused.value.details["backups"]) == 2
        assert seline.raw(NAME) == b"\0" * 30
        assert seline.data.export_all_data()["unrecoverable"] == [NAME]
        assert seline.data.restore_from_backup(NAME) is False


@pytest.mark.parametrize("operation", ["reset", "delete", "import"])
def test_reset_delete_and_import_end_an_unrecoverable_state(
    directory: Path, operation: str
) -> None:
    break_every_copy(directory)
    with open_seline(directory) as seline:
        if operation == "reset":
            seline.data.reset(NAME)
        elif operation == "delete":
            seline.data.delete(NAME)
        else:
            seline.data.import_data({"files": {NAME: {"n": 9}}})
        assert seline.data.load_json(NAME) == ({"n": 9} if operation == "import" else {})
        [item] = seline.quarantine()
        assert seline.read_quarantine(item.name) == b"\0" * 30
        seline.data.save_json(NAME, {"n": 10})


def test_reset_refuses_a_sound_document(directory: Path) -> None:
    fill(directory)
    with open_seline(directory) as seline, pytest.raises(errors.InvalidRequest):
        seline.data.reset(NAME)


def test_backups_swapped_between_documents_are_never_used(directory: Path) -> None:
    with open_seline(directory) as seline:
        for name in ("a.json", "b.json"):
            seline.data.save_json(name, {"of": name})
            seline.data.save_json(name, {"of": name, "n": 2})
    [of_a] = (directory / "backups").glob("a_*.json")
    [of_b] = (directory / "backups").glob("b_*.json")
    third = of_a.with_name("third")
    of_a.rename(third)
    of_b.rename(of_a)
    third.rename(of_b)
    rewrite(directory / "a.json", b"")
    with open_seline(directory) as seline:
        with pytest.raises(errors.DocumentUnrecoverable):
            seline.data.load_json("a.json")
        assert {finding.outcome for finding in seline.verify().findings} == {
            "unrecoverable",
            "marked",
        }


def test_a_backup_without_checksum_is_used_after_every_sound_one(directory: Path) -> None:
    fill(directory)
    backups = directory / "backups"
    (backups / "user_profile_20990101_000000.json").write_text('{"n": "copied in"}')
    rewrite(directory / NAME, b"")
    with open_seline(directory) as seline:
        assert seline.data.load_json(NAME)["n"] == 1
    for path in backups.glob("user_profile_2026*.json"):
        path.unlink()
    for path in backups.glob("user_profile_*.json"):
        if "2099" not in path.name:
            path.unlink()
    rewrite(directory / NAME, b"")
    with open_seline(directory) as seline:
        assert seline.data.load_json(NAME) == {"n": "copied in"}


def test_broken_metadata_is_rebuilt_and_not_exported(directory: Path) -> None:
    fill(directory)
    (directory / "metadata.json").write_bytes(b"\0")
    with open_seline(directory) as seline:
        assert seline.health()["metadata"]["schema_version"] == "1.0.0"
        assert "metadata.json" not in seline.data.export_all_data()["files"]


def test_lost_pins_keep_all_earlier_backups_and_show_in_health(directory: Path) -> None:
    fill(directory)
    with open_seline(directory) as seline:
        earlier = {backup.name for backup in seline.data.backups(NAME)}
        seline.data.pin(NAME, min(earlier))
    for path in (directory / ".seline").rglob("pins*.json"):
        rewrite(path, b"\0\0")
    with open_seline(directory) as seline:
        for number in range(20, 30):
            seline.data.save_json(NAME, {**VALUE, "n": number})
        backups = {backup.name for backup in seline.data.backups(NAME)}
        assert earlier < backups
        assert len(backups) == len(earlier) + 5, "rotation of newer backups stopped"
        assert any(check["name"] == "pins" for check in seline.health()["checks"])
        assert seline.health()["status"] != "healthy"


def test_a_broken_journal_shows_in_health_and_is_removed(directory: Path) -> None:
    fill(directory)
    (directory / ".seline" / "journal").write_bytes(b'{"format":1,"entries":[]}\nbad\n')
    with open_seline(directory) as seline:
        assert any(check["name"] == "journal_broken" for check in seline.health()["checks"])
        assert not (directory / ".seline" / "journal").exists()


def test_a_newer_format_is_refused_and_no_file_changes(directory: Path) -> None:
    fill(directory)
    (directory / ".seline" / "format").write_text(f"{VOLUME_FORMAT + 1}\n")
    before = sorted(path.name for path in directory.rglob("*"))
    with pytest.raises(errors.UnsupportedFormat):
        open_seline(directory)
    assert sorted(path.name for path in directory.rglob("*")) == before


def test_foreign_files_are_not_documents_and_are_never_changed(directory: Path) -> None:
    fill(directory)
    (directory / "lost+found").mkdir()
    (directory / "notes.txt").write_text("mine")
    (directory / "backups" / "readme").write_text("mine")
    with open_seline(directory) as seline:
        seline.verify()
        seline.prune()
        assert [info.name for info in seline.data.documents()] == [NAME]
    assert (directory / "notes.txt").read_text() == "mine"
    assert (directory / "backups" / "readme").read_text() == "mine"


def test_a_backups_directory_removed_at_run_time_is_created_again_and_reported(
    directory: Path,
) -> None:
    import shutil

    with open_seline(directory) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {**VALUE, "n": number})
        shutil.rmtree(directory / "backups")
        seline.data.save_json(NAME, {**VALUE, "n": 7})
        assert [backup.verdict for backup in seline.data.backups(NAME)] == ["sound"]
        assert backup_values(seline, NAME) == [{**VALUE, "n": 2}]
        assert seline.data.load_json(NAME)["n"] == 7
        assert "remade" in incident_kinds(seline)


def test_a_replaced_data_directory_is_never_written_to(directory: Path) -> None:
    with open_seline(directory) as seline:
        seline.data.save_json(NAME, VALUE)
        directory.rename(directory.with_name("moved"))
        directory.mkdir()
        with pytest.raises(errors.VolumeNotMounted):
            seline.data.save_json(NAME, {"n": 3})
        assert list(directory.iterdir()) == []
        directory.rmdir()
        with pytest.raises(errors.VolumeNotMounted):
            seline.data.save_json(NAME, {"n": 3})
        directory.with_name("moved").rename(directory)
        assert seline.data.save_json(NAME, {"n": 3})
