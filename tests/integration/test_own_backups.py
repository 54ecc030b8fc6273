"""Which files in backups/ are Seline's: no other one is rotated, and none affects the others."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from seline.blocking import open_seline
from seline.domain.document import BOT
from seline.manager.data import DataManager
from seline.operations.operations import Operations
from tests.clocks import FakeClock
from tests.stores import open_managed

NAME = "a.json"


def test_a_copy_under_a_name_that_seline_does_not_give_is_not_rotated(tmp_path: Path) -> None:
    """`cp -a` and `rsync -X` copy the attribute, too."""
    kept = tmp_path / "backups"
    copies = {"a_20200101_000000_1.json", "a_20200101_000000_00.json", "b_20200101_000000.json"}
    with open_seline(tmp_path, backups__keep_newest=1, backups__keep_daily=0) as seline:
        for number in range(2):
            seline.data.save_json(NAME, {"n": number})
        [own] = seline.data.backups(NAME)
        for copy in copies:
            shutil.copy2(kept / own.name, kept / copy)
        for number in range(2, 5):
            seline.data.save_json(NAME, {"n": number})
        seline.data.save_json("b.json", {})
        seline.data.delete("b.json")

        checks = {check["name"]: check["detail"] for check in seline.health()["checks"]}
        assert checks["foreign_backups"].startswith("3 files in backups/ not written by Seline")
        assert copies < {backup.name for backup in seline.all_backups()}
        assert {path.name for path in kept.iterdir()} > copies


@pytest.mark.parametrize("killed", [False, True])
def test_without_attributes_what_was_there_before_is_not_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    """Also if the first opening ended before it was recorded that Seline was there."""
    for call in ("setxattr", "getxattr"):
        monkeypatch.setattr(os, call, _unsupported)
    before = {f"a_2020010{day}_000000.json" for day in range(1, 5)}
    (tmp_path / "backups").mkdir()
    for name in before:
        (tmp_path / "backups" / name).write_text("{}")
    open_seline(tmp_path).close()
    if killed:
        (tmp_path / ".seline" / "format").unlink()
    for first in (0, 5):
        with open_seline(tmp_path, backups__keep_newest=2, backups__keep_daily=0) as seline:
            for number in range(first, first + 5):
                seline.data.save_json(NAME, {"n": number})
            own = {backup.name for backup in seline.data.backups(NAME)} - before
            assert len(own) == 2
            checks = {check["name"]: check["detail"] for check in seline.health()["checks"]}
            assert checks["foreign_backups"].startswith("4 files in backups/")
            assert "copies in backups/ are rotated" in checks["volume"]

    assert {path.name for path in (tmp_path / "backups").iterdir()} == before | own


async def test_a_file_of_the_owner_dated_in_the_future_affects_no_backup(
    tmp_path: Path, clock: FakeClock
) -> None:
    foreign = {"a_20990101_000000.json", "a_20250108_143022.json"}
    (tmp_path / "backups").mkdir()
    for name in foreign:
        (tmp_path / "backups" / name).write_text("{}")
    policy = {"keep_newest": 1, "keep_daily": 2, "deleted_days": 2}
    store = open_managed(tmp_path, clock, **{f"backups__{rule}": n for rule, n in policy.items()})
    data, operations = DataManager(store), Operations(store)
    for number in range(5):
        await data.save_json(NAME, {"n": number})
        clock.advance(86_400)
    names = [backup.name for backup in await data.backups(NAME)]
    assert names[:2] == ["a_20250110_143022.json", "a_20250109_143022.json"]
    assert set(names[2:]) == foreign

    await data.delete(NAME)
    [gone] = (await store.open()).documents(BOT, deleted=True)
    assert gone.updated_at.year == 2025
    for _ in range(4):
        await operations.prune()
        clock.advance(86_400)
    assert {backup.name for backup in await data.backups(NAME)} == foreign
    await store.close()


def test_a_backup_that_is_not_sound_is_listed_with_the_reason(tmp_path: Path) -> None:
    with open_seline(tmp_path) as seline:
        for number in range(3):
            seline.data.save_json(NAME, {"n": number})
        own, other = seline.data.backups(NAME)
        (tmp_path / "backups" / own.name).unlink()
        (tmp_path / "backups" / own.name).mkdir()
        (tmp_path / "backups" / other.name).write_text('{"n"')
        reasons = {backup.name: backup.because for backup in seline.data.backups(NAME)}

    assert "; it is not a regular file; Move it away: `mv -n -- " in reasons[own.name]
    assert "line 1, column 5" in reasons[other.name]


async def test_a_backup_gets_no_name_that_a_file_of_the_owner_has(
    tmp_path: Path, clock: FakeClock
) -> None:
    (tmp_path / "backups").mkdir()
    (tmp_path / "backups" / "a_20250106_143022.json").write_text("{}")
    store = open_managed(tmp_path, clock)
    data = DataManager(store)
    for number in range(3):
        await data.save_json(NAME, {"n": number})
    names = [backup.name for backup in await data.backups(NAME)]
    assert names == [f"a_20250106_143022{counter}.json" for counter in ("_02", "_01", "")]
    await store.close()


def _unsupported(*_: object) -> None:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


@pytest.mark.parametrize("broken", ['{"level": 99, "items": ["sw', ""])
@pytest.mark.parametrize("at_s", [0, 4_000_000_000])
def test_a_recovery_from_a_backup_of_the_owner_may_lose_changes(
    tmp_path: Path, broken: str, at_s: int
) -> None:
    """`cp -r` copies the backup after the document; `cp -a` keeps both times."""
    own = tmp_path / "backups" / "a_20240101_120000.json"
    own.parent.mkdir()
    own.write_text('{"level": 1}\n')
    (tmp_path / NAME).write_text(broken)
    os.utime(tmp_path / NAME, (1e9, 1e9))
    os.utime(own, (at_s, at_s))
    for _ in range(2):  # the second one reads it from quarantine/
        with open_seline(tmp_path, lock_wait_s=0, storage__settle_s=0) as seline:
            assert seline.data.load_json(NAME) == {"level": 1}
            checks = {check["name"]: check["detail"] for check in seline.health()["checks"]}
            assert f"backup {own.name}; lost: changes after 2024-01-01" in checks["recovered"]
