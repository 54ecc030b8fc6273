"""Test the quarantine: the order of its items, a prefix per space, and safe item names."""

from datetime import timedelta
from pathlib import Path

import pytest

from seline.blocking import Seline, open_seline
from seline.domain.document import BOT, SELINE, DocumentKey
from seline.errors import DocumentNotFound
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
        assert names[-1].endswith("_119.json")
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
