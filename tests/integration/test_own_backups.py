"""Which files in backups/ are Seline's: no other one is rotated, and none affects the others."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from seline.blocking import open_seline

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


def _unsupported(*_: object) -> None:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
