"""Which files in backups/ are Seline's: no other one is rotated, and none affects the others."""

import shutil
from pathlib import Path

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
