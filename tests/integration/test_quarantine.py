"""Test the quarantine: the order of its items, a prefix per space, and safe item names."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.document import BOT, SELINE, DocumentKey
from seline.domain.left_out import LEAVE_IT
from seline.errors import DocumentNotFound, VolumeFailed
from seline.folders.legacy import read_legacy_folder
from seline.storage.volume import rotation
from seline.storage.volume.lock import hold
from seline.storage.volume.quarantine import free_aside_name, list_quarantine
from tests.clocks import FakeClock

NAME = "a.json"


def test_items_are_listed_newest_first_when_the_clock_jumps_back(
    tmp_path: Path, clock: FakeClock
) -> None:
    key = DocumentKey(BOT, NAME)
    volume = hold(str(tmp_path), wait_s=0, clock=clock)
    try:
        names = []
        for number in range(120):
            names.append(free_aside_name(volume, key, clock.now() - timedelta(days=number % 2)))
            (tmp_path / "quarantine" / names[-1]).touch()

        assert [item.name for item in list_quarantine(volume)] == names[::-1]
        assert names[-1].endswith("_119.seline.json")
    finally:
        volume.close()


def test_documents_of_the_bot_and_of_seline_get_different_names(
    tmp_path: Path, clock: FakeClock
) -> None:
    volume = hold(str(tmp_path), wait_s=0, clock=clock)
    try:
        names = {
            free_aside_name(volume, DocumentKey(space, "pins.json"), clock.now())
            for space in (BOT, SELINE)
        }
        assert len(names) == 2
    finally:
        volume.close()


@pytest.fixture
def seline(tmp_path: Path) -> Seline:
    return open_seline(tmp_path / "data")


def test_an_item_name_cannot_leave_the_quarantine(seline: Seline) -> None:
    with seline:
        for number in range(2):
            seline.data.save_json(NAME, {"n": number})
        [backup] = seline.data.backups(NAME)

        for item in (f"../backups/{backup.name}", f"..\\{backup.name}", "../a.json", NAME, ""):
            with pytest.raises(DocumentNotFound):
                seline.read_quarantine(item)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_no_file_is_no_item_and_the_disk_did_not_fail(
    seline: Seline, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "data" / "quarantine" / "a_20250106_143022.seline.json"
    with seline:
        seline.data.save_json(NAME, {})
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/etc/hostname")

        assert seline.quarantine() == []
        [left_out] = seline.verify().left_out
        assert f"1 file that Seline did not set aside: {path.name}" in left_out.reason
        with pytest.raises(VolumeFailed, match=r"regular file|symbolic link") as refused:
            seline.read_quarantine(path.name)
        assert str(path) in refused.value.hint
        assert not refused.value.details["disk_failed"]
        seline.data.delete(NAME, purge=True)
        assert os.path.lexists(path), "a purge erases what Seline put there"


@pytest.mark.usefixtures("files_at_once")
def test_no_limit_and_no_purge_removes_a_file_of_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older bot had a folder of this name, too."""
    monkeypatch.setattr(rotation, "QUARANTINE_BYTES_MAX", 1)
    aside = tmp_path / "quarantine"
    aside.mkdir()
    owners = {f"a_2020010{day}_000000.json" for day in range(1, 4)} | {"notes.txt"}
    for name in owners:
        (aside / name).write_text("mine")
    with open_seline(tmp_path, storage__settle_s=0) as seline:
        for number in range(2):
            seline.data.save_json(NAME, {"n": number})
            (tmp_path / NAME).write_text(f"torn {number}")
            seline.data.load_json(NAME)

        assert [item.document for item in seline.quarantine()] == [NAME]
        for name in owners:
            with pytest.raises(DocumentNotFound):
                seline.read_quarantine(name)
        [left_out] = seline.verify().left_out
        assert left_out.name == "quarantine/"
        assert "4 files that Seline did not set aside" in left_out.reason
        seline.data.delete(NAME, purge=True)

    assert set(os.listdir(aside)) == owners


def test_an_import_calls_only_the_items_of_seline_its_state(tmp_path: Path) -> None:
    for name in (".seline", "quarantine"):
        (tmp_path / name).mkdir()
    (tmp_path / "quarantine" / "a_20250106_143022.seline.json").write_text("{")
    assert {item.hint for item in read_legacy_folder(str(tmp_path))[1]} == {LEAVE_IT}

    (tmp_path / "quarantine" / "a_20200101_000000.json").write_text("{}")
    aside, state = read_legacy_folder(str(tmp_path))[1]
    assert (state.name, aside.name) == (".seline/", "quarantine/")
    assert "1 .json file in a folder" in aside.reason
